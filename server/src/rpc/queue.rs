//! `murmur.v1.QueueService`, and the turns of `murmur.v1.RuntimeService`.

use std::sync::Arc;

use murmur_core::{
    id::{NodeId, WorkspaceId},
    queue::Kind,
};
use murmur_proto::v1::{self, queue_service_server::QueueService};
use prost::Message as _;
use tonic::{Request, Response, Status};

use super::{caller, convert, convert_agent};
use crate::{
    idempotency::Once,
    invalid::{Invalid, parse},
    queue::{NewFollowUp, Queue},
};

/// Follow-up work.
pub(crate) struct QueueRpc {
    pub(crate) queue: Arc<Queue>,
}

#[tonic::async_trait]
impl QueueService for QueueRpc {
    async fn add_follow_up(
        &self,
        request: Request<v1::AddFollowUpRequest>,
    ) -> Result<Response<v1::AddFollowUpResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let once = Once::new(&caller, "AddFollowUp", &request.idempotency_key, &request.encode_to_vec())?;
        let v1::AddFollowUpRequest { slug, description, tasks, idempotency_key: _ } = request;
        if slug.is_empty() {
            return Err(Invalid::new("slug", "must name an agent; `self` is the caller").into());
        }
        let tasks = tasks.iter().map(|text| parse("tasks", text)).collect::<Result<_, _>>()?;
        let new = NewFollowUp { kind: Kind::Written, description, tasks };
        let (added, standing) = self.queue.add(&caller, &slug, new, once.as_ref()).await?;
        Ok(Response::new(v1::AddFollowUpResponse {
            follow_up_id: added.id.to_string(),
            position: u32::try_from(added.position).unwrap_or(u32::MAX),
            // It lives, so there is no end to its time.
            agent: Some(convert_agent::status(standing.run, standing.queued, None)),
        }))
    }

    async fn clear_queue(
        &self,
        request: Request<v1::ClearQueueRequest>,
    ) -> Result<Response<v1::ClearQueueResponse>, Status> {
        let caller = caller(&request)?;
        let cleared = self.queue.clear(&caller, &request.get_ref().slug).await?;
        Ok(Response::new(v1::ClearQueueResponse { cleared: u32::try_from(cleared).unwrap_or(u32::MAX) }))
    }

    async fn list_follow_ups(
        &self,
        request: Request<v1::ListFollowUpsRequest>,
    ) -> Result<Response<v1::ListFollowUpsResponse>, Status> {
        let caller = caller(&request)?;
        let v1::ListFollowUpsRequest { slug, page_size, page_token } = request.into_inner();
        let (entries, next_page_token) = self.queue.list(&caller, &slug, (page_size, &page_token)).await?;
        let follow_ups = entries.into_iter().map(convert::follow_up).collect();
        Ok(Response::new(v1::ListFollowUpsResponse { follow_ups, next_page_token }))
    }
}

/// `ClaimTurn`.
pub(super) async fn claim_turn(
    queue: &Queue,
    node: (WorkspaceId, NodeId),
    request: &v1::ClaimTurnRequest,
) -> Result<v1::ClaimTurnResponse, Status> {
    let id = parse("agent_id", &request.agent_id)?;
    let Some(turn) = queue.claim(node, (id, request.incarnation), request.single).await? else {
        return Ok(v1::ClaimTurnResponse::default());
    };
    Ok(v1::ClaimTurnResponse {
        turn_id: turn.turn_id.to_string(),
        follow_ups: turn.entries.into_iter().map(convert::follow_up).collect(),
        lease_expire_time: Some(convert::timestamp(turn.expire_ms)),
    })
}

/// `CompleteTurn`.
pub(super) async fn complete_turn(
    queue: &Queue,
    node: (WorkspaceId, NodeId),
    request: &v1::CompleteTurnRequest,
) -> Result<v1::CompleteTurnResponse, Status> {
    let id = parse("agent_id", &request.agent_id)?;
    queue.complete(node, id, request.incarnation, parse("turn_id", &request.turn_id)?).await?;
    Ok(v1::CompleteTurnResponse {})
}
