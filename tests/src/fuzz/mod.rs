//! What every parser of strangers' bytes must hold to, for any bytes at all. The fuzzer (`fuzz/`) and the ordinary tests
//! (`tests/corpus.rs`) run the same bodies over the same corpus.
//!
//! A body does more than not panic: what is read is written again and read as the same; an independent reader of protobuf agrees
//! with it; what is believed is what this world really signed. Memory is bounded by whoever runs a body.

mod chain;
mod envelope;
pub mod forge;
mod statements;
mod stream;
mod text;
mod wire;
pub mod world;

/// A body: panics when a rule is broken.
pub type Body = fn(&[u8]);

/// Every target by name.
pub const TARGETS: [(&str, Body); 14] = [
    ("envelope_decode", envelope::envelope_decode),
    ("header_decode", envelope::header_decode),
    ("inner_decode", statements::inner_decode),
    ("ack_decode", statements::ack_decode),
    ("chain_decode", chain::chain_decode),
    ("chain_verify", chain::chain_verify),
    ("prekey_verify", statements::prekey_verify),
    ("invite_parse", statements::invite_parse),
    ("invite_body", statements::invite_body),
    ("revocation_list", statements::revocation_list),
    ("chunk_reassemble", stream::chunk_reassemble),
    ("subject_parse", text::subject_parse),
    ("slug_parse", text::slug_parse),
    ("token_parse", text::token_parse),
];

/// Runs one target on one input.
///
/// # Panics
/// When the input breaks a rule, or there is no such target.
pub fn one(target: &str, bytes: &[u8]) {
    let (_, body) = TARGETS.iter().find(|(name, _)| *name == target).expect("a target of this name");
    body(bytes);
}
