//! `POST /hooks/{webhook_id}`: where code hosts and others deliver.
//!
//! The body is read raw, whole and bounded before anything of it is looked at. Whoever cannot prove that it may is told nothing, whether
//! the source exists or not.

use std::{net::IpAddr, sync::Arc, time::Duration};

use axum::{
    Extension, Json, Router,
    body::{Body, Bytes, HttpBody as _},
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::post,
};
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio_stream::StreamExt as _;

use crate::{
    lifecycle::Lifecycle,
    limit::{Rate, Strangers},
    rpc::gate::Peer,
    webhooks::{Answer, Head, TakeError, Took, Webhooks},
};

/// Longest body (PROTOCOL §6.6).
const BODY_BYTES_MAX: usize = 5 * 1024 * 1024;
/// Longest body that is read without asking how many others are.
const SMALL_BYTES: usize = 64 * 1024;
/// Longer bodies that are held at once: what strangers can make this process hold.
const LARGE_BODIES_MAX: usize = 32;
/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// What the door needs.
pub(crate) struct Hooks {
    webhooks: Arc<Webhooks>,
    lifecycle: Lifecycle,
    large: Arc<Semaphore>,
    addresses: Strangers,
    failures: Strangers,
}

impl Hooks {
    /// `addresses` bounds the deliveries of one address, `failures` those of them that are not authentic.
    pub(crate) fn new(webhooks: Arc<Webhooks>, lifecycle: Lifecycle, addresses: Rate, failures: Rate) -> Self {
        Self {
            webhooks,
            lifecycle,
            large: Arc::new(Semaphore::new(LARGE_BODIES_MAX)),
            addresses: Strangers::new(addresses),
            failures: Strangers::new(failures),
        }
    }
}

/// The route.
pub(crate) fn router(hooks: Arc<Hooks>) -> Router {
    Router::new().route("/hooks/{webhook_id}", post(deliver)).with_state(hooks)
}

async fn deliver(
    State(hooks): State<Arc<Hooks>>,
    Path(webhook_id): Path<String>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let from = peer.map(|Extension(Peer(address))| address.ip());
    if hooks.lifecycle.is_draining() {
        return busy(StatusCode::SERVICE_UNAVAILABLE, Duration::from_secs(1), "shutting down");
    }
    if let Some(Err(wait)) = from.map(|from| hooks.addresses.check(from)) {
        return busy(StatusCode::TOO_MANY_REQUESTS, wait, "too many deliveries");
    }
    let (body, permit) = match tokio::time::timeout(BODY_TIMEOUT, read(&hooks.large, body)).await {
        Ok(Ok(read)) => read,
        Ok(Err(refusal)) => return refusal.into_response(),
        Err(_) => return refused(StatusCode::REQUEST_TIMEOUT, "the body took too long"),
    };
    // A task of its own: a sender who leaves cannot cut it off between the commit and waking those who wait.
    let webhooks = Arc::clone(&hooks.webhooks);
    let head = head(&headers);
    let (answer, answered) = oneshot::channel();
    hooks.lifecycle.spawn(async move {
        let taken = webhooks.take(&webhook_id, &head, &body).await;
        // Also of a sender who left: its place is as long taken as its body is here.
        drop((body, permit));
        // A sender who left needs no answer.
        let _ = answer.send(taken);
    });
    match answered.await {
        Ok(Ok(answer)) => accepted(&answer),
        Ok(Err(error)) => hooks.refuse(&error, from),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Why a body was not read.
enum Unread {
    TooLarge,
    TooMany,
    Broken,
}

impl Unread {
    fn into_response(self) -> Response {
        match self {
            Self::TooLarge => {
                refused(StatusCode::PAYLOAD_TOO_LARGE, &format!("the body must be at most {BODY_BYTES_MAX} bytes"))
            }
            Self::TooMany => busy(StatusCode::SERVICE_UNAVAILABLE, Duration::from_secs(1), "too many large bodies"),
            Self::Broken => refused(StatusCode::BAD_REQUEST, "the body broke off"),
        }
    }
}

/// The body, and for a large one what bounds their number: to be held as long as the body is.
async fn read(large: &Arc<Semaphore>, body: Body) -> Result<(Bytes, Option<OwnedSemaphorePermit>), Unread> {
    // A length that is declared is refused before a byte of it is read.
    if body.size_hint().lower() > BODY_BYTES_MAX as u64 {
        return Err(Unread::TooLarge);
    }
    let mut chunks = body.into_data_stream();
    let mut read = Vec::new();
    let mut permit = None;
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| Unread::Broken)?;
        let length = read.len() + chunk.len();
        if length > BODY_BYTES_MAX {
            return Err(Unread::TooLarge);
        }
        if length > SMALL_BYTES && permit.is_none() {
            permit = Some(Arc::clone(large).try_acquire_owned().map_err(|_| Unread::TooMany)?);
        }
        read.extend_from_slice(&chunk);
    }
    Ok((read.into(), permit))
}

fn head(headers: &HeaderMap) -> Head {
    // A header that comes twice proves nothing.
    let one = |name: &str| {
        let mut values = headers.get_all(name).iter();
        let value = values.next().filter(|_| values.next().is_none())?;
        value.to_str().ok().map(str::to_owned)
    };
    Head {
        content_type: one("content-type"),
        hub_signature_256: one("x-hub-signature-256"),
        github_event: one("x-github-event"),
        github_delivery: one("x-github-delivery"),
        gitlab_token: one("x-gitlab-token"),
        gitlab_uuid: one("x-gitlab-event-uuid"),
        webhook_id: one("webhook-id"),
        webhook_timestamp: one("webhook-timestamp"),
        webhook_signature: one("webhook-signature"),
    }
}

impl Hooks {
    fn refuse(&self, error: &TakeError, from: Option<IpAddr>) -> Response {
        match error {
            TakeError::Unauthentic => match from.map(|from| self.failures.check(from)) {
                Some(Err(wait)) => busy(StatusCode::TOO_MANY_REQUESTS, wait, "too many deliveries"),
                Some(Ok(())) | None => StatusCode::UNAUTHORIZED.into_response(),
            },
            TakeError::Limited(wait) => busy(StatusCode::TOO_MANY_REQUESTS, *wait, "too many deliveries"),
            TakeError::ContentType(_) => refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, &error.to_string()),
            TakeError::Malformed(_) => refused(StatusCode::BAD_REQUEST, &error.to_string()),
            TakeError::Agent(_) | TakeError::Secret(_) | TakeError::Unwritten(_) => {
                tracing::error!(error = error as &dyn std::error::Error, "taking a webhook's delivery failed");
                refused(StatusCode::INTERNAL_SERVER_ERROR, "the control plane failed; deliver again later")
            }
        }
    }
}

fn accepted(answer: &Answer) -> Response {
    let outcome = match answer.took {
        Took::New(outcome) => outcome.as_str(),
        Took::Repeat => "duplicate",
        Took::Ping => "pong",
    };
    let body = json!({"outcome": outcome, "detail": answer.detail, "agents": answer.agents});
    (StatusCode::ACCEPTED, Json(body)).into_response()
}

fn refused(status: StatusCode, error: &str) -> Response {
    (status, Json(json!({"error": error}))).into_response()
}

fn busy(status: StatusCode, wait: Duration, error: &str) -> Response {
    // Whole seconds, and never so few that the next try comes too early.
    let seconds = (wait.as_secs() + 1).to_string();
    (status, [(header::RETRY_AFTER, seconds)], Json(json!({"error": error}))).into_response()
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::{agents::Agents, clock::Clock, config::Config, db::Db, hub::Hub, tokens::Tokens};

    /// A door without a source.
    async fn hooks(dir: &std::path::Path) -> Arc<Hooks> {
        let (config, clock, hub) = (Config::local(dir.to_owned()), Clock::system(), Arc::new(Hub::default()));
        let db = Db::open(&dir.join("server.db"), "epoch").await.unwrap();
        let tokens = Arc::new(Tokens::new(db.clone(), clock.clone()));
        let agents = Arc::new(Agents::new(db.clone(), clock.clone(), hub, tokens, config.agents()));
        let many = Rate { per: Duration::from_secs(1), count: NonZeroU32::MAX, burst: NonZeroU32::MAX };
        let webhooks = Webhooks::open(db, clock, agents, dir, many).unwrap();
        Arc::new(Hooks::new(Arc::new(webhooks), Lifecycle::new(), many, many))
    }

    #[tokio::test]
    async fn a_large_body_counts_for_as_long_as_it_is_held() {
        let dir = tempfile::tempdir().unwrap();
        let hooks = hooks(dir.path()).await;
        let body = Body::from(vec![b' '; SMALL_BYTES + 1]);
        let delivery = deliver(State(Arc::clone(&hooks)), Path("x".into()), None, HeaderMap::new(), body);
        let mut delivery = Box::pin(delivery);
        // Read and handed on; what takes it has not run, for there is one thread.
        assert!(futures::poll!(&mut delivery).is_pending());
        assert_eq!(hooks.large.available_permits(), LARGE_BODIES_MAX - 1);
        // Its sender leaves.
        drop(delivery);
        assert_eq!(hooks.large.available_permits(), LARGE_BODIES_MAX - 1);
        let all = hooks.large.acquire_many(u32::try_from(LARGE_BODIES_MAX).unwrap());
        let all = tokio::time::timeout(Duration::from_secs(20), all).await.expect("it counts for ever");
        assert_eq!(all.unwrap().num_permits(), LARGE_BODIES_MAX);
    }
}
