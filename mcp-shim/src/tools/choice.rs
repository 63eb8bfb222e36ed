//! One of a few words, as arguments take it and answers show it: every schema lists the words, and any spelling is taken.

use std::{borrow::Cow, fmt};

use murmur_proto::words::Words;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::render;

/// A value of an enumeration of the contract.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Choice<T>(pub(super) T);

impl<T: Words> Choice<T> {
    /// Absent for what the contract leaves unspecified, and for a value of a newer one.
    pub(super) fn known(value: T) -> Option<Self> {
        T::WORDS.iter().any(|(known, _)| *known == value).then_some(Self(value))
    }
}

/// The number that a request carries; 0 for none.
pub(super) fn number<T: Words + Into<i32>>(choice: Option<Choice<T>>) -> i32 {
    choice.map_or(0, |Choice(value)| value.into())
}

impl<T: Words> fmt::Debug for Choice<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.word())
    }
}

impl<'de, T: Words> Deserialize<'de> for Choice<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        T::from_word(&text).map(Self).ok_or_else(|| {
            let shown = render::clean(render::cut(&text, 64));
            de::Error::custom(format!("`{shown}` must be one of {}", T::all_words()))
        })
    }
}

impl<T: Words> Serialize for Choice<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.word())
    }
}

impl<T: Words> JsonSchema for Choice<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        T::PREFIX.into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let words: Vec<_> = T::WORDS.iter().map(|(_, word)| *word).collect();
        json_schema!({"type": "string", "enum": words})
    }
}
