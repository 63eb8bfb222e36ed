//! WhatsApp's Cloud API (developers.facebook.com/docs/whatsapp/cloud-api).

use serde_json::{Value, json};

use super::{Delivery, Trouble, by_status, cut, place, post_now, said};
use crate::outbound::Outbound;

const SERVICE: &str = "WhatsApp";
const TEXT_CHARS_MAX: usize = 4_096;
/// A template's parameter takes no line feeds, and fewer characters.
const PARAMETER_CHARS_MAX: usize = 1_000;

pub(super) async fn send(
    outbound: &Outbound,
    (api, phone_number_id): (&str, &str),
    token: &str,
    (to, template): (&str, Option<(&str, &str)>),
    text: &str,
) -> Result<Delivery, Trouble> {
    let at = place(api)?.with_path(&format!("/{phone_number_id}/messages"));
    let at = at.ok_or_else(|| Trouble::Broken("the sending number cannot be used".into()))?;
    let headers = vec![("authorization", format!("Bearer {token}"))];
    let answer = post_now(outbound, &at, headers, &message(to, template, text)).await?;
    if (200..300).contains(&answer.status) {
        return Ok(Delivery::default());
    }
    let told = super::json(&answer);
    let error = &told["error"];
    let words = error["error_data"]["details"].as_str().or(error["message"].as_str());
    let why = || format!("{SERVICE} answered {}{}", answer.status, said(words));
    Err(match error["code"].as_i64() {
        // Rate limits: of the app, the account, the number, the pair.
        Some(4 | 80_007 | 130_429 | 131_048 | 131_056) => {
            Trouble::Later { why: "WhatsApp asks to wait".into(), after: super::retry_after(&answer) }
        }
        Some(1 | 2 | 131_000 | 131_016) => Trouble::Later { why: why(), after: None },
        Some(0 | 190) => Trouble::Broken("WhatsApp does not know the access token, or it has expired".into()),
        Some(131_047) => Trouble::Refused(
            "more than 24 hours have passed since the person wrote: only a template can be sent (set one)".into(),
        ),
        Some(3 | 10 | 200..=299 | 131_005 | 131_031) => Trouble::Broken(why()),
        _ => by_status(SERVICE, &answer, words),
    })
}

fn message(to: &str, template: Option<(&str, &str)>, text: &str) -> Value {
    let base = |kind: &str| json!({"messaging_product": "whatsapp", "recipient_type": "individual", "to": to.trim_start_matches('+'), "type": kind});
    match template {
        Some((name, language)) => {
            let one_line = cut(&text.replace('\n', " · "), PARAMETER_CHARS_MAX);
            let parameters = json!([{"type": "text", "text": one_line}]);
            let mut message = base("template");
            message["template"] = json!({
                "name": name, "language": {"code": language}, "components": [{"type": "body", "parameters": parameters}],
            });
            message
        }
        None => {
            let mut message = base("text");
            message["text"] = json!({"preview_url": false, "body": cut(text, TEXT_CHARS_MAX)});
            message
        }
    }
}
