//! `murmur.node.v1.ShareService`.

use std::{path::PathBuf, sync::Arc};

use murmur_proto::node::v1::{self, share_service_server::ShareService};
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

use super::{
    caller::{is_interactive, known},
    server::{Call, Shared},
    status::{Field, Refusal},
};
use crate::{
    app::Core,
    store::agents::AgentRow,
    upload::{self, Draft, Roots, Uploaded},
};

/// Files that are sent up at one time.
const UPLOADS_MAX: usize = 4;

/// What agents show, for local programs.
pub(super) struct Share {
    shared: Arc<Shared>,
    uploads: Semaphore,
}

impl Share {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, uploads: Semaphore::new(UPLOADS_MAX) }
    }

    async fn speaker(&self, call: &Call, agent: String) -> Result<(Arc<Core>, Arc<AgentRow>), Refusal> {
        let core = self.shared.core()?;
        let row = known(&call.caller, &agent, &core.agents, &core.identity).await?;
        Ok((core, row))
    }

    /// What an agent may show: its own folder when this node started it, else where its caller works and what the owner allows.
    fn roots(&self, core: &Core, agent: &AgentRow, directory: String) -> Result<Roots, Refusal> {
        let directory = PathBuf::from(directory);
        if !directory.is_absolute() {
            return Err(Field { name: "directory", rule: "must be an absolute path".to_owned() }.into());
        }
        let data_dir = self.shared.data_dir.clone();
        if is_interactive(agent) {
            let folders = [directory.clone()].into_iter().chain(core.file_roots.iter().cloned()).collect();
            return Ok(Roots { directory, folders, data_dir });
        }
        let own = core.runtime_dir.join("agents").join(agent.agent_id.to_string()).join("work");
        let is_inside = own.canonicalize().is_ok_and(|own| directory.starts_with(own)) || directory.starts_with(&own);
        let directory = if is_inside { directory } else { own.clone() };
        Ok(Roots { directory, folders: vec![own], data_dir })
    }
}

#[tonic::async_trait]
impl ShareService for Share {
    async fn upload_file(
        &self,
        request: Request<v1::UploadFileRequest>,
    ) -> Result<Response<v1::UploadFileResponse>, Status> {
        let (call, request) = Call::of(request);
        let v1::UploadFileRequest { agent, path, directory, filename, content_type } = request;
        let (core, agent) = self.speaker(&call, agent).await?;
        let roots = self.roots(&core, &agent, directory)?;
        // The semaphore is never closed.
        let _place = self.uploads.acquire().await.map_err(|_| Shared::draining())?;
        let draft = Draft { path, filename, content_type };
        let Uploaded(done) =
            upload::upload(&core.control, agent.agent_id, roots, draft).await.map_err(Refusal::from)?;
        let murmur_proto::v1::UploadResponse { url, size_bytes, sha256, expire_time } = done;
        Ok(Response::new(v1::UploadFileResponse { url, size_bytes, sha256, expire_time }))
    }

    async fn open_port(&self, request: Request<v1::OpenPortRequest>) -> Result<Response<v1::OpenPortResponse>, Status> {
        let (call, v1::OpenPortRequest { agent, port }) = Call::of(request);
        let (core, agent) = self.speaker(&call, agent).await?;
        let url = core.tunnels.open(agent.agent_id, port).await.map_err(Refusal::from)?;
        Ok(Response::new(v1::OpenPortResponse { url }))
    }
}
