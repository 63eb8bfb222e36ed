//! The result of a tool call: structured for programs, the same as text, and how much of it there is.
//!
//! A client may show its model the structured form alone, so what must be seen stands in both.

use std::time::Duration;

use rmcp::model::{CallToolResult, ContentBlock, MetaObject};
use serde::Serialize;
use serde_json::{Value, json};

use crate::errors::Failure;

/// What stands beside a tool's own answer.
#[derive(Debug, Default)]
pub(crate) struct Aside {
    /// Something to know or do now.
    pub(crate) notice: Option<String>,
    /// The number of unread messages, if it is worth telling.
    pub(crate) unread: Option<u64>,
}

/// A tool's answer.
pub(crate) fn answer(answer: &impl Serialize, is_error: bool, aside: Aside, took: Duration) -> CallToolResult {
    let mut value = serde_json::to_value(answer).unwrap_or_default();
    if let Value::Object(object) = &mut value {
        if let Some(unread) = aside.unread {
            object.insert("unread".to_owned(), json!(unread));
        }
        if let Some(notice) = &aside.notice {
            object.insert("notice".to_owned(), json!(notice));
        }
    }
    let text = first_line(aside.notice, value.to_string());
    let mut result = CallToolResult::structured(value);
    result.is_error = Some(is_error);
    result.content = vec![ContentBlock::text(text.as_str())];
    measured(result, &text, took)
}

/// Why there is no answer. It has no structured form: a client would hold that against the schema of the answer.
pub(crate) fn failure(failure: &Failure, aside: Aside, took: Duration) -> CallToolResult {
    let text = first_line(aside.notice, failure.text());
    let mut result = measured(CallToolResult::error(vec![ContentBlock::text(text.as_str())]), &text, took);
    if let Some(meta) = &mut result.meta {
        meta.insert("reason".to_owned(), json!(failure.reason.as_str()));
    }
    result
}

fn first_line(notice: Option<String>, text: String) -> String {
    match notice {
        Some(notice) => format!("{notice}\n{text}"),
        None => text,
    }
}

fn measured(mut result: CallToolResult, text: &str, took: Duration) -> CallToolResult {
    let mut meta = MetaObject::new();
    meta.insert("chars".to_owned(), json!(text.chars().count()));
    meta.insert("lines".to_owned(), json!(text.lines().count()));
    meta.insert("ms".to_owned(), json!(took.as_micros() as f64 / 1000.0));
    result.meta = Some(meta);
    result
}

#[cfg(test)]
mod tests {
    use murmur_core::reason::Reason;

    use super::*;

    fn text(result: &CallToolResult) -> String {
        serde_json::to_value(&result.content[0]).unwrap()["text"].as_str().unwrap().to_owned()
    }

    #[test]
    fn structure_and_text_are_equal_and_measured() {
        let aside = Aside { notice: Some("3 unread messages: call inbox".to_owned()), unread: Some(3) };
        let result = answer(&json!({"to": "é"}), false, aside, Duration::from_micros(1500));
        assert_eq!(
            text(&result),
            "3 unread messages: call inbox\n{\"notice\":\"3 unread messages: call inbox\",\"to\":\"é\",\"unread\":3}"
        );
        let expected = json!({"to": "é", "unread": 3, "notice": "3 unread messages: call inbox"});
        assert_eq!(result.structured_content, Some(expected));
        assert_eq!(Value::Object(result.meta.unwrap().0), json!({"chars": 92, "lines": 2, "ms": 1.5}));
    }

    #[test]
    fn a_failure_is_an_error_result_without_structure() {
        let failure_ = Failure::argument("argument `to` is missing");
        let result = failure(&failure_, Aside::default(), Duration::ZERO);
        assert_eq!(result.is_error, Some(true));
        assert_eq!(result.structured_content, None);
        assert!(text(&result).starts_with("FIELD_INVALID: argument `to` is missing.\nWhat to do: "));
        assert_eq!(result.meta.unwrap()["reason"], Reason::FieldInvalid.as_str());
    }
}
