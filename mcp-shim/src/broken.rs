//! Messages of a client that cannot be taken as they are: whose they are, and what is wrong with them.

use std::fmt;

use rmcp::model::ErrorCode;
use serde::{
    Deserializer as _,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::Value;

/// Why a message is refused, as JSON-RPC tells it.
#[derive(Debug, PartialEq)]
pub(crate) struct Refused {
    /// Whose answer this is; `None` when that cannot be told.
    pub(crate) id: Option<Value>,
    pub(crate) code: i32,
    pub(crate) message: String,
}

/// A line longer than allowed, of which this is the beginning.
pub(crate) fn too_long(begin: &[u8], bytes_max: usize) -> Refused {
    let message = format!("a message must be one line of at most {bytes_max} bytes");
    Refused { id: Envelope::of(begin).request_id(), code: ErrorCode::INVALID_REQUEST.0, message }
}

/// A line that is no message; nothing when it is a notification, which nobody answers.
pub(crate) fn message(line: &[u8], error: &serde_json::Error) -> Option<Refused> {
    let envelope = Envelope::of(line);
    if envelope.is_whole && envelope.has_method && envelope.id.is_none() {
        return None;
    }
    let (code, message) = if error.is_data() {
        (ErrorCode::INVALID_REQUEST, "the message is no JSON-RPC 2.0 request, notification or answer".to_owned())
    } else {
        (ErrorCode::PARSE_ERROR, format!("the message is no JSON that can be read: {error}"))
    };
    Some(Refused { id: envelope.request_id(), code: code.0, message })
}

/// A call of a method that is known, with parameters that are not its own.
pub(crate) fn parameters(line: &[u8], method: &str) -> Option<Refused> {
    let message: Value = serde_json::from_slice(line).ok()?;
    let params = message.get("params").filter(|params| !params.is_null());
    let problem = match (method, params) {
        ("tools/call", None) => "`params` is missing: an object with `name` and `arguments`".to_owned(),
        ("tools/call", Some(Value::Object(params))) => {
            if !params.get("name").is_some_and(Value::is_string) {
                "`name` must be the name of a tool, a string".to_owned()
            } else if params.get("arguments").is_some_and(|arguments| !arguments.is_object() && !arguments.is_null()) {
                "`arguments` must be an object".to_owned()
            } else {
                "`params` has a field that does not fit".to_owned()
            }
        }
        ("tools/call", Some(_)) => "`params` must be an object with `name` and `arguments`".to_owned(),
        ("initialize" | "ping" | "tools/list", _) => format!("`params` do not fit `{method}`"),
        _ => return None,
    };
    let id = message.get("id").filter(|id| is_id(id)).cloned();
    Some(Refused { id, code: ErrorCode::INVALID_PARAMS.0, message: problem })
}

fn is_id(value: &Value) -> bool {
    value.is_number() || value.is_string()
}

/// The outermost fields of a message, as far as it can be read: what lies deeper is skipped without being looked at.
#[derive(Debug, Default)]
struct Envelope {
    id: Option<Value>,
    has_method: bool,
    is_whole: bool,
}

impl Envelope {
    fn of(line: &[u8]) -> Self {
        let mut envelope = Self::default();
        let mut reader = serde_json::Deserializer::from_slice(line);
        envelope.is_whole = reader.deserialize_map(&mut envelope).is_ok() && reader.end().is_ok();
        envelope
    }

    /// The id to answer under: that of a request. The id of a broken answer would pass for an answer to another of its sender's.
    fn request_id(self) -> Option<Value> {
        // The method may be beyond what can be read.
        self.id.filter(|_| self.has_method || !self.is_whole)
    }
}

impl<'de> Visitor<'de> for &mut Envelope {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    /// What was read before an error stays.
    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        while let Some(name) = fields.next_key::<String>()? {
            match name.as_str() {
                "id" => self.id = Some(fields.next_value::<Value>()?).filter(is_id),
                "method" => {
                    fields.next_value::<IgnoredAny>()?;
                    self.has_method = true;
                }
                _ => {
                    fields.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}
