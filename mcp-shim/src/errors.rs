//! What went wrong, as a model can act on it: what happened, then what to do.

use std::{path::Path, time::Duration};

use murmur_core::reason::Reason;
use murmur_proto::{client::ConnectError, status::RpcError};
use tonic::Code;

/// Why a tool has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{happened}")]
pub(crate) struct Failure {
    /// The reason, for programs.
    pub(crate) reason: Reason,
    /// What happened, without a full stop.
    pub(crate) happened: String,
    /// What to do, as sentences.
    pub(crate) remedy: String,
    /// The connection broke or was never there: nobody knows how the call ended.
    pub(crate) unreachable: bool,
    /// The field that was refused, by its name in the call that a tool made.
    field: Option<String>,
}

impl Failure {
    /// A refusal with a remedy of its own.
    pub(crate) fn new(reason: Reason, happened: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { reason, happened: happened.into(), remedy: remedy.into(), unreachable: false, field: None }
    }

    /// An argument that breaks a rule.
    pub(crate) fn argument(happened: impl Into<String>) -> Self {
        Self::new(Reason::FieldInvalid, happened, "Correct the argument and call the tool again.")
    }

    /// A refusal, with what this program's user can do about it.
    pub(crate) fn refused(reason: Reason, happened: impl Into<String>) -> Self {
        Self::new(reason, happened, remedy(reason))
    }

    /// Nobody answers on the socket.
    pub(crate) fn node_down(socket: &Path) -> Self {
        Self {
            unreachable: true,
            ..Self::refused(Reason::NodeDown, format!("no Murmur node answers on {}", socket.display()))
        }
    }

    /// The node took the call and said nothing for too long.
    pub(crate) fn node_silent(socket: &Path, waited: Duration) -> Self {
        let happened = format!("the Murmur node on {} did not answer within {} s", socket.display(), waited.as_secs());
        Self::new(Reason::NodeDown, happened, "Run `murmurctl doctor` in a shell and do what it says, then call again.")
    }

    /// No connection can be made at all.
    pub(crate) fn connect(error: &ConnectError, socket: &Path) -> Self {
        match error {
            ConnectError::PathTooLong { .. } => Self::new(
                Reason::FieldInvalid,
                error.to_string(),
                "Start murmur-mcp with --socket (or MURMUR_NODE_SOCKET) and a shorter path.",
            ),
            ConnectError::Socket { .. } | ConnectError::Url { .. } | ConnectError::Server { .. } => {
                Self::node_down(socket)
            }
        }
    }

    /// What the node, or the transport in its place, answered.
    pub(crate) fn rpc(error: &RpcError, socket: &Path) -> Self {
        match (error.reason, error.code) {
            (Some(reason), _) => Self {
                unreachable: reason == Reason::Draining,
                field: error.fields.first().map(|(field, _)| field.clone()),
                ..Self::new(reason, with_details(error), with_delay(remedy(reason), error.retry_after_ms))
            },
            (None, Code::Unimplemented) => Self::refused(
                Reason::VersionSkew,
                format!("the node on {} does not know this call: it is older than this murmur-mcp", socket.display()),
            ),
            // A node gives a reason with everything it refuses, so these come from a connection that broke.
            (None, Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled | Code::Aborted) => {
                Self::node_down(socket)
            }
            (None, _) => Self::refused(Reason::Internal, error.message.clone()),
        }
    }

    /// With the refused field by the name of the tool's argument, where that is another: pairs of the call's name and the argument's.
    pub(crate) fn named(mut self, names: &[(&str, &str)]) -> Self {
        let Some(field) = &self.field else { return self };
        let own = names.iter().find(|(called, _)| called == field).map(|(_, own)| *own);
        if let Some((own, rule)) = own.zip(self.happened.strip_prefix(field.as_str())) {
            self.happened = format!("{own}{rule}");
        }
        self
    }

    /// Nobody knows whether the call was taken: the connection to the node, or from it to the control plane, broke or was silent.
    pub(crate) fn is_uncertain(&self) -> bool {
        self.unreachable || matches!(self.reason, Reason::NodeDown | Reason::ControlPlaneDown)
    }

    /// The text of the tool result.
    pub(crate) fn text(&self) -> String {
        format!("{}: {}.\nWhat to do: {}", self.reason, self.happened.trim_end_matches('.'), self.remedy)
    }
}

/// What happened, with what it does not say by itself.
fn with_details(error: &RpcError) -> String {
    // A bare number or word may stand in the message by chance.
    let is_said = |value: &str| match value.contains(' ') {
        true => error.message.contains(value),
        false => error.message.contains(&format!("`{value}`")),
    };
    let unsaid = error.metadata.iter().filter(|(_, value)| !is_said(value));
    let details: Vec<_> = unsaid.map(|(key, value)| format!("{key}: {value}")).collect();
    if details.is_empty() { error.message.clone() } else { format!("{} ({})", error.message, details.join(", ")) }
}

fn with_delay(remedy: String, retry_after_ms: Option<u64>) -> String {
    match retry_after_ms {
        Some(delay) => format!("{remedy} Not before {delay} ms from now."),
        None => remedy,
    }
}

/// What to do about a reason, in terms of these tools; the reason's own hint where that says it well.
fn remedy(reason: Reason) -> String {
    match reason {
        Reason::NodeDown => {
            "Start it with `murmurctl up` in a shell, then call the tool again; murmur-mcp reconnects by itself."
        }
        Reason::AgentNotFound => {
            "Call `peers` to see whom you can write to, or `ls` for agents that were started, and use one of those slugs."
        }
        Reason::SessionTaken => {
            "Call `register` with another name, or with takeover=true to end the other session of this agent."
        }
        Reason::SessionReplaced => "Leave it to the newer session, or call `register` with takeover=true.",
        Reason::NoAgentIdentity => "Call `register` with a name.",
        Reason::VersionSkew => {
            "Upgrade the older side, then restart the node (`murmurctl down`, `murmurctl up`) and this session."
        }
        Reason::MessageNotFound => "Check the message id against what `inbox` with all=true shows.",
        other => other.hint(),
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use murmur_proto::status::{Details, refusal};
    use tonic::Status;

    use super::*;

    fn text(status: &Status) -> String {
        Failure::rpc(&RpcError::from(status), Path::new("/run/node.sock")).text()
    }

    #[test]
    fn a_refusal_says_what_happened_and_what_to_do() {
        let metadata = [("child", "/w/a/u/b/x/bob"), ("sibling", "/w/a/u/b/bob")];
        let status = refusal(
            Reason::AmbiguousSlug,
            "`bob` means two agents",
            Details { metadata: &metadata, ..Details::default() },
        );
        assert_eq!(
            text(&status),
            "AMBIGUOUS_SLUG: `bob` means two agents (child: /w/a/u/b/x/bob, sibling: /w/a/u/b/bob).\n\
             What to do: Use one of the two absolute slugs, or ./ or ../ in front."
        );
    }

    #[test]
    fn what_a_refusal_says_already_is_not_said_again() {
        let metadata = [("limit", "children"), ("rule", "at most 20 live agents below one")];
        let message = "spawn limit `children` is reached: at most 20 live agents below one";
        let status = refusal(Reason::SpawnLimit, message, Details { metadata: &metadata, ..Details::default() });
        assert!(text(&status).starts_with(&format!("SPAWN_LIMIT: {message}.\n")), "{}", text(&status));
    }

    #[test]
    fn a_refused_field_is_told_by_the_name_of_the_argument() {
        let refused = |field| {
            let status = murmur_proto::status::field_status(field, "must be a page_token");
            let names = [("page_token", "cursor"), ("path", "file")];
            Failure::rpc(&RpcError::from(&status), Path::new("/run/node.sock")).named(&names).happened
        };
        assert_eq!(refused("page_token"), "cursor: must be a page_token");
        assert_eq!(refused("paths"), "paths: must be a page_token");
    }

    #[test]
    fn a_missing_node_names_the_socket_and_the_command() {
        for status in [Status::unavailable("tcp connect error"), Status::unknown("transport error")] {
            let text = text(&status);
            assert!(text.starts_with("NODE_DOWN: no Murmur node answers on /run/node.sock."), "{text}");
            assert!(text.contains("murmurctl up"), "{text}");
        }
    }

    #[test]
    fn an_older_node_is_a_version_skew() {
        assert!(text(&Status::unimplemented("")).starts_with("VERSION_SKEW: "));
    }

    #[test]
    fn a_delay_is_told() {
        let delay = Some(Duration::from_millis(250));
        let status = refusal(Reason::RateLimited, "too often", Details { retry_after: delay, ..Details::default() });
        assert!(text(&status).ends_with("Not before 250 ms from now."));
    }
}
