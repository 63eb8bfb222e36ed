//! Credentials and the server over time: revocation, expiry, restart.

use std::sync::{Arc, Mutex};

use async_nats::Event;
use futures::StreamExt;
use murmur_core::subject::Shard;
use murmur_server::broker::{BrokerAddress, BrokerAdmin, StreamSettings, TlsFiles};
use nkeys::KeyPair;

use crate::harness::{Broker, Node, now_s, route, second_begun, soon, token};

#[tokio::test]
async fn revocation_disconnects_and_outlives_a_restart() {
    let mut broker = Broker::start_lasting().await;
    let key = KeyPair::new_user();
    let (a, b) = (Node::connect(&broker, 1, key.clone(), now_s()).await.unwrap(), broker.node(2).await);
    let revoked_s = now_s() + 1;
    broker.revoker().await.revoke(&a.nkey, revoked_s).await.unwrap();
    a.event("disconnection", |event| matches!(event, Event::Disconnected)).await;
    b.send(2, "others stay").await.unwrap();

    broker.restart();
    let again = Node::connect(&broker, 1, key.clone(), revoked_s).await;
    assert!(again.is_err(), "a revoked token works again after a restart");
    assert!(Node::connect(&broker, 1, key, revoked_s + 1).await.is_ok(), "a token issued later counts");
}

/// Whoever comes while the server still loads its accounts meets the same claims as everybody later.
#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_token_gets_in_at_no_moment_of_a_start() {
    let mut broker = Broker::start_lasting().await;
    let (revoked, welcome) = (KeyPair::new_user(), KeyPair::new_user());
    let issued_s = now_s();
    broker.revoker().await.revoke(&revoked.public_key(), issued_s).await.unwrap();
    for _ in 0..10 {
        broker.restart();
        let knocks = (0..32).map(|n| Node::connect(&broker, 1, [&revoked, &welcome][n % 2].clone(), issued_s));
        let met: Vec<_> = futures::future::join_all(knocks).await.iter().map(Result::is_ok).collect();
        assert_eq!(met, [false, true].repeat(16));
    }
}

#[tokio::test]
async fn a_broker_that_another_version_set_up_gets_the_accounts_of_this_one() {
    let mut broker = Broker::start_lasting().await;
    broker.restart_with_sys(|claims| claims["imports"] = serde_json::json!([]));
    assert_eq!(broker.sys_claims()["nats"]["imports"], serde_json::json!([]));
    drop(broker.revoker().await);
    assert_ne!(broker.sys_claims()["nats"]["imports"], serde_json::json!([]), "it would load its accounts late");
    let held = broker.sys_claims();
    drop(broker.revoker().await);
    assert_eq!(broker.sys_claims(), held, "what is the same is not written again");
}

#[tokio::test]
async fn expired_tokens_and_strangers_keys_are_refused() {
    let broker = Broker::start().await;
    assert!(Node::connect(&broker, 1, KeyPair::new_user(), 1).await.is_err(), "expired long ago");
    assert!(async_nats::connect(&broker.address.url).await.is_err(), "no credentials at all");
    let mut stranger = Broker::start().await;
    stranger.address = broker.address.clone();
    assert!(Node::connect(&stranger, 1, KeyPair::new_user(), now_s()).await.is_err(), "another operator's token");
}

#[tokio::test]
async fn a_renewed_token_carries_on_when_the_old_one_ends() {
    let broker = Broker::start().await;
    broker.admin.ensure_consumer(&route(1)).await.unwrap();
    let key = KeyPair::new_user();
    let short = token(&broker, 1, &key, second_begun().await, 2);
    let renewed = token(&broker, 1, &key, now_s(), 3600);
    let current = Arc::new(Mutex::new(short));
    let held = current.clone();
    let a = Node::connect_with(&broker, 1, key, move || held.lock().unwrap().clone()).await.unwrap();
    *current.lock().unwrap() = renewed;
    a.event("disconnection", |event| matches!(event, Event::Disconnected)).await;
    a.event("reconnection", |event| matches!(event, Event::Connected)).await;
    a.send(1, "still here").await.unwrap();
}

#[tokio::test]
async fn off_loopback_clients_speak_tls() {
    let files = tempfile::tempdir().unwrap();
    let certified = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let tls = TlsFiles { cert: files.path().join("cert.pem"), key: files.path().join("key.pem") };
    std::fs::write(&tls.cert, certified.cert.pem()).unwrap();
    std::fs::write(&tls.key, certified.signing_key.serialize_pem()).unwrap();
    let broker = Broker::start_tls(tls).await;
    assert!(broker.admin.is_connected());
    let stranger = BrokerAddress { ca: None, ..broker.address.clone() };
    let refused = BrokerAdmin::connect(&stranger, &broker.keys, StreamSettings::default(), now_s()).await;
    assert!(refused.is_err(), "a certificate nobody vouches for");
}

#[tokio::test]
async fn a_consumer_goes_on_after_a_restart() {
    let mut broker = Broker::start_lasting().await;
    let (a, b) = (broker.node(1).await, broker.node(2).await);
    let mut inbox = b.consumer().await.messages().await.unwrap();
    a.send(2, "before").await.unwrap();
    soon("delivery", inbox.next()).await.unwrap().unwrap().double_ack().await.unwrap();

    broker.restart();
    for node in [&a, &b] {
        node.event("disconnection", |event| matches!(event, Event::Disconnected)).await;
        node.event("reconnection", |event| matches!(event, Event::Connected)).await;
    }
    a.send(2, "after").await.unwrap();
    let message = loop {
        if let Ok(message) = soon("delivery", inbox.next()).await.unwrap() {
            break message;
        }
    };
    assert_eq!(message.payload.as_ref(), b"after");
}

#[tokio::test]
async fn streams_and_consumers_are_made_once_and_brought_up_to_date() {
    let broker = Broker::start().await;
    let a = broker.node(1).await;
    a.send(1, "kept").await.unwrap();
    broker.admin.ensure_stream(&route(1).site, Shard::ZERO).await.unwrap();
    broker.admin.ensure_consumer(&route(1)).await.unwrap();
    assert_eq!((broker.stored().await, broker.progress(1).await.waiting), (1, 1));
    assert!(broker.admin.is_connected());
    broker.admin.delete_consumer(&route(1)).await.unwrap();
    assert!(broker.admin.delete_consumer(&route(1)).await.is_err());
}
