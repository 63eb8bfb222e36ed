//! A hosted agent behind a URL: its turns are calls, their answers its answers.

use std::{
    convert::Infallible,
    fs,
    sync::atomic::{AtomicU32, Ordering},
};

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    HeaderMap, Request, Response,
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use murmur_proto::v1::{self, Phase};
use murmur_tests::{
    network::{Network, Node},
    wait,
};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};

/// Calls of the prompt `busy`: the first two are turned away.
static BUSY: AtomicU32 = AtomicU32::new(0);

/// What a hosted agent was sent.
struct Asked {
    line: String,
    headers: HeaderMap,
    body: Value,
}

impl Asked {
    fn metadata(&self, name: &str) -> &Value {
        &self.body["task"]["metadata"][name]
    }
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A service with an agent, which answers by the first word of the prompt.
struct Service {
    port: u16,
    asked: UnboundedReceiver<Asked>,
    /// Gets a word for each call that was hung up on.
    left: UnboundedReceiver<()>,
}

impl Service {
    async fn start() -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    fn on(listener: TcpListener) -> Self {
        let port = listener.local_addr().unwrap().port();
        let ((ask, asked), (leave, left)) = (unbounded_channel(), unbounded_channel());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (ask, leave) = (ask.clone(), leave.clone());
                tokio::spawn(async move {
                    let service = service_fn(move |request| answer(request, ask.clone(), leave.clone()));
                    let _ =
                        auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { port, asked, left }
    }
}

/// Tells when it is dropped before it was answered.
struct Held(UnboundedSender<()>);

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

async fn answer(
    request: Request<Incoming>,
    ask: UnboundedSender<Asked>,
    leave: UnboundedSender<()>,
) -> Result<Response<Body>, Infallible> {
    let line = format!("{} {}", request.method(), request.uri());
    let headers = request.headers().clone();
    let body: Value = serde_json::from_slice(&request.into_body().collect().await.unwrap().to_bytes()).unwrap();
    let prompt = body["task"]["input"].as_str().unwrap().to_owned();
    let session = body["task"]["metadata"]["session"].as_str().unwrap().to_owned();
    ask.send(Asked { line, headers, body }).unwrap();
    let whole = |status: u16, kind: &str, text: String| {
        let body = Full::new(Bytes::from(text)).boxed_unsync();
        Response::builder().status(status).header("content-type", kind).body(body).unwrap()
    };
    Ok(match prompt.split(' ').next().unwrap() {
        "stream" => {
            let pieces = [
                "data: {\"progress\":\"think",
                "ing\"}\n\n: still here\n\ndata: {\"success\":true,\n",
                "data: \"output\":\"streamed\"}\n\n",
            ];
            let frames = stream::iter(pieces).map(|piece| Ok(Frame::data(Bytes::from(piece))));
            let body = StreamBody::new(frames).boxed_unsync();
            Response::builder().header("content-type", "text/event-stream").body(body).unwrap()
        }
        "cannot" => whole(
            200,
            "application/json",
            json!({"success": false, "output": "", "error": "it is too hard"}).to_string(),
        ),
        "refuse" => whole(503, "text/plain", "come back later".into()),
        "busy" if BUSY.fetch_add(1, Ordering::Relaxed) < 2 => {
            let mut busy = whole(429, "text/plain", "too many".into());
            busy.headers_mut().insert("retry-after", "1".parse().unwrap());
            busy
        }
        "move" => {
            let mut moved = whole(302, "text/plain", String::new());
            moved.headers_mut().insert("location", "http://127.0.0.1:1/".parse().unwrap());
            moved
        }
        "words" => whole(200, "text/plain; charset=utf-8", "just words\n".into()),
        "hang" => {
            let _held = Held(leave);
            std::future::pending().await
        }
        _ => {
            let metadata = json!({"session": format!("{session}+"), "cost_usd": 0.25, "tokens_used": 7});
            whole(
                200,
                "application/json",
                json!({"success": true, "output": format!("heard: {prompt}"), "metadata": metadata}).to_string(),
            )
        }
    })
}

async fn stage() -> (Network, Node, Service) {
    let service = Service::start().await;
    let (network, node) = stage_at(service.port).await;
    (network, node, service)
}

async fn stage_at(port: u16) -> (Network, Node) {
    let network = Network::start().await;
    let secret = network.dir.path().join("secret");
    fs::write(&secret, "Bearer s3cret\n").unwrap();
    let toml = format!(
        r#"
[runtime.backends.hosted]
preset = "http"

[runtime.backends.hosted.http]
url = "http://127.0.0.1:{0}/agents/x/run?a=1"
allow_local = true
retry_ms = [1, 5]
headers = {{ X-Team = "a" }}
header_files = {{ authorization = "{1}" }}

[runtime.backends.patient]
preset = "http"
http = {{ url = "http://127.0.0.1:{0}/run", allow_local = true, tries = 100, retry_ms = [50, 500] }}

[runtime.backends.inside]
preset = "http"
http = {{ url = "https://localhost/run" }}
"#,
        port,
        secret.display()
    );
    let node = network.node_configured("here", "jdoe", &toml).await;
    (network, node)
}

fn asks(backend: &str, prompt: &str) -> v1::AgentSpec {
    v1::AgentSpec { description: prompt.to_owned(), backend: backend.to_owned(), ..v1::AgentSpec::default() }
}

async fn answers(owner: &murmur_tests::spawned::Owner, path: &str, wanted: &str) -> v1::AgentStatus {
    wait::until(&format!("{path} answers {wanted}"), || async {
        let agent = owner.status(path).await;
        let said = agent.output.as_ref().is_some_and(|output| output.response.contains(wanted));
        (said && agent.phase() == Phase::TaskComplete).then_some(agent)
    })
    .await
}

#[tokio::test]
async fn a_hosted_agent_is_asked_by_post_and_goes_on_with_its_session() {
    let (network, here, mut service) = stage().await;
    let owner = here.owner("jdoe").await;
    let agent = owner.spawn("far", asks("hosted", "hello \"you\"")).await;
    let output = answers(&owner, "far", "heard: hello \"you\"").await.output.unwrap();
    assert_eq!((output.cost_micros, output.tokens), (250_000, 7));
    let asked = service.asked.recv().await.unwrap();
    assert_eq!(asked.line, "POST /agents/x/run?a=1");
    assert_eq!(asked.headers["authorization"], "Bearer s3cret");
    assert_eq!(asked.headers["x-team"], "a");
    assert_eq!(asked.metadata("agent"), "/w/acme/u/jdoe/far");
    assert_eq!(asked.metadata("session"), &agent.agent_id, "a conversation that has no name yet is the agent's");
    owner.add("far", "more").await;
    answers(&owner, "far", "more").await;
    let asked = service.asked.recv().await.unwrap();
    assert_eq!(asked.metadata("session"), &format!("{}+", agent.agent_id), "it goes on where it was");
    // Reading a pipe would wait for its writer.
    for file in network.files("").into_iter().filter(|path| path.is_file()) {
        let holds = fs::read(&file).is_ok_and(|bytes| bytes.windows(6).any(|six| six == b"s3cret"));
        assert!(file.ends_with("secret") || !holds, "the secret is in {}", file.display());
    }
}

#[tokio::test]
async fn a_hosted_agent_may_answer_by_events_and_in_words() {
    let (_network, here, _service) = stage().await;
    let owner = here.owner("jdoe").await;
    owner.spawn("streams", asks("hosted", "stream")).await;
    assert_eq!(owner.is("streams", Phase::TaskComplete).await.output.unwrap().response, "streamed");
    owner.spawn("talks", asks("hosted", "words")).await;
    assert_eq!(owner.is("talks", Phase::TaskComplete).await.output.unwrap().response, "just words");
}

#[tokio::test]
async fn a_failure_a_refusal_a_redirect_and_an_address_inside_are_told_as_failures() {
    let (_network, here, _service) = stage().await;
    let owner = here.owner("jdoe").await;
    for (path, backend, prompt, why) in [
        ("unable", "hosted", "cannot", "it is too hard"),
        ("refused", "hosted", "refuse", "asked 5 times: http://127.0.0.1"),
        ("refused-why", "hosted", "refuse", "answered 503: come back later"),
        ("moved", "hosted", "move", "answered 302"),
        ("inside", "inside", "x", "not public"),
    ] {
        owner.spawn(path, asks(backend, prompt)).await;
        let reason = owner.is(path, Phase::Failed).await.reason;
        assert!(reason.contains(why), "{path}: {reason}");
    }
}

#[tokio::test]
async fn a_service_that_is_busy_is_asked_again_when_it_says_and_people_see_it() {
    let (_network, here, mut service) = stage().await;
    let owner = here.owner("jdoe").await;
    owner.spawn("far", asks("hosted", "busy")).await;
    let waits = wait::until("it says that it waits", || async { owner.status("far").await.progress }).await;
    assert!(waits.label.contains("answered 429: too many; asked again in 1 s"), "{waits:?}");
    answers(&owner, "far", "heard: busy").await;
    let mut asked = Vec::new();
    while let Ok(one) = service.asked.try_recv() {
        asked.push(one.body);
    }
    assert_eq!(asked.len(), 3, "{asked:?}");
    assert!(asked.iter().all(|body| *body == asked[0]), "the same turn each time: {asked:?}");
}

#[tokio::test]
async fn a_service_that_is_not_up_yet_is_asked_when_it_is() {
    // Nobody else gets the port meanwhile: it is bound, and does not listen.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let (_network, here) = stage_at(socket.local_addr().unwrap().port()).await;
    let owner = here.owner("jdoe").await;
    owner.spawn("early", asks("patient", "hello")).await;
    let waits = wait::until("it says that it waits", || async { owner.status("early").await.progress }).await;
    assert!(waits.label.contains("cannot be connected to"), "{waits:?}");
    assert_eq!(owner.status("early").await.phase(), Phase::Running);
    let mut service = Service::on(socket.listen(16).unwrap());
    answers(&owner, "early", "heard: hello").await;
    assert!(service.asked.recv().await.is_some() && service.asked.try_recv().is_err(), "it was asked twice");
}

#[tokio::test]
async fn an_interrupted_call_is_hung_up_on_and_the_queue_goes_on() {
    let (_network, here, mut service) = stage().await;
    let owner = here.owner("jdoe").await;
    owner.spawn("far", asks("hosted", "hang")).await;
    service.asked.recv().await.unwrap();
    owner.is("far", Phase::Running).await;
    owner.add("far", "next").await;
    here.ctl_json(None, &["interrupt", "far"]).await;
    service.left.recv().await.unwrap();
    answers(&owner, "far", "next").await;
}

#[tokio::test]
async fn a_call_outlasts_a_restart_of_the_node_and_a_kill_ends_it() {
    let (_network, mut here, mut service) = stage().await;
    let owner = here.owner("jdoe").await;
    let agent = owner.spawn("far", asks("hosted", "hang")).await;
    service.asked.recv().await.unwrap();
    owner.is("far", Phase::Running).await;
    here.process.kill_9();
    here.process.start();
    here.ready().await;
    let owner = here.owner("jdoe").await;
    let found = owner.is("far", Phase::Running).await;
    assert_eq!((found.incarnation, here.group(&agent)), (1, here.group(&found)));
    owner.kill("far").await;
    service.left.recv().await.unwrap();
    assert!(service.asked.try_recv().is_err(), "it was asked twice");
}
