//! Whom a node speaks for: its owner and its own agents, and nobody else.

use murmur_core::{
    id::{AgentId, Incarnation},
    reason::Reason,
};
use murmur_proto::{
    client::{AS_HEADER, INCARNATION_HEADER, server_channel},
    v1::{self, auth_service_client::AuthServiceClient, directory_service_client::DirectoryServiceClient},
};
use tonic::{Request, Status, transport::Channel};

use crate::sessions::{Open, hello};
use crate::world::{NodeKit, World, field, reason};

/// A call with the headers that are given, in their order.
fn call<T>(message: T, token: &str, headers: &[(&'static str, &str)]) -> Request<T> {
    let mut request = Request::new(message);
    let metadata = request.metadata_mut();
    if !token.is_empty() {
        metadata.insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    for (name, value) in headers {
        metadata.append(*name, value.parse().unwrap());
    }
    request
}

fn channel(world: &World) -> Channel {
    server_channel(&world.url(""), None).unwrap()
}

async fn who(world: &World, token: &str, headers: &[(&'static str, &str)]) -> Result<v1::WhoAmIResponse, Status> {
    let mut auth = AuthServiceClient::new(channel(world));
    auth.who_am_i(call(v1::WhoAmIRequest {}, token, headers)).await.map(tonic::Response::into_inner)
}

fn agent(id: AgentId) -> String {
    format!("agent:{id}")
}

#[tokio::test]
async fn a_node_speaks_for_its_owner_and_its_agents() {
    let world = World::start().await;
    let owner = world.workspace("acme").await;
    let node = world.node(&owner, "jdoe", 1).await;
    let alice = node.agent(&world, "alice").await;

    let person = who(&world, &node.token, &[(AS_HEADER, "user")]).await.unwrap();
    assert_eq!((person.kind(), person.account.as_str()), (v1::TokenKind::User, "jdoe"));
    assert_eq!(person.slug_prefix, "/w/acme/u/jdoe/");
    assert!(person.scopes().any(|scope| scope == v1::Scope::AgentsSpawn));
    assert!(person.scopes().all(|scope| scope != v1::Scope::Node && scope != v1::Scope::TokensIssue));

    let as_alice = agent(alice.id);
    let spoken = who(&world, &node.token, &[(AS_HEADER, &as_alice)]).await.unwrap();
    assert_eq!((spoken.kind(), spoken.account.as_str()), (v1::TokenKind::Agent, "jdoe"));
    let own = v1::ResolveAgentRequest { slug: "self".into() };
    let mut directory = DirectoryServiceClient::new(channel(&world));
    let found = directory.resolve_agent(call(own, &node.token, &[(AS_HEADER, &as_alice)])).await.unwrap();
    assert_eq!(found.into_inner().agent.unwrap().agent_id, alice.id.to_string());

    // Without the header it is the node that calls.
    assert_eq!(who(&world, &node.token, &[]).await.unwrap().kind(), v1::TokenKind::Node);
}

#[tokio::test]
async fn nobody_but_the_agents_own_node_speaks_for_it() {
    let world = World::start().await;
    let owner = world.workspace("acme").await;
    let (one, two) = (world.node(&owner, "jdoe", 1).await, world.node(&owner, "jdoe", 2).await);
    let alice = one.agent(&world, "alice").await;
    let as_alice = agent(alice.id);
    let as_alice = [(AS_HEADER, as_alice.as_str())];

    assert_eq!(reason(who(&world, &two.token, &as_alice).await), Reason::DelegationRefused);
    let person = world.token(&owner, &[v1::Scope::DirectoryRead]).await.token;
    assert_eq!(reason(who(&world, &person, &as_alice).await), Reason::DelegationRefused);
    let admin = std::fs::read_to_string(world.data("admin.token")).unwrap();
    for named in [as_alice, [(AS_HEADER, "user")]] {
        assert_eq!(reason(who(&world, admin.trim(), &named).await), Reason::DelegationRefused);
        assert_eq!(reason(who(&world, "", &named).await), Reason::TokenMissing);
    }

    let ended = v1::DeregisterAgentRequest { agent_id: alice.id.to_string() };
    one.client(&world).directory.deregister_agent(ended).await.unwrap();
    assert_eq!(reason(who(&world, &one.token, &as_alice).await), Reason::DelegationRefused);
}

#[tokio::test]
async fn the_header_names_one_caller_and_is_read_exactly() {
    let world = World::start().await;
    let owner = world.workspace("acme").await;
    let node = world.node(&owner, "jdoe", 1).await;
    let alice = agent(node.agent(&world, "alice").await.id);
    for text in ["", "admin", "node", "User", "agent:alice", "agent:", "user, user"] {
        assert_eq!(field(who(&world, &node.token, &[(AS_HEADER, text)]).await), AS_HEADER, "{text}");
    }
    let twice = [(AS_HEADER, "user"), (AS_HEADER, alice.as_str())];
    assert_eq!(field(who(&world, &node.token, &twice).await), AS_HEADER);
}

#[tokio::test]
async fn whoever_a_node_speaks_for_is_no_node() {
    let world = World::start().await;
    let owner = world.workspace("acme").await;
    let node = world.node(&owner, "jdoe", 1).await;
    let as_user = [(AS_HEADER, "user")];
    let wanted = v1::RegisterAgentRequest {
        path: "eve".into(),
        kind: v1::AgentKind::Interactive.into(),
        ..v1::RegisterAgentRequest::default()
    };
    let mut directory = DirectoryServiceClient::new(channel(&world));
    let registered = directory.register_agent(call(wanted, &node.token, &as_user)).await;
    assert_eq!(reason(registered), Reason::ScopeMissing);
    let mut auth = AuthServiceClient::new(channel(&world));
    let token = v1::IssueTokenRequest { kind: v1::TokenKind::User.into(), ..v1::IssueTokenRequest::default() };
    assert_eq!(reason(auth.issue_token(call(token, &node.token, &as_user)).await), Reason::ScopeMissing);
}

#[tokio::test]
async fn a_node_speaks_for_nobody_before_it_is_approved_and_after_it_is_fenced() {
    let world = World::start().await;
    let owner = world.workspace("acme").await;
    world.invite(&owner, "jdoe", [9; 32]).await.unwrap();
    let mut pending = NodeKit::new(9);
    pending.enroll(&world, [9; 32]).await.unwrap();
    assert_eq!(reason(who(&world, &pending.token, &[(AS_HEADER, "user")]).await), Reason::NodePending);

    let node = world.node(&owner, "jdoe", 1).await;
    let (older, newer) = (Incarnation::from_bytes([1; 16]).to_string(), Incarnation::from_bytes([2; 16]).to_string());
    let _session = Open::welcome(&world, &node, hello(2)).await;
    let as_older = [(AS_HEADER, "user"), (INCARNATION_HEADER, older.as_str())];
    assert_eq!(reason(who(&world, &node.token, &as_older).await), Reason::NodeFenced);
    who(&world, &node.token, &[(AS_HEADER, "user"), (INCARNATION_HEADER, newer.as_str())]).await.unwrap();
}
