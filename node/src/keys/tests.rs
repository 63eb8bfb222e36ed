use std::os::unix::fs::PermissionsExt as _;

use murmur_core::limits::{CLOCK_SKEW_MS, PREKEY_FRESH_MS};
use murmur_crypto::chain::{NothingSeen, verify_chain};

use super::*;
use crate::post::testing::{node_identity, slug};

const NOW: u64 = 1_800_000_000_000;
const DAY: u64 = 24 * 3600 * 1000;

fn agent() -> (AgentId, Slug) {
    (AgentId::from_bytes([7; 16]), slug("alice"))
}

#[test]
fn what_is_published_holds_and_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let identity = node_identity(1, NOW);
    let keys = Keys::open(folder.path(), identity.clone()).unwrap();
    let (id, slug) = agent();
    let published = keys.ensure_agent(id, &slug, NOW).unwrap();
    let chain = Chain::decode(published.chain.clone()).unwrap();
    let verified = verify_chain(&chain, &identity.root, NOW, &NothingSeen).unwrap();
    assert_eq!((verified.agent_id(), verified.slug()), (id, slug.to_string().as_str()));
    drop(keys);
    let again = Keys::open(folder.path(), identity).unwrap();
    assert_eq!(again.ensure_agent(id, &slug, NOW + 1).unwrap(), published);
}

#[test]
fn key_files_are_for_their_owner_only() {
    let folder = tempfile::tempdir().unwrap();
    let keys = Keys::open(folder.path(), node_identity(1, NOW)).unwrap();
    let (id, slug) = agent();
    keys.ensure_agent(id, &slug, NOW).unwrap();
    let agent = folder.path().join("keys/agents").join(id.hex());
    let modes = std::fs::read_dir(agent).unwrap().map(|file| file.unwrap().metadata().unwrap().permissions().mode());
    assert!(modes.map(|mode| mode & 0o777).all(|mode| mode == 0o600));
}

#[test]
fn a_day_later_both_are_renewed_and_the_old_prekey_still_opens() {
    let folder = tempfile::tempdir().unwrap();
    let identity = node_identity(1, NOW);
    let keys = Keys::open(folder.path(), identity.clone()).unwrap();
    let (id, slug) = agent();
    let first = keys.ensure_agent(id, &slug, NOW).unwrap();
    let old = keys.keyring(id).unwrap().newest().id;
    assert!(keys.due(NOW + 20 * 3600 * 1000).is_empty());
    let later = NOW + DAY + 2 * 3600 * 1000 + 1;
    assert_eq!(keys.due(later), [id]);
    let second = keys.ensure_agent(id, &slug, later).unwrap();
    assert!(first.chain != second.chain && first.prekey != second.prekey);
    assert!(keys.due(later).is_empty());
    drop(keys);
    let again = Keys::open(folder.path(), identity).unwrap();
    assert!(again.keyring(id).unwrap().secret(old).is_some());
}

#[test]
fn a_prekey_goes_when_it_was_stale_for_a_day_and_the_queue_was_empty_since() {
    let folder = tempfile::tempdir().unwrap();
    let identity = node_identity(1, NOW);
    let keys = Keys::open(folder.path(), identity.clone()).unwrap();
    let (id, slug) = agent();
    keys.ensure_agent(id, &slug, NOW).unwrap();
    let old = keys.keyring(id).unwrap().newest().id;
    let later = NOW + PREKEY_FRESH_MS + DAY + CLOCK_SKEW_MS;
    keys.ensure_agent(id, &slug, later).unwrap();
    assert_eq!(keys.delete_expired_prekeys(later, NOW).unwrap(), 0, "the queue was not seen empty since");
    assert_eq!(keys.delete_expired_prekeys(later, later).unwrap(), 1);
    assert!(keys.keyring(id).unwrap().secret(old).is_none());
    assert!(Keys::open(folder.path(), identity).unwrap().keyring(id).unwrap().secret(old).is_none());
}

#[test]
fn a_slug_outside_the_nodes_scope_gets_no_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let keys = Keys::open(folder.path(), node_identity(1, NOW)).unwrap();
    let foreign = "/w/acme/u/mallory/alice".parse().unwrap();
    assert!(matches!(keys.ensure_agent(agent().0, &foreign, NOW), Err(KeyError::Issue(_))));
}
