//! What a certificate may speak for: absolute slugs and slug prefixes, in the core's grammar and canonical spelling.
//!
//! The core lowercases accounts on the way in; here another spelling is another text, so it is refused.

use murmur_core::slug::{Scope, Slug};

/// Whether `text` is an absolute slug, spelled canonically.
pub(crate) fn is_slug(text: &str) -> bool {
    text.parse::<Slug>().is_ok_and(|slug| slug.to_string() == text)
}

/// Whether `text` is a slug prefix ending in `/`, spelled canonically.
pub(crate) fn is_scope(text: &str) -> bool {
    text.parse::<Scope>().is_ok_and(|scope| scope.as_str() == text)
}

/// Whether a slug or scope lies inside one of `scopes`. Scopes end in `/`, so a prefix never cuts a segment.
pub(crate) fn is_within(text: &str, scopes: &[String]) -> bool {
    scopes.iter().any(|scope| text.starts_with(scope.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_canonical_absolute_names_count() {
        assert!(is_slug("/w/acme/u/jdoe/alice") && is_scope("/w/acme/") && is_scope("/w/acme/u/jdoe/team/"));
        for bad in ["/w/acme/u/jdoe", "/u/jdoe/alice", "/w/acme/u/JDoe/alice", "/w/acme/u/jdoe/\u{430}lice", "self"] {
            assert!(!is_slug(bad), "{bad}");
        }
        for bad in ["/w/acme", "/", "/w/acme/u/JDoe/", ""] {
            assert!(!is_scope(bad), "{bad}");
        }
    }

    #[test]
    fn a_scope_covers_whole_segments_only() {
        let scopes = ["/w/acme/u/jdoe/".to_owned()];
        assert!(is_within("/w/acme/u/jdoe/alice", &scopes));
        assert!(!is_within("/w/acme/u/jdoe2/alice", &scopes));
    }
}
