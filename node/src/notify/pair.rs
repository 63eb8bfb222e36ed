//! Finding out which chat is whose: the person sends a code to the bot, and the chat that it came from is theirs.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    Notify, Trouble,
    channel::{InvalidChannel, check_telegram_token},
    service::Bot,
};
use crate::{outbound::CALL_TIMEOUT, store::StoreError};

/// How long somebody has to send the code.
const LIFE: Duration = Duration::from_secs(5 * 60);
/// What is read: messages for the code, and buttons, which nobody else hears meanwhile.
const KINDS: [&str; 3] = ["message", "channel_post", "callback_query"];

/// The chat that the code came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paired {
    /// Its id.
    pub chat_id: String,
    /// Whose it is, as Telegram says.
    pub title: String,
    /// Telegram's number of the account that sent it; none in a channel, where nobody is named.
    pub user_id: Option<u64>,
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
    /// An answer that came meanwhile cannot be stored.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No randomness for a code.
    #[error("the operating system gave no randomness")]
    Random,
}

/// Asks who the bot is, tells `shown` its name and a code, and waits for a message that is this code.
pub(super) async fn pair(
    notify: &Notify,
    token: &str,
    shown: impl FnOnce(&str, &str) + Send,
) -> Result<Paired, PairError> {
    check_telegram_token(token)?;
    let bot = Bot { outbound: &notify.outbound, api: &notify.config.telegram_api, token };
    let me = bot.call("getMe", &json!({}), CALL_TIMEOUT).await.map_err(PairError::Trouble)?;
    let code = format!("murmur {:06}", getrandom::u32().map_err(|_| PairError::Random)? % 1_000_000);
    shown(me["username"].as_str().unwrap_or("your bot"), &code);
    tokio::time::timeout(LIFE, wait_for(notify, &bot, &code)).await.map_err(|_| PairError::Late)?
}

/// Reads what comes until it is the code.
async fn wait_for(notify: &Notify, bot: &Bot<'_>, code: &str) -> Result<Paired, PairError> {
    let mut offset = None;
    loop {
        let Some(update) = bot.update(offset, &KINDS).await.map_err(PairError::Trouble)? else {
            offset = None;
            continue;
        };
        notify.take_update(bot, &update).await?;
        let next = update["update_id"].as_i64().unwrap_or_default().saturating_add(1);
        if let Some(paired) = chat_of(&update, code) {
            // Said to be seen, or the next one who asks gets it again.
            let body = json!({"offset": next, "timeout": 0, "limit": 1});
            bot.call("getUpdates", &body, CALL_TIMEOUT).await.map_err(PairError::Trouble)?;
            return Ok(paired);
        }
        offset = Some(next);
    }
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
    let is_person = message["from"]["is_bot"] == false;
    let user_id = message["from"]["id"].as_u64().filter(|_| is_person);
    Some(Paired { chat_id: chat["id"].as_i64()?.to_string(), title, user_id })
}
