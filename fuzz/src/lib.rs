//! The fuzzer's side of the bodies that the ordinary tests run too.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a body fails loudly")]

#[path = "../../tests/src/fuzz/mod.rs"]
pub mod fuzz;
