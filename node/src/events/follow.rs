//! Follows the control plane's events from this node's own position, from one connection to the next.

use std::sync::Arc;

use futures::StreamExt as _;
use murmur_core::{reason::Reason, retry::Backoff};
use murmur_proto::v1::watch_node_events_response::Item;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::Events;
use crate::{
    delay::Delay,
    rpc::control::{Control, ControlError},
    store::{StoreError, event as table},
};

/// Between two tries while the session is there.
const BACKOFF: Backoff = Backoff { base_ms: 100, cap_ms: 10_000 };
/// Events that are stored in one transaction when they are there.
const CHUNK: usize = 256;

#[derive(Debug, thiserror::Error)]
enum FollowError {
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Events {
    /// Follows until the token is cancelled.
    pub async fn follow(self: Arc<Self>, control: Arc<Control>, stop: CancellationToken) {
        let now_ms = self.clock.now_ms();
        if let Err(error) = self.store.write(move |tx| table::prune(tx, now_ms)).await {
            warn!(%error, "old events could not be deleted");
        }
        tokio::select! { () = self.follow_sessions(&control) => {} () = stop.cancelled() => {} }
    }

    async fn follow_sessions(&self, control: &Control) {
        let mut delay = Delay::new(BACKOFF);
        let mut state = control.state();
        loop {
            if state.wait_for(|state| state.connected).await.is_err() {
                return;
            }
            let opened = state.borrow().opened;
            let gone = state.wait_for(|state| !state.connected || state.opened != opened);
            let ended = tokio::select! {
                _ = gone => continue,
                ended = self.watch_control(control, &mut delay) => ended,
            };
            match ended {
                Ok(()) => debug!("the stream of events ended"),
                Err(FollowError::Control(error)) if error.reason() == Some(Reason::ResumeTokenStale) => {
                    info!("the control plane has another database now: events are read from their beginning");
                    if let Err(error) = self.store.write(|tx| table::set_position(tx, 0)).await {
                        warn!(%error, "the position among events could not be stored");
                    }
                }
                Err(error) => info!(%error, "events are not heard"),
            }
            delay.wait().await;
        }
    }

    async fn watch_control(&self, control: &Control, delay: &mut Delay) -> Result<(), FollowError> {
        let position = self.store.read(table::position).await?;
        let items = control.watch_node_events(position).await?;
        let mut items = items.ready_chunks(CHUNK);
        while let Some(chunk) = items.next().await {
            let (mut events, mut position, mut ended) = (Vec::new(), None, None);
            for item in chunk {
                match item {
                    Ok(item) => {
                        position = Some(item.position).filter(|position| *position > 0).or(position);
                        if let Some(Item::Event(event)) = item.item {
                            events.push(event);
                        }
                    }
                    Err(error) => ended = Some(error),
                }
            }
            if let Some(position) = position {
                self.take(events, position).await?;
            }
            if let Some(error) = ended {
                return Err(error.into());
            }
            delay.reset();
        }
        Ok(())
    }
}
