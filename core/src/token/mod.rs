//! Bearer tokens: `mmt_<kind>_<id>_<secret><crc32>` (DESIGN §8 point 17, PROTOCOL §6.1).
//!
//! The id (26 Crockford base32 digits) is public and finds the row; the secret (43 base62 digits) is 32 random bytes of which
//! only the SHA-256 is stored; the checksum (6 base62 digits, over everything before it) tells a truncated or mistyped token
//! from a wrong one before anybody is asked. Each token has exactly one printed form.
//!
//! Secrets are wiped when dropped and never appear in `Debug` output or errors.

mod base62;
mod crockford;

use std::{fmt, str::FromStr};

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use crate::id::TokenId;

/// First part of every token, for people and for secret scanners.
pub const PREFIX: &str = "mmt";
/// Digits of the last part: the secret, then the checksum.
const TAIL_DIGITS: usize = base62::SECRET_DIGITS + base62::CHECKSUM_DIGITS;

/// Whom a token speaks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TokenKind {
    /// A person, or a program acting as one.
    User,
    /// A node.
    Node,
    /// An agent, by way of the node it is bound to.
    Agent,
    /// A continuous-integration job.
    Ci,
    /// An operator.
    Admin,
}

impl TokenKind {
    /// Every kind.
    pub const ALL: [Self; 5] = [Self::User, Self::Node, Self::Agent, Self::Ci, Self::Admin];

    /// The word inside the token, also used in the database and in logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Node => "node",
            Self::Agent => "agent",
            Self::Ci => "ci",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for TokenKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for TokenKind {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or(TokenError::Kind)
    }
}

/// Which part of a text keeps it from being a token. No variant repeats the text, since it may be nearly a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not four parts that begin with `mmt`.
    #[error("token must look like mmt_<kind>_<id>_<secret>")]
    Shape,
    /// The second part is no kind.
    #[error("token kind must be user, node, agent, ci or admin")]
    Kind,
    /// The third part is no id.
    #[error("token id must be 26 uppercase Crockford base32 digits")]
    Id,
    /// The last part has the wrong length.
    #[error("token ends in {actual} characters where {TAIL_DIGITS} belong: it is truncated or has something appended")]
    Length {
        /// How many characters it has.
        actual: usize,
    },
    /// The checksum does not fit the rest.
    #[error("token checksum is wrong: it is truncated or mistyped")]
    Checksum,
    /// The checksum fits, but the digits stand for no 32 bytes.
    #[error("token secret is not 32 bytes in base62")]
    Secret,
}

/// A bearer token with its secret.
pub struct Token {
    kind: TokenKind,
    id: TokenId,
    secret: Zeroizing<[u8; 32]>,
}

impl Token {
    /// Puts a token together from 32 bytes that must come from a cryptographic random source.
    #[must_use]
    pub fn from_parts(kind: TokenKind, id: TokenId, mut secret: [u8; 32]) -> Self {
        let token = Self { kind, id, secret: Zeroizing::new(secret) };
        secret.zeroize();
        token
    }

    /// Reads a token.
    ///
    /// # Errors
    /// [`TokenError`] naming the first part that is wrong.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let mut parts = text.split('_');
        let (Some(PREFIX), Some(kind), Some(id), Some(tail), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(TokenError::Shape);
        };
        let kind = kind.parse()?;
        let id = crockford::decode(id).map(TokenId::from_bytes).ok_or(TokenError::Id)?;
        if tail.len() != TAIL_DIGITS {
            return Err(TokenError::Length { actual: tail.chars().count() });
        }
        let (signed, checksum) =
            text.split_at_checked(text.len() - base62::CHECKSUM_DIGITS).ok_or(TokenError::Checksum)?;
        if base62::decode_checksum(checksum) != Some(crc32fast::hash(signed.as_bytes())) {
            return Err(TokenError::Checksum);
        }
        let digits = tail.get(..base62::SECRET_DIGITS).ok_or(TokenError::Secret)?;
        let secret = base62::decode_secret(digits).ok_or(TokenError::Secret)?;
        Ok(Self { kind, id, secret })
    }

    /// Whom it speaks for.
    #[must_use]
    pub const fn kind(&self) -> TokenKind {
        self.kind
    }

    /// Its public id.
    #[must_use]
    pub const fn id(&self) -> TokenId {
        self.id
    }

    /// The whole token as text, secret included: for showing once to its owner and for the `authorization` header.
    #[must_use]
    pub fn expose(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(96));
        for part in [PREFIX, "_", self.kind.as_str(), "_", &crockford::encode(*self.id.as_bytes()), "_"] {
            text.push_str(part);
        }
        text.push_str(&base62::encode_secret(&self.secret));
        let checksum = crc32fast::hash(text.as_bytes());
        text.push_str(&base62::encode_checksum(checksum));
        text
    }

    /// SHA-256 of the secret: what is stored.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.secret.as_slice()).into()
    }

    /// Whether a stored hash belongs to this token, compared in constant time.
    #[must_use]
    pub fn matches(&self, stored: &[u8; 32]) -> bool {
        self.hash().ct_eq(stored).into()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, id, secret: _ } = self;
        f.debug_struct("Token").field("kind", kind).field("id", id).finish_non_exhaustive()
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token(secret: u8) -> Token {
        Token::from_parts(TokenKind::Agent, TokenId::from_bytes([0xa5; 16]), [secret; 32])
    }

    fn error(text: &str) -> TokenError {
        Token::parse(text).unwrap_err()
    }

    #[test]
    fn has_fixed_parts() {
        let text = token(0xff).expose();
        let lengths: Vec<_> = text.split('_').map(str::len).collect();
        assert_eq!(lengths, [3, 5, 26, 49]);
        assert!(text.starts_with("mmt_agent_"));
        assert_eq!(token(0).expose().len(), text.len());
    }

    #[test]
    fn the_wrong_part_is_named() {
        let text = token(7).expose();
        assert_eq!(error(""), TokenError::Shape);
        assert_eq!(error("ghp_agent_x_y"), TokenError::Shape);
        assert_eq!(error(&text.replace("agent", "robot")), TokenError::Kind);
        assert_eq!(error(&text.replace("agent_", "agent_0")), TokenError::Id);
        assert_eq!(error(&text[..text.len() - 1]), TokenError::Length { actual: 48 });
        assert_eq!(error(&text.replace("agent", "admin")), TokenError::Checksum);
        let huge = format!("mmt_ci_{}_{}", "0".repeat(26), "z".repeat(43));
        let sealed = format!("{huge}{}", &*base62::encode_checksum(crc32fast::hash(huge.as_bytes())));
        assert_eq!(error(&sealed), TokenError::Secret);
    }

    #[test]
    fn debug_output_hides_the_secret() {
        let debug = format!("{:?}", token(7));
        assert_eq!(debug, "Token { kind: Agent, id: TokenId(a5a5a5a5-a5a5-a5a5-a5a5-a5a5a5a5a5a5), .. }");
    }

    #[test]
    fn the_hash_is_of_the_secret_alone() {
        let expected = <[u8; 32]>::from(Sha256::digest([7; 32]));
        assert!(token(7).matches(&expected));
        assert!(!token(8).matches(&expected));
    }

    proptest! {
        #[test]
        fn what_is_exposed_is_read_back(kind in 0..5_usize, id: [u8; 16], secret: [u8; 32]) {
            let token = Token::from_parts(TokenKind::ALL[kind], TokenId::from_bytes(id), secret);
            let read = Token::parse(&token.expose()).unwrap();
            prop_assert_eq!((read.kind(), read.id(), read.hash()), (token.kind(), token.id(), token.hash()));
        }

        #[test]
        fn one_changed_character_is_noticed(secret: [u8; 32], at in 0..84_usize, with in "[0-9A-Za-z_é]") {
            let text = Token::from_parts(TokenKind::User, TokenId::from_bytes([3; 16]), secret).expose();
            let at = at % text.len();
            let changed = format!("{}{with}{}", &text[..at], &text[at + 1..]);
            prop_assume!(changed != *text);
            prop_assert!(Token::parse(&changed).is_err());
        }

        #[test]
        fn parsing_is_total(text in any::<String>(), tail in "[0-9A-Za-zé]{43,49}") {
            let _ = Token::parse(&text);
            let _ = Token::parse(&format!("mmt_user_{}_{tail}", "0".repeat(26)));
        }
    }
}
