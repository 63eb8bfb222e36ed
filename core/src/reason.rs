//! Every reason for which Murmur refuses something, as carried in `google.rpc.ErrorInfo` (AIP-193, DESIGN §8 point 17).
//!
//! A reason is for programs; its [`Reason::hint`] says to a person or a model what to do next. Not visible is always
//! `*_NOT_FOUND`; visible but not allowed is a refusal. When to retry is said by `RetryInfo` alone, not by the reason.

use std::{fmt, str::FromStr};

/// `ErrorInfo.domain` of every Murmur error.
pub const DOMAIN: &str = "murmur";

/// The class of an error: the gRPC status codes that Murmur uses, named here so that this room needs no RPC library.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// The call is wrong whatever the state.
    InvalidArgument,
    /// It is not known who calls.
    Unauthenticated,
    /// The caller is known and may not.
    PermissionDenied,
    /// There is no such thing, or the caller may not see it.
    NotFound,
    /// There is such a thing already.
    AlreadyExists,
    /// The state must change first.
    FailedPrecondition,
    /// A position that is not there, or not any more.
    OutOfRange,
    /// A limit is reached.
    ResourceExhausted,
    /// Something needed is away; the same call may succeed later.
    Unavailable,
    /// Somebody else got in between.
    Aborted,
    /// The answer did not come in time.
    DeadlineExceeded,
    /// A fault of ours.
    Internal,
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal, $class:ident, $hint:literal;)+) => {
        /// Why something was refused.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Reason {
            /// Every reason.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// `ErrorInfo.reason`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text),+ }
            }

            /// The class, which is the gRPC status code.
            #[must_use]
            pub const fn class(self) -> Class {
                match self { $(Self::$name => Class::$class),+ }
            }

            /// What to do next, as one sentence.
            #[must_use]
            pub const fn hint(self) -> &'static str {
                match self { $(Self::$name => $hint),+ }
            }
        }
    };
}

reasons! {
    /// A field of the call breaks a rule; the details name both.
    FieldInvalid = "FIELD_INVALID", InvalidArgument, "Correct the named field and call again.";

    /// The call carries no token where one is needed.
    TokenMissing = "TOKEN_MISSING", Unauthenticated, "Name a file that holds a token with --token-file.";
    /// The token is malformed or unknown.
    TokenInvalid = "TOKEN_INVALID", Unauthenticated, "Check that the whole token was copied, or ask for a new one.";
    /// No such token, neither of the control plane's nor of this node's, or the caller may not see it.
    TokenNotFound = "TOKEN_NOT_FOUND", NotFound, "Check the id; `murmurctl token ls` lists the control plane's tokens.";
    /// The token's time is over.
    TokenExpired = "TOKEN_EXPIRED", Unauthenticated, "Ask for a new token.";
    /// The token was withdrawn.
    TokenRevoked = "TOKEN_REVOKED", Unauthenticated, "Ask whoever revoked the token for a new one.";
    /// The token does not allow this kind of call.
    ScopeMissing = "SCOPE_MISSING", PermissionDenied, "Use a token that has the named scope.";
    /// The process at the other end of the socket belongs to another user.
    CallerUidRefused = "CALLER_UID_REFUSED", PermissionDenied, "Run as the user that owns the node.";
    /// This agent may only be spoken for with its own token.
    AgentTokenRequired = "AGENT_TOKEN_REQUIRED", Unauthenticated, "Pass the agent's token file.";

    /// The call needs a calling agent and there is none.
    NoAgentIdentity = "NO_AGENT_IDENTITY", InvalidArgument, "Register first, or name the agent with --agent or MURMUR_AGENT.";
    /// No agent that the caller may see has this slug or id.
    AgentNotFound = "AGENT_NOT_FOUND", NotFound, "Check the slug, or list the agents you can see.";
    /// A relative slug means two live agents.
    AmbiguousSlug = "AMBIGUOUS_SLUG", FailedPrecondition, "Use one of the two absolute slugs, or ./ or ../ in front.";
    /// A live agent has this slug already.
    SlugTaken = "SLUG_TAKEN", AlreadyExists, "Choose another name, end the agent that has it, or bring it here with `murmurctl register NAME --move`.";
    /// The name differs from the slug that the token is bound to.
    NameMismatch = "NAME_MISMATCH", FailedPrecondition, "Register under the slug that the token is bound to.";
    /// Another live session speaks for this agent.
    SessionTaken = "SESSION_TAKEN", FailedPrecondition, "End the other session, or register under another name.";
    /// A newer session took over.
    SessionReplaced = "SESSION_REPLACED", Aborted, "Leave it to the newer session, or register again to take over.";

    /// No node that the caller may see has this name or id.
    NodeNotFound = "NODE_NOT_FOUND", NotFound, "Check the name, or list the nodes.";
    /// The node waits to be approved.
    NodePending = "NODE_PENDING", FailedPrecondition, "Have the owner compare its fingerprint and approve the node.";
    /// Another process holds this node's live session.
    NodeFenced = "NODE_FENCED", FailedPrecondition, "Stop the other process that runs as this node.";

    /// The caller speaks for somebody whom it may not speak for.
    DelegationRefused = "DELEGATION_REFUSED", PermissionDenied, "Call through the node that the agent lives on, or with its token.";

    /// A live agent has the slug that was to be spawned.
    AgentLive = "AGENT_LIVE", AlreadyExists, "Give it work with queue_add, or choose another slug.";
    /// The agent has ended, and the call needs one that lives.
    AgentEnded = "AGENT_ENDED", FailedPrecondition, "Spawn it again with resurrect, or with force_new for a new one.";
    /// The agent ended so long ago that nothing of it was kept.
    AgentPruned = "AGENT_PRUNED", FailedPrecondition, "Spawn it anew, without resurrect; what it knew is gone.";
    /// The agent, or one above it, is being ended: nothing is begun there any more.
    AgentDestroying = "AGENT_DESTROYING", FailedPrecondition, "Wait until it has ended.";
    /// No turn of the agent runs.
    AgentNotRunning = "AGENT_NOT_RUNNING", FailedPrecondition, "Look at its phase; only a running turn can be interrupted.";
    /// There is no such transition between two phases.
    PhaseRefused = "PHASE_REFUSED", FailedPrecondition, "Look at the agent's phase and begin from there.";
    /// One of the bounds of spawning is reached; the details name it.
    SpawnLimit = "SPAWN_LIMIT", ResourceExhausted, "End some agents, wait, or have the named limit raised.";
    /// No node that could run the agent has this runtime.
    BackendNotFound = "BACKEND_NOT_FOUND", NotFound, "Choose a runtime that a node of the account has configured.";
    /// No node that could run the agent has this persona.
    PersonaNotFound = "PERSONA_NOT_FOUND", NotFound, "Choose a persona that a node of the account has configured.";
    /// No node that could run the agent has this MCP server.
    McpServerNotFound = "MCP_SERVER_NOT_FOUND", NotFound, "Name MCP servers that a node of the account has configured.";
    /// The agent's node is not connected.
    NodeOffline = "NODE_OFFLINE", Unavailable, "Try again when the node is back.";

    /// The caller sees the agent and does not decide over it.
    AgentNotYours = "AGENT_NOT_YOURS", PermissionDenied, "Ask the agent itself, one above it, or the owner of its account.";
    /// Another start of the agent lives.
    IncarnationStale = "INCARNATION_STALE", FailedPrecondition, "Stop the process; the agent was started anew.";

    /// The checklist has no item of this number.
    TaskNotFound = "TASK_NOT_FOUND", NotFound, "List the checklist to see its items.";
    /// Other items of the checklist are to be done first; the details name them.
    TaskBlocked = "TASK_BLOCKED", FailedPrecondition, "Complete or delete the named items first, or remove the edges to them.";
    /// Items of the checklist would wait for each other; the details tell the way.
    TaskCycle = "TASK_CYCLE", FailedPrecondition, "Remove one of the edges along the path first.";
    /// The item cannot become this from what it is.
    TaskState = "TASK_STATE", FailedPrecondition, "Look at the item and go on from what it is.";
    /// The checklist, or the item, has as much as it may; the details name the limit.
    TaskLimit = "TASK_LIMIT", ResourceExhausted, "Delete items that are no longer needed, or remove edges.";
    /// The agent's queue holds as much as it may.
    QueueFull = "QUEUE_FULL", ResourceExhausted, "Wait until the agent has taken some of it, or clear its queue.";
    /// The turn is not open: it was given up, and its follow-ups were handed out again.
    TurnNotFound = "TURN_NOT_FOUND", NotFound, "Claim the next turn.";

    /// No source of webhooks that the caller may see has this name or id.
    WebhookNotFound = "WEBHOOK_NOT_FOUND", NotFound, "List the webhooks to see their names.";
    /// The workspace has a source of webhooks of this name.
    WebhookExists = "WEBHOOK_EXISTS", AlreadyExists, "Choose another name, or remove the source that has it.";
    /// The workspace has as many sources of webhooks as it may.
    WebhookLimit = "WEBHOOK_LIMIT", ResourceExhausted, "Remove sources that are no longer used.";

    /// No workspace that the caller may see has this name.
    WorkspaceNotFound = "WORKSPACE_NOT_FOUND", NotFound, "Check the workspace's name, or create it.";
    /// There is a workspace of this name.
    WorkspaceExists = "WORKSPACE_EXISTS", AlreadyExists, "Choose another name, or ask its owner for an invite.";
    /// The invite is malformed, forged or unknown.
    InviteInvalid = "INVITE_INVALID", InvalidArgument, "Check that the whole invite was copied, or ask for a new one.";
    /// The invite's time is over.
    InviteExpired = "INVITE_EXPIRED", FailedPrecondition, "Ask for a new invite.";
    /// The invite was used as often as it allows.
    InviteUsed = "INVITE_USED", FailedPrecondition, "Ask for a new invite; if you did not use this one, tell its sender.";

    /// A certificate or its chain does not hold.
    CertificateRefused = "CERTIFICATE_REFUSED", FailedPrecondition, "Renew the certificate; if it is refused again, enrol anew.";
    /// A prekey is not signed by the agent's chain, or is out of its time.
    PrekeyRefused = "PREKEY_REFUSED", FailedPrecondition, "Publish a new prekey signed with the agent's current key.";
    /// The recipient has no usable key yet.
    KeyMissing = "KEY_MISSING", FailedPrecondition, "Wait until the recipient's node has come online once.";
    /// The other side's root key is not trusted here.
    PeerUntrusted = "PEER_UNTRUSTED", PermissionDenied, "Compare the safety number with its owner, then trust the peer.";

    /// No message that the caller may see has this id.
    MessageNotFound = "MESSAGE_NOT_FOUND", NotFound, "Check the message id, or list the messages.";
    /// The message is delivered or has ended: it cannot be taken back.
    MessageEnded = "MESSAGE_ENDED", FailedPrecondition, "Look how it ended; what was delivered cannot be taken back.";
    /// The message was not given up: there is nothing to begin again or to drop.
    MessageNotDead = "MESSAGE_NOT_DEAD", FailedPrecondition, "Look how it stands; only dead and expired messages are dead letters.";
    /// The file of a dead letter is not there any more as it was.
    FileGone = "FILE_GONE", FailedPrecondition, "Put the file back where it was sent from, or send it as a new message and drop this one.";
    /// No open request has this id.
    RequestNotFound = "REQUEST_NOT_FOUND", NotFound, "Check the request id; it may be answered or over.";
    /// The pair of agents has as many open requests as are allowed.
    RequestsOpenTooMany = "REQUESTS_OPEN_TOO_MANY", ResourceExhausted, "Wait until an open request is answered or over.";
    /// No reply came within the request's time.
    RequestTimedOut = "REQUEST_TIMED_OUT", DeadlineExceeded, "Look in the inbox later; a late reply still arrives there.";
    /// The body is longer than a message may carry.
    BodyTooLarge = "BODY_TOO_LARGE", InvalidArgument, "Shorten the body, or send where to find it.";
    /// The file is larger than may be sent.
    FileTooLarge = "FILE_TOO_LARGE", InvalidArgument, "Send a smaller file, or raise file_bytes_max on both nodes.";
    /// The file cannot be read, or may not be sent.
    FileRefused = "FILE_REFUSED", InvalidArgument, "Name a regular file that may be sent.";
    /// There is no such file where the agent may read.
    FileNotFound = "FILE_NOT_FOUND", NotFound, "Check the path; it is looked for from the working directory.";
    /// The file is outside the folders that the agent may show, or named like a secret.
    FileDenied = "FILE_DENIED", PermissionDenied, "Name a file below the working directory, or have its folder added to file_roots.";
    /// The file is larger than an upload may be.
    UploadTooLarge = "UPLOAD_TOO_LARGE", InvalidArgument, "Upload a smaller file, or have upload_bytes_max raised.";
    /// The account has as much uploaded as it may.
    UploadLimit = "UPLOAD_LIMIT", ResourceExhausted, "Wait until earlier uploads have expired, or have upload_account_bytes_max raised.";
    /// Nothing listens on the port.
    PortClosed = "PORT_CLOSED", FailedPrecondition, "Start what is to listen on the port, on the loopback interface, then call again.";
    /// The port is one that is not shown to others.
    PortDenied = "PORT_DENIED", PermissionDenied, "Choose another port, or have it taken off tunnel_deny_ports.";
    /// As many ports as are allowed have a URL.
    TunnelLimit = "TUNNEL_LIMIT", ResourceExhausted, "End agents that no longer need theirs.";
    /// As many files as are allowed are on their way between the two agents.
    TransfersOpenTooMany = "TRANSFERS_OPEN_TOO_MANY", ResourceExhausted, "Wait until a file has arrived, or cancel one.";
    /// No file transfer that the caller may see has this id.
    TransferNotFound = "TRANSFER_NOT_FOUND", NotFound, "List the transfers to see their ids.";
    /// The caller calls too often.
    RateLimited = "RATE_LIMITED", ResourceExhausted, "Slow down and try again after the given delay.";
    /// The recipient's inbox holds as much as it may.
    InboxFull = "INBOX_FULL", ResourceExhausted, "Wait until the recipient has read some of its messages.";
    /// A rule of one of the two sides forbids this.
    PolicyDenied = "POLICY_DENIED", PermissionDenied, "Ask the workspace's owner to change the named rule.";
    /// Sender and recipient are the same agent.
    SelfMessage = "SELF_MESSAGE", InvalidArgument, "Name another agent as the recipient.";
    /// The same idempotency key came with different content.
    IdempotencyConflict = "IDEMPOTENCY_CONFLICT", AlreadyExists, "Use a new key for new content.";

    /// There is no permission request of this id that the caller may answer.
    PermissionNotFound = "PERMISSION_NOT_FOUND", NotFound, "List the permission requests that you can answer.";
    /// Several agents have a permission request of this id.
    PermissionAmbiguous = "PERMISSION_AMBIGUOUS", FailedPrecondition, "Name the agent that asks as well.";
    /// The caller asked this itself.
    PermissionOwn = "PERMISSION_OWN", PermissionDenied, "Let the owner of the account or an agent above answer.";
    /// Somebody else answered first.
    PermissionAnswered = "PERMISSION_ANSWERED", FailedPrecondition, "Leave it; the first answer counts.";
    /// The request's time is over, or the program that asked is gone.
    PermissionOver = "PERMISSION_OVER", FailedPrecondition, "Wait until it is asked again.";

    /// The node has no notification channel of this name.
    ChannelNotFound = "CHANNEL_NOT_FOUND", NotFound, "List the channels with murmurctl notify-setup ls.";
    /// The node has as many notification channels as it may.
    ChannelLimit = "CHANNEL_LIMIT", ResourceExhausted, "Remove a channel that is no longer used.";
    /// The service behind a notification channel said no, or cannot be reached.
    ChannelRefused = "CHANNEL_REFUSED", FailedPrecondition, "Correct the channel as the message says, then test it again.";

    /// No node answers on the socket.
    NodeDown = "NODE_DOWN", Unavailable, "Start the node, then try again.";
    /// The broker cannot be reached.
    BrokerDown = "BROKER_DOWN", Unavailable, "Messages wait on disk; run murmurctl doctor if this lasts.";
    /// The control plane cannot be reached.
    ControlPlaneDown = "CONTROL_PLANE_DOWN", Unavailable, "Try again later; messages between known agents still flow.";
    /// A disk, database or stream is full.
    StorageFull = "STORAGE_FULL", ResourceExhausted, "Free some space on the named store.";
    /// Reading or writing a store failed.
    StorageFailed = "STORAGE_FAILED", Internal, "Look into the log of the named process.";
    /// The two sides speak versions that do not fit.
    VersionSkew = "VERSION_SKEW", FailedPrecondition, "Upgrade the older side.";
    /// The resume token is too old to continue from.
    ResumeTokenStale = "RESUME_TOKEN_STALE", OutOfRange, "Start the watch again without a resume token.";
    /// The process is shutting down and takes nothing new.
    Draining = "DRAINING", Unavailable, "Try again in a moment; another process takes over.";
    /// A fault of ours; the cause is in the log, never in the answer.
    Internal = "INTERNAL", Internal, "Report it with the trace id.";
}

impl Reason {
    /// Whether the same call may succeed later although its caller changes nothing: the refusal is about the moment, not about the call.
    #[must_use]
    pub const fn is_passing(self) -> bool {
        match self.class() {
            Class::Unauthenticated
            | Class::ResourceExhausted
            | Class::Unavailable
            | Class::Aborted
            | Class::DeadlineExceeded
            | Class::Internal => true,
            Class::FailedPrecondition => matches!(self, Self::NodeFenced | Self::NodePending | Self::VersionSkew),
            Class::InvalidArgument
            | Class::PermissionDenied
            | Class::NotFound
            | Class::AlreadyExists
            | Class::OutOfRange => false,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that is no reason of this version, such as one from a newer peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown error reason `{0}`")]
pub struct UnknownReason(String);

impl FromStr for Reason {
    type Err = UnknownReason;

    fn from_str(text: &str) -> Result<Self, UnknownReason> {
        Self::ALL
            .iter()
            .copied()
            .find(|reason| reason.as_str() == text)
            .ok_or_else(|| UnknownReason(text.chars().take(64).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rule_and_read_back() {
        for reason in Reason::ALL {
            let snake: String = format!("{reason:?}")
                .chars()
                .enumerate()
                .flat_map(|(at, c)| (at > 0 && c.is_uppercase()).then_some('_').into_iter().chain(c.to_uppercase()))
                .collect();
            assert_eq!(reason.as_str(), snake);
            assert_eq!(reason.as_str().parse(), Ok(*reason));
        }
        assert!("NOPE".parse::<Reason>().is_err());
    }

    #[test]
    fn what_is_hidden_looks_like_what_is_not_there() {
        for reason in Reason::ALL {
            assert_eq!(reason.as_str().ends_with("_NOT_FOUND"), reason.class() == Class::NotFound, "{reason}");
        }
    }

    #[test]
    fn a_refusal_passes_when_it_is_about_the_moment() {
        for passing in
            [Reason::RateLimited, Reason::StorageFull, Reason::StorageFailed, Reason::TokenExpired, Reason::NodeFenced]
        {
            assert!(passing.is_passing(), "{passing}");
        }
        for lasting in
            [Reason::FieldInvalid, Reason::AgentNotFound, Reason::IncarnationStale, Reason::DelegationRefused]
        {
            assert!(!lasting.is_passing(), "{lasting}");
        }
    }

    #[test]
    fn a_position_that_is_gone_is_out_of_range_and_nothing_else_is() {
        for reason in Reason::ALL {
            assert_eq!(*reason == Reason::ResumeTokenStale, reason.class() == Class::OutOfRange, "{reason}");
        }
    }

    #[test]
    fn every_hint_is_one_sentence() {
        for reason in Reason::ALL {
            let hint = reason.hint();
            assert!(hint.starts_with(char::is_uppercase) && hint.ends_with('.') && hint.len() > 15, "{reason}: {hint}");
        }
    }
}
