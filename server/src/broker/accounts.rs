//! The three accounts and what each may do (PROTOCOL §5.3): `JS` holds the streams, `NODES` has none and reaches them only
//! through four imported services, `SYS` is the servers' own.
//!
//! The split is the security boundary. In one shared account a node could name `$JS.API.STREAM.DELETE.…` as the reply
//! subject of its own pull and let the server delete the stream for it; here such a reply stays inside `NODES`, where
//! nobody listens.

use std::collections::BTreeMap;

use murmur_core::{
    id::{NodeId, WorkspaceId},
    limits::BROKER_JWT_LIFE_MS,
};
use nkeys::{KeyPair, KeyPairType};
use serde_json::{Value, json};

use super::{
    BrokerError, BrokerKeys,
    jwt::{self, Account, Claims, ScopedUser},
};

/// Largest message a node may publish: the largest broker message and room for headers.
pub const NODE_PAYLOAD_BYTES_MAX: i64 = 400 * 1024;
/// Subscriptions of one node.
pub const NODE_SUBSCRIPTIONS_MAX: i64 = 64;
/// Life of a node's broker credentials, in seconds; they are renewed at two thirds.
pub const NODE_JWT_LIFE_S: u64 = BROKER_JWT_LIFE_MS / 1000;

/// Where nodes find the streams' services: a server answers the un-renamed subjects itself, with "JetStream not enabled".
pub const NODE_API_PREFIX: &str = "mmjs.API";

const PULL: &str = "CONSUMER.MSG.NEXT.*.*";
const INFO: &str = "CONSUMER.INFO.*.*";
const INBOX: &str = "mm.in.>";
const ACK: &str = "$JS.ACK.*.*.>";
/// A service that `NODES` lends to `SYS` and nobody offers or asks for. Without it the server loads `NODES` when the first node comes, and
/// whoever comes meanwhile is let in by claims that lack their last part, the revocations (nats-server 2.15.1). `SYS` it loads, with
/// what that imports, before it listens.
const LOADED: &str = "murmur.loaded";

impl BrokerKeys {
    /// A node's broker credentials: a token that lets the holder of `nkey_public` publish as `node` into `workspaces`, pull
    /// and acknowledge `c_<node>`, and nothing else. `now_s` and `life_s` are Unix seconds and seconds.
    ///
    /// # Errors
    /// [`BrokerError::WrongKey`] when `nkey_public` is no user key, [`BrokerError::Setting`] when no workspace is named.
    pub fn node_user_jwt(
        &self,
        node: NodeId,
        workspaces: &[WorkspaceId],
        nkey_public: &str,
        now_s: u64,
        life_s: u64,
    ) -> Result<String, BrokerError> {
        require_user_key(nkey_public)?;
        if workspaces.is_empty() {
            return Err(BrokerError::Setting { setting: "workspaces", rule: "must name at least one".to_owned() });
        }
        let tags = workspaces.iter().map(|workspace| format!("ws:{}", workspace.hex())).collect();
        let account = &self.nodes.public_key();
        ScopedUser { key: nkey_public, name: node.hex(), tags, account, iat: now_s, exp: now_s.saturating_add(life_s) }
            .sign(&self.nodes_signing)
    }

    /// The operator's claims, for the server's configuration.
    pub(crate) fn operator_jwt(&self, iat: u64) -> Result<String, BrokerError> {
        jwt::operator(&self.operator, &self.sys.public_key(), iat)
    }

    /// The control plane's token in the streams' account.
    pub(crate) fn cp_user_jwt(&self, iat: u64) -> Result<String, BrokerError> {
        jwt::trusted_user(&self.cp_user.public_key(), "murmur-server", iat, &self.js)
    }

    /// The control plane's token in the servers' account.
    pub(crate) fn sys_user_jwt(&self, iat: u64) -> Result<String, BrokerError> {
        jwt::trusted_user(&self.sys_user.public_key(), "murmur-server", iat, &self.sys)
    }

    /// The public keys of the three accounts.
    pub(crate) fn accounts(&self) -> [String; 3] {
        [&self.js, &self.nodes, &self.sys].map(KeyPair::public_key)
    }

    /// Signs the claims of the three accounts. `previous` yields an account's current token: claims that say the same are
    /// kept as they are, and revocations are carried over.
    pub(crate) fn account_jwts(
        &self,
        iat: u64,
        previous: impl Fn(&str) -> Result<Option<String>, BrokerError>,
    ) -> Result<Vec<(String, String)>, BrokerError> {
        let accounts =
            [(&self.js, self.js_account()), (&self.nodes, self.nodes_account()), (&self.sys, self.sys_account())];
        accounts.into_iter().map(|(key, account)| self.account_jwt(key, account, iat, &previous)).collect()
    }

    fn account_jwt(
        &self,
        key: &KeyPair,
        mut account: Account,
        iat: u64,
        previous: &impl Fn(&str) -> Result<Option<String>, BrokerError>,
    ) -> Result<(String, String), BrokerError> {
        let key = key.public_key();
        let mut iat = iat;
        if let Some(token) = previous(&key)? {
            let old = Claims::read(&token, &self.operator)?;
            account.revocations = revocations(&old);
            if account.body() == old.nats {
                return Ok((key, token));
            }
            iat = iat.max(old.iat.saturating_add(1));
        }
        let token = account.claims(&key, iat).sign(&self.operator)?;
        Ok((key, token))
    }

    fn js_account(&self) -> Account {
        Account {
            name: "JS",
            jetstream: true,
            exports: vec![
                export(INBOX, "Singleton"),
                export(ACK, "Singleton"),
                export(&format!("$JS.API.{PULL}"), "Stream"),
                export(&format!("$JS.API.{INFO}"), "Singleton"),
            ],
            ..Account::default()
        }
    }

    fn nodes_account(&self) -> Account {
        let import = |subject: &str| import(&self.js, subject);
        let renamed = |subject: &str| {
            let mut import = import(&format!("$JS.API.{subject}"));
            import["local_subject"] = json!(format!("{NODE_API_PREFIX}.{subject}"));
            import
        };
        Account {
            name: "NODES",
            exports: vec![export(LOADED, "Singleton")],
            imports: vec![import(INBOX), import(ACK), renamed(PULL), renamed(INFO)],
            signing_keys: vec![node_scope(&self.nodes_signing.public_key())],
            ..Account::default()
        }
    }

    fn sys_account(&self) -> Account {
        Account { name: "SYS", imports: vec![import(&self.nodes, LOADED)], ..Account::default() }
    }
}

fn export(subject: &str, response: &str) -> Value {
    json!({"name": subject, "subject": subject, "type": "service", "response_type": response})
}

fn import(account: &KeyPair, subject: &str) -> Value {
    json!({"name": subject, "subject": subject, "account": account.public_key(), "type": "service"})
}

/// The rights of every node, filled in by the server from the name and tags of the node's token.
fn node_scope(signing_key: &str) -> Value {
    let publish = [
        "mm.in.*.*.{{tag(ws)}}.*.*.{{name()}}".to_owned(),
        // Acknowledgements in their two layouts, of exactly 9, 11 and 12 tokens. An open end (`>`) would let the longer
        // layout pass for the shorter one of another node's consumer.
        "$JS.ACK.*.c_{{name()}}.*.*.*.*.*".to_owned(),
        "$JS.ACK.*.*.*.c_{{name()}}.*.*.*.*.*".to_owned(),
        "$JS.ACK.*.*.*.c_{{name()}}.*.*.*.*.*.*".to_owned(),
        format!("{NODE_API_PREFIX}.CONSUMER.MSG.NEXT.*.c_{{{{name()}}}}"),
        format!("{NODE_API_PREFIX}.CONSUMER.INFO.*.c_{{{{name()}}}}"),
    ];
    json!({
        "kind": "user_scope", "key": signing_key, "role": "node",
        "template": {
            "pub": {"allow": publish}, "sub": {"allow": ["_INBOX_{{name()}}.>"]},
            "subs": NODE_SUBSCRIPTIONS_MAX, "data": jwt::NO_LIMIT, "payload": NODE_PAYLOAD_BYTES_MAX,
        },
    })
}

/// The revocations that an account's claims carry: user key to Unix second.
pub(crate) fn revocations(claims: &Claims) -> BTreeMap<String, u64> {
    serde_json::from_value(claims.nats["revocations"].clone()).unwrap_or_default()
}

/// Refuses anything but a user's public nkey.
pub(crate) fn require_user_key(nkey_public: &str) -> Result<(), BrokerError> {
    let wrong = || BrokerError::WrongKey { what: "nkey_public", expected: "a user's public nkey" };
    let key = KeyPair::from_public_key(nkey_public).map_err(|_| wrong())?;
    if key.key_pair_type() == KeyPairType::User { Ok(()) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unchanged_accounts_keep_their_token_and_changed_ones_their_revocations() {
        let keys = BrokerKeys::generate();
        let first = keys.account_jwts(100, |_| Ok(None)).unwrap();
        let lookup = |key: &str| Ok(first.iter().find(|(k, _)| k == key).map(|(_, token)| token.clone()));
        assert_eq!(keys.account_jwts(200, lookup).unwrap(), first);

        let mut older = keys.nodes_account();
        older.exports.push(json!({"name": "gone"}));
        older.revocations.insert("U".to_owned(), 7);
        let older = older.claims(&keys.nodes.public_key(), 300).sign(&keys.operator).unwrap();
        let next = keys.account_jwts(200, |key| Ok((key == keys.nodes.public_key()).then(|| older.clone()))).unwrap();
        let claims = Claims::read(&next[1].1, &keys.operator).unwrap();
        assert_eq!((claims.iat, revocations(&claims)), (301, BTreeMap::from([("U".to_owned(), 7)])));
    }

    #[test]
    fn a_nodes_token_needs_a_user_key_and_a_workspace() {
        let keys = BrokerKeys::generate();
        let (node, workspace) = (NodeId::from_bytes([1; 16]), WorkspaceId::from_bytes([2; 16]));
        let user = KeyPair::new_user().public_key();
        assert!(keys.node_user_jwt(node, &[workspace], &user, 0, 60).is_ok());
        assert!(keys.node_user_jwt(node, &[], &user, 0, 60).is_err());
        for wrong in [KeyPair::new_account().public_key(), "nonsense".to_owned()] {
            assert!(keys.node_user_jwt(node, &[workspace], &wrong, 0, 60).is_err(), "{wrong}");
        }
    }
}
