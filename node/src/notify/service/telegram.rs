//! Telegram's Bot API (core.telegram.org/bots/api). The token is a part of the path, which nothing here ever shows.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Delivery, Trouble, by_status, cut, place, post, said, seconds};
use crate::outbound::{CALL_TIMEOUT, Outbound};

const SERVICE: &str = "Telegram";
/// `sendMessage` takes so many characters.
const TEXT_CHARS_MAX: usize = 4_096;

pub(super) async fn send(
    outbound: &Outbound,
    api: &str,
    token: &str,
    chat_id: &str,
    text: &str,
) -> Result<Delivery, Trouble> {
    let body = json!({
        "chat_id": chat_id,
        "text": cut(text, TEXT_CHARS_MAX),
        // Links in what others wrote are not fetched.
        "link_preview_options": {"is_disabled": true},
    });
    call(outbound, api, token, ("sendMessage", &body), CALL_TIMEOUT).await.map(|_| Delivery::default())
}

/// Calls a method and returns its `result`.
pub(in crate::notify) async fn call(
    outbound: &Outbound,
    api: &str,
    token: &str,
    (method, body): (&str, &Value),
    timeout: Duration,
) -> Result<Value, Trouble> {
    let path = format!("/bot{token}/{method}");
    let at = place(api)?.with_path(&path).ok_or_else(|| Trouble::Broken("the bot's token cannot be used".into()))?;
    let answer = post(outbound, &at, Vec::new(), body, timeout).await?;
    let mut said_json = super::json(&answer);
    if answer.status == 200 && said_json["ok"] == true {
        return Ok(said_json["result"].take());
    }
    let words = said_json["description"].as_str();
    if let Some(moved) = said_json["parameters"]["migrate_to_chat_id"].as_i64() {
        return Err(Trouble::Broken(format!("the group became a supergroup: set the chat to {moved}")));
    }
    Err(match answer.status {
        401 | 404 => Trouble::Broken("Telegram does not know the bot's token".into()),
        403 => Trouble::Broken(format!("the bot may not write there{}", said(words))),
        400 if words.is_some_and(|words| words.contains("chat not found")) => {
            Trouble::Broken("there is no such chat, or it never wrote to the bot".into())
        }
        429 => {
            let after = said_json["parameters"]["retry_after"].as_f64().and_then(seconds);
            Trouble::Later { why: "Telegram asks to wait".into(), after }
        }
        _ => by_status(SERVICE, &answer, words),
    })
}
