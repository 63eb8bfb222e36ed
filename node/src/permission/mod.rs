//! Approvals of tool calls: asked in one session, answered in another place (docs/adr/0016-permission-relay.md).
//!
//! A request is a row of this node, told to whoever may answer: agents that live here by an event of their log, agents of other hosts by an
//! end-to-end encrypted request (`relay`), people by the command line and by what follows [`Permissions::news`]. The first answer counts,
//! in one transaction; it goes back by the session of the program that asked.

mod relay;
mod rule;

use std::{sync::Arc, time::Duration};

use murmur_core::{id::AgentId, slug::Slug, text::is_hidden};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

pub use crate::store::permission::PermissionRow;
pub use rule::Answerer;

use crate::{
    agents::Agents,
    clock::Clock,
    directory::Directory,
    events::{Events, Word},
    post::{LocalAgent, Post},
    store::{
        Store, StoreError, Tx, event,
        permission::{self as table, NewPermission},
    },
};

/// The kind of event that tells an agent of a request that it may answer.
pub const REQUEST_KIND: &str = "permission_request";
/// How long a request is open. A person may be at lunch; a program that waits longer has been given up.
const LIFE_MS: u64 = 60 * 60 * 1000;
/// Requests that a slow follower may be behind before it misses some.
const NEWS_CAPACITY: usize = 64;
/// What is kept of a description and of arguments, in bytes.
const WORDS_BYTES_MAX: usize = 4 * 1024;

/// What became of a request, for those who tell people: notification channels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// Somebody is asked. Whoever follows this, and has found out who a person is, calls [`Permissions::answer`].
    Asked(Arc<PermissionRow>),
    /// It was answered or withdrawn, or its time has passed: an answer would be refused.
    Settled(Arc<PermissionRow>),
}

/// What a session's program asks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Question {
    /// Five letters a to z without l.
    pub request_id: String,
    /// The tool.
    pub tool_name: String,
    /// What the call is to do.
    pub description: String,
    /// Its arguments.
    pub input_preview: String,
    /// Which run of the program asks.
    pub instance: String,
}

/// Why an answer does not count.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// There is none that the caller may answer.
    #[error("there is no permission request `{request_id}`")]
    NotFound {
        /// As it was named.
        request_id: String,
    },
    /// More than one agent has a request of this id.
    #[error("{} have a request `{request_id}`", agents.join(" and "))]
    Ambiguous {
        /// As it was named.
        request_id: String,
        /// Who asks.
        agents: Vec<String>,
    },
    /// It is the caller's own, or that of the program that the caller is a doing of.
    #[error("{slug} may not answer its own request")]
    Own {
        /// Who asks.
        slug: Slug,
    },
    /// Somebody was faster.
    #[error("the request `{request_id}` was {} by {by} already", if *allowed { "allowed" } else { "denied" })]
    Answered {
        /// As it was named.
        request_id: String,
        /// The answer that counts.
        allowed: bool,
        /// Whose it is.
        by: String,
    },
    /// Its time is over, or the program that asked is gone.
    #[error("the request `{request_id}` is over: {why}")]
    Over {
        /// As it was named.
        request_id: String,
        /// Why.
        why: &'static str,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The requests of this node.
pub struct Permissions {
    store: Store,
    events: Arc<Events>,
    post: Arc<Post>,
    agents: Arc<Agents>,
    directory: Arc<Directory>,
    clock: Clock,
    news: broadcast::Sender<News>,
    /// Requests whose time had passed by then were told of as such by an earlier run, or stand so in whatever is shown from now on.
    began_ms: u64,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// What the requests work with.
pub struct Parts {
    /// Where they are kept.
    pub store: Store,
    /// Tells agents that live here.
    pub events: Arc<Events>,
    /// Tells agents of other hosts.
    pub post: Arc<Post>,
    /// Who lives here.
    pub agents: Arc<Agents>,
    /// Who there is.
    pub directory: Arc<Directory>,
    /// What time it is.
    pub clock: Clock,
    /// Cancelled when the node goes down.
    pub stop: CancellationToken,
}

/// Whether a text can name a request: five letters a to z without l, which reads as 1 or I.
#[must_use]
pub fn is_request_id(text: &str) -> bool {
    text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_lowercase() && byte != b'l')
}

impl Permissions {
    /// The requests of a store.
    #[must_use]
    pub fn new(parts: Parts) -> Arc<Self> {
        let Parts { store, events, post, agents, directory, clock, stop } = parts;
        let (news, tasks) = (broadcast::Sender::new(NEWS_CAPACITY), TaskTracker::new());
        let began_ms = clock.now_ms();
        Arc::new(Self { store, events, post, agents, directory, clock, news, began_ms, tasks, stop })
    }

    /// What happens to requests from now on. A follower that is too slow misses some, and looks at [`Permissions::list`].
    #[must_use]
    pub fn news(&self) -> broadcast::Receiver<News> {
        self.news.subscribe()
    }

    /// Waits again for the answers to what was asked before this process began, and tells of requests whose time passes, until the node goes
    /// down.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn run(self: &Arc<Self>) -> Result<(), StoreError> {
        self.resume_relays().await?;
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = self.tell_expired() => {}
        }
        self.tasks.close();
        self.tasks.wait().await;
        Ok(())
    }

    /// Asks whoever may answer. Returns the request, and the slugs of agents that are told.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn ask(
        self: &Arc<Self>,
        asker: &LocalAgent,
        question: Question,
    ) -> Result<(PermissionRow, Vec<Slug>), StoreError> {
        let Question { request_id, tool_name, description, input_preview, instance } = question;
        let new = NewPermission {
            request_id,
            agent: asker.agent_id,
            slug: asker.slug.clone(),
            instance,
            tool_name: shown(&tool_name),
            description: shown(&description),
            input_preview: shown(&input_preview),
            life_ms: LIFE_MS,
        };
        let answerers = rule::asked(&asker.slug);
        let local: Vec<LocalAgent> = answerers.iter().filter_map(|slug| self.living_here(slug)).collect();
        let told = local.clone();
        let now_ms = self.clock.now_ms();
        let stored = self.store.write(move |tx| {
            let (row, is_new) = table::insert(tx, &new, now_ms)?;
            if is_new {
                for agent in &told {
                    Events::put(tx, agent.agent_id, &agent.slug.to_string(), word(&row), now_ms)?;
                }
            }
            Ok((row, is_new))
        });
        let (row, is_new) = stored.await?;
        local.iter().for_each(|agent| self.events.ring(agent.agent_id));
        let mut slugs: Vec<Slug> = local.into_iter().map(|agent| agent.slug).collect();
        let far = answerers.into_iter().filter(|slug| !slugs.contains(slug) && self.lives_elsewhere(slug)).collect();
        if is_new {
            info!(agent.slug = %asker.slug, "{} asks for a permission", asker.slug);
            slugs.extend(self.relay(asker, &row, far).await);
            // Nobody may follow.
            let _ = self.news.send(News::Asked(Arc::new(row.clone())));
        } else {
            slugs.extend(far);
        }
        Ok((row, slugs))
    }

    /// Requests that somebody may answer, oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list(&self, answerer: &Answerer, all: bool) -> Result<Vec<PermissionRow>, StoreError> {
        let now_ms = self.clock.now_ms();
        let rows = self.store.read(move |tx| table::list(tx, all, now_ms)).await?;
        Ok(rows.into_iter().filter(|row| answerer.may_answer(&row.slug)).collect())
    }

    /// Answers a request. Whoever calls this has found out who the answerer is, and which agents' programs it is a doing of (`below`): they
    /// answer nothing for themselves by it.
    ///
    /// # Errors
    /// [`AnswerError`]; then nothing was changed.
    pub async fn answer(
        &self,
        answerer: &Answerer,
        below: &[AgentId],
        request_id: &str,
        asked_by: Option<&Slug>,
        allow: bool,
    ) -> Result<PermissionRow, AnswerError> {
        let (who, below) = (answerer.clone(), below.to_vec());
        let (request_id, asked_by) = (request_id.to_owned(), asked_by.cloned());
        let find = move |tx: Tx<'_>, now_ms: u64| find(tx, &who, &below, &request_id, asked_by.as_ref(), now_ms);
        self.settle(answerer, allow, find).await
    }

    /// Answers the very request of a number, for somebody who was shown that one: a person on a notification channel. Whoever calls this has
    /// found out who they are.
    ///
    /// # Errors
    /// [`AnswerError`]; then nothing was changed.
    pub async fn answer_number(
        &self,
        answerer: &Answerer,
        number: u64,
        allow: bool,
    ) -> Result<PermissionRow, AnswerError> {
        let who = answerer.clone();
        let find = move |tx: Tx<'_>, now_ms: u64| {
            let row = table::get(tx, number)?;
            if !who.may_answer(&row.slug) {
                return Err(AnswerError::NotFound { request_id: row.request_id });
            }
            if row.is_open(now_ms) { Ok(row) } else { Err(over(row, now_ms)) }
        };
        self.settle(answerer, allow, find).await
    }

    /// A request as it stands.
    ///
    /// # Errors
    /// [`StoreError`], also when there is none.
    pub async fn get(&self, number: u64) -> Result<PermissionRow, StoreError> {
        self.store.read(move |tx| table::get(tx, number)).await
    }

    /// Whether an answer to a request would count now.
    #[must_use]
    pub fn is_open(&self, row: &PermissionRow) -> bool {
        row.is_open(self.clock.now_ms())
    }

    /// Answers the request that is found, in one transaction with finding it.
    async fn settle(
        &self,
        answerer: &Answerer,
        allow: bool,
        find: impl FnOnce(Tx<'_>, u64) -> Result<PermissionRow, AnswerError> + Send + 'static,
    ) -> Result<PermissionRow, AnswerError> {
        let who = answerer.to_string();
        let now_ms = self.clock.now_ms();
        let answered = self.store.transact(move |tx| {
            let row = find(tx, now_ms)?;
            if !table::answer(tx, row.number, allow, &who, now_ms)? {
                return Err(over(row, now_ms));
            }
            Ok((table::get(tx, row.number)?, event::settle(tx, &subject(&row))?))
        });
        let (row, told): (PermissionRow, Vec<AgentId>) = answered.await?;
        info!(agent.slug = %row.slug, by = %row.answered_by, "a permission request of {} was answered", row.slug);
        self.events.ring(row.agent);
        told.into_iter().for_each(|agent| self.events.ring(agent));
        let _ = self.news.send(News::Settled(Arc::new(row.clone())));
        Ok(row)
    }

    /// A run of an agent's program begins: what others asked is withdrawn. To be called before its session is told anything.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn begin(&self, agent: AgentId, instance: String) -> Result<(), StoreError> {
        let now_ms = self.clock.now_ms();
        let withdrawn = self.store.write(move |tx| {
            let rows = table::withdraw_others(tx, agent, &instance, now_ms)?;
            for row in &rows {
                event::settle(tx, &subject(row))?;
            }
            Ok(rows)
        });
        for row in withdrawn.await? {
            let _ = self.news.send(News::Settled(Arc::new(row)));
        }
        Ok(())
    }

    /// Tells of each request when its time passes.
    async fn tell_expired(&self) {
        let (mut news, mut told_ms) = (self.news.subscribe(), self.began_ms);
        loop {
            let next = match self.expired(&mut told_ms).await {
                Ok(next) => next,
                Err(error) => {
                    warn!(%error, "requests whose time has passed are not told of before the next one is asked");
                    None
                }
            };
            let timer = async {
                match next {
                    Some(at_ms) => {
                        tokio::time::sleep(Duration::from_millis(at_ms.saturating_sub(self.clock.now_ms()))).await;
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = timer => {}
                told = news.recv() => if matches!(told, Err(RecvError::Closed)) { return },
            }
        }
    }

    /// Tells of what has expired since a moment, which moves on, and says when the next one does.
    async fn expired(&self, told_ms: &mut u64) -> Result<Option<u64>, StoreError> {
        let (from_ms, now_ms) = (*told_ms, self.clock.now_ms());
        let look = move |tx: Tx<'_>| Ok((table::expired(tx, from_ms, now_ms)?, table::next_expiry(tx, now_ms)?));
        let (expired, next) = self.store.read(look).await?;
        *told_ms = now_ms.max(from_ms);
        for row in expired {
            info!(agent.slug = %row.slug, "the time of a permission request of {} has passed", row.slug);
            let _ = self.news.send(News::Settled(Arc::new(row)));
        }
        Ok(next)
    }

    fn living_here(&self, slug: &Slug) -> Option<LocalAgent> {
        let row = self.agents.by_slug(slug)?;
        Some(LocalAgent { agent_id: row.agent_id, slug: row.slug.clone() })
    }

    fn lives_elsewhere(&self, slug: &Slug) -> bool {
        self.agents.by_slug(slug).is_none() && self.directory.snapshot().by_slug(slug).is_some()
    }
}

/// The one request that a call means.
fn find(
    tx: Tx<'_>,
    answerer: &Answerer,
    below: &[AgentId],
    request_id: &str,
    asked_by: Option<&Slug>,
    now_ms: u64,
) -> Result<PermissionRow, AnswerError> {
    let mut rows = table::named(tx, request_id)?;
    rows.retain(|row| asked_by.is_none_or(|slug| row.slug == *slug));
    let is_own = |row: &PermissionRow| answerer.is(&row.slug) || below.contains(&row.agent);
    let own = rows.iter().find(|row| is_own(row)).map(|row| row.slug.clone());
    rows.retain(|row| answerer.may_answer(&row.slug) && !is_own(row));
    if let (true, Some(slug)) = (rows.is_empty(), own) {
        return Err(AnswerError::Own { slug });
    }
    let open: Vec<&PermissionRow> = rows.iter().filter(|row| row.is_open(now_ms)).collect();
    match open.as_slice() {
        [row] => Ok((*row).clone()),
        [] => match rows.into_iter().next() {
            Some(row) => Err(over(row, now_ms)),
            None => Err(AnswerError::NotFound { request_id: request_id.to_owned() }),
        },
        several => {
            let agents = several.iter().map(|row| row.slug.to_string()).collect();
            Err(AnswerError::Ambiguous { request_id: request_id.to_owned(), agents })
        }
    }
}

/// Why a request takes no answer.
fn over(row: PermissionRow, now_ms: u64) -> AnswerError {
    let PermissionRow { request_id, allowed, answered_by: by, withdrawn_ms, .. } = row;
    match allowed {
        Some(allowed) => AnswerError::Answered { request_id, allowed, by },
        None if withdrawn_ms.is_some() => AnswerError::Over { request_id, why: "the program that asked is gone" },
        None if now_ms >= row.expires_ms => AnswerError::Over { request_id, why: "its time has passed" },
        None => AnswerError::NotFound { request_id },
    }
}

/// What an agent that may answer is told.
fn word(row: &PermissionRow) -> Word {
    Word {
        event_id: format!("permission-{}", row.number),
        kind: REQUEST_KIND.to_owned(),
        origin: format!("agent:{}", row.slug),
        attributes: vec![
            ("request_id", row.request_id.clone()),
            ("from", row.slug.to_string()),
            ("tool_name", row.tool_name.clone()),
        ],
        text: question_text(row),
        untrusted: true,
        subject: Some(subject(row)),
    }
}

fn question_text(row: &PermissionRow) -> String {
    let PermissionRow { description, input_preview, .. } = row;
    if input_preview.is_empty() { description.clone() } else { format!("{description}\n{input_preview}") }
}

fn subject(row: &PermissionRow) -> String {
    format!("{REQUEST_KIND}\u{1f}{}", row.number)
}

/// What is kept of a program's words: nothing that hides, and not too much.
fn shown(words: &str) -> String {
    let stays =
        |character: &char| matches!(character, '\n' | '\t') || (!character.is_control() && !is_hidden(*character));
    let clean: String = words.chars().filter(stays).collect();
    clean[..clean.floor_char_boundary(WORDS_BYTES_MAX)].to_owned()
}

#[cfg(test)]
mod tests;
