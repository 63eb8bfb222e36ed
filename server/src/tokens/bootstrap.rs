//! The first token: made when a database has no administrator, and left in a file that only the owner can read.

use std::{
    fs::OpenOptions,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use murmur_core::token::TokenKind;
use murmur_proto::v1::Scope;

use super::{TokenError, Tokens, issue::make};
use crate::db::token;

impl Tokens {
    /// Makes the bootstrap administrator and writes its token to `file` (mode 0600), unless there is one already.
    ///
    /// The file is written before the row is committed: a crash in between leaves a token that nobody accepts, which the
    /// next start replaces.
    ///
    /// # Errors
    /// [`TokenError`] inside the database, [`io::Error`] at the file.
    pub async fn bootstrap(&self, file: &Path) -> Result<io::Result<bool>, TokenError> {
        let mut tx = self.db.write().await?;
        if token::has_administrator(&mut tx).await? {
            return Ok(Ok(false));
        }
        let (bearer, stored) = make(self.clock.now_ms(), TokenKind::Admin)?;
        if let Err(error) = write_private(file, &bearer.expose()) {
            return Ok(Err(error));
        }
        let scopes = [Scope::Admin].into_iter().collect();
        token::insert(&mut tx, &token::Token { scopes, label: "bootstrap".into(), ..stored }).await?;
        tx.commit().await?;
        Ok(Ok(true))
    }
}

fn write_private(file: &Path, text: &str) -> io::Result<()> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    writeln!(out, "{text}")?;
    out.sync_all()
}
