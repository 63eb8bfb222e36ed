//! The first token: made when a database has no administrator, and left in a file that only the owner can read.

use std::{io, path::Path};

use murmur_core::token::TokenKind;
use murmur_proto::v1::Scope;

use super::{TokenError, Tokens, issue::make};
use crate::{db::token, files::write_private};

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
        let mut text = bearer.expose();
        text.push('\n');
        if let Err(error) = write_private(file, &text) {
            return Ok(Err(error));
        }
        let scopes = [Scope::Admin].into_iter().collect();
        token::insert(&mut tx, &token::Token { scopes, label: "bootstrap".into(), ..stored }).await?;
        tx.commit().await?;
        Ok(Ok(true))
    }
}
