//! Who may tell whom, and what becomes of it.

use std::collections::BTreeMap;

use murmur_core::reason::Reason;
use murmur_proto::v1::{self, publish_event_request::Target};

use super::{event, list, log, publish, texts};
use crate::{
    agents::{Runner, facts, ready},
    world::{World, field, reason},
};

#[tokio::test]
async fn a_repeat_stands_once_and_nobody_takes_anothers_id() {
    let world = World::start().await;
    let (owner, runner, _) = ready(&world).await;
    let person = world.person(&owner, "jdoe").await;
    let alice = runner.node.agent(&world, "alice").await;
    let speaks = world.speak_as(&owner, &alice.id.to_string()).await;
    let once = |text: &str| v1::PublishEventRequest { event_id: "build-7".into(), ..event("/u/jdoe/alice", "", text) };
    let first = publish(&person, once("one")).await.unwrap();
    assert_eq!((first.event_id.as_str(), first.duplicate), ("human:jdoe:build-7", false));
    let again = publish(&person, once("another")).await.unwrap();
    assert_eq!((again.duplicate, again.slugs), (true, vec!["/w/acme/u/jdoe/alice".to_owned()]));
    assert!(!publish(&speaks, once("mine")).await.unwrap().duplicate);
    assert_eq!(texts(&log(&person, "/u/jdoe/alice", true).await), ["one", "mine"]);
}

#[tokio::test]
async fn forged_publishers_are_refused() {
    let world = World::start().await;
    let (owner, runner, _) = ready(&world).await;
    let mut ids = BTreeMap::new();
    for path in ["boss", "boss/child", "boss/child/leaf", "other"] {
        ids.insert(path, runner.node.agent(&world, path).await.id.to_string());
    }
    let stranger = Runner::start(&world, &owner, 3, facts(0)).await;
    drop(stranger);
    let child = world.speak_as(&owner, &ids["boss/child"]).await;
    let told = |path: &str, kind: &str| event(&format!("/u/jdoe/{path}"), kind, "x");
    // Itself and what is below it, of anything; what is above it, of what a child is to tell.
    for (path, kind) in [
        ("boss/child", "ci_result"),
        ("boss/child/leaf", "ci_result"),
        ("boss/child/leaf", "notify"),
        ("boss", "notify"),
        ("boss", "found_a_bug"),
    ] {
        publish(&child, told(path, kind)).await.unwrap();
    }
    for (path, kind) in [("boss", "ci_result"), ("boss", "pr_review"), ("other", "notify"), ("other", "ci_result")] {
        assert_eq!(reason(publish(&child, told(path, kind)).await), Reason::AgentNotYours, "{path} {kind}");
    }
    // What the control plane alone knows is said by nobody else, not even of itself.
    for kind in ["child_lifecycle", "progress", "file_changed", "gap"] {
        assert_eq!(field(publish(&child, told("boss/child", kind)).await), "kind", "{kind}");
    }
    // Another account's people neither tell nor read.
    let foreign = world.person(&owner, "mallory").await;
    assert_eq!(reason(publish(&foreign, told("boss", "notify")).await), Reason::AgentNotYours);
    assert!(list(&foreign, v1::EventFilter::default(), true).await.is_empty());
    let person = world.person(&owner, "jdoe").await;
    let log = log(&person, "/u/jdoe/boss", false).await;
    let notify = log.iter().find(|event| event.kind == "notify").unwrap();
    assert_eq!(notify.origin, "agent:/w/acme/u/jdoe/boss/child");
    assert_eq!(notify.attributes["from"], "/w/acme/u/jdoe/boss/child");
    let bug = log.iter().find(|event| event.kind == "found_a_bug").unwrap();
    assert!(bug.untrusted && !notify.untrusted);
}

#[tokio::test]
async fn wrong_fields_are_named() {
    let world = World::start().await;
    let (owner, runner, _) = ready(&world).await;
    let person = world.person(&owner, "jdoe").await;
    runner.node.agent(&world, "alice").await;
    let good = || event("/u/jdoe/alice", "", "x");
    let attribute = |name: &str| BTreeMap::from([(name.to_owned(), "v".to_owned())]);
    let repo = |repo: &str, branch: &str| {
        Some(Target::Repo(v1::RepoTarget { repo: repo.into(), branch: branch.into(), pr: 0 }))
    };
    let late = world.now_ms() / 1000 + 301;
    let ahead = Some(prost_types::Timestamp { seconds: i64::try_from(late).unwrap(), nanos: 0 });
    for (name, request) in [
        ("slug", v1::PublishEventRequest { target: None, ..good() }),
        ("kind", v1::PublishEventRequest { kind: "No Kind".into(), ..good() }),
        ("text", v1::PublishEventRequest { text: " \n".into(), ..good() }),
        ("attributes", v1::PublishEventRequest { attributes: attribute("a-b"), ..good() }),
        ("event_id", v1::PublishEventRequest { event_id: "a:b".into(), ..good() }),
        ("event_id", v1::PublishEventRequest { event_id: "x".repeat(129), ..good() }),
        ("time", v1::PublishEventRequest { time: ahead, ..good() }),
        ("repo.repo", v1::PublishEventRequest { target: repo("no repo", "main"), ..good() }),
        ("repo.branch", v1::PublishEventRequest { target: repo("acme/widgets", ""), ..good() }),
    ] {
        assert_eq!(field(publish(&person, request).await), name);
    }
    assert_eq!(reason(publish(&person, event("/u/jdoe/nobody", "", "x")).await), Reason::AgentNotFound);
    assert!(log(&person, "/u/jdoe/alice", true).await.is_empty());
}

#[tokio::test]
async fn an_event_of_a_branch_reaches_who_works_on_it_and_teaches_its_pull_request() {
    let world = World::start().await;
    let (owner, runner, user) = ready(&world).await;
    let person = world.person(&owner, "jdoe").await;
    for path in ["alice", "bob"] {
        runner.node.agent(&world, path).await;
    }
    let register = |path: &str, url: &str, branch: &str| v1::UpdateAgentStatusRequest {
        slug: format!("/u/jdoe/{path}"),
        repos: vec![v1::Repo { clone_url: url.into(), branch: branch.into(), ..Default::default() }],
        ..Default::default()
    };
    user.update(register("alice", "git@github.com:Acme/Widgets.git", "topic")).await.unwrap();
    user.update(register("bob", "https://github.com/acme/widgets", "other")).await.unwrap();
    let on = |branch: &str, pr: u64, text: &str| v1::PublishEventRequest {
        target: Some(Target::Repo(v1::RepoTarget { repo: "acme/widgets".into(), branch: branch.into(), pr })),
        kind: "pr_comment".into(),
        text: text.into(),
        ..Default::default()
    };
    let reached = publish(&person, on("topic", 5, "branch and number")).await.unwrap();
    assert_eq!(reached.slugs, ["/w/acme/u/jdoe/alice"]);
    let reached = publish(&person, on("", 5, "number alone")).await.unwrap();
    assert_eq!(reached.slugs, ["/w/acme/u/jdoe/alice"]);
    assert!(publish(&person, on("", 6, "another")).await.unwrap().slugs.is_empty());
    // Another account's program reaches none of them.
    let foreign = world.person(&owner, "mallory").await;
    assert!(publish(&foreign, on("topic", 5, "forged")).await.unwrap().slugs.is_empty());
    let filter = v1::EventFilter { repo: "acme/widgets".into(), pr: 5, ..Default::default() };
    assert_eq!(texts(&list(&person, filter, false).await), ["branch and number", "number alone"]);
    // An agent that named a pull request's page hears of it, too.
    let output =
        Some(v1::AgentOutput { prs: vec!["https://github.com/acme/widgets/pull/6".into()], ..Default::default() });
    user.update(v1::UpdateAgentStatusRequest { slug: "/u/jdoe/bob".into(), output, ..Default::default() })
        .await
        .unwrap();
    assert_eq!(publish(&person, on("", 6, "another")).await.unwrap().slugs, ["/w/acme/u/jdoe/bob"]);
}

#[tokio::test]
async fn publishers_that_share_a_commit_are_answered_each_for_itself() {
    let world = World::start().await;
    let (owner, runner, _) = ready(&world).await;
    let person = world.person(&owner, "jdoe").await;
    runner.node.agent(&world, "alice").await;
    let request = |number: usize| match number % 4 {
        0 => event("/u/jdoe/nobody", "", "x"),
        1 => event("/u/jdoe/alice", "progress", "x"),
        // Two publish the same at once: one of them is first.
        2 => v1::PublishEventRequest { event_id: format!("pair-{}", number / 8), ..event("/u/jdoe/alice", "", "pair") },
        _ => event("/u/jdoe/alice", "", &format!("single {number}")),
    };
    let mut publishing = tokio::task::JoinSet::new();
    for number in 0..160 {
        let (person, request) = (person.clone(), request(number));
        publishing.spawn(async move { (number, publish(&person, request).await) });
    }
    let (mut new, mut duplicates) = (0, 0);
    while let Some(done) = publishing.join_next().await {
        let (number, answer) = done.unwrap();
        match number % 4 {
            0 => assert_eq!(reason(answer), Reason::AgentNotFound),
            1 => assert_eq!(field(answer), "kind"),
            _ if answer.unwrap().duplicate => duplicates += 1,
            _ => new += 1,
        }
    }
    assert_eq!((new, duplicates), (40 + 20, 20));
    let log = log(&person, "/u/jdoe/alice", true).await;
    let mut all = texts(&log);
    all.sort_unstable();
    let mut wanted: Vec<String> =
        (0..160).filter(|number| number % 4 == 3).map(|number| format!("single {number}")).collect();
    wanted.extend(std::iter::repeat_n("pair".to_owned(), 20));
    wanted.sort_unstable();
    assert_eq!(all, wanted, "what was refused left nothing, and nothing else is missing");
    let seqs: Vec<_> = log.iter().map(|event| event.seq).collect();
    assert_eq!(seqs, (1..=60).collect::<Vec<_>>());
}

#[tokio::test]
async fn whoever_goes_away_while_others_wait_for_the_same_commit_cuts_nothing_short() {
    let world = World::start().await;
    let (owner, runner, _) = ready(&world).await;
    let person = world.person(&owner, "jdoe").await;
    runner.node.agent(&world, "alice").await;
    let mut publishing = tokio::task::JoinSet::new();
    for number in 0..60 {
        let (person, request) = (person.clone(), event("/u/jdoe/alice", "", &number.to_string()));
        let publish = async move {
            let publishing = publish(&person, request);
            tokio::pin!(publishing);
            // A third of them leaves as soon as its call is on the way.
            if number % 3 == 0 {
                futures::poll!(&mut publishing).is_ready().then_some(())
            } else {
                publishing.await.ok().map(drop)
            }
        };
        publishing.spawn(publish);
    }
    let answered = publishing.join_all().await;
    assert!(answered.iter().filter(|answer| answer.is_some()).count() >= 40);
    let log = log(&person, "/u/jdoe/alice", true).await;
    for number in (0..60).filter(|number| number % 3 != 0) {
        assert_eq!(log.iter().filter(|event| event.text == number.to_string()).count(), 1, "{number}");
    }
    let seqs: Vec<_> = log.iter().map(|event| event.seq).collect();
    assert_eq!(seqs, (1..=log.len() as u64).collect::<Vec<_>>(), "whole or not at all");
}

#[tokio::test]
async fn a_moment_that_is_none_is_refused_and_not_stored_as_another() {
    let world = World::start().await;
    let (owner, runner, _) = ready(&world).await;
    let person = world.person(&owner, "jdoe").await;
    runner.node.agent(&world, "alice").await;
    let at = |seconds, nanos| {
        let time = Some(prost_types::Timestamp { seconds, nanos });
        publish(&person, v1::PublishEventRequest { time, ..event("/u/jdoe/alice", "", "x") })
    };
    for (seconds, nanos) in [(-62_167_219_200, 0), (-1, 0), (1, -1), (1, 1_000_000_000), (i64::MIN, 0), (i64::MAX, 0)] {
        assert_eq!(field(at(seconds, nanos).await), "time", "{seconds} {nanos}");
    }
    at(1, 999_999_999).await.unwrap();
    assert_eq!(log(&person, "/u/jdoe/alice", true).await.len(), 1);
}
