//! `up` watches over what it started: what crashes comes back, and what cannot live is told.

use std::{collections::HashMap, fs};

use murmur_tests::{home::Home, wait};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

const PARTS: [&str; 3] = ["broker", "server", "node"];

#[tokio::test]
async fn a_part_that_is_killed_comes_back_and_messages_flow() {
    let home = Home::new();
    home.ok(&["up"]);
    home.ok(&["register", "--agent", "bob"]);
    let mut texts = Vec::new();
    for name in PARTS {
        let before = home.part(name);
        home.signal(name, Signal::SIGKILL);
        let after = home.restarted(name, &before).await;
        assert_eq!(after["restarts"], 1, "{after}");
        assert_eq!(after["last_exit"]["how"], "killed by SIGKILL", "{after}");

        texts.push(format!("after the {name}"));
        accepted(&home, texts.last().unwrap()).await;
        arrived(&home, &texts).await;
    }
    // A second `up` finds everything in its place.
    let before = pids(&home);
    home.ok(&["up"]);
    assert_eq!(before, pids(&home));
}

#[tokio::test]
async fn a_broker_that_hangs_is_started_again() {
    let home = Home::new();
    home.ok(&["up"]);
    home.ok(&["register", "--agent", "bob"]);
    let before = home.part("broker");
    let log = || fs::read_to_string(home.path().join("logs/supervisor.log")).unwrap();
    // What has greeted nobody yet may still read its store, and is left alone.
    wait::until("the broker is seen well", || async { log().contains("the broker has greeted").then_some(()) }).await;
    let pid = before["pid"].as_i64().unwrap().try_into().unwrap();
    kill(Pid::from_raw(pid), Signal::SIGSTOP).unwrap();
    // It is looked at several times, and each look waits for an answer.
    let patience = 2 * wait::PATIENCE;
    wait::within(patience, "the broker is ended", || async { log().contains("answered nobody").then_some(()) }).await;
    home.restarted("broker", &before).await;
    accepted(&home, "hello").await;
    arrived(&home, &["hello".to_owned()]).await;
}

#[tokio::test]
async fn what_a_killed_supervisor_left_is_adopted_and_never_doubled() {
    let home = Home::new();
    home.ok(&["up"]);
    let before = pids(&home);
    home.signal("supervisor", Signal::SIGKILL);
    wait::until("the doctor sees that nobody watches", || async {
        told(&home, "supervisor", "warning", "stays down").then_some(())
    })
    .await;
    for name in PARTS {
        assert_eq!(home.part(name)["pid"], before[name], "the {name} lives on");
    }

    home.ok(&["up"]);
    let after = pids(&home);
    assert_ne!(before["supervisor"], after["supervisor"]);
    for name in PARTS {
        assert_eq!(before[name], after[name], "the {name} was adopted");
    }
    assert_eq!(home.processes().len(), 4, "{:?}", home.processes());

    let node = home.part("node");
    home.signal("node", Signal::SIGKILL);
    home.restarted("node", &node).await;
    wait::until("one process of each part", || async { (home.processes().len() == 4).then_some(()) }).await;
}

#[tokio::test]
async fn what_was_started_while_nobody_watched_is_started_once() {
    let home = Home::new();
    home.ok(&["up"]);
    home.signal("supervisor", Signal::SIGKILL);
    home.signal("node", Signal::SIGKILL);
    home.signal("broker", Signal::SIGKILL);
    wait::until("both are gone", || async { (home.processes().len() == 1).then_some(()) }).await;
    home.ok(&["up"]);
    assert_eq!(home.processes().len(), 4, "{:?}", home.processes());
    home.ok(&["register", "--agent", "bob"]);
    accepted(&home, "hello").await;
    arrived(&home, &["hello".to_owned()]).await;
}

#[tokio::test]
async fn a_part_that_cannot_live_is_given_up_and_the_doctor_says_why() {
    let home = Home::new();
    home.ok(&["up", "--crashes-max", "3"]);
    let record = home.path().join("node/identity/node.json");
    let good = fs::read(&record).unwrap();
    fs::write(&record, "{ broken").unwrap();
    home.signal("node", Signal::SIGKILL);
    wait::until("the node is given up", || async { (home.part("node")["given_up"] == true).then_some(()) }).await;

    let doctor = home.answer(&["doctor"]);
    assert_eq!(doctor["healthy"], false);
    let check = check(&doctor, "node");
    assert_eq!(check["level"], "error", "{check}");
    let what = check["what"].as_str().unwrap();
    assert!(what.contains("crashed 3 times") && what.contains("node.json"), "the log's last line is shown: {what}");
    assert!(check["remedy"].as_str().unwrap().contains("murmurctl up"), "{check}");
    let text = String::from_utf8(home.run(&["status"]).stdout).unwrap();
    assert!(text.contains("tried once a minute"), "{text}");

    fs::write(&record, good).unwrap();
    home.ok(&["up"]);
    assert_eq!(home.part("node")["running"], true);
    assert_eq!(check_level(&home, "node"), "info", "the crashes are still told");
}

#[tokio::test]
async fn down_is_no_crash_and_leaves_nothing() {
    let home = Home::new();
    home.ok(&["up"]);
    home.ok(&["down"]);
    assert!(home.processes().is_empty(), "{:?}", home.processes());
    let log = fs::read_to_string(home.path().join("logs/supervisor.log")).unwrap();
    assert!(!log.contains("started again"), "{log}");
    for name in PARTS {
        let part = home.part(name);
        assert_eq!((&part["running"], &part["restarts"], &part["last_exit"]), (&false.into(), &0.into(), &Value::Null));
    }
    // A part that had ended before is none of `down`'s business either.
    home.ok(&["up"]);
    home.signal("supervisor", Signal::SIGKILL);
    home.signal("node", Signal::SIGKILL);
    home.ok(&["down"]);
    assert!(home.processes().is_empty(), "{:?}", home.processes());
}

fn pids(home: &Home) -> HashMap<&'static str, Value> {
    PARTS.into_iter().chain(["supervisor"]).map(|name| (name, home.part(name)["pid"].clone())).collect()
}

fn check<'a>(doctor: &'a Value, about: &str) -> &'a Value {
    let checks = doctor["checks"].as_array().unwrap();
    checks.iter().find(|check| check["about"] == about).unwrap_or_else(|| panic!("nothing about {about}: {doctor}"))
}

fn check_level(home: &Home, about: &str) -> String {
    check(&home.answer(&["doctor"]), about)["level"].as_str().unwrap().to_owned()
}

fn told(home: &Home, about: &str, level: &str, what: &str) -> bool {
    let doctor = home.answer(&["doctor"]);
    let check = check(&doctor, about);
    check["level"] == level && check["what"].as_str().unwrap().contains(what)
}

/// Sends as a careful script does: again, under the same key, until the node has it.
async fn accepted(home: &Home, text: &str) {
    wait::until("the node accepts the message", || async {
        home.run(&["send", "bob", text, "--agent", "alice", "--idempotency-key", text]).status.success().then_some(())
    })
    .await;
}

async fn arrived(home: &Home, texts: &[String]) {
    wait::until("the messages are in the inbox, once each", || async {
        let inbox = home.answer(&["inbox", "--agent", "bob", "--peek"]);
        let bodies: Vec<_> = inbox["messages"].as_array()?.iter().map(|message| message["body"].clone()).collect();
        assert!(bodies.len() <= texts.len(), "{bodies:?}");
        (bodies.len() == texts.len() && texts.iter().all(|text| bodies.contains(&Value::from(text.as_str()))))
            .then_some(())
    })
    .await;
}
