//! Calls over TLS: whom they trust, and what they do not follow.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    sync::mpsc,
};
use tokio_rustls::TlsAcceptor;

use super::*;

/// A server with a certificate for some names, by an authority of its own. Tells what it was asked.
struct Server {
    port: u16,
    ca_pem: String,
    asked: mpsc::UnboundedReceiver<String>,
}

impl Server {
    async fn start(names: &[&str], answer: &'static str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &ca).unwrap();
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let builder = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let config = builder.with_single_cert(vec![certificate.der().clone()], private).unwrap();
        let (acceptor, listener) =
            (TlsAcceptor::from(Arc::new(config)), TcpListener::bind("127.0.0.1:0").await.unwrap());
        let port = listener.local_addr().unwrap().port();
        let (heard, asked) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                // Who does not trust it ends the handshake.
                let Ok(mut stream) = acceptor.accept(socket).await else { continue };
                let mut buffer = vec![0; 4096];
                let count = stream.read(&mut buffer).await.unwrap_or_default();
                heard.send(String::from_utf8_lossy(&buffer[..count]).into_owned()).unwrap();
                stream.write_all(answer.as_bytes()).await.unwrap();
                let _ = stream.shutdown().await;
            }
        });
        Self { port, ca_pem: ca.pem(), asked }
    }

    fn place(&self) -> Place {
        format!("https://localhost:{}/hook", self.port).parse().unwrap()
    }
}

async fn post(outbound: &Outbound, place: &Place) -> Result<Answer, OutboundError> {
    let call = Call { place, headers: Vec::new(), body: b"{}".to_vec(), timeout: CALL_TIMEOUT };
    outbound.post(call).await
}

fn local(ca_pem: Option<&str>) -> Outbound {
    Outbound::new(Rules { allow_local: true, ..Rules::default() }, ca_pem).unwrap()
}

const FINE: &str = "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";

#[tokio::test]
async fn a_server_is_trusted_by_the_authority_that_was_configured_and_by_no_other() {
    let mut server = Server::start(&["localhost"], FINE).await;
    assert_eq!(post(&local(Some(&server.ca_pem)), &server.place()).await.unwrap().status, 204);
    assert!(server.asked.recv().await.unwrap().starts_with("POST /hook HTTP/1.1\r\n"));

    let other = Server::start(&["localhost"], FINE).await;
    for ca in [None, Some(other.ca_pem.as_str())] {
        let refused = post(&local(ca), &server.place()).await.unwrap_err();
        let OutboundError::Connect { source, .. } = refused else { panic!("{refused:?}") };
        assert!(source.to_string().contains("UnknownIssuer") || source.to_string().contains("certificate"), "{source}");
    }
    assert!(server.asked.try_recv().is_err(), "nothing was said to it");
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused() {
    let mut server = Server::start(&["hooks.example.org"], FINE).await;
    let refused = post(&local(Some(&server.ca_pem)), &server.place()).await.unwrap_err();
    let OutboundError::Connect { source, .. } = refused else { panic!("{refused:?}") };
    assert!(source.to_string().contains("not valid for name"), "{source}");
    assert!(server.asked.try_recv().is_err(), "nothing was said to it");
}

#[tokio::test]
async fn a_redirect_to_a_private_address_is_an_answer_and_no_way() {
    let inside = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let location = format!("http://{}/admin", inside.local_addr().unwrap());
    let answer = format!(
        "HTTP/1.1 307 Temporary Redirect\r\nlocation: {location}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
    let server = Server::start(&["localhost"], answer.leak()).await;
    let answer = post(&local(Some(&server.ca_pem)), &server.place()).await.unwrap();
    assert_eq!((answer.status, answer.header("location")), (307, Some(location.as_str())));
    // By the rules without local servers not even the name may be called.
    let strict = Outbound::new(Rules { ports: vec![server.port], allow_local: false }, Some(&server.ca_pem)).unwrap();
    assert!(matches!(post(&strict, &server.place()).await, Err(OutboundError::NotPublic { .. })));
    let called = std::future::poll_fn(|context| std::task::Poll::Ready(inside.poll_accept(context).is_ready())).await;
    assert!(!called, "nobody came");
}
