//! Which files wake a dormant item.

use std::{fmt, str::FromStr};

use globset::{GlobBuilder, GlobMatcher};

use crate::limits::TASK_PATTERN_BYTES_MAX;

/// A glob over paths inside a repository: `*` and `?` stay within a directory, `**` spans any number of them, `[…]` and `{a,b}` choose.
#[derive(Debug, Clone)]
pub struct Pattern(GlobMatcher);

/// A text that is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPattern {
    /// There is nothing to match.
    #[error("must not be empty")]
    Empty,
    /// It is longer than any path needs.
    #[error("must be at most {TASK_PATTERN_BYTES_MAX} bytes, got {0}")]
    Long(usize),
    /// Paths are told from the repository's root.
    #[error("must be relative to the repository's root, without a leading `/`, `./` or `../`")]
    Rooted,
    /// It cannot be read as a glob.
    #[error("is no glob: {0}")]
    Syntax(String),
}

impl Pattern {
    /// As written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.glob().glob()
    }

    /// Whether a path, told from the repository's root, fits.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        self.0.is_match(path.strip_prefix("./").unwrap_or(path))
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Pattern {}

impl FromStr for Pattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        if text.is_empty() {
            return Err(InvalidPattern::Empty);
        }
        if text.len() > TASK_PATTERN_BYTES_MAX {
            return Err(InvalidPattern::Long(text.len()));
        }
        if ["/", "./", "../"].iter().any(|lead| text.starts_with(lead)) {
            return Err(InvalidPattern::Rooted);
        }
        let glob = GlobBuilder::new(text).literal_separator(true).build();
        glob.map(|glob| Self(glob.compile_matcher())).map_err(|error| InvalidPattern::Syntax(error.kind().to_string()))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(pattern: &str, fits: &[&str], others: &[&str]) {
        let pattern: Pattern = pattern.parse().unwrap();
        for path in fits {
            assert!(pattern.matches(path), "{pattern} should fit {path}");
        }
        for path in others {
            assert!(!pattern.matches(path), "{pattern} should not fit {path}");
        }
    }

    #[test]
    fn one_star_stays_in_its_directory_and_two_do_not() {
        check("src/*.rs", &["src/a.rs", "./src/a.rs"], &["src/a/b.rs", "a.rs", "src/a.rsx"]);
        check("src/**/*.rs", &["src/a.rs", "src/a/b.rs", "src/a/b/c.rs"], &["tests/a.rs"]);
        check("**/Cargo.toml", &["Cargo.toml", "core/Cargo.toml"], &["core/Cargo.toml.bak"]);
        check("docs/**", &["docs/a", "docs/a/b.md"], &["docs", "doc/a"]);
        check("{a,b}/[0-9]?.txt", &["a/1x.txt", "b/2y.txt"], &["c/1x.txt", "a/x1.txt"]);
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for text in ["", "/etc/*", "./a", "../a", "a[", "{a", "a/**\\"] {
            assert!(text.parse::<Pattern>().is_err(), "{text}");
        }
        assert!("a".repeat(TASK_PATTERN_BYTES_MAX).parse::<Pattern>().is_ok());
        assert_eq!("a".repeat(513).parse::<Pattern>(), Err(InvalidPattern::Long(513)));
    }

    proptest! {
        #[test]
        fn no_text_panics_and_a_pattern_is_printed_as_written(text in "\\PC{0,80}", path in "\\PC{0,80}") {
            if let Ok(pattern) = text.parse::<Pattern>() {
                prop_assert_eq!(pattern.to_string(), text);
                let _ = pattern.matches(&path);
            }
        }
    }
}
