//! `murmur.node.v1.FileService`.

use std::sync::Arc;

use futures::{StreamExt as _, stream};
use murmur_core::{id::StreamId, limits::PAGE_SIZE_MAX};
use murmur_proto::node::v1::{self, file_service_server::FileService};
use tonic::{Request, Response, Status};

use super::{
    convert,
    message::Answers,
    parse,
    server::{Call, Shared},
    status::{Field, Refusal},
};
use crate::post::{Draft, FileDraft};

/// Files, for local programs.
pub(super) struct Files {
    shared: Arc<Shared>,
}

impl Files {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

#[tonic::async_trait]
impl FileService for Files {
    type WatchTransfersStream = Answers<v1::WatchTransfersResponse>;

    async fn send_file(&self, request: Request<v1::SendFileRequest>) -> Result<Response<v1::SendFileResponse>, Status> {
        let (call, request) = Call::of(request);
        let v1::SendFileRequest {
            agent,
            to,
            path,
            name,
            content_type,
            body,
            in_reply_to,
            ttl_seconds,
            idempotency_key,
            allow_secret_names,
        } = request;
        let (core, from) = self.shared.speaker(&call, &agent).await?;
        let message = Draft {
            to,
            body,
            in_reply_to: parse::msg_id_option("in_reply_to", &in_reply_to)?,
            ttl_seconds: Some(ttl_seconds).filter(|seconds| *seconds > 0),
            idempotency_key: parse::text_option(idempotency_key),
            ..Draft::default()
        };
        let draft = FileDraft { message, path, name, content_type, allow_secret_names };
        let _place = self.shared.copy_place().await?;
        let (sent, file) = core.post.send_file(&from, draft).await.map_err(Refusal::from)?;
        Ok(Response::new(v1::SendFileResponse {
            msg_id: sent.msg_id.to_string(),
            conversation_id: sent.conversation_id.to_string(),
            to: sent.to.into(),
            recipient_online: sent.recipient_online,
            unread: core.post.unread(from.agent_id).await.map_err(Refusal::from)?,
            file: Some(convert::file(file)),
        }))
    }

    async fn list_transfers(
        &self,
        request: Request<v1::ListTransfersRequest>,
    ) -> Result<Response<v1::ListTransfersResponse>, Status> {
        let (call, v1::ListTransfersRequest { agent, all, limit }) = Call::of(request);
        let (core, agent) = self.shared.reader(&call, &agent).await?;
        let limit = parse::at_most("limit", limit, PAGE_SIZE_MAX)?;
        let transfers = core.post.transfers(agent.agent_id, all, limit).await.map_err(Refusal::from)?;
        let transfers = transfers.into_iter().map(convert::transfer).collect();
        Ok(Response::new(v1::ListTransfersResponse { transfers }))
    }

    async fn watch_transfers(
        &self,
        request: Request<v1::WatchTransfersRequest>,
    ) -> Result<Response<Self::WatchTransfersStream>, Status> {
        let (call, v1::WatchTransfersRequest { agent, transfer_id }) = Call::of(request);
        let (core, agent) = self.shared.reader(&call, &agent).await?;
        let only = if transfer_id.is_empty() { None } else { Some(stream_id(&transfer_id)?) };
        let transfers = core.post.follow_transfers(agent.agent_id, only).await.map_err(Refusal::from)?;
        let drain = self.shared.drain.clone();
        let changes = stream::try_unfold(transfers, |mut transfers| async move {
            let next = transfers.next().await.map_err(|error| Status::from(Refusal::from(error)))?;
            Ok::<_, Status>(next.map(|changed| (changed, transfers)))
        });
        let answers = changes.flat_map(|changed| {
            let answers: Vec<Result<_, Status>> = match changed {
                Ok(changed) => changed.into_iter().map(|changed| Ok(answer(changed))).collect(),
                Err(status) => vec![Err(status)],
            };
            stream::iter(answers)
        });
        Ok(Response::new(answers.take_until(async move { drain.cancelled().await }).boxed()))
    }

    async fn cancel_transfer(
        &self,
        request: Request<v1::CancelTransferRequest>,
    ) -> Result<Response<v1::CancelTransferResponse>, Status> {
        let (call, v1::CancelTransferRequest { agent, transfer_id }) = Call::of(request);
        let (core, agent) = self.shared.reader(&call, &agent).await?;
        let stream_id = stream_id(&transfer_id)?;
        let transfer = core.post.cancel_transfer(&agent, stream_id).await.map_err(Refusal::from)?;
        Ok(Response::new(v1::CancelTransferResponse { transfer: Some(convert::transfer(transfer)) }))
    }
}

fn answer(changed: crate::post::Transfer) -> v1::WatchTransfersResponse {
    v1::WatchTransfersResponse { transfer: Some(convert::transfer(changed)) }
}

fn stream_id(text: &str) -> Result<StreamId, Refusal> {
    text.parse().map_err(|_| {
        let rule = format!("must be the id of a transfer, got `{}`", text.chars().take(64).collect::<String>());
        Field { name: "transfer_id", rule }.into()
    })
}
