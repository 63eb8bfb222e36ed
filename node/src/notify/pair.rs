//! Finding out which chat is whose: the person sends a code to the bot, and the chat that it came from is theirs.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    NotifyConfig, Trouble,
    channel::{InvalidChannel, check_telegram_token},
    service::telegram_call,
};
use crate::outbound::{CALL_TIMEOUT, Outbound};

/// How long somebody has to send the code.
const LIFE: Duration = Duration::from_secs(5 * 60);
/// How long one call waits for something new, in seconds: the answer comes as soon as there is something.
const POLL_S: u64 = 25;

/// The chat that the code came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paired {
    /// Its id.
    pub chat_id: String,
    /// Whose it is, as Telegram says.
    pub title: String,
}

/// Why no chat was found.
#[derive(Debug, thiserror::Error)]
pub enum PairError {
    /// The token is none.
    #[error(transparent)]
    Invalid(#[from] InvalidChannel),
    /// Telegram said no.
    #[error("{0}")]
    Trouble(Trouble),
    /// Nobody sent the code.
    #[error("nobody sent the code within 5 minutes")]
    Late,
    /// No randomness for a code.
    #[error("the operating system gave no randomness")]
    Random,
}

/// A bot to talk to.
struct Bot<'a> {
    outbound: &'a Outbound,
    api: &'a str,
    token: &'a str,
}

impl Bot<'_> {
    async fn call(&self, method: &str, body: Value, timeout: Duration) -> Result<Value, PairError> {
        let Self { outbound, api, token } = *self;
        telegram_call(outbound, api, token, (method, &body), timeout).await.map_err(PairError::Trouble)
    }

    /// Reads what comes until it is the code.
    async fn wait_for(&self, code: &str) -> Result<Paired, PairError> {
        let mut offset = 0;
        loop {
            let body = json!({"offset": offset, "timeout": POLL_S, "allowed_updates": ["message", "channel_post"]});
            let updates = self.call("getUpdates", body, Duration::from_secs(POLL_S + 10)).await?;
            for update in updates.as_array().into_iter().flatten() {
                offset = offset.max(update["update_id"].as_i64().unwrap_or_default().saturating_add(1));
                if let Some(paired) = chat_of(update, code) {
                    // Said to be seen, or the next one who asks gets it again.
                    let body = json!({"offset": offset, "timeout": 0, "limit": 1});
                    self.call("getUpdates", body, CALL_TIMEOUT).await?;
                    return Ok(paired);
                }
            }
        }
    }
}

/// Asks who the bot is, tells `shown` its name and a code, and waits for a message that is this code.
pub(super) async fn pair(
    outbound: &Outbound,
    config: &NotifyConfig,
    token: &str,
    shown: impl FnOnce(&str, &str) + Send,
) -> Result<Paired, PairError> {
    check_telegram_token(token)?;
    let bot = Bot { outbound, api: &config.telegram_api, token };
    let me = bot.call("getMe", json!({}), CALL_TIMEOUT).await?;
    let code = format!("murmur {:06}", getrandom::u32().map_err(|_| PairError::Random)? % 1_000_000);
    shown(me["username"].as_str().unwrap_or("your bot"), &code);
    tokio::time::timeout(LIFE, bot.wait_for(&code)).await.map_err(|_| PairError::Late)?
}

/// The chat of an update whose text is the code.
fn chat_of(update: &Value, code: &str) -> Option<Paired> {
    let message = [&update["message"], &update["channel_post"]].into_iter().find(|message| message.is_object())?;
    let text = message["text"].as_str()?.trim();
    let is_code = text.eq_ignore_ascii_case(code) || text.strip_prefix("/start ").is_some_and(|rest| rest == code);
    let chat = &message["chat"];
    let name = ["title", "username", "first_name"].into_iter().find_map(|key| chat[key].as_str());
    let title = name.unwrap_or_default().chars().filter(|c| !c.is_control()).take(64).collect();
    is_code.then_some(())?;
    Some(Paired { chat_id: chat["id"].as_i64()?.to_string(), title })
}
