//! Events around agents: what stands in their logs, who may put it there, and who hears of it.

mod feed;
mod logs;
mod model;
mod publish;
mod work;

use murmur_proto::{
    client::ControlClient,
    v1::{self, publish_event_request::Target},
};
use tonic::{Request, Response, Status};

use crate::{
    agents::Runner,
    world::{World, next},
};

/// Everything in the logs that a caller reads by default.
pub(crate) async fn list(client: &ControlClient, filter: v1::EventFilter, all: bool) -> Vec<v1::Event> {
    let request = v1::ListEventsRequest { filter: Some(filter), all, page_size: 500, ..Default::default() };
    client.events.clone().list_events(request).await.unwrap().into_inner().events
}

/// The log of one agent.
pub(crate) async fn log(client: &ControlClient, slug: &str, all: bool) -> Vec<v1::Event> {
    list(client, v1::EventFilter { slug: slug.into(), ..Default::default() }, all).await
}

pub(crate) fn event(slug: &str, kind: &str, text: &str) -> v1::PublishEventRequest {
    v1::PublishEventRequest {
        target: Some(Target::Slug(slug.into())),
        kind: kind.into(),
        text: text.into(),
        ..Default::default()
    }
}

pub(crate) async fn publish(
    client: &ControlClient,
    request: v1::PublishEventRequest,
) -> Result<v1::PublishEventResponse, Status> {
    client.events.clone().publish_event(request).await.map(Response::into_inner)
}

pub(crate) fn texts(events: &[v1::Event]) -> Vec<&str> {
    events.iter().map(|event| event.text.as_str()).collect()
}

/// A node's stream behind a position, with what it is told until it has caught up.
pub(crate) async fn feed(
    world: &World,
    runner: &Runner,
    after_position: u64,
) -> (tonic::Streaming<v1::WatchNodeEventsResponse>, Vec<(u64, v1::Event)>) {
    use v1::watch_node_events_response::Item;
    let request = Request::new(v1::WatchNodeEventsRequest { after_position });
    let mut stream = runner.node.client(world).events.watch_node_events(request).await.unwrap().into_inner();
    let mut told = Vec::new();
    loop {
        let answer = next(&mut stream).await;
        match answer.item.unwrap() {
            Item::Event(event) => told.push((answer.position, event)),
            Item::CaughtUp(_) => return (stream, told),
        }
    }
}

/// What a node is told next.
pub(crate) async fn fed(stream: &mut tonic::Streaming<v1::WatchNodeEventsResponse>) -> (u64, v1::Event) {
    let answer = next(stream).await;
    match answer.item.unwrap() {
        v1::watch_node_events_response::Item::Event(event) => (answer.position, event),
        v1::watch_node_events_response::Item::CaughtUp(_) => panic!("it has caught up before"),
    }
}
