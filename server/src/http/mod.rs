//! The HTTP door beside gRPC on the same port: health, readiness, metrics, webhooks; and the accept loop that serves both.

pub(crate) mod agent;
mod hooks;
mod hop;
mod pages;
mod places;
mod range;
mod serve;
mod tls;
pub(crate) mod tunnel;
pub(crate) mod uploads;

pub(crate) use hooks::{Hooks, router as hooks_router};
pub(crate) use pages::{Pages, router};
pub(crate) use places::Places;
pub(crate) use serve::{Acceptor, serve};
pub use tls::TlsError;
pub(crate) use tls::acceptor;
