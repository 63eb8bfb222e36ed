//! What is beside our services on the port: health, reflection, metrics, TLS.

use std::{path::PathBuf, sync::Arc};

use murmur_proto::{
    client::{ControlClient, Headers, connect_server, server_channel},
    v1,
};
use murmur_server::{app::App, clock::Clock, config::Config, lifecycle::Lifecycle};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use crate::world::World;

/// A plain HTTP/1.1 GET.
async fn get(mut stream: impl AsyncRead + AsyncWrite + Unpin, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

pub(crate) async fn page(world: &World, path: &str) -> String {
    get(TcpStream::connect(world.app.address).await.unwrap(), path).await
}

#[tokio::test]
async fn health_is_told_both_ways() {
    let world = World::start().await;
    assert!(page(&world, "/healthz").await.starts_with("HTTP/1.1 200"));
    assert!(page(&world, "/readyz").await.starts_with("HTTP/1.1 200"));
    let mut health = HealthClient::new(server_channel(&world.url(""), None).unwrap());
    let answer = health.check(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(answer.status(), ServingStatus::Serving);
}

#[tokio::test]
async fn a_lost_broker_shows() {
    let dir = tempfile::tempdir().unwrap();
    let options = murmur_server::broker::InitOptions {
        listen: "127.0.0.1:0".parse().unwrap(),
        http: None,
        site: "local".parse().unwrap(),
        domain: None,
        sync_always: false,
        max_bytes: std::num::NonZeroU64::MIN,
        tls: None,
        ports_file_dir: None,
    };
    murmur_server::broker::init(dir.path(), &options, 0).unwrap();
    // Port 1 of loopback: nobody listens there.
    let world = World::with(|config| {
        config.broker_dir = Some(dir.path().to_owned());
        config.broker_url = "nats://127.0.0.1:1".into();
    })
    .await;
    let answer = page(&world, "/readyz").await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("retry-after: 1"), "{answer}");
    world.workspace("acme").await;
}

#[tokio::test]
async fn metrics_count_what_happened() {
    let world = World::start().await;
    let owner = world.workspace("acme").await;
    let node = world.node(&owner, "jdoe", 1).await;
    node.agent(&world, "alice").await;
    let text = page(&world, "/metrics").await;
    for line in [
        "murmur_server_agents 1",
        "murmur_server_nodes{presence=\"offline\"} 1",
        "murmur_server_rpc_calls_total{method=\"murmur.v1.DirectoryService/RegisterAgent\",code=\"OK\"} 1",
    ] {
        assert!(text.contains(line), "no `{line}` in\n{text}");
    }
}

#[tokio::test]
async fn reflection_describes_our_services() {
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };
    let world = World::start().await;
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut client = ServerReflectionClient::new(server_channel(&world.url(""), None).unwrap());
    let mut answers = client.server_reflection_info(tokio_stream::once(request)).await.unwrap().into_inner();
    let Some(MessageResponse::ListServicesResponse(list)) = crate::world::next(&mut answers).await.message_response
    else {
        panic!("no list of services")
    };
    assert!(list.service.iter().any(|service| service.name == "murmur.v1.NodeService"));
}

#[tokio::test]
async fn what_is_not_there_is_not_found_and_an_unknown_call_is_unimplemented() {
    let world = World::start().await;
    for path in ["/", "/nothing", "/dashboard/x?y=z", "/murmur.v1.NoService/Nothing"] {
        let answer = page(&world, path).await;
        assert!(answer.starts_with("HTTP/1.1 404"), "{path}: {answer}");
    }
    let answer = page(&world, "/murmur.v1.AuthService/WhoAmI").await;
    assert!(answer.starts_with("HTTP/1.1 415"), "{answer}");
    let call = "POST /murmur.v1.NoService/Nothing HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/grpc\r\n\
                content-length: 0\r\nconnection: close\r\n\r\n";
    let unknown = crate::raw::exchange(&world, call.as_bytes()).await;
    assert_eq!((unknown.status, unknown.header("grpc-status")), (200, "12"));
}

#[tokio::test]
async fn an_open_address_without_tls_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { listen: "0.0.0.0:0".parse().unwrap(), ..Config::local(dir.path().to_owned()) };
    let error = App::start(config, Clock::system(), Lifecycle::new()).await.err().unwrap().to_string();
    assert!(error.contains("tls_cert") && error.contains("tls_key"), "{error}");
}

#[tokio::test]
async fn tls_serves_grpc_and_http_on_one_port() {
    // The test's own client needs a provider, too.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (cert, key): (PathBuf, PathBuf) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let files = (Some(cert.clone()), Some(key.clone()));
    let world = World::with(|config| (config.tls_cert, config.tls_key) = files).await;

    let url = format!("https://localhost:{}", world.app.address.port());
    let token = std::fs::read_to_string(world.data("admin.token")).unwrap();
    let channel = connect_server(&url, Some(&made.cert.pem())).await.unwrap();
    let mut client = ControlClient::new(channel, Headers::new().with_token(token.trim()).unwrap());
    client.auth.who_am_i(v1::WhoAmIRequest {}).await.unwrap();

    let before = made.cert.pem();
    assert!(get(connect_tls(&world, &before).await.unwrap(), "/healthz").await.starts_with("HTTP/1.1 200"));

    // Renewed while it runs, one file after the other; half a renewal changes nothing.
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(&cert, made.cert.pem()).unwrap();
    connect_tls(&world, &before).await.unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let stream = connect_tls(&world, &made.cert.pem()).await.unwrap();
    assert!(get(stream, "/healthz").await.starts_with("HTTP/1.1 200"));
    assert!(connect_tls(&world, &before).await.is_err(), "the old one is not shown any more");
    // What was connected goes on.
    client.auth.who_am_i(v1::WhoAmIRequest {}).await.unwrap();
}

async fn connect_tls(world: &World, root: &str) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(root.as_bytes()).unwrap()).unwrap();
    let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let socket = TcpStream::connect(world.app.address).await.unwrap();
    connector.connect(ServerName::try_from("localhost").unwrap(), socket).await
}
