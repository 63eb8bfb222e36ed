//! Bodies from one byte to the limit and one past it, at every surface: whole or refused, never cut (TESTS 13).

use std::{
    io::Write as _,
    process::{Command, Output, Stdio},
};

use murmur_core::{limits::BODY_BYTES_MAX, reason::Reason};
use murmur_proto::{node::v1::SendRequest, status::RpcError};
use murmur_tests::{process::binary, talk::inbox, wait};
use serde_json::json;

use crate::pair::{Pair, draft};

#[tokio::test]
async fn bodies_to_the_limit_arrive_whole_and_one_byte_more_is_refused_by_rpc_command_line_and_tool() {
    let pair = Pair::start(&[]).await;
    let alice = pair.here.shim("alice").await;
    alice.ok("register", json!({})).await;
    let sizes = [1, BODY_BYTES_MAX - 1, BODY_BYTES_MAX];
    for size in sizes {
        let request = SendRequest { body: vec![b'r'; size].into(), ..draft("") };
        pair.here.client().await.messages.send(request).await.unwrap();
        let output = send_from_shell(&pair, size);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        alice.ok("send", json!({"to": "bob", "text": "t".repeat(size)})).await;
    }

    let over = BODY_BYTES_MAX + 1;
    let request = SendRequest { body: vec![b'r'; over].into(), ..draft("") };
    let refused = pair.here.client().await.messages.send(request).await.unwrap_err();
    assert_eq!(RpcError::from(&refused).reason, Some(Reason::BodyTooLarge), "{refused}");
    let output = send_from_shell(&pair, over);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains(&BODY_BYTES_MAX.to_string()));
    let refused = alice.call("send", json!({"to": "bob", "text": "t".repeat(over)})).await;
    assert!(refused.is_error && refused.text.contains(&BODY_BYTES_MAX.to_string()), "{}", refused.text);

    let received = wait::until("all have arrived", || async {
        inbox(&pair.there, "bob").await.filter(|messages| messages.len() >= 3 * sizes.len())
    })
    .await;
    let arrived: Vec<_> = received.iter().map(|message| (message.body[0], message.body.len())).collect();
    let sent: Vec<_> = sizes.iter().flat_map(|size| [b'r', b'c', b't'].map(|surface| (surface, *size))).collect();
    assert_eq!(arrived, sent);
    assert!(received.iter().all(|message| message.body.iter().all(|byte| *byte == message.body[0])));
}

/// `murmurctl send bob -`, with a body that no argument may be as long as.
fn send_from_shell(pair: &Pair, size: usize) -> Output {
    let mut child = Command::new(binary("murmurctl"))
        .args(["send", "bob", "-", "--agent", "alice", "--socket"])
        .arg(&pair.here.socket)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&vec![b'c'; size]).unwrap();
    child.wait_with_output().unwrap()
}
