//! Workspaces, invites, nodes.

use murmur_core::reason::Reason;
use murmur_crypto::{chain::Chain, hash::sha256};
use murmur_proto::v1;
use tonic::Code;

use crate::world::{NodeKit, Owner, World, field, next, reason};

#[tokio::test]
async fn a_workspace_belongs_to_its_first_root() {
    let world = World::start().await;
    let owner = world.workspace("acme").await;
    let again = world.admin().directory.create_workspace(owner.request()).await.unwrap().into_inner();
    assert_eq!(again.workspace.unwrap().workspace_id, owner.root.workspace_id().to_string());

    let stranger = Owner::new("acme", world.now_ms());
    assert_eq!(reason(world.admin().directory.create_workspace(stranger.request()).await), Reason::WorkspaceExists);
    let renamed = v1::CreateWorkspaceRequest { name: "other".into(), ..owner.request() };
    assert_eq!(field(world.admin().directory.create_workspace(renamed).await), "root_certificate");
    let operator = v1::CreateWorkspaceRequest { mode: v1::WorkspaceMode::Operator.into(), ..stranger.request() };
    assert_eq!(field(world.admin().directory.create_workspace(operator).await), "mode");
}

#[tokio::test]
async fn a_node_joins_with_an_invite_and_the_owners_signature() {
    let world = World::start().await;
    let owner = world.workspace("acme").await;
    world.invite(&owner, "JDoe", [7; 32]).await.unwrap();
    let mut node = NodeKit::new(1);
    let enrolled = node.enroll(&world, [7; 32]).await.unwrap();
    assert_eq!(enrolled.workspace, "acme");
    assert_eq!(enrolled.root_certificate, owner.root.certificate().encode());
    assert_eq!(enrolled.node.unwrap().state(), v1::NodeState::Pending);
    assert_eq!(reason(node.register(&world, "alice").await), Reason::NodePending);
    let read = node.client(&world).directory.list_agents(v1::ListAgentsRequest::default()).await;
    assert_eq!(reason(read), Reason::NodePending);

    let mut nodes = node.client(&world).nodes.watch_nodes(v1::WatchNodesRequest {}).await.unwrap().into_inner();
    assert_eq!(next(&mut nodes).await.node.unwrap().state(), v1::NodeState::Pending);
    let certificate = owner.certify(&node, world.now_ms(), 1, &["/w/acme/u/jdoe/"]);
    world.approve(&node, &certificate).await.unwrap();
    let approved = next(&mut nodes).await.node.unwrap();
    assert_eq!(approved.state(), v1::NodeState::Approved);
    assert_eq!(approved.certificate, certificate.encode());
    assert_eq!(approved.account, "jdoe");
    assert!(node.register(&world, "alice").await.unwrap().created);
}

#[tokio::test]
async fn an_invite_serves_one_key_but_that_one_again() {
    let world = World::start().await;
    let owner = world.workspace("acme").await;
    world.invite(&owner, "jdoe", [7; 32]).await.unwrap();
    let mut node = NodeKit::new(1);
    let first = node.enroll(&world, [7; 32]).await.unwrap();
    let second = node.enroll(&world, [7; 32]).await.unwrap();
    assert_eq!(first.node.unwrap().node_id, second.node.unwrap().node_id);
    let old = world.client(&first.token).auth.who_am_i(v1::WhoAmIRequest {}).await;
    assert_eq!(reason(old), Reason::TokenRevoked);
    world.client(&second.token).auth.who_am_i(v1::WhoAmIRequest {}).await.unwrap();

    assert_eq!(reason(NodeKit::new(2).enroll(&world, [7; 32]).await), Reason::InviteUsed);
    assert_eq!(reason(NodeKit::new(2).enroll(&world, [8; 32]).await), Reason::InviteInvalid);
    assert_eq!(field(world.invite(&owner, "jdoe", [7; 32]).await), "secret_hash");
}

#[tokio::test]
async fn an_invite_expires() {
    let world = World::start().await;
    let owner = world.workspace("acme").await;
    world.invite(&owner, "jdoe", [7; 32]).await.unwrap();
    world.clock.advance(24 * 3600 * 1000);
    assert_eq!(reason(NodeKit::new(1).enroll(&world, [7; 32]).await), Reason::InviteExpired);
}

#[tokio::test]
async fn invites_stay_inside_limits_and_workspace() {
    let world = World::start().await;
    let owner = world.workspace("acme").await;
    let base = v1::CreateInviteRequest {
        secret_hash: sha256(&[9; 32]).to_vec().into(),
        account: "jdoe".into(),
        workspace: owner.name.clone(),
        ..v1::CreateInviteRequest::default()
    };
    let create = async |request: v1::CreateInviteRequest| world.admin().auth.create_invite(request).await;
    assert_eq!(field(create(v1::CreateInviteRequest { ttl_seconds: 604_801, ..base.clone() }).await), "ttl_seconds");
    let short = v1::CreateInviteRequest { secret_hash: vec![1].into(), ..base.clone() };
    assert_eq!(field(create(short).await), "secret_hash");
    let scope = vec!["/w/other/u/jdoe/".to_owned()];
    let foreign = create(v1::CreateInviteRequest { slug_scope: scope, ..base.clone() }).await;
    assert_eq!(reason(foreign), Reason::ScopeMissing);
    let nowhere = create(v1::CreateInviteRequest { workspace: "nowhere".into(), ..base }).await;
    assert_eq!(reason(nowhere), Reason::WorkspaceNotFound);
}

#[tokio::test]
async fn a_key_must_be_proven() {
    let world = World::start().await;
    let owner = world.workspace("acme").await;
    world.invite(&owner, "jdoe", [7; 32]).await.unwrap();
    let node = NodeKit::new(1);
    let request = v1::EnrollNodeRequest { proof: node.enrolment([8; 32]).proof, ..node.enrolment([7; 32]) };
    let mut anonymous = world.anonymous().nodes;
    assert_eq!(field(anonymous.enroll_node(request).await), "proof");
    let request = v1::EnrollNodeRequest { broker_public_key: "UX".into(), ..node.enrolment([7; 32]) };
    assert_eq!(field(anonymous.enroll_node(request).await), "broker_public_key");
    let request = v1::EnrollNodeRequest { public_key: vec![0; 32].into(), ..node.enrolment([7; 32]) };
    assert_eq!(field(anonymous.enroll_node(request).await), "public_key");
    let request = v1::EnrollNodeRequest { name: String::new(), ..node.enrolment([7; 32]) };
    assert_eq!(field(anonymous.enroll_node(request).await), "name");
}

#[tokio::test]
async fn a_certificate_must_be_the_roots_for_this_node_and_inside_the_invite() {
    let world = World::start().await;
    let owner = world.workspace("acme").await;
    world.invite(&owner, "jdoe", [7; 32]).await.unwrap();
    let mut node = NodeKit::new(1);
    node.enroll(&world, [7; 32]).await.unwrap();
    let (now, scope) = (world.now_ms(), ["/w/acme/u/jdoe/"]);
    let refused = async |certificate| reason(world.approve(&node, &certificate).await);

    assert_eq!(refused(owner.certify(&node, now, 1, &["/w/acme/"])).await, Reason::CertificateRefused);
    assert_eq!(refused(Owner::new("acme", now).certify(&node, now, 1, &scope)).await, Reason::CertificateRefused);
    let mut other = NodeKit::new(2);
    other.id = node.id;
    assert_eq!(refused(owner.certify(&other, now, 1, &scope)).await, Reason::CertificateRefused);
    let stale = now - 365 * 24 * 3600 * 1000;
    assert_eq!(refused(owner.certify(&node, stale, 1, &scope)).await, Reason::CertificateRefused);

    world.approve(&node, &owner.certify(&node, now, 2, &scope)).await.unwrap();
    assert_eq!(refused(owner.certify(&node, now + 1, 2, &scope)).await, Reason::CertificateRefused);
    assert_eq!(refused(owner.certify(&node, now, 1, &scope)).await, Reason::CertificateRefused);
    world.approve(&node, &owner.certify(&node, now, 3, &scope)).await.unwrap();
}

#[tokio::test]
async fn credentials_wait_for_a_broker() {
    let world = World::start().await;
    let owner = world.workspace("acme").await;
    let node = world.node(&owner, "jdoe", 1).await;
    let mut nodes = node.client(&world).nodes;
    let foreign =
        v1::GetBrokerCredentialsRequest { broker_public_key: NodeKit::new(2).broker.public_key(), redeliver: false };
    assert_eq!(field(nodes.get_broker_credentials(foreign).await), "broker_public_key");
    let own = v1::GetBrokerCredentialsRequest { broker_public_key: node.broker.public_key(), redeliver: false };
    let status = nodes.get_broker_credentials(own).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(reason::<()>(Err(status)), Reason::BrokerDown);
}

#[tokio::test]
async fn a_whole_network_is_readable_by_its_own_root() {
    let world = World::start().await;
    let owner = world.workspace("acme").await;
    let node = world.node(&owner, "jdoe", 1).await;
    let alice = node.agent(&world, "team/alice").await;
    node.publish(&world, &alice, node.keys(&world, &alice, 1, 1)).await.unwrap();

    let mut reader = world.reader(&owner).await;
    let request = v1::ResolveAgentRequest { slug: "/u/jdoe/team/alice".into() };
    let found = reader.directory.resolve_agent(request).await.unwrap().into_inner().agent.unwrap();
    assert_eq!((found.slug.as_str(), found.host.as_str()), ("/w/acme/u/jdoe/team/alice", "host"));
    let chain = Chain::decode(found.keys.unwrap().chain).unwrap();
    let verified =
        murmur_crypto::chain::verify_chain(&chain, &owner.root, world.now_ms(), &murmur_crypto::chain::NothingSeen);
    assert_eq!(verified.unwrap().agent_id(), alice.id);
}
