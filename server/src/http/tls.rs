//! TLS for both protocols: ALPN offers HTTP/2 for gRPC and HTTP/1.1 for everything else.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use rustls::{
    crypto::CryptoProvider,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio_rustls::TlsAcceptor;

/// Certificate or key that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is missing or no PEM of the expected kind.
    #[error("TLS file `{}`", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls_pki_types::pem::Error,
    },
    /// The two do not fit together.
    #[error("TLS certificate and key")]
    Pair(#[from] rustls::Error),
}

/// Certificate and key from two PEM files. They are read again once they have changed: a certificate is renewed while the server runs, and
/// what connects from then on sees the new one.
pub(crate) fn acceptor(cert: &Path, key: &Path) -> Result<TlsAcceptor, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let files = Files { cert: cert.to_owned(), key: key.to_owned(), provider: Arc::clone(&provider) };
    let (stamp, pair) = (files.stamp(), files.read()?);
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Renewed { files, current: Mutex::new(Current { stamp, pair }) }));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

#[derive(Debug)]
struct Files {
    cert: PathBuf,
    key: PathBuf,
    provider: Arc<CryptoProvider>,
}

/// When each of the files was written; `None` for one that is not there.
type Stamp = [Option<SystemTime>; 2];

impl Files {
    fn stamp(&self) -> Stamp {
        [&self.cert, &self.key].map(|path| fs::metadata(path).and_then(|metadata| metadata.modified()).ok())
    }

    fn read(&self) -> Result<Arc<CertifiedKey>, TlsError> {
        let wrong = |path: &Path| {
            let path = path.to_owned();
            move |source| TlsError::File { path, source }
        };
        let chain = CertificateDer::pem_file_iter(&self.cert).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(wrong(&self.key))?;
        // This also refuses a key that is not the certificate's.
        let pair = CertifiedKey::from_der(chain.map_err(wrong(&self.cert))?, key, &self.provider)?;
        Ok(Arc::new(pair))
    }
}

/// What is shown, and from when it is.
#[derive(Debug)]
struct Current {
    stamp: Stamp,
    pair: Arc<CertifiedKey>,
}

#[derive(Debug)]
struct Renewed {
    files: Files,
    current: Mutex<Current>,
}

impl ResolvesServerCert for Renewed {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = self.files.stamp();
        if stamp != current.stamp {
            // Tried once for each change: of two files that are replaced one after the other the first fits nothing yet.
            current.stamp = stamp;
            match self.files.read() {
                Ok(pair) => {
                    tracing::info!("certificate and key have changed and are used from now on");
                    current.pair = pair;
                }
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(
                        error,
                        "certificate and key have changed and cannot be used yet: those of before stay"
                    );
                }
            }
        }
        Some(Arc::clone(&current.pair))
    }
}
