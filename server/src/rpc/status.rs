//! The one map from errors to gRPC status. Causes of our own are logged here and never sent.

use std::{error::Error, time::Duration};

use murmur_core::{
    checklist::{Refused, TaskId},
    reason::Reason,
    slug::ResolveError,
};
use murmur_proto::status::{Details, field_refusal, field_status, refusal as detailed, status};
use tonic::Status;

use crate::{
    agents::AgentError,
    db::{Trouble, is_full},
    directory::DirectoryError,
    events::EventError,
    idempotency::OnceError,
    invalid::Invalid,
    nodes::NodeError,
    queue::QueueError,
    target::TargetError,
    tasks::TaskError,
    tokens::{AuthError, DelegateError, Refusal, TokenError},
    tunnels::TunnelError,
    uploads::UploadError,
    webhooks::WebhookError,
};

const BROKER_RETRY: Duration = Duration::from_secs(1);
const DRAIN_RETRY: Duration = Duration::from_secs(1);

/// A refusal by the contract's scope.
pub(crate) fn refusal(refusal: &Refusal) -> Status {
    let reason = match refusal {
        Refusal::TokenMissing => Reason::TokenMissing,
        Refusal::ScopeMissing(_) | Refusal::LocalOnly => Reason::ScopeMissing,
    };
    status(reason, refusal.to_string())
}

/// Too many calls.
pub(crate) fn rate_limited(retry_after: Duration) -> Status {
    let details = Details { retry_after: Some(retry_after), ..Details::default() };
    detailed(Reason::RateLimited, "too many calls", details)
}

/// The process is going down.
pub(crate) fn draining() -> Status {
    let details = Details { retry_after: Some(DRAIN_RETRY), ..Details::default() };
    detailed(Reason::Draining, "the control plane is shutting down", details)
}

/// The two ends speak different protocols.
pub(crate) fn version_skew(theirs: &str) -> Status {
    let ours = murmur_proto::PROTOCOL;
    status(Reason::VersionSkew, format!("the caller speaks protocol {theirs}, the control plane {ours}"))
}

/// The node cannot read the envelopes of this network.
pub(crate) fn wire_skew(min: u32, max: u32) -> Status {
    let ours = murmur_crypto::WIRE_VERSION;
    status(Reason::VersionSkew, format!("the node reads wire versions {min} to {max}, this network writes {ours}"))
}

impl From<Invalid> for Status {
    fn from(invalid: Invalid) -> Self {
        field_status(&invalid.path(), invalid.rule)
    }
}

impl From<AuthError> for Status {
    fn from(error: AuthError) -> Self {
        let reason = match &error {
            AuthError::Malformed(_) | AuthError::Unknown => Reason::TokenInvalid,
            AuthError::Expired => Reason::TokenExpired,
            AuthError::Revoked => Reason::TokenRevoked,
            AuthError::Db(_) => return storage(&error),
        };
        status(reason, with_causes(&error))
    }
}

impl From<DelegateError> for Status {
    fn from(error: DelegateError) -> Self {
        let reason = match &error {
            DelegateError::NotANode | DelegateError::ForeignAgent(_) | DelegateError::OutsideAccount => {
                Reason::DelegationRefused
            }
            DelegateError::NotApproved => Reason::NodePending,
            DelegateError::Db(_) => return storage(&error),
        };
        status(reason, error.to_string())
    }
}

impl From<TokenError> for Status {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Invalid(invalid) => invalid.into(),
            TokenError::Beyond(_) => status(Reason::ScopeMissing, error.to_string()),
            TokenError::WorkspaceNotFound(_) => status(Reason::WorkspaceNotFound, error.to_string()),
            TokenError::AgentNotFound(_) => status(Reason::AgentNotFound, error.to_string()),
            TokenError::NotFound(_) => status(Reason::TokenNotFound, error.to_string()),
            TokenError::CallerRevoked => status(Reason::TokenRevoked, error.to_string()),
            TokenError::Db(_) => storage(&error),
            TokenError::Random(_) => internal(&error),
        }
    }
}

impl From<DirectoryError> for Status {
    fn from(error: DirectoryError) -> Self {
        let reason = match error {
            DirectoryError::Invalid(invalid) => return invalid.into(),
            DirectoryError::Auth(auth) => return auth.into(),
            DirectoryError::Unresolved(unresolved) => return resolve(&unresolved),
            DirectoryError::OutsideScope { .. } => {
                return field_refusal(Reason::PolicyDenied, "path", error.to_string());
            }
            DirectoryError::Agent(error) => return (*error).into(),
            DirectoryError::Db(_) => return storage(&error),
            DirectoryError::Random(_) => return internal(&error),
            DirectoryError::WorkspaceExists(_) => Reason::WorkspaceExists,
            DirectoryError::WorkspaceNotFound(_) | DirectoryError::NoWorkspace => Reason::WorkspaceNotFound,
            DirectoryError::NodeNotFound(_) => Reason::NodeNotFound,
            DirectoryError::NodePending => Reason::NodePending,
            DirectoryError::SlugTaken(_) => Reason::SlugTaken,
            DirectoryError::AgentNotFound(_) => Reason::AgentNotFound,
            DirectoryError::Chain(_) | DirectoryError::Certificate(_) => Reason::CertificateRefused,
            DirectoryError::Prekey(_) => Reason::PrekeyRefused,
            DirectoryError::ResumeTokenStale => Reason::ResumeTokenStale,
        };
        status(reason, with_causes(&error))
    }
}

impl From<NodeError> for Status {
    fn from(error: NodeError) -> Self {
        let reason = match error {
            NodeError::Invalid(invalid) => return invalid.into(),
            NodeError::Auth(auth) => return auth.into(),
            NodeError::Token(token) => return token.into(),
            NodeError::Refused(refused) => return refusal(&refused),
            NodeError::Agent(error) => return (*error).into(),
            NodeError::BrokerDown | NodeError::Broker(_) => return broker(&error),
            NodeError::Db(_) => return storage(&error),
            NodeError::Random(_) => return internal(&error),
            NodeError::InviteInvalid(_) => Reason::InviteInvalid,
            NodeError::InviteExpired => Reason::InviteExpired,
            NodeError::InviteUsed => Reason::InviteUsed,
            NodeError::Beyond(_) => Reason::ScopeMissing,
            NodeError::WorkspaceNotFound(_) => Reason::WorkspaceNotFound,
            NodeError::NodeNotFound(_) => Reason::NodeNotFound,
            NodeError::NodePending => Reason::NodePending,
            NodeError::Chain(_) | NodeError::Certificate(_) => Reason::CertificateRefused,
            NodeError::List(_) | NodeError::ListOrder(_) => Reason::CertificateRefused,
            NodeError::Revoked => Reason::TokenRevoked,
            NodeError::Fenced(_) => Reason::NodeFenced,
        };
        status(reason, with_causes(&error))
    }
}

impl From<AgentError> for Status {
    fn from(error: AgentError) -> Self {
        let reason = match error {
            AgentError::Invalid(invalid) => return invalid.into(),
            AgentError::Unresolved(unresolved) => return resolve(&unresolved),
            AgentError::Auth(auth) => return auth.into(),
            AgentError::Once(once) => return once.into(),
            AgentError::Task(task) => return task.into(),
            AgentError::Limit { name, ref rule, retry_after } => {
                let metadata = [("limit", name), ("rule", rule.as_str())];
                let details = Details { retry_after, metadata: &metadata, ..Details::default() };
                return detailed(Reason::SpawnLimit, error.to_string(), details);
            }
            AgentError::Db(_) => return storage(&error),
            AgentError::Random(_) => return internal(&error),
            AgentError::NoWorkspace => Reason::WorkspaceNotFound,
            AgentError::NoIdentity => Reason::NoAgentIdentity,
            AgentError::NotFound(_) => Reason::AgentNotFound,
            AgentError::Live(_) => Reason::AgentLive,
            AgentError::Ended { .. } => Reason::AgentEnded,
            AgentError::Pruned(_) => Reason::AgentPruned,
            AgentError::Destroying(_) => Reason::AgentDestroying,
            AgentError::NotRunning { .. } => Reason::AgentNotRunning,
            AgentError::Phase(_) => Reason::PhaseRefused,
            AgentError::BackendNotFound(_) => Reason::BackendNotFound,
            AgentError::PersonaNotFound(_) => Reason::PersonaNotFound,
            AgentError::McpServerNotFound(_) => Reason::McpServerNotFound,
            AgentError::NodeNotFound(_) => Reason::NodeNotFound,
            AgentError::Denied(_) => Reason::AgentNotYours,
            AgentError::NodeOffline(_) => Reason::NodeOffline,
        };
        status(reason, error.to_string())
    }
}

impl From<EventError> for Status {
    fn from(error: EventError) -> Self {
        match error {
            EventError::Invalid(invalid) => invalid.into(),
            EventError::Agent(error) => error.into(),
            EventError::Auth(error) => error.into(),
            EventError::ResumeTokenStale => status(Reason::ResumeTokenStale, error.to_string()),
            EventError::Db(_) => storage(&error),
            EventError::Random(_) | EventError::Ended => internal(&error),
        }
    }
}

impl From<WebhookError> for Status {
    fn from(error: WebhookError) -> Self {
        let reason = match error {
            WebhookError::Invalid(invalid) => return invalid.into(),
            WebhookError::Token(token) => return token.into(),
            WebhookError::Db(_) => return storage(&error),
            WebhookError::Random(_) | WebhookError::Sealed => return internal(&error),
            WebhookError::Beyond(_) => Reason::ScopeMissing,
            WebhookError::NotFound(_) => Reason::WebhookNotFound,
            WebhookError::Exists(_) => Reason::WebhookExists,
            WebhookError::Limit(_) => Reason::WebhookLimit,
        };
        status(reason, error.to_string())
    }
}

impl From<OnceError> for Status {
    fn from(error: OnceError) -> Self {
        match error {
            OnceError::Conflict(_) => field_refusal(Reason::IdempotencyConflict, "idempotency_key", error.to_string()),
            OnceError::Db(_) => storage(&error),
            OnceError::Answer(_) => internal(&error),
        }
    }
}

impl From<TargetError> for Status {
    fn from(error: TargetError) -> Self {
        let reason = match error {
            TargetError::Agent(error) => return (*error).into(),
            TargetError::Denied(_) => Reason::AgentNotYours,
            TargetError::Stale { .. } => Reason::IncarnationStale,
        };
        status(reason, error.to_string())
    }
}

impl From<TaskError> for Status {
    fn from(error: TaskError) -> Self {
        match error {
            TaskError::Invalid(invalid) => invalid.into(),
            TaskError::Target(error) => error.into(),
            TaskError::NotFound(_) => status(Reason::TaskNotFound, error.to_string()),
            TaskError::Refused(refused) => checklist(&refused),
            TaskError::Once(error) => error.into(),
            TaskError::Db(_) => storage(&error),
        }
    }
}

impl From<QueueError> for Status {
    fn from(error: QueueError) -> Self {
        match error {
            QueueError::Invalid(invalid) => invalid.into(),
            QueueError::Target(error) => error.into(),
            QueueError::Agent(error) => error.into(),
            QueueError::Full(_) => status(Reason::QueueFull, error.to_string()),
            QueueError::Task(error) => error.into(),
            QueueError::TurnNotFound(_) => status(Reason::TurnNotFound, error.to_string()),
            QueueError::Once(error) => error.into(),
            QueueError::Db(_) => storage(&error),
            QueueError::Random(_) => internal(&error),
        }
    }
}

impl From<TunnelError> for Status {
    fn from(error: TunnelError) -> Self {
        match error {
            TunnelError::Invalid(invalid) => invalid.into(),
            TunnelError::AgentNotFound(_) => status(Reason::AgentNotFound, error.to_string()),
            TunnelError::Limit(_) => status(Reason::TunnelLimit, error.to_string()),
            TunnelError::Db(_) => storage(&error),
            TunnelError::Random(_) => internal(&error),
        }
    }
}

impl From<UploadError> for Status {
    fn from(error: UploadError) -> Self {
        match error {
            UploadError::Invalid(invalid) => invalid.into(),
            UploadError::Agent(error) => error.into(),
            UploadError::TooLarge { .. } => field_refusal(Reason::UploadTooLarge, "size_bytes", error.to_string()),
            UploadError::Limit(_) => status(Reason::UploadLimit, error.to_string()),
            UploadError::Store(_) | UploadError::Db(_) => storage(&error),
            UploadError::Random(_) => internal(&error),
        }
    }
}

fn checklist(refused: &Refused) -> Status {
    let text = refused.to_string();
    let with = |reason, key, value: &str| {
        detailed(reason, text.clone(), Details { metadata: &[(key, value)], ..Details::default() })
    };
    match refused {
        Refused::NotFound(_) => status(Reason::TaskNotFound, text),
        Refused::SelfEdge { field, id } => field_status(field, format!("item {id} cannot wait for itself")),
        Refused::Contradiction { field, other } => {
            field_status(field, format!("item {other} is in the list to add, too"))
        }
        Refused::Full { .. } => with(Reason::TaskLimit, "limit", "tasks"),
        Refused::TooManyEdges { .. } => with(Reason::TaskLimit, "limit", "edges"),
        Refused::Cycle(path) => with(Reason::TaskCycle, "path", &numbers(path)),
        Refused::Blocked { blockers, .. } => with(Reason::TaskBlocked, "blockers", &numbers(blockers)),
        Refused::Deleted(_) | Refused::Transition { .. } | Refused::Dormant(_) => status(Reason::TaskState, text),
    }
}

/// `1,2,3`.
fn numbers(ids: &[TaskId]) -> String {
    ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn resolve(error: &ResolveError) -> Status {
    match error {
        ResolveError::Invalid(_) | ResolveError::NoSibling { .. } => field_status("slug", error.to_string()),
        ResolveError::NoIdentity { .. } => status(Reason::NoAgentIdentity, error.to_string()),
        ResolveError::NotFound { .. } => status(Reason::AgentNotFound, error.to_string()),
        ResolveError::Ambiguous { child, sibling } => {
            let (child, sibling) = (child.to_string(), sibling.to_string());
            let metadata = [("child", child.as_str()), ("sibling", sibling.as_str())];
            detailed(Reason::AmbiguousSlug, error.to_string(), Details { metadata: &metadata, ..Details::default() })
        }
    }
}

fn broker(error: &NodeError) -> Status {
    if let NodeError::Broker(cause) = error {
        tracing::warn!(error = cause as &dyn Error, "broker refused a node's credential");
    }
    let details = Details { retry_after: Some(BROKER_RETRY), ..Details::default() };
    detailed(Reason::BrokerDown, "the broker cannot be reached", details)
}

fn storage(error: &(dyn Error + 'static)) -> Status {
    tracing::error!(error, "database failed");
    if is_full(error) {
        return status(Reason::StorageFull, Trouble::Full.to_string());
    }
    status(Reason::StorageFailed, "the control plane's database failed")
}

fn internal(error: &(dyn Error + 'static)) -> Status {
    tracing::error!(error, "call failed");
    status(Reason::Internal, "the control plane failed")
}

/// A refusal's message with the causes that the caller can act on.
fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}
