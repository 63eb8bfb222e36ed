//! `murmur.v1.EventService`.

use std::sync::Arc;

use murmur_core::{event::is_stale, reason::Reason};
use murmur_proto::v1::{
    self, event_service_server::EventService, watch_events_response::Item, watch_node_events_response::Item as Fed,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{Answers, STREAM_ITEMS_MAX, caller, calling_node, convert::timestamp, incarnation, status};
use crate::{
    clock::Clock,
    db::event::Event,
    events::{self, Events, Feed, Seen, Wanted, Watch},
    lifecycle::Lifecycle,
    nodes::Nodes,
    tokens::Principal,
};

/// Events around agents.
pub(crate) struct EventRpc {
    pub(crate) events: Arc<Events>,
    /// Knows which incarnation of a node may still listen.
    pub(crate) nodes: Arc<Nodes>,
    /// By which an event is stale.
    pub(crate) clock: Clock,
    pub(crate) lifecycle: Lifecycle,
}

#[tonic::async_trait]
impl EventService for EventRpc {
    async fn publish_event(
        &self,
        request: Request<v1::PublishEventRequest>,
    ) -> Result<Response<v1::PublishEventResponse>, Status> {
        let caller = caller(&request)?;
        let published = self.events.publish(&caller, request.into_inner()).await?;
        let events::Published { event_id, slugs, duplicate } = published;
        Ok(Response::new(v1::PublishEventResponse { event_id, slugs, duplicate }))
    }

    async fn list_events(
        &self,
        request: Request<v1::ListEventsRequest>,
    ) -> Result<Response<v1::ListEventsResponse>, Status> {
        let caller = caller(&request)?;
        let v1::ListEventsRequest { filter, all, page_size, page_token, descending } = request.into_inner();
        let wanted = Wanted { filter: filter.unwrap_or_default(), all, descending };
        let (events, next_page_token) = self.events.list(&caller, &wanted, (page_size, &page_token)).await?;
        let now_ms = self.clock.now_ms();
        let events = events.iter().map(|event| message(event, now_ms)).collect();
        Ok(Response::new(v1::ListEventsResponse { events, next_page_token }))
    }

    type WatchEventsStream = Answers<v1::WatchEventsResponse>;

    async fn watch_events(
        &self,
        request: Request<v1::WatchEventsRequest>,
    ) -> Result<Response<Self::WatchEventsStream>, Status> {
        let caller = caller(&request)?;
        let watch = self.events.watch(&caller, request.get_ref()).await?;
        let (answers, stream) = mpsc::channel(STREAM_ITEMS_MAX);
        let (events, clock, drain) = (Arc::clone(&self.events), self.clock.clone(), self.lifecycle.clone());
        self.lifecycle.spawn(async move {
            tokio::select! {
                result = show(&events, &clock, &caller, watch, &answers) => if let Err(Some(status)) = result {
                    let _ = answers.send(Err(status)).await;
                },
                () = drain.draining() => { let _ = answers.try_send(Err(status::draining())); }
                () = answers.closed() => {}
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    type WatchNodeEventsStream = Answers<v1::WatchNodeEventsResponse>;

    async fn watch_node_events(
        &self,
        request: Request<v1::WatchNodeEventsRequest>,
    ) -> Result<Response<Self::WatchNodeEventsStream>, Status> {
        let (caller, node) = calling_node(&request)?;
        self.nodes.require_current(node, incarnation(&request)?).await?;
        let mut feed = self.events.open_feed(node, request.get_ref().after_position).await?;
        let (answers, stream) = mpsc::channel(STREAM_ITEMS_MAX);
        let (events, clock, drain) = (Arc::clone(&self.events), self.clock.clone(), self.lifecycle.clone());
        self.lifecycle.spawn(async move {
            tokio::select! {
                result = feed_node(&events, &clock, &caller, &mut feed, &answers) => if let Err(Some(status)) = result {
                    let _ = answers.send(Err(status)).await;
                },
                () = drain.draining() => { let _ = answers.try_send(Err(status::draining())); }
                () = answers.closed() => {}
            }
            events.close_feed(&feed);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

/// Shows a reader what its watch sees, until it leaves, which is `Err(None)`.
async fn show(
    events: &Events,
    clock: &Clock,
    caller: &Principal,
    mut watch: Watch,
    answers: &mpsc::Sender<Result<v1::WatchEventsResponse, Status>>,
) -> Result<(), Option<Status>> {
    loop {
        let seen = events.next_seen(caller, &mut watch).await.map_err(|error| Some(error.into()))?;
        match seen {
            Seen::Events(seen) => {
                for event in seen {
                    let item = match event.kind.is_gap() {
                        true => Item::Gap(v1::EventGap { until_time: Some(timestamp(event.time_ms)) }),
                        false => Item::Event(message(&event, clock.now_ms())),
                    };
                    let resume_token = watch.token(event.position);
                    let answer = v1::WatchEventsResponse { item: Some(item), resume_token };
                    answers.send(Ok(answer)).await.map_err(|_| None)?;
                }
            }
            Seen::CaughtUp => {
                let item = Some(Item::CaughtUp(v1::CaughtUp {}));
                let answer = v1::WatchEventsResponse { item, resume_token: watch.here() };
                answers.send(Ok(answer)).await.map_err(|_| None)?;
            }
        }
    }
}

/// Tells a node its events until it leaves, which is `Err(None)`, or a newer stream has its place.
async fn feed_node(
    events: &Events,
    clock: &Clock,
    caller: &Principal,
    feed: &mut Feed,
    answers: &mpsc::Sender<Result<v1::WatchNodeEventsResponse, Status>>,
) -> Result<(), Option<Status>> {
    loop {
        match events.next_fed(caller, feed).await.map_err(|error| Some(error.into()))? {
            events::Fed::Events(told) => {
                for event in told {
                    let position = event.node_position.unwrap_or_default();
                    let item = Some(Fed::Event(message(&event, clock.now_ms())));
                    let answer = v1::WatchNodeEventsResponse { item, position };
                    answers.send(Ok(answer)).await.map_err(|_| None)?;
                }
            }
            events::Fed::CaughtUp(position) => {
                let item = Some(Fed::CaughtUp(v1::CaughtUp {}));
                answers.send(Ok(v1::WatchNodeEventsResponse { item, position })).await.map_err(|_| None)?;
            }
            events::Fed::Replaced => {
                let text = "a newer stream of this node takes the events";
                return Err(Some(murmur_proto::status::status(Reason::SessionReplaced, text)));
            }
        }
    }
}

/// An event as the contract writes it.
fn message(event: &Event, now_ms: u64) -> v1::Event {
    v1::Event {
        event_id: event.event_id.clone(),
        agent_id: event.agent_id.to_string(),
        slug: event.slug.clone(),
        seq: event.seq,
        kind: event.kind.to_string(),
        time: Some(timestamp(event.time_ms)),
        receive_time: Some(timestamp(event.receive_ms)),
        origin: event.origin.clone(),
        untrusted: event.untrusted,
        attributes: event.attributes.clone(),
        text: event.text.clone(),
        stale: is_stale(event.kind.as_str(), event.time_ms, now_ms),
        superseded: event.superseded,
        withheld: event.withheld,
        queued: event.queued,
    }
}
