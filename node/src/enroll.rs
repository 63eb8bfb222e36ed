//! How a node joins: it redeems an invite, then waits for its owner's signature (PROTOCOL §3.2, §3.3).
//!
//! Every step leaves a file before the next one begins, and each can be repeated: the invite is kept until the answer is on disk,
//! and the control plane answers the same key with the same node. So a node that dies anywhere goes on where it was.

use std::path::Path;

use murmur_core::{reason::Reason, retry::Backoff, slug::Scope};
use murmur_crypto::{
    cert::RootCertificate,
    enroll,
    hash::key_fingerprint,
    invite::{Invite, InviteError, Purpose},
    keys::IdentityKey,
};
use murmur_proto::{
    client::{ControlClient, Headers},
    status::RpcError,
    v1,
};
use nkeys::KeyPair;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::{
    app::{Pending, Stage},
    clock::Clock,
    delay::Delay,
    identity::{IdentityDir, IdentityError, NodeRecord, check_certificate},
    rpc::{
        control::{self, Channel},
        forward::Forward,
    },
};

const BACKOFF: Backoff = Backoff { base_ms: 250, cap_ms: 10_000 };

/// Why a node could not join, in a way that waiting does not cure.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    /// There is no invite.
    #[error(
        "this node has not joined a workspace yet: pass an invite with --join MURMUR:… (the owner makes one with `murmurctl invite`)"
    )]
    NoInvite,
    /// The file with the invite cannot be read.
    #[error("the invite cannot be read from {path}")]
    InviteFile {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is no invite, or one that cannot be used.
    #[error("the invite cannot be used: {0}")]
    Invite(#[from] InviteError),
    /// It is for something else.
    #[error("the invite is for pinning a peer's root, not for a node: ask for one made with `murmurctl invite`")]
    Purpose,
    /// The control plane refuses.
    #[error("the control plane refuses to enrol this node: {0}")]
    Refused(RpcError),
    /// The control plane answered with something else than the invite promises.
    #[error("the control plane at {url} is not the one that the invite names: {what} differs")]
    Mismatch {
        /// The control plane.
        url: String,
        /// What differs.
        what: &'static str,
    },
    /// The answer breaks the contract.
    #[error("the control plane's answer cannot be read: {0}")]
    Malformed(String),
    /// The node was revoked before it was approved.
    #[error("the owner has revoked this node: remove its data directory and enrol anew")]
    Revoked,
    /// The certificate that came is not this node's.
    #[error("the certificate that the control plane sent is refused")]
    Identity(#[from] IdentityError),
    /// The control plane's address cannot be used.
    #[error(transparent)]
    Address(#[from] murmur_proto::client::ConnectError),
    /// The node's token cannot be sent.
    #[error(transparent)]
    Token(#[from] murmur_proto::client::TokenNotAscii),
}

/// What joining works with.
pub struct Joining<'a> {
    /// Where the files are.
    pub dir: &'a IdentityDir,
    /// The node's key.
    pub key: &'a IdentityKey,
    /// Its broker key.
    pub broker_key: &'a KeyPair,
    /// The host's name, for people.
    pub name: &'a str,
    /// PEM of the control plane's certificate authority.
    pub ca_pem: Option<&'a str>,
    /// Told how it goes.
    pub stage: &'a watch::Sender<Stage>,
    /// Told where the control plane is.
    pub forward: &'a Forward,
    /// What time it is.
    pub clock: Clock,
}

/// Finds the invite: the text or file that was passed, `<data dir>/join`, or the one whose redeeming was interrupted.
///
/// # Errors
/// [`EnrollError::NoInvite`] and [`EnrollError::InviteFile`].
pub fn find_invite(join: Option<&str>, data_dir: &Path, dir: &IdentityDir) -> Result<String, EnrollError> {
    let read = |path: &Path| {
        let text = std::fs::read_to_string(path);
        text.map_err(|source| EnrollError::InviteFile { path: path.to_owned(), source })
    };
    match join {
        Some(text) if text.trim().starts_with(murmur_crypto::invite::PREFIX) => Ok(text.trim().to_owned()),
        Some(path) => Ok(read(Path::new(path))?.trim().to_owned()),
        None if data_dir.join("join").is_file() => Ok(read(&data_dir.join("join"))?.trim().to_owned()),
        None => dir.invite()?.ok_or(EnrollError::NoInvite),
    }
}

impl Joining<'_> {
    /// Brings the node to where it is approved. Waits as long as it takes; refusals that waiting does not cure are errors.
    ///
    /// # Errors
    /// [`EnrollError`].
    pub async fn run(&self, record: Option<NodeRecord>, invite: Option<String>) -> Result<NodeRecord, EnrollError> {
        let record = match record {
            Some(record) => record,
            None => self.redeem(&invite.ok_or(EnrollError::NoInvite)?).await?,
        };
        self.dir.blocking(IdentityDir::forget_invite).await?;
        self.forward.set_node(record.node_id);
        if record.node_certificate.is_some() {
            return Ok(record);
        }
        let fingerprint = key_fingerprint(self.key.public().as_bytes());
        info!("waiting for the owner's approval: murmurctl node approve {fingerprint}");
        self.wait_for_approval(record).await
    }

    /// Redeems the invite until the answer is on disk.
    async fn redeem(&self, text: &str) -> Result<NodeRecord, EnrollError> {
        let invite = Invite::read(text, self.clock.now_ms())?;
        if invite.purpose != Purpose::Node {
            return Err(EnrollError::Purpose);
        }
        let kept = text.to_owned();
        self.dir.blocking(move |dir| dir.save_invite(&kept)).await?;
        let channel = self.channel(&invite.cp_url)?;
        let mut waited = Delay::new(BACKOFF);
        let answer = loop {
            let mut client = ControlClient::new(channel.clone(), Headers::new()).nodes;
            let answer = client.enroll_node(self.request(&invite)).await.map_err(RpcError::from);
            match answer {
                Ok(answer) => break answer.into_inner(),
                Err(error) if may_pass(&error) => {
                    self.tell(None, &invite.cp_url, format!("it does not enrol yet: {error}"));
                    waited.wait().await;
                }
                Err(error) => return Err(EnrollError::Refused(error)),
            }
        };
        let (record, token) = self.check(&invite, answer)?;
        // The token first: the record's presence means that both are there.
        let kept = record.clone();
        self.dir.blocking(move |dir| dir.save_token(&token).and_then(|()| dir.save_record(&kept))).await?;
        info!(node = %record.node_id, "enrolled in workspace {} as a node of {}", record.workspace, record.account);
        Ok(record)
    }

    fn request(&self, invite: &Invite) -> v1::EnrollNodeRequest {
        let broker_public_key = self.broker_key.public_key();
        let proof = enroll::prove(self.key, &invite.secret, &broker_public_key);
        v1::EnrollNodeRequest {
            invite_secret: invite.secret.to_vec().into(),
            public_key: self.key.public().as_bytes().to_vec().into(),
            broker_public_key,
            name: self.name.to_owned(),
            proof: proof.to_vec().into(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// Holds the answer against the invite: the control plane cannot slip in another root.
    fn check(&self, invite: &Invite, answer: v1::EnrollNodeResponse) -> Result<(NodeRecord, String), EnrollError> {
        let v1::EnrollNodeResponse { node, token, workspace, root_certificate } = answer;
        let malformed = |what: String| EnrollError::Malformed(what);
        let mismatch = |what| EnrollError::Mismatch { url: invite.cp_url.clone(), what };
        let node = node.ok_or_else(|| malformed("node must be set".to_owned()))?;
        let root = RootCertificate::decode(root_certificate.clone()).map_err(IdentityError::from)?;
        if root.fp() != invite.root.fp() {
            return Err(mismatch("the workspace's root"));
        }
        if node.public_key != self.key.public().as_bytes()[..] {
            return Err(mismatch("the node's key"));
        }
        let id = |error: murmur_core::id::InvalidId| malformed(error.to_string());
        let name = |error: murmur_core::slug::SlugError| malformed(error.to_string());
        let record = NodeRecord {
            node_id: node.node_id.parse().map_err(id)?,
            workspace_id: invite.workspace_id(),
            workspace: workspace.parse().map_err(name)?,
            account: node.account.parse().map_err(name)?,
            name: self.name.to_owned(),
            control_plane_url: invite.cp_url.clone(),
            root_certificate: root_certificate.to_vec(),
            node_certificate: None,
            slug_scope: node.slug_scope,
        };
        let own = Scope::account(&record.workspace, &record.account);
        if !record.slug_scope.iter().any(|scope| own.as_str().starts_with(scope.as_str())) {
            warn!("the invite's scope does not cover {}: agents outside it cannot be named", own.as_str());
        }
        Ok((record, token))
    }

    /// Follows the node's own entry until it is approved.
    async fn wait_for_approval(&self, record: NodeRecord) -> Result<NodeRecord, EnrollError> {
        let channel = self.channel(&record.control_plane_url)?;
        let token = self
            .dir
            .blocking(IdentityDir::token)
            .await?
            .ok_or_else(|| EnrollError::Malformed("the node's token is gone".to_owned()))?;
        let client = ControlClient::new(channel, Headers::new().with_token(&token)?).nodes;
        let mut waited = Delay::new(BACKOFF);
        loop {
            let fingerprint = key_fingerprint(self.key.public().as_bytes());
            let waiting = format!("it waits for its owner's approval: murmurctl node approve {fingerprint}");
            self.tell(Some(&record), &record.control_plane_url, waiting);
            match self.approved(&record, client.clone()).await {
                Ok(Some(approved)) => return Ok(approved),
                Ok(None) => {}
                Err(Trouble::Fatal(error)) => return Err(error),
                Err(Trouble::Passing(error)) if may_pass(&error) => {
                    self.tell(Some(&record), &record.control_plane_url, format!("the control plane is away: {error}"));
                }
                Err(Trouble::Passing(error)) => return Err(EnrollError::Refused(error)),
            }
            waited.wait().await;
        }
    }

    /// One watch; `None` when it ended without a word.
    async fn approved(&self, record: &NodeRecord, mut client: NodesClient) -> Result<Option<NodeRecord>, Trouble> {
        let passing = |status| Trouble::Passing(RpcError::from(&status));
        let watch = client.watch_nodes(v1::WatchNodesRequest {}).await;
        let mut nodes = watch.map_err(passing)?.into_inner();
        while let Some(answer) = nodes.message().await.map_err(passing)? {
            let Some(node) = answer.node.filter(|node| node.node_id == record.node_id.to_string()) else { continue };
            if node.state == i32::from(v1::NodeState::Revoked) {
                return Err(Trouble::Fatal(EnrollError::Revoked));
            }
            if node.state == i32::from(v1::NodeState::Approved) && !node.certificate.is_empty() {
                return self.accept(record, &node.certificate).await.map(Some).map_err(Trouble::Fatal);
            }
        }
        Ok(None)
    }

    async fn accept(&self, record: &NodeRecord, certificate: &[u8]) -> Result<NodeRecord, EnrollError> {
        let root = RootCertificate::decode(record.root_certificate.clone()).map_err(IdentityError::from)?;
        let key = self.key.public();
        let checked = check_certificate(certificate, record.node_id, &key, &root, self.clock.now_ms())?;
        let approved = NodeRecord {
            node_certificate: Some(certificate.to_vec()),
            slug_scope: checked.claims().slug_scope.clone(),
            ..record.clone()
        };
        let kept = approved.clone();
        self.dir.blocking(move |dir| dir.save_record(&kept)).await?;
        info!(node = %record.node_id, "approved by the owner");
        Ok(approved)
    }

    fn channel(&self, url: &str) -> Result<Channel, EnrollError> {
        let channel = control::channel(url, self.ca_pem)?;
        self.forward.set_channel(channel.clone());
        Ok(channel)
    }

    fn tell(&self, record: Option<&NodeRecord>, url: &str, why: String) {
        let pending = Pending {
            node_id: record.map(|record| record.node_id),
            name: self.name.to_owned(),
            workspace: record.map(|record| record.workspace.to_string()),
            account: record.map(|record| record.account.to_string()),
            fingerprint: key_fingerprint(self.key.public().as_bytes()),
            control_plane_url: url.to_owned(),
            why,
        };
        self.stage.send_if_modified(|stage| {
            let is_news = !matches!(stage, Stage::Pending(before) if **before == pending);
            if is_news {
                info!("{pending}");
                *stage = Stage::Pending(pending.into());
            }
            is_news
        });
    }
}

type NodesClient = v1::node_service_client::NodeServiceClient<murmur_proto::client::Intercepted>;

enum Trouble {
    Passing(RpcError),
    Fatal(EnrollError),
}

/// Whether the same call may succeed later.
fn may_pass(error: &RpcError) -> bool {
    match error.reason {
        None => true,
        Some(reason) => matches!(
            reason,
            Reason::Draining | Reason::ControlPlaneDown | Reason::RateLimited | Reason::StorageFull | Reason::Internal
        ),
    }
}
