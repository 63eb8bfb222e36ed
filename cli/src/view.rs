//! Messages and deliveries as this program shows them: one JSON form and one for people, used by every command.

use data_encoding::BASE64;
use murmur_proto::node::v1::{Delivery, DeliveryState, Message, MessageKind, SentMessage};
use serde_json::{Map, Value, json};

use crate::{
    cmds::files::{file_json, file_text},
    output, text, time,
};

/// A message for programs. The body is `body` when it is text, else `body_base64`.
pub(crate) fn message_json(message: &Message) -> Value {
    let mut object = Map::new();
    let mut set = |key: &str, value: Value| object.insert(key.to_owned(), value);
    set("msg_id", json!(message.msg_id));
    set("conversation_id", json!(message.conversation_id));
    set("kind", json!(kind(message)));
    set("from", json!(message.from));
    set("to", json!(message.to));
    set("tier", json!(message.tier));
    set("content_type", json!(message.content_type));
    match std::str::from_utf8(&message.body) {
        Ok(text) => set("body", json!(text)),
        Err(_) => set("body_base64", json!(BASE64.encode(&message.body))),
    };
    set("in_reply_to", json!(some(&message.in_reply_to)));
    set("created_time", json!(time::rfc3339(message.created_time.as_ref())));
    set("received_time", json!(time::rfc3339(message.received_time.as_ref())));
    set("deadline_time", json!(time::rfc3339(message.deadline_time.as_ref())));
    set("sequence", json!(message.sequence));
    set("cursor", json!(message.cursor));
    set("redelivered", json!(message.redelivered));
    if let Some(file) = &message.file {
        set("file", file_json(file));
    }
    set("gap", json!(message.gap));
    Value::Object(object)
}

/// A message for people: a line about it, then its body, indented so that it cannot pass for a line of ours.
pub(crate) fn message_text(message: &Message) -> String {
    let when = time::rfc3339(message.received_time.as_ref().or(message.created_time.as_ref())).unwrap_or_default();
    let repeat = if message.redelivered { ", shown before" } else { "" };
    let gap = if message.gap { ", earlier ones are missing" } else { "" };
    let head = format!(
        "{} {} {when} [{}{repeat}{gap}]",
        kind(message),
        text::clean_line(&message.from),
        text::clean_line(&message.tier)
    );
    let reply = format!("  (reply with --in-reply-to {})", text::clean_line(&message.msg_id));
    format!("{}{reply}\n{}", output::bold(&head), said(message))
}

/// A line of ours about the file, if there is one, then the body, indented so that it cannot pass for a line of ours.
pub(crate) fn said(message: &Message) -> String {
    let file = message.file.as_ref().map(|file| format!("{}\n", file_text(file))).unwrap_or_default();
    format!("{file}{}", indented(&body_text(message)))
}

/// The body as text; a size when it is none.
pub(crate) fn body_text(message: &Message) -> String {
    match std::str::from_utf8(&message.body) {
        Ok(body) => text::clean(body),
        Err(_) => format!("({} bytes of {})", message.body.len(), text::clean_line(&message.content_type)),
    }
}

/// `message`, `request` or `reply`.
pub(crate) fn kind(message: &Message) -> &'static str {
    kind_word(message.kind())
}

const fn kind_word(kind: MessageKind) -> &'static str {
    match kind {
        MessageKind::Request => "request",
        MessageKind::Reply => "reply",
        MessageKind::Message | MessageKind::Unspecified => "message",
    }
}

/// The state's name in lower case, such as `delivered`.
pub(crate) const fn state(state: DeliveryState) -> &'static str {
    match state {
        DeliveryState::Unspecified => "unknown",
        DeliveryState::Queued => "queued",
        DeliveryState::Sealed => "sealed",
        DeliveryState::Stored => "stored",
        DeliveryState::Delivered => "delivered",
        DeliveryState::Read => "read",
        DeliveryState::Expired => "expired",
        DeliveryState::Dead => "dead",
        DeliveryState::Cancelled => "cancelled",
    }
}

/// One delivery for programs.
pub(crate) fn delivery_json(delivery: &Delivery) -> Value {
    json!({
        "to": delivery.to,
        "state": state(delivery.state()),
        "code": some(&delivery.code),
        "publish_tries": delivery.publish_tries,
        "created_time": time::rfc3339(delivery.created_time.as_ref()),
        "delivered_time": time::rfc3339(delivery.delivered_time.as_ref()),
        "read_time": time::rfc3339(delivery.read_time.as_ref()),
        "expire_time": time::rfc3339(delivery.expire_time.as_ref()),
        "stale_prekey": delivery.stale_prekey,
    })
}

/// Whether nothing more is to come.
pub(crate) const fn is_final(state: DeliveryState) -> bool {
    matches!(state, DeliveryState::Read | DeliveryState::Expired | DeliveryState::Dead | DeliveryState::Cancelled)
}

/// A sent message for programs: its delivery, and what is known beside it.
pub(crate) fn sent_json(message: &SentMessage) -> Value {
    let mut value = delivery_json(&message.delivery.clone().unwrap_or_default());
    let letter = message.dead_letter.as_ref();
    value["msg_id"] = json!(message.msg_id);
    value["kind"] = json!(kind_word(message.kind()));
    value["from"] = json!(message.from);
    value["to"] = json!(message.to);
    value["seal_attempt"] = json!(message.seal_attempt);
    value["next_time"] = json!(time::rfc3339(message.next_time.as_ref()));
    value["waits_for"] = json!(some(&message.waits_for));
    value["size"] = json!(message.size);
    value["reason"] = json!(letter.map(|letter| &letter.reason));
    value["dead_time"] = json!(letter.and_then(|letter| time::rfc3339(letter.dead_time.as_ref())));
    value
}

/// A sent message for people, one fact a line.
pub(crate) fn sent_text(message: &SentMessage) -> String {
    let delivery = message.delivery.clone().unwrap_or_default();
    let letter = message.dead_letter.as_ref();
    let when = |at: Option<&prost_types::Timestamp>| at.map(|at| time::ago(Some(at))).unwrap_or_default();
    let is_open = message.next_time.is_some();
    output::pairs([
        ("message", message.msg_id.clone()),
        ("kind", kind_word(message.kind()).into()),
        ("from", message.from.clone()),
        ("to", message.to.clone()),
        ("state", state(delivery.state()).into()),
        ("reason", letter.map_or_else(|| delivery.code.clone(), |letter| letter.reason.clone())),
        ("waits for", message.waits_for.clone()),
        ("sent", when(delivery.created_time.as_ref())),
        ("published", format!("{} time(s), {} new seal(s)", delivery.publish_tries, message.seal_attempt)),
        ("next try", if is_open { time::ahead(message.next_time.as_ref()) } else { String::new() }),
        ("expires", if is_open { time::ahead(delivery.expire_time.as_ref()) } else { String::new() }),
        ("delivered", when(delivery.delivered_time.as_ref())),
        ("read", when(delivery.read_time.as_ref())),
        ("given up", when(letter.and_then(|letter| letter.dead_time.as_ref()))),
        ("size", format!("{} bytes", message.size)),
    ])
}

/// Two spaces before every line.
pub(crate) fn indented(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(|line| format!("  {line}")).collect();
    lines.join("\n")
}

/// Absent instead of empty.
pub(crate) fn some(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(body: &[u8]) -> Message {
        Message { from: "/w/a/u/b/c".into(), tier: "pinned".into(), body: body.to_vec().into(), ..Message::default() }
    }

    #[test]
    fn a_body_is_text_or_base64() {
        assert_eq!(message_json(&message(b"hi\x1b[2J"))["body"], "hi\u{1b}[2J");
        let binary = message_json(&message(&[0xff, 0]));
        assert_eq!((&binary["body"], &binary["body_base64"]), (&Value::Null, &json!("/wA=")));
    }

    #[test]
    fn every_message_says_how_to_answer_it() {
        let shown = message_text(&Message { msg_id: "0192".into(), ..message(b"x") });
        assert!(shown.lines().next().is_some_and(|head| head.ends_with("(reply with --in-reply-to 0192)")), "{shown}");
    }

    #[test]
    fn a_body_cannot_pass_for_our_own_line() {
        let shown = message_text(&message(b"x\nmessage /w/a/u/root/x"));
        assert!(shown.lines().skip(1).all(|line| line.starts_with("  ")), "{shown}");
    }
}
