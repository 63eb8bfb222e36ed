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

use crate::{lifecycle::Lifecycle, rpc::gate::Peer};

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
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

/// Accepts until the soft end; each connection then finishes what it has begun.
pub(crate) async fn serve(listener: TcpListener, acceptor: Acceptor, app: Router, lifecycle: Lifecycle) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = lifecycle.draining() => return,
        };
        match accepted {
            Ok((socket, peer)) => {
                let app = app.clone().layer(Extension(Peer(peer)));
                let connection = connect(socket, peer, acceptor.clone(), app, lifecycle.clone());
                lifecycle.spawn(connection);
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "accepting a connection failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connect(socket: TcpStream, peer: SocketAddr, acceptor: Acceptor, app: Router, lifecycle: Lifecycle) {
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(error = &error as &dyn std::error::Error, "connection from {peer} broke at once");
        return;
    }
    match acceptor {
        Acceptor::Plain => converse(socket, app, lifecycle).await,
        Acceptor::Tls(tls) => match tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(socket)).await {
            Ok(Ok(stream)) => converse(stream, app, lifecycle).await,
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
