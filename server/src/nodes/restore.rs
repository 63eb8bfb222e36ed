//! Streams and consumers that the broker has lost, and nodes that it has still to lose.
//!
//! A broker that comes back without its store holds no mail and no consumer. The mail is in the nodes' outboxes and is published
//! again by their schedule (PROTOCOL §5.4); that there is somewhere to publish it to is seen to here, after every connection.

use std::time::Duration;

use murmur_core::subject::Route;
use tokio_util::sync::CancellationToken;

use super::{NodeError, Nodes};
use crate::db::{
    DbError,
    node::{self, State},
};

/// Nodes looked up at a time.
const PAGE: u32 = 500;
/// Between tries while the broker refuses.
const RETRY: Duration = Duration::from_secs(1);

impl Nodes {
    /// Connects to the broker and keeps a stream and a consumer there for every node that has a route, and nothing for a revoked one, until
    /// `stop`. Without a broker it only waits for that.
    pub async fn keep_broker(&self, stop: &CancellationToken) {
        self.broker.connect(&self.clock, stop).await;
        let Some(mut connections) = self.broker.connections() else { return stop.cancelled().await };
        loop {
            connections.borrow_and_update();
            let again = match self.restore_broker().await {
                Ok(()) => None,
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "streams and consumers cannot be seen to, trying again in {RETRY:?}");
                    Some(RETRY)
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                changed = connections.changed() => if changed.is_err() { return },
                () = self.broker_due.notified() => {}
                () = tokio::time::sleep(again.unwrap_or_default()), if again.is_some() => {}
            }
        }
    }

    async fn restore_broker(&self) -> Result<(), NodeError> {
        self.void_revoked().await?;
        self.remove_revoked().await?;
        let mut after = Vec::new();
        loop {
            let mut tx = self.db.read().await?;
            let nodes = node::page(&mut tx, None, &after, PAGE).await?;
            // Not held while the broker is waited for.
            drop(tx);
            let Some(last) = nodes.last() else { return Ok(()) };
            after = last.id.to_vec();
            for node in nodes.iter().filter(|node| node.state == State::Approved && !node.route.is_empty()) {
                let route: Route = node.route.parse().map_err(|_| DbError::Corrupt { column: "node.route" })?;
                self.broker.prepare(&route).await?;
            }
        }
    }
}
