//! Listens to what people press: one task for each bot that has a channel with answerers, since Telegram tells each update to one listener.
//!
//! An update is confirmed by asking for the next one, so it is confirmed after it was taken: what is cut short is told again, and taken once.
//! Telegram remembers what was confirmed, and numbers updates anew after a week without any; so no number is kept for longer than it takes to
//! confirm it.

use std::{sync::Arc, time::Duration};

use murmur_core::retry::Backoff;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    Channel, Notify, Trouble,
    answers::{Click, Reply},
    pace::Rate,
    service::Bot,
};
use crate::{delay::Delay, outbound::CALL_TIMEOUT, store::StoreError};

const KINDS: [&str; 1] = ["callback_query"];
/// A server that answers at once with nothing is not asked as fast as it answers.
const RATE: Rate = Rate { count: 20, per: Duration::from_secs(1) };
/// Telegram shows so much of an answer.
const REPLY_CHARS_MAX: usize = 200;

impl Notify {
    /// Listens until it is cancelled, or the bot is known no more.
    pub(super) async fn listen(self: Arc<Self>, token: String, ended: CancellationToken) {
        let listened = tokio::select! {
            trouble = self.listen_to(&token) => trouble,
            () = ended.cancelled() => return,
        };
        warn!("answers are not heard any more: {listened}");
        self.heard(&token, Some(&listened));
        // Setting the channel again begins anew.
        self.listening().remove(&token);
    }

    async fn listen_to(&self, token: &str) -> Trouble {
        let bot = Bot { outbound: &self.outbound, api: &self.config.telegram_api, token };
        let backoff = Backoff { base_ms: self.config.retry_ms[0], cap_ms: self.config.retry_ms[1] };
        let place = [(format!("updates of {}", token.split(':').next().unwrap_or_default()), RATE)];
        let (mut delay, mut offset) = (Delay::new(backoff), None);
        loop {
            self.wait_for(&place).await;
            let told = match bot.update(offset, &KINDS).await {
                Ok(told) => told,
                Err(broken @ Trouble::Broken(_)) => return broken,
                Err(trouble) => {
                    info!("answers are not heard: {trouble}");
                    self.heard(token, Some(&trouble));
                    let after =
                        if let Trouble::Later { after: Some(after), .. } = &trouble { *after } else { Duration::ZERO };
                    tokio::time::sleep(after.max(delay.next())).await;
                    continue;
                }
            };
            self.heard(token, None);
            let Some(update) = told else {
                delay.reset();
                offset = None;
                continue;
            };
            if let Err(error) = self.take_update(&bot, &update).await {
                warn!(%error, "an answer waits");
                delay.wait().await;
                continue;
            }
            delay.reset();
            offset = update["update_id"].as_i64().map(|id| id.saturating_add(1));
        }
    }

    /// Takes an update of a bot, and tells whoever pressed a button what became of it.
    pub(super) async fn take_update(&self, bot: &Bot<'_>, update: &Value) -> Result<(), StoreError> {
        let (Some(click), Some(answers)) = (Click::of(update), self.answers.get()) else { return Ok(()) };
        let reply = answers.take(&self.of_bot(bot.token), &click).await?;
        let Reply { text, is_refusal, over } = reply;
        if let Some(row) = over {
            self.settled(&Arc::new(row));
        }
        let text: String = text.chars().take(REPLY_CHARS_MAX).collect();
        let body = json!({"callback_query_id": click.query_id, "text": text, "show_alert": is_refusal});
        // It is a courtesy: what counts stands in the message.
        if let Err(trouble) = bot.call("answerCallbackQuery", &body, CALL_TIMEOUT).await {
            info!("whoever pressed a button is not answered: {trouble}");
        }
        Ok(())
    }

    /// Starts and ends tasks, so that there is one for each bot that has somebody to listen for.
    pub(super) fn listen_where_needed(self: &Arc<Self>) {
        if self.answers.get().is_none() {
            return;
        }
        let channels = self.channels();
        let tokens = channels.iter().filter(|channel| !channel.service.answerers().is_empty()).filter_map(|c| token(c));
        let tokens: Vec<&str> = tokens.collect();
        let mut listening = self.listening();
        listening.retain(|token, _| tokens.contains(&token.as_str()));
        for token in tokens {
            if listening.contains_key(token) {
                continue;
            }
            let ended = self.stop.child_token();
            self.tasks.spawn(Arc::clone(self).listen(token.to_owned(), ended.clone()));
            listening.insert(token.to_owned(), ended.drop_guard());
        }
    }

    /// Every channel of a bot.
    fn of_bot(&self, wanted: &str) -> Vec<Arc<Channel>> {
        self.channels().into_iter().filter(|channel| token(channel) == Some(wanted)).collect()
    }

    /// How listening goes, to be shown with the channels that need it.
    fn heard(&self, wanted: &str, trouble: Option<&Trouble>) {
        let live = self.lock();
        let asking = live.values().filter(|handle| !handle.channel().service.answerers().is_empty());
        for handle in asking.filter(|handle| token(handle.channel()) == Some(wanted)) {
            handle.heard(trouble.map(|trouble| format!("answers are not heard: {trouble}")));
        }
    }
}

fn token(channel: &Channel) -> Option<&str> {
    match &channel.service {
        super::Service::Telegram { token, .. } => Some(token),
        _ => None,
    }
}
