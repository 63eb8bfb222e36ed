//! Node sessions: leases, fencing, presence.

use murmur_core::{id::Incarnation, reason::Reason};
use murmur_proto::v1::{
    self, open_session_request::Item as In, open_session_response::Item as Out, watch_directory_response::Item,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};

use crate::world::{AgentKit, NodeKit, Owner, World, field, next, reason};

/// An open session; dropping it breaks the stream.
pub(crate) struct Open {
    say: mpsc::Sender<v1::OpenSessionRequest>,
    answers: Streaming<v1::OpenSessionResponse>,
}

impl Open {
    pub(crate) async fn begin(world: &World, node: &NodeKit, first: In) -> Self {
        let (say, said) = mpsc::channel(8);
        say.send(v1::OpenSessionRequest { item: Some(first) }).await.unwrap();
        let answers = node.client(world).nodes.open_session(ReceiverStream::new(said)).await.unwrap().into_inner();
        Self { say, answers }
    }

    pub(crate) async fn welcome(world: &World, node: &NodeKit, hello: v1::Hello) -> Self {
        let mut open = Self::begin(world, node, In::Hello(hello)).await;
        assert!(matches!(open.next().await, Out::Welcome(_)));
        open
    }

    pub(crate) async fn say(&self, item: In) {
        self.say.send(v1::OpenSessionRequest { item: Some(item) }).await.unwrap();
    }

    pub(crate) async fn next(&mut self) -> Out {
        next(&mut self.answers).await.item.unwrap()
    }

    /// Why it ended.
    pub(crate) async fn ended(&mut self) -> tonic::Status {
        loop {
            match self.answers.message().await {
                Ok(answer) => assert!(answer.is_some(), "the session ended without a reason"),
                Err(status) => return status,
            }
        }
    }
}

pub(crate) fn hello(incarnation: u8) -> v1::Hello {
    let incarnation = Incarnation::from_bytes([incarnation; 16]).to_string();
    v1::Hello { incarnation, wire_version_min: 2, wire_version_max: 2, ..v1::Hello::default() }
}

fn taking_over(incarnation: u8) -> v1::Hello {
    v1::Hello { takeover: true, ..hello(incarnation) }
}

/// Reads a watch until the node has this presence.
async fn until_node(stream: &mut Streaming<v1::WatchDirectoryResponse>, wanted: v1::Presence) {
    loop {
        if let Some(Item::Node(node)) = next(stream).await.item
            && node.presence() == wanted
        {
            return;
        }
    }
}

async fn watch(world: &World, owner: &Owner) -> Streaming<v1::WatchDirectoryResponse> {
    let request = v1::WatchDirectoryRequest::default();
    world.reader(owner).await.directory.watch_directory(request).await.unwrap().into_inner()
}

async fn listed(world: &World, owner: &Owner, agent: &AgentKit) -> v1::Presence {
    let request = v1::ResolveAgentRequest { slug: agent.slug.clone() };
    let found = world.reader(owner).await.directory.resolve_agent(request).await.unwrap().into_inner();
    found.agent.unwrap().presence()
}

#[tokio::test]
async fn a_session_sets_presence_and_its_end_clears_it_at_once() {
    let world = World::start().await;
    let owner = world.workspace("acme").await;
    let node = world.node(&owner, "jdoe", 1).await;
    let alice = node.agent(&world, "alice").await;
    let mut changes = watch(&world, &owner).await;
    let attached = v1::Hello { attached_agent_ids: vec![alice.id.to_string()], ..hello(1) };
    let mut session = Open::welcome(&world, &node, attached).await;
    until_node(&mut changes, v1::Presence::Online).await;
    assert_eq!(listed(&world, &owner, &alice).await, v1::Presence::Online);

    session.say(In::Attachment(v1::AgentAttachment { agent_id: alice.id.to_string(), attached: false })).await;
    session.say(In::Heartbeat(v1::Heartbeat::default())).await;
    assert!(matches!(session.next().await, Out::HeartbeatAck(_)));
    assert_eq!(listed(&world, &owner, &alice).await, v1::Presence::Offline);

    // Far inside the lease of 45 s, which is why the watch can only be woken by the broken stream.
    drop(session);
    until_node(&mut changes, v1::Presence::Offline).await;
    Open::welcome(&world, &node, hello(2)).await;
}

#[tokio::test]
async fn a_second_incarnation_is_fenced_until_it_takes_over() {
    let world = World::start().await;
    let owner = world.workspace("acme").await;
    let node = world.node(&owner, "jdoe", 1).await;
    let mut first = Open::welcome(&world, &node, hello(1)).await;
    let mut second = Open::begin(&world, &node, In::Hello(hello(2))).await;
    assert_eq!(reason(second.answers.message().await), Reason::NodeFenced);

    let third = Open::welcome(&world, &node, taking_over(3)).await;
    let Out::Fenced(fenced) = first.next().await else { panic!("the first session was not told") };
    assert_eq!(fenced.by_incarnation, Incarnation::from_bytes([3; 16]).to_string());
    assert!(first.answers.message().await.unwrap().is_none());

    // The loser's end must not clear the winner's presence.
    let nodes = node.client(&world).nodes.list_nodes(v1::ListNodesRequest::default()).await.unwrap().into_inner();
    assert_eq!(nodes.nodes[0].presence(), v1::Presence::Online);
    drop(third);
}

#[tokio::test]
async fn the_same_incarnation_may_come_back_before_its_old_stream_is_gone() {
    let world = World::start().await;
    let owner = world.workspace("acme").await;
    let node = world.node(&owner, "jdoe", 1).await;
    let _half_open = Open::welcome(&world, &node, hello(1)).await;
    Open::welcome(&world, &node, hello(1)).await;
}

#[tokio::test]
async fn a_silent_node_loses_its_lease() {
    let world = World::with(|config| (config.heartbeat_ms, config.lease_ms) = (10, 20)).await;
    let owner = world.workspace("acme").await;
    let node = world.node(&owner, "jdoe", 1).await;
    let mut silent = Open::welcome(&world, &node, hello(1)).await;
    assert_eq!(silent.answers.message().await.unwrap_err().code(), Code::DeadlineExceeded);
    let nodes = node.client(&world).nodes.list_nodes(v1::ListNodesRequest::default()).await.unwrap().into_inner();
    assert_eq!(nodes.nodes[0].presence(), v1::Presence::Offline);
    Open::welcome(&world, &node, hello(2)).await;
}

#[tokio::test]
async fn a_revoked_node_is_told_at_its_next_word() {
    let world = World::start().await;
    let owner = world.workspace("acme").await;
    let node = world.node(&owner, "jdoe", 1).await;
    let mut session = Open::welcome(&world, &node, hello(1)).await;
    let token_id = node.client(&world).auth.who_am_i(v1::WhoAmIRequest {}).await.unwrap().into_inner().token_id;
    world.admin().auth.revoke_token(v1::RevokeTokenRequest { token_id }).await.unwrap();
    session.say(In::Heartbeat(v1::Heartbeat::default())).await;
    assert_eq!(reason(session.answers.message().await), Reason::TokenRevoked);
}

#[tokio::test]
async fn a_session_begins_with_a_hello_that_fits() {
    let world = World::start().await;
    let owner = world.workspace("acme").await;
    let node = world.node(&owner, "jdoe", 1).await;
    let mut mute = Open::begin(&world, &node, In::Heartbeat(v1::Heartbeat::default())).await;
    assert_eq!(field(mute.answers.message().await), "hello");
    let nameless = v1::Hello { incarnation: "x".into(), ..hello(1) };
    let mut nameless = Open::begin(&world, &node, In::Hello(nameless)).await;
    assert_eq!(field(nameless.answers.message().await), "incarnation");
    let newer = v1::Hello { wire_version_min: 3, wire_version_max: 4, ..hello(1) };
    let mut newer = Open::begin(&world, &node, In::Hello(newer)).await;
    assert_eq!(reason(newer.answers.message().await), Reason::VersionSkew);
}

#[tokio::test]
async fn a_restart_leaves_nobody_online() {
    let world = World::start().await;
    let owner = world.workspace("acme").await;
    let node = world.node(&owner, "jdoe", 1).await;
    let mut session = Open::welcome(&world, &node, hello(1)).await;
    world.lifecycle.drain();
    assert!(matches!(session.next().await, Out::Draining(_)));
    // The node keeps its half of the stream open, which must not hold up the end.
    let world = world.restart().await;
    drop(session);
    let nodes = node.client(&world).nodes.list_nodes(v1::ListNodesRequest::default()).await.unwrap().into_inner();
    assert_eq!(nodes.nodes[0].presence(), v1::Presence::Offline);
    Open::welcome(&world, &node, hello(2)).await;
}
