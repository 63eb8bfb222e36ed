//! Ends a node's access: the account's claims gain a revocation, and the server drops the client at once.
//!
//! The server keeps account claims in its resolver directory, so a revocation outlives restarts of server and control plane.

use std::collections::BTreeMap;

use async_nats::Client;
use nkeys::KeyPair;
use serde_json::{Value, json};
use tokio::sync::{Mutex, watch};

use super::{
    BrokerAddress, BrokerError, BrokerKeys,
    accounts::{require_user_key, revocations},
    jwt::Claims,
};

/// The control plane's hand on the accounts.
pub struct Revoker {
    client: Client,
    operator: KeyPair,
    nodes: String,
    /// Reading, changing and writing the claims is one step.
    changing: Mutex<()>,
}

impl Revoker {
    /// Connects as the control plane's user in the servers' account, and gives a broker that an older version set up the accounts of this
    /// one. `now_s` is the time in Unix seconds.
    ///
    /// # Errors
    /// [`BrokerError::Connect`] when the broker is not there or refuses the keys.
    pub async fn connect(address: &BrokerAddress, keys: &BrokerKeys, now_s: u64) -> Result<Self, BrokerError> {
        let token = keys.sys_user_jwt(now_s)?;
        let client = address.connect(token, &keys.sys_user, "murmur-server-sys", watch::Sender::new(0)).await?;
        let (operator, nodes) = (keys.operator.clone(), keys.nodes.public_key());
        let revoker = Self { client, operator, nodes, changing: Mutex::new(()) };
        if let Err(error) = revoker.renew_accounts(keys, now_s).await {
            tracing::warn!(%error, "the broker keeps the accounts that it was set up with");
        }
        Ok(revoker)
    }

    /// Brings the broker's account claims up to date. What it was started with yields to that, also after its restart.
    async fn renew_accounts(&self, keys: &BrokerKeys, now_s: u64) -> Result<(), BrokerError> {
        let _changing = self.changing.lock().await;
        let mut held = BTreeMap::new();
        for account in keys.accounts() {
            let token = self.token_of(&account).await?;
            held.insert(account, token);
        }
        for (account, token) in keys.account_jwts(now_s, |account| Ok(held.get(account).cloned()))? {
            if held.get(&account) != Some(&token) {
                self.update(token).await?;
                tracing::info!(account, "the broker has a newer version of an account");
            }
        }
        Ok(())
    }

    /// Voids every token given to `nkey_public` up to `now_s` (Unix seconds) and disconnects whoever uses one. A token
    /// issued later counts again.
    ///
    /// # Errors
    /// [`BrokerError::WrongKey`] when that is no user key, otherwise when the broker does not answer or refuses.
    pub async fn revoke(&self, nkey_public: &str, now_s: u64) -> Result<(), BrokerError> {
        require_user_key(nkey_public)?;
        let _changing = self.changing.lock().await;
        let old = self.claims().await?;
        let mut revoked = revocations(&old);
        let until = revoked.entry(nkey_public.to_owned()).or_insert(now_s);
        *until = now_s.max(*until);
        let mut claims = old.clone();
        claims.nats["revocations"] = json!(revoked);
        claims.iat = now_s.max(old.iat.saturating_add(1));
        self.update(claims.sign(&self.operator)?).await
    }

    async fn claims(&self) -> Result<Claims, BrokerError> {
        Claims::read(&self.token_of(&self.nodes).await?, &self.operator)
    }

    /// The token that the broker holds for an account.
    async fn token_of(&self, account: &str) -> Result<String, BrokerError> {
        let subject = format!("$SYS.REQ.ACCOUNT.{account}.CLAIMS.LOOKUP");
        let answer =
            self.client.request(subject, "".into()).await.map_err(BrokerError::request("look up an account"))?;
        let token = std::str::from_utf8(&answer.payload);
        token.map(str::to_owned).map_err(|_| BrokerError::Malformed { what: "account claims" })
    }

    async fn update(&self, token: String) -> Result<(), BrokerError> {
        let action = "update an account";
        let answer =
            self.client.request("$SYS.REQ.CLAIMS.UPDATE", token.into()).await.map_err(BrokerError::request(action))?;
        let answer: Value =
            serde_json::from_slice(&answer.payload).map_err(|_| BrokerError::Malformed { what: "claims answer" })?;
        if answer["data"]["code"] == json!(200) {
            return Ok(());
        }
        Err(BrokerError::Refused { action, reason: answer["error"]["description"].to_string() })
    }
}
