//! `murmur.v1.NodeService`.

use std::sync::Arc;

use murmur_proto::v1::{self, node_service_server::NodeService};
use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{Answers, STREAM_ITEMS_MAX, caller, calling_node, convert, incarnation, session::SessionDoor, status};
use crate::{
    invalid::{Invalid, fixed, parse, parse_optional},
    lifecycle::Lifecycle,
    nodes::{Enrolment, Nodes, Renewed},
    tokens::Principal,
};

/// Enrolment, sessions and broker credentials.
pub(crate) struct NodeRpc {
    pub(crate) nodes: Arc<Nodes>,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) door: SessionDoor,
}

#[tonic::async_trait]
impl NodeService for NodeRpc {
    async fn enroll_node(
        &self,
        request: Request<v1::EnrollNodeRequest>,
    ) -> Result<Response<v1::EnrollNodeResponse>, Status> {
        let enrolled = self.nodes.enroll(enrolment(request.into_inner())?).await?;
        Ok(Response::new(v1::EnrollNodeResponse {
            node: Some(convert::node(enrolled.node)),
            token: enrolled.token.expose().to_string(),
            workspace: enrolled.workspace.name.to_string(),
            root_certificate: enrolled.workspace.root_certificate.into(),
        }))
    }

    async fn approve_node(
        &self,
        request: Request<v1::ApproveNodeRequest>,
    ) -> Result<Response<v1::ApproveNodeResponse>, Status> {
        let caller = caller(&request)?;
        let v1::ApproveNodeRequest { node_id, certificate } = request.into_inner();
        let node = self.nodes.approve(&caller, parse("node_id", &node_id)?, certificate.to_vec()).await?;
        Ok(Response::new(v1::ApproveNodeResponse { node: Some(convert::node(node)) }))
    }

    async fn publish_revocation_list(
        &self,
        request: Request<v1::PublishRevocationListRequest>,
    ) -> Result<Response<v1::PublishRevocationListResponse>, Status> {
        let caller = caller(&request)?;
        let v1::PublishRevocationListRequest { revocation_list, workspace } = request.into_inner();
        let workspace = parse_optional("workspace", &workspace)?;
        let revoked = self.nodes.publish_revocations(&caller, workspace, revocation_list).await?;
        Ok(Response::new(v1::PublishRevocationListResponse {
            nodes: revoked.nodes.into_iter().map(convert::node).collect(),
            broker_told: revoked.broker_told,
        }))
    }

    async fn get_revocation_list(
        &self,
        request: Request<v1::GetRevocationListRequest>,
    ) -> Result<Response<v1::GetRevocationListResponse>, Status> {
        let caller = caller(&request)?;
        let workspace = parse_optional("workspace", &request.into_inner().workspace)?;
        let list = self.nodes.revocation_list(&caller, workspace).await?.unwrap_or_default();
        Ok(Response::new(v1::GetRevocationListResponse { revocation_list: list.into() }))
    }

    async fn list_nodes(
        &self,
        request: Request<v1::ListNodesRequest>,
    ) -> Result<Response<v1::ListNodesResponse>, Status> {
        let caller = caller(&request)?;
        let v1::ListNodesRequest { page_size, page_token } = request.into_inner();
        let (nodes, next_page_token) = self.nodes.list(&caller, page_size, &page_token).await?;
        let nodes = nodes.into_iter().map(convert::node).collect();
        Ok(Response::new(v1::ListNodesResponse { nodes, next_page_token }))
    }

    type WatchNodesStream = Answers<v1::WatchNodesResponse>;

    async fn watch_nodes(
        &self,
        request: Request<v1::WatchNodesRequest>,
    ) -> Result<Response<Self::WatchNodesStream>, Status> {
        let caller = caller(&request)?;
        let bell = self.nodes.listen(&caller)?;
        let (answers, stream) = mpsc::channel(STREAM_ITEMS_MAX);
        let nodes = Arc::clone(&self.nodes);
        let drain = self.lifecycle.clone();
        self.lifecycle.spawn(async move {
            tokio::select! {
                result = watch_nodes(&nodes, &caller, bell, &answers) => if let Err(Some(status)) = result {
                    let _ = answers.send(Err(status)).await;
                },
                () = drain.draining() => { let _ = answers.try_send(Err(status::draining())); }
                () = answers.closed() => {}
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn get_broker_credentials(
        &self,
        request: Request<v1::GetBrokerCredentialsRequest>,
    ) -> Result<Response<v1::GetBrokerCredentialsResponse>, Status> {
        let (_, node) = calling_node(&request)?;
        self.nodes.require_current(node, incarnation(&request)?).await?;
        let v1::GetBrokerCredentialsRequest { broker_public_key, redeliver } = request.into_inner();
        let credentials = self.nodes.credentials(node, &broker_public_key, redeliver).await?;
        Ok(Response::new(v1::GetBrokerCredentialsResponse {
            jwt: credentials.access.jwt,
            urls: credentials.access.urls,
            route: credentials.route.to_string(),
            stream: credentials.stream,
            consumer: credentials.consumer,
            expire_time: Some(convert::timestamp(credentials.access.expire_ms)),
            ca_pem: credentials.access.ca_pem,
            stream_create_time: Some(convert::timestamp(credentials.access.stream_created_ms)),
        }))
    }

    async fn renew_node_token(
        &self,
        request: Request<v1::RenewNodeTokenRequest>,
    ) -> Result<Response<v1::RenewNodeTokenResponse>, Status> {
        let (caller, node) = calling_node(&request)?;
        self.nodes.require_current(node, incarnation(&request)?).await?;
        let Renewed { token, expire_ms } = self.nodes.renew_token(&caller, node).await?;
        let expire_time = Some(convert::timestamp(expire_ms));
        Ok(Response::new(v1::RenewNodeTokenResponse { token: token.expose().to_string(), expire_time }))
    }

    type OpenSessionStream = Answers<v1::OpenSessionResponse>;

    async fn open_session(
        &self,
        request: Request<Streaming<v1::OpenSessionRequest>>,
    ) -> Result<Response<Self::OpenSessionStream>, Status> {
        let caller = calling_node(&request)?;
        let stream = self.door.open(Arc::clone(&self.nodes), caller, request.into_inner(), &self.lifecycle);
        Ok(Response::new(Box::pin(stream)))
    }
}

/// Sends every node that the caller may see, then each that changes. `Err(None)` is a reader that left.
async fn watch_nodes(
    nodes: &Nodes,
    caller: &Principal,
    mut bell: watch::Receiver<()>,
    answers: &mpsc::Sender<Result<v1::WatchNodesResponse, Status>>,
) -> Result<(), Option<Status>> {
    let mut revision = 0;
    loop {
        let (changed, end) = nodes.changed_since(caller, revision).await.map_err(|error| Some(Status::from(error)))?;
        revision = end;
        for node in changed {
            let response = v1::WatchNodesResponse { node: Some(convert::node(node)) };
            answers.send(Ok(response)).await.map_err(|_| None)?;
        }
        if bell.changed().await.is_err() {
            return Ok(());
        }
    }
}

fn enrolment(request: v1::EnrollNodeRequest) -> Result<Enrolment, Invalid> {
    let secret: [u8; 32] = fixed("invite_secret", &request.invite_secret)?;
    Ok(Enrolment {
        secret_hash: Sha256::digest(secret).into(),
        public_key: fixed("public_key", &request.public_key)?,
        broker_public_key: request.broker_public_key,
        name: request.name,
        proof: fixed("proof", &request.proof)?,
        version: request.version,
    })
}
