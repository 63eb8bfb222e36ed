//! A [`Reason`] as a gRPC status with details, and a status read back as an [`RpcError`].
//!
//! Every refusal of ours carries `google.rpc.ErrorInfo` (domain `murmur`), a refused field also `BadRequest`, and one that may be
//! repeated `RetryInfo`; nothing else says when to retry.

use std::{collections::HashMap, fmt, time::Duration};

use bytes::Bytes;
use murmur_core::{
    limits::SLUG_BYTES_MAX,
    reason::{Class, DOMAIN, Reason},
    text::shortened,
};
use prost::Message as _;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, RetryInfo, StatusExt, pb};

use crate::{node::v1::SendRefusal, time};

/// Length of each text of a refusal, which may repeat what a caller wrote. They travel in trailers, of which a client that is given more
/// than 8 KiB drops all, and with them what was refused. A slug is told whole.
const TEXT_BYTES_MAX: usize = SLUG_BYTES_MAX;
/// Length of a field's name and of a key.
const NAME_BYTES_MAX: usize = 128;
/// Entries of `ErrorInfo.metadata`.
const METADATA_MAX: usize = 4;

/// A refusal with its reason. The message says what happened; the reason's hint says what to do.
#[must_use]
pub fn status(reason: Reason, message: impl Into<String>) -> Status {
    refusal(reason, message, Details::default())
}

/// A refused field: which one, and the rule that it breaks.
#[must_use]
pub fn field_status(field: &str, rule: impl Into<String>) -> Status {
    field_refusal(Reason::FieldInvalid, field, rule)
}

/// A refused field with a more telling reason than [`Reason::FieldInvalid`], such as [`Reason::BodyTooLarge`].
#[must_use]
pub fn field_refusal(reason: Reason, field: &str, rule: impl Into<String>) -> Status {
    let rule = rule.into();
    refusal(reason, format!("{field}: {rule}"), Details { field: Some((field, &rule)), ..Details::default() })
}

/// What a refusal says beside its reason and message.
#[derive(Debug, Default, Clone, Copy)]
pub struct Details<'a> {
    /// The field and the rule that it breaks.
    pub field: Option<(&'a str, &'a str)>,
    /// When the same call may succeed.
    pub retry_after: Option<Duration>,
    /// `ErrorInfo.metadata`, such as the two candidates of an ambiguous slug.
    pub metadata: &'a [(&'a str, &'a str)],
}

/// A refusal with details.
#[must_use]
pub fn refusal(reason: Reason, message: impl Into<String>, details: Details<'_>) -> Status {
    let text = |text: &str| shortened(text.to_owned(), TEXT_BYTES_MAX);
    let name = |name: &str| shortened(name.to_owned(), NAME_BYTES_MAX);
    let metadata: HashMap<String, String> =
        details.metadata.iter().take(METADATA_MAX).map(|(key, value)| (name(key), text(value))).collect();
    let mut attached = ErrorDetails::new();
    attached.set_error_info(reason.as_str(), DOMAIN, metadata);
    if let Some((field, rule)) = details.field {
        attached.add_bad_request_violation(name(field), text(rule));
    }
    if let Some(delay) = details.retry_after {
        attached.set_retry_info(Some(delay));
    }
    Status::with_error_details(code(reason), shortened(message.into(), TEXT_BYTES_MAX), attached)
}

/// The gRPC code of a reason.
#[must_use]
pub fn code(reason: Reason) -> Code {
    match reason.class() {
        Class::InvalidArgument => Code::InvalidArgument,
        Class::Unauthenticated => Code::Unauthenticated,
        Class::PermissionDenied => Code::PermissionDenied,
        Class::NotFound => Code::NotFound,
        Class::AlreadyExists => Code::AlreadyExists,
        Class::FailedPrecondition => Code::FailedPrecondition,
        Class::OutOfRange => Code::OutOfRange,
        Class::ResourceExhausted => Code::ResourceExhausted,
        Class::Unavailable => Code::Unavailable,
        Class::Aborted => Code::Aborted,
        Class::DeadlineExceeded => Code::DeadlineExceeded,
        Class::Internal => Code::Internal,
    }
}

/// The name of a gRPC code as the standard writes it, such as `NOT_FOUND`: for metrics and logs.
#[must_use]
pub const fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

impl From<Status> for SendRefusal {
    fn from(status: Status) -> Self {
        let reason = status.get_details_error_info().map(|info| info.reason);
        Self {
            code: status.code().into(),
            reason: reason.unwrap_or_default(),
            message: status.message().to_owned(),
            details: Bytes::copy_from_slice(status.details()),
        }
    }
}

impl From<SendRefusal> for Status {
    fn from(refusal: SendRefusal) -> Self {
        let SendRefusal { code, reason: _, message, details } = refusal;
        Self::with_details(Code::from(code), message, details)
    }
}

/// A refusal as a caller sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RpcError {
    /// The gRPC code.
    pub code: Code,
    /// The reason, when the other end is Murmur and knows it; `None` for a broken connection.
    pub reason: Option<Reason>,
    /// What happened.
    pub message: String,
    /// What to do, when there is a reason to tell it by.
    pub hint: Option<&'static str>,
    /// When the same call may succeed, in milliseconds.
    pub retry_after_ms: Option<u64>,
    /// Refused fields with their rules.
    pub fields: Vec<(String, String)>,
    /// `ErrorInfo.metadata`, sorted by key.
    pub metadata: Vec<(String, String)>,
}

impl RpcError {
    /// Whether the connection itself failed, so that the other end never answered.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        self.reason.is_none() && matches!(self.code, Code::Unavailable)
    }

    /// Whether the same call may succeed later although its caller changes nothing. What names no reason that this version knows is told
    /// by its code.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self.reason {
            Some(reason) => reason.is_passing(),
            None => !matches!(
                self.code,
                Code::InvalidArgument
                    | Code::NotFound
                    | Code::AlreadyExists
                    | Code::PermissionDenied
                    | Code::FailedPrecondition
                    | Code::OutOfRange
                    | Code::Unimplemented
            ),
        }
    }
}

impl From<&Status> for RpcError {
    fn from(status: &Status) -> Self {
        let info = status.get_details_error_info().filter(|info| info.domain == DOMAIN);
        let reason = info.as_ref().and_then(|info| info.reason.parse::<Reason>().ok());
        let mut metadata: Vec<_> = info.map(|info| info.metadata.into_iter().collect()).unwrap_or_default();
        metadata.sort();
        Self {
            // tonic reports a deadline of its own as a cancellation with this text.
            code: if status.code() == Code::Cancelled && status.message() == "Timeout expired" {
                Code::DeadlineExceeded
            } else {
                status.code()
            },
            reason,
            message: status.message().to_owned(),
            hint: reason.map(Reason::hint),
            retry_after_ms: retry_delay(status).and_then(|delay| u64::try_from(delay.as_millis()).ok()),
            fields: status
                .get_details_bad_request()
                .map(|bad| bad.field_violations.into_iter().map(|v| (v.field, v.description)).collect())
                .unwrap_or_default(),
            metadata,
        }
    }
}

/// When the same call may succeed, as far as the other end says so in a way that can be read.
fn retry_delay(status: &Status) -> Option<Duration> {
    let told = pb::Status::decode(status.details()).ok()?;
    let retry = told.details.iter().find(|detail| detail.type_url == RetryInfo::TYPE_URL)?;
    // Not by the library, which converts it by a way that panics at its bounds.
    time::span(&pb::RetryInfo::decode(retry.value.as_slice()).ok()?.retry_delay?)
}

impl From<Status> for RpcError {
    fn from(status: Status) -> Self {
        Self::from(&status)
    }
}

impl fmt::Display for RpcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for RpcError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_reads_back_whole() {
        let sent = refusal(
            Reason::RateLimited,
            "alice writes to bob too often",
            Details {
                retry_after: Some(Duration::from_millis(250)),
                metadata: &[("peer", "/w/acme/u/jdoe/bob")],
                ..Details::default()
            },
        );
        let read = RpcError::from(&sent);
        assert_eq!(read.code, Code::ResourceExhausted);
        assert_eq!(read.reason, Some(Reason::RateLimited));
        assert_eq!(read.retry_after_ms, Some(250));
        assert_eq!(read.metadata, [("peer".to_owned(), "/w/acme/u/jdoe/bob".to_owned())]);
        assert!(read.hint.is_some() && !read.is_unreachable());
    }

    #[test]
    fn a_refused_field_is_named() {
        let read = RpcError::from(&field_status("ttl_seconds", "must be 1 to 604800, got 0"));
        assert_eq!(read.message, "ttl_seconds: must be 1 to 604800, got 0");
        assert_eq!(read.fields, [("ttl_seconds".to_owned(), "must be 1 to 604800, got 0".to_owned())]);
    }

    #[test]
    fn a_refusal_fits_into_trailers_whatever_it_repeats() {
        let long = "é".repeat(9_000);
        let keys: [String; 9] = std::array::from_fn(|number| format!("{number}{long}"));
        let metadata = keys.each_ref().map(|key| (key.as_str(), long.as_str()));
        let details = Details { field: Some((&long, &long)), retry_after: Some(Duration::MAX), metadata: &metadata };
        let sent = refusal(Reason::FieldInvalid, long.clone(), details);
        let headers = sent.clone().into_http::<()>();
        let bytes: usize = headers.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
        assert!(bytes < 7 * 1024, "{bytes}");
        let read = RpcError::from(&sent);
        assert!(read.message.ends_with("é…") && read.fields[0].1.ends_with("é…"), "{read:?}");
        assert_eq!(read.reason, Some(Reason::FieldInvalid));
        let slug = format!("/w/{}", "s".repeat(SLUG_BYTES_MAX - 3));
        let details = Details { metadata: &[("child", &slug)], ..Details::default() };
        assert_eq!(RpcError::from(&refusal(Reason::AmbiguousSlug, "", details)).metadata[0].1, slug);
    }

    #[test]
    fn a_delay_that_is_none_is_not_read() {
        let delay = |seconds, nanos| {
            let retry = pb::RetryInfo { retry_delay: Some(prost_types::Duration { seconds, nanos }) };
            let detail = prost_types::Any { type_url: RetryInfo::TYPE_URL.into(), value: retry.encode_to_vec() };
            let told = pb::Status { details: vec![detail], ..pb::Status::default() };
            RpcError::from(Status::with_details(Code::Unavailable, "", told.encode_to_vec().into())).retry_after_ms
        };
        assert_eq!(delay(1, 500_000_000), Some(1_500));
        assert_eq!((delay(i64::MIN, 1), delay(i64::MIN, 0), delay(-1, 0)), (None, None, None));
    }

    #[test]
    fn a_broken_connection_has_no_reason() {
        assert!(RpcError::from(&Status::unavailable("tcp connect error")).is_unreachable());
    }
}
