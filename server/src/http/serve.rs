//! The accept loop: gRPC and HTTP on one port, with TLS or without.

use std::{net::SocketAddr, time::Duration};

use axum::{Extension, Router};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

use super::places::{Guest, Place, Places};
use crate::{lifecycle::Lifecycle, rpc::gate::Peer};

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// To say what is spoken, and to say all of an HTTP/1 head.
pub(super) const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// Streams of one connection at once (PROTOCOL §6.4).
const STREAMS_MAX: u32 = 256;
/// After a failed accept, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How connections begin.
#[derive(Clone)]
pub(crate) enum Acceptor {
    Plain,
    Tls(TlsAcceptor),
}

/// Accepts until the soft end, and closes at once what finds no place; each connection then finishes what it has begun.
pub(crate) async fn serve(
    listener: TcpListener,
    acceptor: Acceptor,
    app: Router,
    mut places: Places,
    lifecycle: Lifecycle,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = lifecycle.draining() => return,
        };
        match accepted {
            Ok((socket, peer)) => {
                let Some(place) = places.take() else { continue };
                let app = app.clone().layer(Extension(Peer(peer)));
                let connection = connect(socket, peer, place, acceptor.clone(), app, lifecycle.clone());
                lifecycle.spawn(connection);
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "accepting a connection failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connect(
    socket: TcpStream,
    peer: SocketAddr,
    place: Place,
    acceptor: Acceptor,
    app: Router,
    lifecycle: Lifecycle,
) {
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(error = &error as &dyn std::error::Error, "connection from {peer} broke at once");
        return;
    }
    match acceptor {
        Acceptor::Plain => converse(Guest::new(socket, place), app, lifecycle).await,
        Acceptor::Tls(tls) => match tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(socket)).await {
            Ok(Ok(stream)) => converse(Guest::new(stream, place), app, lifecycle).await,
            Ok(Err(error)) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "TLS handshake with {peer} failed");
            }
            Err(_) => tracing::debug!("TLS handshake with {peer} took too long"),
        },
    }
}

async fn converse<S>(stream: S, app: Router, lifecycle: Lifecycle)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        // A node carries the calls of many programs on one connection: that some of them give up at once is no attack of the node's.
        .max_pending_accept_reset_streams(STREAMS_MAX as usize)
        .keep_alive_interval(Some(KEEP_ALIVE))
        .keep_alive_timeout(KEEP_ALIVE);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), TowerToHyperService::new(app));
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = lifecycle.draining() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(error = &*error, "connection ended early");
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, num::NonZeroU32, sync::Arc};

    use axum::routing::get;
    use rustls::{ClientConfig, RootCertStore, crypto::ring};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio_rustls::TlsConnector;

    use super::*;
    use crate::http::{acceptor, places::PREFACE};

    /// Empty, as a client's first one may be.
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    const PING: [u8; 17] = [0, 0, 8, 6, 0, 0, 0, 0, 0, b'o', b'n', b'e', b' ', b'p', b'i', b'n', b'g'];
    const PONG_FLAG: u8 = 1;
    const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";

    /// A port where nobody accepts yet: what is sent to it waits.
    struct Port {
        listener: TcpListener,
        lifecycle: Lifecycle,
    }

    impl Port {
        async fn new() -> Self {
            Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap(), lifecycle: Lifecycle::new() }
        }

        async fn connect(&self) -> TcpStream {
            TcpStream::connect(self.listener.local_addr().unwrap()).await.unwrap()
        }

        /// A connection that has sent this.
        async fn saying(&self, bytes: &[u8]) -> TcpStream {
            let mut stream = self.connect().await;
            stream.write_all(bytes).await.unwrap();
            stream
        }

        /// Begins to accept.
        fn open(self, acceptor: Acceptor, count: u32, patience: Duration) -> (SocketAddr, Lifecycle) {
            let address = self.listener.local_addr().unwrap();
            let places = Places::with_patience(NonZeroU32::new(count).unwrap(), patience);
            let app = Router::new().route("/", get(|| async { "hello" }));
            self.lifecycle.spawn(serve(self.listener, acceptor, app, places, self.lifecycle.clone()));
            (address, self.lifecycle)
        }
    }

    async fn in_time<T>(what: &str, task: impl Future<Output = T>) -> T {
        tokio::time::timeout(Duration::from_secs(20), task).await.unwrap_or_else(|_| panic!("never: {what}"))
    }

    /// Everything until the other end closes, however it does that.
    async fn until_closed(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
        let mut bytes = Vec::new();
        let _ = in_time("it is closed", stream.read_to_end(&mut bytes)).await;
        bytes
    }

    async fn is_answered(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> bool {
        let mut begin = [0; 15];
        stream.write_all(GET).await.is_ok()
            && in_time("it is answered", stream.read_exact(&mut begin)).await.is_ok()
            && begin == *b"HTTP/1.1 200 OK"
    }

    /// Until the answer to a ping has come.
    async fn pong(stream: &mut TcpStream) {
        stream.write_all(&PING).await.unwrap();
        loop {
            let mut head = [0; 9];
            stream.read_exact(&mut head).await.unwrap();
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            stream.read_exact(&mut payload).await.unwrap();
            if (head[3], head[4], &payload[..]) == (PING[3], PONG_FLAG, &PING[9..]) {
                return;
            }
        }
    }

    #[tokio::test]
    async fn whoever_does_not_say_what_it_speaks_is_closed_and_nobody_else_is() {
        let port = Port::new().await;
        let mut spoken = port.saying(&[PREFACE, &SETTINGS].concat()).await;
        let mut web = port.saying(&GET[..7]).await;
        let mut silent = [port.connect().await, port.saying(&PREFACE[..12]).await, port.saying(&PREFACE[..23]).await];
        let (_, lifecycle) = port.open(Acceptor::Plain, 10, Duration::from_millis(50));
        for stream in &mut silent {
            assert_eq!(until_closed(stream).await, b"");
        }
        in_time("a ping is answered", pong(&mut spoken)).await;
        web.write_all(&GET[7..]).await.unwrap();
        assert!(is_answered(&mut web).await);
        drop((spoken, web));
        assert!(lifecycle.finish(Duration::from_secs(20)).await);
    }

    /// Both ends of TLS.
    fn tls() -> (Acceptor, TlsConnector) {
        let dir = tempfile::tempdir().unwrap();
        let issued = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let [cert, key] = ["cert.pem", "key.pem"].map(|name| dir.path().join(name));
        fs::write(&cert, issued.cert.pem()).unwrap();
        fs::write(&key, issued.signing_key.serialize_pem()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(issued.cert.der().clone()).unwrap();
        let client = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let client = client.with_safe_default_protocol_versions().unwrap();
        let client = client.with_root_certificates(roots).with_no_client_auth();
        (Acceptor::Tls(acceptor(&cert, &key).unwrap()), Arc::new(client).into())
    }

    #[tokio::test]
    async fn behind_tls_it_is_the_same() {
        let (acceptor, connector) = tls();
        let shake = async |address: SocketAddr| {
            let stream = TcpStream::connect(address).await.unwrap();
            in_time("hands are shaken", connector.connect("localhost".try_into().unwrap(), stream)).await.unwrap()
        };
        let (hasty, first) = Port::new().await.open(acceptor.clone(), 10, Duration::from_millis(50));
        assert_eq!(until_closed(&mut shake(hasty).await).await, b"");
        let (patient, second) = Port::new().await.open(acceptor, 10, Duration::from_secs(20));
        assert!(is_answered(&mut shake(patient).await).await);
        assert!(first.finish(Duration::from_secs(20)).await && second.finish(Duration::from_secs(20)).await);
    }

    #[tokio::test]
    async fn one_connection_too_many_is_closed_until_another_ends() {
        let port = Port::new().await;
        let mut first = port.connect().await;
        let (address, lifecycle) = port.open(Acceptor::Plain, 1, Duration::from_secs(20));
        assert!(is_answered(&mut first).await);
        assert_eq!(until_closed(&mut TcpStream::connect(address).await.unwrap()).await, b"");
        drop(first);
        in_time("a place is free again", async {
            while !is_answered(&mut TcpStream::connect(address).await.unwrap()).await {}
        })
        .await;
        assert!(lifecycle.finish(Duration::from_secs(20)).await);
    }
}
