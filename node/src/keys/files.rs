//! One agent's keys on disk.
//!
//! `agent.key` is the identity key's seed, `agent.cert` the certificate, `prekey.<seq>` a prekey: private half (32 bytes), the
//! fingerprint of its certificate (32), its id (8), when it was made (8, big-endian), its statement. Every file is replaced whole
//! and fsync'd.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use murmur_core::id::AgentId;
use murmur_crypto::{
    cert::Certificate,
    chain::Chain,
    hash::Fingerprint,
    keys::{IdentityKey, PrekeySecret},
    prekey::PrekeyId,
    statement::Statement,
};
use zeroize::Zeroizing;

use super::{
    KeyError,
    keyring::{AgentSigner, Keyring, Prekey},
};
use crate::identity::{create_private_dir, read_private, write_private};

const KEY: &str = "agent.key";
const CERTIFICATE: &str = "agent.cert";
const PREKEY: &str = "prekey.";

/// The folder of an agent.
pub(super) struct Files {
    folder: PathBuf,
    agent_id: AgentId,
}

impl Files {
    pub(super) fn of(folder: &Path, agent_id: AgentId) -> Self {
        Self { folder: folder.join(agent_id.hex()), agent_id }
    }

    /// Every agent that has a folder.
    pub(super) fn all(folder: &Path) -> Result<Vec<Self>, KeyError> {
        let io = |source| KeyError::Io { path: folder.to_owned(), source };
        create_private_dir(folder).map_err(io)?;
        let mut all = Vec::new();
        for entry in fs::read_dir(folder).map_err(io)? {
            if let Some(Ok(agent_id)) = entry.map_err(io)?.file_name().to_str().map(str::parse) {
                all.push(Self::of(folder, agent_id));
            }
        }
        Ok(all)
    }

    /// Reads everything back; `None` when the process died before the first keys were complete.
    pub(super) fn load(&self, node: &Certificate) -> Result<Option<Keyring>, KeyError> {
        let (Some(seed), Some(certificate)) = (self.read(KEY)?, self.read(CERTIFICATE)?) else { return Ok(None) };
        let seed: [u8; 32] = seed.try_into().map_err(|_| self.damaged(KEY, "it must have 32 bytes"))?;
        let key = IdentityKey::from_seed(&seed);
        let certificate =
            Certificate::decode(certificate).map_err(|_| self.damaged(CERTIFICATE, "it is no certificate"))?;
        let claims = certificate.claims();
        if claims.agent_id() != Some(self.agent_id) || claims.public_key != key.public() {
            return Err(self.damaged(CERTIFICATE, "it is about another agent or key"));
        }
        let slug = claims.slug.as_deref().unwrap_or_default().parse();
        let slug = slug.map_err(|_| self.damaged(CERTIFICATE, "its slug breaks the grammar"))?;
        let prekeys = self.load_prekeys()?;
        // When the node's own certificate was renewed meanwhile the chain is broken, and the agent due for renewal.
        let chain = Chain::new(certificate.clone(), vec![node.clone()])?;
        Ok(Keyring::restore(AgentSigner::new(self.agent_id, slug, key, certificate, chain), prekeys))
    }

    /// The seed of the identity key, if it is there: what was lost beside it is made anew under the same identity.
    pub(super) fn seed(&self) -> Result<Option<Zeroizing<[u8; 32]>>, KeyError> {
        let Some(seed) = self.read(KEY)?.map(Zeroizing::new) else { return Ok(None) };
        let seed = seed.as_slice().try_into().map_err(|_| self.damaged(KEY, "it must have 32 bytes"))?;
        Ok(Some(Zeroizing::new(seed)))
    }

    /// Writes what a renewal made. The prekey comes first: the certificate is what makes it known.
    pub(super) fn save(&self, key: &IdentityKey, certificate: &Certificate, prekey: &Prekey) -> Result<(), KeyError> {
        create_private_dir(&self.folder).map_err(|source| self.io("", source))?;
        self.write(KEY, key.seed().as_slice())?;
        self.write(&prekey_name(prekey.seq), &encode_prekey(prekey))?;
        self.write(CERTIFICATE, &certificate.encode())
    }

    pub(super) fn delete(&self) -> Result<(), KeyError> {
        match fs::remove_dir_all(&self.folder) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(self.io("", source)),
            _ => Ok(()),
        }
    }

    pub(super) fn delete_prekey(&self, seq: u64) -> Result<(), KeyError> {
        let name = prekey_name(seq);
        match fs::remove_file(self.folder.join(&name)) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(self.io(&name, source)),
            _ => Ok(()),
        }
    }

    /// Every prekey, in the order of their sequence.
    fn load_prekeys(&self) -> Result<Vec<Prekey>, KeyError> {
        let mut prekeys = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(|source| self.io("", source))? {
            let name = entry.map_err(|source| self.io("", source))?.file_name();
            let Some(name) = name.to_str() else { continue };
            let Some(Ok(seq)) = name.strip_prefix(PREKEY).map(str::parse::<u64>) else { continue };
            let bytes = self.read(name)?.unwrap_or_default();
            prekeys.push(decode_prekey(seq, &bytes).ok_or_else(|| self.damaged(name, "it is no prekey"))?);
        }
        prekeys.sort_by_key(|prekey| prekey.seq);
        Ok(prekeys)
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, KeyError> {
        read_private(&self.folder.join(name)).map_err(|source| self.io(name, source))
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), KeyError> {
        write_private(&self.folder.join(name), bytes).map_err(|source| self.io(name, source))
    }

    fn io(&self, name: &str, source: io::Error) -> KeyError {
        KeyError::Io { path: self.folder.join(name), source }
    }

    fn damaged(&self, name: &str, what: &'static str) -> KeyError {
        KeyError::Damaged { path: self.folder.join(name), what }
    }
}

fn prekey_name(seq: u64) -> String {
    format!("{PREKEY}{seq:010}")
}

fn encode_prekey(prekey: &Prekey) -> Zeroizing<Vec<u8>> {
    let Prekey { id, seq: _, created_ms, cert_fp, secret, statement } = prekey;
    let (secret, created, statement) = (secret.to_bytes(), created_ms.to_be_bytes(), statement.encode());
    Zeroizing::new([secret.as_slice(), cert_fp.as_bytes(), id.as_bytes(), &created, &statement].concat())
}

fn decode_prekey(seq: u64, bytes: &[u8]) -> Option<Prekey> {
    let (secret, rest) = bytes.split_first_chunk::<32>()?;
    let (cert_fp, rest) = rest.split_first_chunk::<32>()?;
    let (id, rest) = rest.split_first_chunk::<8>()?;
    let (created, statement) = rest.split_first_chunk::<8>()?;
    Some(Prekey {
        id: PrekeyId::from_bytes(*id),
        seq,
        created_ms: u64::from_be_bytes(*created),
        cert_fp: Fingerprint::from_bytes(*cert_fp),
        secret: PrekeySecret::from_bytes(secret),
        statement: Statement::decode(statement.to_vec()).ok()?,
    })
}
