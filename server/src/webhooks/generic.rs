//! Anybody who signs as Standard Webhooks says (standardwebhooks.com): the body is an event of ours.

use std::collections::BTreeMap;

use murmur_core::event::{InvalidAttribute, Kind, Origin};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    moment::unix_ms,
    report::{Report, Told},
};

/// What a body may hold; anything else is refused by name.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    /// `owner/name`.
    repo: String,
    branch: Option<String>,
    pr: Option<u64>,
    #[serde(default)]
    text: String,
    #[serde(default)]
    attributes: BTreeMap<String, Value>,
    /// RFC 3339; absent: now.
    time: Option<String>,
    /// Whose words these are; absent: the sender's own.
    author: Option<String>,
}

/// A body that cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unlike {
    /// A field is missing, unknown or of the wrong type.
    #[error("the body is no event: {0}")]
    Json(#[from] serde_json::Error),
    /// The attributes break a rule.
    #[error("attributes: {0}")]
    Attributes(#[from] InvalidAttribute),
    /// A field breaks a rule.
    #[error("{field}: {rule}")]
    Field {
        /// Which one.
        field: String,
        /// What it must be.
        rule: &'static str,
    },
}

/// The kind that a body asks for.
pub(super) fn kind(body: &Map<String, Value>) -> &str {
    body.get("kind").and_then(Value::as_str).unwrap_or("notify")
}

/// Reads a body; `id` is the signed `webhook-id`, `source` the name of the source.
pub(super) fn read(source: &str, id: &str, mut body: Map<String, Value>) -> Result<Report, Unlike> {
    let refuse = |field: &str, rule| Unlike::Field { field: field.to_owned(), rule };
    let kind: Kind = kind(&body).parse().map_err(|_| refuse("kind", "must be a word of a-z, 0-9 and _"))?;
    if kind.is_made_here() {
        return Err(refuse("kind", "must be none of those that the control plane alone makes"));
    }
    body.remove("kind");
    let Body { repo, branch, pr, text, attributes, time, author } = serde_json::from_value(Value::Object(body))?;
    if branch.is_none() && pr.is_none() {
        return Err(refuse("branch", "must be given, or pr: agents are found by one of the two"));
    }
    let at_ms = match time {
        Some(time) => Some(unix_ms(&time).ok_or_else(|| refuse("time", "must be a time as RFC 3339 writes it"))?),
        None => None,
    };
    let mut told = Told::new(kind, &format!("wh-{id}"), &repo).at(at_ms).branch(branch.as_deref());
    for (name, value) in attributes {
        let value = match value {
            Value::String(text) => text,
            Value::Number(number) => number.to_string(),
            Value::Bool(value) => value.to_string(),
            Value::Null | Value::Array(_) | Value::Object(_) => {
                return Err(refuse(&format!("attributes.{name}"), "must be a text, a number or a boolean"));
            }
        };
        told = told.with(&name, value);
    }
    // What routes stands last, so that no attribute contradicts it.
    told = told.with("repo", &repo).some("branch", branch.as_deref());
    if let Some(number) = pr {
        told = told.pr(number);
    }
    told = match &author {
        Some(author) => told.by(author, false),
        None => told.with("from", source).with("from_kind", "webhook"),
    };
    let told = told.text(&text);
    let attributes = told.draft(Origin::Murmur, false, 0).check_attributes();
    attributes?;
    Ok(Report::of(repo, told))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(value: Value) -> Result<Report, String> {
        let Value::Object(body) = value else { unreachable!() };
        read("deploys", "msg_1", body).map_err(|error| error.to_string())
    }

    #[test]
    fn a_body_becomes_an_event() {
        let report = of(json!({
            "kind": "deploy_done", "repo": "acme/shop", "branch": "main", "text": "rolled out",
            "attributes": {"stage": "eu", "hosts": 3, "repo": "other/repo"}, "time": "2026-01-02T03:04:05Z",
        }));
        let told = report.unwrap().told.unwrap();
        assert_eq!(
            (told.kind.as_str(), told.event_id.as_str(), told.text.as_str()),
            ("deploy_done", "wh-msg_1", "rolled out")
        );
        assert_eq!((told.attributes["repo"].as_str(), told.attributes["hosts"].as_str()), ("acme/shop", "3"));
        assert_eq!((told.at_ms, told.author), (Some(1_767_323_045_000), None));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (body, word) in [
            (json!({}), "repo"),
            (json!({"repo": "a/b"}), "branch"),
            (json!({"repo": "a/b", "branch": "x", "txt": ""}), "txt"),
            (json!({"repo": "a/b", "pr": -1}), "u64"),
            (json!({"repo": "a/b", "pr": 1, "time": "soon"}), "time"),
            (json!({"repo": "a/b", "pr": 1, "attributes": {"a": [1]}}), "attributes.a"),
        ] {
            let error = of(body).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }
}
