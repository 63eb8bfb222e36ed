//! The HTTP door beside gRPC on the same port: health, readiness, metrics; and the accept loop that serves both.

mod pages;
mod range;
mod serve;
mod tls;
pub(crate) mod uploads;

pub(crate) use pages::{Pages, router};
pub(crate) use serve::{Acceptor, serve};
pub use tls::TlsError;
pub(crate) use tls::acceptor;
