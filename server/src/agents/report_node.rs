//! What a node says that it runs, held against what it is to run.

use std::collections::HashSet;

use murmur_core::{
    id::{AgentId, NodeId, WorkspaceId},
    phase::Phase,
};
use murmur_proto::v1;

use super::{AgentError, Agents, work::Work};
use crate::{
    db::{
        agent_pruned,
        agent_run::{self, AgentRun},
        node_order::{self, Kind},
        node_runtime,
    },
    invalid::{Invalid, parse, words},
};

const NAMES_MAX: usize = 256;
const NAME_BYTES_MAX: usize = 128;
const RUNNING_MAX: usize = 10_000;
const KEPT_MAX: usize = 1_000;
const CAPACITY_MAX: u32 = 10_000;

impl Agents {
    /// Remembers what a node can run. Agents of the node that it does not run any more have ended; those that it is not to run are
    /// answered.
    ///
    /// # Errors
    /// [`AgentError`].
    pub async fn report_node(
        &self,
        (workspace_id, node_id): (WorkspaceId, NodeId),
        mut request: v1::ReportNodeRequest,
    ) -> Result<v1::ReportNodeResponse, AgentError> {
        check(&request)?;
        let told = std::mem::take(&mut request.running);
        let kept = std::mem::take(&mut request.kept);
        let kept = kept.iter().map(|id| parse("kept", id)).collect::<Result<Vec<AgentId>, _>>()?;
        let mut running = HashSet::new();
        for agent in &told {
            running.insert((parse::<AgentId>("running.agent_id", &agent.agent_id)?, agent.incarnation));
        }
        let mut work = self.begin().await?;
        node_runtime::report(&mut work, node_id, &request).await?;
        for mut run in agent_run::spawned_of_node(&mut work, node_id).await? {
            if !running.contains(&(run.agent_id, run.incarnation)) {
                gone(&mut work, &mut run).await?;
            }
        }
        let mut stop = Vec::new();
        for agent in told {
            let id = parse("running.agent_id", &agent.agent_id)?;
            let run = agent_run::get(&mut work, workspace_id, id).await?;
            let is_wanted = run.is_some_and(|run| {
                run.node_id == Some(node_id) && run.ended_ms.is_none() && run.incarnation == agent.incarnation
            });
            if !is_wanted {
                stop.push(agent);
            }
        }
        let gone = agent_pruned::gone(&mut work, workspace_id, &kept).await?.iter().map(ToString::to_string).collect();
        // There may be room now.
        work.look_again();
        self.commit(work).await?;
        Ok(v1::ReportNodeResponse { stop, gone })
    }
}

/// An agent that its node does not run. One whose start the node has still to hear of is not missing.
async fn gone(work: &mut Work, run: &mut AgentRun) -> Result<(), AgentError> {
    if node_order::is_open(work, run.agent_id, Kind::Start).await? {
        return Ok(());
    }
    match (run.phase, run.end_as) {
        (Phase::Destroying, Some(end)) => {
            let reason = run.end_reason.clone();
            work.end_unseen(run, end, &reason).await
        }
        _ => work.end_unseen(run, Phase::Failed, "process_lost: its node does not run it any more").await,
    }
}

fn check(request: &v1::ReportNodeRequest) -> Result<(), Invalid> {
    let names = |field, names: &mut dyn Iterator<Item = &String>| -> Result<(), Invalid> {
        for (count, name) in names.enumerate() {
            words(field, name, NAME_BYTES_MAX)?;
            if name.is_empty() || count >= NAMES_MAX {
                return Err(Invalid::new(field, format!("must be at most {NAMES_MAX} names, none of them empty")));
            }
        }
        Ok(())
    };
    names("backends", &mut request.backends.iter().map(|backend| &backend.name))?;
    names("labels", &mut request.labels.iter())?;
    names("personas", &mut request.personas.iter())?;
    names("mcp_servers", &mut request.mcp_servers.iter())?;
    words("default_backend", &request.default_backend, NAME_BYTES_MAX)?;
    if request.capacity > CAPACITY_MAX {
        return Err(Invalid::new("capacity", format!("must be at most {CAPACITY_MAX}")));
    }
    if request.kept.len() > KEPT_MAX {
        return Err(Invalid::new("kept", format!("must be at most {KEPT_MAX}")));
    }
    if request.running.len() > RUNNING_MAX {
        return Err(Invalid::new("running", format!("must be at most {RUNNING_MAX}")));
    }
    Ok(())
}
