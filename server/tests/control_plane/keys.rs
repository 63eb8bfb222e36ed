//! Publishing keys.

use murmur_core::reason::Reason;
use murmur_crypto::keys::IdentityKey;

use crate::world::{AgentKit, World, reason};

#[tokio::test]
async fn serials_and_sequences_never_go_down() {
    let world = World::start().await;
    let owner = world.workspace("acme").await;
    let node = world.node(&owner, "jdoe", 1).await;
    let alice = node.agent(&world, "alice").await;
    let (chain, second) = node.keys(&world, &alice, 5, 2);
    node.publish(&world, &alice, (chain.clone(), second.clone())).await.unwrap();
    node.publish(&world, &alice, (chain.clone(), second.clone())).await.unwrap();

    let (_, first) = node.keys(&world, &alice, 5, 1);
    assert_eq!(reason(node.publish(&world, &alice, (chain, first)).await), Reason::PrekeyRefused);
    let older = node.keys(&world, &alice, 4, 9);
    assert_eq!(reason(node.publish(&world, &alice, older).await), Reason::CertificateRefused);
    // A new certificate begins a new sequence.
    node.publish(&world, &alice, node.keys(&world, &alice, 6, 1)).await.unwrap();
}

#[tokio::test]
async fn a_serial_names_one_certificate() {
    let world = World::start().await;
    let owner = world.workspace("acme").await;
    let node = world.node(&owner, "jdoe", 1).await;
    let alice = node.agent(&world, "alice").await;
    node.publish(&world, &alice, node.keys(&world, &alice, 1, 1)).await.unwrap();
    let twin = AgentKit { key: IdentityKey::generate().unwrap(), slug: alice.slug.clone(), ..alice };
    let keys = node.keys(&world, &twin, 1, 1);
    assert_eq!(reason(node.publish(&world, &twin, keys).await), Reason::CertificateRefused);
}

#[tokio::test]
async fn keys_must_be_this_agents_under_this_root() {
    let world = World::start().await;
    let owner = world.workspace("acme").await;
    let node = world.node(&owner, "jdoe", 1).await;
    let (alice, bob) = (node.agent(&world, "alice").await, node.agent(&world, "bob").await);
    let of_bob = node.keys(&world, &bob, 1, 1);
    assert_eq!(reason(node.publish(&world, &alice, of_bob).await), Reason::CertificateRefused);

    let renamed = AgentKit { slug: bob.slug.clone(), key: IdentityKey::generate().unwrap(), ..alice };
    let keys = node.keys(&world, &renamed, 1, 1);
    assert_eq!(reason(node.publish(&world, &renamed, keys).await), Reason::CertificateRefused);

    let (chain, _) = node.keys(&world, &bob, 1, 1);
    let (_, foreign_prekey) = node.keys(&world, &bob, 2, 1);
    assert_eq!(reason(node.publish(&world, &bob, (chain, foreign_prekey)).await), Reason::PrekeyRefused);

    // The same root key under another name of a workspace is another root.
    let stranger = world.workspace("other").await;
    let mut forged = world.node(&stranger, "jdoe", 2).await;
    let carol = node.agent(&world, "carol").await;
    let chain = {
        let certificate = stranger.certify(&node, world.now_ms(), 1, &["/w/other/u/jdoe/"]);
        forged.certificate = Some(certificate);
        forged.key = IdentityKey::from_seed(&[1; 32]);
        let carol = AgentKit { slug: "/w/other/u/jdoe/carol".into(), key: IdentityKey::generate().unwrap(), ..carol };
        forged.keys(&world, &carol, 1, 1)
    };
    assert_eq!(reason(node.publish(&world, &carol, chain).await), Reason::CertificateRefused);
}
