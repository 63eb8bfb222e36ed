//! `/f/<key><extension>`: an uploaded file, to be saved and never shown: nothing in it may run here.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::get,
};
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{
        ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_SECURITY_POLICY,
        CONTENT_TYPE, ETAG, IF_NONE_MATCH, IF_RANGE, RANGE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    },
};

use super::range::{Wanted, wanted};
use crate::{
    links::LinkKey,
    uploads::{Fetched, UploadError, Uploads},
};

/// What holds of every answer here.
const HARMLESS: [(HeaderName, &str); 6] = [
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (CONTENT_SECURITY_POLICY, "default-src 'none'; sandbox; frame-ancestors 'none'"),
    (REFERRER_POLICY, "no-referrer"),
    (CACHE_CONTROL, "private, no-cache"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("x-robots-tag"), "noindex"),
];

/// The route.
pub(crate) fn router(uploads: Arc<Uploads>) -> Router {
    Router::new().route("/f/{name}", get(fetch)).with_state(uploads)
}

async fn fetch(State(uploads): State<Arc<Uploads>>, Path(name): Path<String>, headers: HeaderMap) -> Response {
    let mut response = match answer(&uploads, &name, &headers).await {
        Ok(response) => response,
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "an upload could not be read");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    };
    for (name, value) in HARMLESS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

async fn answer(uploads: &Uploads, name: &str, headers: &HeaderMap) -> Result<Response, UploadError> {
    let gone = || (StatusCode::NOT_FOUND, "there is no such file, or not any more\n").into_response();
    let Some((key, extension)) = named(name) else { return Ok(gone()) };
    let Some(file) = uploads.find(key, extension).await? else { return Ok(gone()) };
    let tag = format!("\"{}\"", data_encoding::HEXLOWER.encode(&file.sha256));
    let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let is_known =
        text(&IF_NONE_MATCH).is_some_and(|known| known == "*" || known.split(',').any(|one| one.trim() == tag));
    // A part is wanted of the file that the caller knows, or all of it.
    let range = text(&RANGE).filter(|_| text(&IF_RANGE).is_none_or(|known| known == tag));
    let (status, range) = match wanted(range, file.size_bytes) {
        _ if is_known => (StatusCode::NOT_MODIFIED, 0..0),
        Wanted::Whole => (StatusCode::OK, 0..file.size_bytes),
        Wanted::Part(range) => (StatusCode::PARTIAL_CONTENT, range),
        Wanted::Nothing => (StatusCode::RANGE_NOT_SATISFIABLE, 0..0),
    };
    let (first, length) = (range.start, range.end - range.start);
    let body = Body::from_stream(uploads.read(&file, range).await?);
    let mut response = (status, body).into_response();
    for (name, value) in described(&file, tag) {
        // All of it is made of harmless characters.
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(name, value);
        }
    }
    let size = file.size_bytes;
    let content_range = match status {
        StatusCode::PARTIAL_CONTENT => Some(format!("bytes {first}-{}/{size}", first + length - 1)),
        StatusCode::RANGE_NOT_SATISFIABLE => Some(format!("bytes */{size}")),
        _ => None,
    };
    if let Some(value) = content_range.and_then(|text| HeaderValue::from_str(&text).ok()) {
        response.headers_mut().insert(CONTENT_RANGE, value);
    }
    if status != StatusCode::NOT_MODIFIED {
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    Ok(response)
}

fn described(file: &Fetched, tag: String) -> [(HeaderName, String); 4] {
    [
        (CONTENT_TYPE, file.content_type.clone()),
        (CONTENT_DISPOSITION, format!("attachment; filename=\"{}\"", file.filename)),
        (ETAG, tag),
        (ACCEPT_RANGES, "bytes".to_owned()),
    ]
}

/// Key and extension; `None` for what no link of ours ends in.
fn named(name: &str) -> Option<(LinkKey, &str)> {
    let (key, extension) = name.split_at_checked(32)?;
    Some((key.parse().ok()?, extension))
}
