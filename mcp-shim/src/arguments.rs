//! Arguments, checked against the schema that the client was given, so that the two cannot differ.
//!
//! Schemas of arguments are as flat as can be: an object of strings, numbers and booleans, here and there a list or an object of them. A
//! wrong one is told by its name and the rule.

use std::cell::RefCell;

use rmcp::model::JsonObject;
use serde::de::{DeserializeOwned, DeserializeSeed, IntoDeserializer as _, MapAccess, value::MapAccessDeserializer};
use serde_json::{Number, Value, map::IntoIter};

use crate::{errors::Failure, render};

/// Checks arguments and reads them.
pub(crate) fn read<T: DeserializeOwned>(schema: &JsonObject, arguments: Option<JsonObject>) -> Result<T, Failure> {
    let mut arguments = Value::Object(arguments.unwrap_or_default());
    drop_nulls(&mut arguments);
    object("", schema, &arguments)?;
    settle(schema, &mut arguments);
    let fields = match arguments {
        Value::Object(fields) => fields,
        _ => JsonObject::new(),
    };
    fitted(schema, fields)
}

/// Puts values that fit into the form that their reader takes: 5.0 is an integer, and a word has one spelling.
fn settle(rules: &JsonObject, value: &mut Value) {
    match value {
        Value::Number(number) if kind(rules) == "integer" => {
            if let Some(whole) = whole(number) {
                *value = whole.into();
            }
        }
        Value::String(text) => {
            if let Some(word) = words(rules).and_then(|words| meant(words, text)) {
                word.clone_into(text);
            }
        }
        Value::Array(items) => {
            if let Some(rules) = rules.get("items").and_then(Value::as_object) {
                items.iter_mut().for_each(|item| settle(rules, item));
            }
        }
        Value::Object(fields) => {
            for (name, value) in fields {
                if let Some(rules) = rules_of(rules, name) {
                    settle(rules, value);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Reads what fits the schema. Should a reader be stricter than that, its field is told all the same.
fn fitted<T: DeserializeOwned>(schema: &JsonObject, fields: JsonObject) -> Result<T, Failure> {
    let name = RefCell::default();
    let read =
        T::deserialize(MapAccessDeserializer::new(Fields { left: fields.into_iter(), value: None, name: &name }));
    read.map_err(|error| {
        let name = name.borrow();
        Failure::argument(match rules_of(schema, &name) {
            Some(rules) => format!("argument `{name}` must be {}: {error}", rule(rules)),
            None => error.to_string(),
        })
    })
}

/// An object, and which of its fields is being read.
struct Fields<'a> {
    left: IntoIter,
    value: Option<Value>,
    name: &'a RefCell<String>,
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = serde_json::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Self::Error> {
        let Some((name, value)) = self.left.next() else {
            self.name.borrow_mut().clear();
            return Ok(None);
        };
        self.value = Some(value);
        name.clone_into(&mut self.name.borrow_mut());
        seed.deserialize(name.into_deserializer()).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Self::Error> {
        seed.deserialize(self.value.take().unwrap_or_default())
    }
}

/// Models send null for what they leave out.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// Checks one value; `path` names it as a reader would: `budget.max_turns`, `tasks[2]`.
fn check(path: &str, rules: &JsonObject, value: &Value) -> Result<(), Failure> {
    if !fits(rules, value) {
        return Err(Failure::argument(format!("argument `{path}` must be {}, got {}", rule(rules), shown(value))));
    }
    match (value, rules.get("items").and_then(Value::as_object)) {
        (Value::Array(items), Some(rules)) => {
            items.iter().enumerate().try_for_each(|(at, item)| check(&format!("{path}[{at}]"), rules, item))
        }
        (Value::Object(_), _) => object(path, rules, value),
        _ => Ok(()),
    }
}

/// Checks an object's fields: known ones by their rules, others by the rule for all others, if there is one.
fn object(path: &str, rules: &JsonObject, value: &Value) -> Result<(), Failure> {
    let (empty, nothing) = (JsonObject::new(), JsonObject::new());
    let properties = rules.get("properties").and_then(Value::as_object).unwrap_or(&empty);
    let fields = value.as_object().unwrap_or(&nothing);
    for (name, value) in fields {
        let short = render::short(name);
        let place = if path.is_empty() { short } else { format!("{path}.{short}") };
        let Some(rules) = rules_of(rules, name) else {
            return Err(unknown(&place, properties));
        };
        check(&place, rules, value)?;
    }
    let required = rules.get("required").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    match required.iter().filter_map(Value::as_str).find(|name| !fields.contains_key(*name)) {
        Some(name) if path.is_empty() => {
            Err(Failure::argument(format!("argument `{name}` is missing; it is required")))
        }
        Some(name) => Err(Failure::argument(format!("argument `{path}.{name}` is missing; it is required"))),
        None => Ok(()),
    }
}

/// The rules for a field of an object.
fn rules_of<'a>(rules: &'a JsonObject, name: &str) -> Option<&'a JsonObject> {
    let own = rules.get("properties").and_then(|properties| properties.get(name));
    own.or_else(|| rules.get("additionalProperties")).and_then(Value::as_object)
}

fn unknown(name: &str, properties: &JsonObject) -> Failure {
    let known: Vec<_> = properties.keys().map(|name| format!("`{name}`")).collect();
    let known =
        if known.is_empty() { "this tool takes none".to_owned() } else { format!("valid are {}", known.join(", ")) };
    Failure::argument(format!("there is no argument `{name}`; {known}"))
}

fn fits(rules: &JsonObject, value: &Value) -> bool {
    let number = |name: &str| rules.get(name).and_then(Value::as_u64);
    let within = |count: usize, least: &str, most: &str| {
        let count = count as u64;
        number(least).is_none_or(|least| count >= least) && number(most).is_none_or(|most| count <= most)
    };
    match (kind(rules), value) {
        ("string", Value::String(text)) => {
            within(text.chars().count(), "minLength", "maxLength")
                && words(rules).is_none_or(|words| is_one(words, text))
        }
        ("boolean", Value::Bool(_)) => true,
        ("integer", Value::Number(value)) => whole(value).is_some_and(|value| {
            number("minimum").is_none_or(|least| value >= least) && number("maximum").is_none_or(|most| value <= most)
        }),
        ("number", Value::Number(value)) => value.as_f64().is_some_and(|value| {
            let bound = |name| rules.get(name).and_then(Value::as_f64);
            bound("minimum").is_none_or(|least| value >= least) && bound("maximum").is_none_or(|most| value <= most)
        }),
        ("array", Value::Array(items)) => within(items.len(), "minItems", "maxItems"),
        ("object", Value::Object(_)) => true,
        _ => false,
    }
}

/// A number without a fraction, however it is written (JSON Schema 2020-12, §6.1.1).
fn whole(number: &Number) -> Option<u64> {
    let float = || number.as_f64().filter(|float| float.fract() == 0.0 && (0.0..u64::MAX as f64).contains(float));
    number.as_u64().or_else(|| float().map(|float| float as u64))
}

fn kind(rules: &JsonObject) -> &str {
    rules.get("type").and_then(Value::as_str).unwrap_or_default()
}

fn words(rules: &JsonObject) -> Option<&Vec<Value>> {
    rules.get("enum").and_then(Value::as_array)
}

/// Whether a text is one of the words in any spelling; with what prefix, its reader decides.
fn is_one(words: &[Value], text: &str) -> bool {
    let is_prefixed = |text: &str, word: &str| {
        text.to_ascii_lowercase().replace('-', "_").ends_with(&format!("_{}", word.replace('-', "_")))
    };
    meant(words, text).is_some() || words.iter().filter_map(Value::as_str).any(|word| is_prefixed(text, word))
}

/// The word that a text is in another spelling.
fn meant<'a>(words: &'a [Value], text: &str) -> Option<&'a str> {
    let plain = |text: &str| -> String { text.to_ascii_lowercase().replace(['-', '_'], "") };
    words.iter().filter_map(Value::as_str).find(|word| plain(word) == plain(text))
}

fn rule(rules: &JsonObject) -> String {
    let bound = |name: &str| rules.get(name).map(ToString::to_string);
    match kind(rules) {
        "string" => match words(rules) {
            Some(words) => {
                let words: Vec<_> = words.iter().filter_map(Value::as_str).collect();
                format!("one of {}", words.join(", "))
            }
            None if rules.contains_key("minLength") => "a string that is not empty".to_owned(),
            None => "a string".to_owned(),
        },
        "boolean" => "true or false, without quotes".to_owned(),
        "array" => match bound("maxItems") {
            Some(most) => format!("a list of at most {most}"),
            None => "a list".to_owned(),
        },
        "object" => "an object".to_owned(),
        kind => {
            let kind = if kind == "number" { "a number" } else { "an integer" };
            let least = bound("minimum").unwrap_or_else(|| "0".to_owned());
            match bound("maximum") {
                Some(most) => format!("{kind} from {least} to {most}, without quotes"),
                None => format!("{kind} of at least {least}, without quotes"),
            }
        }
    }
}

fn shown(value: &Value) -> String {
    render::short(&value.to_string())
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Few {
        #[serde(default)]
        count: u8,
        #[serde(default)]
        word: Option<Word>,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(rename_all = "snake_case")]
    enum Word {
        OfTwo,
    }

    fn few(arguments: &Value) -> Result<Few, Failure> {
        let schema = json!({"properties": {
            "count": {"type": "integer", "minimum": 1},
            "word": {"type": "string", "enum": ["of_two"]},
        }});
        read(schema.as_object().unwrap(), arguments.as_object().cloned())
    }

    #[test]
    fn an_integer_may_be_written_with_a_fraction_of_nothing() {
        assert_eq!(few(&json!({"count": 5.0})).unwrap().count, 5);
        assert_eq!(few(&json!({"count": 2.5e1})).unwrap().count, 25);
        for refused in [json!(5.5), json!(0.0), json!(-5.0), json!(1e300), json!("5")] {
            let failure = few(&json!({"count": refused})).unwrap_err();
            assert!(failure.happened.starts_with("argument `count` must be an integer of at least 1"), "{failure}");
        }
    }

    #[test]
    fn a_reader_takes_every_spelling_that_the_schema_does() {
        assert_eq!(few(&json!({"word": "OF-TWO"})).unwrap().word, Some(Word::OfTwo));
    }

    #[test]
    fn what_only_its_reader_refuses_is_told_by_name_and_rule() {
        let failure = few(&json!({"count": 256})).unwrap_err();
        assert!(failure.happened.starts_with("argument `count` must be an integer of at least 1"), "{failure}");
        let failure = few(&json!({"word": "ONE_OF_TWO"})).unwrap_err();
        assert!(failure.happened.starts_with("argument `word` must be one of of_two"), "{failure}");
    }

    fn happened(arguments: &Value) -> String {
        let schema = json!({
            "properties": {
                "to": {"type": "string", "minLength": 1},
                "limit": {"type": "integer", "minimum": 1, "maximum": 100},
                "peek": {"type": "boolean"},
                "phase": {"type": "string", "enum": ["running", "task-complete"]},
                "tasks": {"type": "array", "items": {"type": "string"}, "maxItems": 2},
                "env": {"type": "object", "additionalProperties": {"type": "string"}},
                "budget": {
                    "type": "object",
                    "properties": {"usd": {"type": "number", "minimum": 0}, "turns": {"type": "integer"}},
                    "required": ["turns"],
                    "additionalProperties": false,
                },
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
            happened(&json!({"to": "bob", "recipient": "x"})),
            "there is no argument `recipient`; valid are `budget`, `env`, `limit`, `peek`, `phase`, `tasks`, `to`"
        );
    }

    #[test]
    fn a_boolean_as_a_string_is_refused() {
        assert_eq!(
            happened(&json!({"to": "bob", "peek": "true"})),
            "argument `peek` must be true or false, without quotes, got \"true\""
        );
    }

    #[test]
    fn a_word_is_taken_in_any_spelling_and_no_other_word_is() {
        for phase in ["task-complete", "TASK_COMPLETE", "PHASE_TASK_COMPLETE", "taskComplete"] {
            assert_eq!(happened(&json!({"to": "bob", "phase": phase})), "fine", "{phase}");
        }
        assert_eq!(
            happened(&json!({"to": "bob", "phase": "done"})),
            "argument `phase` must be one of running, task-complete, got \"done\""
        );
    }

    #[test]
    fn what_is_wrong_inside_a_list_or_an_object_is_told_by_its_place() {
        let inside = |name: &str, value: Value| happened(&json!({"to": "bob", name: value}));
        assert_eq!(inside("tasks", json!(["a", 1])), "argument `tasks[1]` must be a string, got 1");
        assert_eq!(
            inside("tasks", json!(["a", "b", "c"])),
            "argument `tasks` must be a list of at most 2, got [\"a\",\"b\",\"c\"]"
        );
        assert_eq!(inside("env", json!({"A": "1", "B": null})), "fine");
        assert_eq!(inside("env", json!({"A": 1})), "argument `env.A` must be a string, got 1");
        assert_eq!(inside("budget", json!({"usd": 0.5, "turns": 3})), "fine");
        assert_eq!(inside("budget", json!({"usd": 0.5})), "argument `budget.turns` is missing; it is required");
        assert_eq!(
            inside("budget", json!({"usd": -1, "turns": 3})),
            "argument `budget.usd` must be a number of at least 0, without quotes, got -1"
        );
        assert_eq!(
            inside("budget", json!({"turns": 3, "euro": 1})),
            "there is no argument `budget.euro`; valid are `turns`, `usd`"
        );
        assert_eq!(inside("budget", json!("all")), "argument `budget` must be an object, got \"all\"");
    }
}
