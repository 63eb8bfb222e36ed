//! The control plane's own connections: they keep trying for ever, for the broker may start later or go away for a while.

use std::{path::PathBuf, time::Duration};

use async_nats::{AuthError, Client, ConnectOptions, Event};
use nkeys::KeyPair;
use tokio::sync::watch;

use super::BrokerError;

/// How long one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// A link that answers no ping for two of these is given up and made anew.
const PING_INTERVAL: Duration = Duration::from_secs(10);

/// Where the broker is.
#[derive(Debug, Clone)]
pub struct BrokerAddress {
    /// `nats://host:port`, or `tls://host:port`.
    pub url: String,
    /// The certificate authority to trust besides the system's, PEM.
    pub ca: Option<PathBuf>,
}

impl BrokerAddress {
    /// Connects as the holder of `key`. Fails only when the very first attempt does; a later loss heals itself, and `connections`
    /// counts how often it was made.
    pub(crate) async fn connect(
        &self,
        token: String,
        key: &KeyPair,
        role: &'static str,
        connections: watch::Sender<u64>,
    ) -> Result<Client, BrokerError> {
        let key = key.clone();
        let mut options = ConnectOptions::with_jwt(token, move |nonce| {
            let signature = key.sign(&nonce).map_err(AuthError::new);
            async move { signature }
        })
        .name(role)
        .max_reconnects(None)
        .ping_interval(PING_INTERVAL)
        .request_timeout(Some(REQUEST_TIMEOUT))
        .event_callback(move |event| {
            report(role, &event);
            if matches!(event, Event::Connected) {
                connections.send_modify(|count| *count += 1);
            }
            std::future::ready(())
        });
        if let Some(ca) = &self.ca {
            options = options.add_root_certificates(ca.clone());
        }
        Ok(options.connect(&self.url).await?)
    }
}

fn report(role: &str, event: &Event) {
    match event {
        Event::Connected => tracing::info!(broker.role = role, "broker connected as {role}"),
        other => tracing::warn!(broker.role = role, broker.event = %other, "broker connection as {role}: {other}"),
    }
}
