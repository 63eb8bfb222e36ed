//! Thousands of wrong requests at every door: nobody dies, every answer is a proper one, and the next good call works.
//!
//! Everything is drawn from a seed; `MURMUR_HOSTILE_SEED` chooses another, `MURMUR_HOSTILE_INPUTS` more of them.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc,
};

use murmur_proto::{
    FILE_DESCRIPTOR_SET,
    client::{Headers, connect_server, connect_socket},
    node::v1::GetStatusRequest,
    v1,
};
use murmur_tests::{network::Network, process::binary, wait::PATIENCE};
use prost_reflect::{
    Cardinality, DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MethodDescriptor, ReflectMessage as _, Value,
    prost::Message as _,
};
use serde_json::json;
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    service::interceptor::InterceptedService,
    transport::Channel,
};

fn number_of(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

struct Random(u64);

impl Random {
    fn seeded() -> Self {
        let seed = number_of("MURMUR_HOSTILE_SEED", 7);
        println!("MURMUR_HOSTILE_SEED={seed}");
        Self(seed)
    }

    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % n.max(1) as u64).unwrap()
    }

    fn of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())].clone()
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| u8::try_from(self.below(256)).unwrap()).collect()
    }

    fn text(&mut self) -> String {
        let long = "x".repeat(70_000);
        let known = ["", "alice", "bob", "self", "/w/acme/u/jdoe/alice", "/w/acme/u/jdoe/bob", "acme", "jdoe", "here"];
        let odd = [
            "../..",
            "./a",
            "/",
            "//",
            "/w//u//",
            "a\0b",
            "\u{202e}evil",
            "</channel>",
            "日本",
            "*",
            ">",
            "'; --",
            "%s",
            "mmt_admin_00000000000000000000000000_x",
            "00000000-0000-0000-0000-000000000000",
            "99999999999999999999",
            "0".repeat(32).as_str(),
            long.as_str(),
        ]
        .map(str::to_owned);
        if self.below(2) == 0 { self.of(&known).to_owned() } else { self.of(&odd) }
    }

    fn mutated(&mut self, mut bytes: Vec<u8>) -> Vec<u8> {
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len() + 1);
            match self.below(4) {
                0 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                1 => bytes.truncate(at),
                2 => {
                    let more = self.bytes(5);
                    bytes.splice(at..at, more);
                }
                // A length that is not there.
                _ => bytes.splice(at..at, [0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f]).for_each(drop),
            }
        }
        bytes
    }
}

// === gRPC ===

/// Requests and answers as bytes.
#[derive(Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        bytes::BufMut::put_slice(buffer, &item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let length = bytes::Buf::remaining(buffer);
        let mut bytes = vec![0; length];
        bytes::Buf::copy_to_slice(buffer, &mut bytes);
        Ok(Some(bytes))
    }
}

/// A message with some fields set to what a stranger might put there.
fn filled(random: &mut Random, mut message: DynamicMessage, depth: usize) -> DynamicMessage {
    for field in message.descriptor().fields() {
        if random.below(3) == 0 {
            continue;
        }
        let value = match field.cardinality() {
            Cardinality::Repeated if field.is_map() => continue,
            Cardinality::Repeated => {
                // Many in many in many would keep this process busy with making them, and its connection unanswered.
                let count = random.of(&[0, 1, 2, 2, if depth == 0 { 300 } else { 3 }]);
                Value::List((0..count).filter_map(|_| value(random, &field, depth)).collect())
            }
            _ => match value(random, &field, depth) {
                Some(value) => value,
                None => continue,
            },
        };
        message.set_field(&field, value);
    }
    message
}

fn value(random: &mut Random, field: &FieldDescriptor, depth: usize) -> Option<Value> {
    let number =
        random.of(&[0, 1, 2, 5, 50, 1000, 1001, 604_800, 604_801, i64::from(i32::MAX), i64::MAX, -1, i64::MIN]);
    let narrow = i32::try_from(number).unwrap_or(i32::MIN);
    Some(match field.kind() {
        Kind::String => Value::String(random.text()),
        Kind::Bytes => {
            let length = random.of(&[0, 1, 8, 16, 32, 32, 64, 200_000]);
            Value::Bytes(random.bytes(length).into())
        }
        Kind::Bool => Value::Bool(random.below(2) == 0),
        Kind::Enum(_) => Value::EnumNumber(random.of(&[0, 1, 2, 3, 4, -1, i32::MAX])),
        Kind::Message(message) if depth < 4 => Value::Message(filled(random, DynamicMessage::new(message), depth + 1)),
        Kind::Message(_) => return None,
        Kind::Double => Value::F64(f64::NAN),
        Kind::Float => Value::F32(f32::INFINITY),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(narrow),
        Kind::Uint32 | Kind::Fixed32 => Value::U32(narrow.cast_unsigned()),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(number),
        Kind::Uint64 | Kind::Fixed64 => Value::U64(number.cast_unsigned()),
    })
}

fn hostile(random: &mut Random, method: &MethodDescriptor) -> Vec<u8> {
    let good = filled(random, DynamicMessage::new(method.input()), 0).encode_to_vec();
    match random.below(6) {
        0 => {
            let length = random.of(&[1, 20, 300]);
            random.bytes(length)
        }
        1 | 2 => random.mutated(good),
        _ => good,
    }
}

/// What a door may answer to a stranger. An undecodable message is the library's own INTERNAL, and says so.
fn is_proper(status: &Status) -> bool {
    match status.code() {
        Code::Internal => status.message().contains("decode") || status.message().contains("Protobuf"),
        Code::Unknown | Code::DataLoss | Code::Unavailable | Code::Cancelled => false,
        _ => true,
    }
}

/// Whether the connection ended, and the door has said nothing.
fn is_of_transport(status: &Status) -> bool {
    std::error::Error::source(status).is_some_and(|source| source.is::<tonic::transport::Error>())
}

/// Calls one method with these bytes and gives its first word.
async fn call(
    channel: &InterceptedService<Channel, Headers>,
    method: &MethodDescriptor,
    body: Vec<u8>,
) -> Option<Status> {
    let mut grpc = Grpc::new(channel.clone()).max_decoding_message_size(64 << 20);
    grpc.ready().await.expect("the door is open");
    let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
    let request = Request::new(tokio_stream::once(body));
    match grpc.streaming(request, path.parse().unwrap(), Raw).await {
        Err(status) => Some(status),
        // A stream that was opened may rightly say nothing for hours.
        Ok(_) if method.is_server_streaming() => None,
        Ok(answer) => answer.into_inner().message().await.err(),
    }
}

fn methods(package: &str) -> Vec<MethodDescriptor> {
    let pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET).unwrap();
    let services = pool.services().filter(|service| service.full_name().starts_with(package)).collect::<Vec<_>>();
    services.iter().flat_map(|service| service.methods().collect::<Vec<_>>()).collect()
}

const BODY_BYTES_MAX: usize = 1024 * 1024;

/// Feeds every method of a package; `channels` share the load, as each has a rate of its own.
async fn feed(random: &mut Random, package: &str, channels: &[InterceptedService<Channel, Headers>]) {
    let methods = methods(package);
    assert!(methods.len() > 10, "the contract is empty");
    let mut spoken = 0_usize;
    for round in 0..number_of("MURMUR_HOSTILE_INPUTS", 60) {
        for method in &methods {
            let body = hostile(random, method);
            // What is longer is refused while it is still being sent, which this client takes for a broken connection.
            if body.len() > BODY_BYTES_MAX {
                continue;
            }
            let channel = &channels[usize::try_from(round).unwrap() % channels.len()];
            let mut answer = call(channel, method, body.clone()).await;
            // A connection on which 1,024 calls were answered before they were sent whole is ended by the server's HTTP/2 library, calmly
            // (too_many_internal_resets), whether the client was about to call or had called. The next one has an answer.
            if answer.as_ref().is_some_and(is_of_transport) {
                answer = call(channel, method, body.clone()).await;
            }
            if let Some(status) = answer {
                assert!(is_proper(&status), "{} to {}: {status:?}", hex::encode(&body), method.full_name());
                spoken += usize::from(status.code() == Code::InvalidArgument || status.code() == Code::NotFound);
            }
        }
    }
    assert!(spoken > 100, "hardly anything reached the rooms behind the door: {spoken}");
}

fn no_panic(name: &str, output: &str) {
    assert!(!output.contains("panicked at"), "{name} panicked:\n{output}");
}

#[tokio::test]
async fn a_node_answers_every_wrong_request_properly() {
    let network = Network::start().await;
    let mut node = network.node("here", "jdoe").await;
    let mut random = Random::seeded();
    let socket = connect_socket(&node.socket).await.unwrap();
    let channel = InterceptedService::new(socket, Headers::new());
    feed(&mut random, "murmur.node.v1", &[channel]).await;
    assert!(node.process.is_running(), "the node died");
    no_panic("the node", &node.process.output());
    node.client().await.host.get_status(GetStatusRequest {}).await.unwrap();
    let (alice, bob) = (node.shim("first").await, node.shim("second").await);
    bob.ok("register", json!({})).await;
    alice.ok("send", json!({"to": "second", "text": "still here"})).await;
}

#[tokio::test]
async fn a_control_plane_answers_every_wrong_request_properly() {
    let mut network = Network::start().await;
    let mut random = Random::seeded();
    let channel = connect_server(&network.server_url, None).await.unwrap();
    let mut channels = Vec::new();
    for n in 0..20 {
        use v1::Scope::{DirectoryPublish, DirectoryRead, NodesEnroll, TokensIssue};
        let request = v1::IssueTokenRequest {
            kind: v1::TokenKind::User.into(),
            scopes: [DirectoryPublish, DirectoryRead, NodesEnroll, TokensIssue].map(i32::from).to_vec(),
            workspace: "acme".to_owned(),
            account: "jdoe".to_owned(),
            label: format!("hostile-{n}"),
            ..Default::default()
        };
        let token = network.admin().await.auth.issue_token(request).await.unwrap().into_inner().token;
        channels.push(InterceptedService::new(channel.clone(), Headers::new().with_token(&token).unwrap()));
    }
    feed(&mut random, "murmur.v1", &channels).await;
    assert!(network.server.is_running(), "the control plane died");
    no_panic("the control plane", &network.server.output());
    network.ready().await;
    network.admin().await.auth.who_am_i(v1::WhoAmIRequest {}).await.unwrap();
    network.node("after", "jdoe").await;
}

// === MCP ===

struct Shim {
    child: Child,
    stdin: ChildStdin,
    /// What it says, line by line; read at all times, or both ends would wait for each other.
    lines: mpsc::Receiver<String>,
    asked: u64,
}

impl Shim {
    fn start(socket: &std::path::Path) -> Self {
        let mut child = Command::new(binary("murmur-mcp"))
            .args(["--agent", "mcp"])
            .arg("--socket")
            .arg(socket)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let mut shim = Self { child, stdin, lines, asked: 1_000_000 };
        let client =
            json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
        shim.ask("initialize", &client);
        shim.write(json!({"jsonrpc": "2.0", "method": "notifications/initialized"}).to_string().as_bytes());
        shim
    }

    fn write(&mut self, line: &[u8]) {
        self.stdin.write_all(&[line, b"\n"].concat()).expect("the shim listens");
    }

    /// Asks, and reads on to the answer; every line before it is JSON-RPC too.
    fn ask(&mut self, method: &str, params: &serde_json::Value) -> serde_json::Value {
        self.asked += 1;
        let id = self.asked;
        self.write(json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string().as_bytes());
        loop {
            let line = self.lines.recv_timeout(PATIENCE).expect("the shim answers");
            let answer: serde_json::Value = serde_json::from_str(&line).expect("a line of JSON");
            assert_eq!(answer["jsonrpc"], "2.0", "{line}");
            if answer["id"] == id {
                return answer;
            }
        }
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A line that a broken client might write.
fn line(random: &mut Random) -> Vec<u8> {
    let tool = random.of(&["send", "request", "inbox", "peers", "register", "deregister", "version", "nothing", ""]);
    let field = random.of(&["to", "text", "in_reply_to", "limit", "timeout_seconds", "name", "__proto__"]);
    let value = match random.below(8) {
        0 => json!(null),
        1 => json!(-1),
        2 => json!(1e308),
        3 => json!(u64::MAX),
        4 => json!([[], {}, [0]]),
        5 => json!({"a": {"b": "c"}}),
        _ => json!(random.text()),
    };
    let mut arguments = json!({"to": "mcp", "text": "x"});
    arguments[field] = value.clone();
    let id = random.of(&[json!(1), json!("a"), json!(null), json!(-5), json!(1.5), json!([1]), json!({})]);
    let whole =
        json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": tool, "arguments": arguments}});
    match random.below(14) {
        0 => random.mutated(whole.to_string().into_bytes()).into_iter().filter(|byte| *byte != b'\n').collect(),
        1 => json!({"jsonrpc": "2.0", "id": id, "method": random.text(), "params": value}).to_string().into_bytes(),
        2 => json!({"jsonrpc": "1.0", "method": "tools/call"}).to_string().into_bytes(),
        3 => json!([whole.clone(), whole]).to_string().into_bytes(),
        4 => "[".repeat(20_000).into_bytes(),
        5 => "{\"a\":".repeat(5_000).into_bytes(),
        6 => vec![0xff, 0xfe, 0x00, b'{', b'}'],
        7 => b"\xef\xbb\xbf{}".to_vec(),
        8 => format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"{}\"}}", "m".repeat(200_000)).into_bytes(),
        9 => json!({"jsonrpc": "2.0", "id": id, "result": value}).to_string().into_bytes(),
        10 => json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}})
            .to_string()
            .into_bytes(),
        _ => whole.to_string().into_bytes(),
    }
}

#[tokio::test]
async fn a_shim_outlives_every_wrong_line() {
    let network = Network::start().await;
    let node = network.node("here", "jdoe").await;
    let mut random = Random::seeded();
    let mut shim = Shim::start(&node.socket);
    let wanted = shim.ask("tools/list", &json!({}))["result"]["tools"].clone();
    assert!(wanted.as_array().is_some_and(|tools| !tools.is_empty()), "{wanted}");
    for _ in 0..number_of("MURMUR_HOSTILE_INPUTS", 60) {
        for _ in 0..8 {
            let line = line(&mut random);
            shim.write(&line);
        }
        let tools = shim.ask("tools/list", &json!({}));
        assert_eq!(tools["result"]["tools"], wanted);
    }
    let called = shim.ask("tools/call", &json!({"name": "version", "arguments": {}}));
    assert_eq!(called["result"]["isError"], json!(false), "{called}");
}
