//! What a parent is told of its children, and people of what no node saw, by the control plane itself.

use murmur_core::{
    event::{Draft, EventKind, Origin},
    phase::Phase,
};
use murmur_proto::time::unix_ms;

use super::put::{put, put_phase};
use crate::{
    agents::Work,
    db::{
        DbError,
        agent_run::{self, AgentRun},
        node,
        node_event::{self, Whom},
    },
};

/// How long what [`failed_unseen`] tells is kept for nodes that are away: people are not told of it any more long before.
const UNSEEN_LIFE_MS: u64 = 24 * 3600 * 1000;

/// Tells an agent's parent that it has another phase, in the change in which it gets it: once for each.
///
/// # Errors
/// [`DbError`].
pub(crate) async fn child_phase(work: &mut Work, run: &AgentRun, from: Option<Phase>) -> Result<(), DbError> {
    let Some(parent) = parent(work, run).await? else { return Ok(()) };
    let draft = phase_draft(run, work.now_ms());
    put_phase(work, &parent, draft, (from, Some(run.phase))).await?;
    Ok(())
}

/// Tells the people of an agent's account that it failed, where its node may not have seen it: by every node of theirs that listens, and by
/// its own once that does. The parent's node has it from the parent's log. Whoever hears of it from two sides tells it once.
///
/// # Errors
/// [`DbError`].
pub(crate) async fn failed_unseen(work: &mut Work, run: &AgentRun) -> Result<(), DbError> {
    let told = parent(work, run).await?.filter(|parent| parent.ended_ms.is_none()).and_then(|parent| parent.node_id);
    let nodes = node::listening(work, run.workspace_id, &run.account, run.node_id).await?;
    let now_ms = work.now_ms();
    let draft = phase_draft(run, now_ms).cleaned();
    let whom = Whom { workspace_id: run.workspace_id, agent_id: run.agent_id, slug: &run.slug };
    for node_id in nodes.into_iter().filter(|node_id| Some(*node_id) != told) {
        node_event::append(work, node_id, whom, &draft).await?;
        work.node_told(node_id);
    }
    node_event::forget(work, now_ms.saturating_sub(UNSEEN_LIFE_MS)).await
}

/// An agent's phase as it is told.
fn phase_draft(run: &AgentRun, now_ms: u64) -> Draft {
    let AgentRun { agent_id, slug, phase, rev, incarnation, reason, .. } = run;
    let mut text = format!("{slug} is {phase}");
    if !reason.is_empty() {
        text = format!("{text}: {reason}");
    }
    if let Some(output) = run.output.as_ref().filter(|output| has_result(*phase) && !output.response.is_empty()) {
        text = format!("{text}\n\n{}", output.response);
    }
    let event_id = format!("murmur:child:{agent_id}:{rev}");
    Draft::new(EventKind::ChildLifecycle, event_id, Origin::Murmur, now_ms)
        .with("child", slug)
        .with("phase", phase)
        .with("incarnation", incarnation)
        .with("reason", reason)
        .text(text)
}

const fn has_result(phase: Phase) -> bool {
    matches!(phase, Phase::TaskComplete | Phase::Completed)
}

/// Tells an agent's parent what it does now. Only the latest of each child is kept.
///
/// # Errors
/// [`DbError`].
pub(crate) async fn child_progress(work: &mut Work, run: &AgentRun) -> Result<(), DbError> {
    let Some(progress) = &run.progress else { return Ok(()) };
    let Some(parent) = parent(work, run).await? else { return Ok(()) };
    let now_ms = work.now_ms();
    let time_ms = progress.time.as_ref().map_or(now_ms, unix_ms).min(now_ms);
    let event_id = format!("murmur:progress:{}:{}", run.agent_id, agent_run::next_change(work).await?);
    let draft = Draft::new(EventKind::Progress, event_id, Origin::Murmur, time_ms)
        .with("child", &run.slug)
        .with("label", &progress.label)
        .text(&progress.detail);
    put(work, &parent, draft).await?;
    Ok(())
}

async fn parent(work: &mut Work, run: &AgentRun) -> Result<Option<AgentRun>, DbError> {
    match run.parent_id {
        Some(id) => agent_run::get(work, run.workspace_id, id).await,
        None => Ok(None),
    }
}
