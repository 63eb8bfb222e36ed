//! Choosing a node: by pin, labels and room (AGENTS-AND-TOOLS §3). Whoever fits nowhere waits, with the reason in its status.

use std::collections::{HashMap, hash_map::Entry};

use murmur_core::{
    id::{NodeId, WorkspaceId},
    slug::{AccountName, Slug},
};
use murmur_proto::v1;

use super::{AgentError, work::Work};
use crate::{
    db::{
        Conn, DbError,
        agent::{self, NewAgent},
        agent_run::AgentRun,
        meta,
        node_order::Kind,
        node_runtime::{self, Candidate},
    },
    events,
};

/// The nodes of accounts, read once for a change.
#[derive(Default)]
pub(super) struct Nodes(HashMap<(WorkspaceId, AccountName), Vec<Candidate>>);

impl Nodes {
    async fn of(&mut self, conn: &mut Conn, run: &AgentRun) -> Result<&mut Vec<Candidate>, DbError> {
        match self.0.entry((run.workspace_id, run.account.clone())) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(unknown) => {
                Ok(unknown.insert(node_runtime::candidates(conn, run.workspace_id, &run.account).await?))
            }
        }
    }

    /// Whether anything is to be written about an agent that waits: a node has room for it, or its reason is another one.
    pub(super) async fn is_news(&mut self, conn: &mut Conn, run: &AgentRun) -> Result<bool, DbError> {
        let wish = Wish { slug: &run.slug, spec: &run.spec, at: run.node_id };
        Ok(match choose(self.of(conn, run).await?, &wish) {
            Ok(_) => true,
            Err(why) => run.reason != why,
        })
    }
}

/// Chooses a node and orders the start; an agent that fits nowhere goes on waiting and says why.
pub(super) async fn place(work: &mut Work, run: &mut AgentRun, nodes: &mut Nodes) -> Result<bool, AgentError> {
    let candidates = nodes.of(work, run).await?;
    let wish = Wish { slug: &run.slug, spec: &run.spec, at: run.node_id };
    match choose(candidates, &wish) {
        Ok(chosen) => {
            let chosen = chosen.node_id;
            if let Some(node) = candidates.iter_mut().find(|node| node.node_id == chosen) {
                node.running += 1;
                run.node_name.clone_from(&node.name);
            }
            run.node_id = Some(chosen);
            run.placed = true;
            run.reason = String::new();
            address(work, run).await?;
            work.save(run).await?;
            events::settled(work, run).await?;
            let start = v1::StartAgent {
                spec: Some(run.spec.clone()),
                resume: run.incarnation > 1,
                fork_from_agent_id: run.fork_from.map(|id| id.to_string()).unwrap_or_default(),
                parent: run.parent_slug.clone().unwrap_or_default(),
            };
            work.order(run, Kind::Start, v1::order::Item::Start(start)).await?;
            Ok(true)
        }
        Err(why) => {
            if run.reason != why {
                run.reason = why;
                work.save(run).await?;
            }
            Ok(false)
        }
    }
}

/// Gives the agent its entry in the directory, or its old one back, so that it can be written to.
async fn address(work: &mut Work, run: &AgentRun) -> Result<(), DbError> {
    let Some(node_id) = run.node_id else { return Ok(()) };
    if agent::live(work, run.workspace_id, run.agent_id).await?.is_some() {
        return Ok(());
    }
    let revision = meta::next_revision(work).await?;
    if !agent::revive(work, run.workspace_id, run.agent_id, revision).await? {
        let entry = NewAgent {
            id: run.agent_id,
            workspace_id: run.workspace_id,
            slug: &run.slug,
            node_id,
            kind: agent::Kind::Spawned,
            description: "",
            group: "",
            created_ms: run.created_ms,
            revision,
        };
        agent::insert(work, &entry).await?;
    }
    work.directory_moved(run.workspace_id);
    Ok(())
}

/// Refuses what no node of the account will ever run, as far as they have said what they run.
pub(super) async fn require_known(conn: &mut Conn, run: &AgentRun) -> Result<(), AgentError> {
    let spec = &run.spec;
    let mut candidates = node_runtime::candidates(conn, run.workspace_id, &run.account).await?;
    if !spec.node.is_empty() {
        candidates.retain(|node| is_named(node, &spec.node));
        if candidates.is_empty() {
            return Err(AgentError::NodeNotFound(spec.node.clone()));
        }
    }
    let facts: Vec<_> = candidates.iter().filter_map(|node| node.facts.as_ref()).collect();
    if facts.is_empty() {
        return Ok(());
    }
    if !spec.backend.is_empty() && !facts.iter().any(|facts| has_backend(facts, &spec.backend)) {
        return Err(AgentError::BackendNotFound(spec.backend.clone()));
    }
    if !spec.persona.is_empty() && !facts.iter().any(|facts| facts.personas.contains(&spec.persona)) {
        return Err(AgentError::PersonaNotFound(spec.persona.clone()));
    }
    let is_unknown = |server: &&String| !facts.iter().any(|facts| facts.mcp_servers.contains(server));
    if let Some(server) = spec.mcp_servers.iter().find(is_unknown) {
        return Err(AgentError::McpServerNotFound(server.clone()));
    }
    Ok(())
}

/// What an agent needs.
struct Wish<'a> {
    slug: &'a Slug,
    spec: &'a v1::AgentSpec,
    /// Where its history is.
    at: Option<NodeId>,
}

/// The emptiest node that fits; else why the one that came closest does not.
fn choose<'a>(candidates: &'a [Candidate], wish: &Wish<'_>) -> Result<&'a Candidate, String> {
    let mut closest = (0, "waits for a node of the account: none is enrolled".to_owned());
    let mut fitting = Vec::new();
    for node in candidates {
        match misfit(node, wish) {
            None => fitting.push(node),
            Some((steps, why)) if steps > closest.0 => closest = (steps, why),
            Some(_) => {}
        }
    }
    let emptiest = fitting.into_iter().min_by_key(|node| {
        let facts = node.facts.as_ref();
        let capacity = facts.map_or(1, |facts| facts.capacity).max(1);
        let filled = u64::from(node.running) * 1000 / u64::from(capacity);
        (filled, facts.map_or(0, |facts| facts.load_percent), node.node_id)
    });
    emptiest.ok_or(closest.1)
}

/// Why a node does not fit, and how many conditions it met before.
fn misfit(node: &Candidate, wish: &Wish<'_>) -> Option<(u32, String)> {
    let Wish { slug, spec, at } = wish;
    let name = &node.name;
    if at.is_some_and(|at| at != node.node_id) {
        return Some((1, "waits for the node that has its history, which is not there any more".to_owned()));
    }
    if !spec.node.is_empty() && !is_named(node, &spec.node) {
        return Some((1, format!("waits for node {}", spec.node)));
    }
    if !node.slug_scope.iter().any(|scope| scope.contains(slug)) {
        return Some((2, format!("waits for a node that may name {slug}")));
    }
    let Some(facts) = &node.facts else {
        return Some((3, format!("waits for node {name} to say what it runs")));
    };
    if !has_backend(facts, &spec.backend) {
        return Some((4, lacks_backend(&spec.backend)));
    }
    if !spec.persona.is_empty() && !facts.personas.contains(&spec.persona) {
        return Some((5, format!("waits for a node with the persona {}", spec.persona)));
    }
    if let Some(server) = spec.mcp_servers.iter().find(|server| !facts.mcp_servers.contains(server)) {
        return Some((6, format!("waits for a node with the MCP server {server}")));
    }
    if let Some(label) = spec.labels.iter().find(|label| !facts.labels.contains(label)) {
        return Some((7, format!("waits for a node with the label {label}")));
    }
    if !node.online {
        return Some((8, format!("waits for node {name}, which is offline")));
    }
    if node.running >= facts.capacity {
        return Some((9, format!("waits for room: node {name} runs {} of {}", node.running, facts.capacity)));
    }
    None
}

fn lacks_backend(backend: &str) -> String {
    if backend.is_empty() {
        "names no runtime, and waits for a node with a default one (runtime.default_backend)".to_owned()
    } else {
        format!("waits for a node with the runtime {backend}")
    }
}

fn is_named(node: &Candidate, wanted: &str) -> bool {
    node.name == wanted || wanted.parse() == Ok(node.node_id)
}

fn has_backend(facts: &v1::ReportNodeRequest, wanted: &str) -> bool {
    let wanted = if wanted.is_empty() { facts.default_backend.as_str() } else { wanted };
    facts.backends.iter().any(|backend| backend.name == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u8, running: u32, capacity: u32, labels: &[&str]) -> Candidate {
        Candidate {
            node_id: NodeId::from_bytes([number; 16]),
            name: format!("host{number}"),
            online: true,
            slug_scope: vec!["/w/acme/u/jdoe/".parse().unwrap()],
            facts: Some(v1::ReportNodeRequest {
                backends: vec![v1::NodeBackend { name: "command".into(), ..v1::NodeBackend::default() }],
                default_backend: "command".into(),
                labels: labels.iter().map(|label| (*label).to_owned()).collect(),
                capacity,
                ..v1::ReportNodeRequest::default()
            }),
            running,
        }
    }

    fn chosen(nodes: &[Candidate], spec: &v1::AgentSpec) -> Result<String, String> {
        let slug = "/w/acme/u/jdoe/a".parse().unwrap();
        choose(nodes, &Wish { slug: &slug, spec, at: None }).map(|node| node.name.clone())
    }

    #[test]
    fn the_emptiest_node_that_fits_is_chosen() {
        let nodes = [node(1, 2, 4, &[]), node(2, 3, 10, &["gpu"]), node(3, 0, 0, &[])];
        assert_eq!(chosen(&nodes, &v1::AgentSpec::default()), Ok("host2".to_owned()));
        let pinned = v1::AgentSpec { node: "host1".into(), ..v1::AgentSpec::default() };
        assert_eq!(chosen(&nodes, &pinned), Ok("host1".to_owned()));
        let labelled = v1::AgentSpec { labels: vec!["gpu".into()], ..v1::AgentSpec::default() };
        assert_eq!(chosen(&nodes, &labelled), Ok("host2".to_owned()));
    }

    #[test]
    fn whoever_fits_nowhere_is_told_by_the_node_that_came_closest() {
        let why = |nodes: &[Candidate], spec: v1::AgentSpec| chosen(nodes, &spec).unwrap_err();
        assert!(why(&[], v1::AgentSpec::default()).contains("none is enrolled"));
        let full = [node(1, 4, 4, &[])];
        assert_eq!(why(&full, v1::AgentSpec::default()), "waits for room: node host1 runs 4 of 4");
        let labelled = v1::AgentSpec { labels: vec!["gpu".into()], ..v1::AgentSpec::default() };
        assert_eq!(why(&full, labelled), "waits for a node with the label gpu");
        let away = [Candidate { online: false, ..node(1, 0, 4, &[]) }];
        assert_eq!(why(&away, v1::AgentSpec::default()), "waits for node host1, which is offline");
        let silent = [Candidate { facts: None, ..node(1, 0, 4, &[]) }];
        assert!(why(&silent, v1::AgentSpec::default()).contains("say what it runs"));
        let served = v1::AgentSpec { mcp_servers: vec!["jira".into()], ..v1::AgentSpec::default() };
        assert_eq!(why(&full, served), "waits for a node with the MCP server jira");
        let elsewhere = v1::AgentSpec { backend: "codex".into(), ..v1::AgentSpec::default() };
        assert_eq!(why(&full, elsewhere), "waits for a node with the runtime codex");
    }
}
