//! Nodes that their owner revokes: everything that they had from the control plane ends (PROTOCOL §3.6).

use murmur_core::reason::Reason;
use murmur_proto::v1::{self, open_session_response::Item as Out};

use crate::{
    sessions::{Open, hello},
    world::{NodeKit, Owner, World, field, reason},
};

/// A workspace with two nodes, the first of which is to be revoked.
async fn two_nodes() -> (World, Owner, NodeKit, NodeKit) {
    let world = World::start().await;
    let owner = world.workspace("acme").await;
    let (thief, other) = (world.node(&owner, "jdoe", 1).await, world.node(&owner, "sam", 2).await);
    (world, owner, thief, other)
}

async fn publish(world: &World, request: v1::PublishRevocationListRequest) -> Result<Vec<v1::Node>, tonic::Status> {
    Ok(world.admin().nodes.publish_revocation_list(request).await?.into_inner().nodes)
}

async fn shown(world: &World, owner: &Owner) -> Vec<u8> {
    let request = v1::GetRevocationListRequest { workspace: owner.name.clone() };
    world.admin().nodes.get_revocation_list(request).await.unwrap().into_inner().revocation_list.into()
}

#[tokio::test]
async fn a_revoked_node_loses_everything_at_once() {
    let (world, owner, mut thief, other) = two_nodes().await;
    let alice = thief.agent(&world, "alice").await;
    let mut its_session = Open::welcome(&world, &thief, hello(1)).await;
    let mut session = Open::welcome(&world, &other, hello(2)).await;
    assert_eq!(shown(&world, &owner).await, Vec::<u8>::new());

    let request = owner.revoke(world.now_ms(), 1, &[thief.id]);
    let revoked = publish(&world, request.clone()).await.unwrap();
    assert_eq!(
        revoked.iter().map(|node| (node.name.as_str(), node.state())).collect::<Vec<_>>(),
        [("host", v1::NodeState::Revoked)]
    );
    let status = its_session.ended().await;
    assert_eq!(reason(Err::<(), _>(status)), Reason::TokenRevoked);
    assert_eq!(reason(thief.register(&world, "bob").await), Reason::TokenRevoked);

    // Its agents have ended, and whoever looks is told why.
    let resolve = v1::ResolveAgentRequest { slug: alice.slug.clone() };
    assert_eq!(reason(world.reader(&owner).await.directory.resolve_agent(resolve).await), Reason::AgentNotFound);
    let get = v1::GetAgentStatusRequest { slug: alice.slug.clone(), ..v1::GetAgentStatusRequest::default() };
    let ended = world.person(&owner, "jdoe").await.agents.get_agent_status(get).await.unwrap().into_inner();
    let ended = ended.agent.unwrap();
    assert_eq!(ended.phase(), v1::Phase::Failed);
    assert_eq!(ended.reason, "node_revoked: the owner has revoked node host: stolen");

    // The other node has the owner's word itself, now and at every new session.
    let list = request.revocation_list.clone();
    match session.next().await {
        Out::RevocationList(changed) => assert_eq!(changed.revocation_list, list),
        other => panic!("the list was expected, got {other:?}"),
    }
    drop(session);
    match Open::begin(&world, &other, v1::open_session_request::Item::Hello(hello(2))).await.next().await {
        Out::Welcome(welcome) => assert_eq!(welcome.revocation_list, list),
        other => panic!("a welcome was expected, got {other:?}"),
    }

    // Its key is of no use any more.
    let credentials =
        v1::GetBrokerCredentialsRequest { broker_public_key: thief.broker.public_key(), redeliver: false };
    let asked = thief.client(&world).nodes.get_broker_credentials(credentials).await;
    assert_eq!(reason(asked), Reason::TokenRevoked);
    let renewed = thief.client(&world).nodes.renew_node_token(v1::RenewNodeTokenRequest {}).await;
    assert_eq!(reason(renewed), Reason::TokenRevoked);
    world.invite(&owner, "jdoe", [3; 32]).await.unwrap();
    assert_eq!(reason(thief.enroll(&world, [3; 32]).await), Reason::InviteInvalid);
    let certificate = owner.certify(&thief, world.now_ms(), 9, &[&owner.account_scope("jdoe")]);
    assert_eq!(reason(world.approve(&thief, &certificate).await), Reason::NodeNotFound);

    // The same list again changes nothing, and all of it holds over a restart.
    let again = world.admin().nodes.publish_revocation_list(request).await.unwrap().into_inner();
    assert!(again.nodes.is_empty() && !again.broker_told, "the broker is still to be told");
    let world = world.restart().await;
    assert_eq!(reason(thief.register(&world, "bob").await), Reason::TokenRevoked);
    assert_eq!(shown(&world, &owner).await, list);
    other.register(&world, "carol").await.unwrap();
}

#[tokio::test]
async fn a_node_that_waits_for_its_certificate_can_be_revoked() {
    let world = World::start().await;
    let owner = world.workspace("acme").await;
    world.invite(&owner, "jdoe", [1; 32]).await.unwrap();
    let mut node = NodeKit::new(1);
    node.enroll(&world, [1; 32]).await.unwrap();
    let revoked = publish(&world, owner.revoke(world.now_ms(), 1, &[node.id])).await.unwrap();
    assert_eq!(revoked.len(), 1);
    let certificate = owner.certify(&node, world.now_ms(), 1, &[&owner.account_scope("jdoe")]);
    assert_eq!(reason(world.approve(&node, &certificate).await), Reason::NodeNotFound);
}

#[tokio::test]
async fn a_certificate_that_is_newer_than_its_revocation_counts() {
    let (world, owner, node, _other) = two_nodes().await;
    let renewed = owner.certify(&node, world.now_ms(), 2, &[&owner.account_scope("jdoe")]);
    world.approve(&node, &renewed).await.unwrap();
    let revoked = publish(&world, owner.revoke(world.now_ms(), 1, &[node.id])).await.unwrap();
    assert!(revoked.is_empty(), "the list names what was signed below serial 2");
    node.register(&world, "alice").await.unwrap();
}

#[tokio::test]
async fn only_the_owner_revokes_and_nobody_goes_back() {
    let (world, owner, node, other) = two_nodes().await;
    let now_ms = world.now_ms();
    publish(&world, owner.revoke(now_ms, 5, &[other.id])).await.unwrap();
    let stranger = Owner::new("acme", now_ms);
    for wrong in [
        stranger.revoke(now_ms, 6, &[other.id, node.id]),
        owner.revoke(now_ms, 4, &[other.id, node.id]),
        owner.revoke(now_ms, 5, &[other.id, node.id]),
        owner.revoke(now_ms, 6, &[node.id]),
        v1::PublishRevocationListRequest { revocation_list: vec![1, 2, 3].into(), workspace: "acme".into() },
        v1::PublishRevocationListRequest { workspace: "acme".into(), ..Default::default() },
    ] {
        assert_eq!(reason(publish(&world, wrong).await), Reason::CertificateRefused);
    }
    node.register(&world, "alice").await.unwrap();

    let unnamed = v1::PublishRevocationListRequest { workspace: String::new(), ..owner.revoke(now_ms, 6, &[other.id]) };
    assert_eq!(field(publish(&world, unnamed).await), "workspace");
    let elsewhere = v1::PublishRevocationListRequest { workspace: "no".into(), ..owner.revoke(now_ms, 6, &[other.id]) };
    assert_eq!(reason(publish(&world, elsewhere).await), Reason::WorkspaceNotFound);
    let mut reader = world.reader(&owner).await;
    let request = owner.revoke(now_ms, 6, &[other.id, node.id]);
    assert_eq!(reason(reader.nodes.publish_revocation_list(request).await), Reason::ScopeMissing);
    let own = v1::GetRevocationListRequest::default();
    assert!(!reader.nodes.get_revocation_list(own).await.unwrap().into_inner().revocation_list.is_empty());
    publish(&world, owner.revoke(now_ms, 6, &[other.id])).await.unwrap();
}

#[tokio::test]
async fn a_node_keeps_its_broker_key_so_that_no_other_one_outlives_it() {
    let (world, owner, mut node, _other) = two_nodes().await;
    node.broker = nkeys::KeyPair::new_user();
    world.invite(&owner, "jdoe", [3; 32]).await.unwrap();
    assert_eq!(field(node.enroll(&world, [3; 32]).await), "broker_public_key");
}
