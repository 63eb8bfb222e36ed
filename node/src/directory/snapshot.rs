//! The directory at one moment. Cloning is cheap; a change copies only the maps that it touches.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use murmur_core::{
    id::{AgentId, NodeId},
    slug::{Lookup, Slug},
};
use tracing::warn;

use super::{Batch, Change, Peer};
use crate::store::directory::Saved;

/// Everything known about who there is.
#[derive(Debug, Clone)]
pub struct Snapshot {
    own_node: NodeId,
    entries: Arc<Entries>,
    online: Arc<HashSet<NodeId>>,
    resume_token: Option<Arc<str>>,
    /// The control plane has spoken since this process started: what it once said of other nodes' presence holds again.
    heard: bool,
    /// When the control plane last confirmed this copy; `None` when it never did.
    pub confirmed_ms: Option<u64>,
    /// The control plane is connected right now.
    pub live: bool,
    /// Agents that were found on another node than before, until somebody asks.
    moved: Vec<AgentId>,
    /// Agents of which the node that they were last known on says that they have left it.
    left: Arc<HashMap<AgentId, NodeId>>,
}

#[derive(Debug, Clone, Default)]
struct Entries {
    peers: HashMap<AgentId, Arc<Peer>>,
    slugs: HashMap<Slug, AgentId>,
}

impl Snapshot {
    pub(super) fn new(own_node: NodeId, saved: Saved) -> Self {
        let Saved { peers, online, resume_token, confirmed_ms, floors: _, revocations: _ } = saved;
        let mut entries = Entries::default();
        for peer in peers {
            // Sessions that an earlier run of this node had are over.
            let attached = peer.attached && peer.node_id != own_node;
            entries.insert(Arc::new(Peer { attached, ..Arc::unwrap_or_clone(peer) }));
        }
        Self {
            own_node,
            entries: Arc::new(entries),
            online: Arc::new(online.into_iter().collect()),
            resume_token: resume_token.map(Arc::from),
            heard: false,
            confirmed_ms,
            live: false,
            moved: Vec::new(),
            left: Arc::default(),
        }
    }

    /// An agent by id.
    #[must_use]
    pub fn peer(&self, agent: AgentId) -> Option<&Arc<Peer>> {
        self.entries.peers.get(&agent)
    }

    /// An agent by slug.
    #[must_use]
    pub fn by_slug(&self, slug: &Slug) -> Option<&Arc<Peer>> {
        self.peer(*self.entries.slugs.get(slug)?)
    }

    /// Every agent, in no order.
    pub fn peers(&self) -> impl Iterator<Item = &Arc<Peer>> {
        self.entries.peers.values()
    }

    /// Whether a node is connected, as far as is known. This one is.
    #[must_use]
    pub fn node_online(&self, node: NodeId) -> bool {
        node == self.own_node || (self.heard && self.online.contains(&node))
    }

    /// Whether an agent has a session right now, as far as is known.
    #[must_use]
    pub fn online(&self, peer: &Peer) -> bool {
        peer.attached && self.node_online(peer.node_id)
    }

    /// Where the next watch goes on.
    #[must_use]
    pub fn resume_token(&self) -> Option<&str> {
        self.resume_token.as_deref()
    }

    /// Whether the directory has an agent on another node than this one.
    #[must_use]
    pub fn lives_elsewhere(&self, agent: AgentId) -> bool {
        self.peer(agent).is_some_and(|peer| peer.node_id != self.own_node)
    }

    /// Whether an agent has left the node that it is known to be on, for one that is not known yet.
    #[must_use]
    pub fn has_left(&self, peer: &Peer) -> bool {
        self.left.get(&peer.agent_id) == Some(&peer.node_id)
    }

    pub(super) fn set_left(&mut self, agent: AgentId, node: NodeId) {
        Arc::make_mut(&mut self.left).insert(agent, node);
    }

    pub(super) fn has_moved(&self) -> bool {
        !self.moved.is_empty()
    }

    pub(super) fn take_moved(&mut self) -> Vec<AgentId> {
        std::mem::take(&mut self.moved)
    }

    pub(super) fn set_live(&mut self, live: bool) {
        self.live = live;
    }

    pub(super) fn set_attached(&mut self, agent: AgentId, attached: bool) {
        let Some(peer) = self.peer(agent).filter(|peer| peer.attached != attached) else { return };
        let peer = Arc::new(Peer { attached, ..Peer::clone(peer) });
        Arc::make_mut(&mut self.entries).insert(peer);
    }

    pub(super) fn apply(&mut self, batch: &Batch, attached: &HashSet<AgentId>, now_ms: u64) {
        let Batch { changes, whole, resume_token } = batch;
        let before = Arc::clone(&self.entries);
        if *whole {
            self.entries = Arc::default();
            self.online = Arc::default();
        }
        for change in changes {
            match change {
                // What a watch repeats may be older than what was answered meanwhile.
                Change::Agent(peer) if self.peer(peer.agent_id).is_some_and(|now| now.revision > peer.revision) => {}
                Change::Agent(peer) => {
                    if before.peers.get(&peer.agent_id).is_some_and(|before| before.node_id != peer.node_id) {
                        self.moved.push(peer.agent_id);
                    }
                    if self.left.contains_key(&peer.agent_id) {
                        Arc::make_mut(&mut self.left).remove(&peer.agent_id);
                    }
                    self.insert(peer, attached);
                }
                Change::Removed(agent) => Arc::make_mut(&mut self.entries).remove(*agent),
                Change::Node { node_id, online: true } => {
                    Arc::make_mut(&mut self.online).insert(*node_id);
                }
                Change::Node { node_id, online: false } => {
                    Arc::make_mut(&mut self.online).remove(node_id);
                }
            }
        }
        if let Some(token) = resume_token {
            self.resume_token = Some(token.as_str().into());
        }
        self.heard = true;
        self.confirmed_ms = Some(now_ms);
    }

    fn insert(&mut self, peer: &Arc<Peer>, attached: &HashSet<AgentId>) {
        // About sessions here this node knows better than the control plane, which hears of them from it.
        let is_attached = if peer.node_id == self.own_node { attached.contains(&peer.agent_id) } else { peer.attached };
        let peer = if peer.attached == is_attached {
            peer.clone()
        } else {
            Arc::new(Peer { attached: is_attached, ..Peer::clone(peer) })
        };
        Arc::make_mut(&mut self.entries).insert(peer);
    }
}

impl Entries {
    fn insert(&mut self, peer: Arc<Peer>) {
        if let Some(before) = self.peers.get(&peer.agent_id)
            && before.slug != peer.slug
        {
            self.slugs.remove(&before.slug);
        }
        if let Some(before) = self.slugs.insert(peer.slug.clone(), peer.agent_id)
            && before != peer.agent_id
        {
            // Agents are made anew often, so this is worth a line and not a refusal (PROTOCOL §3.4 point 2).
            warn!(agent.slug = %peer.slug, agent.before = %before, agent.now = %peer.agent_id, "a slug names another agent now");
            self.peers.remove(&before);
        }
        self.peers.insert(peer.agent_id, peer);
    }

    fn remove(&mut self, agent: AgentId) {
        if let Some(peer) = self.peers.remove(&agent)
            && self.slugs.get(&peer.slug) == Some(&agent)
        {
            self.slugs.remove(&peer.slug);
        }
    }
}

impl Lookup for Snapshot {
    fn live(&self, slug: &Slug) -> Option<AgentId> {
        self.entries.slugs.get(slug).copied()
    }

    /// The node keeps no ended agents: they can be read and resurrected only through the control plane.
    fn ended(&self, _: &Slug) -> Option<AgentId> {
        None
    }
}
