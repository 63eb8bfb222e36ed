//! `workspace show`.

use data_encoding::HEXLOWER;
use murmur_crypto::cert::RootCertificate;
use murmur_proto::v1::{GetWorkspaceRequest, WorkspaceMode};
use serde_json::json;

use crate::{
    connect::Target,
    failure::Context as _,
    output::{self, Outcome, Output},
    owner::Owner,
    time,
};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Its name, id, mode and root
    Show {
        /// The workspace [default: the local network's, else your own]
        name: Option<String>,
    },
}

pub(crate) async fn run(target: &Target, command: &Command, output: Output) -> Outcome {
    let Command::Show { name } = command;
    let planned = target.plan.as_ref().map(|plan| plan.workspace.clone());
    let request = GetWorkspaceRequest { name: name.clone().or(planned).unwrap_or_default() };
    let answer = target.control().await?.directory.get_workspace(request).await?.into_inner();
    let workspace = answer.workspace.unwrap_or_default();
    let root = RootCertificate::decode(workspace.root_certificate.clone()).context("reading the workspace's root")?;
    let mode = match workspace.mode() {
        WorkspaceMode::Owner => "owner",
        WorkspaceMode::Operator => "operator",
        WorkspaceMode::Unspecified => "unknown",
    };
    let owned = Owner::load(&target.layout, &workspace.name)?.is_some_and(|owner| owner.root.fp() == root.fp());
    let root_key = HEXLOWER.encode(root.public_key().as_bytes());
    let created = time::rfc3339(workspace.create_time.as_ref());
    let value = json!({
        "name": workspace.name,
        "workspace_id": workspace.workspace_id,
        "mode": mode,
        "root_fingerprint": root.fp().to_string(),
        "root_public_key": root_key,
        "root_key_here": owned,
        "create_time": created,
    });
    output.show(&value, || {
        output::pairs([
            ("name", workspace.name.clone()),
            ("id", workspace.workspace_id.clone()),
            ("mode", mode.to_owned()),
            ("root", root.fp().to_string()),
            ("root key", if owned { "on this machine".into() } else { "elsewhere".into() }),
            ("created", created.clone().unwrap_or_default()),
        ])
    })
}
