//! Ends the connections of agents that have ended, and forgets their tunnels.

use tokio_util::sync::CancellationToken;

use super::{Tunnels, room::lock};
use crate::{
    db::{DbError, tunnel},
    links::LinkKey,
};

impl Tunnels {
    /// Works until `stop` is cancelled.
    pub async fn keep(&self, stop: &CancellationToken) {
        // Rings with every end, and with much else.
        let mut moved = self.hub.listen(None);
        loop {
            moved.borrow_and_update();
            if let Err(error) = self.close_dead().await {
                // Nobody is let in anew meanwhile: every visit looks for itself.
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "tunnels of ended agents could not be closed"
                );
            }
            tokio::select! {
                () = stop.cancelled() => return,
                changed = moved.changed() => if changed.is_err() { return },
            }
        }
    }

    async fn close_dead(&self) -> Result<(), DbError> {
        let mut tx = self.db.read().await?;
        if !tunnel::has_dead(&mut tx).await? {
            return Ok(());
        }
        drop(tx);
        let mut tx = self.db.write().await?;
        tunnel::delete_dead(&mut tx).await?;
        tx.commit().await?;
        let mut tx = self.db.read().await?;
        let used: Vec<LinkKey> = lock(&self.live).values().map(|(key, _)| *key).collect();
        for key in used {
            if tunnel::live(&mut tx, key).await?.is_none() {
                let of_key = |(known, closed): &(LinkKey, CancellationToken)| (*known == key).then(|| closed.clone());
                let closed: Vec<_> = lock(&self.live).values().filter_map(of_key).collect();
                closed.iter().for_each(CancellationToken::cancel);
            }
        }
        Ok(())
    }
}
