use std::{fs, os::unix::fs::PermissionsExt as _};

use murmur_core::limits::{NODE_CERT_LIFE_MS, ROOT_CERT_LIFE_MS};
use murmur_crypto::{
    cert::Origin,
    issue::{Issuer, NodeSpec, RootSpec, Validity, root},
};

use super::*;

const NOW_MS: u64 = 1_800_000_000_000;

/// A record approved by an owner for `certified`, as enrolment leaves it.
fn record(certified: &IdentityKey) -> NodeRecord {
    let (workspace_id, node_id) = (WorkspaceId::from_bytes([1; 16]), NodeId::from_bytes([2; 16]));
    let slug_scope = vec!["/w/acme/u/jdoe/".to_owned()];
    let owner = IdentityKey::generate().unwrap();
    let validity = Validity::from_now(NOW_MS, ROOT_CERT_LIFE_MS);
    let spec =
        RootSpec { workspace_id, serial: 1, validity, slug_scope: vec!["/w/acme/".to_owned()], origin: Origin::Owner };
    let root = root(&owner, spec).unwrap();
    let node = Issuer::new(&owner, root.certificate()).unwrap();
    let certificate = node
        .node(NodeSpec {
            node_id,
            public_key: certified.public(),
            serial: 1,
            validity: Validity::from_now(NOW_MS, NODE_CERT_LIFE_MS),
            slug_scope: slug_scope.clone(),
        })
        .unwrap();
    NodeRecord {
        node_id,
        workspace_id,
        workspace: "acme".parse().unwrap(),
        account: "jdoe".parse().unwrap(),
        name: "host".to_owned(),
        control_plane_url: "http://127.0.0.1:1".to_owned(),
        root_certificate: root.certificate().encode(),
        node_certificate: Some(certificate.encode()),
        slug_scope,
    }
}

#[test]
fn an_identity_survives_a_restart() {
    let home = tempfile::tempdir().unwrap();
    let dir = IdentityDir::open(home.path()).unwrap();
    assert!(dir.record().unwrap().is_none() && dir.token().unwrap().is_none());
    let (key, broker) = (dir.key().unwrap(), dir.broker_key().unwrap());
    dir.save_record(&record(&key)).unwrap();

    let again = IdentityDir::open(home.path()).unwrap();
    assert_eq!(again.key().unwrap().public(), key.public());
    assert_eq!(again.broker_key().unwrap().public_key(), broker.public_key());
    let identity = NodeIdentity::new(&again.record().unwrap().unwrap(), again.key().unwrap(), NOW_MS).unwrap();
    assert!(identity.owns(&"/w/acme/u/jdoe/me".parse().unwrap()));
    assert!(!identity.owns(&"/w/acme/u/bob/me".parse().unwrap()));
}

#[test]
fn a_certificate_of_another_key_is_refused() {
    let (ours, other) = (IdentityKey::generate().unwrap(), IdentityKey::generate().unwrap());
    assert!(matches!(NodeIdentity::new(&record(&other), ours, NOW_MS), Err(IdentityError::Foreign("public key"))));
}

#[test]
fn a_certificate_of_another_root_is_refused() {
    let key = IdentityKey::generate().unwrap();
    let foreign = NodeRecord { root_certificate: record(&key).root_certificate, ..record(&key) };
    assert!(matches!(NodeIdentity::new(&foreign, key, NOW_MS), Err(IdentityError::Chain(_))));
}

#[test]
fn a_key_that_others_may_read_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let dir = IdentityDir::open(home.path()).unwrap();
    dir.key().unwrap();
    let path = home.path().join("identity/node.key");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(dir.key(), Err(IdentityError::Io { .. })));
}
