//! The folder `identity/`: reading and writing its files, each step fsync'd.

use std::{
    io,
    path::{Path, PathBuf},
};

use murmur_crypto::keys::IdentityKey;
use nkeys::KeyPair;
use serde::{Serialize, de::DeserializeOwned};

use super::{BrokerRecord, IdentityError, NodeRecord, create_private_dir, read_private, write_private};

/// The folder with the node's identity.
#[derive(Debug, Clone)]
pub struct IdentityDir {
    path: PathBuf,
}

impl IdentityDir {
    /// Opens the folder below a data directory, making it as needed.
    ///
    /// # Errors
    /// [`IdentityError::Io`].
    pub fn open(data_dir: &Path) -> Result<Self, IdentityError> {
        let dir = Self { path: data_dir.join("identity") };
        create_private_dir(&dir.path).map_err(|source| dir.io("", source))?;
        Ok(dir)
    }

    /// Works on the files on a thread that may wait for the disk.
    ///
    /// # Errors
    /// What `work` failed with.
    pub async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, IdentityError> + Send + 'static,
    ) -> Result<T, IdentityError> {
        let dir = self.clone();
        let done = tokio::task::spawn_blocking(move || work(&dir)).await;
        done.map_err(|error| self.io("", io::Error::other(error)))?
    }

    /// The node's key, made on first use.
    ///
    /// # Errors
    /// [`IdentityError`] when the file cannot be used or there is no randomness.
    pub fn key(&self) -> Result<IdentityKey, IdentityError> {
        if let Some(bytes) = self.read("node.key")? {
            let seed: [u8; 32] = bytes.try_into().map_err(|_| self.damaged("node.key", "32 bytes are a key"))?;
            return Ok(IdentityKey::from_seed(&seed));
        }
        let key = IdentityKey::generate()?;
        self.write("node.key", key.seed().as_slice())?;
        Ok(key)
    }

    /// The node's broker key, made on first use.
    ///
    /// # Errors
    /// [`IdentityError`] when the file cannot be used.
    pub fn broker_key(&self) -> Result<KeyPair, IdentityError> {
        let wrong = |error: nkeys::error::Error| IdentityError::BrokerKey(error.to_string());
        if let Some(bytes) = self.read("broker.nk")? {
            let seed = String::from_utf8(bytes).map_err(|_| self.damaged("broker.nk", "it is no text"))?;
            return KeyPair::from_seed(seed.trim()).map_err(wrong);
        }
        let key = KeyPair::new_user();
        self.write("broker.nk", key.seed().map_err(wrong)?.as_bytes())?;
        Ok(key)
    }

    /// What enrolment answered; `None` before it.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn record(&self) -> Result<Option<NodeRecord>, IdentityError> {
        self.read_json("node.json")
    }

    /// Keeps what enrolment answered.
    ///
    /// # Errors
    /// [`IdentityError::Io`].
    pub fn save_record(&self, record: &NodeRecord) -> Result<(), IdentityError> {
        self.write_json("node.json", record)
    }

    /// The node's bearer token.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn token(&self) -> Result<Option<String>, IdentityError> {
        let Some(bytes) = self.read("node.token")? else { return Ok(None) };
        let text = String::from_utf8(bytes).map_err(|_| self.damaged("node.token", "it is no text"))?;
        Ok(Some(text.trim().to_owned()))
    }

    /// Keeps the node's bearer token.
    ///
    /// # Errors
    /// [`IdentityError::Io`].
    pub fn save_token(&self, token: &str) -> Result<(), IdentityError> {
        self.write("node.token", token.as_bytes())
    }

    /// The last broker credentials.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn broker(&self) -> Result<Option<BrokerRecord>, IdentityError> {
        self.read_json("broker.json")
    }

    /// Keeps broker credentials.
    ///
    /// # Errors
    /// [`IdentityError::Io`].
    pub fn save_broker(&self, record: &BrokerRecord) -> Result<(), IdentityError> {
        self.write_json("broker.json", record)
    }

    /// What an earlier process was told of the time.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn clock(&self) -> Result<Option<String>, IdentityError> {
        let Some(bytes) = self.read("clock")? else { return Ok(None) };
        String::from_utf8(bytes).map(Some).map_err(|_| self.damaged("clock", "it is no text"))
    }

    /// Keeps what this process was told of the time.
    ///
    /// # Errors
    /// [`IdentityError::Io`].
    pub fn save_clock(&self, words: &str) -> Result<(), IdentityError> {
        self.write("clock", words.as_bytes())
    }

    /// The invite that is being redeemed, kept so that a node that dies meanwhile goes on by itself.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn invite(&self) -> Result<Option<String>, IdentityError> {
        let Some(bytes) = self.read("invite")? else { return Ok(None) };
        String::from_utf8(bytes).map(Some).map_err(|_| self.damaged("invite", "it is no text"))
    }

    /// Keeps the invite.
    ///
    /// # Errors
    /// [`IdentityError::Io`].
    pub fn save_invite(&self, invite: &str) -> Result<(), IdentityError> {
        self.write("invite", invite.as_bytes())
    }

    /// Forgets the invite, which holds a secret.
    ///
    /// # Errors
    /// [`IdentityError::Io`].
    pub fn forget_invite(&self) -> Result<(), IdentityError> {
        match std::fs::remove_file(self.path.join("invite")) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(self.io("invite", source)),
            _ => Ok(()),
        }
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, IdentityError> {
        read_private(&self.path.join(name)).map_err(|source| self.io(name, source))
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), IdentityError> {
        write_private(&self.path.join(name), bytes).map_err(|source| self.io(name, source))
    }

    fn read_json<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, IdentityError> {
        let Some(bytes) = self.read(name)? else { return Ok(None) };
        serde_json::from_slice(&bytes).map(Some).map_err(|error| self.damaged(name, error.to_string()))
    }

    fn write_json<T: Serialize>(&self, name: &str, value: &T) -> Result<(), IdentityError> {
        let bytes = serde_json::to_vec_pretty(value).map_err(|error| self.damaged(name, error.to_string()))?;
        self.write(name, &bytes)
    }

    fn io(&self, name: &str, source: io::Error) -> IdentityError {
        IdentityError::Io { path: self.path.join(name), source }
    }

    fn damaged(&self, name: &str, what: impl Into<String>) -> IdentityError {
        IdentityError::Damaged { path: self.path.join(name), what: what.into() }
    }
}
