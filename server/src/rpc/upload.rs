//! `murmur.v1.UploadService`.

use std::{sync::Arc, time::Duration};

use murmur_proto::v1::{self, upload_request::Item, upload_service_server::UploadService};
use tonic::{Request, Response, Status, Streaming};

use super::{caller, convert::timestamp, status};
use crate::{invalid::Invalid, lifecycle::Lifecycle, uploads::Uploads};

/// Whoever sends nothing for so long is not waited for.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Files that come in.
pub(crate) struct UploadRpc {
    pub(crate) uploads: Arc<Uploads>,
    pub(crate) lifecycle: Lifecycle,
}

impl UploadRpc {
    async fn next(&self, inbound: &mut Streaming<v1::UploadRequest>) -> Result<Item, Status> {
        let message = tokio::select! {
            message = tokio::time::timeout(SILENCE_MAX, inbound.message()) => message,
            () = self.lifecycle.draining() => return Err(status::draining()),
        };
        let message = message.map_err(|_| Status::deadline_exceeded("nothing came for 30 s"))??;
        let item = message.and_then(|message| message.item);
        item.ok_or_else(|| Invalid::new("item", "must be a header, then data, then an end").into())
    }
}

#[tonic::async_trait]
impl UploadService for UploadRpc {
    async fn upload(
        &self,
        request: Request<Streaming<v1::UploadRequest>>,
    ) -> Result<Response<v1::UploadResponse>, Status> {
        let caller = caller(&request)?;
        let mut inbound = request.into_inner();
        let Item::Header(header) = self.next(&mut inbound).await? else {
            return Err(Invalid::new("header", "must come first").into());
        };
        let mut intake = self.uploads.begin(&caller, header).await?;
        loop {
            match self.next(&mut inbound).await? {
                Item::Data(data) => intake.write(data).await?,
                Item::End(end) => {
                    let done = intake.finish(&end.sha256).await?;
                    return Ok(Response::new(v1::UploadResponse {
                        url: done.url,
                        size_bytes: done.size_bytes,
                        sha256: done.sha256.to_vec().into(),
                        expire_time: Some(timestamp(done.expire_ms)),
                    }));
                }
                Item::Header(_) => return Err(Invalid::new("header", "must come once").into()),
            }
        }
    }
}
