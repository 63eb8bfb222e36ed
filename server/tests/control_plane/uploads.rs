//! Uploaded files: what is taken, what is served, to whom, how long, and how nothing in them can do harm.

use murmur_core::reason::Reason;
use murmur_crypto::hash::sha256;
use murmur_proto::{
    client::ControlClient,
    v1::{self, upload_request::Item},
};
use tonic::Status;

use crate::{
    raw::{exchange, get, path},
    world::{Owner, World, field, reason},
};

const DAY_MS: u64 = 24 * 3600 * 1000;

fn header(filename: &str, content_type: &str, size: usize) -> Item {
    let (filename, content_type) = (filename.to_owned(), content_type.to_owned());
    Item::Header(v1::UploadHeader { filename, content_type, size_bytes: size as u64 })
}

fn end(bytes: &[u8]) -> Item {
    Item::End(v1::UploadEnd { sha256: sha256(bytes).to_vec().into() })
}

async fn send(client: &ControlClient, items: Vec<Item>) -> Result<v1::UploadResponse, Status> {
    let items: Vec<_> = items.into_iter().map(|item| v1::UploadRequest { item: Some(item) }).collect();
    client.clone().uploads.upload(futures::stream::iter(items)).await.map(tonic::Response::into_inner)
}

pub(crate) async fn upload(
    client: &ControlClient,
    filename: &str,
    content_type: &str,
    bytes: &[u8],
) -> v1::UploadResponse {
    let pieces = bytes.chunks(7).map(|piece| Item::Data(piece.to_vec().into()));
    let items = [header(filename, content_type, bytes.len())].into_iter().chain(pieces).chain([end(bytes)]);
    send(client, items.collect()).await.unwrap()
}

async fn ready(world: &World) -> (Owner, ControlClient) {
    let owner = world.workspace("acme").await;
    let person = world.person(&owner, "jdoe").await;
    (owner, person)
}

#[tokio::test]
async fn an_uploaded_file_is_served_to_whoever_has_its_link() {
    let world = World::start().await;
    let (_owner, person) = ready(&world).await;
    let bytes = b"some text\nof a report\n";
    let done = upload(&person, "reports/July.TXT", "text/plain; charset=utf-8", bytes).await;
    assert!(done.url.ends_with(".txt"), "{}", done.url);
    assert_eq!((done.size_bytes, done.sha256.to_vec()), (bytes.len() as u64, sha256(bytes).to_vec()));
    let expected = (world.now_ms() + DAY_MS) / 1000;
    assert_eq!(done.expire_time.unwrap().seconds as u64, expected);

    let answer = get(&world, path(&world, &done.url), "").await;
    assert_eq!((answer.status, answer.body.as_slice()), (200, bytes.as_slice()));
    for (name, value) in [
        ("content-type", "text/plain; charset=utf-8"),
        ("content-disposition", "attachment; filename=\"July.TXT\""),
        ("x-content-type-options", "nosniff"),
        ("content-length", "22"),
        ("accept-ranges", "bytes"),
        ("referrer-policy", "no-referrer"),
    ] {
        assert_eq!(answer.header(name), value);
    }
    assert!(answer.header("content-security-policy").contains("sandbox"));

    let head = format!("HEAD {} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", path(&world, &done.url));
    let head = exchange(&world, head.as_bytes()).await;
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, "22", 0));
    let empty = upload(&person, "empty", "", b"").await;
    let answer = get(&world, path(&world, &empty.url), "").await;
    assert_eq!((answer.status, answer.body.len()), (200, 0));
    assert_eq!(answer.header("content-type"), "application/octet-stream");
}

#[tokio::test]
async fn parts_of_an_uploaded_file_can_be_asked_for() {
    let world = World::start().await;
    let (_owner, person) = ready(&world).await;
    let done = upload(&person, "a.bin", "", b"0123456789").await;
    let at = path(&world, &done.url);
    let part = get(&world, at, "range: bytes=2-4\r\n").await;
    assert_eq!((part.status, part.text().as_str(), part.header("content-range")), (206, "234", "bytes 2-4/10"));
    let tail = get(&world, at, "range: bytes=-1\r\n").await;
    assert_eq!((tail.status, tail.text().as_str()), (206, "9"));
    let none = get(&world, at, "range: bytes=10-\r\n").await;
    assert_eq!((none.status, none.header("content-range"), none.body.len()), (416, "bytes */10", 0));
    let tag = part.header("etag").to_owned();
    assert_eq!(get(&world, at, &format!("if-none-match: {tag}\r\n")).await.status, 304);
    assert_eq!(get(&world, at, &format!("range: bytes=0-0\r\nif-range: {tag}\r\n")).await.status, 206);
    assert_eq!(get(&world, at, "range: bytes=0-0\r\nif-range: \"old\"\r\n").await.status, 200);
}

#[tokio::test]
async fn a_link_ends_with_its_time_and_the_file_with_it() {
    let world = World::start().await;
    let (_owner, person) = ready(&world).await;
    let done = upload(&person, "a.txt", "", b"x").await;
    let at = path(&world, &done.url).to_owned();
    let files = || std::fs::read_dir(world.data("uploads")).unwrap().count();
    assert_eq!((get(&world, &at, "").await.status, files()), (200, 1));
    world.clock.advance(DAY_MS);
    assert_eq!(get(&world, &at, "").await.status, 404);
    // The keeper wakes by its timer.
    while files() > 0 {
        tokio::task::yield_now().await;
    }
    // There is room again, and a restart brings nothing back.
    let world = world.restart().await;
    assert_eq!(get(&world, &at, "").await.status, 404);
}

#[tokio::test]
async fn links_survive_a_restart_and_cannot_be_guessed_or_walked() {
    let world = World::start().await;
    let (_owner, person) = ready(&world).await;
    let [one, two] = [upload(&person, "a.txt", "", b"x").await, upload(&person, "a.txt", "", b"x").await];
    assert_ne!(one.url, two.url, "the same bytes have two links");
    let at = path(&world, &one.url).to_owned();
    let key = &at["/f/".len()..at.len() - ".txt".len()];
    assert_eq!(key.len(), 32);
    let upper = key.to_uppercase();
    for wrong in [
        format!("/f/{key}"),
        format!("/f/{key}.html"),
        format!("/f/{key}.txt/"),
        format!("/f/{upper}.txt"),
        format!("/f/{}.txt", "0".repeat(32)),
        "/f/".to_owned(),
        "/f/..".to_owned(),
        "/f/../server.db".to_owned(),
        "/f/..%2fserver.db".to_owned(),
        "/f/%2e%2e%2f%2e%2e%2fetc%2fpasswd".to_owned(),
        format!("/f/{key}.txt%00"),
        "/f/ä".to_owned(),
    ] {
        let answer = get(&world, &wrong, "").await;
        // What is no page of ours at all is taken for an unknown RPC.
        let is_rpc = answer.headers.iter().any(|(name, value)| name == "grpc-status" && value == "12");
        assert!(matches!(answer.status, 400 | 404) || is_rpc, "{wrong}: {}", answer.status);
        assert_ne!(answer.text(), "x", "{wrong}");
    }
    let world = world.restart().await;
    assert_eq!(get(&world, &at, "").await.text(), "x");
}

#[tokio::test]
async fn a_name_or_type_that_would_break_out_of_its_header_does_not() {
    let world = World::start().await;
    let (_owner, person) = ready(&world).await;
    let done =
        upload(&person, "x\"\r\nSet-Cookie: a=b\r\n\r\n<script>.html", "text/html", b"<script>alert(1)</script>").await;
    let answer = get(&world, path(&world, &done.url), "").await;
    assert_eq!(answer.header("content-disposition"), "attachment; filename=\"x___Set-Cookie__a_b_____script_.html\"");
    assert!(answer.headers.iter().all(|(name, _)| name != "set-cookie"));
    assert!(answer.header("content-security-policy").contains("default-src 'none'"));
    for kind in ["text/html\r\nx: y", "text", "a/b; c=d", "text/ html"] {
        assert_eq!(field(send(&person, vec![header("a", kind, 0), end(b"")]).await), "content_type", "{kind}");
    }
}

#[tokio::test]
async fn what_does_not_match_its_announcement_is_refused_and_leaves_nothing() {
    let world = World::start().await;
    let (_owner, person) = ready(&world).await;
    let data = |text: &'static str| Item::Data(text.as_bytes().into());
    for (items, expected) in [
        (vec![data("x")], "header"),
        (vec![header("a", "", 1), header("a", "", 1)], "header"),
        (vec![header("a", "", 1), data("xy"), end(b"xy")], "data"),
        (vec![header("a", "", 3), data("xy"), end(b"xy")], "data"),
        (vec![header("a", "", 2), data("xy"), end(b"zz")], "sha256"),
        (vec![header("a", "", 2), data("xy"), Item::End(v1::UploadEnd { sha256: "short".into() })], "sha256"),
        (vec![header("a", "", 2), data("xy")], "item"),
        (vec![], "item"),
    ] {
        assert_eq!(field(send(&person, items).await), expected);
    }
    // What was begun counts until its hour is over, then it is gone.
    world.clock.advance(3600 * 1000);
    upload(&person, "a", "", b"y").await;
    let mut tx = world.db().await.read().await.unwrap();
    let workspace = murmur_server::db::workspace::by_name(&mut tx, &"acme".parse().unwrap()).await.unwrap().unwrap();
    drop(tx);
    loop {
        let mut tx = world.db().await.read().await.unwrap();
        if murmur_server::db::upload::usage(&mut tx, workspace.id, "jdoe").await.unwrap().count == 1 {
            break;
        }
        tokio::task::yield_now().await;
    }
    let kept = std::fs::read_dir(world.data("uploads")).unwrap().count();
    assert_eq!(kept, 1, "only the file that is whole");
}

#[tokio::test]
async fn limits_of_a_file_and_of_an_account_are_held() {
    let world = World::with(|config| (config.upload_bytes_max, config.upload_account_bytes_max) = (10, 25)).await;
    let (owner, person) = ready(&world).await;
    assert_eq!(reason(send(&person, vec![header("a", "", 11)]).await), Reason::UploadTooLarge);
    for _ in 0..2 {
        upload(&person, "a", "", b"0123456789").await;
    }
    assert_eq!(reason(send(&person, vec![header("a", "", 6)]).await), Reason::UploadLimit);
    upload(&person, "a", "", b"01234").await;
    let other = world.person(&owner, "mallory").await;
    upload(&other, "a", "", b"0123456789").await;
}

#[tokio::test]
async fn only_who_may_upload_does_and_an_agents_timeline_tells() {
    let world = World::start().await;
    let (owner, _person) = ready(&world).await;
    let nobody = send(&world.anonymous(), vec![header("a", "", 0), end(b"")]).await;
    assert_eq!(reason(nobody), Reason::TokenMissing);
    let reader = world.reader(&owner).await;
    assert_eq!(reason(send(&reader, vec![header("a", "", 0), end(b"")]).await), Reason::ScopeMissing);
    let node = world.node(&owner, "jdoe", 7).await;
    let agent = node.agent(&world, "alice").await;
    let mut alice = world.speak_as(&owner, &agent.id.to_string()).await;
    upload(&alice, "plan.md", "", b"x").await;
    let asked = v1::GetAgentStatusRequest {
        slug: "self".into(),
        timeline: vec![v1::TimelineKind::Upload.into()],
        ..Default::default()
    };
    let told = alice.agents.get_agent_status(asked).await.unwrap().into_inner();
    assert_eq!(told.timeline.last().unwrap().text, "plan.md (1 bytes)");
}
