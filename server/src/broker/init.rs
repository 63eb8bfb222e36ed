//! Prepares a broker's directory. Safe to run again: keys, account tokens and revocations stay, the configuration is
//! rewritten.
//!
//! ```text
//! <dir>/keys/*.seed          the secrets, 0600
//! <dir>/accounts/<key>.jwt   account tokens; the running server keeps this up to date, revocations included
//! <dir>/store/               the streams
//! <dir>/nats-server.conf     what to start the server with: nats-server -c <dir>/nats-server.conf
//! <dir>/nats-server.pid      written by the server
//! ```

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{BrokerError, BrokerKeys, InitOptions, config::ServerConfig};
use crate::files::{make_private_dir, read_if_present, write_private};

/// Where a broker's parts are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerLayout {
    /// The directory of everything below.
    pub dir: PathBuf,
    /// The seeds, for [`BrokerKeys::load`].
    pub keys: PathBuf,
    /// The server's configuration file.
    pub config: PathBuf,
    /// The file with the running server's process id.
    pub pid_file: PathBuf,
}

impl BrokerLayout {
    /// The layout of a directory, which need not exist yet.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            keys: dir.join("keys"),
            config: dir.join("nats-server.conf"),
            pid_file: dir.join("nats-server.pid"),
        }
    }
}

/// Makes or updates a broker's directory. `now_s` is the time in Unix seconds.
///
/// # Errors
/// [`BrokerError`] when an option is unsafe, a file cannot be written, or existing keys or tokens cannot be read.
pub fn init(dir: &Path, options: &InitOptions, now_s: u64) -> Result<BrokerLayout, BrokerError> {
    options.validate()?;
    make_private_dir(dir).map_err(BrokerError::file(dir))?;
    // The server resolves relative paths against its own working directory.
    let dir = &fs::canonicalize(dir).map_err(BrokerError::file(dir))?;
    let layout = BrokerLayout::new(dir);
    let keys = BrokerKeys::load_or_generate(&layout.keys)?;
    let accounts = write_accounts(&dir.join("accounts"), &keys, now_s)?;
    let system_account = keys.sys.public_key();
    let operator = keys.operator_jwt(now_s)?;
    let config = ServerConfig { options, dir, operator, system_account, accounts: &accounts }.render()?;
    write_private(&layout.config, &config).map_err(BrokerError::file(&layout.config))?;
    Ok(layout)
}

/// Brings the account tokens up to date and returns them by account key.
fn write_accounts(dir: &Path, keys: &BrokerKeys, now_s: u64) -> Result<Vec<(String, String)>, BrokerError> {
    make_private_dir(dir).map_err(BrokerError::file(dir))?;
    let path = |key: &str| dir.join(format!("{key}.jwt"));
    let read = |key: &str| read_if_present(&path(key)).map_err(BrokerError::file(&path(key)));
    let accounts = keys.account_jwts(now_s, read)?;
    for (key, token) in &accounts {
        if read(key)?.as_ref() != Some(token) {
            write_private(&path(key), token).map_err(BrokerError::file(&path(key)))?;
        }
    }
    Ok(accounts)
}
