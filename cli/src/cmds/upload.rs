//! `upload PATH`: puts a file where whoever has the link can fetch it.

use data_encoding::HEXLOWER;
use murmur_proto::node::v1::UploadFileRequest;
use serde_json::json;

use super::files::size;
use crate::{
    args::Speaker,
    connect::Target,
    failure::{Context as _, Failure},
    output::{Outcome, Output},
    text::clean_line,
    time,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The file, inside the working directory or one of the node's `file_roots`
    path: String,
    /// What it is saved as by whoever fetches it [default: its own name]
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    filename: String,
    /// What the file is, such as `text/csv` [default: what its name says]
    #[arg(long = "type", value_name = "TYPE", default_value = "", hide_default_value = true)]
    content_type: String,
    #[command(flatten)]
    speaker: Speaker,
}

pub(crate) async fn run(target: &Target, args: Args, output: Output) -> Outcome {
    let Args { path, filename, content_type, speaker } = args;
    let here = std::env::current_dir().context("finding the working directory")?;
    let directory = here.to_str().ok_or_else(|| Failure::usage("the working directory's name must be UTF-8"))?;
    let request = UploadFileRequest {
        agent: speaker.agent.clone(),
        path,
        directory: directory.to_owned(),
        filename,
        content_type,
    };
    let done = target.node_as(&speaker).await?.share.upload_file(request).await?.into_inner();
    let value = json!({
        "url": done.url,
        "size": done.size_bytes,
        "sha256": HEXLOWER.encode(&done.sha256),
        "expires_at": time::rfc3339(done.expire_time.as_ref()),
    });
    output.show(&value, || {
        let until = time::ahead(done.expire_time.as_ref());
        format!(
            "{}\n{}; anybody with the link can fetch it, which ends {until}",
            clean_line(&done.url),
            size(done.size_bytes)
        )
    })
}
