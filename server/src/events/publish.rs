//! Events that somebody hands in.

use std::sync::Arc;

use murmur_core::{
    event::{Draft, EventKind, Kind, branch},
    id::MessageId,
    limits::{CLOCK_SKEW_MS, EVENT_ID_BYTES_MAX},
    token::TokenKind,
};
use murmur_proto::v1::{self, publish_event_request::Target as On};

use super::{
    EventError, Events,
    access::{may_tell, origin, require_may_tell},
    pull_request::pull_request_resolved,
    put::put,
    route::{Routed, Target, route},
};
use crate::{
    agents::{AgentError, Agents, Who, Work, live},
    db::{DbError, agent_run::AgentRun, event},
    invalid::{Invalid, at_most, moment, parse, words},
    random,
    together::{self, Line, Writer},
    tokens::Principal,
};

const BRANCH_BYTES_MAX: usize = 255;
/// The kind of an event that tells of a pull request's own state.
const PULL_REQUEST: &str = "pull_request";
/// What the control plane says of a notify.
const SPEAKER: [&str; 2] = ["from", "from_kind"];

/// What became of an event that was handed in.
#[derive(Debug)]
pub struct Published {
    /// As it stands in the logs.
    pub event_id: String,
    /// In whose.
    pub slugs: Vec<String>,
    /// It stood there already.
    pub duplicate: bool,
}

impl Events {
    /// Takes an event: it stands in the logs when this returns. Whoever goes away meanwhile cuts nothing short.
    ///
    /// # Errors
    /// [`EventError`].
    pub async fn publish(
        self: &Arc<Self>,
        principal: &Principal,
        request: v1::PublishEventRequest,
    ) -> Result<Published, EventError> {
        together::write(self, (principal.clone(), request)).await?
    }
}

impl Writer for Events {
    type Call = (Principal, v1::PublishEventRequest);
    type Done = Published;
    type Error = EventError;

    fn line(&self) -> &Line<Self> {
        &self.line
    }

    fn agents(&self) -> &Agents {
        &self.agents
    }

    async fn write(
        &self,
        work: &mut Work,
        (principal, request): &Self::Call,
    ) -> Result<Result<Published, EventError>, DbError> {
        match put_where_wanted(work, principal, request).await {
            Err(EventError::Db(error) | EventError::Agent(AgentError::Db(error))) => Err(error),
            written => Ok(written),
        }
    }
}

/// Writes an event into the logs, inside a change.
async fn put_where_wanted(
    work: &mut Work,
    principal: &Principal,
    request: &v1::PublishEventRequest,
) -> Result<Published, EventError> {
    let kind = kind(&request.kind)?;
    let target = request.target.as_ref().ok_or_else(|| Invalid::new("slug", "must be set, or `repo`"))?;
    let who = Who::of(work, principal).await?;
    let draft = draft(&who, principal, kind, request, work.now_ms())?;
    let routed = match target {
        On::Slug(slug) => {
            let run = live(work, &who, slug).await?;
            require_may_tell(&who, &draft.kind, &run.slug)?;
            let is_new = put(work, &run, draft.clone()).await?;
            let stands = is_new || event::exists(work, run.agent_id, &draft.event_id).await?;
            Routed { slugs: stands.then(|| run.slug.to_string()).into_iter().collect(), new: usize::from(is_new) }
        }
        On::Repo(repo) => {
            if who.agent.is_some() {
                let text = "an agent tells others by slug; by repository only people and programs do";
                return Err(AgentError::Denied(text.into()).into());
            }
            let may = |run: &AgentRun| may_tell(&who, &draft.kind, &run.slug);
            let target = repo_target(repo)?;
            let routed = route(work, who.workspace_id, &target, &draft, &may).await?;
            if let Some(resolved) = resolves(&draft).filter(|_| target.pr > 0) {
                pull_request_resolved(work, who.workspace_id, &target, resolved, &may).await?;
            }
            routed
        }
    };
    let Routed { slugs, new } = routed;
    Ok(Published { event_id: draft.event_id, duplicate: new == 0 && !slugs.is_empty(), slugs })
}

/// Whether a pull request is resolved, when the event tells of its state.
fn resolves(draft: &Draft) -> Option<bool> {
    let state = draft.attributes.get("state").filter(|_| draft.kind.as_str() == PULL_REQUEST)?;
    match state.as_str() {
        "closed" | "merged" => Some(true),
        "open" => Some(false),
        _ => None,
    }
}

fn kind(text: &str) -> Result<Kind, Invalid> {
    if text.is_empty() {
        return Ok(EventKind::Notify.into());
    }
    let kind: Kind = parse("kind", text)?;
    if kind.is_made_here() {
        return Err(Invalid::new("kind", format!("must not be {kind}, which the control plane alone makes")));
    }
    Ok(kind)
}

fn draft(
    who: &Who,
    principal: &Principal,
    kind: Kind,
    request: &v1::PublishEventRequest,
    now_ms: u64,
) -> Result<Draft, EventError> {
    let origin = origin(who, principal);
    let time_ms = request.time.as_ref().map_or(Ok(now_ms), |time| moment("time", time))?;
    if time_ms > now_ms.saturating_add(CLOCK_SKEW_MS) {
        return Err(Invalid::new("time", "must be at most 5 minutes ahead").into());
    }
    let is_notify = kind.known() == Some(EventKind::Notify);
    if is_notify && request.text.trim().is_empty() {
        return Err(Invalid::new("text", "must say something").into());
    }
    let event_id = format!("{origin}:{}", own_id(&request.event_id, now_ms)?);
    let (name, word) = (origin.name(), origin.word());
    let is_program = principal.kind == TokenKind::Ci;
    let mut draft = Draft::new(kind, event_id, origin, time_ms).text(&request.text);
    draft.untrusted = draft.kind.quotes_strangers() || is_program;
    draft.attributes.clone_from(&request.attributes);
    draft.check_attributes().map_err(|error| Invalid::new("attributes", error.to_string()))?;
    if is_notify {
        for (field, value) in SPEAKER.into_iter().zip([name.as_str(), word]) {
            draft.attributes.insert(field.to_owned(), value.to_owned());
        }
    }
    Ok(draft)
}

/// The publisher's own part of an event's id.
fn own_id(text: &str, now_ms: u64) -> Result<String, EventError> {
    if text.is_empty() {
        return Ok(MessageId::new_v7(now_ms, random::bytes()?).to_string());
    }
    at_most("event_id", text, EVENT_ID_BYTES_MAX)?;
    if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')) {
        return Err(Invalid::new("event_id", "must be letters, digits, `.`, `_` and `-`").into());
    }
    Ok(text.to_owned())
}

fn repo_target(target: &v1::RepoTarget) -> Result<Target, Invalid> {
    words("repo.branch", &target.branch, BRANCH_BYTES_MAX)?;
    if target.branch.is_empty() && target.pr == 0 {
        return Err(Invalid::new("repo.branch", "must be set, or `repo.pr`"));
    }
    Ok(Target { repo: parse("repo.repo", &target.repo)?, branch: branch(&target.branch).to_owned(), pr: target.pr })
}
