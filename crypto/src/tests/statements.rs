//! Signatures are strict: one message, one key, one signature.

use super::world::{World, key};
use crate::{hash::label, keys::PublicKey, statement::Statement};

/// The order of the curve's prime subgroup, little endian (RFC 8032 §5.1).
const L: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

#[test]
fn a_statement_holds_for_one_label_only() {
    let key = key(1);
    let statement = Statement::sign(&key, label::CERT, b"body".to_vec());
    assert!(statement.verify(label::CERT, &key.public()).is_ok());
    assert!(statement.verify(label::PREKEY, &key.public()).is_err());
    let again = Statement::decode(statement.encode()).unwrap();
    assert!(again == statement);
}

#[test]
fn a_malleable_signature_is_refused() {
    let key = key(1);
    let statement = Statement::sign(&key, label::CERT, b"body".to_vec());
    let mut signature = *statement.signature();
    let mut carry = 0;
    for (byte, order) in signature[32..].iter_mut().zip(L) {
        let sum = u16::from(*byte) + u16::from(order) + carry;
        (*byte, carry) = (sum.to_le_bytes()[0], sum >> 8);
    }
    let twin = Statement::from_parts(statement.body().clone(), signature);
    assert!(twin.verify(label::CERT, &key.public()).is_err(), "S and S + L must not both verify");
}

#[test]
fn a_certificate_for_a_small_order_key_is_malformed() {
    let world = World::new();
    let key = world.node.claims().public_key;
    let mut body = world.node.statement().body().to_vec();
    let at = body.windows(32).position(|window| window == key.as_bytes()).unwrap();
    body[at..at + 32].fill(0);
    assert!(PublicKey::from_bytes(&[0; 32]).is_err());
    let forged = Statement::sign(&world.root_key, label::CERT, body);
    assert_eq!(crate::cert::Certificate::from_statement(forged).unwrap_err().field, "public_key");
}
