//! What proves this node, renewed while it runs: its token, and the certificate that its owner signed.

use std::time::Duration;

use murmur_proto::v1;
use tracing::{info, warn};

use super::{ControlError, call, run::Parts, watch::BACKOFF};
use crate::{
    delay::Delay,
    identity::{IdentityDir, IdentityError},
};

/// The token is not renewed more often than this, however short it lives.
const RENEW_WAIT_MS_MIN: u64 = 200;

/// Renews the token when it is due, then opens the session anew with it.
pub(super) async fn renew(parts: Parts, at_ms: u64) {
    let wait_ms = at_ms.saturating_sub(parts.clock.now_ms()).max(RENEW_WAIT_MS_MIN);
    tokio::time::sleep(Duration::from_millis(wait_ms)).await;
    let mut delay = Delay::new(BACKOFF);
    while let Err(error) = fetch(&parts).await {
        warn!(%error, "this node's token could not be renewed yet");
        delay.wait().await;
    }
    info!("this node has a new token");
    // The control plane lets the old one end when it has seen the new one.
    parts.control.again.notify_one();
}

async fn fetch(parts: &Parts) -> Result<(), ControlError> {
    let mut client = parts.control.client.nodes.clone();
    let token = call(client.renew_node_token(v1::RenewNodeTokenRequest {})).await?.token;
    let saved = token.clone();
    // On disk first: one that is only in memory would be lost with the process.
    parts.dir.blocking(move |dir| dir.save_token(&saved)).await.map_err(|error| own_fault(&error))?;
    parts.control.headers.set_token(&token).map_err(|error| ControlError::Malformed(error.to_string()))?;
    parts.forward.set_credential(&token, parts.incarnation);
    Ok(())
}

/// Takes up what the owner signs for this node while it runs.
pub(super) async fn follow_certificate(parts: Parts) {
    let mut delay = Delay::new(BACKOFF);
    loop {
        if let Err(error) = watch(&parts, &mut delay).await {
            info!(%error, "the watch of this node's own entry ended");
        }
        delay.wait().await;
    }
}

async fn watch(parts: &Parts, delay: &mut Delay) -> Result<(), ControlError> {
    let mut client = parts.control.client.nodes.clone();
    let mut nodes = client.watch_nodes(v1::WatchNodesRequest {}).await?.into_inner();
    let own = parts.identity.node_id.to_string();
    while let Some(answer) = nodes.message().await? {
        delay.reset();
        let Some(node) = answer.node.filter(|node| node.node_id == own && !node.certificate.is_empty()) else {
            continue;
        };
        match take(parts, &node.certificate).await {
            Ok(false) => {}
            Ok(true) => {
                info!("the owner has signed a new certificate for this node");
                if let Err(error) = parts.agents.publish_due().await {
                    warn!(%error, "keys under the new certificate are not published yet");
                }
            }
            Err(error) => warn!(%error, "a new certificate of this node is refused, and the old one kept"),
        }
    }
    Ok(())
}

/// Whether it is a new one.
async fn take(parts: &Parts, certificate: &[u8]) -> Result<bool, IdentityError> {
    let bytes = certificate.to_vec();
    if parts.identity.certificate().encode() == bytes {
        return Ok(false);
    }
    let renewed = parts.identity.check_renewed(&bytes, parts.clock.now_ms())?;
    let slug_scope = renewed.claims().slug_scope.clone();
    let keep = move |dir: &IdentityDir| match dir.record()? {
        Some(mut record) => {
            (record.node_certificate, record.slug_scope) = (Some(bytes), slug_scope);
            dir.save_record(&record)
        }
        None => Ok(()),
    };
    parts.dir.blocking(keep).await?;
    parts.identity.set_certificate(renewed);
    Ok(true)
}

fn own_fault(error: &dyn std::error::Error) -> ControlError {
    ControlError::Down(format!("this node's own disk failed: {error}"))
}
