use std::{collections::BTreeMap, fs, path::Path};

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{db::pull_request::State, webhooks::report::Told};

/// Real deliveries, a few of each type, with types that are not understood among them.
fn examples() -> BTreeMap<String, Vec<Value>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/github");
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let event = path.file_stem().unwrap().to_string_lossy().into_owned();
            found.insert(event, serde_json::from_slice(&fs::read(&path).unwrap()).unwrap());
        }
    }
    assert!(found.len() > SHAPES.len(), "the examples are gone");
    found
}

fn example(event: &str, action: &str) -> Value {
    let all = examples().remove(event).unwrap();
    let found = all.into_iter().find(|body| action.is_empty() || body["action"] == action);
    found.unwrap_or_else(|| panic!("no {event} of action {action}"))
}

fn report(event: &str, body: Value) -> Result<Report, String> {
    let Value::Object(body) = body else { panic!("an object") };
    read(event, body).unwrap().map_err(|error| error.to_string())
}

/// The one among the examples that has ended was left without a result.
fn workflow_run() -> Value {
    let mut run = example("workflow_run", "completed");
    run["workflow_run"]["name"] = "CI".into();
    run["workflow_run"]["conclusion"] = "success".into();
    run["workflow_run"]["head_repository"]["full_name"] = run["repository"]["full_name"].clone();
    run
}

fn told(event: &str, body: Value) -> Told {
    report(event, body).unwrap().told.unwrap()
}

fn attributes(told: &Told, names: &[&str]) -> Vec<String> {
    names.iter().map(|name| told.attributes.get(*name).cloned().unwrap_or_default()).collect()
}

#[test]
fn every_example_of_a_type_is_read_as_that_type() {
    for (event, bodies) in examples() {
        for body in bodies {
            if SHAPES.iter().any(|shape| shape.event == event) {
                let read = report(&event, body.clone());
                assert!(read.is_ok(), "{event}: {read:?}\n{body:#}");
            }
        }
    }
}

#[test]
fn a_delivery_passes_as_no_other_type() {
    let mut tried = 0;
    for (event, bodies) in examples() {
        for shape in SHAPES.iter().filter(|shape| shape.event != event) {
            for body in &bodies {
                tried += 1;
                let read = report(shape.event, body.clone());
                assert!(read.is_err(), "a {event} was read as {}: {read:?}", shape.event);
            }
        }
    }
    assert!(tried > 200, "{tried}");
}

#[test]
fn a_comment_on_a_line_is_a_pr_comment() {
    let mut body = example("pull_request_review_comment", "created");
    body["comment"]["line"] = 7.into();
    let told = told("pull_request_review_comment", body);
    assert_eq!(told.kind.as_str(), "pr_comment");
    let names = ["repo", "pr", "comment_id", "author", "path", "line"];
    let wanted = ["Codertocat/Hello-World", "2", "284312630", "Codertocat", "README.md", "7"];
    assert_eq!(attributes(&told, &names), wanted);
    assert_eq!((told.text.as_str(), told.prs.as_slice()), ("Maybe you should use more emoji on this line.", &[2][..]));
    assert_eq!(told.branches, ["changes"]);
    assert!(told.author.unwrap().is_member && told.at_ms == Some(1_557_933_638_000));
}

#[test]
fn a_comment_on_an_issue_is_told_of_pull_requests_alone() {
    let mut body = example("issue_comment", "created");
    assert_eq!(report("issue_comment", body.clone()).unwrap().told, None);
    body["issue"]["pull_request"] = json!({"html_url": "https://github.com/Codertocat/Hello-World/pull/1"});
    let comment = told("issue_comment", body.clone());
    assert_eq!(attributes(&comment, &["pr", "author", "path"]), ["1", "Codertocat", ""]);
    assert!(comment.text.starts_with("You are totally right!"));

    // Another's words, an edit of them, and an account that is gone.
    body["comment"]["author_association"] = "NONE".into();
    assert!(!told("issue_comment", body.clone()).author.unwrap().is_member);
    body["comment"]["updated_at"] = "2019-05-15T15:20:22Z".into();
    assert_ne!(told("issue_comment", body.clone()).event_id, comment.event_id);
    body["comment"]["user"] = Value::Null;
    assert_eq!(told("issue_comment", body.clone()).author.unwrap().name, "ghost");
    body["action"] = "deleted".into();
    assert_eq!(report("issue_comment", body).unwrap().told, None);
}

#[test]
fn a_review_is_told_with_its_verdict() {
    let mut body = example("pull_request_review", "submitted");
    body["review"]["state"] = "changes_requested".into();
    body["review"]["body"] = "not yet".into();
    let verdict = told("pull_request_review", body.clone());
    let names = ["repo", "pr", "review_id", "author", "state"];
    let wanted = ["Codertocat/Hello-World", "2", "237895671", "Codertocat", "changes_requested"];
    assert_eq!(
        (verdict.kind.as_str(), attributes(&verdict, &names)),
        ("pr_review", wanted.map(str::to_owned).to_vec())
    );
    assert_eq!(verdict.text, "not yet");

    // Each comment on a line comes with a review that says nothing of its own.
    body["review"]["state"] = "commented".into();
    body["review"]["body"] = Value::Null;
    let silent = report("pull_request_review", body).unwrap();
    assert_eq!((silent.told, silent.pull.unwrap().number), (None, 2));
}

#[test]
fn a_fork_cannot_speak_for_a_branch_of_the_repository() {
    let mut body = example("pull_request_review_comment", "created");
    body["pull_request"]["head"]["repo"]["full_name"] = "mallory/Hello-World".into();
    body["pull_request"]["head"]["ref"] = "master".into();
    let report = report("pull_request_review_comment", body.clone()).unwrap();
    assert_eq!((report.told.unwrap().branches.len(), report.pull.unwrap().branch.as_str()), (0, ""));
    body["pull_request"]["head"]["repo"] = Value::Null;
    assert!(told("pull_request_review_comment", body).branches.is_empty());

    let mut run = workflow_run();
    run["workflow_run"]["head_repository"]["full_name"] = "mallory/Hello-World".into();
    assert!(told("workflow_run", run).branches.is_empty());
}

#[test]
fn what_machines_say_is_a_ci_result_once_it_is_final() {
    let run = told("check_run", example("check_run", "completed"));
    assert_eq!(run.kind.as_str(), "ci_result");
    let wanted = ["Codertocat/Hello-World", "ec26c3e57ca3a959ca5aad62de7213c562f8c821", "Octocoders-linter", "failure"];
    assert_eq!(attributes(&run, &["repo", "sha", "check", "conclusion"]), wanted);
    assert!(run.attributes["url"].starts_with("https://github.com/") && run.author.is_none());
    assert_eq!((run.branches.as_slice(), run.prs.as_slice()), (&["changes".to_owned()][..], &[2][..]));

    let suite = told("check_suite", example("check_suite", "completed"));
    assert!(suite.attributes["check"].starts_with("suite") && suite.branches == ["changes"]);
    let status = told("status", example("status", ""));
    assert_eq!(attributes(&status, &["check", "conclusion"]), ["default", "success"]);
    assert!(status.branches.contains(&"master".to_owned()));
    let workflow = told("workflow_run", workflow_run());
    assert_eq!(attributes(&workflow, &["check", "conclusion", "branch"]), ["CI", "success", "main"]);

    assert_eq!(report("check_run", example("check_run", "created")).unwrap().told, None);
    assert_eq!(report("workflow_run", example("workflow_run", "requested")).unwrap().told, None);
    let mut pending = example("status", "");
    pending["state"] = "pending".into();
    assert_eq!(report("status", pending).unwrap().told, None);
}

#[test]
fn a_push_tells_each_changed_file_once() {
    let pushes = examples().remove("push").unwrap();
    let tag = pushes.iter().find(|push| push["ref"] == "refs/tags/simple-tag").unwrap();
    assert_eq!(report("push", tag.clone()).unwrap().push, None);
    let mut branch = pushes.iter().find(|push| push["ref"] == "refs/heads/master").unwrap().clone();
    let commit = json!({"timestamp": "2019-05-15T15:20:41Z", "added": ["b", "a"], "removed": ["c"], "modified": ["a"]});
    branch["commits"] = json!([commit, commit]);
    let push = report("push", branch.clone()).unwrap().push.unwrap();
    assert_eq!((push.branch.as_str(), push.paths.as_slice()), ("master", &["a", "b", "c"].map(str::to_owned)[..]));
    assert_eq!(
        (push.before.as_str(), push.after.as_str()),
        (branch["before"].as_str().unwrap(), branch["after"].as_str().unwrap())
    );
    assert!(push.event_id.len() <= 128 && push.at_ms.is_some());
    branch["deleted"] = true.into();
    assert_eq!(report("push", branch).unwrap().push, None);
}

#[test]
fn a_pull_request_is_written_down_and_told_when_it_ends() {
    let opened = report("pull_request", example("pull_request", "opened")).unwrap();
    let pull = opened.pull.unwrap();
    assert_eq!((pull.number, pull.branch.as_str()), (2, "changes"));
    assert_eq!((pull.state, opened.told), (State::Open, None));
    let mut closed = example("pull_request", "closed");
    let report_ = report("pull_request", closed.clone()).unwrap();
    assert_eq!(
        (report_.pull.unwrap().state, report_.told.unwrap().attributes["state"].as_str()),
        (State::Closed, "closed")
    );
    closed["pull_request"]["merged_at"] = "2019-05-15T15:20:33Z".into();
    let merged = report("pull_request", closed).unwrap();
    let told = merged.told.unwrap();
    assert_eq!((merged.pull.unwrap().state, told.kind.as_str()), (State::Merged, "notify"));
    assert_eq!(told.text, "Pull request Codertocat/Hello-World#2 was merged by Codertocat.");
}

/// Replaces one value somewhere in a body.
fn changed(body: &mut Value, way: &[usize], new: &Value) {
    let Some((step, rest)) = way.split_first() else {
        *body = new.clone();
        return;
    };
    let inner = match body {
        Value::Object(map) if !map.is_empty() => {
            let at = step % map.len();
            map.iter_mut().nth(at).map(|(_, value)| value)
        }
        Value::Array(list) if !list.is_empty() => {
            let at = step % list.len();
            list.get_mut(at)
        }
        _ => None,
    };
    match inner {
        Some(inner) => changed(inner, rest, new),
        None => *body = new.clone(),
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,40}".prop_map(Value::from),
        Just(Value::from("x".repeat(10_000))),
        Just(json!("2019-05-15T15:20:33Z")),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map("[a-z_]{1,8}", inner, 0..4).prop_map(|map| json!(map)),
        ]
    })
}

proptest! {
    #[test]
    fn whatever_stands_in_a_delivery_is_read_or_refused(
        pick in any::<prop::sample::Index>(),
        label in any::<prop::sample::Index>(),
        changes in prop::collection::vec((prop::collection::vec(any::<usize>(), 1..6), any_value()), 0..4),
    ) {
        let all: Vec<Value> = examples().into_values().flatten().collect();
        let mut body = pick.get(&all).clone();
        for (way, new) in &changes {
            changed(&mut body, way, new);
        }
        let shape = label.get(&SHAPES);
        if let Value::Object(body) = body
            && let Some(Ok(Report { told: Some(told), .. })) = read(shape.event, body)
        {
            let draft = told.draft(murmur_core::event::Origin::Verified("github"), false, 1);
            prop_assert!(draft.event_id.len() <= 128 && draft.text.len() <= 4096 && draft.time_ms <= 1);
            prop_assert!(draft.attributes.values().all(|value| value.len() <= 1024));
            prop_assert_eq!(draft.check_attributes(), Ok(()));
        }
    }
}
