//! People who may answer what agents ask, by a channel that knows who they are.

use serde::{Deserialize, Serialize};

use super::channel::{InvalidChannel, invalid, is_name};

/// People of one channel.
const PERSONS_MAX: usize = 50;
/// Telegram's accounts have numbers of at most 52 bits.
const USER_ID_MAX: u64 = (1 << 52) - 1;

/// A person, as a service knows them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Person {
    /// The service's own number of the account, which nobody else can take; a user name changes hands.
    pub user_id: u64,
    /// What they are called here: 1 to 63 of a-z, 0-9 and -.
    pub name: String,
}

impl Person {
    /// A person without another name is called by the number.
    #[must_use]
    pub fn new(user_id: u64, name: String) -> Self {
        let name = if name.is_empty() { user_id.to_string() } else { name };
        Self { user_id, name }
    }
}

/// Refuses people who cannot be told apart, and chats whose messages nobody can be known by.
pub(super) fn check(persons: &[Person], chat_id: &str) -> Result<(), InvalidChannel> {
    if persons.is_empty() {
        return Ok(());
    }
    if chat_id.starts_with('@') {
        return Err(invalid("answerers", "must be none for a public channel: ask in a chat, by its number"));
    }
    if persons.len() > PERSONS_MAX {
        return Err(invalid("answerers", format!("must be at most {PERSONS_MAX}")));
    }
    for (index, person) in persons.iter().enumerate() {
        if !(1..=USER_ID_MAX).contains(&person.user_id) {
            return Err(invalid("answerers.user_id", "must be the number of a Telegram account, from 1 to 52 bits"));
        }
        if !is_name(&person.name) {
            return Err(invalid("answerers.name", "must be 1 to 63 of a-z, 0-9 and -"));
        }
        let before = &persons[..index];
        if before.iter().any(|known| known.user_id == person.user_id || known.name == person.name) {
            return Err(invalid("answerers", format!("must name {} once", person.name)));
        }
    }
    Ok(())
}
