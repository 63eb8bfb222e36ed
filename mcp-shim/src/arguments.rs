//! Arguments, checked against the schema that the client was given, so that the two cannot differ.
//!
//! Schemas of arguments are flat: an object of strings, integers and booleans. A wrong one is told by its name and the rule.

use rmcp::model::JsonObject;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{errors::Failure, render};

/// Checks arguments and reads them.
pub(crate) fn read<T: DeserializeOwned>(schema: &JsonObject, arguments: Option<JsonObject>) -> Result<T, Failure> {
    let mut arguments = arguments.unwrap_or_default();
    // Models send null for what they leave out.
    arguments.retain(|_, value| !value.is_null());
    check(schema, &arguments)?;
    serde_json::from_value(Value::Object(arguments)).map_err(|error| Failure::argument(error.to_string()))
}

fn check(schema: &JsonObject, arguments: &JsonObject) -> Result<(), Failure> {
    let empty = JsonObject::new();
    let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&empty);
    for (name, value) in arguments {
        let Some(rules) = properties.get(name).and_then(Value::as_object) else {
            return Err(unknown(name, properties));
        };
        if !fits(rules, value) {
            return Err(Failure::argument(format!("argument `{name}` must be {}, got {}", rule(rules), shown(value))));
        }
    }
    let required = schema.get("required").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    match required.iter().filter_map(Value::as_str).find(|name| !arguments.contains_key(*name)) {
        Some(name) => Err(Failure::argument(format!("argument `{name}` is missing; it is required"))),
        None => Ok(()),
    }
}

fn unknown(name: &str, properties: &JsonObject) -> Failure {
    let known: Vec<_> = properties.keys().map(|name| format!("`{name}`")).collect();
    let known =
        if known.is_empty() { "this tool takes none".to_owned() } else { format!("valid are {}", known.join(", ")) };
    Failure::argument(format!("there is no argument `{}`; {known}", render::clean(render::cut(name, 64))))
}

fn fits(rules: &JsonObject, value: &Value) -> bool {
    let number = |name: &str| rules.get(name).and_then(Value::as_u64);
    match (kind(rules), value) {
        ("string", Value::String(text)) => number("minLength").is_none_or(|least| text.chars().count() as u64 >= least),
        ("boolean", Value::Bool(_)) => true,
        ("integer", Value::Number(value)) => value.as_u64().is_some_and(|value| {
            number("minimum").is_none_or(|least| value >= least) && number("maximum").is_none_or(|most| value <= most)
        }),
        _ => false,
    }
}

fn kind(rules: &JsonObject) -> &str {
    rules.get("type").and_then(Value::as_str).unwrap_or_default()
}

fn rule(rules: &JsonObject) -> String {
    match kind(rules) {
        "string" if rules.contains_key("minLength") => "a string that is not empty".to_owned(),
        "string" => "a string".to_owned(),
        "boolean" => "true or false, without quotes".to_owned(),
        _ => {
            let least = rules.get("minimum").map(ToString::to_string).unwrap_or_else(|| "0".to_owned());
            match rules.get("maximum") {
                Some(most) => format!("an integer from {least} to {most}, without quotes"),
                None => format!("an integer of at least {least}, without quotes"),
            }
        }
    }
}

fn shown(value: &Value) -> String {
    let text = value.to_string();
    let short = render::cut(&text, 64);
    if short.len() < text.len() { format!("{short}…") } else { text }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn happened(arguments: &Value) -> String {
        let schema = json!({
            "properties": {
                "to": {"type": "string", "minLength": 1},
                "limit": {"type": "integer", "minimum": 1, "maximum": 100},
                "peek": {"type": "boolean"},
            },
            "required": ["to"],
        });
        let read = read::<Value>(schema.as_object().unwrap(), arguments.as_object().cloned());
        read.map_or_else(|failure| failure.happened, |_| "fine".to_owned())
    }

    #[test]
    fn a_wrong_argument_is_told_by_name_and_rule() {
        assert_eq!(happened(&json!({"to": "bob", "limit": 100, "peek": null})), "fine");
        assert_eq!(happened(&json!({"limit": 1})), "argument `to` is missing; it is required");
        assert_eq!(happened(&json!({"to": ""})), "argument `to` must be a string that is not empty, got \"\"");
        assert_eq!(
            happened(&json!({"to": "bob", "limit": 101})),
            "argument `limit` must be an integer from 1 to 100, without quotes, got 101"
        );
        assert_eq!(
            happened(&json!({"to": "bob", "peek": "true"})),
            "argument `peek` must be true or false, without quotes, got \"true\""
        );
        assert_eq!(
            happened(&json!({"to": "bob", "recipient": "x"})),
            "there is no argument `recipient`; valid are `limit`, `peek`, `to`"
        );
    }
}
