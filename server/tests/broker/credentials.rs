//! Who may come in at all: nobody without a token of this operator that is valid, unrevoked and held by its own key.

use async_nats::Event;
use data_encoding::BASE64URL_NOPAD;
use nkeys::KeyPair;
use serde_json::{Value, json};

use crate::{
    harness::{Broker, Node, mail, node_id, now_s, second_begun, soon, token},
    raw::Raw,
};

/// What the server answers to a greeting.
async fn greeted(broker: &Broker, jwt: Option<&str>, key: Option<&KeyPair>, more: Value) -> String {
    Raw::open(broker).await.greet(jwt, key, more).await
}

#[tokio::test]
async fn nobody_comes_in_without_credentials() {
    let broker = Broker::start().await;
    let key = KeyPair::new_user();
    for more in [
        json!({}),
        json!({"user": "", "pass": ""}),
        json!({"user": "murmur-server", "pass": "murmur-server"}),
        json!({"auth_token": "x"}),
        json!({"nkey": key.public_key()}),
    ] {
        let answer = greeted(&broker, None, None, more.clone()).await;
        assert!(answer.contains("Authorization Violation"), "{more}: {answer}");
    }
    let answer = greeted(&broker, None, Some(&key), json!({"nkey": key.public_key()})).await;
    assert!(answer.contains("Authorization Violation"), "{answer}");
}

#[tokio::test]
async fn a_token_without_its_key_is_worth_nothing() {
    let broker = Broker::start().await;
    let (key, thief) = (KeyPair::new_user(), KeyPair::new_user());
    let jwt = token(&broker, 1, &key, now_s(), 3600);
    assert_eq!(greeted(&broker, Some(&jwt), Some(&key), json!({})).await, "PONG");
    for signer in [None, Some(&thief)] {
        let answer = greeted(&broker, Some(&jwt), signer, json!({})).await;
        assert!(answer.contains("Authorization Violation"), "{answer}");
    }
}

#[tokio::test]
async fn a_changed_token_is_refused() {
    let broker = Broker::start().await;
    let key = KeyPair::new_user();
    let jwt = token(&broker, 1, &key, now_s(), 3600);
    let [header, body, signature] = jwt.split('.').collect::<Vec<_>>()[..] else { panic!("three parts") };
    let mut claims: Value = serde_json::from_slice(&BASE64URL_NOPAD.decode(body.as_bytes()).unwrap()).unwrap();
    claims["name"] = json!(node_id(2).hex());
    let forged = BASE64URL_NOPAD.encode(claims.to_string().as_bytes());
    let none = BASE64URL_NOPAD.encode(br#"{"typ":"JWT","alg":"none"}"#);
    for jwt in [format!("{header}.{forged}.{signature}"), format!("{none}.{forged}."), format!("{header}.{body}.")] {
        let answer = greeted(&broker, Some(&jwt), Some(&key), json!({})).await;
        assert!(answer.starts_with("-ERR"), "{answer}");
    }
}

#[tokio::test]
async fn an_expired_token_is_dropped_and_does_not_come_back() {
    let broker = Broker::start().await;
    let b = broker.node(2).await;
    let key = KeyPair::new_user();
    let short = token(&broker, 1, &key, second_begun().await, 2);
    let held = short.clone();
    let a = Node::connect_with(&broker, 1, key.clone(), move || held.clone()).await.unwrap();
    a.event("disconnection", |event| matches!(event, Event::Disconnected)).await;
    // In the very second of its end a token is let in, and dropped again at once.
    loop {
        let mut raw = Raw::open(&broker).await;
        if raw.greet(Some(&short), Some(&key), json!({})).await != "PONG" {
            break;
        }
        let word = soon("the end of the connection", raw.read_until(|line| line.starts_with("-ERR"))).await;
        assert!(word.is_empty() || word.contains("Expired"), "{word}");
    }
    b.send(2, "others stay").await.unwrap();
}

/// Signs a node's token with the key that signs nodes, and rights of the signer's own choice.
fn token_by_thief(stolen: &KeyPair, account: &str, user: &KeyPair, body: &Value) -> String {
    let mut nats = json!({"type": "user", "version": 2, "issuer_account": account});
    for (name, value) in body.as_object().unwrap() {
        nats[name] = value.clone();
    }
    let claims = json!({
        "jti": "x", "iat": now_s(), "exp": now_s() + 600, "iss": stolen.public_key(), "sub": user.public_key(),
        "name": node_id(1).hex(), "nats": nats,
    });
    let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let signed = format!("{}.{}", part(&json!({"typ": "JWT", "alg": "ed25519-nkey"})), part(&claims));
    let signature = BASE64URL_NOPAD.encode(&stolen.sign(signed.as_bytes()).unwrap());
    format!("{signed}.{signature}")
}

#[tokio::test]
async fn whoever_steals_the_nodes_signing_key_stays_inside_the_template() {
    let broker = Broker::start().await;
    let (stolen, account) = (broker.stolen_key("nodes_signing"), broker.stolen_key("nodes").public_key());
    let tags = json!([format!("ws:{}", crate::harness::WORKSPACE.hex())]);
    let user = KeyPair::new_user();
    // With the template's rights the key signs good tokens; this shows that the refusals below have their reason in the rights.
    let plain = token_by_thief(&stolen, &account, &user, &json!({"tags": tags}));
    assert_eq!(greeted(&broker, Some(&plain), Some(&user), json!({})).await, "PONG");
    for rights in [
        json!({"pub": {"allow": [">"]}, "sub": {"allow": [">"]}}),
        json!({"pub": {}, "sub": {"allow": ["mm.in.>"]}}),
        json!({"resp": {"max": 100, "ttl": 0}}),
        json!({"subs": -1, "data": -1, "payload": -1, "bearer_token": true}),
    ] {
        let mut body = rights.clone();
        body["tags"] = tags.clone();
        let jwt = token_by_thief(&stolen, &account, &user, &body);
        let mut raw = Raw::open(&broker).await;
        if raw.greet(Some(&jwt), Some(&user), json!({})).await != "PONG" {
            continue;
        }
        // A server that lets it in gives it the template's rights all the same.
        raw.write(b"SUB > 1\r\n").await;
        raw.publish(&mail(2, 2), b"forged").await;
        let errors = raw.errors().await;
        assert_eq!(errors.len(), 2, "{rights}: {errors:?}");
        assert_eq!(broker.stored().await, 0, "{rights}");
    }
    // It signs for its own account and no other.
    for account in ["js", "sys"] {
        let account = broker.stolen_key(account).public_key();
        let jwt = token_by_thief(&stolen, &account, &user, &json!({"tags": tags, "pub": {}, "sub": {}}));
        let answer = greeted(&broker, Some(&jwt), Some(&user), json!({})).await;
        assert!(answer.starts_with("-ERR"), "{answer}");
    }
}

#[tokio::test]
async fn a_revoked_token_is_dropped_and_does_not_come_back() {
    let broker = Broker::start().await;
    let (b, key, issued_s) = (broker.node(2).await, KeyPair::new_user(), now_s());
    let jwt = token(&broker, 1, &key, issued_s, 3600);
    let mut raw = Raw::open(&broker).await;
    assert_eq!(raw.greet(Some(&jwt), Some(&key), json!({})).await, "PONG");
    broker.revoker().await.revoke(&key.public_key(), issued_s).await.unwrap();
    let word = soon("the end of the connection", raw.read_until(|line| line.starts_with("-ERR"))).await;
    assert!(word.is_empty() || word.contains("Revoked") || word.contains("Expired"), "{word}");
    let answer = greeted(&broker, Some(&jwt), Some(&key), json!({})).await;
    assert!(answer.starts_with("-ERR"), "{answer}");
    b.send(2, "others stay").await.unwrap();
}
