//! Any server that takes a POST, signed as Standard Webhooks says (standardwebhooks.com): the same id whenever the same is sent again.

use std::sync::Arc;

use data_encoding::{BASE64, HEXLOWER};
use murmur_crypto::{hash::sha256, mac::hmac_sha256};
use serde_json::json;

use super::{Delivery, Trouble, by_status, place};
use crate::{
    notify::{Notice, channel::signing_key},
    outbound::{CALL_TIMEOUT, Call, Outbound},
};

pub(super) async fn send(
    outbound: &Outbound,
    url: &str,
    secret: &str,
    (notices, include_body): (&[Arc<Notice>], bool),
    now_ms: u64,
) -> Result<Delivery, Trouble> {
    let at = place(url)?;
    let key = signing_key(secret).ok_or_else(|| Trouble::Broken("the webhook's secret cannot be used".into()))?;
    for notice in notices {
        let mut body = json!({
            "type": notice.kind, "time_ms": notice.at_ms, "agents": notice.agents, "text": notice.line,
        });
        if include_body && let Some(text) = &notice.body {
            body["body"] = text.as_str().into();
        }
        let body = body.to_string().into_bytes();
        let id = format!("msg_{}", &HEXLOWER.encode(&sha256(&body))[..32]);
        let time = (now_ms / 1000).to_string();
        let tag = hmac_sha256(&key, &[id.as_bytes(), b".", time.as_bytes(), b".", &body]);
        let headers = vec![
            ("webhook-id", id),
            ("webhook-timestamp", time),
            ("webhook-signature", format!("v1,{}", BASE64.encode(&tag))),
        ];
        let answer = outbound.post(Call { place: &at, headers, body, timeout: CALL_TIMEOUT }).await?;
        if !(200..300).contains(&answer.status) {
            return Err(by_status("the webhook", &answer, None));
        }
    }
    Ok(Delivery::default())
}
