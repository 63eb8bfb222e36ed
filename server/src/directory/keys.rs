//! Publishing keys: a chain that leads to the workspace's root and a prekey under it, neither older than what was published.

use murmur_core::id::{AgentId, NodeId, WorkspaceId};
use murmur_crypto::{
    cert::{CertKind, Certificate, RootCertificate},
    chain::{Chain, TrustState, VerifiedChain, verify_chain},
    prekey,
    statement::Statement,
};

use super::{
    Directory, DirectoryError,
    room::{agent_of_node, approved_node},
};
use crate::db::{
    agent::{self, Agent},
    agent_key::{self, AgentKeys},
    meta,
    node::Node,
    workspace,
};

impl Directory {
    /// Publishes an agent's chain and newest prekey.
    ///
    /// # Errors
    /// [`DirectoryError`].
    pub async fn publish_keys(
        &self,
        caller: (WorkspaceId, NodeId),
        id: AgentId,
        chain: Vec<u8>,
        prekey: Vec<u8>,
    ) -> Result<Agent, DirectoryError> {
        let now_ms = self.clock.now_ms();
        let mut tx = self.db.write().await?;
        let node = approved_node(&mut tx, caller).await?;
        let agent = agent_of_node(&mut tx, caller, id).await?;
        let root = workspace::root(&mut tx, caller.0).await?;
        let keys = verify(&root, &node, &agent, (chain, prekey), now_ms)?;
        agent_key::put(&mut tx, caller.0, id, &keys).await?;
        let revision = meta::next_revision(&mut tx).await?;
        agent::touch(&mut tx, caller.0, id, revision).await?;
        let agent = agent_of_node(&mut tx, caller, id).await?;
        tx.commit().await?;
        self.hub.ring(caller.0);
        Ok(agent)
    }
}

/// Checks both against the root and against what the directory knows.
fn verify(
    root: &RootCertificate,
    node: &Node,
    agent: &Agent,
    (chain_bytes, prekey_bytes): (Vec<u8>, Vec<u8>),
    now_ms: u64,
) -> Result<AgentKeys, DirectoryError> {
    let chain = Chain::decode(chain_bytes.clone())?;
    let known = Known { node, agent };
    let verified = verify_chain(&chain, root, now_ms, &known)?;
    check_subject(&verified, node, agent)?;
    let certificate = verified.agent();
    let certificate_fp = *certificate.fp().as_bytes();
    let serial = certificate.claims().serial;
    let published = agent.keys.as_ref();
    if published.is_some_and(|keys| keys.serial == serial && keys.certificate_fp != certificate_fp) {
        return Err(DirectoryError::Certificate(format!("serial {serial} was published with another certificate")));
    }
    let seq_floor = published.filter(|keys| keys.certificate_fp == certificate_fp).map_or(0, |keys| keys.prekey_seq);
    let statement = Statement::decode(prekey_bytes.clone()).map_err(prekey::PrekeyError::Malformed)?;
    let prekey = prekey::verify(&statement, certificate, now_ms, seq_floor)?;
    Ok(AgentKeys { chain: chain_bytes, prekey: prekey_bytes, certificate_fp, serial, prekey_seq: prekey.seq })
}

/// The chain holds; whether it is this agent's is another question.
fn check_subject(verified: &VerifiedChain, node: &Node, agent: &Agent) -> Result<(), DirectoryError> {
    let broken = if verified.agent_id() != agent.id {
        format!("it is agent {}'s, not {}'s", verified.agent_id(), agent.id)
    } else if verified.slug() != agent.slug.to_string() {
        format!("its slug is {}, the agent's is {}", verified.slug(), agent.slug)
    } else if verified.node_id() != node.id {
        format!("its node is {}, the caller is {}", verified.node_id(), node.id)
    } else if *verified.node().claims().public_key.as_bytes() != node.public_key {
        "its node key is not the one that the node enrolled".to_owned()
    } else {
        return Ok(());
    };
    Err(DirectoryError::Certificate(broken))
}

/// How far the serials of node and agent have come.
struct Known<'a> {
    node: &'a Node,
    agent: &'a Agent,
}

impl TrustState for Known<'_> {
    fn is_revoked(&self, _: &Certificate) -> bool {
        // A revoked node is refused before its chain is looked at; this version issues no other revocations.
        false
    }

    fn highest_serial(&self, kind: CertKind, subject_id: &[u8; 16]) -> Option<u64> {
        match kind {
            CertKind::Node => (subject_id == self.node.id.as_bytes()).then_some(self.node.serial),
            CertKind::Agent => {
                let keys = self.agent.keys.as_ref().filter(|_| subject_id == self.agent.id.as_bytes());
                keys.map(|keys| keys.serial)
            }
            CertKind::Root | CertKind::Enroller => None,
        }
    }
}
