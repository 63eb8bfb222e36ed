//! Sends of one stream: answered and delivered in order, whatever is refused, cut or killed.

use murmur_core::reason::Reason;
use murmur_proto::{
    client::{Headers, NodeClient, connect_socket},
    node::v1::{
        DeregisterRequest, IssueAgentTokenRequest, RevokeAgentTokenRequest, SendManyRequest, SendManyResponse,
        SendRequest, SendResponse, send_many_response::Outcome,
    },
    status::RpcError,
};
use murmur_tests::{
    network::{Network, Node},
    store,
    talk::{register, send},
    wait,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming, transport::Endpoint};

use crate::pair::{Accepted, Pair, RATE, draft};

/// What a node takes of a stream before an answer is read.
const UNREAD_MAX: usize = 256;

/// A stream to a node.
struct Stream {
    requests: mpsc::Sender<SendManyRequest>,
    answers: Streaming<SendManyResponse>,
}

impl Stream {
    async fn open(client: &mut NodeClient) -> Self {
        let (requests, sent) = mpsc::channel(2_000);
        let answers = client.messages.send_many(ReceiverStream::new(sent)).await.unwrap().into_inner();
        Self { requests, answers }
    }

    async fn send(&self, message: SendRequest) {
        self.requests.send(SendManyRequest { send: Some(message) }).await.unwrap();
    }

    /// The next answer.
    async fn answer(&mut self) -> Result<Result<SendResponse, Status>, Status> {
        let answer = tokio::time::timeout(wait::PATIENCE, self.answers.message()).await.expect("an answer comes")?;
        Ok(match answer.expect("the stream goes on").outcome.unwrap() {
            Outcome::Accepted(accepted) => Ok(accepted),
            Outcome::Refused(refused) => Err(refused.into()),
        })
    }

    /// The next answer, which accepts a message with this text.
    async fn accepted(&mut self, text: String) -> Accepted {
        Accepted { msg_id: self.answer().await.unwrap().unwrap().msg_id, text }
    }

    /// Ends our side, and expects that nothing comes any more.
    async fn end(self) {
        let Self { requests, mut answers } = self;
        drop(requests);
        assert!(answers.message().await.unwrap().is_none());
    }

    /// What ends the stream.
    async fn ended(&mut self) -> RpcError {
        loop {
            if let Err(status) = self.answer().await {
                return status.into();
            }
        }
    }
}

async fn stream(node: &Node) -> Stream {
    Stream::open(&mut node.client().await).await
}

fn text(number: usize) -> String {
    format!("message {number}")
}

#[tokio::test]
async fn sends_of_a_stream_arrive_in_order_and_a_refused_one_is_told_as_a_call_would() {
    let pair = Pair::start(&RATE).await;
    let mut stream = stream(&pair.here).await;
    let refused = [
        SendRequest { to: "nobody".into(), ..draft("x") },
        SendRequest { body: vec![b'x'; 200_000].into(), ..draft("") },
        SendRequest { to: "alice".into(), ..draft("x") },
        SendRequest { in_reply_to: "7".into(), ..draft("x") },
        SendRequest { agent: "/w/acme/u/other/x".into(), ..draft("x") },
    ];
    let mut accepted = Vec::new();
    for (round, wrong) in refused.iter().enumerate() {
        for number in 0..100 {
            stream.send(draft(&text(100 * round + number))).await;
        }
        stream.send(wrong.clone()).await;
    }
    stream.requests.send(SendManyRequest { send: None }).await.unwrap();
    for (round, wrong) in refused.into_iter().enumerate() {
        for number in 0..100 {
            accepted.push(stream.accepted(text(100 * round + number)).await);
        }
        let told = RpcError::from(stream.answer().await.unwrap().unwrap_err());
        let called = pair.here.client().await.messages.send(wrong).await.unwrap_err();
        assert_eq!(told, RpcError::from(called));
        assert!(told.reason.is_some(), "{told:?}");
    }
    let empty = RpcError::from(stream.answer().await.unwrap().unwrap_err());
    assert_eq!(empty.fields, [("send".to_owned(), "must be set".to_owned())]);
    stream.end().await;
    pair.settled(&accepted).await;
}

#[tokio::test]
async fn who_reads_no_answers_keeps_nobody_waiting_and_loses_none() {
    const COUNT: usize = 2 * UNREAD_MAX;
    let pair = Pair::start(&RATE).await;
    let mut streams = Vec::new();
    for _ in 0..3 {
        // A transport that holds a few answers alone.
        let endpoint = Endpoint::from_shared(format!("unix:{}", pair.here.socket.display())).unwrap();
        let channel = endpoint.initial_stream_window_size(1024).connect().await.unwrap();
        let stream = Stream::open(&mut NodeClient::new(channel, Headers::new())).await;
        for number in 0..COUNT {
            stream.send(draft(&text(number))).await;
        }
        streams.push(stream);
    }
    // More than all sends of a node have places for are taken, and none of their answers is read.
    wait::until("the node reads no further", || async {
        (store::rows(&pair.here, "outbox") >= 3 * UNREAD_MAX as u64).then_some(())
    })
    .await;
    for number in 0..10 {
        send(&pair.here, "alice", "bob", &text(number)).await;
    }
    assert!(store::rows(&pair.here, "outbox") < 3 * COUNT as u64, "it reads no further than it is to");
    for mut stream in streams {
        for _ in 0..COUNT {
            stream.answer().await.unwrap().unwrap();
        }
        stream.end().await;
    }
}

#[tokio::test]
async fn a_node_that_goes_down_answers_what_it_took_and_ends_the_stream() {
    const COUNT: usize = 200;
    let mut pair = Pair::start(&RATE).await;
    let mut stream = stream(&pair.here).await;
    for number in 0..COUNT {
        stream.send(draft(&text(number))).await;
    }
    let mut accepted = vec![stream.accepted(text(0)).await];
    let rest = async {
        loop {
            match stream.answer().await {
                Ok(answer) => accepted.push(Accepted { msg_id: answer.unwrap().msg_id, text: text(accepted.len()) }),
                Err(status) => return RpcError::from(status),
            }
        }
    };
    let (ended, stopped) = tokio::join!(rest, pair.here.process.terminate());
    assert!(stopped.success());
    assert_eq!(ended.reason, Some(Reason::Draining), "{ended:?}");
    pair.here.process.start();
    pair.here.ready().await;
    // Nothing has arrived that was not answered.
    pair.settled(&accepted).await;
}

#[tokio::test]
async fn what_a_killed_node_did_not_answer_is_sent_again_under_its_key_and_arrives_once() {
    const COUNT: usize = 600;
    // Receipts that it had pulled come again after this time.
    let ack_wait = ("MURMUR_SERVER_STREAM_ACK_WAIT_MS", "2000");
    let mut pair = Pair::start(&[&RATE[..], &[ack_wait]].concat()).await;
    let keyed = |number: usize| SendRequest { idempotency_key: text(number), ..draft(&text(number)) };
    let mut first = stream(&pair.here).await;
    for number in 0..COUNT {
        first.send(keyed(number)).await;
    }
    let mut accepted = Vec::new();
    for number in 0..100 {
        accepted.push(first.accepted(text(number)).await);
    }
    pair.here.process.kill_9();
    while let Ok(answer) = first.answer().await {
        accepted.push(Accepted { msg_id: answer.unwrap().msg_id, text: text(accepted.len()) });
    }
    pair.here.process.start();
    pair.here.ready().await;
    let mut second = stream(&pair.here).await;
    let answered = accepted.len();
    for number in answered..COUNT {
        second.send(keyed(number)).await;
    }
    for number in answered..COUNT {
        accepted.push(second.accepted(text(number)).await);
    }
    second.end().await;
    pair.settled(&accepted).await;
}

#[tokio::test]
async fn a_stream_ends_with_the_token_that_it_was_opened_with() {
    let pair = Pair::start(&RATE).await;
    let mut owner = pair.here.client().await;
    let issued = owner.sessions.issue_agent_token(IssueAgentTokenRequest { agent: "alice".into() }).await.unwrap();
    let issued = issued.into_inner();
    let channel = connect_socket(&pair.here.socket).await.unwrap();
    let headers = Headers::new().with_token(&issued.token).unwrap();
    let mut stream = Stream::open(&mut NodeClient::new(channel, headers)).await;
    stream.send(SendRequest { agent: String::new(), ..draft("before") }).await;
    let before = stream.accepted("before".to_owned()).await;
    owner.sessions.revoke_agent_token(RevokeAgentTokenRequest { token_id: issued.token_id }).await.unwrap();
    let ended = stream.ended().await;
    assert_eq!(ended.reason, Some(Reason::TokenRevoked), "{ended:?}");
    // Nobody listens any more.
    let _ = stream.requests.send(SendManyRequest { send: Some(draft("after")) }).await;
    let last = pair.send("last").await;
    pair.settled(&[before, last]).await;
}

#[tokio::test]
async fn a_stream_ends_with_its_agent() {
    let network = Network::start().await;
    let node = network.node("here", "jdoe").await;
    for agent in ["alice", "bob"] {
        register(&node, agent).await;
    }
    let mut owner = node.client().await;
    let issued = owner.sessions.issue_agent_token(IssueAgentTokenRequest { agent: "alice".into() }).await.unwrap();
    let channel = connect_socket(&node.socket).await.unwrap();
    let headers = Headers::new().with_token(&issued.into_inner().token).unwrap();
    let mut stream = Stream::open(&mut NodeClient::new(channel, headers)).await;
    stream.send(draft("before")).await;
    stream.accepted("before".to_owned()).await;
    owner.sessions.deregister(DeregisterRequest { agent: "alice".into() }).await.unwrap();
    let ended = stream.ended().await;
    assert_eq!(ended.reason, Some(Reason::TokenRevoked), "{ended:?}");
}
