//! What runs an agent, as data: which program with which arguments, how it takes a prompt, and where in its output the answer is.
//!
//! There is one adapter. `claude`, `codex`, `openclaw`, `acp`, `http` and `command` are presets of it, written in the language of the node's
//! configuration (`presets/*.toml`); whoever has another program writes another table, over one of these or from nothing.

use std::collections::BTreeMap;

use murmur_proto::v1::TrustLevel;
use nix::sys::signal::Signal;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{answer::EventRule, hosted::Hosted};

const PRESETS: [(&str, &str); 6] = [
    ("command", include_str!("presets/command.toml")),
    ("claude", include_str!("presets/claude.toml")),
    ("codex", include_str!("presets/codex.toml")),
    ("openclaw", include_str!("presets/openclaw.toml")),
    ("acp", include_str!("presets/acp.toml")),
    ("http", include_str!("presets/http.toml")),
];

/// How to run an agent.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backend {
    /// The program: a path, or a name that `PATH` finds. Empty: it must be configured.
    #[serde(default)]
    pub program: String,
    /// Its arguments. `{prompt}`, `{model}`, `{slug}`, `{agent_id}`, `{session}`, `{system_prompt}`, `{mcp_config}`, `{mcp_allow}`, `{mcp_program}`, `{work_dir}`,
    /// `{home}`, and for a hosted agent `{node_program}` and `{request_file}` are replaced; a group in brackets is left out when something in it is empty. `{trust_args}`, alone, stands for all of
    /// `trust_args` of the agent's trust level.
    #[serde(default)]
    pub args: Vec<Arg>,
    /// Instead of `args`, when it is to go on with `{session}`; none: it cannot.
    #[serde(default)]
    pub resume_args: Vec<Arg>,
    /// Instead of `args`, when it is to begin with a copy of `{session}`; none: it cannot.
    #[serde(default)]
    pub fork_args: Vec<Arg>,
    /// Arguments for each trust level: what the program may do without asking. A spawn that names no level gets `medium`.
    #[serde(default)]
    pub trust_args: BTreeMap<Trust, Vec<String>>,
    /// How it takes a prompt.
    #[serde(default)]
    pub prompt: PromptBy,
    /// Its prompts are no text for a reader: each follow-up is a turn of its own and comes as it was written. Who gave it, and that it may
    /// have been told before, is in the variables `MURMUR_FROM` and `MURMUR_REDELIVERED`.
    #[serde(default)]
    pub verbatim: bool,
    /// With `prompt = "lines"`: the JSON that is written for a prompt, on one line.
    #[serde(default)]
    pub prompt_line: Option<Value>,
    /// With `prompt = "lines"`: the JSON that is written first, a line each; the first prompt waits for an event that `begins`.
    #[serde(default)]
    pub start_lines: Vec<Value>,
    /// The JSON that ends a turn, on one line; else a signal does.
    #[serde(default)]
    pub interrupt_line: Option<Value>,
    /// The signal that ends a turn: `INT`, `TERM`, `HUP`, `USR1`, `USR2` or `none`.
    #[serde(default)]
    pub interrupt_signal: InterruptSignal,
    /// What its output is.
    #[serde(default)]
    pub output: Format,
    /// With `output = "json"` or `"json_lines"`: what to read from it.
    #[serde(default)]
    pub events: Vec<EventRule>,
    /// Added to its environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Variables of the node's environment that it gets; a trailing `*` stands for any ending.
    #[serde(default)]
    pub pass_env: Vec<String>,
    /// The name that the program gives the first turn, so that it can be resumed though it never said so.
    #[serde(default)]
    pub session: String,
    /// A hosted agent: the call that a turn is, which is written to `{request_file}`.
    #[serde(default)]
    pub http: Option<Hosted>,
}

/// An argument.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Arg {
    /// Always given.
    One(String),
    /// Given when nothing that it names is empty.
    Group(Vec<String>),
}

/// How far an agent is trusted, as its spawn says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trust {
    /// It may look.
    Sandbox,
    /// It may do what somebody allows it each time.
    Low,
    /// It may change its working copy.
    Medium,
    /// It may do what the node's user can.
    High,
}

impl From<TrustLevel> for Trust {
    fn from(level: TrustLevel) -> Self {
        match level {
            TrustLevel::Sandbox => Self::Sandbox,
            TrustLevel::Low => Self::Low,
            TrustLevel::Unspecified | TrustLevel::Medium => Self::Medium,
            TrustLevel::High => Self::High,
        }
    }
}

/// How a program takes a prompt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PromptBy {
    /// All of its standard input; one process a turn.
    #[default]
    Stdin,
    /// By `{prompt}` in its arguments; one process a turn.
    Argument,
    /// A line of its standard input; the process stays from turn to turn.
    Lines,
}

/// What a program's output is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// All of it is the answer.
    #[default]
    Text,
    /// One JSON document.
    Json,
    /// A JSON document on each line.
    JsonLines,
}

/// What ends a turn from outside.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum InterruptSignal {
    /// SIGINT.
    #[default]
    Int,
    /// SIGTERM.
    Term,
    /// SIGHUP.
    Hup,
    /// SIGUSR1.
    Usr1,
    /// SIGUSR2.
    Usr2,
    /// It takes none.
    #[serde(rename = "none")]
    None,
}

/// A backend cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// Its name is none.
    #[error("the name must be 1 to 63 of a-z, 0-9, - and _")]
    Name,
    /// The preset does not exist.
    #[error("preset must be one of command, claude, codex, openclaw, acp, http; `{0}` is none")]
    Preset(String),
    /// A key is unknown or has a wrong value.
    #[error("{0}")]
    Key(#[from] serde_json::Error),
    /// A key is missing or says what does not go together.
    #[error("{key} must be {rule}")]
    Rule {
        /// The key.
        key: &'static str,
        /// What it must be.
        rule: &'static str,
    },
    /// A key of `http` breaks a rule.
    #[error("{key} must {rule}")]
    Http {
        /// The key.
        key: &'static str,
        /// What it must do.
        rule: &'static str,
    },
}

impl Backend {
    /// The presets that can run as they are.
    #[must_use]
    pub fn presets() -> BTreeMap<String, Self> {
        let usable = |(name, _): &(&str, &str)| {
            let backend = Self::configured(name, &Map::new()).ok()?;
            Some(((*name).to_owned(), backend))
        };
        PRESETS.iter().filter_map(usable).collect()
    }

    /// A backend from the keys of its table, over the preset that they name or the one of its own name.
    ///
    /// # Errors
    /// [`BackendError`] naming the key.
    pub fn configured(name: &str, keys: &Map<String, Value>) -> Result<Self, BackendError> {
        let mut keys = keys.clone();
        let wanted = match keys.remove("preset") {
            Some(Value::String(preset)) => Some(preset),
            Some(other) => return Err(BackendError::Preset(other.to_string())),
            None => None,
        };
        let text = |name: &str| PRESETS.iter().find(|(known, _)| *known == name).map(|(_, text)| *text);
        let preset = match &wanted {
            Some(preset) => text(preset).ok_or_else(|| BackendError::Preset(preset.clone()))?,
            None => text(name).unwrap_or_default(),
        };
        let mut table: Map<String, Value> = toml::from_str(preset).unwrap_or_default();
        table.extend(keys);
        let backend: Self = serde_json::from_value(Value::Object(table))?;
        backend.check()?;
        Ok(backend)
    }

    /// Whether the process stays from turn to turn.
    #[must_use]
    pub fn stays(&self) -> bool {
        self.prompt == PromptBy::Lines
    }

    /// Whether what it says is answered: hearing it twice would answer twice.
    #[must_use]
    pub fn replies(&self) -> bool {
        self.events.iter().any(|event| event.begins || event.reply.is_some())
    }

    /// The arguments of a trust level.
    #[must_use]
    pub fn trust_args(&self, trust: Trust) -> &[String] {
        self.trust_args.get(&trust).map_or(&[], Vec::as_slice)
    }

    /// Whether a turn can be ended without ending the agent.
    #[must_use]
    pub fn can_interrupt(&self) -> bool {
        self.interrupt_line.is_some() || self.interrupt_signal != InterruptSignal::None
    }

    /// Whether a new process can go on where an earlier one ended.
    #[must_use]
    pub fn can_resume(&self) -> bool {
        !self.resume_args.is_empty()
    }

    /// Whether its arguments carry what is added to the system prompt.
    #[must_use]
    pub fn takes_system_prompt(&self) -> bool {
        self.args.iter().any(|arg| match arg {
            Arg::One(text) => text.contains("{system_prompt}"),
            Arg::Group(texts) => texts.iter().any(|text| text.contains("{system_prompt}")),
        })
    }

    fn check(&self) -> Result<(), BackendError> {
        let rule = |holds: bool, key, rule| if holds { Ok(()) } else { Err(BackendError::Rule { key, rule }) };
        rule(!self.program.is_empty(), "program", "the program to run")?;
        rule(self.stays() == self.prompt_line.is_some(), "prompt_line", "set with `prompt = \"lines\"` and only then")?;
        rule(
            !(self.stays() && self.verbatim),
            "verbatim",
            "false with `prompt = \"lines\"`: the variables are a process's",
        )?;
        rule(!self.stays() || self.output == Format::JsonLines, "output", "`json_lines` with `prompt = \"lines\"`")?;
        let begins = self.events.iter().any(|event| event.begins);
        rule(self.start_lines.is_empty() != begins, "start_lines", "set with an event that `begins` and only then")?;
        rule(self.stays() || !begins, "start_lines", "set with `prompt = \"lines\"` and only then")?;
        let ends = self.events.iter().any(|event| event.ends_turn);
        rule(!self.stays() || ends, "events", "a list in which one `ends_turn` with `prompt = \"lines\"`")?;
        let has_events = self.output != Format::Text;
        rule(has_events != self.events.is_empty(), "events", "set for JSON output and only then")?;
        let names_request = |arg: &Arg| matches!(arg, Arg::One(text) if text == "{request_file}");
        let is_hosted = self.args.iter().any(names_request);
        rule(is_hosted == self.http.is_some(), "http", "set with `preset = \"http\"` and only then")?;
        if let Some(hosted) = &self.http {
            hosted.check().map_err(|(key, rule)| BackendError::Http { key, rule })?;
        }
        let plain = |name: &String| !name.is_empty() && !name.contains(['=', '\0']) && !name.starts_with("MURMUR_");
        rule(self.env.keys().all(plain), "env", "named without `=` and not MURMUR_*")?;
        Ok(())
    }
}

impl InterruptSignal {
    /// The signal.
    #[must_use]
    pub const fn signal(self) -> Option<Signal> {
        match self {
            Self::Int => Some(Signal::SIGINT),
            Self::Term => Some(Signal::SIGTERM),
            Self::Hup => Some(Signal::SIGHUP),
            Self::Usr1 => Some(Signal::SIGUSR1),
            Self::Usr2 => Some(Signal::SIGUSR2),
            Self::None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(name: &str, toml: &str) -> Result<Backend, String> {
        Backend::configured(name, &toml::from_str(toml).unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn every_preset_reads_and_some_need_a_program() {
        let presets = Backend::presets();
        assert_eq!(presets.keys().collect::<Vec<_>>(), ["claude", "codex", "openclaw"]);
        assert!(backend("acp", "program = 'x'").unwrap().replies());
        assert!(backend("command", "").unwrap_err().contains("program"));
        let claude = &presets["claude"];
        assert!(claude.stays() && claude.can_resume() && claude.can_interrupt() && claude.takes_system_prompt());
        assert_eq!(claude.trust_args(TrustLevel::Unspecified.into()), ["--permission-mode", "acceptEdits"]);
        assert_eq!(presets["codex"].trust_args(Trust::Sandbox), ["--sandbox", "read-only"]);
        assert!(presets["openclaw"].trust_args(Trust::High).is_empty());
    }

    #[test]
    fn what_is_configured_goes_over_the_preset() {
        let other = backend("reviewer", "preset = 'claude'\nprogram = '/opt/claude'").unwrap();
        assert_eq!(other.program, "/opt/claude");
        assert!(other.stays());
    }

    #[test]
    fn a_wrong_key_is_named() {
        assert!(backend("command", "program = 'x'\nprogramm = 'y'").unwrap_err().contains("programm"));
        assert!(backend("x", "preset = 'vim'").unwrap_err().contains("vim"));
        assert!(backend("x", "program = 'x'\nprompt = 'lines'").unwrap_err().contains("prompt_line"));
        assert!(backend("x", "program = 'x'\noutput = 'json'").unwrap_err().contains("events"));
        assert!(backend("x", "program = 'x'\nenv.MURMUR_SLUG = 'y'").unwrap_err().contains("env"));
        assert!(backend("http", "").unwrap_err().contains("http"));
        assert!(
            backend("http", "http.url = 'http://example.com'")
                .unwrap_err()
                .contains("http.url must begin with https://")
        );
        assert!(backend("command", "program = 'x'\nhttp.url = 'https://example.com'").unwrap_err().contains("http"));
        assert!(backend("far", "preset = 'http'\nhttp.url = 'https://example.com/run'").unwrap().can_resume());
    }
}
