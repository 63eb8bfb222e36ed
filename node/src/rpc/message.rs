//! `murmur.node.v1.MessageService`.

use std::{pin::Pin, sync::Arc};

use futures::{Stream, StreamExt as _, stream};
use murmur_core::limits::PAGE_SIZE_MAX;
use murmur_proto::node::v1::{self, message_service_server::MessageService, request_response::Item};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast::error::RecvError};
use tonic::{Request, Response, Status, Streaming};
use tracing::warn;

use super::{
    convert, parse, send_many,
    server::{Call, Shared},
    status::Refusal,
};
use crate::{
    app::Core,
    post::{Draft, FileDraft, InboxQuery, LocalAgent, PendingReply, Sent},
};

/// Sends that are not on disk yet; more of them wait. Enough for two full commits, and what bounds the store's queue and the
/// post's: everything else in these follows from what was committed or from what the broker handed over.
const SENDS_MAX: usize = 512;

/// A stream of answers.
pub(super) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Messages, for local programs.
#[derive(Clone)]
pub(super) struct Messages {
    pub(super) shared: Arc<Shared>,
    sends: Arc<Semaphore>,
}

impl Messages {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, sends: Arc::new(Semaphore::new(SENDS_MAX)) }
    }

    /// Waits for a place among the sends. It is kept until the message is on disk.
    pub(super) async fn place(&self) -> Result<OwnedSemaphorePermit, Status> {
        // The semaphore is never closed.
        Arc::clone(&self.sends).acquire_owned().await.map_err(|_| Shared::draining())
    }

    /// What a request says, and who speaks.
    pub(super) async fn drafted(
        &self,
        call: &Call,
        request: v1::SendRequest,
    ) -> Result<(Arc<Core>, LocalAgent, Draft), Refusal> {
        let v1::SendRequest { agent, to, body, content_type, in_reply_to, ttl_seconds, idempotency_key } = request;
        let (core, from) = self.speaker(call, &agent).await?;
        let draft = Draft {
            to,
            body,
            content_type: parse::text_option(content_type),
            in_reply_to: parse::msg_id_option("in_reply_to", &in_reply_to)?,
            ttl_seconds: Some(ttl_seconds).filter(|seconds| *seconds > 0),
            idempotency_key: parse::text_option(idempotency_key),
            file: None,
        };
        Ok((core, from, draft))
    }

    /// Who speaks; an interactive agent that does not exist yet is registered.
    async fn speaker(&self, call: &Call, agent: &str) -> Result<(Arc<Core>, LocalAgent), Refusal> {
        self.shared.speaker(call, agent).await
    }

    /// Who reads: also an agent that has ended, whose messages stay readable here. One that never was is made, so that mail can
    /// come.
    async fn reader(&self, call: &Call, agent: &str) -> Result<(Arc<Core>, LocalAgent), Refusal> {
        self.shared.reader(call, agent).await
    }
}

#[tonic::async_trait]
impl MessageService for Messages {
    type SendManyStream = Answers<v1::SendManyResponse>;
    type RequestStream = Answers<v1::RequestResponse>;
    type AwaitReplyStream = Answers<v1::AwaitReplyResponse>;
    type WatchDeliveryStream = Answers<v1::WatchDeliveryResponse>;
    type TailStream = Answers<v1::TailResponse>;

    async fn send(&self, request: Request<v1::SendRequest>) -> Result<Response<v1::SendResponse>, Status> {
        let (call, request) = Call::of(request);
        let (core, from, draft) = self.drafted(&call, request).await?;
        let _place = self.place().await?;
        let sent = core.post.send(&from, draft).await.map_err(Refusal::from)?;
        Ok(Response::new(answer(sent)))
    }

    async fn send_many(
        &self,
        request: Request<Streaming<v1::SendManyRequest>>,
    ) -> Result<Response<Self::SendManyStream>, Status> {
        let (call, requests) = Call::of(request);
        Ok(Response::new(send_many::answers(self.clone(), call, requests)))
    }

    async fn request(&self, request: Request<v1::RequestRequest>) -> Result<Response<Self::RequestStream>, Status> {
        let (call, request) = Call::of(request);
        let v1::RequestRequest { agent, to, body, content_type, timeout_ms, idempotency_key, file } = request;
        let (core, from) = self.speaker(&call, &agent).await?;
        let draft = Draft {
            to,
            body,
            content_type: parse::text_option(content_type),
            idempotency_key: parse::text_option(idempotency_key),
            ..Draft::default()
        };
        let (sent, pending, file) = match file {
            Some(v1::Attachment { path, name, content_type, allow_secret_names }) => {
                let draft = FileDraft { message: draft, path, name, content_type, allow_secret_names };
                let _place = self.shared.copy_place().await?;
                let asked = core.post.request_with_file(&from, draft, timeout_ms).await;
                let (sent, pending, file) = asked.map_err(Refusal::from)?;
                (sent, pending, Some(convert::file(file)))
            }
            None => {
                let _place = self.place().await?;
                let (sent, pending) = core.post.request(&from, draft, timeout_ms).await.map_err(Refusal::from)?;
                (sent, pending, None)
            }
        };
        let accepted = v1::RequestAccepted {
            msg_id: sent.msg_id.to_string(),
            conversation_id: sent.conversation_id.to_string(),
            to: sent.to.into(),
            recipient_online: sent.recipient_online,
            file,
        };
        let accepted = v1::RequestResponse { item: Some(Item::Accepted(accepted)) };
        let outcome = self.outcome(core, from, pending);
        let outcome = async { outcome.await.map(|outcome| v1::RequestResponse { item: Some(Item::Outcome(outcome)) }) };
        Ok(Response::new(stream::iter([Ok(accepted)]).chain(stream::once(outcome)).boxed()))
    }

    async fn await_reply(
        &self,
        request: Request<v1::AwaitReplyRequest>,
    ) -> Result<Response<Self::AwaitReplyStream>, Status> {
        let (call, v1::AwaitReplyRequest { agent, msg_id, timeout_ms }) = Call::of(request);
        let (core, from) = self.reader(&call, &agent).await?;
        let msg_id = parse::msg_id("msg_id", &msg_id)?;
        let pending = core.post.await_reply(&from, msg_id, timeout_ms).await.map_err(Refusal::from)?;
        let outcome = self.outcome(core, from, pending);
        let outcome = async { outcome.await.map(|outcome| v1::AwaitReplyResponse { outcome: Some(outcome) }) };
        Ok(Response::new(stream::once(outcome).boxed()))
    }

    async fn list_inbox(
        &self,
        request: Request<v1::ListInboxRequest>,
    ) -> Result<Response<v1::ListInboxResponse>, Status> {
        let (call, v1::ListInboxRequest { agent, after, limit, peek, all, from }) = Call::of(request);
        let (core, agent) = self.reader(&call, &agent).await?;
        let limit = parse::at_most("limit", limit, PAGE_SIZE_MAX)?;
        let query = InboxQuery { after, limit, peek, all, from: parse::text_option(from) };
        let page = core.post.inbox(&agent, query).await.map_err(Refusal::from)?;
        Ok(Response::new(v1::ListInboxResponse {
            messages: page.messages.into_iter().map(convert::message).collect(),
            next_after: page.next_after,
            unread: page.unread,
            unread_behind: page.unread_behind,
        }))
    }

    async fn mark_read(&self, request: Request<v1::MarkReadRequest>) -> Result<Response<v1::MarkReadResponse>, Status> {
        let (call, v1::MarkReadRequest { agent, cursors }) = Call::of(request);
        let (core, agent) = self.reader(&call, &agent).await?;
        parse::few("cursors", cursors.len(), PAGE_SIZE_MAX)?;
        let unread = core.post.mark_shown(agent.agent_id, cursors).await.map_err(Refusal::from)?;
        Ok(Response::new(v1::MarkReadResponse { unread }))
    }

    async fn get_delivery(
        &self,
        request: Request<v1::GetDeliveryRequest>,
    ) -> Result<Response<v1::GetDeliveryResponse>, Status> {
        let (call, v1::GetDeliveryRequest { agent, msg_id }) = Call::of(request);
        let (core, agent) = self.reader(&call, &agent).await?;
        let id = parse::msg_id("msg_id", &msg_id)?;
        let views = core.post.delivery(agent.agent_id, id).await.map_err(Refusal::from)?;
        let deliveries = views.into_iter().map(convert::delivery).collect();
        Ok(Response::new(v1::GetDeliveryResponse { msg_id: id.to_string(), deliveries }))
    }

    async fn watch_delivery(
        &self,
        request: Request<v1::WatchDeliveryRequest>,
    ) -> Result<Response<Self::WatchDeliveryStream>, Status> {
        let (call, v1::WatchDeliveryRequest { agent, msg_id, until }) = Call::of(request);
        let (core, agent) = self.reader(&call, &agent).await?;
        let id = parse::msg_id("msg_id", &msg_id)?;
        let until = parse::state_option("until", until)?;
        let followed = core.post.follow(agent.agent_id, id, until).await.map_err(Refusal::from)?;
        let states = stream::try_unfold(followed, move |mut followed| async move {
            let next = followed.next().await.map_err(|error| Status::from(Refusal::from(error)))?;
            let answer = |views: Vec<_>| v1::WatchDeliveryResponse {
                msg_id: id.to_string(),
                deliveries: views.into_iter().map(convert::delivery).collect(),
            };
            Ok(next.map(|views| (answer(views), followed)))
        });
        Ok(Response::new(self.until_draining(states).boxed()))
    }

    async fn tail(&self, request: Request<v1::TailRequest>) -> Result<Response<Self::TailStream>, Status> {
        let (call, v1::TailRequest { agent, backlog }) = Call::of(request);
        let (core, agent) = self.reader(&call, &agent).await?;
        let backlog = parse::at_most("backlog", backlog, PAGE_SIZE_MAX)?;
        let (earlier, items) = core.post.tail(&agent, backlog).await.map_err(Refusal::from)?;
        let later = stream::unfold(items, |mut items| async move {
            loop {
                match items.recv().await {
                    Ok(item) => return Some((item, items)),
                    // A follower that is too slow misses some; nothing depends on having seen them.
                    Err(RecvError::Lagged(missed)) => warn!(missed, "a follower was too slow"),
                    Err(RecvError::Closed) => return None,
                }
            }
        });
        let items = stream::iter(earlier).chain(later).map(|item| Ok(convert::tail_item(item)));
        Ok(Response::new(self.until_draining(items).boxed()))
    }
}

impl Messages {
    /// Waits for a reply; ends early when the node goes down, so that the caller comes back and waits again.
    fn outcome(
        &self,
        core: Arc<Core>,
        agent: LocalAgent,
        pending: PendingReply,
    ) -> impl Future<Output = Result<v1::RequestOutcome, Status>> + Send + use<> {
        let drain = self.shared.drain.clone();
        async move {
            let outcome = tokio::select! {
                outcome = pending.wait() => outcome.map_err(Refusal::from)?,
                () = drain.cancelled() => return Err(Shared::draining()),
            };
            let unread = match outcome.unread {
                Some(unread) => unread,
                None => unread(&core, &agent).await?,
            };
            Ok(convert::outcome(outcome, unread))
        }
    }

    fn until_draining<T>(
        &self,
        items: impl Stream<Item = Result<T, Status>> + Send + 'static,
    ) -> impl Stream<Item = Result<T, Status>> + Send + 'static
    where
        T: Send + 'static,
    {
        let drain = self.shared.drain.clone();
        items.take_until(async move { drain.cancelled().await })
    }
}

pub(super) fn answer(sent: Sent) -> v1::SendResponse {
    v1::SendResponse {
        msg_id: sent.msg_id.to_string(),
        conversation_id: sent.conversation_id.to_string(),
        to: sent.to.into(),
        recipient_online: sent.recipient_online,
        unread: sent.unread,
    }
}

async fn unread(core: &Core, agent: &LocalAgent) -> Result<u64, Refusal> {
    Ok(core.post.unread(agent.agent_id).await?)
}
