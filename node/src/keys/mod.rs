//! The private keys of this node's agents (PROTOCOL §2.3, §2.6).
//!
//! Each agent has a folder `keys/agents/<id>/` of mode 0700 with files of mode 0600: its identity key, its certificate, and one
//! file for each prekey that may still be needed. Certificate and prekey are renewed together, once a day: a prekey names the
//! certificate it was signed under. A key is on disk before anybody hears of its public half, so a crash in between costs
//! nothing (PROTOCOL §5.6, P1 and P2).

mod error;
mod files;
mod keyring;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, RwLock},
};

use bytes::Bytes;
use murmur_core::{
    id::AgentId,
    limits::{AGENT_CERT_LIFE_MS, PREKEY_ROTATE_JITTER_MS, PREKEY_ROTATE_MS},
    slug::Slug,
};
use murmur_crypto::{
    cert::Certificate,
    chain::Chain,
    issue::{AgentSpec, Issuer, Validity},
    keys::{IdentityKey, PrekeySecret},
    prekey::{self, PrekeySpec},
};

pub use self::{
    error::KeyError,
    keyring::{AgentSigner, Keyring},
};
use self::{files::Files, keyring::Prekey};
use crate::identity::NodeIdentity;

/// A prekey is deleted no sooner than this after it stopped being fresh.
const PREKEY_GRACE_MS: u64 = 24 * 3600 * 1000;

/// What the directory publishes of an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentKeys {
    /// Serialized `Chain`.
    pub chain: Bytes,
    /// Serialized `SignedStatement` of the newest prekey.
    pub prekey: Bytes,
}

/// The keys of every agent of this node. Everything here that writes blocks on the disk.
pub struct Keys {
    folder: PathBuf,
    identity: Arc<NodeIdentity>,
    agents: RwLock<HashMap<AgentId, Arc<Keyring>>>,
}

impl Keys {
    /// Loads the keys below a data directory.
    ///
    /// # Errors
    /// [`KeyError`] when a folder cannot be used or a file is damaged.
    pub fn open(data_dir: &Path, identity: Arc<NodeIdentity>) -> Result<Self, KeyError> {
        let folder = data_dir.join("keys").join("agents");
        let mut agents = HashMap::new();
        let node = identity.certificate();
        for files in Files::all(&folder)? {
            if let Some(keyring) = files.load(&node)? {
                agents.insert(keyring.signer().agent_id, Arc::new(keyring));
            }
        }
        Ok(Self { folder, identity, agents: RwLock::new(agents) })
    }

    /// Makes an agent's keys, or renews what is due, and says what to publish.
    ///
    /// # Errors
    /// [`KeyError`] when the disk refuses, there is no randomness, or the slug is outside the node's scope.
    pub fn ensure_agent(&self, agent_id: AgentId, slug: &Slug, now_ms: u64) -> Result<AgentKeys, KeyError> {
        // Held to the end: two callers must not both renew.
        let mut agents = self.agents.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        let known = agents.get(&agent_id);
        if let Some(keyring) = known.filter(|keyring| !self.is_due(keyring, Some(slug), now_ms)) {
            return Ok(keyring.publishable());
        }
        let renewed = Arc::new(self.renew(agent_id, slug, known.map(Arc::as_ref), now_ms)?);
        let keys = renewed.publishable();
        agents.insert(agent_id, renewed);
        Ok(keys)
    }

    /// What the directory publishes of an agent; `None` when it has no keys here.
    #[must_use]
    pub fn publishable(&self, agent_id: AgentId) -> Option<AgentKeys> {
        self.keyring(agent_id).map(|keyring| keyring.publishable())
    }

    /// What signs for an agent.
    #[must_use]
    pub fn signer(&self, agent_id: AgentId) -> Option<Arc<AgentSigner>> {
        self.keyring(agent_id).map(|keyring| Arc::clone(keyring.signer()))
    }

    /// All keys of an agent.
    #[must_use]
    pub fn keyring(&self, agent_id: AgentId) -> Option<Arc<Keyring>> {
        self.agents.read().unwrap_or_else(std::sync::PoisonError::into_inner).get(&agent_id).cloned()
    }

    /// Agents whose certificate or prekey is to be renewed now: call [`Keys::ensure_agent`] for each and publish.
    #[must_use]
    pub fn due(&self, now_ms: u64) -> Vec<AgentId> {
        let agents = self.agents.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let due = agents.values().filter(|keyring| self.is_due(keyring, None, now_ms));
        due.map(|keyring| keyring.signer().agent_id).collect()
    }

    /// Gives every agent a new certificate and prekey, due or not: they may be known to whoever has a copy of these. The earlier prekeys
    /// stay for what is sealed to them.
    ///
    /// # Errors
    /// [`KeyError`] when the disk refuses.
    pub fn rotate(&self, now_ms: u64) -> Result<(), KeyError> {
        let mut agents = self.agents.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        for (agent_id, keyring) in agents.iter_mut() {
            let slug = keyring.signer().slug.clone();
            *keyring = Arc::new(self.renew(*agent_id, &slug, Some(&**keyring), now_ms)?);
        }
        Ok(())
    }

    /// Gives an agent that has keys here a new certificate and prekey; the earlier prekeys stay for what is sealed to them.
    ///
    /// # Errors
    /// [`KeyError`] when the disk refuses.
    pub fn rotate_one(&self, agent_id: AgentId, now_ms: u64) -> Result<(), KeyError> {
        let mut agents = self.agents.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(keyring) = agents.get_mut(&agent_id) {
            let slug = keyring.signer().slug.clone();
            *keyring = Arc::new(self.renew(agent_id, &slug, Some(&**keyring), now_ms)?);
        }
        Ok(())
    }

    /// Deletes every key of an agent.
    ///
    /// # Errors
    /// [`KeyError`] when the disk refuses.
    pub fn forget(&self, agent_id: AgentId) -> Result<(), KeyError> {
        let mut agents = self.agents.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        agents.remove(&agent_id);
        Files::of(&self.folder, agent_id).delete()
    }

    /// Deletes prekeys that nothing can be waiting for: stale for a day and, since they became stale, the node's consumer was
    /// seen empty (`drained_ms`). Returns how many.
    ///
    /// # Errors
    /// [`KeyError`] when the disk refuses.
    pub fn delete_expired_prekeys(&self, now_ms: u64, drained_ms: u64) -> Result<usize, KeyError> {
        let mut agents = self.agents.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut deleted = 0;
        for (agent_id, keyring) in agents.iter_mut() {
            let expired = |prekey: &Prekey| {
                let stale_ms = prekey.created_ms.saturating_add(murmur_core::limits::PREKEY_FRESH_MS);
                stale_ms < drained_ms && stale_ms.saturating_add(PREKEY_GRACE_MS) < now_ms
            };
            let (gone, kept) = keyring.without(expired);
            if gone.is_empty() {
                continue;
            }
            deleted += gone.len();
            *keyring = Arc::new(kept);
            let files = Files::of(&self.folder, *agent_id);
            gone.into_iter().try_for_each(|seq| files.delete_prekey(seq))?;
        }
        Ok(deleted)
    }

    fn is_due(&self, keyring: &Keyring, slug: Option<&Slug>, now_ms: u64) -> bool {
        let signer = keyring.signer();
        let claims = signer.certificate.claims();
        let newest = keyring.newest();
        claims.issuer_fp != Some(self.identity.certificate().fp())
            || newest.cert_fp != signer.cert_fp
            || slug.is_some_and(|slug| *slug != signer.slug)
            || now_ms >= newest.created_ms.saturating_add(rotate_after_ms(newest))
            // A clock that was set back must not keep a key from the future for longer than others accept it.
            || newest.created_ms > now_ms.saturating_add(murmur_core::limits::CLOCK_SKEW_MS)
    }

    fn renew(&self, agent_id: AgentId, slug: &Slug, known: Option<&Keyring>, now_ms: u64) -> Result<Keyring, KeyError> {
        let files = Files::of(&self.folder, agent_id);
        let seed = match known {
            Some(keyring) => keyring.signer().key.seed(),
            None => match files.seed()? {
                Some(seed) => seed,
                None => IdentityKey::generate()?.seed(),
            },
        };
        let key = IdentityKey::from_seed(&seed);
        let serial = known.map_or(0, |keyring| keyring.signer().certificate.claims().serial);
        let node = self.identity.certificate();
        let certificate = self.certify(agent_id, slug, (&key, &node), serial, now_ms)?;
        let prekey = issue_prekey(agent_id, &key, &certificate, known.map_or(0, |k| k.newest().seq), now_ms)?;
        files.save(&key, &certificate, &prekey)?;
        let chain = Chain::new(certificate.clone(), vec![Certificate::clone(&node)])?;
        let signer = AgentSigner::new(agent_id, slug.clone(), key, certificate, chain);
        Ok(Keyring::new(signer, known, prekey))
    }

    fn certify(
        &self,
        agent_id: AgentId,
        slug: &Slug,
        (key, node): (&IdentityKey, &Certificate),
        serial: u64,
        now_ms: u64,
    ) -> Result<Certificate, KeyError> {
        let spec = AgentSpec {
            agent_id,
            public_key: key.public(),
            // Time based, so that a node that lost its disk still issues higher ones than before.
            serial: serial.saturating_add(1).max(now_ms),
            validity: Validity::for_what_waits(now_ms, AGENT_CERT_LIFE_MS),
            slug: slug.to_string(),
        };
        Ok(Issuer::new(&self.identity.key, node)?.agent(spec)?)
    }
}

fn issue_prekey(
    agent_id: AgentId,
    key: &IdentityKey,
    certificate: &Certificate,
    seq: u64,
    now_ms: u64,
) -> Result<Prekey, KeyError> {
    let secret = PrekeySecret::generate()?;
    let seq = seq.saturating_add(1);
    let spec = PrekeySpec::new(agent_id, certificate.fp(), secret.public(), seq, now_ms);
    let (statement, id) = prekey::issue(key, &spec);
    Ok(Prekey { id, seq, created_ms: now_ms, cert_fp: certificate.fp(), secret, statement })
}

/// 24 h ± 2 h; the prekey's own id, which nobody chose, spreads the agents of a node.
fn rotate_after_ms(prekey: &Prekey) -> u64 {
    let spread = u64::from_be_bytes(*prekey.id.as_bytes()) % (2 * PREKEY_ROTATE_JITTER_MS + 1);
    PREKEY_ROTATE_MS - PREKEY_ROTATE_JITTER_MS + spread
}

#[cfg(test)]
mod tests;
