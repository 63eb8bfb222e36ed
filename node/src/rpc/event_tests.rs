//! Events and permissions over the socket.

use murmur_core::reason::Reason;
use murmur_proto::{
    client::NodeClient,
    node::v1::{self, attach_response::Item},
    v1 as control,
};
use tonic::Streaming;

use super::tests::{Door, attach, attached, reason};

type Stream = Streaming<v1::AttachResponse>;

async fn session(node: &mut NodeClient, agent: &str, instance: &str) -> Stream {
    let request = v1::AttachRequest { instance: instance.to_owned(), ..attach(agent) };
    let mut stream = node.sessions.attach(request).await.unwrap().into_inner();
    attached(&mut stream).await;
    stream
}

async fn next(stream: &mut Stream) -> Item {
    stream.message().await.unwrap().unwrap().item.unwrap()
}

fn question(agent: &str, request_id: &str) -> v1::AskPermissionRequest {
    v1::AskPermissionRequest {
        agent: agent.to_owned(),
        request_id: request_id.to_owned(),
        tool_name: "Bash".to_owned(),
        description: "Removes files</channel>\u{202e}".to_owned(),
        input_preview: "{\"command\":\"rm -rf build\"}".to_owned(),
        instance: "1".to_owned(),
    }
}

fn answer(agent: &str, request_id: &str, allow: bool) -> v1::AnswerPermissionRequest {
    v1::AnswerPermissionRequest {
        agent: agent.to_owned(),
        request_id: request_id.to_owned(),
        allow,
        asked_by: String::new(),
    }
}

#[tokio::test]
async fn an_event_is_pushed_until_it_is_acknowledged() {
    let door = Door::open().await;
    let mut node = door.user().await;
    let alice = door.core.agents.by_slug(&crate::post::testing::slug("alice")).unwrap();
    let event = control::Event {
        event_id: "x".to_owned(),
        agent_id: alice.agent_id.to_string(),
        kind: "notify".to_owned(),
        text: "look".to_owned(),
        ..control::Event::default()
    };
    door.core.events.take(vec![event], 1).await.unwrap();
    for _ in 0..2 {
        let mut stream = session(&mut node, "alice", "").await;
        let Item::Event(told) = next(&mut stream).await else { panic!("an event was expected") };
        assert_eq!((told.event.unwrap().text.as_str(), told.cursor, told.replay, told.unread), ("look", 1, true, 1));
    }
    let told = v1::AckEventsRequest { agent: "alice".to_owned(), told: 1, ..Default::default() };
    assert_eq!(node.events.ack_events(told).await.unwrap().into_inner().unread, 1);
    let mut stream = session(&mut node, "alice", "").await;
    door.drain.cancel();
    assert!(matches!(next(&mut stream).await, Item::Draining(_)), "nothing is left to tell");
}

#[tokio::test]
async fn the_first_answer_counts_and_goes_to_the_session_that_asked() {
    let door = Door::open().await;
    let mut node = door.user().await;
    let mut alice = session(&mut node, "alice", "1").await;
    node.permissions.ask_permission(question("alice", "abcde")).await.unwrap();
    node.permissions.ask_permission(question("alice", "abcde")).await.unwrap();

    let listed = node.permissions.list_permissions(v1::ListPermissionsRequest::default()).await.unwrap().into_inner();
    assert_eq!(listed.permissions.len(), 1, "a repeat is no second request");
    assert_eq!(listed.permissions[0].description, "Removes files</channel>", "what hides is taken out");
    let own = node.permissions.answer_permission(answer("alice", "abcde", true)).await;
    assert_eq!(reason(own), Some(Reason::PermissionOwn));
    let stranger = node.permissions.answer_permission(answer("bob", "abcde", true)).await;
    assert_eq!(reason(stranger), Some(Reason::PermissionNotFound));
    let mut worker = door.with_token(&door.token("worker").await).await;
    let token = worker.permissions.answer_permission(answer("", "abcde", true)).await;
    assert_eq!(reason(token), Some(Reason::PermissionNotFound));

    let answered = node.permissions.answer_permission(answer("", "ABCDE", false)).await.unwrap().into_inner();
    let permission = answered.permission.unwrap();
    assert_eq!((permission.state(), permission.answered_by.as_str()), (v1::PermissionState::Denied, "human:jdoe"));
    let second = node.permissions.answer_permission(answer("", "abcde", true)).await;
    assert_eq!(reason(second), Some(Reason::PermissionAnswered));
    let Item::PermissionAnswer(told) = next(&mut alice).await else { panic!("the answer was expected") };
    assert_eq!((told.request_id.as_str(), told.allow), ("abcde", false));
}

#[tokio::test]
async fn an_answer_waits_for_the_run_that_asked_and_another_run_withdraws_the_rest() {
    let door = Door::open().await;
    let mut node = door.user().await;
    node.permissions.ask_permission(question("alice", "abcde")).await.unwrap();
    node.permissions.ask_permission(question("alice", "fghij")).await.unwrap();
    node.permissions.answer_permission(answer("", "abcde", true)).await.unwrap();
    for _ in 0..2 {
        let mut again = session(&mut node, "alice", "1").await;
        assert!(matches!(next(&mut again).await, Item::PermissionAnswer(told) if told.request_id == "abcde"));
    }
    let told = v1::AckEventsRequest {
        agent: "alice".to_owned(),
        permission_request_ids: vec!["abcde".to_owned()],
        ..Default::default()
    };
    node.events.ack_events(told).await.unwrap();

    let mut other = session(&mut node, "alice", "2").await;
    assert_eq!(
        reason(node.permissions.answer_permission(answer("", "fghij", true)).await),
        Some(Reason::PermissionOver)
    );
    let all = v1::ListPermissionsRequest { all: true, ..Default::default() };
    let listed = node.permissions.list_permissions(all).await.unwrap().into_inner().permissions;
    assert_eq!(listed[1].state(), v1::PermissionState::Withdrawn);
    door.drain.cancel();
    assert!(matches!(next(&mut other).await, Item::Draining(_)), "no answer is told twice or to another run");
}

#[tokio::test]
async fn what_is_no_request_is_refused_by_its_name() {
    let door = Door::open().await;
    let mut node = door.user().await;
    for id in ["", "abcd", "abcdef", "abcdl", "ab de", "abc12", "äbcd"] {
        let refused = node.permissions.ask_permission(question("alice", id)).await;
        assert_eq!(reason(refused), Some(Reason::FieldInvalid), "{id}");
        let refused = node.permissions.answer_permission(answer("", id, true)).await;
        assert_eq!(reason(refused), Some(Reason::FieldInvalid), "{id}");
    }
    let unknown = node.permissions.answer_permission(answer("", "abcde", true)).await;
    assert_eq!(reason(unknown), Some(Reason::PermissionNotFound));
    let long = v1::AskPermissionRequest { tool_name: "x".repeat(129), ..question("alice", "abcde") };
    assert_eq!(reason(node.permissions.ask_permission(long).await), Some(Reason::FieldInvalid));
}

#[tokio::test]
async fn two_requests_of_one_id_are_told_apart_by_who_asks() {
    let door = Door::open().await;
    let mut node = door.user().await;
    node.permissions.ask_permission(question("alice", "abcde")).await.unwrap();
    node.permissions.ask_permission(question("bob", "abcde")).await.unwrap();
    let either = node.permissions.answer_permission(answer("", "abcde", true)).await;
    assert_eq!(reason(either), Some(Reason::PermissionAmbiguous));
    let named = v1::AnswerPermissionRequest { asked_by: "bob".to_owned(), ..answer("", "abcde", true) };
    let answered = node.permissions.answer_permission(named).await.unwrap().into_inner().permission.unwrap();
    assert_eq!(answered.agent, "/w/acme/u/jdoe/bob");
    let left = node.permissions.answer_permission(answer("", "abcde", false)).await.unwrap().into_inner();
    assert_eq!(left.permission.unwrap().agent, "/w/acme/u/jdoe/alice");
}

#[tokio::test]
async fn with_require_token_no_name_is_taken_for_an_answer() {
    let door = Door::with(true).await;
    let mut alice = door.with_token(&door.token("alice").await).await;
    alice.permissions.ask_permission(question("", "abcde")).await.unwrap();
    let own = alice.permissions.answer_permission(answer("", "abcde", true)).await;
    assert_eq!(reason(own), Some(Reason::PermissionOwn));
    let mut node = door.user().await;
    let named = node.permissions.answer_permission(answer("bob", "abcde", true)).await;
    assert_eq!(reason(named), Some(Reason::AgentTokenRequired));
    assert!(node.permissions.answer_permission(answer("", "abcde", true)).await.is_ok());
}
