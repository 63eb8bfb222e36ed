//! The configuration as its owner sets it: the program, its environment and what the guide says of both.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

use std::{collections::BTreeMap, path::Path, process::Command};

fn printed(variables: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_murmur-node"));
    command.arg("config").env_clear().envs(variables);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (mut table, mut keys) = (String::new(), BTreeMap::new());
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            table = format!("{name}.");
        } else if let Some((key, value)) = line.split_once(" = ") {
            keys.insert(format!("{table}{key}"), value.trim_matches('"').to_owned());
        }
    }
    keys
}

/// The keys in the first column of a guide's tables, below the heading that begins with `heading`.
fn documented(guide: &str, heading: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/guide").join(guide);
    let text = std::fs::read_to_string(path).unwrap();
    let section = text.split("\n## ").find(|section| section.starts_with(heading)).unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
    rows.flat_map(|cell| cell.split(", ").map(|key| key.trim_matches('`').to_owned()).collect::<Vec<_>>()).collect()
}

#[test]
fn every_documented_key_can_be_set_by_a_variable() {
    let defaults = printed(&BTreeMap::new());
    let samples = BTreeMap::from([
        ("socket", "/tmp/x.sock"),
        ("join", "/tmp/invite"),
        ("ca", "/tmp/ca.pem"),
        ("metrics_listen", "127.0.0.1:0"),
        ("store_pages_max", "4096"),
        ("file_days", "30"),
        ("file_roots", "[\"/tmp\"]"),
        ("runtime.capacity", "3"),
        ("runtime.labels", "[\"gpu\"]"),
        ("runtime.dir", "/tmp/runtime"),
        ("runtime.default_backend", "claude"),
        ("runtime.mcp_program", "/tmp/murmur-mcp"),
        ("runtime.pass_env", "[\"FOO_*\"]"),
        ("runtime.limits.open_files", "1024"),
        ("local.require_token", "true"),
    ]);
    let keys = documented("config.md", "The node").into_iter().chain(documented("runtime.md", "# What runs an agent"));
    // What is a table of names is set in the file alone.
    let keys: Vec<_> =
        keys.filter(|key| !key.contains('<') && !["runtime.*", "notify.*"].contains(&key.as_str())).collect();
    assert!(keys.len() > 35 && keys.contains(&"runtime.capacity".to_owned()), "{keys:?}");
    let mut variables = BTreeMap::new();
    for key in keys {
        let key = if key == "runtime.limits.*" { "runtime.limits.open_files".to_owned() } else { key };
        let value =
            samples.get(key.as_str()).map(|sample| (*sample).to_owned()).or_else(|| defaults.get(&key).cloned());
        let value = value.unwrap_or_else(|| panic!("{key} has neither a default nor a sample"));
        variables.insert(format!("MURMUR_NODE_{}", key.to_ascii_uppercase().replace('.', "_")), value);
    }
    let set = printed(&variables);
    assert_eq!(set["runtime.capacity"], "3");
    assert_eq!(set["local.require_token"], "true");
    assert_eq!(set["runtime.limits.open_files"], "1024");
}
