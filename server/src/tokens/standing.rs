//! Whether a token still holds, for what asks again and again.

use super::{AuthError, Principal, Tokens};
use crate::db::token::{self, Standing};

impl Tokens {
    /// As [`Tokens::still_holds`], asked in place: little enough to be asked for every item of a stream.
    ///
    /// # Errors
    /// [`AuthError`].
    pub(crate) async fn holds_now(&self, caller: &Principal) -> Result<(), AuthError> {
        let standing = token::standing(&mut self.db.look()?, caller.token_id).await?;
        let Standing { expire_ms, revoked } = standing.ok_or(AuthError::Unknown)?;
        if revoked {
            return Err(AuthError::Revoked);
        }
        if expire_ms.is_some_and(|expire_ms| self.clock.now_ms() >= expire_ms) {
            return Err(AuthError::Expired);
        }
        Ok(())
    }
}
