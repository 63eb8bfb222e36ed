//! One agent's keys in memory. A renewal makes a new keyring that shares the old prekeys.

use std::sync::Arc;

use bytes::Bytes;
use murmur_core::{id::AgentId, slug::Slug};
use murmur_crypto::{
    cert::Certificate,
    chain::Chain,
    hash::Fingerprint,
    keys::{IdentityKey, PrekeySecret},
    prekey::PrekeyId,
    statement::Statement,
};

use super::AgentKeys;

/// What signs for an agent.
pub struct AgentSigner {
    /// The agent.
    pub agent_id: AgentId,
    /// Its slug, as in the certificate.
    pub slug: Slug,
    /// Its identity key.
    pub key: IdentityKey,
    /// Its certificate.
    pub certificate: Certificate,
    /// The certificate's name.
    pub cert_fp: Fingerprint,
    /// Certificate and node certificate.
    pub chain: Chain,
    /// The chain, serialized.
    pub chain_bytes: Bytes,
}

impl AgentSigner {
    pub(super) fn new(agent_id: AgentId, slug: Slug, key: IdentityKey, certificate: Certificate, chain: Chain) -> Self {
        let chain_bytes = chain.encode().into();
        Self { agent_id, slug, key, cert_fp: certificate.fp(), certificate, chain, chain_bytes }
    }
}

/// A prekey and its private half.
pub(super) struct Prekey {
    pub(super) id: PrekeyId,
    pub(super) seq: u64,
    pub(super) created_ms: u64,
    pub(super) cert_fp: Fingerprint,
    pub(super) secret: PrekeySecret,
    pub(super) statement: Statement,
}

/// The keys of one agent.
pub struct Keyring {
    signer: Arc<AgentSigner>,
    newest: Arc<Prekey>,
    /// Earlier ones that messages may still be sealed to, oldest first.
    earlier: Vec<Arc<Prekey>>,
}

impl Keyring {
    pub(super) fn new(signer: AgentSigner, known: Option<&Self>, newest: Prekey) -> Self {
        let mut earlier = known.map(|known| known.earlier.clone()).unwrap_or_default();
        earlier.extend(known.map(|known| Arc::clone(&known.newest)));
        Self { signer: Arc::new(signer), newest: Arc::new(newest), earlier }
    }

    /// From disk: prekeys in the order of their sequence.
    pub(super) fn restore(signer: AgentSigner, prekeys: Vec<Prekey>) -> Option<Self> {
        let mut earlier: Vec<_> = prekeys.into_iter().map(Arc::new).collect();
        let newest = earlier.pop()?;
        Some(Self { signer: Arc::new(signer), newest, earlier })
    }

    /// What signs for the agent.
    #[must_use]
    pub const fn signer(&self) -> &Arc<AgentSigner> {
        &self.signer
    }

    /// The private half of a prekey, unless it is unknown or deleted.
    #[must_use]
    pub fn secret(&self, id: PrekeyId) -> Option<&PrekeySecret> {
        let all = std::iter::once(&self.newest).chain(self.earlier.iter().rev());
        all.into_iter().find(|prekey| prekey.id == id).map(|prekey| &prekey.secret)
    }

    /// The newest prekey's statement, for a sender whose own is outdated.
    #[must_use]
    pub fn fresh_prekey(&self) -> &Statement {
        &self.newest.statement
    }

    pub(super) fn newest(&self) -> &Prekey {
        &self.newest
    }

    pub(super) fn publishable(&self) -> AgentKeys {
        AgentKeys { chain: self.signer.chain_bytes.clone(), prekey: self.newest.statement.encode().into() }
    }

    /// The keyring without the earlier prekeys that `expired` names, and their sequences.
    pub(super) fn without(&self, expired: impl Fn(&Prekey) -> bool) -> (Vec<u64>, Self) {
        let (gone, earlier): (Vec<_>, Vec<_>) = self.earlier.iter().cloned().partition(|prekey| expired(prekey));
        let kept = Self { signer: Arc::clone(&self.signer), newest: Arc::clone(&self.newest), earlier };
        (gone.iter().map(|prekey| prekey.seq).collect(), kept)
    }
}
