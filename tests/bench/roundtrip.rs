//! A request and its reply, one after the other.

use std::time::Instant;

use murmur_proto::node::v1::{AttachRequest, RequestRequest, SendRequest, attach_response, request_response};
use tokio::task::JoinHandle;

use crate::{
    BODY_BYTES, Settings, body, fresh_numbers,
    model::{Cell, Headline, Section, Table},
    receiver::read_all,
    samples::{Rounds, Samples},
    stage::{Stage, receiver, sender},
};

const COUNT: usize = 500;
const WARM_UP: usize = 50;
/// Goal in ms.
const GOAL_P50: f64 = 3.0;

/// Measures it, raw and ours in turn.
pub(crate) async fn measure(settings: Settings) -> Section {
    let stage = Stage::start(settings.sync_always).await;
    let [mut raw50, mut p50, mut p99] = <[Rounds; 3]>::default();
    for _ in 0..settings.rounds {
        raw50.add(stage.raw.latency(crate::latency::RATE, 500, BODY_BYTES).await.p50());
        let answerer = answer(&stage).await;
        let samples = ask(&stage).await;
        answerer.abort();
        read_all(&stage.there, &receiver(0), BODY_BYTES, |_| {}).await;
        p50.add(samples.p50());
        p99.add(samples.p99());
    }
    let mut table = Table::new(&["one at a time", "p50, ms", "p99, ms", "p50 / twice raw one way"]);
    let ratio = Cell::from(p50.median() / raw50.median() / 2.0);
    table.row("request → reply", vec![(&p50).into(), (&p99).into(), ratio]);
    Section {
        title: "Request and reply".into(),
        text: format!(
            "1 KiB both ways, {COUNT} requests a round, each begun when the one before was answered. The answering program is attached \
             and replies at once. Both messages are durable at both ends. Raw one way p50 in the same rounds: {:.3} ms.",
            raw50.median()
        ),
        headlines: vec![Headline {
            what: "Request round trip, p50, ms".into(),
            figure: (&p50).into(),
            goal: format!("≤ {GOAL_P50}"),
            is_met: p50.median() <= GOAL_P50,
        }],
        tables: vec![table],
        charts: vec![],
    }
}

/// A program that answers every message it is pushed.
async fn answer(stage: &Stage) -> JoinHandle<()> {
    let mut client = stage.there.client().await;
    read_all(&stage.there, &receiver(0), BODY_BYTES, |_| {}).await;
    let request = AttachRequest { agent: receiver(0), takeover: true, ..Default::default() };
    let mut pushes = client.sessions.attach(request).await.unwrap().into_inner();
    pushes.message().await.unwrap().expect("attached");
    tokio::spawn(async move {
        while let Ok(Some(pushed)) = pushes.message().await {
            let Some(attach_response::Item::Message(message)) = pushed.item else { continue };
            let reply = SendRequest {
                agent: receiver(0),
                in_reply_to: message.msg_id,
                body: message.body,
                ..Default::default()
            };
            client.messages.send(reply).await.unwrap();
        }
    })
}

async fn ask(stage: &Stage) -> Samples {
    let mut client = stage.here.client().await;
    let first = fresh_numbers((COUNT + WARM_UP) as u64);
    let mut samples = Vec::with_capacity(COUNT);
    for number in 0..COUNT + WARM_UP {
        let start = Instant::now();
        let request = RequestRequest {
            agent: sender(0),
            to: receiver(0),
            body: body(first + number as u64, BODY_BYTES).into(),
            timeout_ms: 30_000,
            ..Default::default()
        };
        let mut answers = client.messages.request(request).await.unwrap().into_inner();
        while let Some(answer) = answers.message().await.unwrap() {
            if let Some(request_response::Item::Outcome(outcome)) = answer.item {
                assert!(outcome.reply.is_some(), "no reply: {outcome:?}");
            }
        }
        if number >= WARM_UP {
            samples.push(start.elapsed());
        }
    }
    Samples::new(samples)
}
