//! What an agent writes about itself.

use murmur_proto::{time::timestamp, v1};
use prost::Message as _;

use super::{
    AgentError, Agents,
    find::{Who, live},
    idle::over_budget,
    report::{REFS_MAX, RESPONSE_BYTES_MAX, TEXT_BYTES_MAX, cut},
    spec::check_repos,
};
use crate::{
    db::agent_run::AgentRun,
    events,
    invalid::{Invalid, at_most, moment},
    tokens::Principal,
};

const LABEL_BYTES_MAX: usize = 240;
const DETAIL_BYTES_MAX: usize = 4 * 1024;
/// A million dollars.
const COST_MICROS_MAX: u64 = 1_000_000_000_000;
const TOKENS_MAX: u64 = 1_000_000_000_000_000;

impl Agents {
    /// Writes down progress, output and repositories; what is absent stays.
    ///
    /// # Errors
    /// [`AgentError`].
    pub async fn update(
        &self,
        principal: &Principal,
        request: v1::UpdateAgentStatusRequest,
    ) -> Result<AgentRun, AgentError> {
        if let Some(progress) = &request.progress {
            at_most("progress.label", &progress.label, LABEL_BYTES_MAX)?;
            at_most("progress.detail", &progress.detail, DETAIL_BYTES_MAX)?;
            progress.time.as_ref().map_or(Ok(0), |time| moment("progress.time", time))?;
        }
        request.output.as_ref().map_or(Ok(()), check_output)?;
        check_repos(&request.repos)?;
        let mut work = self.begin().await?;
        let who = Who::of(&mut work, principal).await?;
        let mut run = live(&mut work, &who, &request.slug).await?;
        who.require_power(&run.slug, "write about")?;
        if let Some(progress) = request.progress {
            let time = progress.time.or_else(|| Some(timestamp(work.now_ms())));
            run.progress = Some(v1::Progress { time, ..progress });
            events::child_progress(&mut work, &run).await?;
        }
        if let Some(output) = request.output {
            run.output = Some(joined(run.output.take().unwrap_or_default(), output));
        }
        events::registered_by_status(&mut work, &run, &request.repos).await?;
        if !request.repos.is_empty() {
            let repos =
                v1::UpdateAgentStatusRequest { repos: request.repos, ..v1::UpdateAgentStatusRequest::default() };
            run.repos = Some(repos.encode_to_vec());
        }
        work.save(&mut run).await?;
        over_budget(&mut work, &mut run).await?;
        self.commit(work).await?;
        Ok(run)
    }
}

/// Refuses what would have to be cut, and numbers that no agent comes to.
fn check_output(output: &v1::AgentOutput) -> Result<(), Invalid> {
    for (field, refs) in [("output.prs", &output.prs), ("output.commits", &output.commits)] {
        if refs.len() > REFS_MAX {
            return Err(Invalid::new(field, format!("must be at most {REFS_MAX}, got {}", refs.len())));
        }
        refs.iter().try_for_each(|text| at_most(field, text, TEXT_BYTES_MAX))?;
    }
    let numbers =
        [("output.cost_micros", output.cost_micros, COST_MICROS_MAX), ("output.tokens", output.tokens, TOKENS_MAX)];
    match numbers.into_iter().find(|(_, told, max)| told > max) {
        Some((field, told, max)) => Err(Invalid::new(field, format!("must be at most {max}, got {told}"))),
        None => Ok(()),
    }
}

/// What stood there and over it what is said now. Cost and tokens only grow: the budget is counted by them, and an agent lowers neither.
fn joined(before: v1::AgentOutput, said: v1::AgentOutput) -> v1::AgentOutput {
    let either = |said: Vec<String>, before| if said.is_empty() { before } else { said };
    v1::AgentOutput {
        response: if said.response.is_empty() { before.response } else { cut(&said.response, RESPONSE_BYTES_MAX) },
        prs: either(said.prs, before.prs),
        commits: either(said.commits, before.commits),
        cost_micros: said.cost_micros.max(before.cost_micros),
        tokens: said.tokens.max(before.tokens),
    }
}
