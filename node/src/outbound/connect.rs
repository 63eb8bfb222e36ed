//! From a name to a connection: resolved once, checked, and then connected to just what was checked.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use rustls::{ClientConfig, RootCertStore, crypto::ring};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use super::{OutboundError, Place, Rules, is_public};

/// The TLS client cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// No certificate can be read from the PEM text.
    #[error("the certificate authority cannot be read")]
    Ca(#[source] rustls_pki_types::pem::Error),
    /// A certificate cannot be trusted.
    #[error("the certificate authority cannot be used")]
    Root(#[source] rustls::Error),
    /// The provider does not know the protocol's versions.
    #[error("setting up TLS")]
    Versions(#[source] rustls::Error),
}

/// A connection, with TLS or without.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A TLS client that trusts the system's authorities, and those of a PEM text.
pub(super) fn tls(ca_pem: Option<&str>) -> Result<ClientConfig, TlsError> {
    let mut roots = RootCertStore::empty();
    // What cannot be read of the system's is left out: a missing authority shows as a failed handshake.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    for certificate in CertificateDer::pem_slice_iter(ca_pem.unwrap_or_default().as_bytes()) {
        roots.add(certificate.map_err(TlsError::Ca)?).map_err(TlsError::Root)?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(TlsError::Versions)?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

pub(super) async fn connect(
    place: &Place,
    rules: &Rules,
    tls: &Arc<ClientConfig>,
    timeout: Duration,
) -> Result<Box<dyn Stream>, OutboundError> {
    let done = tokio::time::timeout(timeout, open(place, rules, tls)).await;
    done.map_err(|_| OutboundError::Timeout { host: place.host().to_owned() })?
}

async fn open(place: &Place, rules: &Rules, tls: &Arc<ClientConfig>) -> Result<Box<dyn Stream>, OutboundError> {
    let host = || place.host().to_owned();
    let addresses = resolve(place).await?;
    if !rules.allow_local && !addresses.iter().all(|address| is_public(address.ip())) {
        return Err(OutboundError::NotPublic { host: host() });
    }
    let failed = |source| OutboundError::Connect { host: host(), source };
    let unreached = |source| OutboundError::Unreached { host: host(), source };
    let socket = first(&addresses).await.map_err(unreached)?;
    socket.set_nodelay(true).map_err(failed)?;
    if !place.is_tls() {
        return Ok(Box::new(socket));
    }
    let name = ServerName::try_from(place.name().to_owned())
        .map_err(|_| failed(io::Error::new(io::ErrorKind::InvalidInput, "no certificate can name this host")))?;
    let stream = TlsConnector::from(Arc::clone(tls)).connect(name, socket).await.map_err(failed)?;
    Ok(Box::new(stream))
}

async fn resolve(place: &Place) -> Result<Vec<SocketAddr>, OutboundError> {
    let unresolved = |source| OutboundError::Resolve { host: place.host().to_owned(), source };
    let found = tokio::net::lookup_host((place.name(), place.port())).await.map_err(unresolved)?;
    let addresses: Vec<SocketAddr> = found.collect();
    if addresses.is_empty() {
        return Err(unresolved(io::Error::new(io::ErrorKind::NotFound, "it has no address")));
    }
    Ok(addresses)
}

/// The first of the addresses that answers.
async fn first(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "there is no address");
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(socket) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(last)
}
