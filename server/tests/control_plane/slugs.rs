//! Names: claiming, resolving, listing, giving up.

use murmur_core::reason::Reason;
use murmur_proto::{status::RpcError, v1};

use crate::world::{World, field, reason};

#[tokio::test]
async fn a_slug_has_one_node() {
    let world = World::start().await;
    let owner = world.workspace("acme").await;
    let (one, two) = (world.node(&owner, "jdoe", 1).await, world.node(&owner, "jdoe", 2).await);
    let first = one.register(&world, "alice").await.unwrap();
    let again = one.register(&world, "alice").await.unwrap();
    assert!(first.created && !again.created);
    assert_eq!(first.agent.unwrap().agent_id, again.agent.unwrap().agent_id);

    assert_eq!(reason(two.register(&world, "alice").await), Reason::SlugTaken);
    let other = two.register_as(&world, "alice", true).await.unwrap();
    assert_eq!(other.agent.unwrap().slug, "/w/acme/u/jdoe/alice-2");
    assert!(!two.register_as(&world, "alice", true).await.unwrap().created);
}

#[tokio::test]
async fn a_path_follows_the_grammar() {
    let world = World::start().await;
    let owner = world.workspace("acme").await;
    let node = world.node(&owner, "jdoe", 1).await;
    for path in ["", "Alice", "self", "a//b", "/w/acme/u/jdoe/a", "../a"] {
        assert_eq!(field(node.register(&world, path).await), "path", "{path}");
    }
}

#[tokio::test]
async fn a_slug_used_again_is_another_agent() {
    let world = World::start().await;
    let owner = world.workspace("acme").await;
    let (one, two) = (world.node(&owner, "jdoe", 1).await, world.node(&owner, "jdoe", 2).await);
    let old = one.agent(&world, "alice").await;
    let request = v1::DeregisterAgentRequest { agent_id: old.id.to_string() };
    // To another node it is not there, so there is nothing to end.
    let foreign = two.client(&world).directory.deregister_agent(request.clone()).await.unwrap().into_inner();
    assert!(!foreign.deregistered);
    for expected in [true, false] {
        let done = one.client(&world).directory.deregister_agent(request.clone()).await.unwrap().into_inner();
        assert_eq!(done.deregistered, expected);
    }
    let new = two.agent(&world, "alice").await;
    assert_ne!(new.id, old.id);
    assert_eq!(reason(one.publish(&world, &old, one.keys(&world, &old, 1, 1)).await), Reason::AgentNotFound);
}

#[tokio::test]
async fn slugs_resolve_as_typed_and_only_inside_the_workspace() {
    let world = World::start().await;
    let (acme, other) = (world.workspace("acme").await, world.workspace("other").await);
    let node = world.node(&acme, "jdoe", 1).await;
    let alice = node.agent(&world, "alice").await;
    let mut reader = world.reader(&acme).await.directory;
    let mut resolve = async |slug: &str| {
        let answer = reader.resolve_agent(v1::ResolveAgentRequest { slug: slug.into() }).await;
        answer.map(|answer| answer.into_inner().agent.unwrap().agent_id)
    };
    for text in ["alice", "./alice", "/u/jdoe/alice", "/w/acme/u/jdoe/alice"] {
        assert_eq!(resolve(text).await.unwrap(), alice.id.to_string(), "{text}");
    }
    assert_eq!(reason(resolve("bob").await), Reason::AgentNotFound);
    assert_eq!(reason(resolve("self").await), Reason::NoAgentIdentity);
    assert_eq!(field(resolve("A B").await), "slug");

    let mut stranger = world.reader(&other).await.directory;
    let hidden = stranger.resolve_agent(v1::ResolveAgentRequest { slug: alice.slug }).await;
    assert_eq!(reason(hidden), Reason::AgentNotFound);
}

#[tokio::test]
async fn an_agents_own_token_resolves_around_it() {
    let world = World::start().await;
    let owner = world.workspace("acme").await;
    let node = world.node(&owner, "jdoe", 1).await;
    let team = node.agent(&world, "team").await;
    node.agent(&world, "team/helper").await;
    node.agent(&world, "helper").await;
    let request = v1::IssueTokenRequest {
        kind: v1::TokenKind::Agent.into(),
        scopes: vec![v1::Scope::DirectoryRead.into()],
        workspace: "acme".into(),
        agent_id: team.id.to_string(),
        ..v1::IssueTokenRequest::default()
    };
    let token = world.admin().auth.issue_token(request).await.unwrap().into_inner().token;
    let mut directory = world.client(&token).directory;
    let status = directory.resolve_agent(v1::ResolveAgentRequest { slug: "helper".into() }).await.unwrap_err();
    let error = RpcError::from(&status);
    assert_eq!(error.reason, Some(Reason::AmbiguousSlug));
    assert_eq!(error.metadata[0].1, "/w/acme/u/jdoe/team/helper");
    assert_eq!(error.metadata[1].1, "/w/acme/u/jdoe/helper");
    let own = directory.resolve_agent(v1::ResolveAgentRequest { slug: "self".into() }).await.unwrap();
    assert_eq!(own.into_inner().agent.unwrap().agent_id, team.id.to_string());
}

#[tokio::test]
async fn a_listing_comes_in_pages() {
    let world = World::start().await;
    let owner = world.workspace("acme").await;
    let node = world.node(&owner, "jdoe", 1).await;
    for path in ["c", "a", "b"] {
        node.register(&world, path).await.unwrap();
    }
    let mut reader = world.reader(&owner).await.directory;
    let (mut slugs, mut page_token) = (Vec::new(), String::new());
    loop {
        let page = reader.list_agents(v1::ListAgentsRequest { page_size: 2, page_token }).await.unwrap().into_inner();
        slugs.extend(page.agents.into_iter().map(|agent| agent.slug));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(slugs, ["a", "b", "c"].map(|name| format!("/w/acme/u/jdoe/{name}")));
    let huge = v1::ListAgentsRequest { page_size: 1001, page_token: String::new() };
    assert_eq!(field(reader.list_agents(huge).await), "page_size");
}

#[tokio::test]
async fn what_an_agent_says_of_itself_stays_on_one_line() {
    let world = World::start().await;
    let owner = world.workspace("acme").await;
    let node = world.node(&owner, "jdoe", 1).await;
    let base = v1::RegisterAgentRequest {
        path: "alice".into(),
        kind: v1::AgentKind::Interactive.into(),
        ..Default::default()
    };
    let described = v1::RegisterAgentRequest { description: "\u{1b}]0;x\u{7}".into(), ..base.clone() };
    assert_eq!(field(node.client(&world).directory.register_agent(described).await), "description");
    let grouped = v1::RegisterAgentRequest { group: "a\nb".into(), ..base };
    assert_eq!(field(node.client(&world).directory.register_agent(grouped).await), "group");
}

#[tokio::test]
async fn an_agent_that_its_node_started_is_not_claimed_as_a_persons() {
    let world = World::start().await;
    let owner = world.workspace("acme").await;
    let node = world.node(&owner, "jdoe", 1).await;
    let request =
        v1::RegisterAgentRequest { path: "worker".into(), kind: v1::AgentKind::Spawned.into(), ..Default::default() };
    let spawned = node.client(&world).directory.register_agent(request).await.unwrap().into_inner().agent.unwrap();
    assert_eq!(reason(node.register(&world, "worker").await), Reason::SlugTaken);
    let beside = node.register_as(&world, "worker", true).await.unwrap().agent.unwrap();
    assert_eq!((spawned.slug.as_str(), beside.slug.as_str()), ("/w/acme/u/jdoe/worker", "/w/acme/u/jdoe/worker-2"));
}
