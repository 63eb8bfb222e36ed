//! A path of segments, and the absolute slug that it ends.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{AccountName, Segment, SlugError, SlugRule, WorkspaceName, name::check_segment, text::SlugText};
use crate::limits::{SLUG_BYTES_MAX, SLUG_SEGMENTS_MAX};

/// One to eight segments joined by `/`: where an agent sits below its account.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AgentPath(String);

impl AgentPath {
    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// How many segments it has, 1 to 8.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.0.split('/').count()
    }

    /// The segments, outermost first.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    /// The last segment: the agent's own name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.rsplit_once('/').map_or(self.as_str(), |(_, name)| name)
    }

    /// The path without its last segment; `None` directly below the account.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        self.0.rsplit_once('/').map(|(parent, _)| Self(parent.to_owned()))
    }

    /// This path continued by another.
    ///
    /// # Errors
    /// [`SlugError`] when the result has more than eight segments.
    pub fn join(&self, below: &Self) -> Result<Self, SlugError> {
        format!("{}/{}", self.0, below.0).parse()
    }
}

impl From<Segment> for AgentPath {
    fn from(segment: Segment) -> Self {
        Self(segment.into())
    }
}

impl FromStr for AgentPath {
    type Err = SlugError;

    fn from_str(text: &str) -> Result<Self, SlugError> {
        for (index, segment) in text.split('/').enumerate() {
            check_segment(segment)?;
            if index == SLUG_SEGMENTS_MAX {
                return Err(SlugError::new(segment, SlugRule::Depth));
            }
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for AgentPath {
    type Error = SlugError;

    fn try_from(text: String) -> Result<Self, SlugError> {
        text.parse()
    }
}

impl From<AgentPath> for String {
    fn from(path: AgentPath) -> Self {
        path.0
    }
}

impl fmt::Display for AgentPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An absolute slug, printed `/w/{workspace}/u/{account}/{path}`, at most 512 bytes.
///
/// [`FromStr`] takes exactly what [`fmt::Display`] prints (the account may come in any case). Text from a caller, which may be
/// relative, goes through [`super::resolve`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Slug {
    workspace: WorkspaceName,
    account: AccountName,
    path: AgentPath,
}

impl Slug {
    /// Puts an absolute slug together.
    ///
    /// # Errors
    /// [`SlugError`] when it would be longer than 512 bytes.
    pub fn new(workspace: WorkspaceName, account: AccountName, path: AgentPath) -> Result<Self, SlugError> {
        let slug = Self { workspace, account, path };
        let text = slug.to_string();
        if text.len() > SLUG_BYTES_MAX {
            return Err(SlugError::new(&text, SlugRule::Length));
        }
        Ok(slug)
    }

    /// The workspace.
    #[must_use]
    pub const fn workspace(&self) -> &WorkspaceName {
        &self.workspace
    }

    /// The account.
    #[must_use]
    pub const fn account(&self) -> &AccountName {
        &self.account
    }

    /// The path below the account.
    #[must_use]
    pub const fn path(&self) -> &AgentPath {
        &self.path
    }

    /// The agent's own name: the last segment.
    #[must_use]
    pub fn name(&self) -> &str {
        self.path.name()
    }

    /// The slug one level up; `None` directly below the account.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let path = self.path.parent()?;
        Some(Self { workspace: self.workspace.clone(), account: self.account.clone(), path })
    }

    /// The slug of something below this one.
    ///
    /// # Errors
    /// [`SlugError`] when it would be too deep or too long.
    pub fn child(&self, below: &AgentPath) -> Result<Self, SlugError> {
        Self::new(self.workspace.clone(), self.account.clone(), self.path.join(below)?)
    }
}

impl FromStr for Slug {
    type Err = SlugError;

    fn from_str(text: &str) -> Result<Self, SlugError> {
        match SlugText::parse(text)? {
            SlugText::Absolute { workspace: Some(workspace), account, path } => Self::new(workspace, account, path),
            SlugText::SelfSlug | SlugText::Absolute { workspace: None, .. } | SlugText::Relative { .. } => {
                Err(SlugError::new(text, SlugRule::Absolute))
            }
        }
    }
}

impl TryFrom<String> for Slug {
    type Error = SlugError;

    fn try_from(text: String) -> Result<Self, SlugError> {
        text.parse()
    }
}

impl From<Slug> for String {
    fn from(slug: Slug) -> Self {
        slug.to_string()
    }
}

impl fmt::Display for Slug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { workspace, account, path } = self;
        write!(f, "/w/{workspace}/u/{account}/{path}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::strategy, *};

    #[test]
    fn whole_slugs_have_limits() {
        let rule = |text: &str| text.parse::<Slug>().unwrap_err().rule;
        assert_eq!(rule("/w/acme/u/bob/a/b/c/d/e/f/g/h/i"), SlugRule::Depth);
        let long = format!("/w/acme/u/bob/{}", ["a"; 8].map(|letter| letter.repeat(63)).join("/"));
        assert_eq!(rule(&long), SlugRule::Length);
        for text in ["/w/acme/u/bob/ci/", "/w/acme/u/bob//ci", "/w//u/bob/ci"] {
            assert_eq!(rule(text), SlugRule::Empty, "{text}");
        }
        for text in ["", "self", "ci", "/u/bob/ci", "/w/acme/u/bob", "/w/acme/bob/ci", "/x/acme/u/bob/ci", "/"] {
            assert_eq!(rule(text), SlugRule::Absolute, "{text}");
        }
    }

    #[test]
    fn parents_end_below_the_account() {
        let slug: Slug = "/w/acme/u/Bob/ci/fix".parse().unwrap();
        assert_eq!(slug.name(), "fix");
        assert_eq!(slug.parent().unwrap().to_string(), "/w/acme/u/bob/ci");
        assert_eq!(slug.parent().unwrap().parent(), None);
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(slug in strategy::slug()) {
            prop_assert_eq!(slug.to_string().parse::<Slug>(), Ok(slug));
        }

        #[test]
        fn what_is_read_prints_canonically(text in "/w/[a-z-]{1,3}/u/[A-Za-z]{1,3}(/[a-z.]{0,3}){1,3}") {
            if let Ok(slug) = text.parse::<Slug>() {
                prop_assert_eq!(slug.to_string().to_ascii_lowercase(), text.to_ascii_lowercase());
            }
        }
    }
}
