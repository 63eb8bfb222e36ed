//! Sends a file up in pieces, as fast as the control plane takes them.

use std::{fs::File, sync::Arc};

use bytes::Bytes;
use futures::{Stream, stream};
use murmur_core::id::AgentId;
use murmur_proto::v1::{self, upload_request::Item};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncReadExt as _;

use super::{FileError, Roots};
use crate::{
    post::content_type_of,
    rpc::control::{Control, ControlError},
};

const PIECE_BYTES: usize = 64 * 1024;

/// What is to be shown.
#[derive(Debug, Clone)]
pub struct Draft {
    /// As typed.
    pub path: String,
    /// What it is saved as; empty: its own name.
    pub filename: String,
    /// Empty: what its name says.
    pub content_type: String,
}

/// Where it is.
#[derive(Debug, Clone)]
pub struct Uploaded(pub v1::UploadResponse);

/// Why it is not.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The file is not shown.
    #[error(transparent)]
    File(#[from] FileError),
    /// The control plane does not take it.
    #[error(transparent)]
    Control(#[from] ControlError),
}

/// Puts a file on the control plane, for an agent of this node.
///
/// # Errors
/// [`UploadError`].
pub async fn upload(
    control: &Arc<Control>,
    agent: AgentId,
    roots: Roots,
    draft: Draft,
) -> Result<Uploaded, UploadError> {
    let Draft { path, filename, content_type } = draft;
    let opened = tokio::task::spawn_blocking(move || roots.open(&path)).await;
    let (file, own_name) = opened.map_err(|error| FileError::Refused(format!("cannot be opened: {error}")))??;
    let size_bytes = file.metadata().map_err(|error| FileError::Refused(error.to_string()))?.len();
    let filename = if filename.is_empty() { own_name } else { filename };
    let content_type = if content_type.is_empty() { content_type_of(&filename).to_owned() } else { content_type };
    let header = v1::UploadHeader { filename, content_type, size_bytes };
    Ok(Uploaded(control.upload(agent, pieces(file, header)).await?))
}

/// What is still to be said.
struct Said {
    file: tokio::fs::File,
    digest: Sha256,
    left: u64,
    is_over: bool,
}

/// Header, as many bytes as it announces, digest. A file that shrinks meanwhile ends early, and is refused for that.
fn pieces(file: File, header: v1::UploadHeader) -> impl Stream<Item = v1::UploadRequest> + Send + 'static {
    let said = Said { file: file.into(), digest: Sha256::new(), left: header.size_bytes, is_over: false };
    let first = stream::iter([v1::UploadRequest { item: Some(Item::Header(header)) }]);
    let rest = stream::unfold(said, |mut said| async move {
        if said.is_over {
            return None;
        }
        let most = usize::try_from(said.left).unwrap_or(usize::MAX).min(PIECE_BYTES);
        let mut piece = vec![0; most];
        let length = match most {
            0 => 0,
            // What cannot be read ends it as too short.
            _ => said.file.read(&mut piece).await.unwrap_or_default(),
        };
        piece.truncate(length);
        said.left -= length as u64;
        said.digest.update(&piece);
        said.is_over = length == 0;
        let item = if said.is_over {
            let sha256 = Bytes::from(said.digest.clone().finalize().to_vec());
            Item::End(v1::UploadEnd { sha256 })
        } else {
            Item::Data(piece.into())
        };
        Some((v1::UploadRequest { item: Some(item) }, said))
    });
    futures::StreamExt::chain(first, rest)
}
