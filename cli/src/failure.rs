//! What went wrong, for a person and for a program: what happened, what to do, and the exit code.

use std::{fmt, io};

use murmur_core::reason::Reason;
use murmur_proto::{client::ConnectError, status::RpcError};
use serde_json::{Value, json};
use tonic::{Code, Status};

use crate::{exit::Exit, text};

/// A reason that only this program gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OwnReason {
    /// What was waited for did not come within `--timeout`.
    WaitTimedOut,
    /// A person ended the command.
    Interrupted,
}

impl OwnReason {
    const fn as_str(self) -> &'static str {
        match self {
            Self::WaitTimedOut => "WAIT_TIMED_OUT",
            Self::Interrupted => "INTERRUPTED",
        }
    }
}

/// Fields of calls that have another name on the command line, whichever command it is.
const OPTIONS: [(&str, &str); 5] = [
    ("page_token", "--page"),
    ("timeout_ms", "--timeout"),
    ("ttl_seconds", "--ttl"),
    ("in_reply_to", "--in-reply-to"),
    ("idempotency_key", "--idempotency-key"),
];

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) exit: Exit,
    /// What happened, lowercase, without a full stop.
    pub(crate) what: String,
    /// What to do about it.
    pub(crate) remedy: Option<String>,
    /// Murmur's reason, when the other end gave one.
    pub(crate) reason: Option<Reason>,
    /// This program's own reason.
    pub(crate) own_reason: Option<OwnReason>,
    /// The message that this is about, when there is one.
    pub(crate) msg_id: Option<String>,
    /// When the same call may succeed.
    pub(crate) retry_after_ms: Option<u64>,
    /// Refused fields with the rules they break.
    pub(crate) fields: Vec<(String, String)>,
}

impl Failure {
    pub(crate) fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self {
            exit,
            what: what.into(),
            remedy: None,
            reason: None,
            own_reason: None,
            msg_id: None,
            retry_after_ms: None,
            fields: Vec::new(),
        }
    }

    pub(crate) fn failed(what: impl Into<String>) -> Self {
        Self::new(Exit::Failed, what)
    }

    pub(crate) fn usage(what: impl Into<String>) -> Self {
        Self::new(Exit::Usage, what)
    }

    /// An option or argument, and the rule that it breaks.
    pub(crate) fn field(name: &str, rule: &str) -> Self {
        let mut failure = Self::usage(format!("{name}: {rule}")).reason(Reason::FieldInvalid);
        failure.fields.push((name.to_owned(), rule.to_owned()));
        failure
    }

    /// Adds what to do.
    pub(crate) fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    pub(crate) fn reason(mut self, reason: Reason) -> Self {
        self.reason = Some(reason);
        self
    }

    /// Adds a reason that is this program's own.
    pub(crate) const fn own_reason(mut self, reason: OwnReason) -> Self {
        self.own_reason = Some(reason);
        self
    }

    /// Adds which message it is about.
    pub(crate) fn about(mut self, msg_id: &str) -> Self {
        self.msg_id = Some(msg_id.to_owned());
        self
    }

    /// Names fields of a call as they are named on the command line.
    pub(crate) fn with_options(mut self, options: &[(&str, &str)]) -> Self {
        for (field, option) in options {
            // A message begins with the field that it is about.
            if let Some(rest) = self.what.strip_prefix(field).filter(|rest| rest.starts_with([':', ' '])) {
                self.what = format!("{option}{rest}");
            }
            for (name, _) in self.fields.iter_mut().filter(|(name, _)| name == field) {
                (*option).clone_into(name);
            }
        }
        self
    }

    /// The form for programs.
    pub(crate) fn json(&self) -> Value {
        let Self { exit, what, remedy, reason, own_reason, msg_id, retry_after_ms, fields } = self;
        let fields: Vec<_> = fields.iter().map(|(field, rule)| json!({"field": field, "rule": rule})).collect();
        json!({"error": {
            "exit": exit.code(),
            "reason": reason.map(Reason::as_str).or(own_reason.map(OwnReason::as_str)),
            "message": what,
            "hint": remedy,
            "msg_id": msg_id,
            "retry_after_ms": retry_after_ms,
            "fields": fields,
        }})
    }
}

impl fmt::Display for Failure {
    /// One line for what happened, one for each field, one for what to do.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", text::clean(&self.what))?;
        // A message that begins with the field already told it.
        for (field, rule) in self.fields.iter().filter(|(field, _)| !self.what.starts_with(field.as_str())) {
            write!(f, "\n  {}: {}", text::clean_line(field), text::clean_line(rule))?;
        }
        // A message that says when is not said again.
        if let Some(ms) = self.retry_after_ms.filter(|_| !self.what.contains("again in ")) {
            write!(f, "\n  again in {:.1} s", std::time::Duration::from_millis(ms).as_secs_f64())?;
        }
        match &self.remedy {
            Some(remedy) => write!(f, "\n  → {}", text::clean(remedy)),
            None => Ok(()),
        }
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let error = RpcError::from(&status);
        // A status with a source was made on this side, by the transport: the peer died under the call.
        let broke = error.code == Code::Unknown && std::error::Error::source(&status).is_some();
        let unreachable = error.is_unreachable() || broke;
        let RpcError { code, reason, message, hint, retry_after_ms, fields, metadata: _ } = error;
        let remedy = reason.and_then(local_remedy).or(hint).map(ToOwned::to_owned);
        if unreachable {
            return Self::new(Exit::Unavailable, format!("the connection broke: {message}"))
                .remedy("Run `murmurctl status` to see what is down.");
        }
        let what = if message.is_empty() { code.description().to_lowercase() } else { message };
        let exit = match reason {
            // The state does not fit, but what does not fit is who the caller is.
            Some(Reason::NameMismatch | Reason::NodePending) => Exit::Refused,
            _ => exit_of(code),
        };
        let failure = Self { exit, what, remedy, reason, own_reason: None, msg_id: None, retry_after_ms, fields };
        let failure = failure.with_options(&OPTIONS);
        match code {
            Code::Unimplemented if reason.is_none() => {
                failure.remedy("Upgrade the older side: `murmurctl doctor` shows versions.")
            }
            _ => failure,
        }
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        let what = error.to_string();
        match error {
            ConnectError::PathTooLong { .. } => {
                Self::usage(what).remedy("Name a shorter path with --socket or MURMUR_NODE_SOCKET.")
            }
            ConnectError::Url { url, rule, source: _ } => {
                Self::field("--server", &format!("{rule}; `{url}` is not such"))
                    .remedy("Correct --server or MURMUR_SERVER_URL.")
            }
            ConnectError::Socket { path, .. } => socket_failure(&what, &path),
            ConnectError::Server { .. } => Self::new(Exit::Unavailable, what)
                .reason(Reason::ControlPlaneDown)
                .remedy("Start it with `murmurctl up`, or name another with --server or MURMUR_SERVER_URL."),
        }
    }
}

/// A missing socket, a dead one and a forbidden one want different things done.
fn socket_failure(what: &str, path: &std::path::Path) -> Failure {
    match std::os::unix::net::UnixStream::connect(path).err().map(|error| error.kind()) {
        Some(io::ErrorKind::NotFound) => Failure::new(Exit::Unavailable, format!("{what}: the socket does not exist"))
            .reason(Reason::NodeDown)
            .remedy("Start a network with `murmurctl up`, or name the socket with --socket or MURMUR_NODE_SOCKET."),
        Some(io::ErrorKind::PermissionDenied) => Failure::new(Exit::Refused, format!("{what}: permission denied"))
            .reason(Reason::CallerUidRefused)
            .remedy(Reason::CallerUidRefused.hint()),
        _ => Failure::new(Exit::Unavailable, format!("{what}: the socket is there, but the node is not running"))
            .reason(Reason::NodeDown)
            .remedy("Start it with `murmurctl up`; its log is in the `logs` folder of the data directory."),
    }
}

/// Where this program can say more precisely what to do than the reason itself.
fn local_remedy(reason: Reason) -> Option<&'static str> {
    Some(match reason {
        Reason::AgentNotFound => {
            "Check the slug, or list the agents you can see with `murmurctl peers` and `murmurctl ls`."
        }
        Reason::NodePending => "Have the owner compare its fingerprint and run `murmurctl node approve`.",
        Reason::TokenMissing => "Name a token file with --token-file or MURMUR_TOKEN_FILE.",
        Reason::ControlPlaneDown => "Run `murmurctl up`, or try again later; messages between known agents still flow.",
        Reason::NodeDown => "Start it with `murmurctl up`.",
        Reason::RateLimited => "Slow down.",
        _ => return None,
    })
}

const fn exit_of(code: Code) -> Exit {
    match code {
        Code::Ok => Exit::Ok,
        Code::InvalidArgument => Exit::Usage,
        Code::NotFound => Exit::NotFound,
        Code::Unauthenticated | Code::PermissionDenied | Code::ResourceExhausted => Exit::Refused,
        Code::Unavailable => Exit::Unavailable,
        Code::DeadlineExceeded => Exit::Timeout,
        Code::Cancelled
        | Code::Unknown
        | Code::AlreadyExists
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Internal
        | Code::DataLoss => Exit::Failed,
    }
}

/// Turns any error into a failure that says what was being done.
pub(crate) trait Context<T> {
    /// `doing` completes "while …", such as "reading `x`".
    fn context(self, doing: impl Into<String>) -> Result<T, Failure>;
}

impl<T, E: std::error::Error> Context<T> for Result<T, E> {
    fn context(self, doing: impl Into<String>) -> Result<T, Failure> {
        self.map_err(|error| Failure::failed(format!("{}: {}", doing.into(), chain(&error))))
    }
}

/// An error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // Some libraries repeat their cause in their own message.
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use murmur_proto::status;

    use super::*;

    #[test]
    fn reasons_become_exit_codes() {
        let exit = |reason| Failure::from(status::status(reason, "x")).exit;
        assert_eq!(exit(Reason::AgentNotFound), Exit::NotFound);
        assert_eq!(exit(Reason::TokenInvalid), Exit::Refused);
        assert_eq!(exit(Reason::PolicyDenied), Exit::Refused);
        assert_eq!(exit(Reason::RateLimited), Exit::Refused);
        assert_eq!(exit(Reason::BrokerDown), Exit::Unavailable);
        assert_eq!(exit(Reason::RequestTimedOut), Exit::Timeout);
        assert_eq!(exit(Reason::BodyTooLarge), Exit::Usage);
        assert_eq!(exit(Reason::SlugTaken), Exit::Failed);
        assert_eq!(exit(Reason::NameMismatch), Exit::Refused);
    }

    #[test]
    fn a_field_is_named_as_on_the_command_line() {
        let failure = Failure::from(status::field_status("page_token", "must come from the page before"));
        assert_eq!(failure.what, "--page: must come from the page before");
        assert_eq!(failure.fields[0].0, "--page");
        let of_file = Failure::from(status::field_refusal(Reason::FileRefused, "path", "is no regular file"));
        let of_file = of_file.with_options(&[("path", "--file")]);
        assert_eq!(of_file.to_string().lines().next(), Some("error: --file: is no regular file"));
        let other = Failure::failed("pathological").with_options(&[("path", "--file")]);
        assert_eq!(other.what, "pathological");
    }

    #[test]
    fn the_delay_is_told_once() {
        let limited = |message: &str| {
            let retry_after = Some(std::time::Duration::from_millis(554));
            let details = status::Details { retry_after, ..status::Details::default() };
            Failure::from(status::refusal(Reason::RateLimited, message, details)).to_string()
        };
        assert_eq!(limited("too many; try again in 554 ms"), "error: too many; try again in 554 ms\n  → Slow down.");
        assert_eq!(limited("too many calls"), "error: too many calls\n  again in 0.6 s\n  → Slow down.");
    }

    #[test]
    fn a_program_is_told_the_reason_and_the_message() {
        let failure = Failure::new(Exit::Timeout, "late").own_reason(OwnReason::WaitTimedOut).about("01");
        let error = &failure.json()["error"];
        assert_eq!((&error["reason"], &error["msg_id"]), (&json!("WAIT_TIMED_OUT"), &json!("01")));
    }

    #[test]
    fn it_says_what_happened_then_what_to_do() {
        let text = Failure::from(status::status(Reason::AgentNotFound, "no agent `bo\u{1b}[2Jb`")).to_string();
        assert!(text.starts_with("error: no agent `bob`\n  → Check the slug"), "{text}");
    }
}
