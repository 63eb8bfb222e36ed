//! Events: how soon a code host's webhook is in front of an agent, how many are taken, how soon a node and those who watch have one, and how fast
//! a log is told again.

use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use murmur_proto::{
    client::{ControlClient, Headers, connect_server},
    v1::{
        self, publish_event_request::Target, watch_events_response::Item as Seen,
        watch_node_events_response::Item as Fed,
    },
};
use murmur_tests::{
    hook::{GitHub, example, works_on},
    network::{Network, Node, Options, WORKSPACE},
};
use serde_json::json;
use tokio::{sync::mpsc, task::JoinSet};

use crate::{
    Settings,
    model::{Cell, Headline, Section, Table, digits},
    samples::Samples,
    stage::{RAISED, register},
};

/// Deliveries of one source are bounded like calls.
const HOOKS_RAISED: [(&str, &str); 2] =
    [("MURMUR_SERVER_HOOKS_PER_SECOND", "100000"), ("MURMUR_SERVER_HOOKS_BURST", "100000")];
/// Of GitHub's examples.
const EXAMPLE_REPO: &str = "Codertocat/Hello-World";
/// Between a webhook and the session, at the median.
const WEBHOOK_GOAL_MS: f64 = 20.0;
const ACCOUNT: &str = "bench";
const REPO: &str = "acme/widgets";
/// Agents that work on the branch.
const LISTENERS: usize = 10;
/// Events that their logs hold together; a log holds 1,000.
const REPLAYED: usize = 10_000;
const PUBLISHERS: usize = 32;
const FLOW_TIME: Duration = Duration::from_secs(5);
const LATENCIES: usize = 1_000;
const BETWEEN: Duration = Duration::from_millis(5);
const WATCHERS: [usize; 3] = [1, 100, 10_000];
/// Streams on one connection, of which the control plane takes 256.
const STREAMS: usize = 200;
const ROUNDS: usize = 30;

/// Measures all of it on one control plane.
pub(crate) async fn measure(settings: Settings) -> Section {
    let raised = RAISED.into_iter().chain(HOOKS_RAISED);
    let env = raised.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let options = Options { sync_always: settings.sync_always, env, ..Options::default() };
    let network = Network::start_with(options).await;
    let mut node = network.node("here", ACCOUNT).await;
    let agents: Vec<String> = (0..LISTENERS).map(|number| format!("agent-{number}")).collect();
    register(&node, &agents).await;
    let token = person(&network).await;
    for agent in &agents {
        listen(&network, &token, agent).await;
    }
    let (webhook, headline) = webhook(&network, &node).await;
    let mut taken = Table::new(&["publishers at once", "events taken, per second", "rows written, per second"]);
    for (label, publishers, request) in [
        ("1, to one agent", 1, to_agent(&agents[0])),
        ("32, to one agent", PUBLISHERS, to_agent(&agents[0])),
        ("32, to the 10 agents of a branch", PUBLISHERS, to_branch()),
    ] {
        let rows = if matches!(request.target, Some(Target::Repo(_))) { LISTENERS } else { 1 };
        let rate = flow(&network, &token, publishers, &request).await;
        taken.row(label, vec![Cell::from(rate), Cell::from(rate * rows as f64)]);
    }
    let fan_out = fan_out(&network, &token, &agents[0]).await;
    // The node's place is taken by the bench, which shows what its stream does without what the node does with it.
    node.process.kill_9();
    let feed = feed(&network, &token, &agents[0]).await;
    Section {
        title: "Events".into(),
        text: "A published event is a committed row before its publisher is answered. Latency is counted from before the call that \
               publishes, or posts the webhook, until whoever reads has it, at 200 events a second; a session is a real murmur-mcp whose client has the notification; of a fan-out until the last of all has it. The replay is \
               that of ten full logs."
            .into(),
        headlines: vec![headline],
        tables: vec![webhook, taken, fan_out, feed],
        ..Default::default()
    }
}

async fn flow(network: &Network, token: &str, publishers: usize, request: &v1::PublishEventRequest) -> f64 {
    let mut flowing = JoinSet::new();
    let start = Instant::now();
    for _ in 0..publishers {
        let (mut client, request) = (client(network, token).await, request.clone());
        flowing.spawn(async move {
            let mut count = 0_u64;
            while start.elapsed() < FLOW_TIME {
                client.events.publish_event(request.clone()).await.unwrap();
                count += 1;
            }
            count
        });
    }
    let mut count = 0;
    while let Some(done) = flowing.join_next().await {
        count += done.unwrap();
    }
    count as f64 / start.elapsed().as_secs_f64()
}

/// From GitHub's POST to the notification in the session of the agent that works there.
async fn webhook(network: &Network, node: &Node) -> (Table, Headline) {
    let mut session = node.shim("reviewed").await;
    session.ok("register", json!({})).await;
    works_on(node, &slug("reviewed"), EXAMPLE_REPO, "changes").await;
    let github = GitHub::of(network, EXAMPLE_REPO).await;
    let mut review = example("pull_request_review", 0);
    let mut samples = Vec::with_capacity(LATENCIES);
    for number in 0..LATENCIES {
        let text = format!("review {number}");
        (review["review"]["id"], review["review"]["body"]) = (number.into(), text.as_str().into());
        let start = Instant::now();
        let (answer, push) = tokio::join!(github.try_deliver("pull_request_review", &review), session.push());
        samples.push(start.elapsed());
        assert_eq!((answer.unwrap().status, push["content"].as_str()), (202, Some(text.as_str())));
        tokio::time::sleep(BETWEEN).await;
    }
    let samples = Samples::new(samples);
    let mut table = Table::new(&["a webhook", "posted → in the session: p50, ms", "p99, ms"]);
    table.row("GitHub's review, signed", vec![samples.p50().into(), samples.p99().into()]);
    let headline = Headline {
        what: "Webhook → notification in the session, p50, ms".into(),
        figure: samples.p50().into(),
        goal: format!("≤ {WEBHOOK_GOAL_MS}"),
        is_met: samples.p50() <= WEBHOOK_GOAL_MS,
    };
    (table, headline)
}

async fn fan_out(network: &Network, token: &str, agent: &str) -> Table {
    let mut table = Table::new(&[
        "who watch",
        "all opened in, ms",
        "until the last has it: p50, ms",
        "p99, ms",
        "deliveries, per second",
    ]);
    let mut publisher = client(network, token).await;
    for watchers in WATCHERS {
        let mut watching = JoinSet::new();
        let (seen, mut are_seen) = mpsc::unbounded_channel();
        let mut left = watchers;
        let opening = Instant::now();
        while left > 0 {
            let shared = client(network, token).await;
            for _ in 0..left.min(STREAMS) {
                let (mut events, seen, agent) = (shared.events.clone(), seen.clone(), slug(agent));
                watching.spawn(async move {
                    let filter = Some(v1::EventFilter { slug: agent, ..Default::default() });
                    let request = v1::WatchEventsRequest { filter, ..Default::default() };
                    let mut stream = events.watch_events(request).await.unwrap().into_inner();
                    while let Some(answer) = stream.message().await.unwrap() {
                        assert!(!matches!(answer.item, Some(Seen::Gap(_))), "a reader fell behind");
                        seen.send(()).unwrap();
                    }
                });
            }
            left -= left.min(STREAMS);
        }
        // Everybody has caught up.
        for _ in 0..watchers {
            are_seen.recv().await.unwrap();
        }
        let opened = opening.elapsed().as_secs_f64() * 1000.0;
        let mut samples = Vec::with_capacity(ROUNDS);
        for _ in 0..ROUNDS {
            let start = Instant::now();
            publisher.events.publish_event(to_agent(agent)).await.unwrap();
            for _ in 0..watchers {
                are_seen.recv().await.unwrap();
            }
            samples.push(start.elapsed());
        }
        let total: Duration = samples.iter().sum();
        let samples = Samples::new(samples);
        let rate = (watchers * ROUNDS) as f64 / total.as_secs_f64();
        table
            .row(digits(watchers as f64), vec![opened.into(), samples.p50().into(), samples.p99().into(), rate.into()]);
        watching.shutdown().await;
    }
    table
}

async fn feed(network: &Network, token: &str, agent: &str) -> Table {
    let secret = fs::read_to_string(&network.files("node.token")[0]).unwrap();
    // The stream of the node that was killed is still there until the control plane sees its end.
    let mut listener = client(network, secret.trim()).await;
    let filled = Arc::new(client(network, token).await);
    let mut filling = JoinSet::new();
    for _ in 0..10 {
        let mut filler = ControlClient::clone(&filled);
        filling.spawn(async move {
            for _ in 0..REPLAYED / LISTENERS / 10 {
                filler.events.publish_event(to_branch()).await.unwrap();
            }
        });
    }
    filling.join_all().await;
    let start = Instant::now();
    let request = v1::WatchNodeEventsRequest { after_position: 0 };
    let mut stream = listener.events.watch_node_events(request).await.unwrap().into_inner();
    let mut replayed = 0;
    while let Some(Fed::Event(_)) = stream.message().await.unwrap().unwrap().item {
        replayed += 1;
    }
    let replay = start.elapsed();
    let mut publisher = client(network, token).await;
    let (arrived, mut arrivals) = mpsc::unbounded_channel();
    let reading = tokio::spawn(async move {
        while let Ok(Some(answer)) = stream.message().await {
            if let Some(Fed::Event(event)) = answer.item {
                let _ = arrived.send((event.text, Instant::now()));
            }
        }
    });
    let mut samples = Vec::with_capacity(LATENCIES);
    for number in 0..LATENCIES {
        let start = Instant::now();
        let request = v1::PublishEventRequest { text: number.to_string(), ..to_agent(agent) };
        publisher.events.publish_event(request).await.unwrap();
        let (text, at) = arrivals.recv().await.unwrap();
        assert_eq!(text, number.to_string());
        samples.push(at - start);
        tokio::time::sleep(BETWEEN).await;
    }
    reading.abort();
    let samples = Samples::new(samples);
    let mut table = Table::new(&[
        "a node's stream",
        "published to there: p50, ms",
        "p99, ms",
        "events replayed",
        "in, ms",
        "per second",
    ]);
    let ms = replay.as_secs_f64() * 1000.0;
    let figures = [samples.p50(), samples.p99(), f64::from(replayed), ms, f64::from(replayed) / replay.as_secs_f64()];
    table.row("", figures.map(Cell::from).into());
    table
}

fn slug(agent: &str) -> String {
    format!("/u/{ACCOUNT}/{agent}")
}

fn to_agent(agent: &str) -> v1::PublishEventRequest {
    v1::PublishEventRequest {
        target: Some(Target::Slug(slug(agent))),
        text: "a line of text, as long as such a line is".into(),
        ..Default::default()
    }
}

fn to_branch() -> v1::PublishEventRequest {
    let repo = v1::RepoTarget { repo: REPO.into(), branch: "topic".into(), pr: 0 };
    let attributes = [("author", "octocat"), ("comment_id", "12345")].map(|(name, value)| (name.into(), value.into()));
    v1::PublishEventRequest {
        target: Some(Target::Repo(repo)),
        kind: "pr_comment".into(),
        text: "a comment of some words, as long as a short comment is".into(),
        attributes: attributes.into(),
        ..Default::default()
    }
}

async fn listen(network: &Network, token: &str, agent: &str) {
    let repo =
        v1::Repo { clone_url: format!("https://github.com/{REPO}"), branch: "topic".into(), ..Default::default() };
    let request = v1::UpdateAgentStatusRequest { slug: slug(agent), repos: vec![repo], ..Default::default() };
    client(network, token).await.agents.update_agent_status(request).await.unwrap();
}

async fn person(network: &Network) -> String {
    let scopes = [v1::Scope::EventsRead, v1::Scope::EventsPublish, v1::Scope::AgentsRead];
    let request = v1::IssueTokenRequest {
        kind: v1::TokenKind::User.into(),
        scopes: scopes.map(i32::from).to_vec(),
        workspace: WORKSPACE.into(),
        account: ACCOUNT.into(),
        ..Default::default()
    };
    network.admin().await.auth.issue_token(request).await.unwrap().into_inner().token
}

async fn client(network: &Network, token: &str) -> ControlClient {
    let channel = connect_server(&network.server_url, None).await.unwrap();
    ControlClient::new(channel, Headers::new().with_token(token).unwrap())
}
