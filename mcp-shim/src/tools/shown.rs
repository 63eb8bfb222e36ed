//! Agents, as the tools show them. What an agent says of itself is data, whatever it says.

use std::time::Duration;

use murmur_core::slug::Slug;
use murmur_proto::{
    time::unix_ms,
    v1::{self, AgentStatus, FollowUpKind, Phase, SessionMode, TimelineKind},
};
use schemars::JsonSchema;
use serde::Serialize;

use super::{choice::Choice, control::some};
use crate::{errors::Failure, render};

/// What is shown at once of a text that somebody else wrote and that is no answer, in bytes.
const NOTE_BYTES_MAX: usize = 1024;

/// One agent in a list.
#[derive(Serialize, JsonSchema)]
pub(super) struct Brief {
    slug: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    phase: Option<Choice<Phase>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    /// What it does right now.
    #[serde(skip_serializing_if = "Option::is_none")]
    progress: Option<String>,
    /// In US dollars, so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    cost: Option<f64>,
    /// Since it was started, such as 5m or 2h.
    age: String,
    /// Why it is in this phase.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl Brief {
    pub(super) fn of(agent: &AgentStatus, now_ms: u64) -> Self {
        let born = agent.create_time.as_ref().map_or(now_ms, unix_ms);
        Self {
            slug: agent.slug.clone(),
            phase: Choice::known(agent.phase()),
            node: some(&agent.node),
            progress: agent.progress.as_ref().and_then(|progress| some(&note(&progress.label))),
            cost: agent.output.as_ref().and_then(|output| dollars(output.cost_micros)),
            age: age(Duration::from_millis(now_ms.saturating_sub(born))),
            reason: some(&note(&agent.reason)),
        }
    }
}

/// All about one agent.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Status {
    slug: String,
    agent_id: AgentId,
    #[serde(skip_serializing_if = "Option::is_none")]
    phase: Option<Choice<Phase>>,
    /// Why it is in this phase: what it waits for, or how it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    /// Nothing was heard from it for long.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    stuck: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    progress: Option<Progress>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_mode: Option<Choice<SessionMode>>,
    /// What it works on, or worked on last.
    #[serde(skip_serializing_if = "Option::is_none")]
    current_description: Option<String>,
    /// Work that waits for its next turn.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    queued_follow_ups: Vec<FollowUp>,
    /// How much work waits for its next turn.
    #[serde(skip_serializing_if = "is_zero")]
    queued: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<Output>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    children: Vec<Brief>,
    /// Oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    timeline: Vec<TimelineEntry>,
}

#[derive(Serialize, JsonSchema)]
struct AgentId {
    workspace: String,
    account: String,
    agent: Vec<String>,
}

#[derive(Serialize, JsonSchema)]
struct Progress {
    label: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<String>,
}

#[derive(Serialize, JsonSchema)]
struct FollowUp {
    description: String,
    from: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tasks: Vec<String>,
    /// Present when it was made from an event.
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<Choice<FollowUpKind>>,
    /// It was handed out before, and its turn may have begun.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    redelivered: bool,
}

/// What came of its work. The texts are what the agent wrote.
#[derive(Serialize, JsonSchema)]
struct Output {
    /// Its last answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    response: Option<String>,
    /// Present when the response goes on: pass it to `status` for more.
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    prs: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    commits: Vec<String>,
    /// In US dollars.
    #[serde(skip_serializing_if = "Option::is_none")]
    cost: Option<f64>,
}

#[derive(Serialize, JsonSchema)]
struct TimelineEntry {
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<Choice<TimelineKind>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<String>,
    /// With kind phase: the one that it came to.
    #[serde(skip_serializing_if = "Option::is_none")]
    phase: Option<Choice<Phase>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
}

impl Status {
    /// The agent alone; `cursor` goes on with an answer that was cut.
    pub(super) fn of(agent: AgentStatus, cursor: Option<&str>) -> Result<Self, Failure> {
        let nothing = v1::AgentOutput::default();
        let output = Output::of(agent.output.as_ref().unwrap_or(&nothing), &agent, cursor)?;
        let mode = agent.spec.as_ref().map(v1::AgentSpec::session_mode).and_then(Choice::known);
        let attached = agent.interactive.then_some(Choice(SessionMode::Interactive));
        Ok(Self {
            agent_id: AgentId::of(&agent.slug),
            phase: Choice::known(agent.phase()),
            reason: some(&note(&agent.reason)),
            exit_code: agent.exit_code,
            stuck: agent.stuck,
            node: some(&agent.node),
            version: some(&agent.version),
            progress: agent.progress.as_ref().and_then(Progress::of),
            session_mode: attached.or(mode),
            current_description: some(&note(&agent.current_description)),
            queued_follow_ups: Vec::new(),
            queued: agent.queued,
            output,
            children: Vec::new(),
            timeline: Vec::new(),
            slug: agent.slug,
        })
    }

    /// With everything that was asked for.
    pub(super) fn whole(
        response: v1::GetAgentStatusResponse,
        cursor: Option<&str>,
        now_ms: u64,
    ) -> Result<Self, Failure> {
        let v1::GetAgentStatusResponse { agent, children, timeline, queued_follow_ups } = response;
        Ok(Self {
            children: children.iter().map(|child| Brief::of(child, now_ms)).collect(),
            timeline: timeline.iter().map(TimelineEntry::of).collect(),
            queued_follow_ups: queued_follow_ups.iter().map(FollowUp::of).collect(),
            ..Self::of(agent.unwrap_or_default(), cursor)?
        })
    }
}

impl AgentId {
    fn of(slug: &str) -> Self {
        let Ok(slug) = slug.parse::<Slug>() else {
            return Self { workspace: String::new(), account: String::new(), agent: vec![slug.to_owned()] };
        };
        Self {
            workspace: slug.workspace().to_string(),
            account: slug.account().to_string(),
            agent: slug.path().segments().map(str::to_owned).collect(),
        }
    }
}

impl Progress {
    fn of(progress: &v1::Progress) -> Option<Self> {
        let v1::Progress { label, detail, time } = progress;
        (!label.is_empty() || !detail.is_empty()).then(|| Self {
            label: note(label),
            detail: some(&note(detail)),
            timestamp: render::time(time.as_ref()),
        })
    }
}

impl FollowUp {
    fn of(follow_up: &v1::FollowUp) -> Self {
        Self {
            description: note(&follow_up.description),
            from: render::clean(&follow_up.from),
            tasks: follow_up.tasks.iter().map(|task| note(task)).collect(),
            kind: Choice::known(follow_up.kind()).filter(|Choice(kind)| *kind == FollowUpKind::Event),
            redelivered: follow_up.redelivered,
        }
    }
}

impl TimelineEntry {
    fn of(entry: &v1::TimelineEntry) -> Self {
        let timestamp = render::time(entry.time.as_ref());
        let (kind, phase) = (Choice::known(entry.kind()), Choice::known(entry.phase()));
        Self { kind, timestamp, phase, text: some(&note(&entry.text)) }
    }
}

impl Output {
    fn of(output: &v1::AgentOutput, agent: &AgentStatus, cursor: Option<&str>) -> Result<Option<Self>, Failure> {
        let v1::AgentOutput { response, prs, commits, cost_micros, tokens: _ } = output;
        let place = Place::of(agent);
        let from = cursor.map_or(Ok(0), |cursor| place.read(cursor, response))?;
        let rest = &response[from..];
        let shown = render::cut(rest, render::TEXT_BYTES_MAX);
        let cursor = (shown.len() < rest.len()).then(|| place.at(from + shown.len()));
        let is_empty = response.is_empty() && prs.is_empty() && commits.is_empty() && *cost_micros == 0;
        Ok((!is_empty).then(|| Self {
            response: some(&render::clean(shown)),
            cursor,
            prs: prs.iter().map(|pr| note(pr)).collect(),
            commits: commits.iter().map(|commit| note(commit)).collect(),
            cost: dollars(*cost_micros),
        }))
    }
}

/// Where in which response a cut one goes on: the response of another turn is another text.
struct Place {
    incarnation: u32,
    turns: u32,
}

impl Place {
    const fn of(agent: &AgentStatus) -> Self {
        Self { incarnation: agent.incarnation, turns: agent.turns }
    }

    fn at(&self, byte: usize) -> String {
        format!("{}.{}.{byte}", self.incarnation, self.turns)
    }

    fn read(&self, cursor: &str, response: &str) -> Result<usize, Failure> {
        let numbers: Option<Vec<usize>> = cursor.split('.').map(|part| part.parse().ok()).collect();
        match numbers.as_deref() {
            Some(&[incarnation, turns, byte])
                if response.is_char_boundary(byte)
                    && (incarnation, turns) == (self.incarnation as usize, self.turns as usize) =>
            {
                Ok(byte)
            }
            Some([_, _, _]) => Err(Failure::argument(
                "argument `cursor` belongs to an earlier answer of this agent; call again without it",
            )),
            _ => Err(Failure::argument("argument `cursor` must be the cursor of an earlier result")),
        }
    }
}

/// A text that others wrote, cleaned and short.
pub(super) fn note(text: &str) -> String {
    let shown = render::cut(text, NOTE_BYTES_MAX);
    let cut = if shown.len() < text.len() { "…" } else { "" };
    render::clean(shown) + cut
}

/// Millionths of a dollar as dollars; nothing for nothing.
fn dollars(micros: u64) -> Option<f64> {
    // Far below 2^53 in any budget.
    (micros > 0).then(|| micros as f64 / 1e6)
}

fn age(age: Duration) -> String {
    match age.as_secs() {
        s @ 0..=119 => format!("{s}s"),
        s @ 120..=7199 => format!("{}m", s / 60),
        s @ 7200..=172_799 => format!("{}h", s / 3600),
        s => format!("{}d", s / 86_400),
    }
}

const fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Unix milliseconds now, for ages.
pub(super) fn now_ms() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn agent(response: &str) -> AgentStatus {
        AgentStatus {
            slug: "/w/acme/u/jo/lead/worker".into(),
            phase: Phase::TaskComplete.into(),
            incarnation: 2,
            turns: 3,
            output: Some(v1::AgentOutput { response: response.into(), ..Default::default() }),
            ..Default::default()
        }
    }

    fn shown(agent: &AgentStatus, cursor: Option<&str>) -> Result<Value, String> {
        let status = Status::of(agent.clone(), cursor).map_err(|failure| failure.happened)?;
        Ok(serde_json::to_value(status).unwrap())
    }

    #[test]
    fn what_is_not_there_is_left_out() {
        assert_eq!(
            shown(&agent("42"), None).unwrap(),
            json!({
                "slug": "/w/acme/u/jo/lead/worker",
                "agentId": {"workspace": "acme", "account": "jo", "agent": ["lead", "worker"]},
                "phase": "task-complete",
                "output": {"response": "42"},
            })
        );
    }

    #[test]
    fn a_long_answer_is_read_whole_by_its_cursor() {
        let long: String = (0..20_000).map(|number| format!("{number}é ")).collect();
        let agent = agent(&long);
        let (mut read, mut cursor) = (String::new(), None::<String>);
        loop {
            let output = shown(&agent, cursor.as_deref()).unwrap()["output"].clone();
            read.push_str(output["response"].as_str().unwrap());
            match output["cursor"].as_str() {
                Some(next) => cursor = Some(next.to_owned()),
                None => break,
            }
        }
        assert_eq!(read, long);
    }

    #[test]
    fn a_cursor_of_another_answer_is_refused() {
        let agent = agent("é");
        for cursor in ["2.4.0", "1.3.0", "2.3.1", "2.3.9", "x", "", "2.3", "2.3.0.0", "-1.0.0"] {
            assert!(shown(&agent, Some(cursor)).unwrap_err().starts_with("argument `cursor`"), "{cursor}");
        }
    }

    #[test]
    fn what_an_agent_says_is_clean_and_short() {
        let long = "x".repeat(5000);
        assert_eq!(note(&long).chars().count(), NOTE_BYTES_MAX + 1);
        assert_eq!(note("a\u{1b}[2J\u{202e}b"), "a[2Jb");
    }
}
