//! Revocation lists: what they revoke, and every rule broken alone (PROTOCOL §3.6).

use murmur_core::{code::Code, limits::REVOCATION_LIST_LIFE_MS_MAX};
use prost::Message as _;

use super::world::{NOW, World, key, root_spec};
use crate::{
    hash::label,
    issue::{IssueError, root},
    revocation::{Revocation, RevocationList, RevocationListError, RevocationListSpec, Revoked},
    statement::Statement,
    wire,
};

fn entry(what: Revoked) -> Revocation {
    Revocation { what, reason: "stolen".to_owned(), at_ms: NOW }
}

fn spec(entries: Vec<Revocation>) -> RevocationListSpec {
    RevocationListSpec { version: 1, issued_ms: NOW, next_update_ms: NOW + REVOCATION_LIST_LIFE_MS_MAX, entries }
}

fn issue(world: &World, entries: Vec<Revocation>) -> RevocationList {
    RevocationList::issue(&world.root_key, &world.root, &spec(entries)).unwrap()
}

/// Reads a list whose body was changed and then signed by the root.
fn with_body(change: impl FnOnce(&mut wire::RevocationListBody)) -> Result<RevocationList, RevocationListError> {
    let world = World::new();
    let what = Revoked::Subject { subject_id: [7; 16], serial_lt: 9 };
    let list = Statement::decode_at_most(issue(&world, vec![entry(what)]).encode(), usize::MAX).unwrap();
    let mut body = wire::RevocationListBody::decode(list.body().clone()).unwrap();
    change(&mut body);
    RevocationList::decode(Statement::sign(&world.root_key, label::CRL, body.encode_to_vec()).encode(), &world.root)
}

fn broken(change: impl FnOnce(&mut wire::RevocationListBody)) -> (&'static str, Code) {
    match with_body(change) {
        Err(RevocationListError::Malformed(error)) => (error.field, error.code),
        other => panic!("a malformed list was expected, got {other:?}"),
    }
}

#[test]
fn a_list_revokes_a_certificate_or_a_subject_below_a_serial() {
    let world = World::new();
    let agent = world.agent(1).chain.leaf().clone();
    let by_fp = issue(&world, vec![entry(Revoked::Certificate(world.node.fp()))]);
    assert!(by_fp.revokes(&world.node) && !by_fp.revokes(&agent));
    let serial = world.node.claims().serial;
    let below = |serial_lt| {
        issue(&world, vec![entry(Revoked::Subject { subject_id: world.node.claims().subject_id, serial_lt })])
    };
    assert!(below(serial + 1).revokes(&world.node), "what was issued before");
    assert!(!below(serial).revokes(&world.node), "what was issued after");
    assert!(!below(serial + 1).revokes(&agent), "of another subject");
    assert_eq!(below(serial + 1).entry_of(&world.node).unwrap().reason, "stolen");
}

#[test]
fn a_list_comes_out_as_it_went_in() {
    let world = World::new();
    let list = issue(
        &world,
        vec![
            entry(Revoked::Certificate(world.node.fp())),
            entry(Revoked::Subject { subject_id: [7; 16], serial_lt: u64::MAX }),
        ],
    );
    assert_eq!(RevocationList::decode(list.encode(), &world.root), Ok(list));
    let empty = issue(&world, Vec::new());
    assert_eq!(RevocationList::decode(empty.encode(), &world.root), Ok(empty));
}

#[test]
fn only_the_root_signs() {
    let world = World::new();
    let refused = RevocationList::issue(&world.node_key, &world.root, &spec(Vec::new()));
    assert_eq!(refused, Err(IssueError::ForeignKey));
    let other = root(&key(9), root_spec()).unwrap();
    let foreign = RevocationList::issue(&key(9), &other, &spec(Vec::new())).unwrap().encode();
    assert!(matches!(RevocationList::decode(foreign, &world.root), Err(RevocationListError::Signature(_))));
    // A statement of another kind is no list, whoever signed it.
    let certificate = world.root.certificate().encode();
    assert!(matches!(RevocationList::decode(certificate, &world.root), Err(RevocationListError::Signature(_))));
    let list = issue(&world, Vec::new()).encode();
    for at in 0..list.len() {
        let mut changed = list.clone();
        changed[at] ^= 1;
        assert!(RevocationList::decode(changed, &world.root).is_err(), "byte {at}");
    }
}

#[test]
fn a_list_is_of_its_roots_workspace() {
    let foreign = with_body(|body| body.workspace_id = vec![9; 16].into());
    assert_eq!(foreign.unwrap_err(), RevocationListError::Workspace);
}

#[test]
fn every_rule_of_a_list_counts() {
    assert!(with_body(|_| ()).is_ok());
    assert_eq!(broken(|body| body.version = 0), ("version", Code::Malformed));
    assert_eq!(broken(|body| body.workspace_id = vec![1; 15].into()).0, "workspace_id");
    assert_eq!(broken(|body| body.next_update_ms = NOW - 1).0, "next_update_ms");
    assert_eq!(broken(|body| body.next_update_ms = NOW + REVOCATION_LIST_LIFE_MS_MAX + 1).0, "next_update_ms");
    assert_eq!(broken(|body| body.entries[0].serial_lt = 0).0, "serial_lt");
    assert_eq!(broken(|body| body.entries[0].subject_id = vec![1; 15].into()).0, "subject_id");
    assert_eq!(broken(|body| body.entries[0].subject_id.clear()).0, "entries");
    assert_eq!(broken(|body| body.entries[0].cert_fp = vec![1; 32].into()).0, "entries");
    assert_eq!(broken(|body| body.entries[0].reason = "x".repeat(201)), ("reason", Code::TooLarge));
    assert_eq!(broken(|body| body.entries[0].reason = "two\nlines".to_owned()).0, "reason");
    let by_fp = |body: &mut wire::RevocationListBody| {
        body.entries[0].subject_id.clear();
        body.entries[0].cert_fp = vec![1; 32].into();
    };
    assert_eq!(broken(by_fp).0, "serial_lt", "of a certificate there is no serial to begin from");
}

#[test]
fn a_list_has_a_size() {
    let world = World::new();
    let entries = |count: u32| {
        let what = |number: u32| {
            let mut subject_id = [0; 16];
            subject_id[..4].copy_from_slice(&number.to_be_bytes());
            Revoked::Subject { subject_id, serial_lt: u64::MAX }
        };
        (0..count).map(|number| entry(what(number))).collect()
    };
    let list = issue(&world, entries(4000));
    assert_eq!(RevocationList::decode(list.encode(), &world.root), Ok(list));
    assert!(RevocationList::issue(&world.root_key, &world.root, &spec(entries(8000))).is_err());
    let long = with_body(|body| body.entries = vec![body.entries[0].clone(); 8000]);
    match long {
        Err(RevocationListError::Malformed(error)) => {
            assert_eq!((error.field, error.code), ("statement", Code::TooLarge));
        }
        other => panic!("a list that is too long was taken: {other:?}"),
    }
}
