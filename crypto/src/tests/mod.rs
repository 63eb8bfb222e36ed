//! Tests of the whole: the conformance vectors with every intermediate, properties, and attackers who sign what `seal` would
//! not. They live inside the crate because an attacker writes wire messages that the public interface refuses to write.

mod attacks;
mod chains;
mod conformance;
mod forge;
mod invites;
mod limits;
mod properties;
mod revocations;
mod statements;
mod vectors;
mod world;

use serde_json::Value;

/// The cases of a conformance file.
fn cases(file: &str) -> Vec<Value> {
    let path = format!("{}/../tests/conformance/v2/{file}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let file: Value = serde_json::from_str(&text).unwrap();
    file["cases"].as_array().unwrap().clone()
}

/// One case by its id.
fn case(file: &str, id: &str) -> Value {
    cases(file).into_iter().find(|case| case["id"] == id).unwrap_or_else(|| panic!("no case {id} in {file}"))
}

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap()).unwrap()
}

fn array<const N: usize>(value: &Value) -> [u8; N] {
    bytes(value).try_into().unwrap()
}
