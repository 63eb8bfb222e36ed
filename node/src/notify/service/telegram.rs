//! Telegram's Bot API (core.telegram.org/bots/api). The token is a part of the path, which nothing here ever shows.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Delivery, Trouble, by_status, cut, place, post, said, seconds};
use crate::{
    notify::parcel::{Parcel, Question},
    outbound::{CALL_TIMEOUT, Outbound},
};

const SERVICE: &str = "Telegram";
/// `sendMessage` takes so many characters.
const TEXT_CHARS_MAX: usize = 4_096;
/// How long one call waits for something new, in seconds: the answer comes as soon as there is something.
const POLL_S: u64 = 25;

/// A bot to speak through.
#[derive(Clone, Copy)]
pub(in crate::notify) struct Bot<'a> {
    pub(in crate::notify) outbound: &'a Outbound,
    /// Where the API is.
    pub(in crate::notify) api: &'a str,
    pub(in crate::notify) token: &'a str,
}

impl Bot<'_> {
    pub(super) async fn send(&self, chat_id: &str, parcel: &Parcel, text: &str) -> Result<Delivery, Trouble> {
        let mut body = json!({
            "chat_id": chat_id,
            "text": cut(text, TEXT_CHARS_MAX),
            // Links in what others wrote are not fetched.
            "link_preview_options": {"is_disabled": true},
        });
        let method = match parcel {
            Parcel::Lines(_) => "sendMessage",
            Parcel::Question(Question { allow, deny, .. }) => {
                let button = |text: &str, data: &str| json!({"text": text, "callback_data": data});
                body["reply_markup"] = json!({"inline_keyboard": [[button("Allow", allow), button("Deny", deny)]]});
                "sendMessage"
            }
            // Without a keyboard: the one that is there goes.
            Parcel::Outcome { message_id, .. } => {
                body["message_id"] = (*message_id).into();
                "editMessageText"
            }
        };
        let sent = self.call(method, &body, CALL_TIMEOUT).await?;
        Ok(Delivery { message_id: sent["message_id"].as_i64(), ..Delivery::default() })
    }

    /// The next thing that happened to the bot, of these kinds; waits for one. What is before `offset` is gone from then on. One at a time, so
    /// that no answer is too long to be read.
    pub(in crate::notify) async fn update(
        &self,
        offset: Option<i64>,
        kinds: &[&str],
    ) -> Result<Option<Value>, Trouble> {
        let mut body = json!({"timeout": POLL_S, "limit": 1, "allowed_updates": kinds});
        if let Some(offset) = offset {
            body["offset"] = offset.into();
        }
        let mut updates = self.call("getUpdates", &body, Duration::from_secs(POLL_S + 10)).await?;
        Ok(updates.get_mut(0).map(Value::take))
    }

    /// Calls a method and returns its `result`.
    pub(in crate::notify) async fn call(
        &self,
        method: &str,
        body: &Value,
        timeout: Duration,
    ) -> Result<Value, Trouble> {
        let path = format!("/bot{}/{method}", self.token);
        let at = place(self.api)?.with_path(&path);
        let at = at.ok_or_else(|| Trouble::Broken("the bot's token cannot be used".into()))?;
        let answer = post(self.outbound, &at, Vec::new(), body, timeout).await?;
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
            // Somebody else reads the bot's updates, or has set a webhook.
            409 => Trouble::Later { why: format!("{SERVICE} answered 409{}", said(words)), after: None },
            429 => {
                let after = said_json["parameters"]["retry_after"].as_f64().and_then(seconds);
                Trouble::Later { why: "Telegram asks to wait".into(), after }
            }
            _ => by_status(SERVICE, &answer, words),
        })
    }
}
