//! The tunnel room: ports of this host that its agents show to others through the control plane (docs/adr/0014).
//!
//! The control plane names a tunnel, never a port: what a tunnel leads to is what one of this node's own agents asked for, written down here.

mod carry;
mod room;
mod table;

pub use room::{TunnelConfig, TunnelError, Tunnels};
