//! Attacks on chains and prekeys: each rule of PROTOCOL §2.4 broken alone.

use std::collections::HashMap;

use murmur_core::{code::Code, id::*, limits::AGENT_CERT_LIFE_MS, tier::Tier};

use super::world::{NOW, World, agent_spec, key, node_spec, root_spec};
use crate::{
    cert::{CertKind, Certificate, Claims, Origin, RootCertificate},
    chain::{Chain, ChainError, LinkError, NothingSeen, TrustState, verify_chain, verify_node_chain},
    hash::{Fingerprint, label},
    issue::{EnrollerSpec, IssueError, Issuer, Validity, root},
    keys::{IdentityKey, PrekeySecret},
    prekey::{self, PrekeyError, PrekeySpec},
    statement::Statement,
};

/// Signs claims that an honest issuer would refuse.
fn forge(claims: &Claims, signer: &IdentityKey) -> Certificate {
    Certificate::from_statement(Statement::sign(signer, label::CERT, claims.encode())).unwrap()
}

/// Verifies the chain of an agent whose claims were changed and then signed by its node.
fn with_agent(change: impl FnOnce(&mut Claims)) -> Result<Certificate, ChainError> {
    let world = World::new();
    let mut claims = world.agent(1).chain.leaf().claims().clone();
    change(&mut claims);
    let chain = Chain::new(forge(&claims, &world.node_key), vec![world.node.clone()]).unwrap();
    verify_chain(&chain, &world.root, NOW, &NothingSeen).map(|verified| verified.agent().clone())
}

/// Verifies the chain of an honest agent under a node whose claims were changed and then signed by the root.
fn with_node(change: impl FnOnce(&mut Claims)) -> Result<Certificate, ChainError> {
    let world = World::new();
    let mut node = world.node.claims().clone();
    change(&mut node);
    let node = forge(&node, &world.root_key);
    let mut agent = world.agent(1).chain.leaf().claims().clone();
    agent.issuer_fp = Some(node.fp());
    let chain = Chain::new(forge(&agent, &world.node_key), vec![node]).unwrap();
    verify_chain(&chain, &world.root, NOW, &NothingSeen).map(|verified| verified.agent().clone())
}

fn link(error: LinkError) -> Option<ChainError> {
    Some(ChainError::Link(error))
}

#[test]
fn unchanged_claims_hold() {
    assert!(with_agent(|_| ()).is_ok() && with_node(|_| ()).is_ok());
}

#[test]
fn scopes_only_narrow() {
    let outside = |claims: &mut Claims| claims.slug = Some("/w/acme/u/eve/alice".to_owned());
    assert_eq!(with_agent(outside).err(), link(LinkError::Scope));
    let wider = |claims: &mut Claims| claims.slug_scope = vec!["/w/other/".to_owned()];
    assert_eq!(with_node(wider).err(), link(LinkError::Scope));
}

#[test]
fn times_hold_with_five_minutes_of_grace() {
    let ended = |at| move |claims: &mut Claims| (claims.not_before_ms, claims.not_after_ms) = (1, at);
    let begins = |at| move |claims: &mut Claims| claims.not_before_ms = at;
    assert!(with_agent(ended(NOW - 300_000)).is_ok() && with_agent(begins(NOW + 300_000)).is_ok());
    for result in [with_agent(ended(NOW - 300_001)), with_agent(begins(NOW + 300_001)), with_node(ended(NOW - 300_001))]
    {
        let error = result.unwrap_err();
        assert!(matches!(error, ChainError::Time(_)), "{error}");
        assert_eq!(error.code(), Code::ChainInvalid);
    }
}

#[test]
fn kinds_only_descend_and_only_nodes_issue_agents() {
    let enroller = |claims: &mut Claims| claims.kind = CertKind::Enroller;
    assert_eq!(with_node(enroller).err(), link(LinkError::Kind), "an enroller issued an agent");
    assert_eq!(with_node(|claims| claims.can_issue = false).err(), link(LinkError::Kind));

    let world = World::new();
    let issuer = Issuer::new(&world.node_key, &world.node).unwrap();
    assert_eq!(issuer.node(node_spec(&key(3))).err(), Some(IssueError::Link(LinkError::Kind)), "a node issued a node");
}

#[test]
fn an_agent_belongs_to_the_issuing_node_and_workspace() {
    let elsewhere = |claims: &mut Claims| claims.node_id = Some(NodeId::from_bytes([9; 16]));
    assert_eq!(with_agent(elsewhere).err(), link(LinkError::Node));
    let foreign = |claims: &mut Claims| claims.workspace_id = WorkspaceId::from_bytes([9; 16]);
    assert_eq!(with_agent(foreign).err(), link(LinkError::Workspace));
    assert_eq!(with_node(foreign).err(), link(LinkError::Workspace));
}

#[test]
fn issuers_must_have_signed() {
    let world = World::new();
    let agent = world.agent(1);
    let unsigned = forge(agent.chain.leaf().claims(), &key(9));
    let chain = Chain::new(unsigned, vec![world.node.clone()]).unwrap();
    assert_eq!(verify_chain(&chain, &world.root, NOW, &NothingSeen).err(), link(LinkError::Signature));
    let other = |claims: &mut Claims| claims.issuer_fp = Some(Fingerprint::from_bytes([9; 32]));
    assert_eq!(with_agent(other).err(), link(LinkError::Issuer));
}

#[test]
fn a_swapped_root_is_untrusted() {
    let world = World::new();
    let other = root(&key(9), root_spec()).unwrap();
    let error = verify_chain(&world.agent(1).chain, &other, NOW, &NothingSeen).unwrap_err();
    assert_eq!((&error, error.code()), (&ChainError::UntrustedRoot, Code::UntrustedRoot));
    let mut claims = world.root.certificate().claims().clone();
    claims.serial = 2;
    assert!(RootCertificate::new(forge(&claims, &key(9))).is_err(), "a root that another key signed");
}

#[test]
fn depth_ends_at_four() {
    let world = World::new();
    let agent = world.agent(1);
    let three = vec![world.node.clone(), world.node.clone(), world.node.clone()];
    assert_eq!(Chain::new(agent.chain.leaf().clone(), three.clone()).err(), Some(ChainError::Depth(4)));
    let certs = std::iter::once(agent.chain.leaf()).chain(&three).map(|cert| cert.statement().to_wire()).collect();
    let bytes = prost::Message::encode_to_vec(&crate::wire::Chain { certs });
    assert_eq!(Chain::decode(bytes).err(), Some(ChainError::Depth(4)));
    assert_eq!(Chain::decode(Vec::new()).err(), Some(ChainError::Depth(0)));
}

/// Remembers what a test tells it.
#[derive(Default)]
struct Seen {
    revoked: Option<Fingerprint>,
    serials: HashMap<[u8; 16], u64>,
}

impl TrustState for Seen {
    fn is_revoked(&self, certificate: &Certificate) -> bool {
        self.revoked == Some(certificate.fp())
    }

    fn highest_serial(&self, _: CertKind, subject_id: &[u8; 16]) -> Option<u64> {
        self.serials.get(subject_id).copied()
    }
}

#[test]
fn revoked_links_and_old_serials_break_the_chain() {
    let world = World::new();
    let agent = world.agent(1);
    for certificate in agent.chain.certificates().chain([world.root.certificate()]) {
        let fp = certificate.fp();
        let revoked = Seen { revoked: Some(fp), ..Seen::default() };
        let error = verify_chain(&agent.chain, &world.root, NOW, &revoked).unwrap_err();
        assert_eq!((&error, error.code()), (&ChainError::Revoked(fp), Code::Revoked));
        let serials =
            |serial| Seen { serials: HashMap::from([(certificate.claims().subject_id, serial)]), ..Seen::default() };
        assert!(verify_chain(&agent.chain, &world.root, NOW, &serials(1)).is_ok());
        let error = verify_chain(&agent.chain, &world.root, NOW, &serials(2)).unwrap_err();
        assert_eq!((&error, error.code()), (&ChainError::Serial(fp), Code::ChainInvalid));
    }
}

#[test]
fn one_operator_link_makes_the_chain_the_operators() {
    let world = World::new();
    let enroller_key = key(5);
    let spec = EnrollerSpec {
        enroller_id: [0xe0; 16],
        public_key: enroller_key.public(),
        serial: 1,
        validity: Validity::from_now(NOW, AGENT_CERT_LIFE_MS),
        slug_scope: vec!["/w/acme/".to_owned()],
        origin: Origin::Operator,
    };
    let enroller = Issuer::new(&world.root_key, world.root.certificate()).unwrap().enroller(spec).unwrap();
    let node = Issuer::new(&enroller_key, &enroller).unwrap().node(node_spec(&world.node_key)).unwrap();
    let node_chain = Chain::new(node.clone(), vec![enroller]).unwrap();
    let verified = verify_node_chain(&node_chain, &world.root, NOW, &NothingSeen).unwrap();
    assert_eq!((verified.origin(), verified.tier(true)), (Origin::Operator, Tier::Operator));

    let mut claims = world.agent(1).chain.leaf().claims().clone();
    (claims.issuer_fp, claims.origin) = (Some(node.fp()), Origin::Owner);
    let chain = node_chain.extend(forge(&claims, &world.node_key)).unwrap();
    let verified = verify_chain(&chain, &world.root, NOW, &NothingSeen).unwrap();
    assert_eq!(verified.tier(true), Tier::Operator, "an agent cannot shed its enroller's origin");
}

#[test]
fn a_chain_is_of_the_kind_asked_for() {
    let world = World::new();
    let agent = world.agent(1).chain;
    let node = Chain::new(world.node.clone(), Vec::new()).unwrap();
    assert!(matches!(verify_node_chain(&agent, &world.root, NOW, &NothingSeen), Err(ChainError::Leaf { .. })));
    assert!(matches!(verify_chain(&node, &world.root, NOW, &NothingSeen), Err(ChainError::Leaf { .. })));
    assert!(verify_node_chain(&node, &world.root, NOW, &NothingSeen).is_ok());
}

#[test]
fn issuing_keeps_to_scope_and_key() {
    let world = World::new();
    let issuer = Issuer::new(&world.node_key, &world.node).unwrap();
    let mut spec = agent_spec(1, &key(7));
    spec.slug = "/w/acme/u/eve/alice".to_owned();
    assert_eq!(issuer.agent(spec).err(), Some(IssueError::Link(LinkError::Scope)));
    let mut spec = agent_spec(1, &key(7));
    spec.slug = "alice".to_owned();
    assert!(matches!(issuer.agent(spec), Err(IssueError::Malformed(error)) if error.field == "slug"));
    assert_eq!(Issuer::new(&key(7), &world.node).err(), Some(IssueError::ForeignKey));
}

#[test]
fn prekeys_hold_only_for_their_agent_and_time() {
    let world = World::new();
    let (alice, bob) = (world.agent(1), world.agent(2));
    let public = PrekeySecret::derive(&[3; 32]).public();
    let spec = PrekeySpec::new(alice.id, alice.chain.leaf().fp(), public, 5, NOW);
    let verify = |signer, spec: &PrekeySpec, now, floor| {
        prekey::verify(&prekey::issue(signer, spec).0, alice.chain.leaf(), now, floor)
    };
    let last = spec.not_after_ms;
    assert!(verify(&alice.key, &spec, last, 5).unwrap().is_stale(last), "stale, but still good");
    assert_eq!(verify(&bob.key, &spec, NOW, 0), Err(PrekeyError::Signature), "substituted by the directory");
    assert_eq!(verify(&alice.key, &spec, last + 1, 0), Err(PrekeyError::Expired { not_after_ms: last }));
    assert_eq!(verify(&alice.key, &spec, NOW - 300_001, 0), Err(PrekeyError::NotYet { created_ms: NOW }));
    assert_eq!(verify(&alice.key, &spec, NOW, 6), Err(PrekeyError::Rollback { floor: 6, seq: 5 }));
    let foreign = PrekeySpec { agent_id: bob.id, ..spec };
    assert_eq!(verify(&alice.key, &foreign, NOW, 0), Err(PrekeyError::ForeignCertificate));
    let older = PrekeySpec { cert_fp: bob.chain.leaf().fp(), ..spec };
    assert_eq!(verify(&alice.key, &older, NOW, 0), Err(PrekeyError::ForeignCertificate));
}

#[test]
fn a_low_order_prekey_is_refused() {
    let world = World::new();
    let alice = world.agent(1);
    let spec = PrekeySpec::new(alice.id, alice.chain.leaf().fp(), alice.secret.public(), 1, NOW);
    let (good, _) = prekey::issue(&alice.key, &spec);
    let mut body = good.body().to_vec();
    let public = alice.secret.public();
    let at = body.windows(32).position(|window| window == public.as_bytes()).unwrap();
    body[at..at + 32].fill(0);
    let zero = Statement::sign(&alice.key, label::PREKEY, body);
    let error = prekey::verify(&zero, alice.chain.leaf(), NOW, 0).unwrap_err();
    assert!(matches!(error, PrekeyError::Malformed(wire) if wire.field == "public_key"));
}
