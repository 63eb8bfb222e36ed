//! The workspace owner's side: the root key in a 0600 file, invites, and the signature under a node (PROTOCOL §3.2, §3.3).

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use data_encoding::BASE64;
use murmur_core::{
    id::{NodeId, WorkspaceId},
    limits::{NODE_CERT_LIFE_MS, ROOT_CERT_LIFE_MS},
};
use murmur_crypto::{
    cert::{Origin, RootCertificate},
    issue::{self, Issuer, NodeSpec, RootSpec, Validity},
    keys::{IdentityKey, PublicKey},
};
use murmur_proto::v1::Node;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::{
    exit::Exit,
    failure::{Context as _, Failure},
    network::layout::{self, Layout},
    time::now_ms,
};

/// The owner of one workspace: its root key and certificate.
pub(crate) struct Owner {
    key: IdentityKey,
    pub(crate) root: RootCertificate,
}

/// The file: the Ed25519 seed and the root certificate, base64.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
struct Stored {
    seed: String,
    root_certificate: String,
}

impl Owner {
    /// The file of a workspace's owner.
    pub(crate) fn path(layout: &Layout, workspace: &str) -> PathBuf {
        layout.owner().join(format!("{workspace}.key"))
    }

    /// Reads the owner of a workspace; `None` when this machine holds no such key.
    pub(crate) fn load(layout: &Layout, workspace: &str) -> Result<Option<Self>, Failure> {
        let path = Self::path(layout, workspace);
        let Some(text) = layout::read_optional(&path)? else { return Ok(None) };
        let doing = || format!("reading the root key `{}`", path.display());
        let mode = fs::metadata(&path).context(doing())?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(Failure::new(
                Exit::Refused,
                format!("the root key `{}` can be read by others", path.display()),
            )
            .remedy(format!(
                "Run `chmod 600 {}`, and make a new workspace if somebody may have read it.",
                path.display()
            )));
        }
        let text = Zeroizing::new(text);
        let stored: Stored = serde_json::from_str(&text).context(doing())?;
        let seed = Zeroizing::new(BASE64.decode(stored.seed.as_bytes()).context(doing())?);
        let seed = seed
            .as_slice()
            .try_into()
            .map_err(|_| Failure::failed(format!("{}: the seed is not 32 bytes", doing())))?;
        let root = BASE64.decode(stored.root_certificate.as_bytes()).context(doing())?;
        Ok(Some(Self { key: IdentityKey::from_seed(&seed), root: RootCertificate::decode(root).context(doing())? }))
    }

    /// As [`Owner::load`], and an error that says whose machine to use.
    pub(crate) fn require(layout: &Layout, workspace: &str) -> Result<Self, Failure> {
        Self::load(layout, workspace)?.ok_or_else(|| {
            let path = Self::path(layout, workspace);
            Failure::new(
                Exit::Refused,
                format!("the root key of workspace `{workspace}` is not here: `{}` is missing", path.display()),
            )
            .remedy("Run this on the owner's machine, or name its data directory with --data-dir.")
        })
    }

    /// Reads the owner of a workspace, or makes one and its key.
    pub(crate) fn load_or_create(layout: &Layout, workspace: &str) -> Result<Self, Failure> {
        if let Some(owner) = Self::load(layout, workspace)? {
            return Ok(owner);
        }
        let key = IdentityKey::generate().context("making the root key")?;
        let now = now_ms();
        let spec = RootSpec {
            workspace_id: WorkspaceId::new_v7(now, random()?),
            serial: 1,
            validity: Validity::for_what_waits(now, ROOT_CERT_LIFE_MS),
            slug_scope: vec![format!("/w/{workspace}/")],
            origin: Origin::Owner,
        };
        let root = issue::root(&key, spec).context("making the root certificate")?;
        let stored =
            Stored { seed: BASE64.encode(&*key.seed()), root_certificate: BASE64.encode(&root.certificate().encode()) };
        let text = Zeroizing::new(serde_json::to_string(&stored).context("encoding the root key")?);
        layout::write_private(&Self::path(layout, workspace), text.as_bytes())?;
        Ok(Self { key, root })
    }

    pub(crate) const fn key(&self) -> &IdentityKey {
        &self.key
    }

    /// Signs a node's certificate.
    pub(crate) fn certify(&self, node: &Node) -> Result<Vec<u8>, Failure> {
        let doing = "signing the node's certificate";
        let spec = NodeSpec {
            node_id: node.node_id.parse::<NodeId>().context(doing)?,
            public_key: public_key(node)?,
            // A later certificate of the same node must count higher, and the clock does.
            serial: now_ms(),
            validity: Validity::for_what_waits(now_ms(), NODE_CERT_LIFE_MS),
            slug_scope: node.slug_scope.clone(),
        };
        let issuer = Issuer::new(&self.key, self.root.certificate()).context(doing)?;
        Ok(issuer.node(spec).context(doing)?.encode())
    }
}

fn public_key(node: &Node) -> Result<PublicKey, Failure> {
    let bytes = node.public_key.as_ref().try_into().context("reading the node's key")?;
    PublicKey::from_bytes(bytes).context("reading the node's key")
}

/// Random bytes of the operating system.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).context("drawing randomness")?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use murmur_core::limits::TTL_SECONDS_MAX;
    use murmur_crypto::{
        cert::Certificate,
        chain::{Chain, NothingSeen, verify_node_chain},
    };

    use super::*;

    #[test]
    fn what_waited_while_a_certificate_was_renewed_is_believed_under_the_new_one() {
        let home = tempfile::tempdir().unwrap();
        let layout = Layout::new(home.path());
        layout.create().unwrap();
        let owner = Owner::load_or_create(&layout, "acme").unwrap();
        let node = Node {
            node_id: NodeId::from_bytes([1; 16]).to_string(),
            public_key: IdentityKey::generate().unwrap().public().as_bytes().to_vec().into(),
            slug_scope: vec!["/w/acme/u/jdoe/".to_owned()],
            ..Node::default()
        };
        let certificate = Certificate::decode(owner.certify(&node).unwrap()).unwrap();
        let chain = Chain::new(certificate, Vec::new()).unwrap();
        let made_ms = now_ms() - u64::from(TTL_SECONDS_MAX) * 1000;
        assert!(verify_node_chain(&chain, &owner.root, made_ms, &NothingSeen).is_ok());
    }
}
