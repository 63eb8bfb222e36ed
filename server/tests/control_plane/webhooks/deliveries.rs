//! What is posted to a source's address: authentic or not, repeated, relabelled, too large, broken.

use murmur_crypto::mac::hmac_sha256;
use murmur_proto::v1;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::sources::{github, manager};
use crate::world::{Owner, World};

const DAY_MS: u64 = 24 * 3600 * 1000;

/// A source with its secret.
pub(super) struct Source {
    pub(super) path: String,
    pub(super) secret: String,
}

/// What a sender hears.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Heard {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: String,
}

impl Heard {
    pub(super) fn outcome(&self) -> String {
        let body: Value = serde_json::from_str(&self.body).unwrap_or_default();
        format!("{} {}", self.status, body["outcome"].as_str().or(body["error"].as_str()).unwrap_or_default())
    }
}

impl Source {
    pub(super) async fn make(world: &World, owner: &Owner, request: v1::CreateWebhookRequest) -> Self {
        let made = manager(world, owner).await.webhooks.create_webhook(request).await.unwrap().into_inner();
        Self { path: made.webhook.unwrap().path, secret: made.secret }
    }

    /// As GitHub delivers.
    pub(super) async fn deliver(&self, world: &World, event: &str, body: &[u8]) -> Heard {
        let signature = signature(&self.secret, body);
        let headers = [("x-github-event", event), ("x-hub-signature-256", &signature), ("x-github-delivery", "one")];
        self.post(world, &headers, body).await
    }

    pub(super) async fn post(&self, world: &World, headers: &[(&str, &str)], body: &[u8]) -> Heard {
        post(world, &self.path, &[headers, &[("content-type", "application/json")]].concat(), body).await
    }

    /// As Standard Webhooks says.
    async fn signed(&self, world: &World, id: &str, at_s: u64, body: &[u8]) -> Heard {
        let key = key(&self.secret);
        let tag = hmac_sha256(&key, &[format!("{id}.{at_s}.").as_bytes(), body]);
        let (time, signature) = (at_s.to_string(), format!("v1,{}", base64(&tag)));
        let headers = [("webhook-id", id), ("webhook-timestamp", &time), ("webhook-signature", &signature)];
        self.post(world, &headers, body).await
    }
}

fn base64(bytes: &[u8]) -> String {
    data_encoding::BASE64.encode(bytes)
}

fn key(secret: &str) -> Vec<u8> {
    data_encoding::BASE64.decode(secret.strip_prefix("whsec_").unwrap().as_bytes()).unwrap()
}

pub(super) fn signature(secret: &str, body: &[u8]) -> String {
    format!("sha256={}", hex::encode(hmac_sha256(secret.as_bytes(), &[body])))
}

/// One example of a type, as GitHub sent it.
pub(super) fn example(event: &str) -> Value {
    let file = format!("{}/tests/data/github/{event}.json", env!("CARGO_MANIFEST_DIR"));
    let all: Vec<Value> = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    all.into_iter().next().unwrap()
}

pub(super) fn bytes(value: &Value) -> Vec<u8> {
    serde_json::to_vec(value).unwrap()
}

/// A review that says something.
pub(super) fn review() -> Value {
    let mut review = example("pull_request_review");
    review["review"]["body"] = "needs a test".into();
    review
}

async fn post(world: &World, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Heard {
    let mut head =
        format!("POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let mut socket = TcpStream::connect(world.app.address).await.unwrap();
    let sent = async {
        socket.write_all(format!("{head}\r\n").as_bytes()).await?;
        socket.write_all(body).await
    };
    // A body that is refused by its length may break off.
    let _ = sent.await;
    heard(socket).await
}

async fn heard(mut socket: TcpStream) -> Heard {
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Heard { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
}

async fn log(world: &World, owner: &Owner) -> Vec<v1::WebhookDelivery> {
    let request =
        v1::ListWebhookDeliveriesRequest { webhook: "code".into(), ..v1::ListWebhookDeliveriesRequest::default() };
    manager(world, owner).await.webhooks.list_webhook_deliveries(request).await.unwrap().into_inner().deliveries
}

#[tokio::test]
async fn what_is_forged_is_refused_and_told_nothing() {
    let world = World::with(|config| config.enroll_burst = 10_000.try_into().unwrap()).await;
    let owner = world.workspace("acme").await;
    let source = Source::make(&world, &owner, github("code")).await;
    let body = bytes(&review());
    let good = signature(&source.secret, &body);
    let sha1 = "sha1=2fd4e1c67a2d28fced849ee1bb76e7391b93eb12";
    let forgeries: [Vec<(&str, &str)>; 9] = [
        vec![],
        vec![("x-hub-signature", sha1)],
        vec![("x-hub-signature-256", sha1)],
        vec![("x-hub-signature-256", "sha256=")],
        vec![("x-hub-signature-256", &good[..39])],
        vec![("x-hub-signature-256", "sha256=é")],
        vec![("x-hub-signature-256", &good), ("x-hub-signature-256", &good)],
        vec![("x-gitlab-token", &source.secret)],
        vec![("authorization", &source.secret)],
    ];
    let nobody = Source { path: "/hooks/a1a1a1a1-a1a1-a1a1-a1a1-a1a1a1a1a1a1".into(), secret: source.secret.clone() };
    let mut answers = Vec::new();
    for headers in &forgeries {
        answers.push(
            source
                .post(&world, &[headers.as_slice(), &[("x-github-event", "pull_request_review")]].concat(), &body)
                .await,
        );
    }
    answers.push(source.deliver(&world, "pull_request_review", b"{}").await);
    let other = signature(&source.secret, b"another body");
    answers.push(source.post(&world, &[("x-hub-signature-256", &other)], &body).await);
    answers.push(nobody.deliver(&world, "pull_request_review", &body).await);
    let no_id = Source { path: "/hooks/x".into(), ..nobody };
    answers.push(no_id.deliver(&world, "pull_request_review", &body).await);
    // The one body that was signed, and is no review, is authentic.
    assert_eq!(answers.remove(forgeries.len()).status, 400);
    for answer in &answers {
        assert_eq!((answer.status, answer.body.as_str()), (401, ""), "{answer:?}");
    }
    assert_eq!(log(&world, &owner).await.len(), 1, "what is not authentic is not written down");
}

#[tokio::test]
async fn a_repeat_is_known_whatever_its_headers_say() {
    let world = World::start().await;
    let owner = world.workspace("acme").await;
    let source = Source::make(&world, &owner, github("code")).await;
    let body = bytes(&review());
    assert_eq!(source.deliver(&world, "pull_request_review", &body).await.outcome(), "202 accepted");
    let signature = signature(&source.secret, &body);
    for delivery in ["one", "two"] {
        let headers = [
            ("x-github-event", "pull_request_review"),
            ("x-hub-signature-256", &signature),
            ("x-github-delivery", delivery),
        ];
        assert_eq!(source.post(&world, &headers, &body).await.outcome(), "202 duplicate");
    }
    let log = log(&world, &owner).await;
    assert_eq!((log.len(), log[0].event.as_str(), log[0].outcome.as_str()), (1, "pull_request_review", "accepted"));

    // A repeat is known for a week, and over a restart.
    world.clock.advance(7 * DAY_MS - 1);
    let world = world.restart().await;
    assert_eq!(source.deliver(&world, "pull_request_review", &body).await.outcome(), "202 duplicate");
}

#[tokio::test]
async fn a_delivery_that_is_relabelled_is_refused() {
    let world = World::start().await;
    let owner = world.workspace("acme").await;
    let source = Source::make(&world, &owner, github("code")).await;
    for (is, as_) in
        [("push", "pull_request_review"), ("pull_request_review", "pull_request"), ("issues", "issue_comment")]
    {
        let heard = source.deliver(&world, as_, &bytes(&example(is))).await;
        assert_eq!(heard.status, 400, "{is} as {as_}: {heard:?}");
        assert!(heard.body.contains(as_), "{heard:?}");
    }
    // Relabelling does not keep the true one out.
    let body = bytes(&review());
    assert_eq!(source.deliver(&world, "push", &body).await.status, 400);
    assert_eq!(source.deliver(&world, "pull_request_review", &body).await.outcome(), "202 accepted");
}

#[tokio::test]
async fn what_is_too_large_is_refused_and_what_just_fits_is_read() {
    let world = World::start().await;
    let owner = world.workspace("acme").await;
    let source = Source::make(&world, &owner, github("code")).await;
    let limit = 5 * 1024 * 1024;
    assert_eq!(source.deliver(&world, "push", &vec![b' '; limit + 1]).await.status, 413);
    let fits = source.deliver(&world, "push", &vec![b' '; limit]).await;
    assert_eq!(fits.status, 400, "{fits:?}");

    // The same without a declared length.
    let body = vec![b' '; limit + 1];
    let mut socket = TcpStream::connect(world.app.address).await.unwrap();
    let head =
        format!("POST {} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n", source.path);
    socket.write_all(head.as_bytes()).await.unwrap();
    let chunk = format!("{:x}\r\n", body.len());
    let _ = socket.write_all(&[chunk.as_bytes(), &body, b"\r\n0\r\n\r\n"].concat()).await;
    assert_eq!(heard(socket).await.status, 413);
}

#[tokio::test]
async fn what_is_malformed_is_refused_by_name() {
    let world = World::start().await;
    let owner = world.workspace("acme").await;
    let source = Source::make(&world, &owner, github("code")).await;
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    for body in ["", "{", "[]", "null", "\u{feff}{}", "{\"a\":1,}", &deep, "{\"action\":\"created\"}"] {
        let heard = source.deliver(&world, "issue_comment", body.as_bytes()).await;
        assert_eq!(heard.status, 400, "{heard:?}");
        assert!(heard.body.starts_with("{\"error\":"), "{heard:?}");
    }
    let broken = source.deliver(&world, "issue_comment", b"{\"a\":\"\xff\"}").await;
    assert_eq!(broken.status, 400);

    let body = bytes(&review());
    let signed = signature(&source.secret, &body);
    let headers = [("x-hub-signature-256", signed.as_str()), ("content-type", "application/x-www-form-urlencoded")];
    let form = post(&world, &source.path, &headers, &body).await;
    assert!(form.status == 415 && form.body.contains("application/json"), "{form:?}");
    let charset =
        [headers[0], ("x-github-event", "pull_request_review"), ("content-type", "Application/JSON; charset=utf-8")];
    assert_eq!(post(&world, &source.path, &charset, &body).await.outcome(), "202 accepted");
}

#[tokio::test]
async fn a_body_that_comes_in_pieces_is_read_and_one_that_breaks_off_leaves_nothing() {
    let world = World::start().await;
    let owner = world.workspace("acme").await;
    let source = Source::make(&world, &owner, github("code")).await;
    let body = bytes(&review());
    let head = format!(
        "POST {} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n\
         x-github-event: pull_request_review\r\nx-hub-signature-256: {}\r\n",
        source.path,
        signature(&source.secret, &body)
    );
    let mut broken = TcpStream::connect(world.app.address).await.unwrap();
    broken.write_all(format!("{head}content-length: {}\r\n\r\n", body.len()).as_bytes()).await.unwrap();
    broken.write_all(&body[..100]).await.unwrap();
    drop(broken);

    let mut socket = TcpStream::connect(world.app.address).await.unwrap();
    socket.set_nodelay(true).unwrap();
    socket.write_all(format!("{head}transfer-encoding: chunked\r\n\r\n").as_bytes()).await.unwrap();
    for piece in body.chunks(97) {
        socket.write_all(&[format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat()).await.unwrap();
        tokio::task::yield_now().await;
    }
    socket.write_all(b"0\r\n\r\n").await.unwrap();
    assert_eq!(heard(socket).await.outcome(), "202 accepted");
    assert_eq!(log(&world, &owner).await.len(), 1);
}

#[tokio::test]
async fn both_secrets_are_good_while_one_takes_over_from_the_other() {
    let world = World::start().await;
    let owner = world.workspace("acme").await;
    let first = Source::make(&world, &owner, github("code")).await;
    let rotate = async |keep_seconds| {
        let request = v1::RotateWebhookSecretRequest {
            webhook: "code".into(),
            keep_seconds,
            ..v1::RotateWebhookSecretRequest::default()
        };
        let secret =
            manager(&world, &owner).await.webhooks.rotate_webhook_secret(request).await.unwrap().into_inner().secret;
        Source { path: first.path.clone(), secret }
    };
    let number = std::cell::Cell::new(0);
    let works = async |source: &Source| {
        let mut body = review();
        number.set(number.get() + 1);
        body["review"]["id"] = number.get().into();
        source.deliver(&world, "pull_request_review", &bytes(&body)).await.status == 202
    };
    let second = rotate(None).await;
    assert!(works(&first).await && works(&second).await);
    world.clock.advance(DAY_MS - 1);
    assert!(works(&first).await && works(&second).await);
    world.clock.advance(1);
    assert!(!works(&first).await && works(&second).await);

    let third = rotate(None).await;
    let fourth = rotate(None).await;
    assert!(!works(&second).await && works(&third).await && works(&fourth).await);
    let fifth = rotate(Some(0)).await;
    assert!(!works(&fourth).await && works(&fifth).await);
}

#[tokio::test]
async fn what_is_not_listed_is_dropped_and_can_come_again_once_it_is() {
    let world = World::start().await;
    let owner = world.workspace("acme").await;
    let request = v1::CreateWebhookRequest {
        repos: vec!["octo/other".into()],
        events: vec!["pull_request_review".into()],
        ..github("code")
    };
    let source = Source::make(&world, &owner, request).await;
    let body = bytes(&review());
    let dropped = source.deliver(&world, "pull_request_review", &body).await;
    assert!(dropped.outcome() == "202 dropped" && dropped.body.contains("Codertocat/Hello-World"), "{dropped:?}");
    let unknown = source.deliver(&world, "issues", &bytes(&example("issues"))).await;
    assert!(unknown.outcome() == "202 dropped" && unknown.body.contains("issues"), "{unknown:?}");
    assert_eq!(source.deliver(&world, "push", &bytes(&example("push"))).await.outcome(), "202 dropped");

    let repos = Some(v1::WebhookList { items: vec!["codertocat/hello-world".into()] });
    let change = v1::UpdateWebhookRequest { webhook: "code".into(), repos, ..v1::UpdateWebhookRequest::default() };
    manager(&world, &owner).await.webhooks.update_webhook(change).await.unwrap();
    assert_eq!(source.deliver(&world, "pull_request_review", &body).await.outcome(), "202 accepted");
    // What was taken stays taken.
    assert_eq!(source.deliver(&world, "pull_request_review", &body).await.outcome(), "202 duplicate");
}

#[tokio::test]
async fn a_hook_says_hello() {
    let world = World::start().await;
    let owner = world.workspace("acme").await;
    let source = Source::make(&world, &owner, github("code")).await;
    assert_eq!(source.deliver(&world, "ping", &bytes(&example("ping"))).await.outcome(), "202 pong");
}

#[tokio::test]
async fn a_flood_is_told_when_to_come_back() {
    let one = 1.try_into().unwrap();
    let world = World::with(|config| (config.hooks_burst, config.hooks_per_second) = (one, one)).await;
    let owner = world.workspace("acme").await;
    let source = Source::make(&world, &owner, github("code")).await;
    let body = bytes(&example("ping"));
    // Together, for one a second is allowed: of two after each other the second may be slow enough.
    let heard = futures::future::join_all((0..10).map(|_| source.deliver(&world, "ping", &body))).await;
    assert!(heard.iter().any(|heard| heard.status == 202), "{heard:?}");
    assert!(heard.iter().any(|heard| heard.status == 429 && heard.head.contains("retry-after: ")), "{heard:?}");
}

#[tokio::test]
async fn guessing_at_an_address_is_slow() {
    let one = 1.try_into().unwrap();
    let world = World::with(|config| (config.enroll_burst, config.enroll_per_minute) = (one, one)).await;
    let guess = Source { path: "/hooks/x".into(), secret: String::new() };
    assert_eq!(guess.deliver(&world, "ping", b"{}").await.status, 401);
    assert_eq!(guess.deliver(&world, "ping", b"{}").await.status, 429);
}

fn gitlab_note() -> Value {
    json!({
        "object_kind": "note", "event_type": "note", "user": {"id": 1, "username": "root"},
        "project": {"id": 5, "path_with_namespace": "acme/shop"},
        "object_attributes": {"id": 1244, "note": "This needs work.", "noteable_type": "MergeRequest", "system": false,
            "updated_at": "2026-05-17 18:21:36 UTC", "action": "create", "url": "https://gitlab.example/acme/shop/-/merge_requests/1#note_1244"},
        "merge_request": {"id": 7, "iid": 1, "source_branch": "topic", "source_project_id": 5, "target_project_id": 5, "state": "opened"},
    })
}

#[tokio::test]
async fn gitlab_proves_itself_by_its_token_or_by_its_signature() {
    let world = World::start().await;
    let owner = world.workspace("acme").await;
    let request = v1::CreateWebhookRequest {
        kind: v1::WebhookKind::Gitlab.into(),
        repos: vec!["acme/*".into()],
        actors: vec!["*".into()],
        ..github("code")
    };
    let source = Source::make(&world, &owner, request).await;
    let (body, now_s) = (bytes(&gitlab_note()), world.now_ms() / 1000);
    let token = |token: &str| vec![("x-gitlab-token".to_owned(), token.to_owned())];
    for wrong in ["", "x", &source.secret[1..], &source.secret.to_lowercase()] {
        let headers = token(wrong);
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(source.post(&world, &headers, &body).await.status, 401, "{wrong}");
    }
    let with_token = source.post(&world, &[("x-gitlab-token", &source.secret)], &body).await;
    assert_eq!(with_token.outcome(), "202 accepted");
    assert_eq!(source.post(&world, &[("x-gitlab-token", &source.secret)], &body).await.outcome(), "202 duplicate");
    // A signature that does not hold is not mended by the token.
    let headers = [("x-gitlab-token", source.secret.as_str()), ("webhook-signature", "v1,AAAA")];
    assert_eq!(source.post(&world, &headers, &body).await.status, 401);
    assert_eq!(source.signed(&world, "uuid-1", now_s, &body).await.outcome(), "202 accepted");
    assert_eq!(source.signed(&world, "uuid-1", now_s + 1, &body).await.outcome(), "202 duplicate");
}

#[tokio::test]
async fn a_generic_source_signs_its_time_and_its_id() {
    let world = World::start().await;
    let owner = world.workspace("acme").await;
    let request = v1::CreateWebhookRequest { kind: v1::WebhookKind::Generic.into(), repos: vec![], ..github("code") };
    let source = Source::make(&world, &owner, request).await;
    let body = bytes(&json!({"kind": "deploy_done", "repo": "acme/shop", "branch": "main", "text": "rolled out"}));
    let now_s = world.now_ms() / 1000;
    assert_eq!(source.signed(&world, "msg_1", now_s, &body).await.outcome(), "202 accepted");
    assert_eq!(source.signed(&world, "msg_1", now_s, &body).await.outcome(), "202 duplicate");
    // The same words again are another message.
    assert_eq!(source.signed(&world, "msg_2", now_s, &body).await.outcome(), "202 accepted");
    for stale_s in [now_s - 301, now_s + 301, 0, u64::MAX] {
        assert_eq!(source.signed(&world, "msg_3", stale_s, &body).await.status, 401);
    }
    let wrong = bytes(&json!({"repo": "acme/shop"}));
    let heard = source.signed(&world, "msg_4", now_s, &wrong).await;
    assert!(heard.status == 400 && heard.body.contains("branch"), "{heard:?}");

    // One of several signatures is enough, as while secrets change.
    let tag = hmac_sha256(&key(&source.secret), &[format!("msg_5.{now_s}.").as_bytes(), &body]);
    let (time, several) = (now_s.to_string(), format!("v1,AAAA v1a,BBBB v1,{}", base64(&tag)));
    let headers =
        [("webhook-id", "msg_5"), ("webhook-timestamp", time.as_str()), ("webhook-signature", several.as_str())];
    assert_eq!(source.post(&world, &headers, &body).await.outcome(), "202 accepted");
}
