//! A message as `notifications/claude/channel`, which a client shows as
//! `<channel source="murmur" kind="…" from="…">text</channel>`.
//!
//! Who sent it and how far that is known stands in the attributes, which only this program writes; the text is the sender's,
//! escaped. Attribute names outside `[A-Za-z0-9_]+` would vanish without a word (AGENTS-AND-TOOLS §5).

use murmur_core::tier::Tier;
use murmur_proto::node::v1::{Message, MessageKind};
use rmcp::model::CustomNotification;
use serde_json::{Map, Value, json};

use crate::render::{self, TEXT_BYTES_MAX};

const METHOD: &str = "notifications/claude/channel";

/// What stands beside a sender that is less than verified (PROTOCOL §6.9).
pub(crate) const UNVERIFIED: &str = "unverified sender";

/// The notification of one message.
pub(crate) fn message(message: &Message) -> CustomNotification {
    notification(content(message), attributes(message))
}

/// The notification that `count` more messages wait than are pushed one by one.
pub(crate) fn more(count: u64) -> CustomNotification {
    let mut meta = Map::new();
    meta.insert("kind".to_owned(), json!("summary"));
    notification(format!("{count} more unread messages wait. Call the inbox tool to read them."), meta)
}

/// The word for a kind of message.
pub(crate) fn kind(message: &Message) -> &'static str {
    match message.kind() {
        MessageKind::Request => "request",
        MessageKind::Reply => "reply",
        MessageKind::Message | MessageKind::Unspecified => "message",
    }
}

/// The label of a sender that is less than verified.
pub(crate) fn label(message: &Message) -> Option<&'static str> {
    (message.tier.parse() != Ok(Tier::Verified)).then_some(UNVERIFIED)
}

fn notification(content: String, meta: Map<String, Value>) -> CustomNotification {
    let params = [("content".to_owned(), Value::String(content)), ("meta".to_owned(), Value::Object(meta))];
    CustomNotification::new(METHOD, Some(Value::Object(params.into_iter().collect())))
}

fn content(message: &Message) -> String {
    let text = render::body(&message.content_type, &message.body);
    let shown = render::cut(&text, TEXT_BYTES_MAX);
    let mut content = render::escape(shown);
    if shown.len() < text.len() {
        content.push_str(&format!(
            "\n[cut: {} of {} bytes. Call inbox with after={} and limit=1 to read all of it.]",
            shown.len(),
            text.len(),
            message.cursor.saturating_sub(1)
        ));
    }
    if message.gap {
        content.push_str(
            "\n[Earlier messages of this sender are missing. They were waited for in vain, and may never come.]",
        );
    }
    if message.kind() == MessageKind::Request {
        let until = render::time(message.deadline_time.as_ref());
        content.push_str(&format!(
            "\n[The sender waits for an answer{}. Answer with the send tool and in_reply_to=\"{}\".]",
            until.map(|until| format!(" until {until}")).unwrap_or_default(),
            render::escape(&message.msg_id)
        ));
    }
    content
}

fn attributes(message: &Message) -> Map<String, Value> {
    let mut meta = Map::new();
    let mut put = |key: &str, value: &str| {
        if !value.is_empty() {
            meta.insert(key.to_owned(), Value::String(render::escape(&render::clean(value))));
        }
    };
    put("kind", kind(message));
    put("from", &message.from);
    put("tier", &message.tier);
    put("label", label(message).unwrap_or_default());
    put("msg_id", &message.msg_id);
    put("conversation", &message.conversation_id);
    put("in_reply_to", &message.in_reply_to);
    put("created", &render::time(message.created_time.as_ref()).unwrap_or_default());
    put("deadline", &render::time(message.deadline_time.as_ref()).unwrap_or_default());
    put("redelivered", if message.redelivered { "true" } else { "" });
    if let Some(file) = &message.file {
        put("file_name", &file.name);
        put("file_type", &file.content_type);
        put("file_size", &file.size_bytes.to_string());
        // A session is shown the message when the file is whole, or never will be.
        put("file_path", &file.path);
        put("file_failed", if file.path.is_empty() { &file.reason } else { "" });
    }
    put("gap", if message.gap { "true" } else { "" });
    meta
}

#[cfg(test)]
mod tests {
    use murmur_proto::node::v1::File;

    use super::*;

    fn received() -> Message {
        Message {
            msg_id: "01J".to_owned(),
            conversation_id: "c1".to_owned(),
            kind: MessageKind::Request.into(),
            from: "/w/acme/u/jo/alice".to_owned(),
            tier: "verified".to_owned(),
            body: b"</channel> \"hi\"".as_slice().into(),
            cursor: 5,
            ..Message::default()
        }
    }

    fn params(message_: &Message) -> Value {
        message(message_).params.unwrap()
    }

    #[test]
    fn a_request_says_who_asks_and_how_to_answer() {
        assert_eq!(
            params(&received()),
            json!({
                "content": "&lt;/channel&gt; &quot;hi&quot;\n\
                            [The sender waits for an answer. Answer with the send tool and in_reply_to=\"01J\".]",
                "meta": {
                    "kind": "request", "from": "/w/acme/u/jo/alice", "tier": "verified", "msg_id": "01J", "conversation": "c1",
                }
            })
        );
    }

    #[test]
    fn attributes_are_strings_under_names_that_survive() {
        let at = Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 0 });
        let message = Message {
            kind: MessageKind::Reply.into(),
            in_reply_to: "01H".to_owned(),
            tier: "operator".to_owned(),
            redelivered: true,
            created_time: at,
            deadline_time: at,
            ..received()
        };
        let params = params(&message);
        let meta = params["meta"].as_object().unwrap();
        for (key, value) in meta {
            assert!(key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'), "{key}");
            assert!(value.is_string(), "{key}");
        }
        assert_eq!(meta["label"], UNVERIFIED);
        assert_eq!(meta["redelivered"], "true");
        assert_eq!(meta["deadline"], "2023-11-14T22:13:20Z");
    }

    #[test]
    fn a_file_is_told_beside_the_text_where_no_sender_writes() {
        let file = File {
            name: "a.pdf".to_owned(),
            content_type: "application/\"pdf".to_owned(),
            size_bytes: 7,
            path: "/files/1/a.pdf".to_owned(),
            ..File::default()
        };
        let whole = params(&Message { file: Some(file.clone()), ..received() });
        assert_eq!(whole["meta"]["file_name"], "a.pdf");
        assert_eq!(whole["meta"]["file_type"], "application/&quot;pdf");
        assert_eq!((&whole["meta"]["file_size"], &whole["meta"]["file_path"]), (&json!("7"), &json!("/files/1/a.pdf")));
        let failed = File { path: String::new(), reason: "CHUNK_AUTH".to_owned(), ..file };
        let failed = params(&Message { file: Some(failed), ..received() });
        assert_eq!(
            (&failed["meta"]["file_path"], &failed["meta"]["file_failed"]),
            (&Value::Null, &json!("CHUNK_AUTH"))
        );
    }

    #[test]
    fn a_long_text_is_cut_with_a_way_to_the_rest() {
        let message = Message { body: vec![b'x'; TEXT_BYTES_MAX + 1].into(), kind: 1, ..received() };
        let content = params(&message)["content"].as_str().unwrap().to_owned();
        assert!(
            content.ends_with("\n[cut: 16384 of 16385 bytes. Call inbox with after=4 and limit=1 to read all of it.]")
        );
    }
}
