//! NATS JWT, version 2: claims signed with an Ed25519 nkey.
//!
//! A token is `base64url(header).base64url(claims).base64url(signature)`. An operator signs accounts, an account (or one of
//! its scoped signing keys) signs users; the server trusts the operator named in its configuration and nothing else
//! (PROTOCOL §5.3). Only what Murmur uses is here.

use std::collections::BTreeMap;

use data_encoding::{BASE32_NOPAD, BASE64URL_NOPAD};
use nkeys::KeyPair;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::BrokerError;

/// Unlimited, in every limit of an account or a user.
pub(crate) const NO_LIMIT: i64 = -1;

/// One signed statement about one key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Claims {
    /// When it was issued, Unix seconds. Newer claims about an account replace older ones.
    pub(crate) iat: u64,
    /// When it ends, Unix seconds; absent: never.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) exp: Option<u64>,
    /// Public key of the signer.
    pub(crate) iss: String,
    /// Public key this is about.
    pub(crate) sub: String,
    /// A name; of a node's user it is the node id, which the permission template puts into subjects.
    pub(crate) name: String,
    /// The body, by kind.
    pub(crate) nats: Value,
}

impl Claims {
    /// Signs the claims as `signer`, who becomes their issuer.
    pub(crate) fn sign(mut self, signer: &KeyPair) -> Result<String, BrokerError> {
        self.iss = signer.public_key();
        let mut body = serde_json::to_value(&self).map_err(BrokerError::Encode)?;
        body["jti"] = json!(BASE32_NOPAD.encode(&Sha256::digest(body.to_string())));
        let header = json!({"typ": "JWT", "alg": "ed25519-nkey"});
        let signed = format!("{}.{}", encode(&header), encode(&body));
        let signature = signer.sign(signed.as_bytes())?;
        Ok(format!("{signed}.{}", BASE64URL_NOPAD.encode(&signature)))
    }

    /// Reads claims that this installation signed itself; the signature must be `signer`'s.
    pub(crate) fn read(token: &str, signer: &KeyPair) -> Result<Self, BrokerError> {
        let malformed = || BrokerError::Malformed { what: "account claims" };
        let (signed, signature) = token.trim().rsplit_once('.').ok_or_else(malformed)?;
        let signature = BASE64URL_NOPAD.decode(signature.as_bytes()).map_err(|_| malformed())?;
        signer.verify(signed.as_bytes(), &signature)?;
        let (_, body) = signed.split_once('.').ok_or_else(malformed)?;
        let body = BASE64URL_NOPAD.decode(body.as_bytes()).map_err(|_| malformed())?;
        serde_json::from_slice(&body).map_err(|_| malformed())
    }
}

fn encode(value: &Value) -> String {
    BASE64URL_NOPAD.encode(value.to_string().as_bytes())
}

/// Claims of the operator about itself.
pub(crate) fn operator(key: &KeyPair, system_account: &str, iat: u64) -> Result<String, BrokerError> {
    let nats = json!({"type": "operator", "version": 2, "system_account": system_account});
    let name = "murmur".to_owned();
    Claims { iat, exp: None, iss: String::new(), sub: key.public_key(), name, nats }.sign(key)
}

/// What an account offers and uses.
#[derive(Debug, Default)]
pub(crate) struct Account {
    pub(crate) name: &'static str,
    pub(crate) jetstream: bool,
    pub(crate) exports: Vec<Value>,
    pub(crate) imports: Vec<Value>,
    pub(crate) signing_keys: Vec<Value>,
    /// Revoked user keys, each with the Unix second up to which its tokens are void.
    pub(crate) revocations: BTreeMap<String, u64>,
}

impl Account {
    /// The claims' body, comparable with that of an older token.
    pub(crate) fn body(&self) -> Value {
        let Self { name: _, jetstream, exports, imports, signing_keys, revocations } = self;
        let mut limits: Value = ["subs", "data", "payload", "imports", "exports", "conn", "leaf"]
            .into_iter()
            .map(|limit| (limit.to_owned(), json!(NO_LIMIT)))
            .collect::<serde_json::Map<_, _>>()
            .into();
        limits["wildcards"] = json!(true);
        if *jetstream {
            for limit in ["mem_storage", "disk_storage", "streams", "consumer"] {
                limits[limit] = json!(NO_LIMIT);
            }
        }
        json!({
            "type": "account", "version": 2, "limits": limits, "exports": exports, "imports": imports,
            "signing_keys": signing_keys, "revocations": revocations, "default_permissions": {"pub": {}, "sub": {}},
        })
    }

    /// The unsigned claims about the account's key.
    pub(crate) fn claims(&self, key: &str, iat: u64) -> Claims {
        let (sub, name) = (key.to_owned(), self.name.to_owned());
        Claims { iat, exp: None, iss: String::new(), sub, name, nats: self.body() }
    }
}

/// Claims of a user that is limited by nothing but its account.
pub(crate) fn trusted_user(key: &str, name: &str, iat: u64, account: &KeyPair) -> Result<String, BrokerError> {
    let nats = json!({
        "type": "user", "version": 2, "pub": {}, "sub": {}, "subs": NO_LIMIT, "data": NO_LIMIT, "payload": NO_LIMIT,
    });
    Claims { iat, exp: None, iss: String::new(), sub: key.to_owned(), name: name.to_owned(), nats }.sign(account)
}

/// Claims of a user whose rights are the signing key's template; it may carry none of its own.
pub(crate) struct ScopedUser<'a> {
    pub(crate) key: &'a str,
    pub(crate) name: String,
    pub(crate) tags: Vec<String>,
    pub(crate) account: &'a str,
    pub(crate) iat: u64,
    pub(crate) exp: u64,
}

impl ScopedUser<'_> {
    pub(crate) fn sign(self, signing_key: &KeyPair) -> Result<String, BrokerError> {
        let Self { key, name, tags, account, iat, exp } = self;
        let nats = json!({"type": "user", "version": 2, "issuer_account": account, "tags": tags});
        Claims { iat, exp: Some(exp), iss: String::new(), sub: key.to_owned(), name, nats }.sign(signing_key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signed_claims_read_back_and_tampering_shows() {
        let (operator, stranger) = (KeyPair::new_operator(), KeyPair::new_operator());
        let account = Account { name: "JS", jetstream: true, ..Account::default() };
        let key = KeyPair::new_account().public_key();
        let token = account.claims(&key, 7).sign(&operator).unwrap();

        let read = Claims::read(&token, &operator).unwrap();
        assert_eq!((read.iat, read.sub, read.iss), (7, key, operator.public_key()));
        assert_eq!(read.nats, account.body());
        assert!(Claims::read(&token, &stranger).is_err());
        assert!(Claims::read("a.b", &operator).is_err());
    }
}
