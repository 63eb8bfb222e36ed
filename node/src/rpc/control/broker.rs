//! Broker credentials: asked for at two thirds of their life, kept on disk, handed to the bus.

use std::{sync::Arc, time::Duration};

use murmur_proto::v1;
use tokio::sync::watch;
use tracing::{info, warn};

use super::{ControlError, call, convert, run::Parts, watch::BACKOFF};
use crate::{
    bus::BrokerCredentials,
    delay::Delay,
    identity::{BrokerRecord, IdentityDir},
};

/// How long the bus may be away before new credentials are asked for: the broker may have moved, or its stream be gone.
const BUS_PATIENCE: Duration = Duration::from_secs(5);

/// How long a consumer may take to answer.
const CONSUMER_PATIENCE: Duration = Duration::from_millis(250);
/// Credentials are not asked for more often than this, however short they live.
const RENEW_WAIT_MS_MIN: u64 = 500;

/// Hands the bus what an earlier run left.
pub(super) async fn use_saved(parts: &Parts) {
    match parts.dir.blocking(IdentityDir::broker).await {
        // Whether it has ended is for the broker to say: this host's clock may be wrong.
        Ok(Some(record)) => hand_over(parts, &record).await,
        Ok(None) => {}
        Err(error) => warn!(%error, "the saved broker credentials cannot be used"),
    }
}

/// Keeps the credentials fresh until the task is dropped.
pub(super) async fn renew(parts: Parts) {
    let (mut delay, mut repair) = (Delay::new(BACKOFF), Delay::new(BACKOFF));
    let (mut losses, mut refusals) = (parts.bus.losses(), parts.bus.refusals());
    loop {
        losses.mark_unchanged();
        refusals.mark_unchanged();
        let redeliver = parts.bus.take_redeliver();
        match fetch(&parts, redeliver).await {
            Ok(renew_at_ms) => {
                delay.reset();
                let wait =
                    Duration::from_millis(renew_at_ms.saturating_sub(parts.clock.now_ms()).max(RENEW_WAIT_MS_MIN));
                tokio::select! {
                    () = tokio::time::sleep(wait) => repair.reset(),
                    () = bus_is_lost(&parts) => info!("the broker is away: asking where it is"),
                    () = consumer_is_lost(&parts) => {
                        info!("connected to the broker, and the consumer does not answer: asking for another");
                        repair.wait().await;
                    }
                    () = is_back(&parts, &mut losses) => {}
                    _ = refusals.changed() => {
                        info!("the broker refuses these credentials: asking for others");
                        repair.wait().await;
                    }
                }
            }
            Err(error) => {
                if redeliver {
                    parts.bus.keep_redeliver();
                }
                warn!(%error, "no broker credentials");
                if parts.bus.route().is_none() {
                    use_saved(&parts).await;
                }
                delay.wait().await;
            }
        }
    }
}

/// Asks for credentials, which also makes sure that stream and consumer exist, and says when to ask again.
async fn fetch(parts: &Parts, redeliver: bool) -> Result<u64, ControlError> {
    let broker_public_key = parts.broker_key.public_key();
    let request = v1::GetBrokerCredentialsRequest { broker_public_key, redeliver };
    let mut client = parts.control.client.nodes.clone();
    let answer = call(client.get_broker_credentials(request)).await?;
    let record = convert::broker(answer, parts.clock.now_ms())?;
    let current = parts.dir.blocking(IdentityDir::broker).await.ok().flatten();
    let is_emptied = current.as_ref().is_some_and(|current| current.lost_its_stream(&record));
    // A connection that is fine is left alone: signing in again would only disturb it.
    let renew_at_ms = match current.filter(|current| serves(parts, current, &record)) {
        Some(current) => {
            let stream_created_ms = record.stream_created_ms;
            if current.stream_created_ms != stream_created_ms {
                save(parts, BrokerRecord { stream_created_ms, ..current.clone() }).await;
            }
            current.renew_at_ms()
        }
        None => {
            save(parts, record.clone()).await;
            hand_over(parts, &record).await;
            record.renew_at_ms()
        }
    };
    if is_emptied {
        parts.bus.store_was_lost();
    }
    Ok(renew_at_ms)
}

async fn save(parts: &Parts, record: BrokerRecord) {
    if let Err(error) = parts.dir.blocking(move |dir| dir.save_broker(&record)).await {
        warn!(%error, "the broker credentials are not on disk: a restart will need the control plane");
    }
}

/// Whether the credentials in use are connected, not yet due, and for the same place as the new ones.
fn serves(parts: &Parts, current: &BrokerRecord, new: &BrokerRecord) -> bool {
    let place = |record: &BrokerRecord| {
        let (jwt, issued_ms, expire_ms, stream_created_ms) = (String::new(), 0, 0, 0);
        BrokerRecord { jwt, issued_ms, expire_ms, stream_created_ms, ..record.clone() }
    };
    let is_connected = *parts.bus.connected().borrow();
    let is_in_use = parts.bus.credentials_expire_ms() == Some(current.expire_ms);
    is_connected && is_in_use && parts.clock.now_ms() < current.renew_at_ms() && place(current) == place(new)
}

async fn hand_over(parts: &Parts, record: &BrokerRecord) {
    let BrokerRecord { jwt, urls, route, stream, consumer, ca_pem, issued_ms: _, expire_ms, stream_created_ms: _ } =
        record.clone();
    let credentials = BrokerCredentials {
        jwt,
        key: Arc::clone(&parts.broker_key),
        urls,
        route,
        stream,
        consumer,
        ca_pem: Some(ca_pem).filter(|pem| !pem.is_empty()),
        expire_ms,
    };
    if let Err(error) = parts.bus.set_credentials(credentials).await {
        warn!(%error, "the broker credentials cannot be used");
    }
}

/// Ends when the connection stands and nothing can be received over it: the consumer was deleted, or the broker's store was lost.
async fn consumer_is_lost(parts: &Parts) {
    let (mut connected, mut receiving) = (parts.bus.connected(), parts.bus.receiving());
    loop {
        if connected.wait_for(|connected| *connected).await.is_err() {
            return std::future::pending().await;
        }
        // Opening it takes a moment.
        let is_open = tokio::time::timeout(CONSUMER_PATIENCE, receiving.wait_for(|receiving| *receiving)).await.is_ok();
        if !is_open && *connected.borrow() {
            return;
        }
        tokio::select! {
            _ = connected.wait_for(|connected| !connected) => {}
            _ = receiving.wait_for(|receiving| !receiving) => {}
        }
    }
}

/// Ends when a lost connection is back: what the broker sent into the old one is lost, and it would wait for it to be overdue.
async fn is_back(parts: &Parts, losses: &mut watch::Receiver<u64>) {
    if losses.changed().await.is_err() || parts.bus.connected().wait_for(|connected| *connected).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Ends when the bus has been away for longer than patience lasts.
async fn bus_is_lost(parts: &Parts) {
    let mut connected = parts.bus.connected();
    loop {
        if connected.wait_for(|connected| !connected).await.is_err() {
            return std::future::pending().await;
        }
        if tokio::time::timeout(BUS_PATIENCE, connected.wait_for(|connected| *connected)).await.is_err() {
            return;
        }
    }
}
