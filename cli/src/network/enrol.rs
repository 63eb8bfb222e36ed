//! The owner's calls to the control plane: the workspace, invites, and the signature under a node.

use std::time::Duration;

use murmur_core::{id::NodeId, limits::NODE_CERT_DUE_MS};
use murmur_crypto::{
    cert::Certificate,
    hash::key_fingerprint,
    invite::{Invite, Purpose},
};
use murmur_proto::{
    client::ControlClient,
    v1::{
        ApproveNodeRequest, CreateInviteRequest, CreateWorkspaceRequest, ListNodesRequest, Node, NodeState,
        WorkspaceMode,
    },
};

use crate::{
    exit::Exit,
    failure::{Context as _, Failure},
    owner::Owner,
    text,
    time::now_ms,
};

/// What an invite should allow.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InviteSpec<'a> {
    pub(crate) workspace: &'a str,
    /// Whose node it will be.
    pub(crate) account: &'a str,
    /// Where the control plane is.
    pub(crate) url: &'a str,
    pub(crate) uses: u32,
    pub(crate) ttl: Duration,
}

/// An invite to hand over.
#[derive(Debug)]
pub(crate) struct Made {
    /// `MURMUR:…`.
    pub(crate) blob: String,
    pub(crate) invite_id: String,
    pub(crate) expire_time: Option<prost_types::Timestamp>,
}

/// Makes sure that the workspace is there, with this owner's root.
pub(crate) async fn workspace(control: &mut ControlClient, owner: &Owner, name: &str) -> Result<(), Failure> {
    let request = CreateWorkspaceRequest {
        name: name.to_owned(),
        mode: WorkspaceMode::Owner.into(),
        root_certificate: owner.root.certificate().encode().into(),
    };
    control.directory.create_workspace(request).await?;
    Ok(())
}

/// Makes an invite for nodes. The control plane learns only the digest of its secret.
pub(crate) async fn invite(control: &mut ControlClient, owner: &Owner, spec: InviteSpec<'_>) -> Result<Made, Failure> {
    let InviteSpec { workspace, account, url, uses, ttl } = spec;
    let doing = "making the invite";
    let ttl_seconds = ttl.as_secs().max(1);
    let slug_scope = vec![format!("/w/{workspace}/u/{}/", account.to_ascii_lowercase())];
    let invite = Invite {
        purpose: Purpose::Node,
        root: owner.root.clone(),
        inviter: None,
        cp_url: url.to_owned(),
        cp_spki_sha256: Vec::new(),
        secret: Invite::new_secret().context(doing)?,
        slug_scope: slug_scope.clone(),
        max_uses: uses,
        expires_ms: now_ms().saturating_add(ttl_seconds.saturating_mul(1000)),
    };
    let blob = invite.sign(owner.key()).context(doing)?;
    let request = CreateInviteRequest {
        secret_hash: invite.secret_hash().to_vec().into(),
        account: account.to_owned(),
        slug_scope,
        uses_max: uses,
        ttl_seconds,
        workspace: workspace.to_owned(),
    };
    let made = control.auth.create_invite(request).await?.into_inner();
    Ok(Made { blob, invite_id: made.invite_id, expire_time: made.expire_time })
}

/// All nodes that the caller may see.
pub(crate) async fn list(control: &mut ControlClient) -> Result<Vec<Node>, Failure> {
    let mut nodes = Vec::new();
    let mut page_token = String::new();
    loop {
        let mut page = control.nodes.list_nodes(ListNodesRequest { page_size: 1000, page_token }).await?.into_inner();
        nodes.append(&mut page.nodes);
        if page.next_page_token.is_empty() {
            return Ok(nodes);
        }
        page_token = page.next_page_token;
    }
}

/// The node with this fingerprint, computed from its key and not told by the control plane.
pub(crate) async fn by_fingerprint(control: &mut ControlClient, wanted: &str) -> Result<Option<Node>, Failure> {
    let nodes = list(control).await?;
    Ok(nodes.into_iter().find(|node| key_fingerprint(&node.public_key) == wanted))
}

/// The node of this id or fingerprint; else of this name, of which there must be one: anybody may call their node anything.
pub(crate) async fn by_name(control: &mut ControlClient, wanted: &str) -> Result<Node, Failure> {
    let (id, fingerprint) = (wanted.parse::<NodeId>().ok(), fingerprint(wanted));
    let is_it = |node: &Node| {
        let is_id = id.is_some_and(|id| node.node_id == id.to_string());
        is_id || fingerprint.as_ref() == Some(&key_fingerprint(&node.public_key))
    };
    let nodes = list(control).await?;
    if let Some(node) = nodes.iter().find(|node| is_it(node)) {
        return Ok(node.clone());
    }
    let mut found: Vec<Node> = nodes.into_iter().filter(|node| node.name == wanted).collect();
    match (found.pop(), found.is_empty()) {
        (Some(node), true) => Ok(node),
        (Some(_), false) => Err(Failure::usage(format!("more than one node is called `{}`", text::clean_line(wanted)))
            .remedy("Name it by its fingerprint, which `murmurctl node ls` shows.")),
        (None, _) => Err(Failure::new(Exit::NotFound, format!("no node `{}`", text::clean_line(wanted)))
            .remedy("`murmurctl node ls` shows them all.")),
    }
}

/// A fingerprint as people copy it: 64 hex digits, with spaces or colons.
pub(crate) fn fingerprint(text: &str) -> Option<String> {
    let plain: String = text.chars().filter(|c| !matches!(c, ' ' | ':')).map(|c| c.to_ascii_lowercase()).collect();
    (plain.len() == 64 && plain.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(plain)
}

/// Signs the certificate of a node. One whose certificate holds for a while yet stays as it is.
pub(crate) async fn approve(control: &mut ControlClient, owner: &Owner, node: Node) -> Result<Node, Failure> {
    match node.state() {
        NodeState::Approved if !is_due(&node) => return Ok(node),
        NodeState::Revoked => {
            return Err(
                Failure::new(Exit::Refused, format!("node {} was revoked", node.name)).remedy("Invite it anew.")
            );
        }
        NodeState::Approved | NodeState::Pending | NodeState::Unspecified => {}
    }
    let certificate = owner.certify(&node)?.into();
    let answer = control.nodes.approve_node(ApproveNodeRequest { node_id: node.node_id, certificate }).await?;
    answer.into_inner().node.ok_or_else(|| Failure::failed("the control plane approved a node and did not say which"))
}

/// Whether a node's certificate has to be signed anew; it takes that up while it runs.
fn is_due(node: &Node) -> bool {
    let Ok(certificate) = Certificate::decode(node.certificate.to_vec()) else { return true };
    certificate.claims().not_after_ms.saturating_sub(now_ms()) <= NODE_CERT_DUE_MS
}
