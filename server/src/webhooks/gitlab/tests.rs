use serde_json::json;

use super::*;

/// Bodies in the shape that GitLab documents.
fn body(kind: &str, attributes: &Value, more: &Value) -> Map<String, Value> {
    let mut body = json!({
        "object_kind": kind, "user": {"id": 1, "username": "root"}, "project": {"id": 5, "path_with_namespace": "Acme/shop/api"},
        "object_attributes": attributes,
    });
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    let Value::Object(body) = body else { unreachable!() };
    body
}

fn report(kind: &str, attributes: &Value, more: &Value) -> Report {
    read(kind, body(kind, attributes, more)).unwrap().unwrap()
}

fn merge_request() -> Value {
    json!({"id": 99, "iid": 1, "source_branch": "topic", "source_project_id": 5, "target_project_id": 5, "state": "opened",
        "updated_at": "2026-03-21 18:27:27 UTC", "url": "https://gitlab.example/acme/shop/api/-/merge_requests/1"})
}

fn note() -> Value {
    json!({"id": 1244, "note": "This needs work.", "noteable_type": "MergeRequest", "system": false, "action": "create",
        "updated_at": "2026-05-17 18:21:36 UTC", "position": {"new_path": "src/a.rs", "new_line": 3}})
}

#[test]
fn a_note_on_a_merge_request_is_a_pr_comment() {
    let report = report("note", &note(), &json!({"merge_request": merge_request()}));
    let told = report.told.unwrap();
    assert_eq!(
        (told.kind.as_str(), told.text.as_str(), told.prs.as_slice()),
        ("pr_comment", "This needs work.", &[1][..])
    );
    assert_eq!((told.branches.as_slice(), told.attributes["line"].as_str()), (&["topic".to_owned()][..], "3"));
    assert_eq!((told.author.unwrap().name.as_str(), report.pull.unwrap().state), ("root", State::Open));
}

#[test]
fn other_notes_and_a_forks_branch_are_nobodys() {
    let mut issue = note();
    issue["noteable_type"] = "Issue".into();
    assert_eq!(report("note", &issue, &json!({"issue": {"iid": 1}})).told, None);
    let mut system = note();
    system["system"] = true.into();
    assert_eq!(report("note", &system, &json!({"merge_request": merge_request()})).told, None);
    let mut fork = merge_request();
    fork["source_project_id"] = 6.into();
    let report = report("note", &note(), &json!({"merge_request": fork}));
    assert_eq!((report.told.unwrap().branches, report.pull.unwrap().branch), (vec![], String::new()));
}

#[test]
fn approvals_are_reviews_and_the_end_is_told() {
    let merge = |action: &str, state: &str| {
        let mut merge = merge_request();
        merge["action"] = action.into();
        merge["state"] = state.into();
        report("merge_request", &merge, &json!({}))
    };
    let approved = merge("approved", "opened").told.unwrap();
    assert_eq!((approved.kind.as_str(), approved.attributes["state"].as_str()), ("pr_review", "approved"));
    let merged = merge("merge", "merged");
    assert_eq!(
        (merged.pull.unwrap().state, merged.told.unwrap().text.as_str()),
        (State::Merged, "Merge request Acme/shop/api!1 was merged by root.")
    );
    assert_eq!((merge("update", "opened").told, merge("close", "closed").pull.unwrap().state), (None, State::Closed));
}

#[test]
fn a_pipeline_that_has_ended_is_a_ci_result() {
    let run = |status: &str| json!({"id": 31, "ref": "topic", "tag": false, "sha": "bcbb5ec3", "status": status, "finished_at": "2026-08-12 15:26:29 UTC"});
    let failed = report("pipeline", &run("failed"), &json!({})).told.unwrap();
    assert_eq!(
        (failed.kind.as_str(), failed.attributes["conclusion"].as_str(), failed.branches.as_slice()),
        ("ci_result", "failure", &["topic".to_owned()][..])
    );
    assert_eq!(report("pipeline", &run("running"), &json!({})).told, None);
    let of_merge = report("pipeline", &run("success"), &json!({"merge_request": merge_request()})).told.unwrap();
    assert_eq!((of_merge.prs, of_merge.branches), (vec![1], vec!["topic".to_owned()]));
}

#[test]
fn a_push_tells_its_files() {
    let commit = json!({"timestamp": "2026-01-03T23:36:29+02:00", "added": ["b"], "modified": ["a"], "removed": []});
    let push = |name: &str| {
        let more = json!({"ref": name, "before": "95790bf8", "after": "da156088", "commits": [commit]});
        report("push", &json!({}), &more).push
    };
    assert_eq!(push("refs/heads/topic").unwrap().paths, ["a", "b"]);
    assert_eq!(push("refs/tags/v1"), None);
}

#[test]
fn what_is_no_such_type_is_refused() {
    for kind in ["note", "merge_request", "pipeline", "push"] {
        for other in ["note", "merge_request", "pipeline", "push"].into_iter().filter(|other| *other != kind) {
            let more = match other {
                "note" => json!({"object_attributes": note(), "merge_request": {}}),
                "pipeline" => json!({"object_attributes": {"id": 1}}),
                "push" => json!({"ref": "refs/heads/x"}),
                _ => json!({"object_attributes": {"id": 1, "action": "merge"}}),
            };
            assert!(read(kind, body(kind, &json!({}), &more)).unwrap().is_err(), "a {other} was read as {kind}");
        }
    }
    assert!(read("tag_push", Map::new()).is_none());
}
