//! What each service is sent, and what its answers mean.

mod discord;
mod telegram;
mod webhook;
mod whatsapp;

use std::{fmt, time::Duration};

use serde_json::Value;

pub(super) use telegram::Bot;

use super::{Channel, NotifyConfig, Service, pace::Rate, parcel::Parcel};
use crate::outbound::{Answer, CALL_TIMEOUT, Call, Outbound, OutboundError, Place};

/// Longest wait that a service may ask for; a notice that would be older is of no use.
const WAIT_MAX: Duration = Duration::from_secs(15 * 60);
/// Of a service's own words about what went wrong.
const WHY_CHARS_MAX: usize = 200;

/// It was taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Delivery {
    /// The service wants nothing more for so long.
    pub pause: Option<Duration>,
    /// The service's number of the message, where that is of use.
    pub message_id: Option<i64>,
}

/// It was not taken. No secret stands in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// Later it may be.
    Later {
        /// What went wrong.
        why: String,
        /// The service says when.
        after: Option<Duration>,
    },
    /// This one never will be.
    Refused(String),
    /// Nothing will be, until somebody changes the channel.
    Broken(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Later { why, .. } | Self::Refused(why) | Self::Broken(why) => f.write_str(why),
        }
    }
}

impl From<OutboundError> for Trouble {
    fn from(error: OutboundError) -> Self {
        let mut why = error.to_string();
        if let Some(cause) = std::error::Error::source(&error) {
            why = format!("{why}: {cause}");
        }
        match error {
            OutboundError::Refused(_) | OutboundError::NotPublic { .. } | OutboundError::Header { .. } => {
                Self::Broken(why)
            }
            OutboundError::Resolve { .. }
            | OutboundError::Connect { .. }
            | OutboundError::Unreached { .. }
            | OutboundError::Timeout { .. }
            | OutboundError::Broken { .. } => Self::Later { why, after: None },
        }
    }
}

/// How many notices go in one call: chats take many lines at once.
pub(super) const fn batch(service: &Service) -> usize {
    match service {
        Service::Telegram { .. } | Service::Discord { .. } | Service::Whatsapp { .. } => 20,
        Service::Webhook { .. } => 1,
    }
}

/// How fast the service may be called, as it documents: how many calls in how long, and what the calls of several channels count for
/// together.
pub(super) fn rates(channel: &Channel) -> Vec<(String, Rate)> {
    let rate = |count, seconds| Rate { count, per: Duration::from_secs(seconds) };
    match &channel.service {
        Service::Telegram { token, chat_id, .. } => {
            let bot = token.split(':').next().unwrap_or_default();
            // One a second in a chat, twenty a minute in a group; thirty a second of one bot.
            let in_chat = if chat_id.starts_with(['-', '@']) { rate(1, 3) } else { rate(1, 1) };
            vec![(format!("telegram {bot} {chat_id}"), in_chat), (format!("telegram {bot}"), rate(30, 1))]
        }
        Service::Discord { url } => vec![(format!("discord {url}"), rate(5, 2))],
        // One every six seconds to the same person.
        Service::Whatsapp { phone_number_id, to, .. } => vec![(format!("whatsapp {phone_number_id} {to}"), rate(1, 6))],
        Service::Webhook { .. } => vec![(format!("channel {}", channel.name), rate(20, 1))],
    }
}

/// Sends a parcel in one call.
///
/// # Errors
/// [`Trouble`].
pub(super) async fn send(
    outbound: &Outbound,
    config: &NotifyConfig,
    channel: &Channel,
    parcel: &Parcel,
    now_ms: u64,
) -> Result<Delivery, Trouble> {
    let text = || parcel.text(config.include_body);
    match &channel.service {
        Service::Telegram { token, chat_id, .. } => {
            let bot = Bot { outbound, api: &config.telegram_api, token };
            bot.send(chat_id, parcel, &text()).await
        }
        Service::Discord { url } => discord::send(outbound, url, &text()).await,
        Service::Whatsapp { token, phone_number_id, to, template, language } => {
            let template = template.as_deref().map(|name| (name, language.as_str()));
            let from = (config.whatsapp_api.as_str(), phone_number_id.as_str());
            whatsapp::send(outbound, from, token, (to, template), &text()).await
        }
        Service::Webhook { url, secret } => {
            // Nothing else goes there.
            let Parcel::Lines(notices) = parcel else { return Ok(Delivery::default()) };
            webhook::send(outbound, url, secret, (notices, config.include_body), now_ms).await
        }
    }
}

/// Posts JSON.
async fn post(
    outbound: &Outbound,
    place: &Place,
    headers: Vec<(&'static str, String)>,
    body: &Value,
    timeout: Duration,
) -> Result<Answer, Trouble> {
    let call = Call { place, headers, body: body.to_string().into_bytes(), timeout };
    Ok(outbound.post(call).await?)
}

/// With the ordinary time.
async fn post_now(
    outbound: &Outbound,
    place: &Place,
    headers: Vec<(&'static str, String)>,
    body: &Value,
) -> Result<Answer, Trouble> {
    post(outbound, place, headers, body, CALL_TIMEOUT).await
}

/// A place that was checked when it was set, and may have been changed in its file since.
fn place(url: &str) -> Result<Place, Trouble> {
    url.parse().map_err(|refused| Trouble::Broken(format!("{refused}")))
}

/// What an answer says in JSON; nothing when it is none.
fn json(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or_default()
}

/// A service's own words, on one line.
fn said(text: Option<&str>) -> String {
    let plain: String = text.unwrap_or_default().chars().filter(|c| !c.is_control()).take(WHY_CHARS_MAX).collect();
    if plain.is_empty() { String::new() } else { format!(": {plain}") }
}

/// What an answer's status means where the service says nothing better.
fn by_status(service: &str, answer: &Answer, words: Option<&str>) -> Trouble {
    let status = answer.status;
    let why = format!("{service} answered {status}{}", said(words));
    match status {
        408 | 425 | 429 | 500..=599 => Trouble::Later { why, after: retry_after(answer) },
        401 | 403 | 404 | 410 => Trouble::Broken(why),
        300..=399 => Trouble::Broken(format!("{why}; redirects are not followed")),
        _ => Trouble::Refused(why),
    }
}

/// The header, in seconds; a date is not asked for by any of these services.
fn retry_after(answer: &Answer) -> Option<Duration> {
    seconds(answer.header("retry-after")?.trim().parse().ok()?)
}

/// A time that a service asks for, if it is one.
fn seconds(wanted: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(wanted).ok().map(|wait| wait.min(WAIT_MAX))
}

/// The text, or as much of it as the service takes.
fn cut(text: &str, chars_max: usize) -> String {
    if text.chars().count() <= chars_max {
        return text.to_owned();
    }
    text.chars().take(chars_max - 1).chain(['…']).collect()
}
