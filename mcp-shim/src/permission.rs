//! The client's questions whether a tool may be used, passed on to whoever may answer.
//!
//! The client asks by a notification and goes on asking its own user; whichever answer comes first counts there (the channels reference of
//! Claude Code). So nothing here waits, and a question that cannot be passed on is lost to nobody.

use std::sync::Arc;

use murmur_proto::node::v1::AskPermissionRequest;
use rmcp::model::CustomNotification;
use serde::Deserialize;

use crate::{render, shared::Shared};

const METHOD: &str = "notifications/claude/channel/permission_request";
/// What the node takes as the name of a tool.
const TOOL_NAME_BYTES_MAX: usize = 128;
/// What the node keeps of the other words.
const WORDS_BYTES_MAX: usize = 4 * 1024;

/// What the client says.
#[derive(Debug, PartialEq, Eq, Deserialize)]
struct Question {
    request_id: String,
    #[serde(default)]
    tool_name: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    input_preview: String,
}

/// Passes a question on, if the notification is one.
pub(crate) async fn heed(shared: &Arc<Shared>, notification: CustomNotification) {
    let Some(question) = question(notification) else { return };
    let agent = match shared.binding.speaker().await {
        Ok(agent) => agent,
        Err(failure) => return tracing::warn!("a permission request is not passed on: {failure}"),
    };
    let request = AskPermissionRequest {
        agent,
        request_id: question.request_id,
        tool_name: question.tool_name,
        description: question.description,
        input_preview: question.input_preview,
        instance: shared.instance.clone(),
    };
    let asked = match shared.node.client() {
        Ok(mut client) => shared.node.answer(client.permissions.ask_permission(request)).await,
        Err(failure) => Err(failure),
    };
    match asked {
        Ok(asked) => tracing::debug!("a permission request was passed on to {} agents", asked.told.len()),
        Err(failure) => tracing::warn!("a permission request is not passed on: {failure}"),
    }
}

fn question(notification: CustomNotification) -> Option<Question> {
    if notification.method != METHOD {
        return None;
    }
    let question: Question = match serde_json::from_value(notification.params.unwrap_or_default()) {
        Ok(question) => question,
        Err(error) => {
            tracing::warn!("a permission request cannot be read: {error}");
            return None;
        }
    };
    let line = render::clean(&question.tool_name).replace(['\n', '\t'], " ");
    let words = |text: &str| render::cut(&render::clean(text), WORDS_BYTES_MAX).to_owned();
    Some(Question {
        tool_name: render::cut(&line, TOOL_NAME_BYTES_MAX).to_owned(),
        description: words(&question.description),
        input_preview: words(&question.input_preview),
        request_id: question.request_id,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_question_is_read_and_made_harmless() {
        let asked = |params| question(CustomNotification::new(METHOD, Some(params)));
        let read = asked(json!({
            "request_id": "abcde", "tool_name": "Bash\n", "description": "list\u{202e} files", "input_preview": "{\"command\":\"ls\"}",
        }));
        let read = read.unwrap();
        assert_eq!((read.request_id.as_str(), read.tool_name.as_str()), ("abcde", "Bash "));
        assert_eq!((read.description.as_str(), read.input_preview.as_str()), ("list files", "{\"command\":\"ls\"}"));
        assert_eq!(asked(json!({"tool_name": "Bash"})), None);
        assert_eq!(asked(json!("abcde")), None);
        assert_eq!(
            question(CustomNotification::new("notifications/other", Some(json!({"request_id": "abcde"})))),
            None
        );
    }
}
