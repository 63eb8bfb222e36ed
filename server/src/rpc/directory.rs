//! `murmur.v1.DirectoryService`.

use std::sync::Arc;

use murmur_proto::v1::{self, directory_service_server::DirectoryService, watch_directory_response::Item};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{Answers, STREAM_ITEMS_MAX, caller, calling_node, convert, incarnation, status};
use crate::{
    db::agent::Kind,
    directory::{Batch, Directory, Registration, ResumeToken},
    invalid::{Invalid, parse},
    lifecycle::Lifecycle,
    metrics::Metrics,
    nodes::Nodes,
    tokens::Principal,
};

/// Workspaces, agents and keys.
pub(crate) struct DirectoryRpc {
    pub(crate) directory: Arc<Directory>,
    /// Knows which incarnation of a node may still write.
    pub(crate) nodes: Arc<Nodes>,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) metrics: Arc<Metrics>,
}

#[tonic::async_trait]
impl DirectoryService for DirectoryRpc {
    async fn create_workspace(
        &self,
        request: Request<v1::CreateWorkspaceRequest>,
    ) -> Result<Response<v1::CreateWorkspaceResponse>, Status> {
        let request = request.into_inner();
        let rule = match request.mode() {
            v1::WorkspaceMode::Owner => None,
            v1::WorkspaceMode::Operator => {
                Some("must be OWNER: this version of the control plane holds no issuing keys")
            }
            v1::WorkspaceMode::Unspecified => Some("must be OWNER"),
        };
        if let Some(rule) = rule {
            return Err(Invalid::new("mode", rule).into());
        }
        let name = parse("name", &request.name)?;
        let created = self.directory.create_workspace(name, request.root_certificate.to_vec()).await?;
        Ok(Response::new(v1::CreateWorkspaceResponse { workspace: Some(convert::workspace(created)) }))
    }

    async fn get_workspace(
        &self,
        request: Request<v1::GetWorkspaceRequest>,
    ) -> Result<Response<v1::GetWorkspaceResponse>, Status> {
        let caller = caller(&request)?;
        let found = self.directory.workspace(&caller, &request.get_ref().name).await?;
        Ok(Response::new(v1::GetWorkspaceResponse { workspace: Some(convert::workspace(found)) }))
    }

    async fn register_agent(
        &self,
        request: Request<v1::RegisterAgentRequest>,
    ) -> Result<Response<v1::RegisterAgentResponse>, Status> {
        let (caller, node) = calling_node(&request)?;
        self.nodes.require_current(node, incarnation(&request)?).await?;
        let (_, workspace) =
            caller.workspace.clone().ok_or_else(|| Status::from(crate::directory::DirectoryError::NoWorkspace))?;
        let wanted = registration(request.into_inner())?;
        let (agent, created) = self.directory.register(node, &workspace, wanted).await?;
        Ok(Response::new(v1::RegisterAgentResponse { agent: Some(convert::listed(agent)), created }))
    }

    async fn publish_keys(
        &self,
        request: Request<v1::PublishKeysRequest>,
    ) -> Result<Response<v1::PublishKeysResponse>, Status> {
        let (_, node) = calling_node(&request)?;
        self.nodes.require_current(node, incarnation(&request)?).await?;
        let v1::PublishKeysRequest { agent_id, keys } = request.into_inner();
        let id = parse("agent_id", &agent_id)?;
        let keys = keys.ok_or_else(|| Invalid::new("keys", "must be set"))?;
        let agent = self.directory.publish_keys(node, id, keys.chain.to_vec(), keys.prekey.to_vec()).await?;
        Ok(Response::new(v1::PublishKeysResponse { agent: Some(convert::listed(agent)) }))
    }

    async fn deregister_agent(
        &self,
        request: Request<v1::DeregisterAgentRequest>,
    ) -> Result<Response<v1::DeregisterAgentResponse>, Status> {
        let (_, node) = calling_node(&request)?;
        self.nodes.require_current(node, incarnation(&request)?).await?;
        let id = parse("agent_id", &request.into_inner().agent_id)?;
        let deregistered = self.directory.deregister(node, id).await?;
        Ok(Response::new(v1::DeregisterAgentResponse { deregistered }))
    }

    async fn resolve_agent(
        &self,
        request: Request<v1::ResolveAgentRequest>,
    ) -> Result<Response<v1::ResolveAgentResponse>, Status> {
        let caller = caller(&request)?;
        let agent = self.directory.resolve(&caller, &request.get_ref().slug).await?;
        Ok(Response::new(v1::ResolveAgentResponse { agent: Some(convert::listed(agent)) }))
    }

    async fn list_agents(
        &self,
        request: Request<v1::ListAgentsRequest>,
    ) -> Result<Response<v1::ListAgentsResponse>, Status> {
        let caller = caller(&request)?;
        let v1::ListAgentsRequest { page_size, page_token } = request.into_inner();
        let (agents, next_page_token) = self.directory.list_agents(&caller, page_size, &page_token).await?;
        let agents = agents.into_iter().map(convert::listed).collect();
        Ok(Response::new(v1::ListAgentsResponse { agents, next_page_token }))
    }

    type WatchDirectoryStream = Answers<v1::WatchDirectoryResponse>;

    async fn watch_directory(
        &self,
        request: Request<v1::WatchDirectoryRequest>,
    ) -> Result<Response<Self::WatchDirectoryStream>, Status> {
        let caller = caller(&request)?;
        let resume = request.into_inner().resume_token;
        let since = if resume.is_empty() { None } else { Some(resume.parse::<ResumeToken>()?) };
        let bell = self.directory.listen(&caller)?;
        // Read before the answer begins, so that a stale token refuses the call itself.
        let first = self.directory.batch(&caller, since.as_ref()).await?;
        let (answers, stream) = mpsc::channel(STREAM_ITEMS_MAX);
        let watching = Watching { directory: Arc::clone(&self.directory), caller, bell, answers };
        let watcher = self.metrics.watcher();
        let drain = self.lifecycle.clone();
        self.lifecycle.spawn(async move {
            let answers = watching.answers.clone();
            tokio::select! {
                result = watching.run(first) => if let Err(Some(status)) = result {
                    let _ = answers.send(Err(status)).await;
                },
                () = drain.draining() => { let _ = answers.try_send(Err(status::draining())); }
                () = answers.closed() => {}
            }
            drop(watcher);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

/// One watch.
struct Watching {
    directory: Arc<Directory>,
    caller: Arc<Principal>,
    bell: watch::Receiver<()>,
    answers: mpsc::Sender<Result<v1::WatchDirectoryResponse, Status>>,
}

impl Watching {
    /// Sends the first batch, then what changes whenever the bell rings. `Err(None)` is a reader that left.
    async fn run(mut self, first: Batch) -> Result<(), Option<Status>> {
        let mut end = first.end.clone();
        self.send_entries(first).await?;
        self.send(Item::SnapshotDone(v1::SnapshotDone {})).await?;
        self.bookmark(&end).await?;
        while self.bell.changed().await.is_ok() {
            let read = self.directory.batch(&self.caller, Some(&end)).await;
            let batch = read.map_err(|error| Some(error.into()))?;
            end = batch.end.clone();
            if !batch.is_empty() {
                self.send_entries(batch).await?;
                self.bookmark(&end).await?;
            }
        }
        Ok(())
    }

    async fn send_entries(&self, batch: Batch) -> Result<(), Option<Status>> {
        for node in batch.nodes {
            let presence = convert::presence(node.online).into();
            self.send(Item::Node(v1::NodePresence { node_id: node.id.to_string(), presence })).await?;
        }
        for agent in batch.agents {
            let item = if agent.ended_ms.is_some() {
                Item::Removed(v1::AgentRemoved { agent_id: agent.id.to_string(), slug: agent.slug.to_string() })
            } else {
                Item::Agent(convert::watched(agent))
            };
            self.send(item).await?;
        }
        Ok(())
    }

    async fn bookmark(&self, end: &ResumeToken) -> Result<(), Option<Status>> {
        self.send(Item::Bookmark(v1::Bookmark { resume_token: end.to_string() })).await
    }

    async fn send(&self, item: Item) -> Result<(), Option<Status>> {
        let response = v1::WatchDirectoryResponse { item: Some(item) };
        self.answers.send(Ok(response)).await.map_err(|_| None)
    }
}

fn registration(request: v1::RegisterAgentRequest) -> Result<Registration, Invalid> {
    let kind = match request.kind() {
        v1::AgentKind::Interactive => Kind::Interactive,
        v1::AgentKind::Spawned => Kind::Spawned,
        v1::AgentKind::Unspecified => return Err(Invalid::new("kind", "must be INTERACTIVE or SPAWNED")),
    };
    Ok(Registration {
        path: parse("path", &request.path)?,
        description: request.description,
        group: request.group,
        kind,
        suffix_when_taken: request.suffix_when_taken,
        move_here: request.move_here,
    })
}
