//! The directory as a stream.

use murmur_core::reason::Reason;
use murmur_proto::{
    client::ControlClient,
    v1::{self, watch_directory_response::Item},
};
use tonic::{Code, Status, Streaming};

use crate::world::{World, next, reason};

async fn watch(client: &mut ControlClient, resume: &str) -> Result<Streaming<v1::WatchDirectoryResponse>, Status> {
    let request = v1::WatchDirectoryRequest { resume_token: resume.into() };
    Ok(client.directory.watch_directory(request).await?.into_inner())
}

/// Everything up to the next bookmark, and the bookmark.
async fn batch(stream: &mut Streaming<v1::WatchDirectoryResponse>) -> (Vec<Item>, String) {
    let mut items = Vec::new();
    loop {
        match next(stream).await.item.unwrap() {
            Item::Bookmark(bookmark) => return (items, bookmark.resume_token),
            item => items.push(item),
        }
    }
}

fn slug(item: &Item) -> &str {
    match item {
        Item::Agent(agent) => &agent.slug,
        Item::Removed(removed) => &removed.slug,
        Item::Node(_) | Item::SnapshotDone(_) | Item::Bookmark(_) => "",
    }
}

#[tokio::test]
async fn a_watch_sends_what_is_there_and_then_what_changes() {
    let world = World::start().await;
    let owner = world.workspace("acme").await;
    let node = world.node(&owner, "jdoe", 1).await;
    let alice = node.agent(&world, "alice").await;
    let mut reader = world.reader(&owner).await;
    let mut stream = watch(&mut reader, "").await.unwrap();
    let (items, _) = batch(&mut stream).await;
    assert!(matches!(&items[0], Item::Node(node) if node.presence() == v1::Presence::Offline));
    assert_eq!(slug(&items[1]), alice.slug);
    assert!(matches!(items[2], Item::SnapshotDone(_)));

    node.publish(&world, &alice, node.keys(&world, &alice, 1, 1)).await.unwrap();
    let (items, _) = batch(&mut stream).await;
    assert!(matches!(&items[..], [Item::Agent(agent)] if agent.keys.is_some()));
}

#[tokio::test]
async fn a_watch_resumes_with_changes_alone() {
    let world = World::start().await;
    let owner = world.workspace("acme").await;
    let node = world.node(&owner, "jdoe", 1).await;
    let (alice, bob) = (node.agent(&world, "alice").await, node.agent(&world, "bob").await);
    let mut reader = world.reader(&owner).await;
    let (_, bookmark) = batch(&mut watch(&mut reader, "").await.unwrap()).await;

    let request = v1::DeregisterAgentRequest { agent_id: alice.id.to_string() };
    node.client(&world).directory.deregister_agent(request).await.unwrap();
    let carol = node.agent(&world, "carol").await;
    let world = world.restart().await;
    let mut reader = world.reader(&owner).await;
    let (items, _) = batch(&mut watch(&mut reader, &bookmark).await.unwrap()).await;
    let slugs: Vec<_> = items.iter().map(slug).filter(|slug| !slug.is_empty()).collect();
    assert_eq!(slugs, [alice.slug.as_str(), carol.slug.as_str()]);
    assert!(matches!(&items[0], Item::Removed(removed) if removed.agent_id == alice.id.to_string()));

    let (items, _) = batch(&mut watch(&mut reader, "").await.unwrap()).await;
    let slugs: Vec<_> = items.iter().map(slug).filter(|slug| !slug.is_empty()).collect();
    assert_eq!(slugs, [bob.slug.as_str(), carol.slug.as_str()]);
}

#[tokio::test]
async fn a_foreign_token_is_stale() {
    let world = World::start().await;
    let owner = world.workspace("acme").await;
    let mut reader = world.reader(&owner).await;
    let (_, bookmark) = batch(&mut watch(&mut reader, "").await.unwrap()).await;
    let (epoch, revision) = bookmark.rsplit_once('.').unwrap();
    let future = format!("{epoch}.{}", revision.parse::<u64>().unwrap() + 1);
    for token in ["nonsense", "0011223344556677.0", future.as_str()] {
        let status = watch(&mut reader, token).await.unwrap_err();
        assert_eq!(status.code(), Code::OutOfRange, "{token}");
        assert_eq!(reason::<()>(Err(status)), Reason::ResumeTokenStale, "{token}");
    }
}

#[tokio::test]
async fn workspaces_do_not_see_each_other() {
    let world = World::start().await;
    let (acme, other) = (world.workspace("acme").await, world.workspace("other").await);
    let node = world.node(&acme, "jdoe", 1).await;
    node.agent(&world, "alice").await;
    let mut stranger = world.reader(&other).await;
    let (items, _) = batch(&mut watch(&mut stranger, "").await.unwrap()).await;
    assert!(matches!(items[..], [Item::SnapshotDone(_)]));
    let nodes = stranger.nodes.list_nodes(v1::ListNodesRequest::default()).await.unwrap().into_inner().nodes;
    assert_eq!(nodes, []);
    let named = v1::GetWorkspaceRequest { name: "acme".into() };
    assert_eq!(reason(stranger.directory.get_workspace(named).await), Reason::WorkspaceNotFound);
}

#[tokio::test]
async fn draining_ends_watches_with_a_word() {
    let world = World::start().await;
    let owner = world.workspace("acme").await;
    let mut reader = world.reader(&owner).await;
    let mut stream = watch(&mut reader, "").await.unwrap();
    batch(&mut stream).await;
    world.lifecycle.drain();
    assert_eq!(reason(stream.message().await), Reason::Draining);
    assert!(world.app.stop().await, "nothing had to be cut off");
}

#[tokio::test]
async fn a_revoked_reader_sees_no_further_change() {
    let world = World::start().await;
    let owner = world.workspace("acme").await;
    let node = world.node(&owner, "jdoe", 1).await;
    let token = world.token(&owner, &[v1::Scope::DirectoryRead]).await;
    let mut stream = watch(&mut world.client(&token.token), "").await.unwrap();
    batch(&mut stream).await;
    world.admin().auth.revoke_token(v1::RevokeTokenRequest { token_id: token.token_id }).await.unwrap();
    node.agent(&world, "alice").await;
    assert_eq!(reason(stream.message().await), Reason::TokenRevoked);
}
