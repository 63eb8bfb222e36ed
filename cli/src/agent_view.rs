//! Agents as this program shows them: one JSON form, lines of a table, and a tree.

use std::time::Duration;

use murmur_proto::{
    v1::{AgentOutput, AgentSpec, AgentStatus, Budget, FollowUp, Phase, Progress, Repo, TimelineEntry},
    words::Words,
};
use serde_json::{Value, json};

use crate::{
    output,
    text::{clean, clean_line},
    time,
    view::some,
};

/// How an agent stands, for programs. What is not set is null.
pub(crate) fn agent_json(agent: &AgentStatus) -> Value {
    json!({
        "agent_id": agent.agent_id,
        "slug": agent.slug,
        "phase": agent.phase().word(),
        "reason": some(&agent.reason),
        "exit_code": agent.exit_code,
        "rev": agent.rev,
        "incarnation": agent.incarnation,
        "parent": some(&agent.parent),
        "children": agent.children,
        "node": some(&agent.node),
        "node_id": some(&agent.node_id),
        "version": some(&agent.version),
        "interactive": agent.interactive,
        "stuck": agent.stuck,
        "progress": agent.progress.as_ref().map(progress_json),
        "current_description": some(&agent.current_description),
        "queued": agent.queued,
        "turns": agent.turns,
        "output": agent.output.as_ref().map(output_json),
        "spec": agent.spec.as_ref().map(spec_json),
        "create_time": time::rfc3339(agent.create_time.as_ref()),
        "phase_time": time::rfc3339(agent.phase_time.as_ref()),
        "end_time": time::rfc3339(agent.end_time.as_ref()),
        "keep_until_time": time::rfc3339(agent.keep_until_time.as_ref()),
    })
}

fn progress_json(progress: &Progress) -> Value {
    let Progress { label, detail, time } = progress;
    json!({"label": label, "detail": some(detail), "time": time::rfc3339(time.as_ref())})
}

fn output_json(output: &AgentOutput) -> Value {
    let AgentOutput { response, prs, commits, cost_micros, tokens } = output;
    json!({
        "response": some(response),
        "prs": prs,
        "commits": commits,
        "cost_usd": dollars(*cost_micros),
        "tokens": tokens,
    })
}

/// Without the environment: it may hold what is nobody's business.
fn spec_json(spec: &AgentSpec) -> Value {
    json!({
        "description": spec.description,
        "tasks": spec.tasks,
        "model": some(&spec.model),
        "persona": some(&spec.persona),
        "backend": some(&spec.backend),
        "branch": some(&spec.branch),
        "repos": spec.repos.iter().map(repo_json).collect::<Vec<_>>(),
        "session_mode": said(spec.session_mode()),
        "completion_check": said(spec.completion_check()),
        "on_idle": said(spec.on_idle()),
        "dequeue_strategy": said(spec.dequeue_strategy()),
        "out": said(spec.out()),
        "trust_level": said(spec.trust_level()),
        "mcp_servers": spec.mcp_servers,
        "node": some(&spec.node),
        "labels": spec.labels,
        "budget": spec.budget.as_ref().map(budget_json),
    })
}

/// The word for what was said; nothing when nothing was.
fn said<E: Words + Default>(value: E) -> Option<&'static str> {
    (value != E::default()).then(|| value.word())
}

fn repo_json(repo: &Repo) -> Value {
    let Repo { clone_url, base_branch, branch, pr } = repo;
    let pr = (*pr > 0).then_some(pr);
    json!({"clone_url": clone_url, "base_branch": some(base_branch), "branch": some(branch), "pr": pr})
}

fn budget_json(budget: &Budget) -> Value {
    let Budget { max_cost_micros, max_turns, timeout } = budget;
    json!({
        "max_cost_usd": dollars(*max_cost_micros),
        "max_turns": max_turns,
        "timeout_s": timeout.as_ref().map(|timeout| timeout.seconds),
    })
}

/// Work that waits, for programs.
pub(crate) fn follow_up_json(follow_up: &FollowUp) -> Value {
    json!({
        "follow_up_id": follow_up.follow_up_id,
        "description": follow_up.description,
        "tasks": follow_up.tasks,
        "kind": follow_up.kind().word(),
        "from": follow_up.from,
        "create_time": time::rfc3339(follow_up.create_time.as_ref()),
        "redelivered": follow_up.redelivered,
    })
}

/// What happened to an agent, for programs.
pub(crate) fn timeline_json(entry: &TimelineEntry) -> Value {
    json!({
        "seq": entry.seq,
        "kind": entry.kind().word(),
        "time": time::rfc3339(entry.time.as_ref()),
        "text": entry.text,
        "phase": (entry.phase() != Phase::Unspecified).then(|| entry.phase().word()),
        "incarnation": entry.incarnation,
    })
}

/// Millionths of a dollar as dollars; far below what a float holds exactly.
pub(crate) fn dollars(micros: u64) -> f64 {
    micros as f64 / 1e6
}

/// A cost for people; nothing for nothing.
pub(crate) fn cost(micros: u64) -> String {
    if micros == 0 { String::new() } else { format!("${:.2}", dollars(micros)) }
}

/// Whether nothing more is to come of it.
pub(crate) const fn is_ended(phase: Phase) -> bool {
    matches!(phase, Phase::Completed | Phase::Failed | Phase::Canceled)
}

/// The phase, and that it is silent.
pub(crate) fn phase(agent: &AgentStatus) -> String {
    let stuck = if agent.stuck { ", stuck" } else { "" };
    format!("{}{stuck}", agent.phase().word())
}

/// What it does, or else why it is in its phase, in one line.
pub(crate) fn doing(agent: &AgentStatus) -> String {
    let label = agent.progress.as_ref().map_or("", |progress| progress.label.as_str());
    first_line(if label.is_empty() || is_ended(agent.phase()) { &agent.reason } else { label })
}

/// The beginning of a text, on one line.
pub(crate) fn first_line(text: &str) -> String {
    const CHARS_MAX: usize = 72;
    let line = clean_line(text.trim());
    match line.char_indices().nth(CHARS_MAX) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line,
    }
}

/// A text of several lines, cleaned, under a heading.
pub(crate) fn block(heading: &str, body: &str) -> String {
    format!("{}\n{body}", output::bold(heading))
}

/// What the agent answered, indented so that it cannot pass for a line of ours.
pub(crate) fn response(agent: &AgentStatus) -> Option<String> {
    let response = agent.output.as_ref().map(|output| output.response.as_str()).filter(|text| !text.is_empty())?;
    Some(crate::view::indented(&clean(response)))
}

/// How an agent stands, as a sentence.
pub(crate) fn line(agent: &AgentStatus) -> String {
    let why = if agent.reason.is_empty() { String::new() } else { format!(": {}", clean_line(&agent.reason)) };
    let place = if agent.node.is_empty() { String::new() } else { format!(" on {}", clean_line(&agent.node)) };
    format!("{} is {}{place}{why}", clean_line(&agent.slug), agent.phase().word())
}

/// How an agent stands, and what it answered.
pub(crate) fn told(agent: &AgentStatus) -> String {
    let head = paint(&line(agent), agent);
    response(agent).map_or_else(|| head.clone(), |response| format!("{head}\n{response}"))
}

/// Agents as a tree: each below the nearest of its ancestors that is listed, too.
pub(crate) fn tree(agents: &[AgentStatus]) -> String {
    if agents.is_empty() {
        return "no agents".to_owned();
    }
    let lines = branches(agents);
    let rows = lines.iter().map(|(label, agent)| {
        let cost = cost(agent.output.as_ref().map_or(0, |output| output.cost_micros));
        vec![label.clone(), phase(agent), agent.node.clone(), age(agent), cost, doing(agent)]
    });
    let table = output::table(&["AGENT", "PHASE", "NODE", "AGE", "COST", "DOING"], rows);
    let mut shown = table.lines();
    let head = shown.next().unwrap_or_default().to_owned();
    let painted = shown.zip(&lines).map(|(line, (_, agent))| paint(line, agent));
    std::iter::once(head).chain(painted).collect::<Vec<_>>().join("\n")
}

/// A line about an agent in the colour of its phase.
pub(crate) fn paint(line: &str, agent: &AgentStatus) -> String {
    match agent.phase() {
        Phase::Failed => output::bad(line),
        _ if agent.stuck => output::warn(line),
        Phase::TaskComplete | Phase::Completed => output::good(line),
        _ => line.to_owned(),
    }
}

fn age(agent: &AgentStatus) -> String {
    let Some(created) = &agent.create_time else { return String::new() };
    let seconds = time::now_ms().saturating_sub(murmur_proto::time::unix_ms(created)) / 1000;
    crate::duration::show_coarse(Duration::from_secs(seconds))
}

/// Every agent with its label: the whole slug at the top, what is below its ancestor else, behind the lines of the tree.
fn branches(agents: &[AgentStatus]) -> Vec<(String, &AgentStatus)> {
    let mut sorted: Vec<_> = agents.iter().collect();
    // By segments: `a/b` stands below `a`, before `a-b`.
    sorted.sort_by(|a, b| a.slug.split('/').cmp(b.slug.split('/')));
    let mut above: Vec<usize> = Vec::new();
    let mut parents = Vec::with_capacity(sorted.len());
    for (at, agent) in sorted.iter().enumerate() {
        while above.last().is_some_and(|top| !is_below(&agent.slug, &sorted[*top].slug)) {
            above.pop();
        }
        parents.push(above.last().copied());
        above.push(at);
    }
    let mut is_last = vec![true; sorted.len()];
    let mut later: Vec<Option<usize>> = vec![None; sorted.len()];
    for (at, parent) in parents.iter().enumerate().rev() {
        if let Some(parent) = parent {
            is_last[at] = later[*parent].is_none();
            later[*parent] = Some(at);
        }
    }
    let label = |at: usize| {
        let Some(parent) = parents[at] else { return sorted[at].slug.clone() };
        let below = sorted[at].slug.get(sorted[parent].slug.len() + 1..).unwrap_or(&sorted[at].slug);
        let mut lines = vec![if is_last[at] { "└─ " } else { "├─ " }];
        let mut above = parent;
        while let Some(next) = parents[above] {
            lines.push(if is_last[above] { "   " } else { "│  " });
            above = next;
        }
        lines.reverse();
        lines.concat() + below
    };
    sorted.iter().enumerate().map(|(at, agent)| (label(at), *agent)).collect()
}

fn is_below(slug: &str, above: &str) -> bool {
    slug.strip_prefix(above).is_some_and(|rest| rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(slug: &str, phase: Phase) -> AgentStatus {
        AgentStatus { slug: format!("/w/acme/u/jo/{slug}"), phase: phase.into(), ..AgentStatus::default() }
    }

    #[test]
    fn a_tree_puts_each_agent_below_its_nearest_listed_ancestor() {
        let slugs = ["lead", "lead-2", "lead/a", "lead/a/x/y", "lead/b", "other/deep", "lead/a/z", "lead/b/q"];
        let agents: Vec<_> = slugs.iter().map(|slug| agent(slug, Phase::Running)).collect();
        let shown = tree(&agents);
        let labels: Vec<_> =
            shown.lines().skip(1).map(|line| line.split("  running").next().unwrap().trim_end()).collect();
        assert_eq!(
            labels,
            [
                "/w/acme/u/jo/lead",
                "├─ a",
                "│  ├─ x/y",
                "│  └─ z",
                "└─ b",
                "   └─ q",
                "/w/acme/u/jo/lead-2",
                "/w/acme/u/jo/other/deep",
            ]
        );
    }

    #[test]
    fn what_an_agent_says_fits_on_its_line() {
        let mut silent = agent("a", Phase::Starting);
        silent.reason = "waits for a node with label `gpu`".into();
        assert_eq!(doing(&silent), silent.reason);
        silent.progress = Some(Progress { label: "x\n\u{1b}[2J".repeat(100), ..Progress::default() });
        assert_eq!(doing(&silent).chars().count(), 73);
        assert!(!doing(&silent).contains(['\n', '\u{1b}']));
    }

    #[test]
    fn the_environment_is_not_shown() {
        let mut agent = agent("a", Phase::Running);
        let env = [("KEY".to_owned(), "secret-value".to_owned())].into();
        agent.spec = Some(AgentSpec { env, ..AgentSpec::default() });
        assert!(!agent_json(&agent).to_string().contains("secret-value"));
    }
}
