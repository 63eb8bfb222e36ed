//! Events of this node's agents, as the control plane tells them.

use futures::{StreamExt as _, stream::BoxStream};
use murmur_proto::v1;

use super::{Control, ControlError, call};

/// Events with their positions, as they come.
pub(crate) type NodeEvents = BoxStream<'static, Result<v1::WatchNodeEventsResponse, ControlError>>;

impl Control {
    /// Every event for this node's agents behind a position, then each new one.
    ///
    /// # Errors
    /// [`ControlError`].
    pub(crate) async fn watch_node_events(&self, after_position: u64) -> Result<NodeEvents, ControlError> {
        self.introduced().await;
        let mut client = self.client.events.clone();
        let events = call(client.watch_node_events(v1::WatchNodeEventsRequest { after_position })).await?;
        Ok(events.map(|event| event.map_err(ControlError::from)).boxed())
    }
}
