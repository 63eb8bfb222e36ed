//! Dead letters: what died or expired, for a person to look at, begin again or drop (PROTOCOL §5.4, DLQ).

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use murmur_core::{
    id::{AgentId, ConversationId, MessageId},
    limits::PAGE_SIZE_MAX,
    outbox::{Config, Event, Redrive, StateName, redrive},
    slug::Slug,
};
use murmur_crypto::{
    hash::sha256,
    inner::{Attr, InnerMessage as Inner, dm_conversation_id, opens_stream},
};

use super::{
    Post,
    error::QueryError,
    inbox::sent_message,
    random,
    stream::{Again, OutTarget},
    transition::{self, Stepped},
    types::{Direction, InboxMessage, TailItem},
};
use crate::store::{
    Tx, copy, dead_letter,
    delivery::{self, DeliveryRow},
    listing::{self, Listed, Place, Whose},
    outbox::{self, OutboxRow},
    stream::{self, OutRow},
};

/// The attribute of a new message that names the dead one it stands for.
const REDRIVE_OF: &str = "redrive-of";

/// A dead letter that was begun again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redriven {
    /// The message under which it goes; the dead one's own id when that may still be used.
    pub msg_id: MessageId,
    /// The dead one.
    pub redrive_of: MessageId,
    /// Whom it goes to now.
    pub to: Slug,
    /// That agent.
    pub to_agent_id: AgentId,
    /// When it ends if it is not delivered.
    pub expires_ms: u64,
}

/// The agent that a dead letter is for now, and under which name.
struct Target {
    agent_id: AgentId,
    slug: Slug,
}

/// What a redrive is made with.
struct Means {
    now_ms: u64,
    config: Config,
    sequence_epoch: u64,
    random: Vec<[u8; 10]>,
    /// For a message with a file, which has one recipient.
    file: Option<Again>,
}

impl Post {
    /// Dead letters behind a place, in the order in which the messages were accepted. At most `limit`.
    ///
    /// # Errors
    /// [`QueryError::Store`].
    pub async fn dead_letters(
        &self,
        whose: Whose,
        after: Option<Place>,
        limit: u32,
    ) -> Result<Vec<Listed>, QueryError> {
        let limit = limit.min(PAGE_SIZE_MAX + 1);
        Ok(self.store.read(move |tx| listing::dead(tx, whose, after, limit)).await?)
    }

    /// The dead letters of a message, and what it said.
    ///
    /// # Errors
    /// [`QueryError::MessageNotFound`], or [`QueryError::NotDead`].
    pub async fn dead_letter(
        &self,
        whose: Whose,
        msg_id: MessageId,
    ) -> Result<(Vec<Listed>, InboxMessage), QueryError> {
        let look = move |tx: Tx<'_>| Ok((listing::of_message(tx, whose, msg_id)?, outbox::get(tx, msg_id)?));
        let (listed, message) = self.store.read(look).await?;
        let letters = letters(listed, msg_id)?;
        let (Some(message), Some(first)) = (message, letters.first()) else {
            return Err(QueryError::MessageNotFound { msg_id });
        };
        let shown = sent_message(&message, first.from.clone(), first.row.to_slug.clone());
        Ok((letters, shown))
    }

    /// Begins a dead letter again: under its own id while recipients would still know a duplicate of it and its recipient is
    /// the same, else as a new message with the attribute `redrive-of`. When the recipient has ended, the agent that has its
    /// name now gets it. A file goes along, from its first byte on.
    ///
    /// # Errors
    /// [`QueryError::MessageNotFound`], [`QueryError::NotDead`], [`QueryError::AgentEnded`] when nobody has the recipient's
    /// name, [`QueryError::FileGone`] or [`QueryError::Send`] when its file cannot go along. Nothing has changed then.
    pub async fn redrive(self: &Arc<Self>, whose: Whose, msg_id: MessageId) -> Result<Vec<Redriven>, QueryError> {
        let post = Arc::clone(self);
        self.finish(async move { post.redrive_all(whose, msg_id).await }).await
    }

    async fn redrive_all(self: &Arc<Self>, whose: Whose, msg_id: MessageId) -> Result<Vec<Redriven>, QueryError> {
        let look = move |tx: Tx<'_>| Ok((listing::of_message(tx, whose, msg_id)?, outbox::get(tx, msg_id)?));
        let (listed, message) = self.store.read(look).await?;
        let letters = letters(listed, msg_id)?;
        let target = |letter: &Listed| Ok((letter.row.recipient, self.target(&letter.row)?));
        let targets = letters.iter().map(target).collect::<Result<HashMap<_, _>, QueryError>>()?;
        let random = letters.iter().map(|_| random::id_bytes()).collect::<Option<Vec<_>>>();
        let now_ms = self.clock.now_ms();
        let file = match message.filter(|message| opens_stream(&message.inner)) {
            Some(message) => {
                let is_same = targets.iter().all(|(recipient, target)| target.agent_id == *recipient);
                let as_new = !is_same || redrive(message.created_ms, message.ttl_seconds, now_ms) == Redrive::Anew;
                let file = self.file_again(msg_id, as_new).await?;
                Some(file.ok_or(QueryError::FileGone { msg_id })?)
            }
            None => None,
        };
        let taken = file.clone();
        let means = Means {
            now_ms,
            file,
            config: self.config.outbox.clone(),
            sequence_epoch: self.store.sequence_epoch(),
            random: random.ok_or(QueryError::Random)?,
        };
        let begun = self.store.transact(move |tx| begin_all(tx, whose, msg_id, targets, &means)).await;
        let begun = match (begun, taken.clone()) {
            (Err(error), Some(taken)) => {
                taken.undo(self).await;
                return Err(error);
            }
            (begun, _) => begun?,
        };
        let mut redriven = Vec::with_capacity(begun.len());
        for Begun { stepped, message, from } in begun {
            let row = &stepped.row;
            redriven.push(Redriven {
                msg_id: row.msg_id,
                redrive_of: msg_id,
                to: row.to_slug.clone(),
                to_agent_id: row.recipient,
                expires_ms: row.delivery.expires_ms,
            });
            self.hub.show(row.sender, || TailItem {
                direction: Direction::Out,
                message: sent_message(&message, from, row.to_slug.clone()),
                state: Some(StateName::Queued),
            });
            let begun = row.msg_id;
            self.follow_up(stepped);
            if taken.is_some() {
                self.restart_stream(msg_id, begun).await?;
            }
        }
        Ok(redriven)
    }

    /// Drops the dead letters of a message; how its deliveries ended stays known. Returns what they were.
    ///
    /// # Errors
    /// [`QueryError::MessageNotFound`], or [`QueryError::NotDead`].
    pub async fn drop_dead_letter(
        self: &Arc<Self>,
        whose: Whose,
        msg_id: MessageId,
    ) -> Result<Vec<Listed>, QueryError> {
        let post = Arc::clone(self);
        self.finish(async move { post.drop_letters(whose, msg_id).await }).await
    }

    async fn drop_letters(&self, whose: Whose, msg_id: MessageId) -> Result<Vec<Listed>, QueryError> {
        let work = move |tx: Tx<'_>| -> Result<(Vec<Listed>, Option<OutRow>), QueryError> {
            let letters = letters(listing::of_message(tx, whose, msg_id)?, msg_id)?;
            for letter in &letters {
                dead_letter::remove(tx, msg_id, letter.row.recipient)?;
            }
            Ok((letters, stream::of_message(tx, msg_id)?))
        };
        let (letters, file) = self.store.transact(work).await?;
        self.streams.forget_copies(file.into_iter().map(|file| file.stream_id).collect()).await;
        Ok(letters)
    }

    fn target(&self, row: &DeliveryRow) -> Result<Target, QueryError> {
        let snapshot = self.directory.snapshot();
        let found = snapshot.peer(row.recipient).or_else(|| snapshot.by_slug(&row.to_slug));
        let found: &Arc<_> = found.ok_or_else(|| QueryError::AgentEnded { slug: row.to_slug.to_string() })?;
        Ok(Target { agent_id: found.agent_id, slug: found.slug.clone() })
    }
}

/// A redrive that is about to be committed.
struct Begun {
    stepped: Stepped,
    message: OutboxRow,
    from: Slug,
}

/// The dead ones among a message's deliveries.
fn letters(listed: Vec<Listed>, msg_id: MessageId) -> Result<Vec<Listed>, QueryError> {
    let state = listed.first().ok_or(QueryError::MessageNotFound { msg_id })?.row.delivery.state.name();
    let letters: Vec<_> = listed.into_iter().filter(|listed| listed.letter.is_some()).collect();
    if letters.is_empty() { Err(QueryError::NotDead { msg_id, state }) } else { Ok(letters) }
}

/// Looks again, now that nobody else writes: of two who want the same, one gets it.
fn begin_all(
    tx: Tx<'_>,
    whose: Whose,
    msg_id: MessageId,
    mut targets: HashMap<AgentId, Target>,
    means: &Means,
) -> Result<Vec<Begun>, QueryError> {
    let letters = letters(listing::of_message(tx, whose, msg_id)?, msg_id)?;
    let message = outbox::get(tx, msg_id)?.ok_or(QueryError::MessageNotFound { msg_id })?;
    let mut begun = Vec::with_capacity(letters.len());
    for (letter, random) in letters.into_iter().zip(&means.random) {
        let Listed { row, from, .. } = letter;
        let Some(target) = targets.remove(&row.recipient) else { continue };
        dead_letter::remove(tx, msg_id, row.recipient)?;
        let is_same = target.agent_id == row.recipient;
        let (stepped, message) = match redrive(message.created_ms, message.ttl_seconds, means.now_ms) {
            Redrive::Same { ttl_seconds } if is_same => begin_again(tx, row, &message, ttl_seconds, means)?,
            _ => begin_anew(tx, &row, &message, target, *random, means)?,
        };
        begun.push(Begun { stepped, message, from });
    }
    Ok(begun)
}

/// Under its own id, from the first seal on.
fn begin_again(
    tx: Tx<'_>,
    row: DeliveryRow,
    message: &OutboxRow,
    ttl_seconds: u32,
    means: &Means,
) -> Result<(Stepped, OutboxRow), QueryError> {
    let Means { now_ms, config, .. } = means;
    let expires_ms = message.created_ms.saturating_add(u64::from(ttl_seconds) * 1000);
    let (msg_id, state) = (row.msg_id, row.delivery.state.name());
    let delivery = row.delivery.redriven(*now_ms, expires_ms).ok_or(QueryError::NotDead { msg_id, state })?;
    outbox::set_ttl(tx, msg_id, ttl_seconds)?;
    copy::retire(tx, &row)?;
    let mut row = DeliveryRow { delivery, env_digest: None, code: None, fresh_prekey: None, ..row };
    open_stream(tx, &row, means)?;
    let effects = transition::advance(tx, &mut row, Event::Tick, *now_ms, config)?;
    delivery::update(tx, &row)?;
    Ok((Stepped::new(row, effects), OutboxRow { ttl_seconds, ..message.clone() }))
}

/// As a new message with the same content.
fn begin_anew(
    tx: Tx<'_>,
    row: &DeliveryRow,
    message: &OutboxRow,
    target: Target,
    random: [u8; 10],
    means: &Means,
) -> Result<(Stepped, OutboxRow), QueryError> {
    let Means { now_ms, config, sequence_epoch, .. } = means;
    let Target { agent_id: recipient, slug } = target;
    let conversation_id = dm_conversation_id(message.sender, recipient);
    let inner =
        inner_of_redrive(message, conversation_id, means).ok_or(QueryError::Unreadable { msg_id: row.msg_id })?;
    let message = OutboxRow {
        msg_id: MessageId::new_v7(*now_ms, random),
        conversation_id,
        sequence_epoch: *sequence_epoch,
        sequence: outbox::next_sequence(tx, message.sender, conversation_id)?,
        inner,
        created_ms: *now_ms,
        ..message.clone()
    };
    outbox::insert(tx, &message, None, &sha256(&message.inner))?;
    let mut row = DeliveryRow::new(&message, recipient, slug);
    open_stream(tx, &row, means)?;
    let effects = transition::advance(tx, &mut row, Event::Tick, *now_ms, config)?;
    delivery::insert(tx, &row)?;
    Ok((Stepped::new(row, effects), message))
}

/// Lets the file go along.
fn open_stream(tx: Tx<'_>, row: &DeliveryRow, means: &Means) -> Result<(), QueryError> {
    let Some(file) = &means.file else { return Ok(()) };
    let target = OutTarget { msg_id: row.msg_id, recipient: row.recipient, to: &row.to_slug, now_ms: means.now_ms };
    file.open(tx, target).map_err(|error| QueryError::Send(Box::new(error)))
}

/// The same content, naming the message that it stands for; a redrive of a redrive names the latest.
fn inner_of_redrive(message: &OutboxRow, conversation_id: ConversationId, means: &Means) -> Option<Bytes> {
    let mut inner = Inner::decode(message.inner.clone()).ok()?;
    inner.attrs.retain(|attr| attr.key != REDRIVE_OF);
    inner.attrs.push(Attr { key: REDRIVE_OF.to_owned(), value: message.msg_id.to_string() });
    let inner = Inner { conversation_id, ..inner };
    let inner = means.file.iter().fold(inner, |inner, file| file.announce(inner));
    inner.encode().ok()
}
