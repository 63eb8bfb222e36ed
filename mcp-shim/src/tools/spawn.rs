//! `spawn`: start an agent, or one for each of many things.

use std::{collections::BTreeMap, path::Path};

use murmur_proto::{
    file,
    v1::{
        self, AgentSpec, AgentStatus, CompletionCheck, DequeueStrategy, OnIdle, OutputMode, Phase, SessionMode,
        SpawnAgentRequest, TrustLevel,
    },
};
use rmcp::model::ToolAnnotations;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Call, Murmur, Names,
    choice::{Choice, number},
    control::some,
    shown::note,
};
use crate::{errors::Failure, render};

/// Lines of a file of `each`, in bytes.
const EACH_BYTES_MAX: u64 = 1024 * 1024;

pub(super) struct Spawn;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Args {
    /// Name of the new agent, below you: worker, or team/worker. With each, {} in it is replaced.
    #[schemars(length(min = 1))]
    slug: String,
    /// The first prompt: all that the agent needs to know. At most 64 KiB. With each, {} in it is replaced.
    #[schemars(length(min = 1))]
    description: String,
    /// Subjects of its first checklist.
    #[serde(default)]
    #[schemars(length(max = 100))]
    tasks: Vec<String>,
    /// Handed to the runtime.
    #[serde(default)]
    model: Option<String>,
    /// A persona that its node has configured.
    #[serde(default)]
    agent: Option<String>,
    /// A runtime that its node has configured, such as claude, codex, openclaw or command. Default: the node's.
    #[serde(default)]
    backend: Option<String>,
    /// Branch to work on, for repos that name none.
    #[serde(default)]
    branch: Option<String>,
    /// Repositories to work in, each cloned into the working directory.
    #[serde(default)]
    repos: Vec<Repo>,
    /// autonomous works by itself; interactive waits for a person; streaming takes follow-ups into a running turn.
    #[serde(default)]
    #[schemars(extend("default" = "autonomous"))]
    session_mode: Option<Choice<SessionMode>>,
    /// assessor: open checklist items begin another turn.
    #[serde(default)]
    #[schemars(extend("default" = "none"))]
    completion_check: Option<Choice<CompletionCheck>>,
    /// What becomes of it when it has nothing to do. Default: it stays; one whose runtime remembers nothing ends.
    #[serde(default)]
    on_idle: Option<Choice<OnIdle>>,
    /// How many queued follow-ups one turn takes; auto is up to five of one kind.
    #[serde(default)]
    #[schemars(extend("default" = "auto"))]
    dequeue_strategy: Option<Choice<DequeueStrategy>>,
    /// An ended agent of this slug lives again, with its history and checklist.
    #[serde(default)]
    resurrect: bool,
    /// An ended agent of this slug gives way to a new one.
    #[serde(default)]
    force_new: bool,
    /// Slug of an agent with whose history it begins.
    #[serde(default)]
    fork_from: Option<String>,
    /// Added to the runtime's system prompt.
    #[serde(default)]
    append_system_prompt: Option<String>,
    /// What the work is to come out as.
    #[serde(default)]
    #[schemars(extend("default" = "freeform"))]
    out: Option<Choice<OutputMode>>,
    /// One agent for each of these, all or none.
    #[serde(default)]
    #[schemars(length(max = 200))]
    each: Vec<String>,
    /// As each, from the lines of this file; empty lines are left out.
    #[serde(default)]
    each_file: Option<String>,
    /// How far the agent is trusted.
    #[serde(default)]
    #[schemars(extend("default" = "medium"))]
    trust_level: Option<Choice<TrustLevel>>,
    /// Names of MCP servers that its node has configured.
    #[serde(default)]
    mcp_servers: Vec<String>,
    /// Added to its environment.
    #[serde(default)]
    env: BTreeMap<String, String>,
    /// Name of the node that it must run on. Default: any that has room.
    #[serde(default)]
    node: Option<String>,
    /// Bounds; what is left out is unbounded.
    #[serde(default)]
    budget: Option<Budget>,
    /// Default: your own.
    #[serde(default)]
    workspace: Option<String>,
    /// Any key of your own: a repeat with the same key and content starts nothing twice.
    #[serde(default)]
    #[schemars(length(min = 1))]
    idempotency_key: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Repo {
    /// URL, or an absolute path on the node.
    #[schemars(length(min = 1))]
    clone_url: String,
    /// Default: the repository's own.
    #[serde(default)]
    base_branch: Option<String>,
    /// Default: named after the agent.
    #[serde(default)]
    branch: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Budget {
    /// In US dollars.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1_000_000))]
    max_cost_usd: Option<f64>,
    #[serde(default)]
    #[schemars(range(min = 1))]
    max_turns: Option<u32>,
    /// In seconds, from the start on.
    #[serde(default)]
    #[schemars(range(min = 1))]
    timeout_s: Option<u32>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Answer {
    /// Absolute.
    #[serde(skip_serializing_if = "Option::is_none")]
    slug: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    phase: Option<Choice<Phase>>,
    /// What it waits for, while no node has room.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// With each: all of them, in its order.
    #[serde(skip_serializing_if = "Option::is_none")]
    slugs: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<usize>,
}

impl Murmur for Spawn {
    const NAME: &'static str = "spawn";
    const TITLE: &'static str = "Start an agent";
    const DESCRIPTION: &'static str = "Start an agent that works for you, on any node with room. Returns at once, with phase starting; \
        then use `wait` for its result. A live agent of the same slug is refused: give it work with `queue_add`. An ended one needs \
        resurrect=true (goes on with its history) or force_new=true. It shares nothing with you: put everything it must know into \
        description.";
    type Args = Args;
    type Answer = Answer;
    const FIELDS: Names = &[("persona", "agent"), ("budget.timeout", "budget.timeout_s")];

    fn annotations() -> ToolAnnotations {
        ToolAnnotations::new().read_only(false).destructive(false).idempotent(false).open_world(true)
    }

    async fn run(args: Args, call: &Call) -> Result<Answer, Failure> {
        let (request, key) = request(args, call).await?;
        let is_many = !request.each.is_empty();
        let control = call.control().await?;
        let once = |key| {
            let mut agents = control.agents.clone();
            let request = SpawnAgentRequest { idempotency_key: key, ..request.clone() };
            async move { agents.spawn_agent(request).await }
        };
        let agents = Box::pin(call.write(key, once)).await?.agents;
        if is_many { Ok(Answer::many(agents)) } else { Ok(Answer::one(agents.into_iter().next().unwrap_or_default())) }
    }
}

impl Answer {
    fn one(agent: AgentStatus) -> Self {
        Self {
            phase: Choice::known(agent.phase()),
            reason: some(&note(&agent.reason)),
            slug: Some(agent.slug),
            agent_id: Some(agent.agent_id),
            slugs: None,
            count: None,
        }
    }

    fn many(agents: Vec<AgentStatus>) -> Self {
        let count = Some(agents.len());
        let slugs = Some(agents.into_iter().map(|agent| agent.slug).collect());
        Self { slug: None, agent_id: None, phase: None, reason: None, slugs, count }
    }
}

/// The request, without its key.
async fn request(args: Args, call: &Call) -> Result<(SpawnAgentRequest, Option<String>), Failure> {
    let slug = call.slug(Some(args.slug), args.workspace.as_deref()).await?;
    let each = each(args.each, args.each_file)?;
    let spec = AgentSpec {
        description: args.description,
        tasks: args.tasks,
        model: args.model.unwrap_or_default(),
        persona: args.agent.unwrap_or_default(),
        backend: args.backend.unwrap_or_default(),
        branch: args.branch.unwrap_or_default(),
        repos: args.repos.into_iter().map(v1::Repo::from).collect(),
        session_mode: number(args.session_mode),
        completion_check: number(args.completion_check),
        on_idle: number(args.on_idle),
        dequeue_strategy: number(args.dequeue_strategy),
        append_system_prompt: args.append_system_prompt.unwrap_or_default(),
        out: number(args.out),
        trust_level: number(args.trust_level),
        mcp_servers: args.mcp_servers,
        env: args.env,
        node: args.node.unwrap_or_default(),
        labels: Vec::new(),
        budget: args.budget.map(v1::Budget::from),
    };
    let request = SpawnAgentRequest {
        slug,
        spec: Some(spec),
        resurrect: args.resurrect,
        force_new: args.force_new,
        fork_from: args.fork_from.unwrap_or_default(),
        each,
        idempotency_key: String::new(),
    };
    Ok((request, args.idempotency_key))
}

fn each(each: Vec<String>, file: Option<String>) -> Result<Vec<String>, Failure> {
    let Some(path) = file else { return Ok(each) };
    if !each.is_empty() {
        return Err(Failure::argument("argument `each_file` cannot be given beside `each`"));
    }
    let unreadable = |why: String| {
        Failure::argument(format!("argument `each_file`: `{}` cannot be read: {why}", render::short(&path)))
    };
    let text = file::read_text(Path::new(&path), EACH_BYTES_MAX).map_err(|error| unreadable(error.to_string()))?;
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    if lines.is_empty() { Err(unreadable("it has no lines".to_owned())) } else { Ok(lines) }
}

impl From<Repo> for v1::Repo {
    fn from(Repo { clone_url, base_branch, branch }: Repo) -> Self {
        Self { clone_url, base_branch: base_branch.unwrap_or_default(), branch: branch.unwrap_or_default(), pr: 0 }
    }
}

impl From<Budget> for v1::Budget {
    fn from(Budget { max_cost_usd, max_turns, timeout_s }: Budget) -> Self {
        // The schema keeps it between 0 and a million.
        let micros = (max_cost_usd.unwrap_or_default() * 1e6).round() as u64;
        Self {
            max_cost_micros: micros,
            max_turns: max_turns.unwrap_or_default(),
            timeout: timeout_s.map(|s| prost_types::Duration { seconds: s.into(), nanos: 0 }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_a_list_or_the_lines_of_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("each").display().to_string();
        std::fs::write(&path, "one\n\n  two \r\nthree").unwrap();
        assert_eq!(each(Vec::new(), Some(path.clone())).unwrap(), ["one", "two", "three"]);
        assert!(each(vec!["x".into()], Some(path.clone())).is_err());
        std::fs::write(&path, "\n \n").unwrap();
        assert!(each(Vec::new(), Some(path.clone())).unwrap_err().happened.ends_with("it has no lines"));
        std::fs::write(&path, vec![b'x'; 1024 * 1024 + 1]).unwrap();
        assert!(each(Vec::new(), Some(path)).unwrap_err().happened.contains("longer than"));
        assert!(each(Vec::new(), Some("/dev/zero".into())).unwrap_err().happened.ends_with("it is no regular file"));
        assert!(each(Vec::new(), Some("/nonexistent".into())).unwrap_err().happened.contains("`/nonexistent`"));
    }

    #[test]
    fn a_budget_is_exact_to_the_millionth() {
        let budget = Budget { max_cost_usd: Some(0.1), max_turns: None, timeout_s: Some(90) };
        let sent = v1::Budget::from(budget);
        assert_eq!((sent.max_cost_micros, sent.max_turns, sent.timeout.unwrap().seconds), (100_000, 0, 90));
    }
}
