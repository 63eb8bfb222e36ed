//! The one way into a log.

use murmur_core::{
    event::{Draft, RepoName, branch},
    limits::EVENTS_KEPT_MAX,
    phase::Phase,
};

use super::follow_up;
use crate::{
    agents::Work,
    db::{
        Conn, DbError,
        agent_run::AgentRun,
        event::{self, About, NewEvent},
    },
};

/// Writes an event into an agent's log, inside a change. False when it stands there already, which changes nothing. An agent that has ended
/// is told nothing: false, too.
///
/// # Errors
/// [`DbError`].
pub(crate) async fn put(work: &mut Work, run: &AgentRun, draft: Draft) -> Result<bool, DbError> {
    put_phase(work, run, draft, (None, None)).await
}

/// As [`put`], for an event that tells of a child's step from one phase to another.
pub(super) async fn put_phase(
    work: &mut Work,
    run: &AgentRun,
    draft: Draft,
    (from, to): (Option<Phase>, Option<Phase>),
) -> Result<bool, DbError> {
    let draft = draft.cleaned();
    if run.ended_ms.is_some() || event::exists(work, run.agent_id, &draft.event_id).await? {
        return Ok(false);
    }
    let key = draft.supersede_key();
    let is_late = !draft.withheld && is_late(work, run, &draft, key.as_deref()).await?;
    if is_late && draft.kind.is_fleeting() {
        return Ok(false);
    }
    if let Some(key) = key.as_deref().filter(|_| !is_late && !draft.withheld) {
        event::supersede(work, run.agent_id, key, draft.kind.is_fleeting()).await?;
    }
    let queued = !is_late
        && draft.needs_attention(from, to)
        && follow_up::takes_work(work, run).await?
        && follow_up::give(work, run, &draft, key.as_deref()).await?;
    let new = NewEvent {
        agent_id: run.agent_id,
        workspace_id: run.workspace_id,
        node_id: run.node_id,
        draft: &draft,
        about: &about(&draft),
        supersede_key: key.as_deref(),
        superseded: is_late,
        queued,
        receive_ms: work.now_ms(),
    };
    let kept = event::append(work, &new).await?;
    make_room(work, run, kept).await?;
    work.event_added(run);
    Ok(true)
}

/// Whether something that happened later stands for the same already.
async fn is_late(conn: &mut Conn, run: &AgentRun, draft: &Draft, key: Option<&str>) -> Result<bool, DbError> {
    let Some(key) = key else { return Ok(false) };
    let current = event::current(conn, run.agent_id, key).await?;
    Ok(current.is_some_and(|time_ms| time_ms > draft.time_ms))
}

/// Lets go of what is too much: first of what something newer says, then of the oldest, with a gap in its place.
async fn make_room(work: &mut Work, run: &AgentRun, mut kept: u64) -> Result<(), DbError> {
    let now_ms = work.now_ms();
    while kept > EVENTS_KEPT_MAX {
        if !event::drop_spare(work, run.agent_id).await? {
            // The first gap takes the place of an event; from then on every event that goes takes the gap before it along.
            let Some(oldest) = event::oldest(work, run.agent_id).await? else { return Ok(()) };
            event::cut(work, run.agent_id, oldest, now_ms).await?;
        }
        kept = event::kept(work, run.agent_id).await?;
    }
    Ok(())
}

/// What readers filter by.
fn about(draft: &Draft) -> About {
    let value = |name: &str| draft.attributes.get(name).map_or("", String::as_str);
    let repo = value("repo").parse::<RepoName>().map(|repo| repo.to_string()).unwrap_or_default();
    About { repo, branch: branch(value("branch")).to_owned(), pr: value("pr").parse().unwrap_or_default() }
}

/// What came for an agent before it had a node is told to the node that it has now.
///
/// # Errors
/// [`DbError`].
pub(crate) async fn settled(work: &mut Work, run: &AgentRun) -> Result<(), DbError> {
    let Some(node_id) = run.node_id else { return Ok(()) };
    if event::settle(work, run.agent_id, node_id).await? {
        work.event_added(run);
    }
    Ok(())
}
