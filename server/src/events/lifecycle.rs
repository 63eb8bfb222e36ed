//! What a parent is told of its children, by the control plane itself.

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
    },
};

/// Tells an agent's parent that it has another phase, in the change in which it gets it: once for each.
///
/// # Errors
/// [`DbError`].
pub(crate) async fn child_phase(work: &mut Work, run: &AgentRun, from: Option<Phase>) -> Result<(), DbError> {
    let Some(parent) = parent(work, run).await? else { return Ok(()) };
    let AgentRun { agent_id, slug, phase, rev, incarnation, reason, .. } = run;
    let mut text = format!("{slug} is {phase}");
    if !reason.is_empty() {
        text = format!("{text}: {reason}");
    }
    if let Some(output) = run.output.as_ref().filter(|output| has_result(*phase) && !output.response.is_empty()) {
        text = format!("{text}\n\n{}", output.response);
    }
    let event_id = format!("murmur:child:{agent_id}:{rev}");
    let draft = Draft::new(EventKind::ChildLifecycle, event_id, Origin::Murmur, work.now_ms())
        .with("child", slug)
        .with("phase", phase)
        .with("incarnation", incarnation)
        .with("reason", reason)
        .text(text);
    put_phase(work, &parent, draft, (from, Some(*phase))).await?;
    Ok(())
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
