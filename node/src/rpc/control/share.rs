//! What an agent shows to others through the control plane.

use futures::Stream;
use murmur_core::id::AgentId;
use murmur_proto::{client::AS_HEADER, v1};
use tonic::Request;

use super::{Control, ControlError};

impl Control {
    /// Puts a file there for an agent of this node. It takes as long as it takes.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn upload<S>(&self, agent: AgentId, pieces: S) -> Result<v1::UploadResponse, ControlError>
    where
        S: Stream<Item = v1::UploadRequest> + Send + 'static,
    {
        let mut request = Request::new(pieces);
        if let Ok(named) = format!("agent:{agent}").parse() {
            request.metadata_mut().insert(AS_HEADER, named);
        }
        let mut client = self.client.uploads.clone();
        Ok(client.upload(request).await?.into_inner())
    }
}
