//! A small world: one workspace, its root, a node and as many agents as a test wants, all from fixed seeds.

use murmur_core::{
    id::{AgentId, MessageId, NodeId, WorkspaceId},
    limits::{AGENT_CERT_LIFE_MS, NODE_CERT_LIFE_MS, ROOT_CERT_LIFE_MS},
};

use crate::{
    cert::{Certificate, Origin, RootCertificate},
    chain::{Chain, NothingSeen, VerifiedChain, verify_chain},
    envelope::{Envelope, OpenError, Opened, VerifiedEnvelope},
    hash::sha256,
    inner::dm_conversation_id,
    issue::{AgentSpec, Issuer, NodeSpec, RootSpec, Validity, root},
    keys::{IdentityKey, PrekeySecret},
    prekey::{self, PrekeySpec, VerifiedPrekey},
    seal::{Recipient, SealRequest},
};

/// Some time in 2026, Unix milliseconds.
pub(super) const NOW: u64 = 1_795_000_000_000;

/// A number that stands for 32 secret bytes.
pub(super) fn seed(number: u64) -> [u8; 32] {
    sha256(&number.to_be_bytes())
}

pub(super) fn key(number: u64) -> IdentityKey {
    IdentityKey::from_seed(&seed(number))
}

pub(super) struct World {
    pub(super) root_key: IdentityKey,
    pub(super) root: RootCertificate,
    pub(super) node_key: IdentityKey,
    pub(super) node: Certificate,
}

pub(super) struct Agent {
    pub(super) id: AgentId,
    pub(super) key: IdentityKey,
    pub(super) chain: Chain,
    pub(super) verified: VerifiedChain,
    pub(super) secret: PrekeySecret,
    pub(super) prekey: VerifiedPrekey,
}

impl World {
    pub(super) fn new() -> Self {
        let (root_key, node_key) = (key(1), key(2));
        let root = root(&root_key, root_spec()).unwrap();
        let issuer = Issuer::new(&root_key, root.certificate()).unwrap();
        let node = issuer.node(node_spec(&node_key)).unwrap();
        Self { root, root_key, node, node_key }
    }

    /// The agent of a number, the same each time.
    pub(super) fn agent(&self, number: u16) -> Agent {
        let (key, secret) = (key(1000 + u64::from(number)), PrekeySecret::derive(&seed(100_000 + u64::from(number))));
        let issuer = Issuer::new(&self.node_key, &self.node).unwrap();
        let certificate = issuer.agent(agent_spec(number, &key)).unwrap();
        let id = certificate.claims().agent_id().unwrap();
        let chain = Chain::new(certificate, vec![self.node.clone()]).unwrap();
        let verified = verify_chain(&chain, &self.root, NOW, &NothingSeen).unwrap();
        let spec = PrekeySpec::new(id, chain.leaf().fp(), secret.public(), 1, NOW);
        let prekey = prekey::verify(&prekey::issue(&key, &spec).0, chain.leaf(), NOW, 0).unwrap();
        Agent { id, key, chain, verified, secret, prekey }
    }
}

pub(super) fn root_spec() -> RootSpec {
    RootSpec {
        workspace_id: WorkspaceId::from_bytes([0x5a; 16]),
        serial: 1,
        validity: Validity::from_now(NOW, ROOT_CERT_LIFE_MS),
        slug_scope: vec!["/w/acme/".to_owned()],
        origin: Origin::Owner,
    }
}

pub(super) fn node_spec(key: &IdentityKey) -> NodeSpec {
    NodeSpec {
        node_id: NodeId::from_bytes([0xa0; 16]),
        public_key: key.public(),
        serial: 1,
        validity: Validity::from_now(NOW, NODE_CERT_LIFE_MS),
        slug_scope: vec!["/w/acme/u/jdoe/".to_owned()],
    }
}

pub(super) fn agent_spec(number: u16, key: &IdentityKey) -> AgentSpec {
    let mut id = [0xa1; 16];
    id[..2].copy_from_slice(&number.to_be_bytes());
    AgentSpec {
        agent_id: AgentId::from_bytes(id),
        public_key: key.public(),
        serial: 1,
        validity: Validity::from_now(NOW, AGENT_CERT_LIFE_MS),
        slug: format!("/w/acme/u/jdoe/agent-{number}"),
    }
}

impl Agent {
    pub(super) fn recipient(&self) -> Recipient {
        Recipient::from(&self.prekey)
    }

    /// A request to seal `inner` for `recipients`, in the direct conversation with the first of them.
    pub(super) fn request<'a>(&'a self, recipients: &'a [Recipient], inner: &'a [u8]) -> SealRequest<'a> {
        SealRequest {
            msg_id: MessageId::new_v7(NOW, [7; 10]),
            sender_agent_id: self.id,
            sender_node_id: self.verified.node_id(),
            sender_cert_fp: self.chain.leaf().fp(),
            conversation_id: dm_conversation_id(self.id, recipients[0].agent_id),
            sequence: 1,
            sequence_epoch: NOW,
            created_at_ms: NOW,
            ttl_seconds: 60,
            seal_attempt: 0,
            reply_route: None,
            recipients,
            inner,
            chain: Some(&self.chain),
        }
    }

    pub(super) fn open(&self, envelope: &VerifiedEnvelope) -> Result<Opened, OpenError> {
        envelope.open(self.id, |id| (id == self.prekey.id).then_some(&self.secret))
    }
}

/// The receiver's way of the protocol, chain included; `None` wherever it refuses.
pub(super) fn receive(world: &World, reader: &Agent, bytes: &[u8]) -> Option<Vec<u8>> {
    let envelope = Envelope::decode(bytes.to_vec()).ok()?;
    let chain = envelope.chain().ok()??;
    let created_at_ms = envelope.header().created_at_ms;
    let verified = verify_chain(&chain, &world.root, created_at_ms, &NothingSeen).ok()?;
    let envelope = envelope.verify_sender(&verified).ok()?;
    reader.open(&envelope).ok().map(|opened| opened.inner.to_vec())
}
