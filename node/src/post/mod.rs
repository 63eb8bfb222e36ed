//! The post: sends, receives and matches replies (PROTOCOL §5).

mod error;
mod types;

pub use error::{QueryError, SendError};
pub use types::{
    DeliveryView, Direction, Draft, InboxMessage, InboxPage, InboxQuery, LocalAgent, MessageKind, Outcome, PostConfig,
    Sent, StateName, TailItem,
};
