use bytes::Bytes;
use murmur_core::{
    code::Code,
    id::{NodeId, WorkspaceId},
    limits::{AGENT_CERT_LIFE_MS, NODE_CERT_LIFE_MS, ROOT_CERT_LIFE_MS},
    slug::{Lookup as _, Slug},
    subject::Route,
};
use murmur_crypto::{
    cert::{Certificate, Origin, RootCertificate},
    chain::{Chain, ChainError},
    issue::{AgentSpec, Issuer, NodeSpec, RootSpec, Validity, root},
    keys::{IdentityKey, PrekeySecret},
    prekey::{self, PrekeyError, PrekeySpec},
    revocation::{Revocation, RevocationListSpec, Revoked},
};

use super::*;
use crate::{identity::NodeRecord, store::StoreOptions};

const NOW_MS: u64 = 1_800_000_000_000;

/// A workspace with one owner, seen from its node 1.
struct World {
    home: tempfile::TempDir,
    owner: IdentityKey,
    root: RootCertificate,
}

impl World {
    fn new() -> Self {
        let owner = IdentityKey::generate().unwrap();
        let spec = RootSpec {
            workspace_id: WorkspaceId::from_bytes([9; 16]),
            serial: 1,
            validity: Validity::from_now(NOW_MS, ROOT_CERT_LIFE_MS),
            slug_scope: vec!["/w/acme/".to_owned()],
            origin: Origin::Owner,
        };
        let root = root(&owner, spec).unwrap();
        Self { home: tempfile::tempdir().unwrap(), owner, root }
    }

    fn node(&self, id: u8, serial: u64) -> (IdentityKey, Certificate) {
        let key = IdentityKey::generate().unwrap();
        let spec = NodeSpec {
            node_id: NodeId::from_bytes([id; 16]),
            public_key: key.public(),
            serial,
            validity: Validity::from_now(NOW_MS, NODE_CERT_LIFE_MS),
            slug_scope: vec!["/w/acme/".to_owned()],
        };
        let certificate = Issuer::new(&self.owner, self.root.certificate()).unwrap().node(spec).unwrap();
        (key, certificate)
    }

    async fn directory(&self) -> Arc<Directory> {
        let (key, certificate) = self.node(1, 1);
        let record = NodeRecord {
            node_id: NodeId::from_bytes([1; 16]),
            workspace_id: WorkspaceId::from_bytes([9; 16]),
            workspace: "acme".parse().unwrap(),
            account: "jdoe".parse().unwrap(),
            name: "host".to_owned(),
            control_plane_url: "http://127.0.0.1:1".to_owned(),
            root_certificate: self.root.certificate().encode(),
            node_certificate: Some(certificate.encode()),
            slug_scope: vec![],
        };
        let identity = Arc::new(NodeIdentity::new(&record, key, NOW_MS).unwrap());
        Directory::load(identity, self.store()).await.unwrap()
    }

    /// The owner's list number `version`, which revokes everything that these nodes had.
    fn revocations(&self, version: u64, nodes: &[u8]) -> Bytes {
        let revoked = |node: &u8| Revocation {
            what: Revoked::Subject { subject_id: [*node; 16], serial_lt: 2 },
            reason: String::new(),
            at_ms: NOW_MS,
        };
        let (issued_ms, entries) = (NOW_MS, nodes.iter().map(revoked).collect());
        let spec = RevocationListSpec { version, issued_ms, next_update_ms: NOW_MS + 1, entries };
        Bytes::from(RevocationList::issue(&self.owner, &self.root, &spec).unwrap().encode())
    }

    fn store(&self) -> Store {
        let options = StoreOptions { readers: 1, pages_max: None, now_ms: NOW_MS };
        Store::open(&self.home.path().join("node.db"), &options).unwrap()
    }
}

/// What a node publishes for its agent.
struct Published<'a> {
    node: &'a (IdentityKey, Certificate),
    slug: &'a str,
    serial: u64,
    seq: u64,
}

impl Published<'_> {
    fn keys(&self, agent_id: AgentId) -> PeerKeys {
        let (node_key, node) = self.node;
        let key = IdentityKey::generate().unwrap();
        let spec = AgentSpec {
            agent_id,
            public_key: key.public(),
            serial: self.serial,
            validity: Validity::from_now(NOW_MS, AGENT_CERT_LIFE_MS),
            slug: self.slug.to_owned(),
        };
        let leaf = Issuer::new(node_key, node).unwrap().agent(spec).unwrap();
        let public = PrekeySecret::generate().unwrap().public();
        let (prekey, _) = prekey::issue(&key, &PrekeySpec::new(agent_id, leaf.fp(), public, self.seq, NOW_MS));
        let chain = Chain::new(leaf, vec![node.clone()]).unwrap();
        PeerKeys { chain: Bytes::from(chain.encode()), prekey: Bytes::from(prekey.encode()) }
    }
}

fn peer(id: u8, node: u8, slug: &str, keys: Option<PeerKeys>) -> Peer {
    let node_id = NodeId::from_bytes([node; 16]);
    Peer {
        agent_id: AgentId::from_bytes([id; 16]),
        slug: slug.parse().unwrap(),
        node_id,
        kind: AgentKind::Interactive,
        description: "reviews".to_owned(),
        group: String::new(),
        host: "away".to_owned(),
        attached: true,
        route: Some(format!("mm.in.local.00.{}.{}", "09".repeat(16), node_id.hex()).parse::<Route>().unwrap()),
        keys,
        revision: 1,
        created_ms: NOW_MS,
        former: None,
    }
}

fn batch(changes: impl IntoIterator<Item = Change>) -> Batch {
    Batch { changes: changes.into_iter().collect(), whole: false, resume_token: Some("r1".to_owned()) }
}

fn agent(peer: Peer) -> Change {
    Change::Agent(Arc::new(peer))
}

const ALICE: &str = "/w/acme/u/jdoe/alice";
const BOB: &str = "/w/acme/u/bob/ci";

fn slug(text: &str) -> Slug {
    text.parse().unwrap()
}

#[tokio::test]
async fn changes_show_at_once_and_survive_a_restart() {
    let world = World::new();
    let directory = world.directory().await;
    let version = directory.changed();
    let node = Change::Node { node_id: NodeId::from_bytes([2; 16]), online: true };
    directory.apply(batch([agent(peer(1, 1, ALICE, None)), agent(peer(2, 2, BOB, None)), node]), NOW_MS);
    directory.apply(batch([Change::Removed(AgentId::from_bytes([1; 16]))]), NOW_MS + 1);
    assert!(version.has_changed().unwrap());
    let snapshot = directory.snapshot();
    let bob = snapshot.by_slug(&slug(BOB)).unwrap();
    assert!(snapshot.online(bob));
    assert_eq!(snapshot.live(&slug(ALICE)), None);
    // A write that is waited for comes after those that are not.
    directory.store.write(|_| Ok(())).await.unwrap();
    drop(directory);

    let directory = world.directory().await;
    let snapshot = directory.snapshot();
    assert_eq!(snapshot.by_slug(&slug(BOB)).map(|peer| peer.description.as_str()), Some("reviews"));
    assert_eq!(snapshot.live(&slug(ALICE)), None);
    assert_eq!((snapshot.resume_token(), snapshot.confirmed_ms), (Some("r1"), Some(NOW_MS + 1)));
    assert!(!snapshot.live);
    assert!(!snapshot.online(snapshot.by_slug(&slug(BOB)).unwrap()), "nobody has said that its node is there");
    directory.apply(Batch::default(), NOW_MS);
    let snapshot = directory.snapshot();
    assert!(snapshot.online(snapshot.by_slug(&slug(BOB)).unwrap()), "nothing changed while this node was away");
}

#[tokio::test]
async fn a_whole_copy_replaces_what_was_known() {
    let world = World::new();
    let directory = world.directory().await;
    directory.apply(batch([agent(peer(1, 1, ALICE, None))]), NOW_MS);
    directory.apply(Batch { whole: true, ..batch([agent(peer(2, 2, BOB, None))]) }, NOW_MS);
    let snapshot = directory.snapshot();
    assert_eq!(snapshot.peers().count(), 1);
    assert!(snapshot.by_slug(&slug(ALICE)).is_none());
}

#[tokio::test]
async fn a_slug_used_again_names_the_new_agent_only() {
    let directory = World::new().directory().await;
    directory.apply(batch([agent(peer(2, 2, BOB, None)), agent(peer(3, 2, BOB, None))]), NOW_MS);
    directory.apply(batch([Change::Removed(AgentId::from_bytes([2; 16]))]), NOW_MS);
    let snapshot = directory.snapshot();
    assert_eq!(snapshot.live(&slug(BOB)), Some(AgentId::from_bytes([3; 16])));
    assert!(snapshot.peer(AgentId::from_bytes([2; 16])).is_none());
}

#[tokio::test]
async fn sessions_here_are_known_here_first() {
    let directory = World::new().directory().await;
    directory.apply(batch([agent(peer(1, 1, ALICE, None))]), NOW_MS);
    let online = || {
        let snapshot = directory.snapshot();
        snapshot.online(snapshot.by_slug(&slug(ALICE)).unwrap())
    };
    assert!(!online(), "the control plane's word about a session here does not count");
    directory.set_attached(AgentId::from_bytes([1; 16]), true);
    assert!(online());
    directory.apply(batch([agent(Peer { attached: false, ..peer(1, 1, ALICE, None) })]), NOW_MS);
    assert!(online());
}

#[tokio::test]
async fn keys_are_believed_under_the_pinned_root_alone() {
    let (world, elsewhere) = (World::new(), World::new());
    let directory = world.directory().await;
    let (ours, theirs) = (world.node(2, 1), elsewhere.node(2, 1));
    let id = AgentId::from_bytes([2; 16]);
    let check = |node, slug| {
        let keys = Published { node, slug, serial: 1, seq: 1 }.keys(id);
        directory.verified_peer(&peer(2, 2, BOB, Some(keys)), NOW_MS).map(|peer| peer.tier.as_str())
    };
    assert_eq!(check(&ours, BOB), Ok("verified"));
    assert_eq!(check(&theirs, BOB), Err(PeerTrouble::Chain(ChainError::UntrustedRoot)));
    assert_eq!(directory.verified_peer(&peer(2, 2, BOB, None), NOW_MS).unwrap_err(), PeerTrouble::NoKeys);
    assert_eq!(directory.verified(AgentId::from_bytes([8; 16]), NOW_MS).unwrap_err(), PeerTrouble::Gone);
}

#[tokio::test]
async fn a_chain_about_another_slug_is_refused() {
    let world = World::new();
    let directory = world.directory().await;
    let node = world.node(2, 1);
    let keys = Published { node: &node, slug: ALICE, serial: 1, seq: 1 }.keys(AgentId::from_bytes([2; 16]));
    let trouble = directory.verified_peer(&peer(2, 2, BOB, Some(keys)), NOW_MS).unwrap_err();
    assert_eq!(trouble, PeerTrouble::Mismatch("slug"));
}

#[tokio::test]
async fn the_directory_cannot_roll_keys_back_even_over_a_restart() {
    let world = World::new();
    let node = world.node(2, 1);
    let id = AgentId::from_bytes([2; 16]);
    let old = Published { node: &node, slug: BOB, serial: 1, seq: 1 }.keys(id);
    let new = Published { node: &node, slug: BOB, serial: 2, seq: 2 }.keys(id);
    let directory = world.directory().await;
    directory.verified_peer(&peer(2, 2, BOB, Some(new)), NOW_MS).unwrap();
    let rolled_back = |directory: &Directory| directory.verified_peer(&peer(2, 2, BOB, Some(old.clone())), NOW_MS);
    assert!(matches!(rolled_back(&directory), Err(PeerTrouble::Chain(ChainError::Serial(_)))));
    directory.store.write(|_| Ok(())).await.unwrap();
    drop(directory);
    let directory = world.directory().await;
    assert!(matches!(rolled_back(&directory), Err(PeerTrouble::Chain(ChainError::Serial(_)))));
    // What was sealed before the renewal and is still on its way is not lost.
    assert!(directory.verify_chain(&old.chain, NOW_MS).is_ok());
}

#[tokio::test]
async fn a_message_under_a_renewed_certificate_does_not_outdate_the_directory() {
    let world = World::new();
    let node = world.node(2, 1);
    let id = AgentId::from_bytes([2; 16]);
    let old = Published { node: &node, slug: BOB, serial: 1, seq: 1 }.keys(id);
    let new = Published { node: &node, slug: BOB, serial: 2, seq: 1 }.keys(id);
    let directory = world.directory().await;
    directory.verify_chain(&new.chain, NOW_MS).unwrap();
    directory.verified_peer(&peer(2, 2, BOB, Some(old)), NOW_MS).unwrap();
}

#[tokio::test]
async fn a_node_with_another_key_and_no_newer_serial_is_refused() {
    let world = World::new();
    let directory = world.directory().await;
    let id = AgentId::from_bytes([2; 16]);
    let (first, second) = (world.node(2, 1), world.node(2, 1));
    let keys = |node| Published { node, slug: BOB, serial: 1, seq: 1 }.keys(id);
    directory.verify_chain(&keys(&first).chain, NOW_MS).unwrap();
    assert!(matches!(directory.verify_chain(&keys(&second).chain, NOW_MS), Err(ChainError::Serial(_))));
}

#[tokio::test]
async fn a_prekey_past_its_time_is_refused_although_it_held_before() {
    let world = World::new();
    let directory = world.directory().await;
    let node = world.node(2, 1);
    let keys = Published { node: &node, slug: BOB, serial: 1, seq: 1 }.keys(AgentId::from_bytes([2; 16]));
    let bob = peer(2, 2, BOB, Some(keys));
    let prekey = directory.verified_peer(&bob, NOW_MS).unwrap().prekey;
    let later = directory.verified_peer(&bob, prekey.not_after_ms + 1);
    assert!(matches!(
        later,
        Err(PeerTrouble::Prekey(PrekeyError::Expired { .. }) | PeerTrouble::Chain(ChainError::Time(_)))
    ));
}

#[tokio::test]
async fn a_revoked_node_is_believed_by_nobody_whatever_was_believed_before() {
    let world = World::new();
    let directory = world.directory().await;
    let (thief, other, renewed) = (world.node(4, 1), world.node(5, 1), world.node(4, 2));
    let id = AgentId::from_bytes([2; 16]);
    let keys = |node| Published { node, slug: BOB, serial: 1, seq: 1 }.keys(id);
    let (old, new) = (keys(&thief), keys(&renewed));
    let bob = peer(2, 4, BOB, Some(old.clone()));
    directory.verified_peer(&bob, NOW_MS).unwrap();
    directory.verify_carried(&old.chain, NOW_MS).unwrap();
    let version = directory.changed();

    directory.revoke(world.revocations(5, &[4]), NOW_MS).unwrap();
    assert!(version.has_changed().unwrap(), "whoever waits to seal looks again");
    assert_eq!(directory.take_revoked(), HashSet::from([NodeId::from_bytes([4; 16])]));
    assert!(matches!(directory.verified_peer(&bob, NOW_MS), Err(PeerTrouble::Chain(ChainError::Revoked(_)))));
    assert_eq!(directory.verify_carried(&old.chain, NOW_MS).unwrap_err(), Code::Revoked);
    let theirs = Published { node: &other, slug: ALICE, serial: 1, seq: 1 }.keys(AgentId::from_bytes([3; 16]));
    assert!(directory.verify_chain(&theirs.chain, NOW_MS).is_ok(), "of another node");

    // Neither the control plane nor a restart brings it back.
    directory.revoke(world.revocations(4, &[]), NOW_MS).unwrap();
    directory.revoke(world.revocations(5, &[]), NOW_MS).unwrap();
    assert!(directory.revoke(World::new().revocations(9, &[]), NOW_MS).is_err(), "of another owner");
    assert_eq!(directory.verify_carried(&old.chain, NOW_MS).unwrap_err(), Code::Revoked);
    directory.saved().await;
    drop(directory);
    let directory = world.directory().await;
    assert_eq!(directory.verify_carried(&old.chain, NOW_MS).unwrap_err(), Code::Revoked);

    // The owner may: by a certificate that is newer than the revocation, or by a later list.
    assert!(directory.verify_chain(&new.chain, NOW_MS).is_ok());
    directory.revoke(world.revocations(6, &[5]), NOW_MS).unwrap();
    assert_eq!(directory.verify_carried(&theirs.chain, NOW_MS).unwrap_err(), Code::Revoked);
}
