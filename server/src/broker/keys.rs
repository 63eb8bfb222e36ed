//! The broker's keys: made once, kept as seed files that only their owner may read.

use std::{
    fs,
    io::Write,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

use nkeys::{KeyPair, KeyPairType};

use super::BrokerError;
use crate::files::make_private_dir;

/// Every secret of one broker installation (PROTOCOL §5.3). Has no `Debug` on purpose.
pub struct BrokerKeys {
    /// Signs the accounts; the servers trust this key alone.
    pub(crate) operator: KeyPair,
    /// The account that holds the streams.
    pub(crate) js: KeyPair,
    /// The account that nodes connect to.
    pub(crate) nodes: KeyPair,
    /// The servers' own account.
    pub(crate) sys: KeyPair,
    /// Signs node users; whoever steals it stays inside the template.
    pub(crate) nodes_signing: KeyPair,
    /// The control plane's user in the streams' account.
    pub(crate) cp_user: KeyPair,
    /// The control plane's user in the servers' account.
    pub(crate) sys_user: KeyPair,
}

impl BrokerKeys {
    /// New keys from the system's random source.
    #[must_use]
    pub fn generate() -> Self {
        Self {
            operator: KeyPair::new_operator(),
            js: KeyPair::new_account(),
            nodes: KeyPair::new_account(),
            sys: KeyPair::new_account(),
            nodes_signing: KeyPair::new_account(),
            cp_user: KeyPair::new_user(),
            sys_user: KeyPair::new_user(),
        }
    }

    /// Reads the seeds of a directory.
    ///
    /// # Errors
    /// [`BrokerError`] when a file is missing, readable by others, or holds another kind of key.
    pub fn load(dir: &Path) -> Result<Self, BrokerError> {
        let account = |name| read_seed(dir, name, &KeyPairType::Account);
        let user = |name| read_seed(dir, name, &KeyPairType::User);
        Ok(Self {
            operator: read_seed(dir, "operator", &KeyPairType::Operator)?,
            js: account("js")?,
            nodes: account("nodes")?,
            sys: account("sys")?,
            nodes_signing: account("nodes_signing")?,
            cp_user: user("cp_user")?,
            sys_user: user("sys_user")?,
        })
    }

    /// Writes the seeds into a directory of mode 0700, each in a file of mode 0600. Existing files are kept untouched and
    /// are an error, for keys are never replaced by accident.
    ///
    /// # Errors
    /// [`BrokerError`] when the directory or a file cannot be made.
    pub fn save(&self, dir: &Path) -> Result<(), BrokerError> {
        make_private_dir(dir).map_err(BrokerError::file(dir))?;
        for (name, key) in self.named() {
            let path = dir.join(format!("{name}.seed"));
            let mut file = fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)
                .map_err(BrokerError::file(&path))?;
            writeln!(file, "{}", key.seed()?).and_then(|()| file.sync_all()).map_err(BrokerError::file(&path))?;
        }
        Ok(())
    }

    /// Reads the directory, or fills it first when it does not exist. The seeds appear all at once or not at all.
    ///
    /// # Errors
    /// As [`Self::load`] and [`Self::save`].
    pub fn load_or_generate(dir: &Path) -> Result<Self, BrokerError> {
        if dir.exists() {
            return Self::load(dir);
        }
        let fresh = dir.with_extension(format!("new-{}", std::process::id()));
        Self::generate().save(&fresh)?;
        match fs::rename(&fresh, dir) {
            Ok(()) => {}
            // Somebody else was faster: theirs are the keys.
            Err(_) if dir.exists() => fs::remove_dir_all(&fresh).map_err(BrokerError::file(&fresh))?,
            Err(source) => return Err(BrokerError::file(dir)(source)),
        }
        Self::load(dir)
    }

    fn named(&self) -> [(&'static str, &KeyPair); 7] {
        let Self { operator, js, nodes, sys, nodes_signing, cp_user, sys_user } = self;
        [
            ("operator", operator),
            ("js", js),
            ("nodes", nodes),
            ("sys", sys),
            ("nodes_signing", nodes_signing),
            ("cp_user", cp_user),
            ("sys_user", sys_user),
        ]
    }
}

fn read_seed(dir: &Path, name: &'static str, kind: &KeyPairType) -> Result<KeyPair, BrokerError> {
    let path = dir.join(format!("{name}.seed"));
    let mode = fs::metadata(&path).map_err(BrokerError::file(&path))?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(BrokerError::Setting {
            setting: "seed file",
            rule: format!("`{}` must have mode 0600, has {:04o}", path.display(), mode & 0o7777),
        });
    }
    let text = fs::read_to_string(&path).map_err(BrokerError::file(&path))?;
    let key = KeyPair::from_seed(text.trim())?;
    if key.key_pair_type() != *kind {
        let expected = match kind {
            KeyPairType::Operator => "an operator key",
            KeyPairType::Account => "an account key",
            _ => "a user key",
        };
        return Err(BrokerError::WrongKey { what: name, expected });
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_made_once_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("keys");
        let first = BrokerKeys::load_or_generate(&dir).unwrap();
        let second = BrokerKeys::load_or_generate(&dir).unwrap();
        for ((name, a), (_, b)) in first.named().iter().zip(second.named()) {
            assert_eq!(a.public_key(), b.public_key(), "{name}");
        }
        assert!(first.save(&dir).is_err(), "existing keys must not be overwritten");
    }

    #[test]
    fn a_seed_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("keys");
        BrokerKeys::generate().save(&dir).unwrap();
        fs::set_permissions(dir.join("js.seed"), fs::Permissions::from_mode(0o640)).unwrap();
        let error = BrokerKeys::load(&dir).err().unwrap().to_string();
        assert!(error.contains("0600") && error.contains("0640"), "{error}");
    }

    #[test]
    fn a_key_of_another_kind_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("keys");
        BrokerKeys::generate().save(&dir).unwrap();
        fs::copy(dir.join("cp_user.seed"), dir.join("js.seed")).unwrap();
        assert!(matches!(BrokerKeys::load(&dir), Err(BrokerError::WrongKey { what: "js", .. })));
    }
}
