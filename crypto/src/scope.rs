//! What a certificate may speak for: absolute slugs and slug prefixes (PROTOCOL §2.4, AGENTS-AND-TOOLS §1).

use murmur_core::limits::{ACCOUNT_BYTES_MAX, SLUG_BYTES_MAX, SLUG_SEGMENT_BYTES_MAX, SLUG_SEGMENTS_MAX};

/// Whether `text` is an absolute slug, `/w/{workspace}/u/{account}/{one to eight segments}`.
pub(crate) fn is_slug(text: &str) -> bool {
    let Some(parts) = split(text) else { return false };
    let ["w", workspace, "u", account, path @ ..] = parts.as_slice() else { return false };
    is_segment(workspace) && is_account(account) && is_path(path) && !path.is_empty()
}

/// Whether `text` is a slug prefix: it ends in `/` and names at least a workspace.
pub(crate) fn is_scope(text: &str) -> bool {
    let Some(parts) = text.strip_suffix('/').and_then(split) else { return false };
    match parts.as_slice() {
        ["w", workspace] | ["w", workspace, "u"] => is_segment(workspace),
        ["w", workspace, "u", account, path @ ..] => is_segment(workspace) && is_account(account) && is_path(path),
        _ => false,
    }
}

/// Whether a slug or scope lies inside one of `scopes`. Scopes end in `/`, so a prefix never cuts a segment.
pub(crate) fn is_within(text: &str, scopes: &[String]) -> bool {
    scopes.iter().any(|scope| text.starts_with(scope.as_str()))
}

fn split(text: &str) -> Option<Vec<&str>> {
    if text.len() > SLUG_BYTES_MAX {
        return None;
    }
    Some(text.strip_prefix('/')?.split('/').collect())
}

fn is_path(segments: &[&str]) -> bool {
    segments.len() <= SLUG_SEGMENTS_MAX && segments.iter().all(|segment| is_segment(segment))
}

fn is_segment(text: &str) -> bool {
    is_word(text, SLUG_SEGMENT_BYTES_MAX) && !matches!(text, "w" | "u" | "self")
}

fn is_account(text: &str) -> bool {
    is_word(text, ACCOUNT_BYTES_MAX)
}

fn is_word(text: &str, len_max: usize) -> bool {
    let inner = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-';
    !text.is_empty()
        && text.len() <= len_max
        && text.as_bytes().iter().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs_are_absolute_lowercase_and_bounded() {
        assert!(is_slug("/w/acme/u/jdoe/alice"));
        assert!(is_slug("/w/acme/u/jdoe/a/b/c/d/e/f/g/h"));
        for bad in [
            "/w/acme/u/jdoe",
            "/w/acme/u/jdoe/",
            "/w/acme/u/jdoe/Alice",
            "/w/acme/u/jdoe/self",
            "/w/acme/u/jdoe/_x",
            "/w/acme/u/jdoe/../x",
            "/w/acme/u/jdoe/a/b/c/d/e/f/g/h/i",
            "/w/acme/u/jdoe/\u{430}lice",
            "acme",
        ] {
            assert!(!is_slug(bad), "{bad}");
        }
    }

    #[test]
    fn a_scope_covers_whole_segments_only() {
        assert!(is_scope("/w/acme/") && is_scope("/w/acme/u/jdoe/team/"));
        assert!(!is_scope("/w/acme") && !is_scope("/") && !is_scope("/w//"));
        let scopes = ["/w/acme/u/jdoe/".to_owned()];
        assert!(is_within("/w/acme/u/jdoe/alice", &scopes));
        assert!(!is_within("/w/acme/u/jdoe2/alice", &scopes));
    }
}
