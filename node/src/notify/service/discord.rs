//! Discord's webhooks (discord.com/developers/docs/resources/webhook#execute-webhook). The path of the URL is the secret.

use serde_json::json;

use super::{Delivery, Trouble, by_status, cut, place, post_now, retry_after, seconds};
use crate::outbound::{Answer, Outbound};

const SERVICE: &str = "Discord";
const CONTENT_CHARS_MAX: usize = 2_000;

pub(super) async fn send(outbound: &Outbound, url: &str, text: &str) -> Result<Delivery, Trouble> {
    // Without `wait` an error after the queue would not be told.
    let at = place(url)?.with_query("wait=true");
    let at = at.ok_or_else(|| Trouble::Broken("the webhook's URL cannot be used".into()))?;
    // Nobody is pinged, whatever others wrote.
    let body = json!({"content": cut(text, CONTENT_CHARS_MAX), "allowed_mentions": {"parse": []}});
    let answer = post_now(outbound, &at, Vec::new(), &body).await?;
    match answer.status {
        200 | 204 => Ok(Delivery { pause: pause(&answer), ..Delivery::default() }),
        401 | 403 | 404 => Err(Trouble::Broken("Discord does not know the webhook any more".into())),
        429 => {
            let told = super::json(&answer)["retry_after"].as_f64().and_then(seconds);
            Err(Trouble::Later { why: "Discord asks to wait".into(), after: told.or_else(|| retry_after(&answer)) })
        }
        _ => Err(by_status(SERVICE, &answer, super::json(&answer)["message"].as_str())),
    }
}

/// When the bucket is empty, until it is filled again.
fn pause(answer: &Answer) -> Option<std::time::Duration> {
    let is_empty = answer.header("x-ratelimit-remaining").is_some_and(|left| left.trim() == "0");
    let after = answer.header("x-ratelimit-reset-after")?.trim().parse().ok()?;
    seconds(after).filter(|_| is_empty)
}
