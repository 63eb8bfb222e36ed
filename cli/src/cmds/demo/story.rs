//! What happens in the demo. Everything that is said was measured or looked up; what does not hold is a failure.

use std::time::{Duration, Instant};

use murmur_proto::node::v1::GetSafetyNumberRequest;
use nix::sys::signal::Signal;
use serde_json::{Map, Value, json};

use super::{
    search::{Found, Needles},
    seen::{self, Seen},
    session::{Pushed, Session, Tools},
    stage::{Host, Stage},
    teller::{Teller, millis},
};
use crate::{
    cmds::verify::in_lines,
    duration,
    exit::Exit,
    failure::{Context as _, Failure},
    network::progress::Progress,
    owner::random,
};

/// No step of two local agents takes longer.
const STEP_WITHIN: Duration = Duration::from_secs(20);
const REQUEST_TIMEOUT_MS: u64 = 15_000;
/// How much ciphertext is shown.
const HEAD_BYTES: usize = 32;

/// Tells the story and returns its facts.
pub(super) async fn tell(stage: &Stage, teller: &mut Teller) -> Result<Map<String, Value>, Failure> {
    let mut facts = Map::new();
    if let Some(kept) = stage.kept() {
        facts.insert("folder".into(), json!(kept));
        teller.part(&format!("everything is kept in {}", kept.display()));
    }
    Box::pin(stage.start(&Progress::new(teller.is_quiet()))).await?;
    teller.part(
        "a broker, a control plane and two nodes run as processes of their own, each node with its own keys and store",
    );

    let (alice, mut bob) = tokio::try_join!(Session::start(stage, &stage.alice), Session::start(stage, &stage.bob))?;
    let (bob_peer, alice_peer) = tokio::try_join!(
        stage.wait_until_known(&stage.alice, &stage.bob),
        stage.wait_until_known(&stage.bob, &stage.alice)
    )?;
    teller.part("alice and bob attached, each with a murmur-mcp over stdio");
    teller.detail(&format!("alice is {}\nbob   is {}", alice_peer.slug, bob_peer.slug));

    let canary = format!("canary-{}", data_encoding::HEXLOWER.encode(&random::<12>()?));
    let talk = Talk { alice: alice.tools(), bob: bob.tools(), to: bob_peer.slug.clone() };
    facts.insert("round_trip".into(), Box::pin(conversation(&talk, &mut bob, &canary, teller)).await?);
    facts.insert(
        "safety_number".into(),
        Box::pin(safety_number(stage, &alice_peer.slug, &bob_peer.slug, teller)).await?,
    );
    facts
        .insert("broker_saw".into(), at_the_broker(stage, &talk, &mut bob, &bob_peer.agent_id, &canary, teller).await?);
    facts.insert("plaintext".into(), where_the_plaintext_is(stage, &canary, teller)?);
    tokio::try_join!(alice.end(), bob.end())?;
    Ok(facts)
}

/// Who talks to whom.
struct Talk {
    alice: Tools,
    bob: Tools,
    to: String,
}

/// What one request and its reply took.
struct RoundTrip {
    pushed: Pushed,
    one_way: Duration,
    total: Duration,
    reply: String,
}

impl Talk {
    /// Alice asks; bob answers when he is told.
    async fn ask(&self, bob: &mut Session, question: &str, answer: &str) -> Result<RoundTrip, Failure> {
        let begin = Instant::now();
        let request = json!({"to": self.to, "text": question, "timeout_ms": REQUEST_TIMEOUT_MS});
        let asked = async { Ok((self.alice.call("request", request).await?, begin.elapsed())) };
        let answered = async {
            let pushed = bob.next().await?;
            let one_way = begin.elapsed();
            let msg_id = pushed.meta.get("msg_id").cloned().unwrap_or_default();
            self.bob.call("send", json!({"in_reply_to": msg_id, "text": answer})).await?;
            Ok((pushed, one_way))
        };
        let ((outcome, total), (pushed, one_way)) =
            within("the round trip", Box::pin(async { tokio::try_join!(asked, answered) })).await?;
        match outcome["reply"]["text"].as_str() {
            Some(reply) => Ok(RoundTrip { pushed, one_way, total, reply: reply.to_owned() }),
            None => Err(Failure::failed(format!("alice's request ended without a reply: {outcome}"))),
        }
    }
}

async fn conversation(talk: &Talk, bob: &mut Session, canary: &str, teller: &mut Teller) -> Result<Value, Failure> {
    let question = format!("What is the answer? ({canary})");
    let answer = format!("42. ({canary})");
    let first = talk.ask(bob, &question, &answer).await?;
    if !first.pushed.content.contains(canary) || first.reply != answer {
        return Err(Failure::failed("a text arrived changed"));
    }
    teller.part("alice called the tool `request`; bob's session was pushed this, without asking:");
    teller.detail(&channel(&first.pushed));
    teller.part("bob called the tool `send` with in_reply_to, and alice's call returned:");
    teller.detail(&first.reply);
    let second = talk.ask(bob, "And now that both sides know each other?", "Faster.").await?;
    teller.part(&format!(
        "round trip {} (of it, {} until bob was told); the second one {}",
        duration::show(first.total),
        duration::show(first.one_way),
        duration::show(second.total)
    ));
    let times = |trip: &RoundTrip| json!({"total_ms": millis(trip.total), "one_way_ms": millis(trip.one_way)});
    Ok(
        json!({"first": times(&first), "second": times(&second), "question": question, "reply": first.reply, "notification": {"content": first.pushed.content, "meta": first.pushed.meta}}),
    )
}

/// A notification as a client shows it to its model.
fn channel(pushed: &Pushed) -> String {
    let attributes: Vec<_> =
        pushed.meta.iter().map(|(key, value)| format!(" {key}=\"{}\"", value.as_str().unwrap_or_default())).collect();
    format!("<channel source=\"murmur\"{}>\n{}\n</channel>", attributes.concat(), pushed.content)
}

async fn safety_number(stage: &Stage, alice: &str, bob: &str, teller: &mut Teller) -> Result<Value, Failure> {
    let (hers, his) = tokio::try_join!(ask_number(&stage.alice, bob), ask_number(&stage.bob, alice))?;
    if hers != his {
        return Err(Failure::new(Exit::Refused, format!("the safety numbers differ: {hers} and {his}")));
    }
    teller.part("the safety number is the same on both sides: nobody sits between");
    teller.detail(&in_lines(&hers));
    Ok(json!(hers))
}

async fn ask_number(host: &Host, peer: &str) -> Result<String, Failure> {
    let request = GetSafetyNumberRequest { agent: host.agent.to_owned(), peer: peer.to_owned() };
    Ok(host.client().await?.host.get_safety_number(request).await?.into_inner().safety_number)
}

/// Holds bob's node still, so that a message waits at the broker where it can be looked at, and lets it go on.
async fn at_the_broker(
    stage: &Stage,
    talk: &Talk,
    bob: &mut Session,
    bob_id: &str,
    canary: &str,
    teller: &mut Teller,
) -> Result<Value, Failure> {
    let node = stage.process(&stage.bob)?;
    node.signal(Signal::SIGSTOP)?;
    let seen = async {
        let text = format!("This one waits at the broker. ({canary})");
        talk.alice.call("send", json!({"to": talk.to, "text": text})).await?;
        seen::message_for(&stage.streams(), bob_id).await
    };
    let seen = within("a message at the broker", seen).await;
    node.signal(Signal::SIGCONT)?;
    let seen = seen?;
    let pushed = within("the message that waited", bob.next()).await?;
    if !pushed.content.contains(canary) {
        return Err(Failure::failed("the message that waited arrived changed"));
    }
    let Seen { file, subject, envelope, ciphertext } = &seen;
    if Needles::new(canary).are_in(ciphertext) {
        return Err(Failure::new(Exit::Refused, "the broker holds the plaintext"));
    }
    let head = data_encoding::HEXLOWER.encode(&ciphertext[..ciphertext.len().min(HEAD_BYTES)]);
    teller.part("with bob's node held still, the next message lay at the broker; all that the broker saw of it:");
    teller.detail(&format!(
        "to      {subject}\nsize    {envelope} bytes, of it {} of ciphertext\nbegins  {head}…",
        ciphertext.len()
    ));
    teller.detail("let go again, bob got it");
    Ok(
        json!({"subject": subject, "file": file, "envelope_bytes": envelope, "ciphertext_bytes": ciphertext.len(), "ciphertext_head": head}),
    )
}

/// The proof: not where it must not be; and, so that the search itself is shown to work, where it must be.
fn where_the_plaintext_is(stage: &Stage, canary: &str, teller: &mut Teller) -> Result<Value, Failure> {
    let needles = Needles::new(canary);
    let doing = "searching for the plaintext";
    let others = needles.search(&[stage.layout.broker(), stage.layout.server(), stage.layout.logs()]).context(doing)?;
    if !others.hits.is_empty() {
        return Err(Failure::new(Exit::Refused, format!("the plaintext is where it must not be: {:?}", others.hits)));
    }
    let recipient = needles.search(&[stage.node_data(&stage.bob)]).context(doing)?;
    if recipient.hits.is_empty() {
        return Err(Failure::failed("the search does not even find the plaintext in bob's own store"));
    }
    let Found { files, bytes, .. } = others;
    teller.part(&format!(
        "the plaintext is in none of the {files} files ({} KiB) of broker, control plane and logs",
        bytes / 1024
    ));
    teller.detail(
        "looked for as it is, as UTF-16, as hex and as base64; the same search does find it in bob's own store",
    );
    Ok(json!({
        "searched": {"files": files, "bytes": bytes, "hits": 0},
        "control": {"files": recipient.files, "hits": recipient.hits.len()},
    }))
}

async fn within<T>(what: &str, step: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let late = || Failure::new(Exit::Timeout, format!("{what} did not come within {} s", STEP_WITHIN.as_secs()));
    tokio::time::timeout(STEP_WITHIN, step).await.map_err(|_| late())?
}
