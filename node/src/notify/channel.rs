//! A way to a person, and what is told by it.

use std::fmt;

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};

use super::{Notice, Person, person};
use crate::outbound::{Place, Rules};

const NAME_BYTES_MAX: usize = 63;
const ENTRIES_MAX: usize = 100;
const SECRET_BYTES_MAX: usize = 1024;

/// What is told when a filter names no kinds.
const KINDS_DEFAULT: [&str; 5] = ["message", "notify", "permission", "agent_failed", "test"];

/// A channel as stored: one file, which only this user can read. It has no `Debug`, because of its secret.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Channel {
    /// 1 to 63 of a-z, 0-9 and -.
    pub name: String,
    /// How it is reached.
    pub service: Service,
    /// What is told.
    #[serde(default)]
    pub filter: Filter,
}

/// How a channel is reached.
#[derive(Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Service {
    /// A bot writes into a chat.
    Telegram {
        /// `<number>:<secret>`, from @BotFather.
        token: String,
        /// A number, negative for a group, or `@name` of a public channel.
        chat_id: String,
        /// Who may answer there what agents ask. With anybody in it, questions are shown with what the tool is to do.
        #[serde(default)]
        answerers: Vec<Person>,
    },
    /// A webhook of a Discord channel.
    Discord {
        /// `https://discord.com/api/webhooks/<id>/<token>`: the whole of it is secret.
        url: String,
    },
    /// A business number writes to a person, by the Cloud API.
    Whatsapp {
        /// Of a system user.
        token: String,
        /// Meta's number of the business number.
        phone_number_id: String,
        /// Digits, with the country's code.
        to: String,
        /// An approved template with one parameter in its body: without one only a person who wrote within 24 hours can be written to.
        template: Option<String>,
        /// Of the template, such as `en_US`.
        language: String,
    },
    /// Any server that takes a signed POST.
    Webhook {
        /// Where.
        url: String,
        /// `whsec_` and base64, to sign with.
        secret: String,
    },
}

/// What a channel is told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Filter {
    /// Kinds of notices; none: messages, and what needs a person.
    pub kinds: Vec<String>,
    /// Agents, by the end of their slug below the account, with all below them; none: all.
    pub agents: Vec<String>,
}

/// A field that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {rule}")]
pub struct InvalidChannel {
    /// Which field.
    pub field: &'static str,
    /// What it must be.
    pub rule: String,
}

impl Filter {
    /// Whether a kind is wanted.
    #[must_use]
    pub fn wants(&self, kind: &str) -> bool {
        match self.kinds.as_slice() {
            [] => KINDS_DEFAULT.contains(&kind),
            kinds => kind == "test" || kinds.iter().any(|wanted| wanted == kind),
        }
    }

    /// Whether a notice is wanted.
    #[must_use]
    pub fn lets(&self, notice: &Notice) -> bool {
        let is_kind = self.wants(&notice.kind) || notice.general.is_some_and(|general| self.wants(general));
        is_kind && self.wants_about(&notice.agents)
    }

    /// Whether anything about one of these agents, by slug, is wanted; what concerns no agent is.
    #[must_use]
    pub fn wants_about(&self, slugs: &[String]) -> bool {
        self.agents.is_empty()
            || slugs.is_empty()
            || slugs.iter().any(|slug| self.agents.iter().any(|named| is_below(slug, named)))
    }
}

/// Whether a slug is the named agent, or below it. Named absolutely, or by its path below any account.
fn is_below(slug: &str, named: &str) -> bool {
    let below =
        |path: &str, top: &str| path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if named.starts_with('/') {
        return below(slug, named);
    }
    // `/w/<workspace>/u/<account>/<path>`
    slug.splitn(6, '/').nth(5).is_some_and(|path| below(path, named))
}

impl Channel {
    /// Refuses what could not work, or would leave the rules.
    ///
    /// # Errors
    /// [`InvalidChannel`].
    pub fn check(&self, rules: &Rules) -> Result<(), InvalidChannel> {
        if !is_name(&self.name) {
            return Err(invalid("name", format!("must be 1 to {NAME_BYTES_MAX} of a-z, 0-9 and -")));
        }
        self.check_filter()?;
        match &self.service {
            Service::Telegram { token, chat_id, answerers } => {
                check_telegram_token(token)?;
                let is_number = chat_id.strip_prefix('-').unwrap_or(chat_id).bytes().all(|b| b.is_ascii_digit());
                let is_public = chat_id.starts_with('@') && plain(&chat_id[1..]);
                if chat_id.trim_start_matches(['-', '@']).is_empty() || chat_id.len() > 64 || !(is_number || is_public)
                {
                    return Err(invalid("chat_id", "must be a number, negative for a group, or @name of a channel"));
                }
                person::check(answerers, chat_id)
            }
            Service::Discord { url } => {
                let place = place(url, rules)?;
                let is_discord = ["discord.com", "ptb.discord.com", "canary.discord.com", "discordapp.com"];
                if !rules.allow_local && !is_discord.contains(&place.host()) {
                    return Err(invalid("url", "must be a webhook of discord.com"));
                }
                if !url.contains("/api/webhooks/") {
                    return Err(invalid("url", "must be https://discord.com/api/webhooks/<id>/<token>"));
                }
                Ok(())
            }
            Service::Whatsapp { token, phone_number_id, to, template, language } => {
                check_secret("token", token)?;
                if !is_digits(phone_number_id, 5..=32) {
                    return Err(invalid(
                        "phone_number_id",
                        "must be Meta's number of the sending number: 5 to 32 digits",
                    ));
                }
                if !is_digits(to.trim_start_matches('+'), 6..=15) {
                    return Err(invalid("to", "must be a telephone number with its country's code: 6 to 15 digits"));
                }
                if template.as_deref().is_some_and(|template| !plain(template)) {
                    return Err(invalid("template", "must be a template's name, of letters, digits and _"));
                }
                if !plain(language) {
                    return Err(invalid("language", "must be a language's code, such as en_US"));
                }
                Ok(())
            }
            Service::Webhook { url, secret } => {
                place(url, rules)?;
                if signing_key(secret).is_none_or(|key| key.len() < 24 || key.len() > 64) {
                    return Err(invalid("secret", "must be whsec_ and base64 of 24 to 64 bytes"));
                }
                Ok(())
            }
        }
    }

    fn check_filter(&self) -> Result<(), InvalidChannel> {
        let Filter { kinds, agents } = &self.filter;
        if kinds.len() > ENTRIES_MAX || kinds.iter().any(|kind| !plain(kind)) {
            return Err(invalid(
                "kinds",
                format!("must be at most {ENTRIES_MAX} words of a-z, 0-9 and _, such as message"),
            ));
        }
        let is_slug = |text: &String| {
            let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'/');
            (1..=512).contains(&text.len()) && text.bytes().all(plain) && !text.ends_with('/')
        };
        if agents.len() > ENTRIES_MAX || !agents.iter().all(is_slug) {
            return Err(invalid(
                "agents",
                format!("must be at most {ENTRIES_MAX} slugs of agents, such as alice or alice/tests"),
            ));
        }
        Ok(())
    }
}

impl Service {
    /// Its name.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Telegram { .. } => "telegram",
            Self::Discord { .. } => "discord",
            Self::Whatsapp { .. } => "whatsapp",
            Self::Webhook { .. } => "webhook",
        }
    }

    /// Who may answer by it what agents ask.
    #[must_use]
    pub fn answerers(&self) -> &[Person] {
        match self {
            Self::Telegram { answerers, .. } => answerers,
            Self::Discord { .. } | Self::Whatsapp { .. } | Self::Webhook { .. } => &[],
        }
    }

    /// Where it leads, for people, with nothing secret in it.
    #[must_use]
    pub fn target(&self) -> String {
        match self {
            Self::Telegram { chat_id, .. } => format!("chat {chat_id}"),
            Self::Discord { url } | Self::Webhook { url, .. } => {
                url.parse::<Place>().map_or_else(|_| "?".to_owned(), |place| place.to_string())
            }
            Self::Whatsapp { to, .. } => {
                let shown = to.len().saturating_sub(4);
                format!("…{}", to.get(shown..).unwrap_or_default())
            }
        }
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, {})", self.name, self.service.kind(), self.service.target())
    }
}

/// Whether a text can name a channel, and with it a file.
pub(super) fn is_name(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(plain) && !text.starts_with('-')
}

/// The bytes to sign with, after `whsec_`.
pub(super) fn signing_key(secret: &str) -> Option<Vec<u8>> {
    BASE64.decode(secret.strip_prefix("whsec_")?.as_bytes()).ok()
}

/// Refuses what @BotFather does not hand out. It becomes part of a path, so nothing else may pass.
pub(super) fn check_telegram_token(token: &str) -> Result<(), InvalidChannel> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    let parts = token.split_once(':').filter(|(number, secret)| {
        is_digits(number, 1..=20) && (20..=128).contains(&secret.len()) && secret.bytes().all(plain)
    });
    parts
        .map(|_| ())
        .ok_or_else(|| invalid("token", "must be a bot's token as @BotFather gives it: digits, a colon, letters"))
}

fn check_secret(field: &'static str, text: &str) -> Result<(), InvalidChannel> {
    if text.is_empty() || text.len() > SECRET_BYTES_MAX || !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(invalid(field, format!("must be 1 to {SECRET_BYTES_MAX} visible ASCII characters")));
    }
    Ok(())
}

fn place(url: &str, rules: &Rules) -> Result<Place, InvalidChannel> {
    let place = url.parse::<Place>().and_then(|place| place.check(rules).map(|()| place));
    place.map_err(|refused| invalid("url", format!("must {}", refused.rule())))
}

fn is_digits(text: &str, length: std::ops::RangeInclusive<usize>) -> bool {
    length.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())
}

fn plain(text: &str) -> bool {
    (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

pub(super) fn invalid(field: &'static str, rule: impl Into<String>) -> InvalidChannel {
    InvalidChannel { field, rule: rule.into() }
}
