//! The tunnels room: ports of nodes that whoever has the link reaches through this control plane (docs/adr/0014).
//!
//! A tunnel is a row, as alive as its agent. A connection is made for each visit: the node is asked by its stream of orders and answers with a
//! stream of its own, whose bytes the visitor's side reads and writes as any other connection.

mod dial;
mod error;
mod keeper;
mod open;
mod room;

pub use dial::{Answered, Line};
pub use error::{DialError, TunnelError};
pub use room::Tunnels;
