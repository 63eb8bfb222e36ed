//! Fills the templates of a backend: arguments, and lines of JSON whose strings are escaped by being strings.

use std::collections::HashMap;

use serde_json::Value;

use super::backend::Arg;

/// What stands for what.
#[derive(Debug, Default, Clone)]
pub(super) struct Values {
    texts: HashMap<&'static str, String>,
    lists: HashMap<&'static str, Vec<String>>,
}

impl Values {
    pub(super) fn set(&mut self, name: &'static str, value: impl Into<String>) {
        self.texts.insert(name, value.into());
    }

    /// What stands for an argument that is nothing but `{name}`.
    pub(super) fn set_list(&mut self, name: &'static str, values: &[String]) {
        self.lists.insert(name, values.to_vec());
    }

    /// Replaces every `{name}` that is known; others stay, as braces of the text's own.
    pub(super) fn fill(&self, template: &str) -> String {
        let mut filled = String::with_capacity(template.len());
        let mut rest = template;
        while let Some(open) = rest.find('{') {
            filled.push_str(&rest[..open]);
            rest = &rest[open..];
            let known = rest.find('}').and_then(|close| Some((close, self.texts.get(&rest[1..close])?)));
            let taken = match known {
                Some((close, value)) => {
                    filled.push_str(value);
                    close + 1
                }
                None => {
                    filled.push('{');
                    1
                }
            };
            rest = &rest[taken..];
        }
        filled.push_str(rest);
        filled
    }

    /// The arguments, without the groups that name something empty.
    pub(super) fn args(&self, args: &[Arg]) -> Vec<String> {
        let mut filled = Vec::new();
        for arg in args {
            match arg {
                Arg::One(text) => match self.list(text) {
                    Some(values) => filled.extend_from_slice(values),
                    None => filled.push(self.fill(text)),
                },
                Arg::Group(texts) if texts.iter().any(|text| self.names_empty(text)) => {}
                Arg::Group(texts) => filled.extend(texts.iter().map(|text| self.fill(text))),
            }
        }
        filled
    }

    /// A line of JSON.
    pub(super) fn line(&self, template: &Value) -> String {
        format!("{}\n", self.json(template))
    }

    /// JSON whose strings are filled in.
    pub(super) fn json(&self, template: &Value) -> Value {
        match template {
            Value::String(text) => Value::String(self.fill(text)),
            Value::Array(items) => items.iter().map(|item| self.json(item)).collect(),
            Value::Object(fields) => {
                Value::Object(fields.iter().map(|(name, value)| (name.clone(), self.json(value))).collect())
            }
            other => other.clone(),
        }
    }

    fn list(&self, text: &str) -> Option<&[String]> {
        let name = text.strip_prefix('{')?.strip_suffix('}')?;
        self.lists.get(name).map(Vec::as_slice)
    }

    fn names_empty(&self, text: &str) -> bool {
        self.texts.iter().any(|(name, value)| value.is_empty() && text.contains(&format!("{{{name}}}")))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn values() -> Values {
        let mut values = Values::default();
        values.set("prompt", "say \"hi\"\nto {model}");
        values.set("model", "");
        values
    }

    #[test]
    fn what_a_value_holds_is_not_filled_again_and_unknown_braces_stay() {
        assert_eq!(values().fill("{x} {prompt}{"), "{x} say \"hi\"\nto {model}{");
    }

    #[test]
    fn a_group_that_names_something_empty_is_left_out() {
        let args = [
            Arg::One("-p".to_owned()),
            Arg::Group(vec!["--model".to_owned(), "{model}".to_owned()]),
            Arg::Group(vec!["--say={prompt}".to_owned()]),
        ];
        assert_eq!(values().args(&args), ["-p", "--say=say \"hi\"\nto {model}"]);
    }

    #[test]
    fn a_list_stands_for_as_many_arguments_as_it_has() {
        let mut values = values();
        values.set_list("trust_args", &["--mode".to_owned(), "{prompt}".to_owned()]);
        let args = [Arg::One("{trust_args}".to_owned()), Arg::One("-".to_owned())];
        assert_eq!(values.args(&args), ["--mode", "{prompt}", "-"]);
        values.set_list("trust_args", &[]);
        assert_eq!(values.args(&args), ["-"]);
    }

    #[test]
    fn a_line_of_json_is_one_line_whatever_the_prompt() {
        let line = values().line(&json!({"text": ["{prompt}"], "n": 1}));
        assert_eq!(line.matches('\n').count(), 1);
        let read: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["text"][0], "say \"hi\"\nto {model}");
    }
}
