//! Answers to permission requests by the buttons of a question (docs/adr/0020-answers-by-buttons.md).
//!
//! A button carries a random text of which only the digest is kept. Whoever presses it is known by the service's own number of their account,
//! must be named by the channel that asked, and is told what became of their answer. The first answer counts, wherever it was given.

use std::sync::Arc;

use serde_json::Value;
use tracing::{info, warn};

use super::{Channel, Person, parcel::Question, question};
use crate::{
    permission::{AnswerError, Answerer, PermissionRow, Permissions},
    store::{Store, StoreError, permission, prompt as table},
};

/// Who is asked about a button's meaning.
pub(super) struct Answers {
    pub(super) permissions: Arc<Permissions>,
    pub(super) store: Store,
}

/// A button that somebody pressed, as Telegram tells it (`CallbackQuery`).
pub(super) struct Click {
    /// To be answered with.
    pub(super) query_id: String,
    user_id: u64,
    chat_id: Option<i64>,
    message_id: Option<i64>,
    data: String,
}

/// What whoever pressed a button is told.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) text: String,
    /// It did not count.
    pub(super) is_refusal: bool,
    /// A request that takes no answer any more, whose buttons may go.
    pub(super) over: Option<PermissionRow>,
}

impl Click {
    /// Reads an update; `None` when it is no button.
    pub(super) fn of(update: &Value) -> Option<Self> {
        let query = update.get("callback_query")?;
        let message = &query["message"];
        Some(Self {
            query_id: query["id"].as_str()?.to_owned(),
            user_id: query["from"]["id"].as_u64()?,
            chat_id: message["chat"]["id"].as_i64(),
            message_id: message["message_id"].as_i64(),
            data: query["data"].as_str().unwrap_or_default().to_owned(),
        })
    }
}

impl Answers {
    /// A request as a question with new buttons, which are kept before anybody sees them; `None` when it takes no answer any more.
    pub(super) async fn ask(&self, channel: &Channel, row: &PermissionRow) -> Option<Question> {
        let now = self.permissions.get(row.number).await.ok()?;
        if !self.permissions.is_open(&now) {
            return None;
        }
        let (name, number) = (channel.name.clone(), row.number);
        let made = question::ask(row).map_err(|error| error.to_string());
        let kept = match made {
            Ok((question, [allow, deny])) => {
                let kept = self.store.write(move |tx| table::put(tx, &name, number, &allow, &deny)).await;
                kept.map(|()| question).map_err(|error| error.to_string())
            }
            Err(error) => Err(error),
        };
        kept.inspect_err(|error| warn!("a permission request is not asked by {channel}: {error}")).ok()
    }

    /// Notes which message asks.
    pub(super) async fn asked(&self, channel: &Channel, number: u64, message_id: i64) {
        let name = channel.name.clone();
        if let Err(error) = self.store.write(move |tx| table::sent(tx, &name, number, message_id)).await {
            warn!(%error, "the buttons of a question by {channel} will stay when it is answered elsewhere");
        }
    }

    /// Notes that a message needs no change any more.
    pub(super) async fn closed(&self, channel: &Channel, number: u64) {
        let name = channel.name.clone();
        if let Err(error) = self.store.write(move |tx| table::closed(tx, &name, number)).await {
            warn!(%error, "a question by {channel} is changed once more when this node restarts");
        }
    }

    /// Requests that take no answer any more, and whose messages do not say so.
    pub(super) async fn unclosed(&self, now_ms: u64) -> Result<Vec<PermissionRow>, StoreError> {
        self.store.read(move |tx| permission::unclosed(tx, now_ms)).await
    }

    /// The message by which a channel asked a request, while that is to be changed when the request is over.
    pub(super) async fn message(&self, channel: &Channel, number: u64) -> Option<i64> {
        let name = channel.name.clone();
        self.store.read(move |tx| table::get(tx, &name, number)).await.ok()??.message_id
    }

    /// Takes what somebody pressed in a chat of one of these channels, which are those of the bot that was told.
    ///
    /// # Errors
    /// [`StoreError`]: then nothing happened, and it is to be taken again.
    pub(super) async fn take(&self, channels: &[Arc<Channel>], click: &Click) -> Result<Reply, StoreError> {
        let named = |channel: &Channel| person(channel, click.user_id).cloned();
        // Who is nobody's answerer learns nothing about buttons.
        if !channels.iter().any(|channel| named(channel).is_some()) {
            info!(user.id = click.user_id, "somebody who may not answer pressed a button");
            return Ok(stranger(click));
        }
        let hash = question::hash(&click.data);
        let Some((prompt, allow)) = self.store.read(move |tx| table::of_button(tx, &hash)).await? else {
            return Ok(unknown());
        };
        let is_there = |channel: &&Arc<Channel>| channel.name == prompt.channel && is_chat(channel, click);
        let is_message = prompt.message_id.is_none_or(|message_id| Some(message_id) == click.message_id);
        let Some(channel) = channels.iter().find(is_there).filter(|_| is_message) else { return Ok(unknown()) };
        let Some(person) = named(channel) else {
            info!(user.id = click.user_id, "somebody who may not answer by {channel} pressed a button");
            return Ok(stranger(click));
        };
        let answerer = Answerer::Person(format!("{}:{}", channel.service.kind(), person.name));
        match self.permissions.answer_number(&answerer, prompt.number, allow).await {
            Ok(row) => Ok(taken(&row)),
            Err(AnswerError::Store(error)) => Err(error),
            Err(error) => Ok(self.late(error, &answerer, prompt.number, allow).await?),
        }
    }

    /// What is told of an answer that does not count. The same answer of the same person, told again by the service, is no second one.
    async fn late(
        &self,
        error: AnswerError,
        answerer: &Answerer,
        number: u64,
        allow: bool,
    ) -> Result<Reply, StoreError> {
        let row = self.permissions.get(number).await?;
        if row.allowed == Some(allow) && row.answered_by == answerer.to_string() {
            return Ok(Reply { over: Some(row.clone()), ..taken(&row) });
        }
        info!("an answer of {answerer} does not count: {error}");
        let text = match error {
            AnswerError::Answered { allowed, by, .. } => {
                format!("Too late: {} by {by}.", if allowed { "allowed" } else { "denied" })
            }
            AnswerError::Over { why, .. } => format!("Too late: {why}."),
            _ => return Ok(unknown()),
        };
        Ok(Reply { text, is_refusal: true, over: Some(row) })
    }
}

fn person(channel: &Channel, user_id: u64) -> Option<&Person> {
    channel.service.answerers().iter().find(|person| person.user_id == user_id)
}

/// Whether the button stood in the channel's chat. What was passed on to another has no buttons, and a forged one no message.
fn is_chat(channel: &Channel, click: &Click) -> bool {
    match (&channel.service, click.chat_id) {
        (super::Service::Telegram { chat_id, .. }, Some(id)) => *chat_id == id.to_string(),
        _ => false,
    }
}

fn taken(row: &PermissionRow) -> Reply {
    let text = if row.allowed == Some(true) { "Allowed." } else { "Denied." };
    Reply { text: text.to_owned(), is_refusal: false, over: None }
}

fn unknown() -> Reply {
    Reply { text: "This question is not known here any more.".to_owned(), is_refusal: true, over: None }
}

fn stranger(click: &Click) -> Reply {
    let text = format!("You may not answer here. Your Telegram id is {}.", click.user_id);
    Reply { text, is_refusal: true, over: None }
}
