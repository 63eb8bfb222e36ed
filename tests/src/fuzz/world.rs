//! A small world of fixed keys: one root, one node, the agents Alice and Bob, and what they really said.

use std::sync::OnceLock;

use murmur_core::{
    id::{AgentId, ConversationId, MessageId, NodeId, WorkspaceId},
    limits::{AGENT_CERT_LIFE_MS, NODE_CERT_LIFE_MS, REVOCATION_LIST_LIFE_MS_MAX, ROOT_CERT_LIFE_MS},
};
use murmur_crypto::{
    ack::{AckBody, AckItem, AckStatus, Credit, CreditState},
    cert::{Certificate, Origin, RootCertificate},
    chain::{Chain, NothingSeen, VerifiedChain, verify_chain},
    hash::{EnvDigest, Fingerprint, sha256},
    hazmat::{SealRandomness, seal_with},
    inner::{Attr, InnerMessage, Kind, StreamManifest, dm_conversation_id},
    invite::{Invite, Purpose},
    issue::{AgentSpec, Issuer, NodeSpec, RootSpec, Validity, root},
    keys::{IdentityKey, PrekeySecret},
    prekey::{self, PrekeySpec},
    revocation::{Revocation, RevocationListSpec, Revoked},
    seal::{Recipient, SealRequest},
    statement::Statement,
};
use zeroize::Zeroizing;

/// Some time in 2026, Unix milliseconds.
pub const NOW_MS: u64 = 1_795_000_000_000;

/// Seeds of the keys: an attacker may have stolen any of them.
pub const ROOT_SEED: [u8; 32] = [1; 32];
/// The node's.
pub const NODE_SEED: [u8; 32] = [2; 32];
/// Alice's.
pub const ALICE_SEED: [u8; 32] = [3; 32];
/// Bob's.
pub const BOB_SEED: [u8; 32] = [4; 32];

/// An agent with all that belongs to it.
pub struct Agent {
    /// Its id.
    pub id: AgentId,
    /// Its key.
    pub key: IdentityKey,
    /// Its chain.
    pub chain: Chain,
    /// The chain, believed.
    pub verified: VerifiedChain,
    /// Its prekey's private half.
    pub secret: PrekeySecret,
    /// Its prekey.
    pub prekey: Statement,
}

/// The world.
pub struct World {
    /// The pinned root.
    pub root: RootCertificate,
    /// The node's certificate.
    pub node: Certificate,
    /// Who speaks.
    pub alice: Agent,
    /// Who hears.
    pub bob: Agent,
}

/// The world, made once.
///
/// # Panics
/// Never: everything in it is fixed.
pub fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let (root_key, node_key) = (IdentityKey::from_seed(&ROOT_SEED), IdentityKey::from_seed(&NODE_SEED));
        let root_spec = RootSpec {
            workspace_id: WorkspaceId::from_bytes([0x5a; 16]),
            serial: 1,
            validity: Validity::from_now(NOW_MS, ROOT_CERT_LIFE_MS),
            slug_scope: vec!["/w/acme/".to_owned()],
            origin: Origin::Owner,
        };
        let root = root(&root_key, root_spec).unwrap();
        let node_spec = NodeSpec {
            node_id: NodeId::from_bytes([0xa0; 16]),
            public_key: node_key.public(),
            serial: 1,
            validity: Validity::from_now(NOW_MS, NODE_CERT_LIFE_MS),
            slug_scope: vec!["/w/acme/u/jdoe/".to_owned()],
        };
        let node = Issuer::new(&root_key, root.certificate()).unwrap().node(node_spec).unwrap();
        let alice = agent(&root, &node, &node_key, ALICE_SEED, "alice");
        let bob = agent(&root, &node, &node_key, BOB_SEED, "bob");
        World { root, node, alice, bob }
    })
}

fn agent(root: &RootCertificate, node: &Certificate, node_key: &IdentityKey, seed: [u8; 32], name: &str) -> Agent {
    let (key, secret) = (IdentityKey::from_seed(&seed), PrekeySecret::derive(&sha256(&seed)));
    let spec = AgentSpec {
        agent_id: AgentId::from_bytes([seed[0] | 0xa0; 16]),
        public_key: key.public(),
        serial: 1,
        validity: Validity::from_now(NOW_MS, AGENT_CERT_LIFE_MS),
        slug: format!("/w/acme/u/jdoe/{name}"),
    };
    let id = spec.agent_id;
    let certificate = Issuer::new(node_key, node).unwrap().agent(spec).unwrap();
    let chain = Chain::new(certificate, vec![node.clone()]).unwrap();
    let verified = verify_chain(&chain, root, NOW_MS, &NothingSeen).unwrap();
    let spec = PrekeySpec::new(id, chain.leaf().fp(), secret.public(), 1, NOW_MS);
    let prekey = prekey::issue(&key, &spec).0;
    Agent { id, key, chain, verified, secret, prekey }
}

/// What Alice says, with every field that one message can have.
#[must_use]
pub fn inner() -> InnerMessage {
    let stream = StreamManifest {
        stream_id: [1; 16],
        nonce_prefix: [2; 19],
        chunk_size: 131_072,
        total_size: Some(300_000),
        filename: "report.txt".to_owned(),
        content_type: "text/plain".to_owned(),
        sha256: Some([3; 32]),
    };
    let conversation: ConversationId = dm_conversation_id(world().alice.id, world().bob.id);
    InnerMessage {
        parent_msg_id: Some(MessageId::from_bytes([0x70; 16])),
        in_reply_to: Some(MessageId::from_bytes([0x71; 16])),
        traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned()),
        stream: Some(stream),
        attrs: vec![Attr { key: "hops".to_owned(), value: "1".to_owned() }],
        ..InnerMessage::new(Kind::StreamOpen, conversation, "# Report")
    }
}

/// Alice's one message to Bob, the same each time.
///
/// # Panics
/// Never: everything in it is fixed.
#[must_use]
pub fn envelope() -> Vec<u8> {
    let World { alice, bob, .. } = world();
    let prekey = prekey::verify(&bob.prekey, bob.chain.leaf(), NOW_MS, 0).unwrap();
    let recipients = [Recipient::from(&prekey)];
    let inner = inner().encode().unwrap();
    let route = format!("mm.in.local.00.{}.{}", world().root.workspace_id().hex(), alice.verified.node_id().hex());
    let request = SealRequest {
        msg_id: MessageId::new_v7(NOW_MS, [7; 10]),
        sender_agent_id: alice.id,
        sender_node_id: alice.verified.node_id(),
        sender_cert_fp: alice.chain.leaf().fp(),
        conversation_id: dm_conversation_id(alice.id, bob.id),
        sequence: 1,
        sequence_epoch: NOW_MS,
        created_at_ms: NOW_MS,
        ttl_seconds: 60,
        seal_attempt: 0,
        reply_route: Some(&route),
        recipients: &recipients,
        inner: &inner,
        chain: Some(&alice.chain),
    };
    let randomness = SealRandomness {
        cek: Zeroizing::new([5; 32]),
        payload_nonce: [6; 24],
        hpke_ikm_e: Zeroizing::new(vec![[7; 32]]),
    };
    seal_with(&alice.key, &request, &randomness).unwrap().bytes.to_vec()
}

/// What Bob acknowledges.
#[must_use]
pub fn ack_body() -> AckBody {
    let World { alice, bob, .. } = world();
    let item = |number: u8, status| AckItem {
        msg_id: MessageId::from_bytes([number; 16]),
        env_digest: EnvDigest::from_bytes([number; 32]),
        status,
    };
    let failed = |code, retry_after_s, fresh_prekey| AckStatus::Failed { code, retry_after_s, fresh_prekey };
    AckBody {
        acker_agent_id: bob.id,
        acker_cert_fp: bob.chain.leaf().fp(),
        sender_agent_id: alice.id,
        at_ms: NOW_MS,
        items: vec![
            item(1, AckStatus::Delivered),
            item(2, AckStatus::Read),
            item(3, failed(murmur_core::code::Code::KeyUnknown, None, Some(bob.prekey.clone()))),
            item(4, failed(murmur_core::code::Code::RateLimited, Some(30), None)),
        ],
        credits: vec![Credit { stream_id: [5; 16], next_index: 4, window: 16, state: CreditState::Open }],
    }
}

/// The owner's invite for a node.
#[must_use]
pub fn invite() -> Invite {
    Invite {
        purpose: Purpose::Node,
        root: world().root.clone(),
        inviter: None,
        cp_url: "https://murmur.example:7443".to_owned(),
        cp_spki_sha256: vec![[8; 32]],
        secret: Zeroizing::new([9; 32]),
        slug_scope: vec!["/w/acme/u/jdoe/".to_owned()],
        max_uses: 1,
        expires_ms: NOW_MS + 3_600_000,
    }
}

/// What the owner revokes: an earlier certificate of Alice's, and a node that is none of this world.
#[must_use]
pub fn revocations() -> RevocationListSpec {
    let entry = |what, reason: &str| Revocation { what, reason: reason.to_owned(), at_ms: NOW_MS - 60_000 };
    RevocationListSpec {
        version: 3,
        issued_ms: NOW_MS,
        next_update_ms: NOW_MS + REVOCATION_LIST_LIFE_MS_MAX,
        entries: vec![
            entry(Revoked::Certificate(Fingerprint::from_bytes([9; 32])), "lost"),
            entry(Revoked::Subject { subject_id: *world().alice.id.as_bytes(), serial_lt: 1 }, ""),
        ],
    }
}
