//! Sources of webhooks, and what strangers may and may not do at their address.

mod deliveries;
mod routing;
mod sources;
