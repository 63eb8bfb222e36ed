//! A bare gRPC call over a Unix socket or TCP: the same request message as a send, echoed by a process that does nothing else.

use std::{
    convert::Infallible,
    fs,
    future::Future,
    path::Path,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use murmur_proto::{
    client::{connect_server, connect_socket},
    node::v1::SendRequest,
};
use murmur_tests::{
    process::{Process, binary},
    wait,
};
use tokio::net::{TcpListener, UnixListener};
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tonic::{
    Request, Response, Status,
    body::Body,
    codegen::{Service, http},
    server::NamedService,
    transport::{Channel, Server},
};
use tonic_prost::ProstCodec;

use crate::{BODY_BYTES, body, samples::Samples};

/// As much as a small answer of the control plane.
pub(crate) const SMALL_BYTES: usize = 256;
const IN_FLIGHT: usize = 256;
type Codec = ProstCodec<SendRequest, SendRequest>;

/// Serves the echo on a socket until the process is killed.
pub(crate) async fn serve(socket: &Path) {
    let listener = UnixListener::bind(socket).unwrap();
    let incoming = UnixListenerStream::new(listener);
    Server::builder().max_concurrent_streams(4096).add_service(Echo).serve_with_incoming(incoming).await.unwrap();
}

/// Serves the echo over TCP until the process is killed, and writes where into a file.
pub(crate) async fn serve_tcp(file: &Path) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let unfinished = file.with_extension("new");
    fs::write(&unfinished, address.to_string()).unwrap();
    fs::rename(unfinished, file).unwrap();
    // As the control plane does: small answers must not wait for the acknowledgement of those before.
    let incoming = TcpListenerStream::new(listener).map(|accepted| {
        accepted.and_then(|stream| {
            stream.set_nodelay(true)?;
            Ok(stream)
        })
    });
    Server::builder().add_service(Echo).serve_with_incoming(incoming).await.unwrap();
}

/// An echo over TCP, in a process of its own.
pub(crate) struct Tcp {
    channel: Channel,
    _server: Process,
    _dir: tempfile::TempDir,
}

impl Tcp {
    /// Starts it and connects.
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("address");
        let args = vec!["echo".into(), "--tcp".into(), file.clone().into()];
        let mut server = Process::new(&binary("murmur-bench"), args, dir.path().join("echo.log"));
        server.start();
        let channel = wait::until("the echo answers", || async {
            let address = fs::read_to_string(&file).ok()?;
            connect_server(&format!("http://{address}"), None).await.ok()
        })
        .await;
        Self { channel, _server: server, _dir: dir }
    }

    /// The connection.
    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }
}

/// What the echo can do.
pub(crate) struct Figures {
    /// One call after the other.
    pub(crate) latency: Samples,
    /// Calls per second on one connection, many at a time.
    pub(crate) per_second: f64,
}

/// Measures the echo in a process of its own.
pub(crate) async fn measure() -> Figures {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("echo.sock");
    let args = vec!["echo".into(), socket.clone().into()];
    let mut server = Process::new(&binary("murmur-bench"), args, dir.path().join("echo.log"));
    server.start();
    let channel = wait::until("the echo answers", || async { connect_socket(&socket).await.ok() }).await;
    let mut samples = Vec::new();
    for _ in 0..2_000 {
        let start = Instant::now();
        call(channel.clone(), BODY_BYTES).await.unwrap();
        samples.push(start.elapsed());
    }
    let start = Instant::now();
    let mut answers = std::pin::pin!(
        stream::repeat_with(|| call(channel.clone(), BODY_BYTES))
            .take_while(|_| std::future::ready(start.elapsed() < Duration::from_secs(1)))
            .buffer_unordered(IN_FLIGHT)
    );
    let mut count = 0_u64;
    while let Some(answer) = answers.next().await {
        answer.unwrap();
        count += 1;
    }
    Figures { latency: Samples::new(samples), per_second: count as f64 / start.elapsed().as_secs_f64() }
}

/// One call with a body of so many bytes.
pub(crate) async fn call(channel: Channel, bytes: usize) -> Result<Response<SendRequest>, Status> {
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let request = SendRequest { body: body(0, bytes).into(), to: "echo".into(), ..Default::default() };
    let path = http::uri::PathAndQuery::from_static("/bench.Echo/Echo");
    grpc.unary(Request::new(request), path, Codec::default()).await
}

/// The service, as tonic's generated code would be.
#[derive(Clone)]
struct Echo;

impl NamedService for Echo {
    const NAME: &'static str = "bench.Echo";
}

impl Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move { Ok(tonic::server::Grpc::new(Codec::default()).unary(Repeat, request).await) })
    }
}

struct Repeat;

impl Service<Request<SendRequest>> for Repeat {
    type Response = Response<SendRequest>;
    type Error = Status;
    type Future = std::future::Ready<Result<Self::Response, Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<SendRequest>) -> Self::Future {
        std::future::ready(Ok(Response::new(request.into_inner())))
    }
}
