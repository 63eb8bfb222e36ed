//! Ports behind links: what a visitor and a node can do to each other, and what they cannot. The node is played here; the way from tool to port
//! is in the scenarios.

use futures::StreamExt as _;
use murmur_core::reason::Reason;
use murmur_proto::{
    tunnel::{FRAMES_MAX, carry},
    v1::{self, tunnel_frame::Item, watch_orders_response::Item as Order},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    net::TcpStream,
    sync::mpsc,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status};

use crate::{
    agents::{Runner, facts},
    raw::{Answer, exchange},
    world::{AgentKit, Owner, World, field, next, reason},
};

struct Stage {
    world: World,
    owner: Owner,
    runner: Runner,
    agent: AgentKit,
}

impl Stage {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut murmur_server::config::Config)) -> Self {
        let world = World::with(change).await;
        let owner = world.workspace("acme").await;
        let runner = Runner::start(&world, &owner, 7, facts(4)).await;
        let agent = runner.node.agent(&world, "alice").await;
        Self { world, owner, runner, agent }
    }

    async fn open(&self, port: u32) -> Result<v1::OpenTunnelResponse, Status> {
        let request = v1::OpenTunnelRequest { agent_id: self.agent.id.to_string(), port };
        self.runner.node.client(&self.world).tunnels.open_tunnel(request).await.map(Response::into_inner)
    }

    /// Host and port of a tunnel's URL.
    async fn host(&self) -> String {
        let url = self.open(8080).await.unwrap().url;
        url.strip_prefix("http://").unwrap().trim_end_matches('/').to_owned()
    }

    async fn wanted(&mut self) -> v1::TunnelWanted {
        match next(&mut self.runner.orders).await.item.unwrap() {
            Order::TunnelWanted(wanted) => wanted,
            other => panic!("a visitor was expected, got {other:?}"),
        }
    }

    /// Answers the next visitor, as the node does: what is returned is the port's side.
    async fn answer(&mut self) -> DuplexStream {
        let wanted = self.wanted().await;
        let (port, inner) = duplex(64 * 1024);
        let (out, mut heard) = self.connection(&wanted, "").await;
        tokio::spawn(async move {
            let frames = async_frames(&mut heard);
            drop(carry(inner, frames, out).await);
        });
        port
    }

    async fn connection(
        &self,
        wanted: &v1::TunnelWanted,
        refused: &str,
    ) -> (mpsc::Sender<v1::TunnelFrame>, tonic::Streaming<v1::OpenConnectionResponse>) {
        let (out, frames) = mpsc::channel(FRAMES_MAX);
        let opened = v1::TunnelOpened { connection_id: wanted.connection_id.clone(), refused: refused.to_owned() };
        out.send(v1::TunnelFrame { item: Some(Item::Opened(opened)) }).await.unwrap();
        let frames = ReceiverStream::new(frames).map(|frame| v1::OpenConnectionRequest { frame: Some(frame) });
        let mut client = self.runner.node.client(&self.world).tunnels;
        (out, client.open_connection(frames).await.unwrap().into_inner())
    }
}

fn async_frames(
    heard: &mut tonic::Streaming<v1::OpenConnectionResponse>,
) -> impl futures::Stream<Item = Result<v1::TunnelFrame, Status>> + Unpin + '_ {
    heard.map(|answer| answer.map(|answer| answer.frame.unwrap_or_default()))
}

/// Reads a request's head, and as much of a body as it announces.
async fn read_request(port: &mut DuplexStream) -> (String, Vec<u8>) {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        assert_ne!(port.read_buf(&mut bytes).await.unwrap(), 0, "{}", String::from_utf8_lossy(&bytes));
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let length = head
        .to_ascii_lowercase()
        .split("content-length: ")
        .nth(1)
        .map_or(0, |rest| rest.split("\r\n").next().unwrap().parse().unwrap());
    let mut body = bytes[end..].to_vec();
    while body.len() < length {
        assert_ne!(port.read_buf(&mut body).await.unwrap(), 0);
    }
    (head, body)
}

/// A visit that the port answers with these bytes: what the visitor got, and what the port was sent.
async fn visit(stage: &mut Stage, request: &str, response: &str) -> (Answer, String, Vec<u8>) {
    let address = stage.world.app.address;
    let request = request.to_owned();
    let visitor = tokio::spawn(async move {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        crate::raw::parse(&bytes)
    });
    let mut port = stage.answer().await;
    let (head, body) = read_request(&mut port).await;
    port.write_all(response.as_bytes()).await.unwrap();
    port.shutdown().await.unwrap();
    (visitor.await.unwrap(), head, body)
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";

#[tokio::test]
async fn a_visit_reaches_the_port_and_its_answer_the_visitor() {
    let mut stage = Stage::new().await;
    let host = stage.host().await;
    let request =
        format!("POST /a/b?c=d%20e HTTP/1.1\r\nhost: {host}\r\ncontent-length: 3\r\nconnection: close\r\n\r\nabc");
    let response = "HTTP/1.1 201 Created\r\nlocation: /x\r\nset-cookie: a=b; Domain=localhost\r\ntransfer-encoding: chunked\r\n\r\n3\r\nyes\r\n0\r\n\r\n";
    let (answer, head, body) = visit(&mut stage, &request, response).await;
    assert!(head.starts_with("POST /a/b?c=d%20e HTTP/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("host: {host}\r\n")), "{head}");
    assert!(head.contains("x-forwarded-for: 127.0.0.1\r\n") && head.contains("x-forwarded-proto: http\r\n"), "{head}");
    assert_eq!(body, b"abc");
    assert_eq!((answer.status, answer.header("location"), answer.header("set-cookie")), (201, "/x", "a=b"));
    assert!(answer.text().contains("yes"), "{}", answer.text());
}

#[tokio::test]
async fn a_port_that_speaks_an_older_http_is_shown_in_the_visitors() {
    let mut stage = Stage::new().await;
    let address = stage.world.app.address;
    let request = format!("GET / HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", stage.host().await);
    let visitor = tokio::spawn(async move {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    });
    let mut port = stage.answer().await;
    read_request(&mut port).await;
    port.write_all(b"HTTP/1.0 200 OK\r\n\r\nuntil it ends").await.unwrap();
    port.shutdown().await.unwrap();
    let answer = visitor.await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("until it ends"), "{answer}");
}

#[tokio::test]
async fn the_same_port_keeps_its_url_and_another_has_another() {
    let mut stage = Stage::new().await;
    let [one, again, other] =
        [stage.open(80).await.unwrap(), stage.open(80).await.unwrap(), stage.open(81).await.unwrap()];
    assert_eq!(one.url, again.url);
    assert_ne!(one.url, other.url);
    assert_eq!(one.tunnel_id.len(), 32);
    for port in [0, 65_536, u32::MAX] {
        assert_eq!(field(stage.open(port).await), "port");
    }
    for port in 100..130 {
        stage.open(port).await.unwrap();
    }
    assert_eq!(reason(stage.open(131).await), Reason::TunnelLimit);
    stage.agent = stage.runner.node.agent(&stage.world, "bob").await;
    assert_ne!(stage.open(80).await.unwrap().url, one.url);
}

#[tokio::test]
async fn nobody_but_the_agents_own_node_opens_its_ports() {
    let stage = Stage::new().await;
    let request = v1::OpenTunnelRequest { agent_id: stage.agent.id.to_string(), port: 80 };
    let stranger = stage.world.node(&stage.owner, "jdoe", 8).await;
    let refused = stranger.client(&stage.world).tunnels.open_tunnel(request.clone()).await;
    assert_eq!(reason(refused), Reason::AgentNotFound);
    let person = stage.world.person(&stage.owner, "jdoe").await.tunnels.open_tunnel(request).await;
    assert_eq!(reason(person), Reason::ScopeMissing);
}

#[tokio::test]
async fn a_tunnel_ends_with_its_agent_and_so_do_its_connections() {
    let mut stage = Stage::new().await;
    let host = stage.host().await;
    let get = format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    let address = stage.world.app.address;
    let mut open = TcpStream::connect(address).await.unwrap();
    open.write_all(get.as_bytes()).await.unwrap();
    let mut port = stage.answer().await;
    read_request(&mut port).await;
    port.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nbegun").await.unwrap();
    let mut begun = vec![0; 12];
    open.read_exact(&mut begun).await.unwrap();
    assert_eq!(begun, b"HTTP/1.1 200");

    let request = v1::DeregisterAgentRequest { agent_id: stage.agent.id.to_string() };
    stage.runner.node.client(&stage.world).directory.deregister_agent(request).await.unwrap();
    let mut rest = Vec::new();
    // Cut off before all of it came, whichever way the kernel tells it.
    let _ = open.read_to_end(&mut rest).await;
    assert!(!String::from_utf8_lossy(&rest).contains(&"x".repeat(10)));
    let answer = exchange(&stage.world, get.as_bytes()).await;
    assert_eq!(answer.status, 404, "{}", answer.text());
    assert_eq!(reason(stage.open(8080).await), Reason::AgentNotFound);
}

#[tokio::test]
async fn hosts_that_do_not_name_one_live_tunnel_lead_nowhere() {
    let stage = Stage::new().await;
    let host = stage.host().await;
    let (key, domain) = host.split_once('.').unwrap();
    let other = "0".repeat(32);
    for (headers, status) in [
        (format!("host: {other}.{domain}\r\n"), 404),
        (format!("host: x.{domain}\r\n"), 404),
        (format!("host: a.{host}\r\n"), 404),
        (format!("host: {host}\r\nhost: 127.0.0.1\r\n"), 400),
        (format!("host: 127.0.0.1\r\nhost: {host}\r\n"), 400),
    ] {
        let request = format!("GET /metrics HTTP/1.1\r\n{headers}connection: close\r\n\r\n");
        let answer = exchange(&stage.world, request.as_bytes()).await;
        assert_eq!(answer.status, status, "{headers}: {}", answer.text());
        assert!(!answer.text().contains("murmur_"), "no page of the control plane's own");
    }
    let absolute = format!("GET http://{host}/ HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n");
    assert_eq!(exchange(&stage.world, absolute.as_bytes()).await.status, 400);
    let connect = format!("CONNECT {host} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    assert_eq!(exchange(&stage.world, connect.as_bytes()).await.status, 405);
    let by_path = format!("GET /t/{key}/ HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n");
    let answer = exchange(&stage.world, by_path.as_bytes()).await;
    assert!(!answer.text().contains("hello"), "with a domain there is no path form");
}

#[tokio::test]
async fn what_is_for_one_hop_does_not_go_on() {
    let mut stage = Stage::new().await;
    let host = stage.host().await;
    let request = format!(
        "GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close, x-mine\r\nx-mine: 1\r\nte: trailers\r\nkeep-alive: 5\r\nproxy-authorization: x\r\n\
         upgrade: h2c\r\nx-forwarded-for: 6.6.6.6\r\nforwarded: for=6.6.6.6\r\nmurmur-as: user\r\naccept: */*\r\n\r\n"
    );
    let response = "HTTP/1.1 200 OK\r\nconnection: x-theirs\r\nx-theirs: 1\r\nproxy-authenticate: x\r\nkeep-alive: 5\r\nx-kept: 1\r\ncontent-length: 0\r\n\r\n";
    let (answer, head, _) = visit(&mut stage, &request, response).await;
    for gone in ["x-mine", "te:", "keep-alive", "proxy-", "upgrade", "6.6.6.6", "forwarded: for", "murmur-"] {
        assert!(!head.contains(gone), "{gone} in {head}");
    }
    assert!(head.contains("accept: */*"));
    for gone in ["x-theirs", "proxy-authenticate", "keep-alive"] {
        assert!(answer.headers.iter().all(|(name, _)| name != gone), "{gone} in {:?}", answer.headers);
    }
    assert_eq!(answer.header("x-kept"), "1");
}

#[tokio::test]
async fn a_request_cannot_be_smuggled_behind_another() {
    let mut stage = Stage::new().await;
    let host = stage.host().await;
    let smuggled = format!("GET /admin HTTP/1.1\r\nhost: {host}\r\n\r\n");
    // Both lengths: the chunks are the body, and nothing behind them is a request to the port.
    let request = format!(
        "POST / HTTP/1.1\r\nhost: {host}\r\ncontent-length: {}\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n0\r\n\r\n{smuggled}",
        smuggled.len() + 5
    );
    let address = stage.world.app.address;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut refused = Vec::new();
    tokio::select! {
        read = stream.read_to_end(&mut refused) => {
            read.unwrap();
            assert!(refused.starts_with(b"HTTP/1.1 400"), "{}", String::from_utf8_lossy(&refused));
        }
        mut port = stage.answer() => {
            port.write_all(OK.as_bytes()).await.unwrap();
            port.shutdown().await.unwrap();
            let mut all = Vec::new();
            port.read_to_end(&mut all).await.unwrap();
            assert!(!String::from_utf8_lossy(&all).contains("/admin"), "{}", String::from_utf8_lossy(&all));
        }
    }
    for bad in [
        "transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n",
        "transfer-encoding: xchunked\r\n",
        "content-length: 5\r\ncontent-length: 6\r\n",
        "content-length: +5\r\n",
        "content-length: 5, 6\r\n",
    ] {
        let request = format!("POST / HTTP/1.1\r\nhost: {host}\r\n{bad}connection: close\r\n\r\nhello{smuggled}");
        let answer = exchange(&stage.world, request.as_bytes()).await;
        assert_eq!(answer.status, 400, "{bad}");
    }
}

#[tokio::test]
async fn an_answer_that_is_none_is_told_as_one() {
    let mut stage = Stage::new().await;
    let host = stage.host().await;
    let get = format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    for response in [
        "",
        "SSH-2.0-x\r\n",
        "HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
        "HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
    ] {
        let (answer, _, _) = visit(&mut stage, &get, response).await;
        assert_eq!(answer.status, 502, "{response}");
    }
    let address = stage.world.app.address;
    let visitor = tokio::spawn(async move {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(get.as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        crate::raw::parse(&bytes)
    });
    let wanted = stage.wanted().await;
    let _silent = stage.connection(&wanted, "Connection refused\r\nx: y").await;
    let answer = visitor.await.unwrap();
    assert_eq!((answer.status, answer.text().contains("Connection refusedx: y")), (502, true), "{}", answer.text());
}

#[tokio::test]
async fn a_websocket_passes_through() {
    let mut stage = Stage::new().await;
    let host = stage.host().await;
    let mut visitor = TcpStream::connect(stage.world.app.address).await.unwrap();
    let request = format!(
        "GET /ws HTTP/1.1\r\nhost: {host}\r\nconnection: keep-alive, Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    visitor.write_all(request.as_bytes()).await.unwrap();
    let mut port = stage.answer().await;
    let (head, _) = read_request(&mut port).await;
    assert!(head.contains("upgrade: websocket") && head.contains("sec-websocket-key: dGhl"), "{head}");
    port.write_all(b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: x\r\n\r\n").await.unwrap();
    let mut said = Vec::new();
    while !said.ends_with(b"\r\n\r\n") {
        visitor.read_buf(&mut said).await.unwrap();
    }
    assert!(said.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&said));
    visitor.write_all(b"\x81\x05hello").await.unwrap();
    let mut got = [0; 7];
    port.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"\x81\x05hello");
    port.write_all(b"\x81\x03bye").await.unwrap();
    let mut back = [0; 5];
    visitor.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"\x81\x03bye");
    drop(port);
    let mut rest = Vec::new();
    visitor.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty());
}

#[tokio::test]
async fn a_visitor_who_reads_nothing_holds_up_nobody() {
    let mut stage = Stage::new().await;
    let host = stage.host().await;
    let get = format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    let mut slow = Vec::new();
    for _ in 0..8 {
        let mut stream = TcpStream::connect(stage.world.app.address).await.unwrap();
        stream.write_all(get.as_bytes()).await.unwrap();
        let mut port = stage.answer().await;
        read_request(&mut port).await;
        port.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n").await.unwrap();
        let writing = tokio::spawn(async move {
            // As much as it is let, which is far less than all of it.
            while port.write_all(&[7; 16 * 1024]).await.is_ok() {}
        });
        slow.push((stream, writing));
    }
    let (answer, _, _) = visit(&mut stage, &get, OK).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "hello"));
    for (stream, writing) in slow {
        assert!(!writing.is_finished());
        drop(stream);
        writing.await.unwrap();
    }
}

#[tokio::test]
async fn a_huge_body_flows_through_a_small_window() {
    let mut stage = Stage::new().await;
    let host = stage.host().await;
    let length = 20_000_000;
    let mut visitor = TcpStream::connect(stage.world.app.address).await.unwrap();
    let head = format!("PUT /big HTTP/1.1\r\nhost: {host}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
    let sending = tokio::spawn(async move {
        visitor.write_all(head.as_bytes()).await.unwrap();
        for _ in 0..length / 10_000 {
            visitor.write_all(&[7; 10_000]).await.unwrap();
        }
        let mut bytes = Vec::new();
        visitor.read_to_end(&mut bytes).await.unwrap();
        crate::raw::parse(&bytes)
    });
    let mut port = stage.answer().await;
    let (_, body) = read_request(&mut port).await;
    assert_eq!(body.len(), length);
    port.write_all(OK.as_bytes()).await.unwrap();
    port.shutdown().await.unwrap();
    assert_eq!(sending.await.unwrap().text(), "hello");
}

#[tokio::test]
async fn without_a_domain_a_tunnel_is_a_path_in_a_sandbox() {
    let mut stage = Stage::with(|config| config.public_url = Some("https://murmur.example.org".to_owned())).await;
    let opened = stage.open(8080).await.unwrap();
    let path = opened.url.strip_prefix("https://murmur.example.org").unwrap().to_owned();
    assert_eq!(path, format!("/t/{}/", opened.tunnel_id));
    let request = format!(
        "GET {path}x/y?z HTTP/1.1\r\nhost: murmur.example.org\r\ncookie: session=secret\r\nconnection: close\r\n\r\n"
    );
    let response = "HTTP/1.1 302 Found\r\nlocation: /next\r\nset-cookie: session=theirs\r\ncontent-length: 0\r\n\r\n";
    let (answer, head, _) = visit(&mut stage, &request, response).await;
    assert!(head.starts_with("GET /x/y?z HTTP/1.1\r\n") && !head.contains("secret"), "{head}");
    assert_eq!(answer.header("location"), format!("{path}next"));
    assert!(answer.header("content-security-policy").starts_with("sandbox"));
    assert!(answer.headers.iter().all(|(name, _)| name != "set-cookie"));
    for wrong in ["/t/", "/t/x/", &format!("/t/{}/", "0".repeat(32)), &path.to_uppercase()] {
        let request = format!("GET {wrong} HTTP/1.1\r\nhost: murmur.example.org\r\nconnection: close\r\n\r\n");
        let answer = exchange(&stage.world, request.as_bytes()).await;
        assert!(answer.status == 404 || answer.headers.iter().any(|(name, _)| name == "grpc-status"), "{wrong}");
    }
}
