//! `upload`: put a file where whoever has the link can fetch it.

use murmur_proto::node::v1::UploadFileRequest;
use rmcp::model::ToolAnnotations;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Call, Murmur};
use crate::{errors::Failure, render};

pub(super) struct Upload;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Args {
    /// A file inside the working directory.
    #[schemars(length(min = 1))]
    path: String,
    /// What it is saved as. Default: its own name.
    #[serde(default)]
    filename: Option<String>,
    /// Default: what its name suggests.
    #[serde(default)]
    content_type: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Answer {
    /// Whoever has it can fetch the file.
    url: String,
    /// Bytes.
    size: u64,
    /// Hex.
    sha256: String,
    /// The link ends then.
    expires_at: String,
}

impl Murmur for Upload {
    const NAME: &'static str = "upload";
    const TITLE: &'static str = "Share a file by link";
    const DESCRIPTION: &'static str = "Put a file of your working directory behind a link that anybody who has it can fetch for a day. Not \
        encrypted: in confidence, use `send` with file.";
    type Args = Args;
    type Answer = Answer;

    fn annotations() -> ToolAnnotations {
        ToolAnnotations::new().read_only(false).destructive(false).idempotent(false).open_world(true)
    }

    async fn run(args: Args, call: &Call) -> Result<Answer, Failure> {
        let here = std::env::current_dir().ok().and_then(|dir| dir.to_str().map(str::to_owned));
        let directory =
            here.ok_or_else(|| Failure::argument("the working directory must exist, with a name in UTF-8"))?;
        let request = UploadFileRequest {
            agent: call.speaker().await?,
            path: args.path,
            directory,
            filename: args.filename.unwrap_or_default(),
            content_type: args.content_type.unwrap_or_default(),
        };
        let mut share = call.node()?.share;
        let done = call.shared.node.answer_slowly(share.upload_file(request)).await?;
        Ok(Answer {
            url: done.url,
            size: done.size_bytes,
            sha256: done.sha256.iter().map(|byte| format!("{byte:02x}")).collect(),
            expires_at: render::time(done.expire_time.as_ref()).unwrap_or_default(),
        })
    }
}
