//! One log against a model of it: whatever is published, repeated, late or replaced, and whenever it is read.

use std::collections::BTreeMap;

use murmur_proto::v1;
use proptest::{
    prelude::*,
    strategy::ValueTree as _,
    test_runner::{Config, TestRunner},
};

use super::{event, feed, log, publish};
use crate::{agents::ready, world::World};

const CASES: u32 = 12;

/// What is published.
#[derive(Debug, Clone)]
struct Told {
    /// Ids come again.
    id: u8,
    /// Of a check, which a newer result replaces; `None` for words, which stand beside each other.
    check: Option<u8>,
    /// So many seconds ago it happened.
    age_s: u8,
}

/// A row as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    event_id: String,
    check: Option<u8>,
    age_s: u8,
    superseded: bool,
}

#[derive(Default)]
struct Model(Vec<Row>);

impl Model {
    /// False for a repeat.
    fn publish(&mut self, told: &Told) -> bool {
        let event_id = format!("human:jdoe:{}", told.id);
        if self.0.iter().any(|row| row.event_id == event_id) {
            return false;
        }
        let current = self.0.iter_mut().find(|row| told.check.is_some() && row.check == told.check && !row.superseded);
        // What happened before what stands there is news to nobody.
        let superseded = current.as_ref().is_some_and(|row| row.age_s < told.age_s);
        if let Some(row) = current.filter(|_| !superseded) {
            row.superseded = true;
        }
        self.0.push(Row { event_id, check: told.check, age_s: told.age_s, superseded });
        true
    }

    fn current(&self) -> Vec<&str> {
        self.0.iter().filter(|row| !row.superseded).map(|row| row.event_id.as_str()).collect()
    }
}

fn told() -> impl Strategy<Value = Told> {
    (0..20_u8, proptest::option::of(0..3_u8), 0..4_u8).prop_map(|(id, check, age_s)| Told { id, check, age_s })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_what_its_model_says() {
    let mut runner = TestRunner::new(Config { cases: CASES, ..Config::default() });
    let strategy = proptest::collection::vec(told(), 1..30);
    for case in 0..CASES {
        let all = strategy.new_tree(&mut runner).unwrap().current();
        let world = World::start().await;
        let (owner, node, _) = ready(&world).await;
        let person = world.person(&owner, "jdoe").await;
        node.node.agent(&world, "alice").await;
        let mut model = Model::default();
        for told in &all {
            let new = model.publish(told);
            let answer = publish(&person, request(&world, told)).await.unwrap();
            assert_eq!(answer.duplicate, !new, "case {case}: {told:?} of {all:?}");
        }
        let world = world.restart().await;
        let person = world.person(&owner, "jdoe").await;
        let stored = log(&person, "/u/jdoe/alice", true).await;
        let ids = |events: &[v1::Event]| -> Vec<String> { events.iter().map(|event| event.event_id.clone()).collect() };
        let rows: Vec<_> = stored.iter().map(|event| (event.event_id.as_str(), event.superseded)).collect();
        let expected: Vec<_> = model.0.iter().map(|row| (row.event_id.as_str(), row.superseded)).collect();
        assert_eq!(rows, expected, "case {case}: {all:?}");
        assert_eq!(ids(&log(&person, "/u/jdoe/alice", false).await), model.current(), "case {case}: {all:?}");
        // From whichever event its node goes on, it is told all that is behind it.
        let (_, whole) = feed(&world, &node, 0).await;
        let positions: BTreeMap<_, _> = whole.iter().map(|(position, event)| (&event.event_id, *position)).collect();
        for (index, id) in model.current().iter().enumerate() {
            let (_, rest) = feed(&world, &node, positions[&(*id).to_owned()]).await;
            let rest: Vec<_> = rest.iter().map(|(_, event)| event.event_id.as_str()).collect();
            assert_eq!(rest, model.current()[index + 1..], "case {case}: {all:?}");
        }
    }
}

fn request(world: &World, told: &Told) -> v1::PublishEventRequest {
    let seconds = i64::try_from(world.now_ms() / 1000).unwrap() - i64::from(told.age_s);
    let kind = if told.check.is_some() { "ci_result" } else { "notify" };
    let mut request = event("/u/jdoe/alice", kind, "x");
    request.event_id = told.id.to_string();
    request.time = Some(prost_types::Timestamp { seconds, nanos: 0 });
    if let Some(check) = told.check {
        for (name, value) in [("repo", "acme/widgets"), ("sha", "abc"), ("check", &check.to_string())] {
            request.attributes.insert(name.into(), value.into());
        }
    }
    request
}
