//! `status SLUG`: all about one agent.

use murmur_proto::{
    v1::{AgentStatus, GetAgentStatusRequest, GetAgentStatusResponse, Phase, TimelineEntry, TimelineKind},
    words::Words as _,
};
use serde_json::{Value, json};

use super::queue;
use crate::{
    agent_view::{agent_json, block, cost, first_line, follow_up_json, phase, response, timeline_json, tree},
    args::Caller,
    connect::Target,
    output::{self, Outcome, Output},
    text::clean_line,
    time,
};

pub(super) async fn run(target: &Target, slug: String, caller: &Caller, output: Output) -> Outcome {
    let timeline = TimelineKind::WORDS.iter().map(|(kind, _)| (*kind).into()).collect();
    let request = GetAgentStatusRequest { slug, children: true, timeline };
    let answer = target.control_as(caller).await?.agents.get_agent_status(request).await?.into_inner();
    let agent = answer.agent.clone().unwrap_or_default();
    output.show(&whole_json(&agent, &answer), || whole_text(&agent, &answer))
}

fn whole_json(agent: &AgentStatus, answer: &GetAgentStatusResponse) -> Value {
    let mut value = agent_json(agent);
    value["children"] = answer.children.iter().map(agent_json).collect();
    value["timeline"] = answer.timeline.iter().map(timeline_json).collect();
    value["queued_follow_ups"] = answer.queued_follow_ups.iter().map(follow_up_json).collect();
    value["queued"] = json!(agent.queued);
    value
}

fn whole_text(agent: &AgentStatus, answer: &GetAgentStatusResponse) -> String {
    let mut blocks = vec![facts(agent)];
    if !answer.children.is_empty() {
        blocks.push(block("below it", &tree(&answer.children)));
    }
    if !answer.queued_follow_ups.is_empty() {
        blocks.push(block("queued", &queue::table(&answer.queued_follow_ups)));
    }
    if !answer.timeline.is_empty() {
        blocks.push(block("what happened", &timeline(&answer.timeline)));
    }
    if let Some(response) = response(agent) {
        blocks.push(block("what it answered", &response));
    }
    blocks.join("\n\n")
}

fn facts(agent: &AgentStatus) -> String {
    let spec = agent.spec.clone().unwrap_or_default();
    let out = agent.output.clone().unwrap_or_default();
    let version = if agent.version.is_empty() { String::new() } else { format!(", version {}", agent.version) };
    let node = if agent.node.is_empty() { String::new() } else { format!("{}{version}", agent.node) };
    let progress = agent.progress.as_ref().map(|progress| {
        let detail = if progress.detail.is_empty() { String::new() } else { format!(" ({})", progress.detail) };
        format!("{}{detail}, {}", progress.label, time::ago(progress.time.as_ref()))
    });
    let again = if agent.incarnation > 1 { format!(", started {} times", agent.incarnation) } else { String::new() };
    let kind = if agent.interactive { "attached by a person" } else { spec.backend.as_str() };
    let kept = agent.keep_until_time.as_ref();
    let kept = kept.map_or_else(String::new, |_| format!("{}, then it is gone for good", time::ahead(kept)));
    let repos: Vec<_> = spec.repos.iter().map(|repo| repo.clone_url.as_str()).collect();
    output::pairs([
        ("agent", agent.slug.clone()),
        ("phase", format!("{}, {}", phase(agent), time::ago(agent.phase_time.as_ref()))),
        ("because", agent.reason.clone()),
        ("exit code", agent.exit_code.map(|code| code.to_string()).unwrap_or_default()),
        ("node", node),
        ("runtime", kind.to_owned()),
        ("doing", progress.map(|text| clean_line(&text)).unwrap_or_default()),
        ("works on", first_line(&agent.current_description)),
        ("started", format!("{}{again}", time::ago(agent.create_time.as_ref()))),
        ("kept until", kept),
        ("turns", agent.turns.to_string()),
        ("queued", agent.queued.to_string()),
        ("cost", cost(out.cost_micros)),
        ("repos", repos.join(", ")),
        ("pull requests", out.prs.join(", ")),
        ("commits", out.commits.join(", ")),
    ])
}

fn timeline(entries: &[TimelineEntry]) -> String {
    let rows = entries.iter().map(|entry| {
        let when = time::rfc3339(entry.time.as_ref()).unwrap_or_default();
        let phase = if entry.phase() == Phase::Unspecified { "" } else { entry.phase().word() };
        vec![when, entry.kind().word().to_owned(), phase.to_owned(), first_line(&entry.text)]
    });
    output::table(&["TIME", "WHAT", "PHASE", ""], rows)
}
