//! TLS for both protocols: ALPN offers HTTP/2 for gRPC and HTTP/1.1 for everything else.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
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
        .with_cert_resolver(Arc::new(Renewed::new(files, stamp, pair)));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

#[derive(Debug)]
struct Files {
    cert: PathBuf,
    key: PathBuf,
    provider: Arc<CryptoProvider>,
}

/// What each of the files looks like from outside; `None` for one that is not there.
type Stamp = [Option<Look>; 2];

/// A file's time alone does not tell it from what it was: the clock is coarse, and a copy may bear the time of its original.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Look {
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Look {
    fn at(path: &Path) -> Option<Self> {
        let found = fs::metadata(path).ok()?;
        Some(Self {
            inode: found.ino(),
            size: found.len(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    }
}

impl Files {
    fn stamp(&self) -> Stamp {
        [&self.cert, &self.key].map(|path| Look::at(path))
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
    /// What could not be used when it was last tried, and has been told of.
    refused: Option<Stamp>,
}

#[derive(Debug)]
struct Renewed {
    files: Files,
    current: Mutex<Current>,
}

impl Renewed {
    fn new(files: Files, stamp: Stamp, pair: Arc<CertifiedKey>) -> Self {
        Self { files, current: Mutex::new(Current { stamp, pair, refused: None }) }
    }

    fn current(&self) -> Arc<CertifiedKey> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = self.files.stamp();
        if stamp == current.stamp {
            return Arc::clone(&current.pair);
        }
        // Tried until it succeeds: of two files that are replaced one after the other the first fits nothing yet, and one that is still
        // being written may look the same when it is whole.
        match self.files.read() {
            Ok(pair) => {
                tracing::info!("certificate and key have changed and are used from now on");
                *current = Current { stamp, pair, refused: None };
            }
            Err(error) if current.refused != Some(stamp) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "certificate and key have changed and cannot be used yet: those of before stay");
                current.refused = Some(stamp);
            }
            Err(_) => {}
        }
        Arc::clone(&current.pair)
    }
}

impl ResolvesServerCert for Renewed {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Certificate and key, as PEM.
    fn issued() -> [String; 2] {
        let issued = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        [issued.cert.pem(), issued.signing_key.serialize_pem()]
    }

    fn shown(renewed: &Renewed) -> CertificateDer<'static> {
        renewed.current().end_entity_cert().unwrap().clone().into_owned()
    }

    fn certificate(pem: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
    }

    #[test]
    fn what_is_read_half_written_is_read_again_although_its_time_is_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let files = Files { cert: folder.path().join("cert.pem"), key: folder.path().join("key.pem"), provider };
        let [old, new] = [issued(), issued()];
        fs::write(&files.cert, &old[0]).unwrap();
        fs::write(&files.key, &old[1]).unwrap();
        let (stamp, pair) = (files.stamp(), files.read().unwrap());
        let renewed = Renewed::new(files, stamp, pair);
        assert_eq!(shown(&renewed), certificate(&old[0]));

        let Files { cert, key, .. } = &renewed.files;
        fs::write(cert, &new[0]).unwrap();
        assert_eq!(shown(&renewed), certificate(&old[0]), "its key is not there yet");
        let written = fs::metadata(key).unwrap().modified().unwrap();
        fs::write(key, &new[1]).unwrap();
        fs::File::options().write(true).open(key).unwrap().set_modified(written).unwrap();
        // As if nothing else had told the two apart either.
        renewed.current.lock().unwrap().refused = Some(renewed.files.stamp());
        assert_eq!(shown(&renewed), certificate(&new[0]));
    }
}
