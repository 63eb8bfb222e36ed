//! `ls`: agents as a tree, now or as it changes.

use std::{collections::BTreeMap, io::IsTerminal as _};

use murmur_proto::v1::{
    AgentStatus, ListAgentStatusRequest, Phase, WatchAgentStatusRequest, WatchAgentStatusResponse,
    watch_agent_status_response::Item,
};
use serde_json::{Value, json};
use tonic::Streaming;

use super::follow::{Source, follow};
use crate::{
    agent_view::{agent_json, doing, is_ended, paint, phase, tree},
    args::Caller,
    comeback::Comeback,
    connect::Target,
    exit::Exit,
    failure::Failure,
    output::{self, Outcome, Output},
    text::clean_line,
    time,
    word::{number, word},
};

const PAGE: u32 = 500;
/// Begins a picture anew: cursor to the corner, everything below it away (ECMA-48).
const REDRAW: &str = "\u{1b}[H\u{1b}[J";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Include ended ones
    #[arg(long)]
    all: bool,
    /// Agents of this account; `*` for all that you may see [default: your own]
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    account: String,
    /// Only agents below this one
    #[arg(long, value_name = "SLUG", default_value = "", hide_default_value = true)]
    parent: String,
    /// Only agents in this phase
    #[arg(long, value_parser = word::<Phase>())]
    phase: Option<Phase>,
    /// How many at most
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000), value_name = "N")]
    limit: u32,
    /// Follow: the tree is drawn anew with every change; one line a change where stdout is no terminal
    #[arg(long, conflicts_with = "limit")]
    watch: bool,
    #[command(flatten)]
    caller: Caller,
}

pub(crate) async fn run(target: &Target, args: Args, output: Output) -> Outcome {
    if args.watch { watch(target, args, output).await } else { list(target, args, output).await }
}

async fn list(target: &Target, args: Args, output: Output) -> Outcome {
    let Args { all, account, parent, phase, limit, watch: _, caller } = args;
    let mut control = target.control_as(&caller).await?;
    let (mut agents, mut page_token) = (Vec::new(), String::new());
    let is_more = loop {
        let left = limit.saturating_sub(u32::try_from(agents.len()).unwrap_or(u32::MAX));
        let request = ListAgentStatusRequest {
            all,
            account: account.clone(),
            parent: parent.clone(),
            phase: number(phase),
            page_size: left.min(PAGE),
            page_token,
        };
        let page = control.agents.list_agent_status(request).await?.into_inner();
        agents.extend(page.agents);
        if page.next_page_token.is_empty() || agents.len() >= limit as usize {
            break !page.next_page_token.is_empty();
        }
        page_token = page.next_page_token;
    };
    let value = json!({"agents": agents.iter().map(agent_json).collect::<Vec<Value>>(), "more": is_more});
    output.show(&value, || match (agents.is_empty(), all) {
        (true, false) => "no agents; --all shows ended ones".to_owned(),
        _ if is_more => format!("{}\n\nthere are more: raise --limit, or name a --parent", tree(&agents)),
        _ => tree(&agents),
    })
}

async fn watch(target: &Target, args: Args, output: Output) -> Outcome {
    let Args { all, account, parent, phase, limit: _, watch: _, caller } = args;
    let request = WatchAgentStatusRequest { account, parent, all };
    let picture = Picture { agents: BTreeMap::new(), told: BTreeMap::new(), all, phase, is_whole: false, output };
    let watched = Watched { target, caller, request, picture };
    // Whoever is not there to begin with is no reason to wait.
    let first = watched.open().await?;
    tokio::select! {
        ended = follow(watched, Some(first), Comeback::new()) => ended,
        // Interrupting is how one ends this; it is no failure.
        _ = tokio::signal::ctrl_c() => Ok(Exit::Ok),
    }
}

struct Watched<'a> {
    target: &'a Target,
    caller: Caller,
    request: WatchAgentStatusRequest,
    picture: Picture,
}

impl Source for Watched<'_> {
    type Item = WatchAgentStatusResponse;

    async fn open(&self) -> Result<Streaming<WatchAgentStatusResponse>, Failure> {
        let mut control = self.target.control_as(&self.caller).await?;
        Ok(control.agents.watch_agent_status(self.request.clone()).await?.into_inner())
    }

    fn take(&mut self, response: WatchAgentStatusResponse) -> Result<bool, Failure> {
        match response.item {
            Some(Item::Agent(agent)) => self.picture.changed(agent),
            Some(Item::SnapshotDone(_)) => self.picture.whole(),
            // From a newer control plane.
            None => Ok(true),
        }
    }

    fn broke(&mut self, _failure: &Failure) -> bool {
        self.picture.begin_again();
        false
    }
}

/// What is shown while it is watched.
struct Picture {
    agents: BTreeMap<String, AgentStatus>,
    /// The incarnation and revision that was last told of each, so that a stream that begins again repeats nothing.
    told: BTreeMap<String, (u32, u64)>,
    all: bool,
    phase: Option<Phase>,
    is_whole: bool,
    output: Output,
}

impl Picture {
    /// Takes a change; whether somebody still reads.
    fn changed(&mut self, agent: AgentStatus) -> Result<bool, Failure> {
        let is_wanted = self.phase.is_none_or(|phase| phase == agent.phase());
        let state = (agent.incarnation, agent.rev);
        let is_news = self.told.insert(agent.agent_id.clone(), state) != Some(state);
        if is_wanted && is_news && !self.is_drawn() && !self.tell(&agent)? {
            return Ok(false);
        }
        if is_wanted && (self.all || !is_ended(agent.phase())) {
            self.agents.insert(agent.agent_id.clone(), agent);
        } else {
            self.agents.remove(&agent.agent_id);
        }
        self.draw()
    }

    fn whole(&mut self) -> Result<bool, Failure> {
        self.is_whole = true;
        self.draw()
    }

    /// What comes is everything once more: what ended meanwhile does not come.
    fn begin_again(&mut self) {
        self.is_whole = false;
        self.agents.clear();
    }

    fn is_drawn(&self) -> bool {
        !self.output.is_json() && std::io::stdout().is_terminal()
    }

    fn draw(&self) -> Result<bool, Failure> {
        if !self.is_whole || !self.is_drawn() {
            return Ok(true);
        }
        let agents: Vec<_> = self.agents.values().cloned().collect();
        output::is_read(&format!("{REDRAW}{}", tree(&agents)))
    }

    fn tell(&self, agent: &AgentStatus) -> Result<bool, Failure> {
        if self.output.is_json() {
            return output::is_read(&agent_json(agent).to_string());
        }
        let when = time::rfc3339(agent.phase_time.as_ref()).unwrap_or_default();
        let line = format!("{when} {} {} {}", clean_line(&agent.slug), phase(agent), doing(agent));
        output::is_read(&paint(&line, agent))
    }
}
