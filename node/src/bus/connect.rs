//! Connecting: signing in with what is current, telling whether the broker is there.

use std::{sync::Arc, sync::atomic::Ordering, time::Duration};

use arc_swap::ArcSwap;
use async_nats::{Auth, AuthError, ClientError, ConnectErrorKind, ConnectOptions, Event, ServerError, jetstream};
use murmur_core::subject::inbox_prefix;
use rustls::pki_types::{CertificateDer, pem::PemObject as _};

use super::{API_PREFIX, BrokerCredentials, BusConfig, BusError, PUBLISH_TIMEOUT, Session, Shared};

/// Subjects remembered as denied at most; a sender that is refused more often has another problem.
const DENIED_MAX: usize = 1_000;
/// Publishes that may wait for the broker's answer: more than all tasks that publish may have on their way together, so that none
/// waits for a place that it holds itself.
const PUBLISHES_MAX: usize = 16_384;
/// A connection that answers no ping for two of these is given up and made anew.
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// Longest wait before another attempt to reconnect.
const RECONNECT_MS_MAX: u64 = 5_000;

/// Makes a client that connects by itself, now or as soon as the broker is there.
pub(super) async fn connect(
    config: &BusConfig,
    shared: &Arc<Shared>,
    generation: u64,
    credentials: BrokerCredentials,
) -> Result<Session, BusError> {
    let mut random = [0; 16];
    // Without randomness the inbox can be guessed, and a PubAck is a hint anyway.
    let _ = getrandom::fill(&mut random);
    let urls = credentials.urls.clone();
    let tls = credentials.ca_pem.as_deref().map(tls_config).transpose()?;
    let credentials = Arc::new(ArcSwap::from_pointee(credentials));
    let mut options = sign_in(Arc::clone(&credentials))
        .name(format!("murmur-node {}", config.node_id))
        .custom_inbox_prefix(inbox_prefix(config.node_id, random))
        .retry_on_initial_connect()
        .max_reconnects(None)
        .ping_interval(PING_INTERVAL)
        .request_timeout(Some(PUBLISH_TIMEOUT))
        .reconnect_delay_callback(reconnect_delay)
        .event_callback(listener(Arc::clone(shared), generation));
    if let Some(tls) = tls {
        options = options.tls_client_config(tls).require_tls(true);
    }
    let client = options.connect(urls).await?;
    let js = jetstream::ContextBuilder::new()
        .timeout(PUBLISH_TIMEOUT)
        .ack_timeout(PUBLISH_TIMEOUT)
        .max_ack_inflight(PUBLISHES_MAX)
        .backpressure_on_inflight(true)
        .api_prefix(API_PREFIX)
        .build(client);
    Ok(Session { js, credentials })
}

/// Signs in with the credentials that are current when the broker asks.
fn sign_in(credentials: Arc<ArcSwap<BrokerCredentials>>) -> ConnectOptions {
    ConnectOptions::with_auth_callback(move |nonce| {
        let credentials = credentials.load_full();
        let signed = credentials.key.sign(&nonce).map_err(AuthError::new);
        let auth = signed.map(|signature| {
            let mut auth = Auth::new();
            auth.jwt = Some(credentials.jwt.clone());
            auth.signature = Some(signature);
            auth
        });
        async move { auth }
    })
}

/// A jittered delay, so that a broker that comes back is not met by all nodes at once.
fn reconnect_delay(attempt: usize) -> Duration {
    let cap = 50_u64.saturating_mul(1 << attempt.min(10)).min(RECONNECT_MS_MAX);
    let random = getrandom::u64().unwrap_or(cap);
    Duration::from_millis(if attempt <= 1 { random % 50 } else { cap / 2 + random % (cap / 2) })
}

fn listener(shared: Arc<Shared>, generation: u64) -> impl Fn(Event) -> std::future::Ready<()> + Send + Sync + 'static {
    move |event| {
        if shared.generation.load(Ordering::SeqCst) == generation {
            heard(&shared, &event);
        }
        std::future::ready(())
    }
}

fn heard(shared: &Shared, event: &Event) {
    match event {
        Event::Connected => {
            tracing::info!("connected to the broker");
            shared.unstored().take();
            shared.connected.send_replace(true);
        }
        Event::Disconnected | Event::Closed => {
            tracing::warn!("disconnected from the broker");
            shared.connected.send_replace(false);
            shared.lost();
        }
        Event::ClientError(ClientError::Other(text))
            if *text == ConnectErrorKind::AuthorizationViolation.to_string() =>
        {
            tracing::warn!("the broker refuses this node's credentials");
            shared.refusals.send_modify(|refusals| *refusals += 1);
        }
        Event::ServerError(ServerError::Other(text)) => {
            tracing::warn!(%text, "the broker complained");
            if let Some(subject) = denied_subject(text) {
                let mut denied = shared.denied();
                if denied.len() < DENIED_MAX {
                    denied.insert(subject.to_owned());
                }
            }
        }
        other => tracing::debug!(event = %other, "broker event"),
    }
}

/// The subject of a `Permissions Violation for Publish to "…"`.
fn denied_subject(text: &str) -> Option<&str> {
    let start = text.to_ascii_lowercase().find("violation for publish to \"")?;
    text.get(start..)?.split('"').nth(1)
}

fn tls_config(pem: &str) -> Result<rustls::ClientConfig, BusError> {
    let wrong = |error: &dyn std::fmt::Display| BusError::Ca(error.to_string());
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        roots.add(certificate.map_err(|error| wrong(&error))?).map_err(|error| wrong(&error))?;
    }
    if roots.is_empty() {
        return Err(BusError::Ca("it holds no certificate".to_owned()));
    }
    Ok(rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_denied_subject_is_found() {
        let text = "Permissions Violation for Publish to \"mm.in.local.00.a.b.c.d\"";
        assert_eq!(denied_subject(text), Some("mm.in.local.00.a.b.c.d"));
        assert_eq!(denied_subject("Permissions Violation for Subscription to \"x\""), None);
    }

    #[test]
    fn reconnects_are_spread_and_never_rare() {
        assert!((0..100).map(reconnect_delay).all(|delay| delay <= Duration::from_millis(RECONNECT_MS_MAX)));
    }

    #[test]
    fn nodes_that_tried_equally_often_do_not_come_together() {
        let delays: Vec<_> = (0..50).map(|_| reconnect_delay(6)).collect();
        let together = |from: Duration| {
            delays.iter().filter(|delay| (from..from + Duration::from_millis(50)).contains(*delay)).count()
        };
        let busiest = delays.iter().map(|delay| together(*delay)).max().unwrap();
        assert!(busiest < delays.len() / 2, "{delays:?}");
    }
}
