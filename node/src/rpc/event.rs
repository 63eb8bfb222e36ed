//! `murmur.node.v1.EventService`.

use std::sync::Arc;

use murmur_core::limits::PAGE_SIZE_MAX;
use murmur_proto::node::v1::{self, event_service_server::EventService};
use tonic::{Request, Response, Status};

use super::{
    convert, parse,
    server::{Call, Shared},
    status::{Field, Refusal},
};
use crate::events::ListQuery;

/// Events, for local programs.
pub(super) struct EventsRpc {
    pub(super) shared: Arc<Shared>,
}

#[tonic::async_trait]
impl EventService for EventsRpc {
    async fn list_events(
        &self,
        request: Request<v1::ListEventsRequest>,
    ) -> Result<Response<v1::ListEventsResponse>, Status> {
        let (call, v1::ListEventsRequest { agent, after, limit, peek, all }) = Call::of(request);
        let (core, agent) = self.shared.reader(&call, &agent).await?;
        let limit = parse::at_most("limit", limit, PAGE_SIZE_MAX)?;
        let query = ListQuery { after, limit, peek, all };
        let page = core.events.list(agent.agent_id, query).await.map_err(Refusal::from)?;
        Ok(Response::new(v1::ListEventsResponse {
            events: page.events.into_iter().map(convert::event).collect(),
            next_after: page.next_after,
            unread: page.unread,
            lost: page.lost,
        }))
    }

    async fn ack_events(
        &self,
        request: Request<v1::AckEventsRequest>,
    ) -> Result<Response<v1::AckEventsResponse>, Status> {
        let (call, v1::AckEventsRequest { agent, told, read, permission_request_ids }) = Call::of(request);
        let (core, agent) = self.shared.reader(&call, &agent).await?;
        few("read", read.len())?;
        few("permission_request_ids", permission_request_ids.len())?;
        let acknowledged = core.events.acknowledge(agent.agent_id, told, read, permission_request_ids);
        let unread = acknowledged.await.map_err(Refusal::from)?;
        Ok(Response::new(v1::AckEventsResponse { unread }))
    }
}

fn few(name: &'static str, count: usize) -> Result<(), Refusal> {
    if count <= PAGE_SIZE_MAX as usize {
        return Ok(());
    }
    Err(Field { name, rule: format!("must be at most {PAGE_SIZE_MAX}, got {count}") }.into())
}
