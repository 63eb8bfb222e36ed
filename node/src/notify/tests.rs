//! Channels against servers that speak the services' own protocols: paths, bodies, status codes, errors and headers as documented.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
};

use murmur_crypto::mac::hmac_sha256_holds;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_util::sync::CancellationToken;

use super::{service::Trouble, *};
use crate::clock::Clock;

const TOKEN: &str = "123456:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw";
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo=";

/// A call as it came.
#[derive(Debug)]
struct Got {
    path: String,
    head: String,
    body: Value,
    raw: Vec<u8>,
}

impl Got {
    fn header(&self, name: &str) -> String {
        let line = self.head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
        line.unwrap_or_default().to_owned()
    }
}

/// A stranger's service: answers each call with the next of its answers, the last one again and again.
struct Stranger {
    url: String,
    got: mpsc::UnboundedReceiver<Got>,
}

impl Stranger {
    async fn start(answers: &[(u16, &str, Value)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (seen, got) = mpsc::unbounded_channel();
        let mut answers: VecDeque<_> =
            answers.iter().map(|(status, head, body)| (*status, (*head).to_owned(), body.to_string())).collect();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let Some(got) = read(&mut socket).await else { continue };
                let next = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
                let (status, head, body) = next.unwrap();
                let answer = format!("HTTP/1.1 {status} X\r\n{head}content-length: {}\r\n\r\n{body}", body.len());
                let _ = socket.write_all(answer.as_bytes()).await;
                if seen.send(got).is_err() {
                    return;
                }
            }
        });
        Self { url, got }
    }

    async fn next(&mut self) -> Got {
        self.got.recv().await.unwrap()
    }
}

async fn read(socket: &mut TcpStream) -> Option<Got> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let count = socket.read(&mut buffer).await.ok().filter(|count| *count > 0)?;
        bytes.extend_from_slice(&buffer[..count]);
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let length: usize = head.lines().find_map(|line| line.strip_prefix("content-length: "))?.parse().ok()?;
        if bytes.len() >= end + 4 + length {
            let raw = bytes[end + 4..end + 4 + length].to_vec();
            let path = head.split(' ').nth(1)?.to_owned();
            return Some(Got { path, head, body: serde_json::from_slice(&raw).ok()?, raw });
        }
    }
}

struct Here {
    notify: Arc<Notify>,
    home: tempfile::TempDir,
    stop: CancellationToken,
}

impl Here {
    fn open(change: impl FnOnce(&mut NotifyConfig)) -> Self {
        Self::on(tempfile::tempdir().unwrap(), change)
    }

    fn on(home: tempfile::TempDir, change: impl FnOnce(&mut NotifyConfig)) -> Self {
        let mut config = NotifyConfig { allow_local: true, retry_ms: [1, 5], ..NotifyConfig::default() };
        change(&mut config);
        config.check().unwrap();
        let stop = CancellationToken::new();
        let notify = Notify::open(config, home.path(), Clock::with_offset(0), stop.clone()).unwrap();
        Self { notify, home, stop }
    }

    fn with(service: Service, change: impl FnOnce(&mut NotifyConfig)) -> Self {
        let here = Self::open(change);
        here.notify.set(channel(service)).unwrap();
        here
    }

    fn tell(&self, line: &str) {
        let notice = Notice::new("message", line, 5).about(vec!["/w/a/u/jdoe/alice".into()]).with_body("secret words");
        self.notify.tell(&Arc::new(notice));
    }

    fn status(&self) -> Status {
        self.notify.list().remove(0).1
    }

    /// Waits for the task to have counted.
    async fn until(&self, what: impl Fn(&Status) -> bool) -> Status {
        loop {
            let status = self.status();
            if what(&status) {
                return status;
            }
            tokio::task::yield_now().await;
        }
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn channel(service: Service) -> Channel {
    Channel { name: "phone".into(), service, filter: Filter::default() }
}

fn telegram() -> Service {
    Service::Telegram { token: TOKEN.into(), chat_id: "42".into(), answerers: Vec::new() }
}

fn whatsapp(template: Option<&str>) -> Service {
    Service::Whatsapp {
        token: "EAAGtoken".into(),
        phone_number_id: "106540352242922".into(),
        to: "+15550783881".into(),
        template: template.map(str::to_owned),
        language: "en_US".into(),
    }
}

#[tokio::test]
async fn what_is_heard_from_two_sides_is_told_once_and_another_life_of_it_again() {
    let mut stranger = Stranger::start(&[(204, "", Value::Null)]).await;
    let here = Here::with(Service::Webhook { url: stranger.url.clone(), secret: SECRET.to_owned() }, |_| {});
    let slug = "/w/a/u/jdoe/lead/child";
    let event = |log: &str, incarnation: u32| murmur_proto::v1::Event {
        event_id: format!("murmur:child:{incarnation}"),
        slug: log.to_owned(),
        kind: "child_lifecycle".to_owned(),
        attributes: [("child", slug), ("phase", "failed"), ("incarnation", &incarnation.to_string())]
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        ..Default::default()
    };
    // From the log of its parent, for this node's people, and of another life, told apart from each other.
    for event in [event("/w/a/u/jdoe/lead", 1), event(slug, 1), event(slug, 2)] {
        event::notices(&[event], 5).into_iter().for_each(|notice| here.notify.tell(&Arc::new(notice)));
    }
    here.tell("the end");
    let mut texts = Vec::new();
    while texts.last().is_none_or(|text| text != "the end") {
        texts.push(stranger.next().await.body["text"].as_str().unwrap().to_owned());
    }
    assert_eq!(texts, ["jdoe/lead/child failed", "jdoe/lead/child failed", "the end"]);
}

#[tokio::test]
async fn telegram_is_sent_a_line_and_no_body() {
    let mut stranger = Stranger::start(&[(200, "", json!({"ok": true, "result": {"message_id": 1}}))]).await;
    let here = Here::with(telegram(), |config| config.telegram_api.clone_from(&stranger.url));
    here.tell("alice → bob, 1.2 kB");
    let got = stranger.next().await;
    assert_eq!(got.path, format!("/bot{TOKEN}/sendMessage"));
    assert_eq!((got.body["chat_id"].as_str(), got.body["text"].as_str()), (Some("42"), Some("alice → bob, 1.2 kB")));
    assert_eq!(got.body["link_preview_options"]["is_disabled"], true);
    let status = here.until(|status| status.sent == 1).await;
    assert_eq!((status.trouble, status.dropped, status.failed), (None, 0, 0));
}

#[tokio::test]
async fn bodies_are_told_only_where_that_was_chosen() {
    let mut stranger = Stranger::start(&[(200, "", json!({"ok": true, "result": {}}))]).await;
    let url = stranger.url.clone();
    let here = Here::with(telegram(), |config| (config.telegram_api, config.include_body) = (url, true));
    here.tell("alice → bob, 12 B");
    assert_eq!(stranger.next().await.body["text"], "alice → bob, 12 B\nsecret words");
}

#[tokio::test]
async fn a_service_that_asks_to_wait_is_tried_again() {
    let wait = json!({"ok": false, "error_code": 429, "description": "Too Many Requests: retry after 0", "parameters": {"retry_after": 0}});
    let gone = (502, "", json!("Bad Gateway"));
    let fine = (200, "", json!({"ok": true, "result": {}}));
    // A group is written to slower; a person's chat once a second, which is all this test waits for.
    let mut stranger = Stranger::start(&[(429, "", wait), gone, fine]).await;
    let here = Here::with(telegram(), |config| config.telegram_api.clone_from(&stranger.url));
    here.tell("once");
    for _ in 0..3 {
        assert_eq!(stranger.next().await.body["text"], "once");
    }
    assert_eq!(here.until(|status| status.sent == 1).await.trouble, None);
}

#[tokio::test]
async fn a_wrong_token_breaks_the_channel_and_stands_in_no_error() {
    let unknown = json!({"ok": false, "error_code": 401, "description": "Unauthorized"});
    let mut stranger = Stranger::start(&[(401, "", unknown)]).await;
    let here = Here::with(telegram(), |config| config.telegram_api.clone_from(&stranger.url));
    here.tell("lost");
    stranger.next().await;
    let status = here.until(|status| status.failed == 1).await;
    let trouble = status.trouble.unwrap();
    assert!(trouble.contains("token") && !trouble.contains(TOKEN), "{trouble}");
    // It is left alone until somebody has seen to it.
    here.tell("dropped");
    assert_eq!(here.until(|status| status.dropped == 1).await.sent, 0);
    let tried = here.notify.try_out("phone").await.unwrap_err();
    assert!(matches!(tried, NotifyError::Trouble(Trouble::Broken(_))) && !format!("{tried:?}").contains("AAHdq"));

    // An address where nobody answers shows no token either.
    let nobody = Here::with(telegram(), |config| config.telegram_api = "http://127.0.0.1:1".into());
    let error = nobody.notify.try_out("phone").await.unwrap_err();
    assert!(!format!("{error} {error:?}").contains("AAHdq"), "{error:?}");
    assert!(error.to_string().contains("127.0.0.1"), "{error}");
}

#[tokio::test]
async fn discord_pings_nobody_and_is_waited_for() {
    let limited = json!({"message": "You are being rate limited.", "retry_after": 0.01, "global": false});
    let head =
        "retry-after: 1\r\nx-ratelimit-limit: 5\r\nx-ratelimit-remaining: 0\r\nx-ratelimit-reset-after: 0.01\r\n";
    let mut stranger = Stranger::start(&[(429, head, limited), (200, head, json!({"id": "1"}))]).await;
    let here = Here::with(Service::Discord { url: format!("{}/api/webhooks/1/secret", stranger.url) }, |_| {});
    here.tell("@everyone look");
    stranger.next().await;
    let got = stranger.next().await;
    assert_eq!(got.path, "/api/webhooks/1/secret?wait=true");
    assert_eq!(got.body, json!({"content": "@everyone look", "allowed_mentions": {"parse": []}}));
    here.until(|status| status.sent == 1).await;
    let shown = here.notify.list().remove(0).0.to_string();
    assert!(!shown.contains("secret"), "{shown}");

    let gone = json!({"message": "Unknown Webhook", "code": 10015});
    let stranger = Stranger::start(&[(404, "", gone)]).await;
    let here = Here::with(Service::Discord { url: format!("{}/api/webhooks/1/secret", stranger.url) }, |_| {});
    let error = here.notify.try_out("phone").await.unwrap_err();
    assert!(matches!(error, NotifyError::Trouble(Trouble::Broken(_))), "{error}");
}

#[tokio::test]
async fn whatsapp_is_sent_text_or_a_template() {
    let fine = json!({"messaging_product": "whatsapp", "contacts": [], "messages": [{"id": "wamid.x"}]});
    let mut stranger = Stranger::start(&[(200, "", fine)]).await;
    let here = Here::with(whatsapp(None), |config| config.whatsapp_api = format!("{}/v23.0", stranger.url));
    here.notify.try_out("phone").await.unwrap();
    let got = stranger.next().await;
    assert_eq!(
        (got.path.as_str(), got.header("authorization").as_str()),
        ("/v23.0/106540352242922/messages", "Bearer EAAGtoken")
    );
    assert_eq!(
        (&got.body["to"], &got.body["type"], &got.body["messaging_product"]),
        (&json!("15550783881"), &json!("text"), &json!("whatsapp"))
    );

    here.notify.set(channel(whatsapp(Some("agents")))).unwrap();
    here.notify.try_out("phone").await.unwrap();
    let got = stranger.next().await;
    assert_eq!((&got.body["type"], &got.body["template"]["name"]), (&json!("template"), &json!("agents")));
    assert!(
        got.body["template"]["components"][0]["parameters"][0]["text"].as_str().unwrap().starts_with("This is a test")
    );
}

#[tokio::test]
async fn whatsapps_errors_are_told_apart() {
    let error =
        |code: i64| json!({"error": {"message": "x", "type": "OAuthException", "code": code, "fbtrace_id": "t"}});
    for (status, code, wanted) in
        [(401, 190, "broken"), (400, 131_047, "refused"), (400, 130_429, "later"), (500, 131_000, "later")]
    {
        let stranger = Stranger::start(&[(status, "", error(code))]).await;
        let here = Here::with(whatsapp(None), |config| config.whatsapp_api.clone_from(&stranger.url));
        let NotifyError::Trouble(trouble) = here.notify.try_out("phone").await.unwrap_err() else { panic!("{code}") };
        let is = match trouble {
            Trouble::Broken(_) => "broken",
            Trouble::Refused(_) => "refused",
            Trouble::Later { .. } => "later",
        };
        assert_eq!(is, wanted, "{code}: {trouble}");
    }
}

#[tokio::test]
async fn a_webhook_can_check_who_sent_it() {
    let mut stranger = Stranger::start(&[(204, "", json!(null))]).await;
    let url = format!("{}/hook", stranger.url);
    let here = Here::with(Service::Webhook { url, secret: SECRET.into() }, |_| {});
    here.tell("alice → bob, 1 B");
    let got = stranger.next().await;
    let (id, time) = (got.header("webhook-id"), got.header("webhook-timestamp"));
    let signature = got.header("webhook-signature");
    let tag = data_encoding::BASE64.decode(signature.strip_prefix("v1,").unwrap().as_bytes()).unwrap();
    let key = channel::signing_key(SECRET).unwrap();
    assert!(hmac_sha256_holds(&key, &[format!("{id}.{time}.").as_bytes(), &got.raw], &tag));
    assert_eq!(
        got.body,
        json!({"type": "message", "time_ms": 5, "agents": ["/w/a/u/jdoe/alice"], "text": "alice → bob, 1 B"})
    );
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let mut inside = Stranger::start(&[(200, "", json!(null))]).await;
    let head = format!("location: {}/admin\r\n", inside.url);
    let outside = Stranger::start(&[(302, &head, json!(null))]).await;
    let here = Here::with(Service::Webhook { url: outside.url.clone(), secret: SECRET.into() }, |_| {});
    let error = here.notify.try_out("phone").await.unwrap_err();
    assert!(error.to_string().contains("redirects"), "{error}");
    assert!(inside.got.try_recv().is_err());
}

#[tokio::test]
async fn a_service_that_hangs_delays_nothing_and_what_is_too_much_is_counted() {
    // It takes connections and never answers.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let here =
        Here::with(Service::Webhook { url, secret: SECRET.into() }, |config| config.queue = 4.try_into().unwrap());
    for number in 0..1000 {
        here.tell(&number.to_string());
    }
    let status = here.status();
    assert!(status.dropped >= 995 && status.sent == 0, "{status:?}");
}

#[tokio::test]
async fn a_filter_lets_through_what_it_names() {
    let mut stranger = Stranger::start(&[(204, "", json!(null))]).await;
    let here = Here::open(|_| {});
    let filter = Filter { kinds: vec!["message".into()], agents: vec!["alice".into()] };
    let service = Service::Webhook { url: stranger.url.clone(), secret: SECRET.into() };
    here.notify.set(Channel { filter, ..channel(service) }).unwrap();
    let about = |kind: &str, slug: &str| {
        let notice = Notice::new(kind, slug, 0).about(vec![slug.to_owned()]);
        here.notify.tell(&Arc::new(notice));
    };
    about("message", "/w/a/u/jdoe/alicent");
    about("permission", "/w/a/u/jdoe/alice");
    about("message", "/w/a/u/jdoe/bob");
    about("message", "/w/a/u/jdoe/alice/tests");
    assert_eq!(stranger.next().await.body["text"], "/w/a/u/jdoe/alice/tests");
}

#[tokio::test]
async fn messages_are_wanted_while_a_channel_names_them() {
    let here = Here::open(|_| {});
    let are_wanted = || here.notify.messages_wanted().load(Ordering::SeqCst);
    let set = |kind: &str| {
        let filter = Filter { kinds: vec![kind.into()], ..Filter::default() };
        here.notify.set(Channel { filter, ..channel(telegram()) }).unwrap();
    };
    assert!(!are_wanted());
    set("message");
    assert!(are_wanted());
    set("permission");
    assert!(!are_wanted());
    set("message");
    assert!(are_wanted());
    here.notify.remove("phone").unwrap();
    assert!(!are_wanted());
}

#[tokio::test]
async fn channels_outlast_the_process_in_private_files() {
    let mut stranger = Stranger::start(&[(200, "", json!({"ok": true, "result": {}}))]).await;
    let here = Here::with(telegram(), |config| config.telegram_api.clone_from(&stranger.url));
    let file = here.home.path().join("notify/phone.json");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    // A file that is no channel is left, and told without what stands in it.
    std::fs::write(here.home.path().join("notify/odd.json"), "{}").unwrap();
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join("notify")).unwrap();
    std::fs::copy(&file, home.path().join("notify/phone.json")).unwrap();
    let again = Here::on(home, |config| config.telegram_api.clone_from(&stranger.url));
    again.tell("after");
    assert_eq!(stranger.next().await.body["text"], "after");
    again.notify.remove("phone").unwrap();
    assert!(matches!(again.notify.remove("phone"), Err(NotifyError::NotFound(_))));
    assert!(!again.home.path().join("notify/phone.json").exists());
}

#[tokio::test]
async fn what_is_wrong_with_a_channel_is_named() {
    let here = Here::open(|config| config.allow_local = false);
    let field = |service: Service| match here.notify.set(channel(service)) {
        Err(NotifyError::Invalid(invalid)) => invalid.field,
        other => panic!("{:?}", other.err()),
    };
    let hook = |url: &str| Service::Webhook { url: url.into(), secret: SECRET.into() };
    for url in [
        "http://example.com/",
        "https://127.0.0.1/",
        "https://example.com:8080/",
        "https://[::1]/",
        "nonsense",
        "https://2130706433/",
    ] {
        assert_eq!(field(hook(url)), "url", "{url}");
    }
    assert_eq!(field(Service::Webhook { url: "https://example.com/".into(), secret: "short".into() }), "secret");
    assert_eq!(field(Service::Discord { url: "https://example.com/api/webhooks/1/x".into() }), "url");
    assert_eq!(field(Service::Discord { url: "https://discord.com/".into() }), "url");
    for token in ["", "1:short", "../../x:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw", "1:AAHdqTcvCH1vGWJxfSeof/../getMe"] {
        assert_eq!(
            field(Service::Telegram { token: token.into(), chat_id: "1".into(), answerers: Vec::new() }),
            "token",
            "{token}"
        );
    }
    for chat in ["", "-", "@", "4 2", "@a/b"] {
        assert_eq!(
            field(Service::Telegram { token: TOKEN.into(), chat_id: chat.into(), answerers: Vec::new() }),
            "chat_id",
            "{chat}"
        );
    }
    let person = |user_id: u64, name: &str| Person::new(user_id, name.to_owned());
    let asked = |chat: &str, answerers: Vec<Person>| {
        field(Service::Telegram { token: TOKEN.into(), chat_id: chat.into(), answerers })
    };
    assert_eq!(asked("@public", vec![person(1, "jo")]), "answerers");
    assert_eq!(asked("1", vec![person(1, "jo"), person(2, "jo")]), "answerers");
    assert_eq!(asked("1", vec![person(1, "jo"), person(1, "eve")]), "answerers");
    assert_eq!(asked("1", vec![person(0, "jo")]), "answerers.user_id");
    assert_eq!(asked("1", vec![person(1, "Jo:x")]), "answerers.name");
    let named = |name: &str| here.notify.set(Channel { name: name.into(), ..channel(telegram()) }).is_err();
    assert!(named("") && named("../x") && named("A") && named("a/b") && named(&"x".repeat(64)));
}

#[tokio::test]
async fn a_name_that_leads_inside_is_not_called() {
    let here = Here::open(|config| config.allow_local = false);
    // What resolves to loopback everywhere, though its name says nothing of it.
    here.notify.set(channel(Service::Webhook { url: "https://localhost/".into(), secret: SECRET.into() })).unwrap();
    let error = here.notify.try_out("phone").await.unwrap_err();
    assert!(error.to_string().contains("not public"), "{error}");
}

#[tokio::test]
async fn a_chat_is_found_by_the_code_that_was_sent_to_the_bot() {
    let update = |id: i64, text: &str| json!({"update_id": id, "message": {"message_id": 1, "from": {"id": 77, "is_bot": false}, "text": text, "chat": {"id": -100_123, "title": "Ops", "type": "group"}}});
    let result = |value: Value| (200, "", json!({"ok": true, "result": value}));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (code, mut codes) = mpsc::unbounded_channel::<String>();
    tokio::spawn(async move {
        let mut said = String::new();
        let mut polls = 0;
        while let Ok((mut socket, _)) = listener.accept().await {
            let got = read(&mut socket).await.unwrap();
            let (_, _, body) = if got.path.ends_with("/getMe") {
                result(json!({"id": 1, "is_bot": true, "username": "ops_bot"}))
            } else {
                if said.is_empty() {
                    said = codes.recv().await.unwrap();
                }
                polls += 1;
                match polls {
                    1 => result(json!([update(7, "hello")])),
                    2 => {
                        assert_eq!(got.body["offset"], 8);
                        result(json!([update(8, "murmur 1")]))
                    }
                    3 => {
                        assert_eq!(got.body["offset"], 9);
                        result(json!([update(9, &said)]))
                    }
                    _ => result(json!([])),
                }
            };
            let body = body.to_string();
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            socket.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    let here = Here::open(|config| config.telegram_api = url);
    let shown = |bot: &str, text: &str| {
        assert_eq!(bot, "ops_bot");
        code.send(text.to_owned()).unwrap();
    };
    let paired = here.notify.pair(TOKEN, shown).await.unwrap();
    assert_eq!((paired.chat_id.as_str(), paired.title.as_str(), paired.user_id), ("-100123", "Ops", Some(77)));
}
