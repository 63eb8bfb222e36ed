//! The one map from what can go wrong on this node to a gRPC status.

use std::time::Duration;

use murmur_core::{
    reason::Reason,
    slug::{ResolveError, SlugError},
};
use murmur_proto::status::{Details, RpcError, field_refusal, field_status, refusal, status};
use tonic::Status;
use tracing::error;

use super::{caller::CallerError, control::ControlError};
use crate::{
    agents::AgentError,
    directory::PeerTrouble,
    disk,
    keys::KeyError,
    notify::{NotifyError, PairError},
    permission::AnswerError,
    post::{QueryError, SendError},
    session::SessionTaken,
    store::StoreError,
    tunnel::TunnelError,
    upload::{FileError, UploadError},
};

/// A field breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) rule: String,
}

/// The node waits for its owner, or has not enrolled yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NodePending(pub(super) String);

/// Everything that a service of this node refuses for.
#[derive(Debug)]
pub(super) enum Refusal {
    Agent(AgentError),
    Answer(AnswerError),
    Caller(CallerError),
    Field(Field),
    Pending(NodePending),
    Notify(NotifyError),
    Pair(PairError),
    Peer { slug: String, trouble: PeerTrouble },
    Query(QueryError),
    Resolve(ResolveError),
    Send(SendError),
    Session(SessionTaken),
    Slug(SlugError),
    Store(StoreError),
    Tunnel(TunnelError),
    Upload(UploadError),
}

impl From<Refusal> for Status {
    fn from(refused: Refusal) -> Self {
        match refused {
            Refusal::Agent(error) => of_agent(error),
            Refusal::Answer(error) => of_answer(&error),
            Refusal::Caller(error) => of_caller(&error),
            Refusal::Field(Field { name, rule }) => field_status(name, rule),
            Refusal::Pending(NodePending(text)) => status(Reason::NodePending, text),
            Refusal::Notify(error) => of_notify(error),
            Refusal::Pair(error) => of_pair(&error),
            Refusal::Peer { slug, trouble } => status(of_trouble(&trouble), format!("{slug}: {trouble}")),
            Refusal::Query(error) => of_query(error),
            Refusal::Resolve(error) => of_resolve("to", &error),
            Refusal::Send(error) => of_send(error),
            Refusal::Session(taken) => status(Reason::SessionTaken, taken.to_string()),
            Refusal::Slug(error) => field_status("agent", error.to_string()),
            Refusal::Store(error) => of_store(&error),
            Refusal::Tunnel(error) => of_tunnel(error),
            Refusal::Upload(error) => of_upload(error),
        }
    }
}

macro_rules! refusals {
    ($($variant:ident($error:ty)),+ $(,)?) => {
        $(impl From<$error> for Refusal {
            fn from(error: $error) -> Self {
                Self::$variant(error)
            }
        })+
    };
}

refusals! {
    Agent(AgentError),
    Answer(AnswerError),
    Caller(CallerError),
    Field(Field),
    Notify(NotifyError),
    Pair(PairError),
    Pending(NodePending),
    Query(QueryError),
    Resolve(ResolveError),
    Send(SendError),
    Session(SessionTaken),
    Slug(SlugError),
    Store(StoreError),
    Tunnel(TunnelError),
    Upload(UploadError),
}

fn of_tunnel(error: TunnelError) -> Status {
    let text = error.to_string();
    match error {
        TunnelError::NoPort => field_status("port", text),
        TunnelError::Denied(_) => field_refusal(Reason::PortDenied, "port", text),
        TunnelError::Closed { .. } => status(Reason::PortClosed, text),
        TunnelError::Disk(_) => internal(&text),
        TunnelError::Control(error) => of_control(error),
    }
}

fn of_upload(error: UploadError) -> Status {
    let text = error.to_string();
    match error {
        UploadError::File(FileError::NotFound(_)) => status(Reason::FileNotFound, text),
        UploadError::File(FileError::Denied { .. }) => field_refusal(Reason::FileDenied, "path", text),
        UploadError::File(FileError::Refused(rule)) => field_refusal(Reason::FileRefused, "path", rule),
        UploadError::Control(error) => of_control(error),
    }
}

fn of_send(error: SendError) -> Status {
    let text = error.to_string();
    match error {
        SendError::Resolve(error) => of_resolve("to", &error),
        SendError::Ended { .. } => status(Reason::AgentNotFound, text),
        SendError::Field { field, rule } => field_status(field, rule),
        SendError::BodyTooLarge { .. } => field_refusal(Reason::BodyTooLarge, "body", text),
        SendError::SelfMessage => field_refusal(Reason::SelfMessage, "to", text),
        SendError::MessageNotFound { .. } => status(Reason::MessageNotFound, text),
        SendError::RateLimited { retry_after_ms, .. } => {
            let retry_after = Some(Duration::from_millis(retry_after_ms));
            refusal(Reason::RateLimited, text, Details { retry_after, ..Details::default() })
        }
        SendError::IdempotencyConflict { .. } => status(Reason::IdempotencyConflict, text),
        SendError::RequestsOpenTooMany { .. } => status(Reason::RequestsOpenTooMany, text),
        SendError::FileRefused { rule } => field_refusal(Reason::FileRefused, "path", rule),
        SendError::FileTooLarge { .. } => field_refusal(Reason::FileTooLarge, "path", text),
        SendError::TransfersOpenTooMany { .. } => status(Reason::TransfersOpenTooMany, text),
        SendError::DiskFull { .. } | SendError::SpoolFull { .. } => status(Reason::StorageFull, text),
        SendError::Spool(_) => status(Reason::StorageFailed, "the file could not be copied into the node's spool"),
        SendError::Store(error) => of_store(&error),
        SendError::Random => internal(&text),
    }
}

fn of_query(error: QueryError) -> Status {
    let text = error.to_string();
    match error {
        QueryError::MessageNotFound { .. } => status(Reason::MessageNotFound, text),
        QueryError::RequestNotFound { .. } => status(Reason::RequestNotFound, text),
        QueryError::NotQuarantined { .. } => status(Reason::MessageNotFound, text),
        QueryError::Ended { .. } => status(Reason::MessageEnded, text),
        QueryError::NotDead { .. } => status(Reason::MessageNotDead, text),
        QueryError::FileGone { .. } => status(Reason::FileGone, text),
        QueryError::AgentEnded { .. } | QueryError::NoAgent { .. } => status(Reason::AgentNotFound, text),
        QueryError::Unreadable { .. } | QueryError::Random => internal(&text),
        QueryError::TransferNotFound { .. } => status(Reason::TransferNotFound, text),
        QueryError::Send(error) => of_send(*error),
        QueryError::Resolve(error) => of_resolve("from", &error),
        QueryError::Store(error) => of_store(&error),
    }
}

fn of_resolve(field: &str, error: &ResolveError) -> Status {
    let text = error.to_string();
    match error {
        ResolveError::Invalid(_) | ResolveError::NoSibling { .. } => field_status(field, text),
        ResolveError::NoIdentity { .. } => field_refusal(Reason::NoAgentIdentity, field, text),
        ResolveError::Ambiguous { child, sibling } => {
            let (child, sibling) = (child.to_string(), sibling.to_string());
            let metadata = &[("child", child.as_str()), ("sibling", sibling.as_str())];
            refusal(Reason::AmbiguousSlug, text, Details { metadata, ..Details::default() })
        }
        ResolveError::NotFound { .. } => status(Reason::AgentNotFound, text),
    }
}

fn of_notify(error: NotifyError) -> Status {
    let text = error.to_string();
    match error {
        NotifyError::Invalid(invalid) => field_status(invalid.field, invalid.rule),
        NotifyError::Many => status(Reason::ChannelLimit, text),
        NotifyError::NotFound(_) => status(Reason::ChannelNotFound, text),
        NotifyError::File(error) if disk::is_full(&error) => of_store(&StoreError::Full),
        NotifyError::File(error) => {
            error!(%error, "a notification channel's file cannot be kept");
            status(Reason::StorageFailed, text)
        }
        NotifyError::Trouble(_) => status(Reason::ChannelRefused, text),
    }
}

fn of_pair(error: &PairError) -> Status {
    match error {
        PairError::Invalid(invalid) => field_status(invalid.field, invalid.rule.clone()),
        PairError::Trouble(_) | PairError::Late => status(Reason::ChannelRefused, error.to_string()),
        PairError::Store(error) => of_store(error),
        PairError::Random => internal(error),
    }
}

fn of_agent(error: AgentError) -> Status {
    match error {
        AgentError::Control(error) => of_control(error),
        AgentError::Slug(error) => field_status("agent", error.to_string()),
        AgentError::Store(error) => of_store(&error),
        AgentError::Keys(KeyError::Io { source, .. }) if disk::is_full(&source) => of_store(&StoreError::Full),
        AgentError::Keys(error) => internal(&error),
        AgentError::Random => internal(&error),
    }
}

fn of_answer(error: &AnswerError) -> Status {
    let text = error.to_string();
    match error {
        AnswerError::NotFound { .. } => status(Reason::PermissionNotFound, text),
        AnswerError::Ambiguous { .. } => status(Reason::PermissionAmbiguous, text),
        AnswerError::Own { .. } => status(Reason::PermissionOwn, text),
        AnswerError::Answered { .. } => status(Reason::PermissionAnswered, text),
        AnswerError::Over { .. } => status(Reason::PermissionOver, text),
        AnswerError::Store(error) => of_store(error),
    }
}

fn of_control(error: ControlError) -> Status {
    match error {
        ControlError::Down(_) => status(Reason::ControlPlaneDown, error.to_string()),
        ControlError::Refused(refused) => passed_on(&refused),
        ControlError::Malformed(_) => internal(&error),
    }
}

/// The control plane's refusal, word for word.
fn passed_on(error: &RpcError) -> Status {
    let Some(reason) = error.reason else { return Status::new(error.code, error.message.clone()) };
    let metadata: Vec<_> = error.metadata.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let details = Details {
        field: error.fields.first().map(|(field, rule)| (field.as_str(), rule.as_str())),
        retry_after: error.retry_after_ms.map(Duration::from_millis),
        metadata: &metadata,
    };
    refusal(reason, error.message.clone(), details)
}

fn of_caller(error: &CallerError) -> Status {
    let reason = match error {
        CallerError::OtherUser { .. } => Reason::CallerUidRefused,
        CallerError::Malformed(_) | CallerError::NoAgentToken | CallerError::Unknown => Reason::TokenInvalid,
        CallerError::TokenRequired { .. } => Reason::AgentTokenRequired,
        CallerError::UserAlone => Reason::ScopeMissing,
        CallerError::NameMismatch { .. } => Reason::NameMismatch,
        CallerError::Protocol { .. } => Reason::VersionSkew,
        CallerError::Foreign { .. } => Reason::AgentNotFound,
        CallerError::Store(error) => return of_store(error),
    };
    status(reason, error.to_string())
}

const fn of_trouble(trouble: &PeerTrouble) -> Reason {
    match trouble {
        PeerTrouble::Gone => Reason::AgentNotFound,
        PeerTrouble::NoKeys | PeerTrouble::NoRoute | PeerTrouble::Left => Reason::KeyMissing,
        PeerTrouble::Chain(_) | PeerTrouble::Mismatch(_) => Reason::CertificateRefused,
        PeerTrouble::Prekey(_) => Reason::PrekeyRefused,
    }
}

fn of_store(error: &StoreError) -> Status {
    match error {
        StoreError::Full => status(Reason::StorageFull, error.to_string()),
        StoreError::Closed => status(Reason::Draining, "the node is going down"),
        StoreError::Corrupt(_) | StoreError::Undone | StoreError::Sqlite(_) => {
            error!(%error, "the store failed");
            status(Reason::StorageFailed, "the node's store failed")
        }
    }
}

/// A fault of ours: told in the log, never to the caller.
pub(super) fn internal(error: &dyn std::fmt::Display) -> Status {
    error!(%error, "a call failed");
    status(Reason::Internal, "the node could not do this")
}
