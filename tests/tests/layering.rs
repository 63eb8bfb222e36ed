//! The house rules of docs/ARCHITECTURE.md, held by the build: which crate may use which, and which room names which library.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn dependencies(krate: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(root().join(krate).join("Cargo.toml")).unwrap();
    let manifest: toml::Table = text.parse().unwrap();
    manifest["dependencies"].as_table().unwrap().keys().cloned().collect()
}

fn ours(krate: &str) -> Vec<String> {
    dependencies(krate).into_iter().filter(|name| name.starts_with("murmur")).collect()
}

/// Every Rust file under a folder, with the path from the project's root.
fn sources(folder: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut waiting = vec![root().join(folder)];
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            waiting.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
            found.push((name, fs::read_to_string(&path).unwrap()));
        }
    }
    assert!(!found.is_empty(), "no sources under {folder}");
    found
}

/// Lines outside comments that name a library as a path.
fn names(text: &str, library: &str) -> bool {
    let path = format!("{library}::");
    let import = format!("use {library}");
    text.lines()
        .map(str::trim_start)
        .filter(|line| !line.starts_with("//"))
        .any(|line| line.contains(&path) || line.starts_with(&import))
}

/// Asserts that under `folder` only files whose path starts with one of `rooms` name a library.
fn only(folder: &str, library: &str, rooms: &[&str]) {
    let strangers: Vec<_> = sources(folder)
        .into_iter()
        .filter(|(name, text)| names(text, library) && !rooms.iter().any(|room| name.starts_with(room)))
        .map(|(name, _)| name)
        .collect();
    assert!(strangers.is_empty(), "`{library}` belongs to {rooms:?}, but is named in {strangers:?}");
}

#[test]
fn crates_depend_one_way() {
    assert_eq!(ours("core"), [""; 0]);
    assert_eq!(ours("telemetry"), [""; 0]);
    assert_eq!(ours("crypto"), ["murmur-core"]);
    assert_eq!(ours("proto"), ["murmur-core"]);
    let all = ["murmur-core", "murmur-crypto", "murmur-proto", "murmur-telemetry"];
    assert_eq!(ours("server"), all);
    assert_eq!(ours("node"), all);
    assert_eq!(ours("cli"), all);
    assert_eq!(ours("mcp-shim"), ["murmur-core", "murmur-proto", "murmur-telemetry"]);
}

#[test]
fn the_middle_is_pure() {
    for library in ["tokio", "tonic", "axum", "sqlx", "rusqlite", "async_nats", "getrandom", "rand"] {
        only("core/src", library, &[]);
        if library != "getrandom" {
            only("crypto/src", library, &[]);
        }
    }
    for clock in ["SystemTime", "Instant"] {
        only("core/src", clock, &[]);
        only("crypto/src", clock, &[]);
    }
}

#[test]
fn primitives_are_named_in_one_crate() {
    let primitives = [
        "curve25519-dalek",
        "ed25519-dalek",
        "x25519-dalek",
        "chacha20poly1305",
        "aead-stream",
        "hpke",
        "hkdf",
        "hmac",
    ];
    for krate in ["core", "proto", "telemetry", "server", "node", "cli", "mcp-shim"] {
        let named: Vec<_> =
            dependencies(krate).into_iter().filter(|name| primitives.contains(&name.as_str())).collect();
        assert!(named.is_empty(), "{krate} names {named:?}; ask murmur-crypto instead");
    }
}

#[test]
fn one_room_owns_each_library() {
    only("server/src", "sqlx", &["server/src/db/"]);
    only("server/src", "rusqlite", &["server/src/db/"]);
    only("server/src", "async_nats", &["server/src/broker/"]);
    only("server/src", "tonic", &["server/src/rpc/", "server/src/http/", "server/src/app.rs"]);
    only("server/src", "axum", &["server/src/rpc/", "server/src/http/", "server/src/app.rs"]);
    only("node/src", "rusqlite", &["node/src/store/"]);
    only("node/src", "async_nats", &["node/src/bus.rs", "node/src/bus/"]);
    only("node/src", "tonic", &["node/src/rpc/", "node/src/app.rs"]);
    only("node/src", "axum", &["node/src/rpc/", "node/src/metrics.rs", "node/src/app.rs"]);
    only("mcp-shim/src", "rmcp", &["mcp-shim/src/"]);
}

#[test]
fn every_attack_on_the_list_has_its_test() {
    let list = fs::read_to_string(root().join("tests/ATTACKS.md")).unwrap();
    let folders = ["core", "crypto", "proto", "node", "server", "mcp-shim", "tests"];
    let sources: String = folders.into_iter().flat_map(sources).map(|(_, text)| text).collect();
    let rows = list.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| Attack"));
    let mut named = 0;
    for row in rows {
        let tests = row.rsplit_once(" | ").unwrap().1;
        for name in tests.split('`').skip(1).step_by(2) {
            // The targets of the fuzzer are tests by the name in the macro that makes them.
            let is_there = sources.contains(&format!("fn {name}("));
            assert!(is_there, "{name} is no test any more: {row}");
            named += 1;
        }
    }
    assert!(named > 60, "the list is empty");
}
