//! Believing keys: chains and prekeys checked once and remembered for ten minutes (PROTOCOL §2.4).

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use moka::sync::Cache as Moka;
use murmur_core::{
    code::Code,
    id::{AgentId, NodeId},
    limits::{CLOCK_SKEW_MS, MESSAGE_AGE_MS_MAX},
    slug::Slug,
    subject::Route,
    tier::Tier,
};
use murmur_crypto::{
    cert::Certificate,
    chain::{Chain, ChainError, VerifiedChain, verify_chain},
    hash::{Fingerprint, sha256},
    keys::PublicKey,
    prekey::{self, PrekeyError, VerifiedPrekey},
    statement::Statement,
};
use tracing::warn;

use super::{
    Directory, Peer, PeerKeys,
    trust::{Floor, FloorKey},
};
use crate::store;

const ENTRIES_MAX: u64 = 10_000;
const LIFE: Duration = Duration::from_secs(600);

/// How this node came to know the root: from the invite, out of band.
const PINNED_OUT_OF_BAND: bool = true;

/// A peer whose keys hold: what to seal to and where to send.
#[derive(Debug, Clone)]
pub struct VerifiedPeer {
    /// The agent.
    pub agent_id: AgentId,
    /// Its slug, equal in directory and certificate.
    pub slug: Slug,
    /// The node that holds its keys.
    pub node_id: NodeId,
    /// Where that node takes deliveries.
    pub route: Route,
    /// How far it is trusted.
    pub tier: Tier,
    /// The key that it signs with.
    pub agent_key: PublicKey,
    /// The identity key of its node, as the safety number compares it.
    pub node_key: PublicKey,
    /// Its certificate.
    pub cert_fp: Fingerprint,
    /// Its certificate, for people: hex.
    pub fingerprint: String,
    /// What to seal to.
    pub prekey: VerifiedPrekey,
}

/// Why nothing can be sealed for a peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerTrouble {
    /// There is no such agent (any more).
    #[error("the agent has ended")]
    Gone,
    /// Its node has not published keys.
    #[error("it has no keys yet")]
    NoKeys,
    /// The node that it is known on says that it has left.
    #[error("it has moved to another node, and the control plane has not said yet to which")]
    Left,
    /// Its node has no address on the broker.
    #[error("its node has no route yet")]
    NoRoute,
    /// Its chain does not hold.
    #[error("its certificate chain is refused: {0}")]
    Chain(#[from] ChainError),
    /// Its certificate or directory entry is about another agent, node or slug.
    #[error("its certificate is about another {0}")]
    Mismatch(&'static str),
    /// Its prekey does not hold.
    #[error("its prekey is refused: {0}")]
    Prekey(#[from] PrekeyError),
}

impl PeerTrouble {
    /// The protocol's code for it.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Gone => Code::AgentGone,
            Self::Left => Code::AgentMoved,
            Self::NoKeys | Self::NoRoute | Self::Prekey(_) => Code::KeyUnknown,
            Self::Chain(error) => error.code(),
            Self::Mismatch(_) => Code::ChainInvalid,
        }
    }
}

pub(super) struct Cache {
    /// What was verified of each agent last, under a revocation list.
    peers: Moka<(u64, AgentId), Arc<Believed>>,
    /// By the digest of the chain's bytes, under a revocation list.
    chains: Moka<(u64, [u8; 32]), Arc<VerifiedChain>>,
    /// Agents that only their own messages have told of: node and slug as first shown.
    strangers: Moka<AgentId, (NodeId, String)>,
}

/// Keys that hold, and what the directory said when they were looked at.
struct Believed {
    said: PeerKeys,
    peer: Arc<VerifiedPeer>,
}

impl Believed {
    /// Whether it is about what the directory says now.
    fn is_of(&self, peer: &Peer, keys: &PeerKeys, route: &Route) -> bool {
        let known = &*self.peer;
        known.node_id == peer.node_id && known.route == *route && known.slug == peer.slug && self.said == *keys
    }
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            peers: Moka::builder().max_capacity(ENTRIES_MAX).time_to_live(LIFE).build(),
            chains: Moka::builder().max_capacity(ENTRIES_MAX).time_to_live(LIFE).build(),
            strangers: Moka::new(ENTRIES_MAX),
        }
    }
}

impl Directory {
    /// The keys of an agent, if they hold now.
    ///
    /// # Errors
    /// [`PeerTrouble`].
    pub fn verified(&self, agent: AgentId, now_ms: u64) -> Result<Arc<VerifiedPeer>, PeerTrouble> {
        let snapshot = self.snapshot();
        let peer = snapshot.peer(agent).ok_or(PeerTrouble::Gone)?;
        if snapshot.has_left(peer) { Err(PeerTrouble::Left) } else { self.verified_peer(peer, now_ms) }
    }

    /// Whether an agent has ended, as far as the control plane confirms right now: an entry that is missing from a copy that may
    /// be old says nothing.
    #[must_use]
    pub fn is_gone(&self, agent: AgentId) -> bool {
        let snapshot = self.snapshot();
        snapshot.live && snapshot.peer(agent).is_none()
    }

    /// The keys of an entry of some snapshot, if they hold now.
    ///
    /// # Errors
    /// [`PeerTrouble`].
    pub fn verified_peer(&self, peer: &Peer, now_ms: u64) -> Result<Arc<VerifiedPeer>, PeerTrouble> {
        let keys = peer.keys.as_ref().ok_or(PeerTrouble::NoKeys)?;
        let route = peer.route.as_ref().ok_or(PeerTrouble::NoRoute)?;
        let key = (self.trust.version(), peer.agent_id);
        if let Some(known) = self.cache.peers.get(&key)
            && known.is_of(peer, keys, route)
            && now_ms <= known.peer.prekey.not_after_ms
        {
            return Ok(known.peer.clone());
        }
        let verified = Arc::new(self.verify_peer(peer, keys, route, now_ms)?);
        self.cache.peers.insert(key, Arc::new(Believed { said: keys.clone(), peer: verified.clone() }));
        Ok(verified)
    }

    /// Checks a chain by itself, at the time when what it came with was made.
    ///
    /// # Errors
    /// [`ChainError`].
    pub fn verify_chain(&self, bytes: &Bytes, at_ms: u64) -> Result<Arc<VerifiedChain>, ChainError> {
        let key = (self.trust.version(), sha256(bytes));
        if let Some(known) = self.cache.chains.get(&key)
            && holds_at(&known, at_ms)
            && self.trust.floors.check(known.node()).is_ok()
        {
            return Ok(known);
        }
        let chain = Chain::decode(bytes.clone())?;
        let verified = Arc::new(verify_chain(&chain, &self.identity.root, at_ms, &self.trust)?);
        self.trust.floors.check(verified.node())?;
        self.remember(self.trust.floors.raise_issuers(&chain));
        self.cache.chains.insert(key, verified.clone());
        Ok(verified)
    }

    /// Checks a chain that a message or an acknowledgement carried, and that it is of the agent that is known by its id.
    ///
    /// # Errors
    /// The protocol's code for what does not hold; CHAIN_INVALID for another agent's id.
    pub fn verify_carried(&self, bytes: &Bytes, at_ms: u64) -> Result<Arc<VerifiedChain>, Code> {
        let chain = self.verify_chain(bytes, at_ms).map_err(|error| error.code())?;
        if self.is_whom_it_was(&chain) { Ok(chain) } else { Err(Code::ChainInvalid) }
    }

    /// The tier of a verified chain under the pinned root.
    #[must_use]
    pub fn tier(&self, chain: &VerifiedChain) -> Tier {
        chain.tier(PINNED_OUT_OF_BAND)
    }

    /// Whether a chain that came with a message is of the agent that is known by this id.
    ///
    /// A node may issue certificates for its own slugs, and nothing in them binds the id: without this, any node could speak under
    /// another agent's id, in that agent's conversations (PROTOCOL §3.4 point 2). An id that the directory does not know is pinned to
    /// the node and slug that showed it first. An agent that moved is believed from both nodes for as long as what it sent before may
    /// be on its way.
    fn is_whom_it_was(&self, chain: &VerifiedChain) -> bool {
        let shown = (chain.node_id(), chain.slug().to_owned());
        let snapshot = self.snapshot();
        let is_recent =
            |moved_ms: u64| snapshot.confirmed_ms.unwrap_or(moved_ms) <= moved_ms.saturating_add(MESSAGE_AGE_MS_MAX);
        match snapshot.peer(chain.agent_id()) {
            Some(peer) => {
                let is_former = peer.former.is_some_and(|(node, moved_ms)| node == shown.0 && is_recent(moved_ms));
                (shown.0 == peer.node_id || is_former) && shown.1 == peer.slug.to_string()
            }
            None => shown == self.cache.strangers.get_with(chain.agent_id(), || shown.clone()),
        }
    }

    fn verify_peer(
        &self,
        peer: &Peer,
        keys: &PeerKeys,
        route: &Route,
        now_ms: u64,
    ) -> Result<VerifiedPeer, PeerTrouble> {
        let chain = self.verify_chain(&keys.chain, now_ms)?;
        self.trust.floors.check(chain.agent())?;
        require(chain.agent_id() == peer.agent_id, "agent")?;
        require(chain.node_id() == peer.node_id, "node")?;
        require(route.node == peer.node_id, "route")?;
        require(chain.slug() == peer.slug.to_string(), "slug")?;
        let cert_fp = chain.agent().fp();
        let statement = Statement::decode(keys.prekey.clone()).map_err(PrekeyError::from)?;
        let prekey = prekey::verify(&statement, chain.agent(), now_ms, self.trust.floors.prekey(cert_fp))?;
        let risen = [self.trust.floors.raise_agent(chain.agent()), self.trust.floors.raise_prekey(cert_fp, prekey.seq)];
        self.remember(risen.into_iter().flatten().collect());
        Ok(VerifiedPeer {
            agent_id: peer.agent_id,
            slug: peer.slug.clone(),
            node_id: peer.node_id,
            route: route.clone(),
            tier: self.tier(&chain),
            agent_key: chain.agent().claims().public_key,
            node_key: chain.node().claims().public_key,
            fingerprint: cert_fp.to_string(),
            cert_fp,
            prekey,
        })
    }

    fn remember(&self, risen: Vec<(FloorKey, Floor)>) {
        if risen.is_empty() {
            return;
        }
        let saved = self.store.queue_lazily(move |tx| store::directory::save_floors(tx, &risen));
        self.tasks.spawn(async move {
            if let Err(error) = saved.await {
                warn!(%error, "the highest serials seen are not on disk");
            }
        });
    }
}

fn require(holds: bool, what: &'static str) -> Result<(), PeerTrouble> {
    if holds { Ok(()) } else { Err(PeerTrouble::Mismatch(what)) }
}

fn holds_at(chain: &VerifiedChain, at_ms: u64) -> bool {
    let valid = |certificate: &Certificate| {
        let claims = certificate.claims();
        at_ms.saturating_add(CLOCK_SKEW_MS) >= claims.not_before_ms
            && at_ms <= claims.not_after_ms.saturating_add(CLOCK_SKEW_MS)
    };
    valid(chain.agent()) && valid(chain.node())
}
