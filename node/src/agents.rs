//! The agents that live on this node: known here at once, granted by the control plane, their tokens checked here.
//!
//! The registry in memory is what calls look at; the store keeps it, and the control plane alone gives names away. So an agent
//! that is known speaks with the control plane down, and a new one needs it.

use std::{
    collections::HashMap,
    sync::{Arc, RwLock},
    time::Instant,
};

use bytes::Bytes;
use murmur_core::{
    id::{AgentId, TokenId},
    retry::Backoff,
    slug::{AgentPath, Slug, SlugError},
    token::{Token, TokenKind},
};
use murmur_crypto::chain::Chain;
use tokio::sync::{Mutex, watch};
use tracing::{info, warn};

use crate::{
    clock::Clock,
    delay::Delay,
    directory::{AgentKind, Batch, Change, Directory, Peer},
    failpoint::failpoint,
    identity::NodeIdentity,
    keys::{AgentKeys, KeyError, Keys},
    rpc::control::{Control, ControlError},
    session::Sessions,
    store::{
        Store, StoreError, Tx,
        agents::{self as table, AgentRow},
        runtime,
    },
};

/// Between tries to publish the keys of an agent that is about to run, while the control plane says that it cannot take them now.
const PUBLISH_BACKOFF: Backoff = Backoff { base_ms: 100, cap_ms: 5_000 };

/// The registry.
pub struct Agents {
    store: Store,
    keys: Arc<Keys>,
    directory: Arc<Directory>,
    identity: Arc<NodeIdentity>,
    control: Arc<Control>,
    sessions: Arc<Sessions>,
    clock: Clock,
    live: RwLock<HashMap<Slug, Entry>>,
    /// One registration at a time, so that two callers of one name end up with one agent.
    registering: Mutex<()>,
    /// Moves when a token was revoked.
    revoked: watch::Sender<u64>,
}

#[derive(Clone)]
struct Entry {
    row: Arc<AgentRow>,
    since: Instant,
    /// Of the control plane's entry that it came with; 0 when that is not known.
    revision: u64,
}

/// What to register.
#[derive(Debug, Clone)]
pub struct Registration {
    /// Path under the account.
    pub path: AgentPath,
    /// What it is for; empty keeps what is known.
    pub description: String,
    /// Its group; empty keeps what is known.
    pub group: String,
    /// Take `path-2`, `path-3`, … when another node holds the name.
    pub suffix_when_taken: bool,
    /// Bring the agent here when another node holds the name.
    pub move_here: bool,
}

impl Registration {
    /// Whether it says something else about a known agent.
    fn changes(&self, row: &AgentRow) -> bool {
        let differs = |new: &str, old: &str| !new.is_empty() && new != old;
        differs(&self.description, &row.description) || differs(&self.group, &row.group)
    }
}

/// An agent could not be registered, ended or given a token.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The control plane is away or refuses.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The slug would be too long.
    #[error(transparent)]
    Slug(#[from] SlugError),
    /// The store failed.
    #[error("the agent could not be stored")]
    Store(#[from] StoreError),
    /// Its keys could not be made.
    #[error("the agent's keys could not be made")]
    Keys(#[from] KeyError),
    /// There is no randomness.
    #[error("the operating system gave no randomness")]
    Random,
}

impl Agents {
    /// Loads the registry.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn load(
        store: Store,
        keys: Arc<Keys>,
        directory: Arc<Directory>,
        identity: Arc<NodeIdentity>,
        control: Arc<Control>,
        sessions: Arc<Sessions>,
        clock: Clock,
    ) -> Result<Arc<Self>, StoreError> {
        let since = Instant::now();
        let rows = store.read(table::live).await?;
        let live =
            rows.into_iter().map(|row| (row.slug.clone(), Entry { row: Arc::new(row), since, revision: 0 })).collect();
        let registering = Mutex::new(());
        let live = RwLock::new(live);
        let revoked = watch::Sender::new(0);
        Ok(Arc::new(Self { store, keys, directory, identity, control, sessions, clock, live, registering, revoked }))
    }

    /// The slug of a path under this node's account.
    ///
    /// # Errors
    /// [`SlugError`] when it would be too long.
    pub fn slug(&self, path: &AgentPath) -> Result<Slug, SlugError> {
        Slug::new(self.identity.workspace.clone(), self.identity.account.clone(), path.clone())
    }

    /// The live agent of this node that holds a slug.
    #[must_use]
    pub fn by_slug(&self, slug: &Slug) -> Option<Arc<AgentRow>> {
        self.read().get(slug).map(|entry| entry.row.clone())
    }

    /// The agent of this node that held a slug last and has ended.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn ended_by_slug(&self, slug: Slug) -> Result<Option<Arc<AgentRow>>, StoreError> {
        Ok(self.store.read(move |tx| table::ended_by_slug(tx, &slug)).await?.map(Arc::new))
    }

    /// Every live agent of this node.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<AgentRow>> {
        self.read().values().map(|entry| entry.row.clone()).collect()
    }

    /// The agent that a token speaks for; `None` when the token is unknown, revoked, of an ended agent, or forged.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn by_token(&self, token: &Token) -> Result<Option<Arc<AgentRow>>, StoreError> {
        let id = token.id();
        let found = self.store.read(move |tx| table::token(tx, id)).await?;
        Ok(found.filter(|(hash, _)| token.matches(hash)).map(|(_, row)| Arc::new(row)))
    }

    /// Makes sure that an interactive agent exists, and says whether this call made it. One that is known and need not change is
    /// answered with the control plane down.
    ///
    /// # Errors
    /// [`AgentError`].
    pub async fn register(&self, wish: Registration) -> Result<(Arc<AgentRow>, bool), AgentError> {
        let slug = self.slug(&wish.path)?;
        if let Some(row) = self.by_slug(&slug).filter(|row| !wish.changes(row)) {
            return Ok((row, false));
        }
        let _one_at_a_time = self.registering.lock().await;
        let known = self.by_slug(&slug);
        if let Some(row) = known.as_ref().filter(|row| !wish.changes(row)) {
            return Ok((row.clone(), false));
        }
        let kept = |new: String, old: fn(&AgentRow) -> &String| match &known {
            Some(row) if new.is_empty() => old(row).clone(),
            _ => new,
        };
        let wish = Registration {
            description: kept(wish.description, |row| &row.description),
            group: kept(wish.group, |row| &row.group),
            ..wish
        };
        match (self.control.register_agent(&wish).await, known) {
            (Ok((peer, created)), _) => Ok((self.adopt(peer).await?, created)),
            // Only the new description is lost, and the answer shows that.
            (Err(ControlError::Down(_)), Some(row)) => Ok((row, false)),
            (Err(error), _) => Err(error.into()),
        }
    }

    /// Ends an agent: its name is free again, and it is refused from now on.
    ///
    /// # Errors
    /// [`AgentError`].
    pub async fn deregister(&self, agent: &AgentRow) -> Result<bool, AgentError> {
        let was_live = self.control.deregister_agent(agent.agent_id).await?;
        self.directory.apply(changes([Change::Removed(agent.agent_id)]), self.clock.now_ms());
        self.end(agent).await?;
        self.forget_keys(agent.agent_id).await?;
        Ok(was_live)
    }

    /// Makes an agent known that the control plane has placed here and that this node is to run, and publishes its keys.
    ///
    /// # Errors
    /// [`AgentError`] when the control plane does not know it, or the disk refuses.
    pub async fn adopt_spawned(&self, agent: AgentId, slug: &Slug, description: &str) -> Result<(), AgentError> {
        let _one_at_a_time = self.registering.lock().await;
        // The directory gives a name to one agent at a time: whoever had it here has ended.
        if let Some(earlier) = self.by_slug(slug).filter(|row| row.agent_id != agent) {
            self.end(&earlier).await?;
        }
        let row = Arc::new(AgentRow {
            agent_id: agent,
            slug: slug.clone(),
            kind: AgentKind::Spawned.number(),
            description: description.to_owned(),
            group: String::new(),
            created_ms: self.clock.now_ms(),
            deregistered_ms: None,
        });
        let saved = row.clone();
        self.store.write(move |tx| table::save(tx, &saved)).await?;
        self.write().insert(slug.clone(), Entry { row: row.clone(), since: Instant::now(), revision: 0 });
        let mut delay = Delay::new(PUBLISH_BACKOFF);
        loop {
            match self.publish(&row).await {
                // They are published when the control plane is back.
                Err(AgentError::Control(ControlError::Down(_))) | Ok(()) => return Ok(()),
                // Many agents that start at once are many calls.
                Err(AgentError::Control(ControlError::Refused(refusal))) if refusal.is_passing() => delay.wait().await,
                Err(error) => return Err(error),
            }
        }
    }

    /// Issues a token that speaks for an agent, in place of all that did.
    ///
    /// # Errors
    /// [`AgentError`].
    pub async fn renew_token(&self, agent: AgentId) -> Result<Token, AgentError> {
        let (token, now_ms) = self.new_token()?;
        let (id, hash) = (token.id(), token.hash());
        let renew = move |tx: Tx<'_>| {
            runtime::revoke_tokens(tx, agent, now_ms)?;
            table::save_token(tx, id, &hash, agent, now_ms)
        };
        self.store.write(renew).await?;
        self.ring_revoked();
        Ok(token)
    }

    /// Issues a token that speaks for an agent. The store keeps its digest alone.
    ///
    /// # Errors
    /// [`AgentError`].
    pub async fn issue_token(&self, agent: AgentId) -> Result<Token, AgentError> {
        let (token, now_ms) = self.new_token()?;
        let (id, hash) = (token.id(), token.hash());
        self.store.write(move |tx| table::save_token(tx, id, &hash, agent, now_ms)).await?;
        Ok(token)
    }

    /// A token that nobody knows yet, and when it was made.
    fn new_token(&self) -> Result<(Token, u64), AgentError> {
        let (mut id, mut secret) = ([0; 10], [0; 32]);
        getrandom::fill(&mut id).and_then(|()| getrandom::fill(&mut secret)).map_err(|_| AgentError::Random)?;
        let now_ms = self.clock.now_ms();
        Ok((Token::from_parts(TokenKind::Agent, TokenId::new_v7(now_ms, id), secret), now_ms))
    }

    /// Whoever speaks with a token looks whether it is still good.
    fn ring_revoked(&self) {
        self.revoked.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Revokes a token of an agent of this node, and says whose it was and whether this call did it; `None` when there is none, or it is
    /// of another than `of`.
    ///
    /// # Errors
    /// [`AgentError`].
    pub async fn revoke_token(
        &self,
        token: TokenId,
        of: Option<AgentId>,
    ) -> Result<Option<(AgentRow, bool)>, AgentError> {
        let now_ms = self.clock.now_ms();
        let revoked = self.store.write(move |tx| table::revoke_token(tx, token, of, now_ms)).await?;
        self.ring_revoked();
        Ok(revoked)
    }

    /// Waits until a token is revoked.
    pub async fn until_revoked(self: Arc<Self>, token: TokenId) {
        let mut bell = self.revoked.subscribe();
        // A store that cannot be read says nothing about the token.
        while !matches!(self.store.read(move |tx| table::token(tx, token)).await, Ok(None)) {
            if bell.changed().await.is_err() {
                return;
            }
        }
    }

    /// How far the store has come.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn store_mark(&self) -> Result<u64, StoreError> {
        self.store.mark().await
    }

    /// Goes on with a store that is an old copy: a new epoch for what is sent, new keys for everybody (PROTOCOL §3.7).
    ///
    /// # Errors
    /// [`AgentError`] when the disk refuses.
    pub async fn begin_anew(&self, mark: u64) -> Result<(), AgentError> {
        let (keys, now_ms) = (self.keys.clone(), self.clock.now_ms());
        tokio::task::spawn_blocking(move || keys.rotate(now_ms)).await.map_err(|_| StoreError::Closed)??;
        // Last, since this is what is not done twice.
        Ok(self.store.begin_epoch(now_ms, mark).await?)
    }

    /// Publishes the keys of every agent whose published ones are old or missing.
    ///
    /// # Errors
    /// The first [`AgentError`]; the others are tried with the next call.
    pub async fn publish_due(&self) -> Result<(), AgentError> {
        let due = self.keys.due(self.clock.now_ms());
        for row in self.all() {
            if self.is_overtaken(row.agent_id) {
                warn!(agent.slug = %row.slug, "newer keys of {} are published than this node has: it makes others", row.slug);
                self.renew_keys(row.agent_id).await?;
            }
            let current = self.keys.publishable(row.agent_id);
            let snapshot = self.directory.snapshot();
            let published = snapshot.peer(row.agent_id).and_then(|peer| peer.keys.as_ref());
            let is_current = current
                .as_ref()
                .zip(published)
                .is_some_and(|(ours, theirs)| ours.chain == theirs.chain && ours.prekey == theirs.prekey);
            if !is_current || due.contains(&row.agent_id) {
                self.publish(&row).await?;
            }
        }
        Ok(())
    }

    /// Whether newer keys are published than this node has: by a copy of it that had its place. Nobody believes older ones any more.
    fn is_overtaken(&self, agent: AgentId) -> bool {
        let serial = |chain: &Bytes| {
            let chain = Chain::decode(chain.clone()).ok()?;
            chain.certificates().next().map(|certificate| certificate.claims().serial)
        };
        let snapshot = self.directory.snapshot();
        let published = snapshot.peer(agent).and_then(|peer| serial(&peer.keys.as_ref()?.chain));
        let ours = self.keys.publishable(agent).and_then(|keys| serial(&keys.chain));
        published.zip(ours).is_some_and(|(published, ours)| published > ours)
    }

    /// Ends here what the control plane says has ended. `heard_since` is when its watch began: an agent registered later may be
    /// missing from a copy made earlier.
    pub async fn reconcile(&self, batch: &Batch, heard_since: Instant) {
        for row in self.ended_by(batch, heard_since) {
            match self.directory.snapshot().lives_elsewhere(row.agent_id) {
                true => info!(agent.slug = %row.slug, "agent {} moved to another node", row.slug),
                false => info!(agent.slug = %row.slug, "agent {} was ended by the control plane", row.slug),
            }
            if let Err(error) = self.end(&row).await {
                warn!(agent.slug = %row.slug, %error, "an ended agent is still known here");
            }
        }
    }

    fn ended_by(&self, batch: &Batch, heard_since: Instant) -> Vec<Arc<AgentRow>> {
        let own_node = self.identity.node_id;
        let named = |entry: &Entry| {
            batch.changes.iter().rev().find_map(|change| match change {
                Change::Agent(peer) if peer.agent_id == entry.row.agent_id => {
                    // It may also have come here since.
                    Some(peer.node_id == own_node || peer.revision < entry.revision)
                }
                Change::Removed(removed) if *removed == entry.row.agent_id => Some(false),
                _ => None,
            })
        };
        let has_ended = |entry: &&Entry| match named(entry) {
            Some(is_live) => !is_live,
            None => batch.whole && entry.since < heard_since,
        };
        self.read().values().filter(has_ended).map(|entry| entry.row.clone()).collect()
    }

    async fn adopt(&self, peer: Peer) -> Result<Arc<AgentRow>, AgentError> {
        let row = AgentRow {
            agent_id: peer.agent_id,
            slug: peer.slug.clone(),
            kind: peer.kind.number(),
            description: peer.description.clone(),
            group: peer.group.clone(),
            created_ms: peer.created_ms,
            deregistered_ms: None,
        };
        let saved = row.clone();
        self.store.write(move |tx| table::save(tx, &saved)).await?;
        let row = Arc::new(row);
        let entry = Entry { row: row.clone(), since: Instant::now(), revision: peer.revision };
        let was_known = self.write().insert(peer.slug.clone(), entry).is_some();
        if !was_known {
            // It may have been here before: the certificate of then is older than what others have seen since.
            self.renew_keys(row.agent_id).await?;
        }
        // The control plane's own words; its watch will repeat them.
        self.directory.apply(changes([Change::Agent(Arc::new(peer))]), self.clock.now_ms());
        match self.publish(&row).await {
            // The name is ours and the keys are on disk: they are published when the control plane is back.
            Err(AgentError::Control(ControlError::Down(_))) | Ok(()) => Ok(row),
            Err(error) => Err(error),
        }
    }

    async fn publish(&self, row: &AgentRow) -> Result<(), AgentError> {
        let keys = self.make_keys(row).await?;
        failpoint("P2");
        let peer = self.control.publish_keys(row.agent_id, keys).await?;
        failpoint("P1");
        self.directory.apply(changes([Change::Agent(Arc::new(peer))]), self.clock.now_ms());
        Ok(())
    }

    async fn renew_keys(&self, agent: AgentId) -> Result<(), AgentError> {
        let (keys, now_ms) = (self.keys.clone(), self.clock.now_ms());
        tokio::task::spawn_blocking(move || keys.rotate_one(agent, now_ms)).await.map_err(|_| StoreError::Closed)??;
        Ok(())
    }

    async fn make_keys(&self, row: &AgentRow) -> Result<AgentKeys, AgentError> {
        let (keys, agent, slug, now_ms) = (self.keys.clone(), row.agent_id, row.slug.clone(), self.clock.now_ms());
        let made = tokio::task::spawn_blocking(move || keys.ensure_agent(agent, &slug, now_ms)).await;
        Ok(made.map_err(|_| StoreError::Closed)??)
    }

    /// Its keys stay: what the control plane says can be wrong, as after a restore, and keys that are gone do not come back.
    async fn end(&self, row: &AgentRow) -> Result<(), AgentError> {
        let (agent, now_ms) = (row.agent_id, self.clock.now_ms());
        self.store.write(move |tx| table::deregister(tx, agent, now_ms)).await?;
        self.write().retain(|_, entry| entry.row.agent_id != agent);
        self.sessions.end(agent);
        // Its tokens are good for nothing any more.
        self.ring_revoked();
        Ok(())
    }

    async fn forget_keys(&self, agent: AgentId) -> Result<(), AgentError> {
        let keys = self.keys.clone();
        tokio::task::spawn_blocking(move || keys.forget(agent)).await.map_err(|_| StoreError::Closed)??;
        Ok(())
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, HashMap<Slug, Entry>> {
        self.live.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, HashMap<Slug, Entry>> {
        self.live.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn changes<const N: usize>(changes: [Change; N]) -> Batch {
    Batch { changes: changes.into(), whole: false, resume_token: None }
}
