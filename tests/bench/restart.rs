//! How soon a node that was killed carries messages again, without and with history.

use std::time::{Duration, Instant};

use murmur_proto::{
    client::{Headers, NodeClient, connect_socket},
    node::v1::{AttachRequest, attach_response},
};
use murmur_tests::network::Node;

use crate::{
    BODY_BYTES, Settings,
    flow::{Flow, Running},
    fresh_numbers,
    model::{Cell, Section, Table, digits},
    number_in,
    receiver::read_all,
    samples::Rounds,
    stage::{Stage, draft, receiver, sender},
    usage::rss_mib,
};

const HISTORY: u64 = 100_000;
const POLL: Duration = Duration::from_millis(1);
/// Far beyond what it takes: reaching it means that it never comes.
const PATIENCE: Duration = Duration::from_secs(300);

/// Kills each node in turn, without history and with it.
pub(crate) async fn measure(settings: Settings) -> Section {
    let mut stage = Stage::start(settings.sync_always).await;
    let mut table = Table::new(&[
        "rows of history",
        "sender's node: socket answers, ms",
        "first new message has arrived, ms",
        "receiver's node: socket answers, ms",
        "the message that waited is pushed, ms",
        "sender's node, MiB",
        "receiver's node, MiB",
    ]);
    for history in [0, HISTORY] {
        if history > 0 {
            make_history(&stage, history).await;
        }
        let mut figures: [Rounds; 6] = Default::default();
        for _ in 0..settings.rounds {
            let round = round(&mut stage).await;
            figures.iter_mut().zip(round).for_each(|(rounds, figure)| rounds.add(figure));
        }
        table.row(digits(history as f64), figures.iter().map(Cell::from).collect());
    }
    Section {
        title: "First message after a restart".into(),
        text: "Counted from the start of the process of a node that was killed with -9. The sender's: until a message that is sent as soon \
               as the socket takes it has reached the other agent's program. The receiver's: until its program has attached and was \
               pushed a message that was sent while it was down."
            .into(),
        tables: vec![table],
        ..Default::default()
    }
}

async fn make_history(stage: &Stage, rows: u64) {
    let running = Running::start(&stage.ends(1), Flow::ONE_PAIR).await;
    while running.delivered() < rows {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    running.stop().await;
}

async fn round(stage: &mut Stage) -> [f64; 6] {
    let pair = (sender(0), receiver(0));
    read_all(&stage.there, &receiver(0), BODY_BYTES, |_| {}).await;
    stage.here.process.kill_9();
    let start = Instant::now();
    stage.here.process.start();
    let (sender_answers, sender_arrived) = first_message(&stage.here, &stage.there, &pair, start).await;
    let here_mib = rss_mib(stage.here.process.pid());
    stage.here.ready().await;

    read_all(&stage.there, &receiver(0), BODY_BYTES, |_| {}).await;
    stage.there.process.kill_9();
    let number = fresh_numbers(1);
    stage.here.client().await.messages.send(draft(&pair, number, BODY_BYTES)).await.unwrap();
    let start = Instant::now();
    stage.there.process.start();
    let mut client = connected(&stage.there).await;
    let receiver_answers = start.elapsed();
    pushed(&mut client, &receiver(0), number).await;
    let receiver_pushed = start.elapsed();
    stage.there.ready().await;
    let ms = |took: Duration| took.as_secs_f64() * 1000.0;
    [
        ms(sender_answers),
        ms(sender_arrived),
        ms(receiver_answers),
        ms(receiver_pushed),
        here_mib,
        rss_mib(stage.there.process.pid()),
    ]
}

/// Sends one message as soon as a node that has just started takes it, and says how long after `start` the node's socket answered
/// and the message was with the other agent's program.
pub(crate) async fn first_message(
    from: &Node,
    to: &Node,
    pair: &(String, String),
    start: Instant,
) -> (Duration, Duration) {
    let mut receiving = to.client().await;
    let number = fresh_numbers(1);
    let arrival = async {
        pushed(&mut receiving, &pair.1, number).await;
        start.elapsed()
    };
    let sending = async {
        let mut client = connected(from).await;
        let answers = start.elapsed();
        while client.messages.send(draft(pair, number, BODY_BYTES)).await.is_err() {
            assert!(start.elapsed() < PATIENCE, "the node takes no message");
            tokio::time::sleep(POLL).await;
        }
        answers
    };
    let (arrived, answers) = tokio::join!(arrival, sending);
    (answers, arrived)
}

/// A client as soon as the node's socket takes a connection.
async fn connected(node: &Node) -> NodeClient {
    let start = Instant::now();
    loop {
        if let Ok(channel) = connect_socket(&node.socket).await {
            return NodeClient::new(channel, Headers::new());
        }
        assert!(start.elapsed() < PATIENCE, "the node's socket does not answer");
        tokio::time::sleep(POLL).await;
    }
}

/// Attaches, as often as it takes, until this message is pushed.
async fn pushed(client: &mut NodeClient, agent: &str, number: u64) {
    let start = Instant::now();
    loop {
        let request = AttachRequest { agent: agent.to_owned(), takeover: true, ..Default::default() };
        if let Ok(pushes) = client.sessions.attach(request).await {
            let mut pushes = pushes.into_inner();
            while let Ok(Some(pushed)) = pushes.message().await {
                if let Some(attach_response::Item::Message(message)) = pushed.item
                    && number_in(&message.body) == number
                {
                    return;
                }
            }
        }
        assert!(start.elapsed() < PATIENCE, "the message does not arrive");
        tokio::time::sleep(POLL).await;
    }
}
