//! Where a hosted agent is, and what it is sent.

use std::{collections::BTreeMap, path::PathBuf};

use http::{HeaderName, HeaderValue, header};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    outbound::{Place, Rules},
    runtime::template::Values,
};

const TIMEOUT_S_MAX: u64 = 24 * 3600;
const TRIES_MAX: u32 = 100;
/// Headers that the call itself sets, or that would change how it is read.
const OURS: [HeaderName; 8] = [
    header::HOST,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::TE,
    header::TRAILER,
];

/// The call that a turn is, as configured: `http` of a backend. With its body filled in it is the call of one turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hosted {
    /// Where the agent is.
    pub url: String,
    /// What is sent, as JSON; in its strings the values of a backend's arguments are replaced.
    #[serde(default = "default_body")]
    pub body: Value,
    /// Sent with it.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Sent with it: each the content of a file, which is where secrets belong.
    #[serde(default)]
    pub header_files: BTreeMap<String, PathBuf>,
    /// How long an answer may take, to its end, with all tries.
    #[serde(default = "default_timeout_s")]
    pub timeout_s: u64,
    /// How often a service is asked that takes no call now.
    #[serde(default = "default_tries")]
    pub tries: u32,
    /// The shortest and the longest wait between two tries; a service that asks for a longer one gets it.
    #[serde(default = "default_retry_ms")]
    pub retry_ms: [u64; 2],
    /// It may be on this host or its networks, on any port, and without TLS.
    #[serde(default)]
    pub allow_local: bool,
    /// Ports that may be called.
    #[serde(default = "default_ports")]
    pub ports: Vec<u16>,
    /// A PEM file with an authority that is trusted beside the system's.
    #[serde(default)]
    pub ca: Option<PathBuf>,
}

/// As `POST /agents/{name}/run` takes it.
fn default_body() -> Value {
    json!({ "task": { "input": "{prompt}", "metadata": { "agent": "{slug}", "session": "{session}", "model": "{model}" } } })
}

const fn default_timeout_s() -> u64 {
    600
}

const fn default_tries() -> u32 {
    5
}

const fn default_retry_ms() -> [u64; 2] {
    [1_000, 60_000]
}

fn default_ports() -> Vec<u16> {
    Rules::default().ports
}

impl Hosted {
    /// The rules of its calls.
    pub(super) fn rules(&self) -> Rules {
        Rules { ports: self.ports.clone(), allow_local: self.allow_local }
    }

    /// Says which key breaks which rule.
    pub(in crate::runtime) fn check(&self) -> Result<(), (&'static str, &'static str)> {
        let rule = |holds: bool, key, rule| if holds { Ok(()) } else { Err((key, rule)) };
        let place = self.url.parse::<Place>().map_err(|refused| ("http.url", refused.rule()))?;
        place.check(&self.rules()).map_err(|refused| ("http.url", refused.rule()))?;
        rule((1..=TIMEOUT_S_MAX).contains(&self.timeout_s), "http.timeout_s", "be 1 to 86400")?;
        rule((1..=TRIES_MAX).contains(&self.tries), "http.tries", "be 1 to 100")?;
        let [shortest, longest] = self.retry_ms;
        let is_wait = shortest >= 1 && shortest <= longest && longest <= TIMEOUT_S_MAX * 1000;
        rule(is_wait, "http.retry_ms", "be two waits, the shorter one first, of 1 ms to a day")?;
        let is_free = |name: &String| name.parse::<HeaderName>().is_ok_and(|name| !OURS.contains(&name));
        rule(self.headers.keys().all(is_free), "http.headers", "name headers that the call does not set itself")?;
        rule(
            self.header_files.keys().all(is_free),
            "http.header_files",
            "name headers that the call does not set itself",
        )?;
        let is_value = |value: &String| HeaderValue::from_str(value).is_ok();
        rule(self.headers.values().all(is_value), "http.headers", "have values without control characters")?;
        let absolute = |file: &PathBuf| file.is_absolute();
        rule(self.header_files.values().all(absolute), "http.header_files", "have absolute paths")?;
        rule(self.ca.iter().all(absolute), "http.ca", "be an absolute path")
    }

    /// The call of a turn.
    pub(in crate::runtime) fn filled(&self, values: &Values) -> Self {
        Self { body: values.json(&self.body), ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(toml: &str) -> Result<(), String> {
        let hosted: Hosted = toml::from_str(toml).map_err(|error| error.to_string())?;
        hosted.check().map_err(|(key, rule)| format!("{key} must {rule}"))
    }

    #[test]
    fn a_hosted_agent_is_called_by_the_rules_for_strangers() {
        assert_eq!(check("url = 'https://agents.example.com/agents/x/run'"), Ok(()));
        assert_eq!(check("url = 'http://127.0.0.1:8080/run'\nallow_local = true"), Ok(()));
        for (toml, key) in [
            ("url = 'http://example.com/run'", "http.url"),
            ("url = 'https://169.254.169.254/run'", "http.url"),
            ("url = 'https://example.com:8443/run'", "http.url"),
            ("url = 'https://me:you@example.com/run'", "http.url"),
            ("url = 'https://example.com'\ntimeout_s = 0", "http.timeout_s"),
            ("url = 'https://example.com'\ntries = 0", "http.tries"),
            ("url = 'https://example.com'\nretry_ms = [20, 10]", "http.retry_ms"),
            ("url = 'https://example.com'\nretry_ms = [0, 10]", "http.retry_ms"),
            ("url = 'https://example.com'\nheaders = { Host = 'x' }", "http.headers"),
            ("url = 'https://example.com'\nheaders = { x-a = \"a\\nb\" }", "http.headers"),
            ("url = 'https://example.com'\nheader_files = { authorization = 'key' }", "http.header_files"),
            ("url = 'https://example.com'\nhead = 1", "head"),
            ("allow_local = true", "url"),
        ] {
            assert!(check(toml).unwrap_err().contains(key), "{toml}");
        }
    }

    #[test]
    fn a_prompt_stays_one_text_of_the_body_whatever_it_holds() {
        let hosted: Hosted = toml::from_str("url = 'https://example.com'").unwrap();
        let mut values = Values::default();
        values.set("prompt", "say \"{slug}\"\n");
        values.set("slug", "/w/acme/u/jo/x");
        let body = hosted.filled(&values).body;
        assert_eq!(body["task"]["input"], "say \"{slug}\"\n");
        assert_eq!(body["task"]["metadata"]["agent"], "/w/acme/u/jo/x");
    }
}
