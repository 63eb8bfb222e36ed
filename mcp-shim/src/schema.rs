//! JSON Schemas of arguments and answers, in the plainest form: a client sends them to its model with every conversation.

use std::sync::Arc;

use rmcp::model::JsonObject;
use schemars::{JsonSchema, Schema, generate::SchemaSettings, transform::RecursiveTransform};
use serde_json::{Map, Value, json};

/// The schema of what a tool takes.
pub(crate) fn of_arguments<T: JsonSchema>() -> Arc<JsonObject> {
    Arc::new(plain::<T>(SchemaSettings::draft2020_12().with_transform(RecursiveTransform(bound))))
}

/// Says in figures how large an integer may be: its width is dropped.
fn bound(schema: &mut Schema) {
    let is_narrow = schema.get("format").and_then(Value::as_str) == Some("uint32");
    if is_narrow && schema.get("maximum").is_none() {
        schema.insert("maximum".to_owned(), u32::MAX.into());
    }
}

/// The schema of what a tool answers, with the two fields that any answer may have beside its own.
pub(crate) fn of_answer<T: JsonSchema>() -> Arc<JsonObject> {
    let mut schema = plain::<T>(SchemaSettings::draft2020_12().for_serialize());
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        properties
            .insert("notice".to_owned(), json!({"type": "string", "description": "Something to know or do now."}));
        properties
            .entry("unread")
            .or_insert_with(|| json!({"type": "integer", "description": "Unread messages, when it grew."}));
    }
    Arc::new(schema)
}

fn plain<T: JsonSchema>(mut settings: SchemaSettings) -> JsonObject {
    settings.inline_subschemas = true;
    let mut schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    simplify(&mut schema);
    let mut object = match schema {
        Value::Object(object) => object,
        _ => Map::new(),
    };
    for noise in ["$schema", "title", "description"] {
        object.remove(noise);
    }
    object.entry("properties").or_insert_with(|| json!({}));
    object
}

/// Drops what says nothing to a reader: Rust's integer widths, and null for what may be left out.
fn simplify(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            object.retain(|key, value| match key.as_str() {
                "format" => !value.as_str().is_some_and(|format| format.starts_with("uint")),
                "default" => !value.is_null(),
                _ => true,
            });
            if let Some(Value::Array(types)) = object.get("type")
                && let [one, Value::String(null)] = types.as_slice()
                && null == "null"
            {
                object["type"] = one.clone();
                if let Some(Value::Array(words)) = object.get_mut("enum") {
                    words.retain(|word| !word.is_null());
                }
            }
            object.values_mut().for_each(simplify);
        }
        Value::Array(items) => items.iter_mut().for_each(simplify),
        _ => {}
    }
}
