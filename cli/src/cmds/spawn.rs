//! `spawn SLUG TEXT`: starts an agent, or one for each line of a file.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::builder::NonEmptyStringValueParser;
use murmur_proto::v1::{
    AgentSpec, Budget, CompletionCheck, DequeueStrategy, OnIdle, OutputMode, Repo, SessionMode, SpawnAgentRequest,
    TrustLevel,
};
use serde_json::{Value, json};

use super::{body, wait_agent};
use crate::{
    agent_view::{agent_json, line},
    args::{self, Caller},
    comeback::note,
    connect::Target,
    duration,
    failure::{Context as _, Failure},
    output::{Outcome, Output},
    word::{number, word},
};

/// Lines of `--each`, in bytes.
const EACH_BYTES_MAX: u64 = 1024 * 1024;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The new agent's slug, below the calling agent or your account; with --each, `{}` is replaced
    slug: String,
    /// Its first prompt; `-` or nothing reads stdin; with --each, `{}` is replaced
    text: Option<String>,
    /// One agent for each line of this file, `-` for stdin; all of them or none
    #[arg(long, value_name = "FILE")]
    each: Option<PathBuf>,
    /// An item of its first checklist; repeatable
    #[arg(long = "task", value_name = "SUBJECT", help_heading = "Work")]
    tasks: Vec<String>,
    /// A repository to work in, with base branch and branch after `#`; repeatable
    #[arg(long = "repo", value_name = "URL[#BASE[:BRANCH]]", value_parser = repo, help_heading = "Work")]
    repos: Vec<Repo>,
    /// Branch to work on, for repositories that name none
    #[arg(long, value_name = "NAME", help_heading = "Work")]
    branch: Option<String>,
    /// What the work is to come out as
    #[arg(long, value_name = "WAY", value_parser = word::<OutputMode>(), help_heading = "Work")]
    out: Option<OutputMode>,
    /// With `assessor`, open items of the checklist begin another turn
    #[arg(long, value_name = "CHECK", value_parser = word::<CompletionCheck>(), help_heading = "Work")]
    completion_check: Option<CompletionCheck>,
    /// Begin with the history of this agent
    #[arg(long, value_name = "SLUG", default_value = "", hide_default_value = true, help_heading = "Work")]
    fork_from: String,
    /// An ended agent of this slug lives again, with its history and checklist
    #[arg(long, conflicts_with = "force_new")]
    resurrect: bool,
    /// An ended agent of this slug gives way to a new one
    #[arg(long)]
    force_new: bool,
    /// A runtime that the node has configured, such as `claude` or `command` [default: the node's]
    #[arg(long, value_name = "NAME", help_heading = "Runtime")]
    backend: Option<String>,
    /// Handed to the runtime
    #[arg(long, value_name = "NAME", help_heading = "Runtime")]
    model: Option<String>,
    /// A persona that the node has configured
    #[arg(long, value_name = "NAME", help_heading = "Runtime")]
    persona: Option<String>,
    /// How it works: by itself, for a person who attaches, or with follow-ups into the running turn
    #[arg(long, value_name = "MODE", value_parser = word::<SessionMode>(), help_heading = "Runtime")]
    session_mode: Option<SessionMode>,
    /// What becomes of it when it has nothing to do
    #[arg(long, value_name = "WHAT", value_parser = word::<OnIdle>(), help_heading = "Runtime")]
    on_idle: Option<OnIdle>,
    /// How much of its queue one turn takes
    #[arg(long, value_name = "HOW", value_parser = word::<DequeueStrategy>(), help_heading = "Runtime")]
    dequeue_strategy: Option<DequeueStrategy>,
    /// Added to the runtime's system prompt
    #[arg(long, value_name = "TEXT", help_heading = "Runtime")]
    append_system_prompt: Option<String>,
    /// How far it is trusted
    #[arg(long, value_name = "LEVEL", value_parser = word::<TrustLevel>(), help_heading = "Runtime")]
    trust_level: Option<TrustLevel>,
    /// An MCP server that the node has configured; repeatable
    #[arg(long = "mcp-server", value_name = "NAME", help_heading = "Runtime")]
    mcp_servers: Vec<String>,
    /// Added to its environment; repeatable
    #[arg(long = "env", value_name = "NAME=VALUE", value_parser = variable, help_heading = "Runtime")]
    env: Vec<(String, String)>,
    /// The node that it must run on, by name or id
    #[arg(long, value_name = "NODE", help_heading = "Place")]
    node: Option<String>,
    /// A label that its node must have, `name` or `name=value`; repeatable
    #[arg(
        long = "label", value_name = "LABEL", value_parser = NonEmptyStringValueParser::new(), help_heading = "Place"
    )]
    labels: Vec<String>,
    /// Most that it may cost, in US dollars
    #[arg(long, value_name = "USD", value_parser = dollars, allow_negative_numbers = true, help_heading = "Budget")]
    budget_cost: Option<u64>,
    /// Most turns that it may take
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), allow_negative_numbers = true, help_heading = "Budget")]
    budget_turns: Option<u32>,
    /// Longest time that it may live
    #[arg(long, value_name = "TIME", value_parser = duration::parse, help_heading = "Budget")]
    budget_time: Option<Duration>,
    /// Return only when it needs attention, and show its answer; exits as `wait` does
    #[arg(long)]
    wait: bool,
    /// How long to wait with --wait, at most 1h
    #[arg(long, value_parser = duration::parse, default_value = "10m", value_name = "TIME", requires = "wait")]
    timeout: Duration,
    #[command(flatten)]
    caller: Caller,
    /// Your own key: a repeat with the same key and content starts nothing twice
    #[arg(long, value_name = "KEY", value_parser = args::key)]
    idempotency_key: Option<String>,
}

pub(crate) async fn run(target: &Target, args: Args, output: Output) -> Outcome {
    let (caller, timeout, is_waiting) = (args.caller.clone(), args.timeout, args.wait);
    let is_many = args.each.is_some();
    let request = request(args)?;
    let mut control = target.control_as(&caller).await?;
    let agents = control.agents.spawn_agent(request).await?.into_inner().agents;
    if is_waiting {
        // What keeps it from beginning is to be known while one waits.
        for agent in agents.iter().filter(|agent| !agent.reason.is_empty() && !output.is_json()) {
            note(&line(agent));
        }
        let slugs = agents.into_iter().map(|agent| agent.slug).collect();
        return wait_agent::until(target, wait_agent::Wait { caller, slugs, phases: Vec::new(), timeout }, output)
            .await;
    }
    let value = match agents.as_slice() {
        [agent] if !is_many => agent_json(agent),
        agents => json!({
            "slugs": agents.iter().map(|agent| &agent.slug).collect::<Vec<_>>(),
            "count": agents.len(),
            "agents": agents.iter().map(agent_json).collect::<Vec<Value>>(),
        }),
    };
    output.show(&value, || agents.iter().map(line).collect::<Vec<_>>().join("\n"))
}

fn request(args: Args) -> Result<SpawnAgentRequest, Failure> {
    let each = args.each.as_deref().map(lines).transpose()?.unwrap_or_default();
    if args.each.as_deref() == Some(Path::new("-")) && args.text.as_deref().is_none_or(|text| text == "-") {
        return Err(Failure::usage("--each - takes stdin, so the text must be an argument"));
    }
    let budget = Budget {
        max_cost_micros: args.budget_cost.unwrap_or_default(),
        max_turns: args.budget_turns.unwrap_or_default(),
        timeout: args.budget_time.map(wait_agent::proto_duration),
    };
    let spec = AgentSpec {
        description: body::text(args.text)?,
        tasks: args.tasks,
        model: args.model.unwrap_or_default(),
        persona: args.persona.unwrap_or_default(),
        backend: args.backend.unwrap_or_default(),
        branch: args.branch.unwrap_or_default(),
        repos: args.repos,
        session_mode: number(args.session_mode),
        completion_check: number(args.completion_check),
        on_idle: number(args.on_idle),
        dequeue_strategy: number(args.dequeue_strategy),
        append_system_prompt: args.append_system_prompt.unwrap_or_default(),
        out: number(args.out),
        trust_level: number(args.trust_level),
        mcp_servers: args.mcp_servers,
        env: args.env.into_iter().collect(),
        node: args.node.unwrap_or_default(),
        labels: args.labels,
        budget: (budget != Budget::default()).then_some(budget),
    };
    Ok(SpawnAgentRequest {
        slug: args.slug,
        spec: Some(spec),
        resurrect: args.resurrect,
        force_new: args.force_new,
        fork_from: args.fork_from,
        each,
        idempotency_key: args.idempotency_key.unwrap_or_default(),
    })
}

/// The lines of a file, without empty ones.
fn lines(path: &Path) -> Result<Vec<String>, Failure> {
    let shown = path.display();
    let mut text = String::new();
    let read = if path == Path::new("-") {
        std::io::stdin().lock().take(EACH_BYTES_MAX + 1).read_to_string(&mut text)
    } else {
        let file = fs::File::open(path).context(format!("opening `{shown}` for --each"))?;
        file.take(EACH_BYTES_MAX + 1).read_to_string(&mut text)
    };
    read.context(format!("reading `{shown}` for --each"))?;
    if text.len() as u64 > EACH_BYTES_MAX {
        return Err(Failure::usage(format!("--each: `{shown}` is longer than {EACH_BYTES_MAX} bytes")));
    }
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    match lines.is_empty() {
        true => Err(Failure::usage(format!("--each: `{shown}` has no lines"))),
        false => Ok(lines),
    }
}

/// `URL[#BASE[:BRANCH]]`.
fn repo(text: &str) -> Result<Repo, String> {
    let (url, rest) = text.split_once('#').unwrap_or((text, ""));
    let (base, branch) = rest.split_once(':').unwrap_or((rest, ""));
    match url {
        "" => Err("must begin with a URL or a path".to_owned()),
        url => Ok(Repo { clone_url: url.into(), base_branch: base.into(), branch: branch.into(), pr: 0 }),
    }
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("must be NAME=VALUE".to_owned()),
    }
}

/// Dollars with at most six decimals, as millionths.
fn dollars(text: &str) -> Result<u64, String> {
    let rule = || "must be an amount such as 5 or 0.25, with at most 6 decimals".to_owned();
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(decimals) || decimals.len() > 6 {
        return Err(rule());
    }
    let micros = format!("{whole}{decimals:0<6}").parse().map_err(|_| rule())?;
    if micros == 0 { Err("must be more than zero".to_owned()) } else { Ok(micros) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_a_url_with_branches() {
        let read = |text| repo(text).map(|repo| [repo.clone_url, repo.base_branch, repo.branch]);
        assert_eq!(read("https://h/r.git").unwrap(), ["https://h/r.git", "", ""]);
        assert_eq!(read("git@h:r#main").unwrap(), ["git@h:r", "main", ""]);
        assert_eq!(read("/srv/r#main:fix/it").unwrap(), ["/srv/r", "main", "fix/it"]);
        assert_eq!(read("/srv/r#:fix").unwrap(), ["/srv/r", "", "fix"]);
        assert!(read("#main").is_err());
    }

    #[test]
    fn dollars_are_exact() {
        for (text, micros) in [("5", 5_000_000), ("0.25", 250_000), ("1.000001", 1_000_001), ("0.1", 100_000)] {
            assert_eq!(dollars(text), Ok(micros));
        }
        for text in ["", "-1", "1e3", ".5", "1.0000001", "0", "0.000000", "99999999999999999", "1,5"] {
            assert!(dollars(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_variable_has_a_name() {
        assert_eq!(variable("A=b=c"), Ok(("A".into(), "b=c".into())));
        assert_eq!(variable("A="), Ok(("A".into(), String::new())));
        assert!(variable("=x").is_err() && variable("A").is_err());
    }
}
