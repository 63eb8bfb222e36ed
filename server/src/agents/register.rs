//! Agents that register themselves: their lives begin and end with their entries in the directory (DESIGN §8 point 1).

use murmur_core::{
    id::{AgentId, NodeId, WorkspaceId},
    phase::Phase,
    slug::Slug,
};
use murmur_proto::v1;

use super::{
    AgentError, end,
    find::{parent_of, require_open},
    work::Work,
};
use crate::db::{
    Conn, DbError,
    agent::NewAgent,
    agent_run::{self, AgentRun, Backlog},
};

/// Refuses a name that the life of another agent holds, or that lies below one that is being ended.
pub(crate) async fn require_free(conn: &mut Conn, workspace_id: WorkspaceId, slug: &Slug) -> Result<bool, AgentError> {
    require_open(conn, workspace_id, slug).await?;
    Ok(agent_run::live_by_slug(conn, workspace_id, slug).await?.is_none())
}

/// Begins the life of an agent that registered itself: it is there, and nothing is to be done.
pub(crate) async fn registered(work: &mut Work, agent: &NewAgent<'_>) -> Result<(), DbError> {
    let parent = parent_of(work, agent.workspace_id, agent.slug).await?;
    let run = AgentRun {
        agent_id: agent.id,
        workspace_id: agent.workspace_id,
        account: agent.slug.account().clone(),
        slug: agent.slug.clone(),
        parent_id: parent.map(|parent| parent.agent_id),
        interactive: true,
        node_id: Some(agent.node_id),
        placed: true,
        phase: Phase::Idle,
        rev: 1,
        incarnation: 1,
        reason: String::new(),
        end_as: None,
        end_reason: String::new(),
        spec: v1::AgentSpec { session_mode: v1::SessionMode::Interactive.into(), ..v1::AgentSpec::default() },
        fork_from: None,
        current_description: String::new(),
        progress: None,
        output: None,
        repos: None,
        stuck: false,
        turns: 0,
        exit_code: None,
        created_ms: agent.created_ms,
        phase_ms: agent.created_ms,
        deadline_ms: None,
        ended_ms: None,
        change: agent_run::next_change(work).await?,
        node_name: String::new(),
        node_version: String::new(),
        parent_slug: None,
        children: 0,
        backlog: Backlog::default(),
    };
    agent_run::insert(work, &run).await?;
    work.begun(&run).await
}

/// An agent lives on another node from now on: what happens around it is told there.
pub(crate) async fn moved(
    work: &mut Work,
    workspace_id: WorkspaceId,
    id: AgentId,
    node_id: NodeId,
) -> Result<(), AgentError> {
    let Some(mut run) = agent_run::get(work, workspace_id, id).await? else { return Ok(()) };
    require_open(work, workspace_id, &run.slug).await?;
    run.node_id = Some(node_id);
    work.save(&mut run).await?;
    Ok(())
}

/// Ends the life of an agent with its entry in the directory; false when there was none.
pub(crate) async fn deregistered(work: &mut Work, workspace_id: WorkspaceId, id: AgentId) -> Result<bool, AgentError> {
    let Some(mut run) = agent_run::get(work, workspace_id, id).await?.filter(|run| run.ended_ms.is_none()) else {
        return Ok(false);
    };
    let (end, reason) = match run.end_as {
        Some(ordered) => (ordered, run.end_reason.clone()),
        None => (Phase::Completed, "deregistered".to_owned()),
    };
    let has_process = end::has_process(&run);
    work.end_as(&mut run, end, &reason).await?;
    if has_process {
        // It has ended for everybody else; its node ends what still runs of it.
        end::stop(work, &run, end, &reason).await?;
    }
    Ok(true)
}
