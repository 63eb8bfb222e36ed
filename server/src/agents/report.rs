//! What nodes tell of their agents: checked, applied in the order of its happening, once.

use murmur_core::{
    id::{AgentId, NodeId, WorkspaceId},
    limits::IDEMPOTENCY_MS,
    phase::Phase,
};
use murmur_proto::{time::unix_ms, v1};
use prost::Message as _;
use sha2::{Digest, Sha256};

use super::{
    AgentError, Agents,
    end::{read, wire},
    idle::over_budget,
    work::Work,
};
use crate::{
    db::{
        DbError,
        agent_run::{self, AgentRun},
        follow_up,
        idempotency::{self, Answered, Key},
        node_order,
    },
    events,
    idempotency::OnceError,
    invalid::{Invalid, parse},
};

const REPORTS_MAX: usize = 1000;
const TIMELINE_MAX: usize = 100;
pub(super) const TEXT_BYTES_MAX: usize = 1024;
const LABEL_BYTES_MAX: usize = 240;
const DETAIL_BYTES_MAX: usize = 4 * 1024;
pub(super) const RESPONSE_BYTES_MAX: usize = 64 * 1024;
const DESCRIPTION_BYTES_MAX: usize = 64 * 1024;
pub(super) const REFS_MAX: usize = 200;
const METHOD: &str = "ReportAgents";

/// What became of the reports of one call.
pub type Told = v1::ReportAgentsResponse;

impl Agents {
    /// Applies what a node tells, all of it or nothing. A repeat is answered as before and not applied again.
    ///
    /// # Errors
    /// [`AgentError`].
    pub async fn report(
        &self,
        place: (WorkspaceId, NodeId),
        request: v1::ReportAgentsRequest,
    ) -> Result<Told, AgentError> {
        let v1::ReportAgentsRequest { reports, report_id } = request;
        // A UUID is all that is asked of it.
        let id: AgentId = parse("report_id", &report_id).map_err(|_| Invalid::new("report_id", "must be a UUID"))?;
        if reports.len() > REPORTS_MAX {
            return Err(Invalid::new("reports", format!("must be at most {REPORTS_MAX}, got {}", reports.len())).into());
        }
        let digest = Sha256::digest(
            v1::ReportAgentsRequest { reports: reports.clone(), report_id: String::new() }.encode_to_vec(),
        );
        let digest: [u8; 32] = digest.into();
        let mut work = self.begin().await?;
        let (id, now_ms) = (id.to_string(), work.now_ms());
        let key = Key { caller: place.1.as_bytes(), method: METHOD, key: &id };
        let since_ms = now_ms.saturating_sub(IDEMPOTENCY_MS);
        if let Some(before) = idempotency::get(&mut work, key, since_ms).await? {
            if before.digest != digest {
                return Err(OnceError::Conflict(report_id).into());
            }
            let told = Told::decode(before.answer.as_slice()).map_err(|_| DbError::Corrupt { column: "answer" })?;
            return Ok(told);
        }
        let mut told = Told { results: Vec::with_capacity(reports.len()) };
        for report in reports {
            told.results.push(self.apply(&mut work, place, report).await?);
        }
        idempotency::forget(&mut work, since_ms).await?;
        idempotency::put(&mut work, key, &Answered { digest, answer: told.encode_to_vec() }, now_ms).await?;
        self.commit(work).await?;
        Ok(told)
    }

    async fn apply(
        &self,
        work: &mut Work,
        (workspace_id, node_id): (WorkspaceId, NodeId),
        report: v1::AgentReport,
    ) -> Result<v1::AgentReportResult, AgentError> {
        let wanted = read_phase(&report)?;
        let id: AgentId = parse("reports.agent_id", &report.agent_id)?;
        for order_id in &report.order_ids {
            node_order::finish(work, (node_id, id), *order_id).await?;
        }
        let found = agent_run::get(work, workspace_id, id).await?.filter(|run| run.node_id == Some(node_id));
        let Some(mut run) = found else {
            return Ok(v1::AgentReportResult { stale: true, ..v1::AgentReportResult::default() });
        };
        if run.incarnation != report.incarnation || run.ended_ms.is_some() {
            return Ok(answer(&run, true, String::new()));
        }
        let told_ms = report.time.as_ref().map_or(work.now_ms(), unix_ms);
        note_facts(work, &mut run, &report).await?;
        for entry in report.timeline.iter().take(TIMELINE_MAX) {
            let at_ms = entry.time.as_ref().map_or(told_ms, unix_ms);
            work.note(&run, entry.kind(), at_ms, &cut(&entry.text, TEXT_BYTES_MAX)).await?;
        }
        if wanted == Some(Phase::Running) {
            follow_up::set_due(work, id, false).await?;
        }
        events::files::copies_told(work, &run, &report.copies).await?;
        let mut refused = String::new();
        if let Some(to) = wanted.filter(|to| *to != run.phase) {
            // A turn begins with its prompt.
            let turns = run.turns + u32::from(to == Phase::Running && !report.current_description.is_empty());
            match self.advance(work, &mut run, to, turns, &cut(&report.reason, TEXT_BYTES_MAX)).await {
                Ok(()) => {}
                Err(AgentError::Phase(error)) => refused = error.to_string(),
                Err(error) => return Err(error),
            }
        } else if wanted.is_some() && !report.reason.is_empty() && run.phase != Phase::Destroying {
            run.reason = cut(&report.reason, TEXT_BYTES_MAX);
            work.save(&mut run).await?;
        }
        over_budget(work, &mut run).await?;
        Ok(answer(&run, false, refused))
    }

    /// Moves an agent by its node's word. An end is reached from anywhere, and one that was ordered ends as it was ordered to.
    async fn advance(
        &self,
        work: &mut Work,
        run: &mut AgentRun,
        to: Phase,
        turns: u32,
        reason: &str,
    ) -> Result<(), AgentError> {
        if to.is_ended() {
            let (to, reason) = match run.end_as {
                Some(ordered) if run.phase == Phase::Destroying => (ordered, run.end_reason.clone()),
                _ => (to, reason.to_owned()),
            };
            return work.end_as(run, to, &reason).await;
        }
        if to == Phase::Starting {
            // A start is ordered and never told.
            return Err(murmur_core::phase::InvalidTransition { from: run.phase, to }.into());
        }
        run.phase.become_(to)?;
        run.turns = turns;
        work.become_(run, to, reason).await?;
        if to == Phase::TaskComplete {
            let text = run.output.as_ref().map(|output| cut(&output.response, TEXT_BYTES_MAX)).unwrap_or_default();
            work.note(run, v1::TimelineKind::TaskComplete, work.now_ms(), &text).await?;
        }
        self.follow(work, run).await
    }
}

/// What a report says beside the phase.
async fn note_facts(work: &mut Work, run: &mut AgentRun, report: &v1::AgentReport) -> Result<(), AgentError> {
    let mut changed = false;
    if let Some(progress) = &report.progress {
        run.progress = Some(v1::Progress {
            label: cut(&progress.label, LABEL_BYTES_MAX),
            detail: cut(&progress.detail, DETAIL_BYTES_MAX),
            time: progress.time.or(report.time),
        });
        events::child_progress(work, run).await?;
        changed = true;
    }
    if let Some(output) = &report.output {
        run.output = Some(joined(run.output.take(), bounded(output)));
        events::registered_by_status(work, run, &[]).await?;
        changed = true;
    }
    if !report.current_description.is_empty() {
        run.current_description = cut(&report.current_description, DESCRIPTION_BYTES_MAX);
        changed = true;
    }
    if let Some(stuck) = report.stuck {
        changed |= run.stuck != stuck;
        run.stuck = stuck;
    }
    if report.exit_code.is_some() {
        run.exit_code = report.exit_code;
        changed = true;
    }
    if changed {
        work.save(run).await?;
    }
    Ok(())
}

/// What a turn came out as, with what the agent told of itself: a runtime that knows of no pull requests, commits or costs takes none away.
fn joined(before: Option<v1::AgentOutput>, mut output: v1::AgentOutput) -> v1::AgentOutput {
    let before = before.unwrap_or_default();
    if output.prs.is_empty() {
        output.prs = before.prs;
    }
    if output.commits.is_empty() {
        output.commits = before.commits;
    }
    if output.cost_micros == 0 {
        output.cost_micros = before.cost_micros;
    }
    if output.tokens == 0 {
        output.tokens = before.tokens;
    }
    output
}

/// An output within its limits.
fn bounded(output: &v1::AgentOutput) -> v1::AgentOutput {
    let few = |texts: &[String]| texts.iter().take(REFS_MAX).map(|text| cut(text, TEXT_BYTES_MAX)).collect();
    v1::AgentOutput {
        response: cut(&output.response, RESPONSE_BYTES_MAX),
        prs: few(&output.prs),
        commits: few(&output.commits),
        cost_micros: output.cost_micros,
        tokens: output.tokens,
    }
}

/// The phase that is told; `None` when it stays.
fn read_phase(report: &v1::AgentReport) -> Result<Option<Phase>, Invalid> {
    let phase = v1::Phase::try_from(report.phase)
        .map_err(|_| Invalid::new("reports.phase", "must be a phase of the contract"))?;
    Ok(read(phase))
}

fn answer(run: &AgentRun, stale: bool, refused: String) -> v1::AgentReportResult {
    v1::AgentReportResult { stale, refused, phase: wire(run.phase).into(), rev: run.rev }
}

/// The beginning of a text, whole characters.
pub(super) fn cut(text: &str, bytes_max: usize) -> String {
    text[..text.floor_char_boundary(bytes_max)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(cut("aé", 2), "a");
        assert_eq!(cut("aé", 3), "aé");
        assert_eq!(cut("", 0), "");
    }
}
