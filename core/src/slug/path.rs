//! A path of segments, and the absolute slug that it ends.

use std::{
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
    str::FromStr,
    sync::Arc,
};

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

/// An absolute slug, printed `/w/{workspace}/u/{account}/{path}`, at most 512 bytes. Cheap to clone.
///
/// [`FromStr`] takes exactly what [`fmt::Display`] prints (the account may come in any case). Text from a caller, which may be
/// relative, goes through [`super::resolve`].
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Slug(Arc<Parts>);

struct Parts {
    /// What the other three print.
    text: String,
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
        let slug = Self::of(workspace, account, path);
        if slug.as_str().len() > SLUG_BYTES_MAX {
            return Err(SlugError::new(slug.as_str(), SlugRule::Length));
        }
        Ok(slug)
    }

    fn of(workspace: WorkspaceName, account: AccountName, path: AgentPath) -> Self {
        let text = ["/w/", workspace.as_str(), "/u/", account.as_str(), "/", path.as_str()].concat();
        Self(Arc::new(Parts { text, workspace, account, path }))
    }

    /// As it is printed.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0.text
    }

    /// The workspace.
    #[must_use]
    pub fn workspace(&self) -> &WorkspaceName {
        &self.0.workspace
    }

    /// The account.
    #[must_use]
    pub fn account(&self) -> &AccountName {
        &self.0.account
    }

    /// The path below the account.
    #[must_use]
    pub fn path(&self) -> &AgentPath {
        &self.0.path
    }

    /// The agent's own name: the last segment.
    #[must_use]
    pub fn name(&self) -> &str {
        self.path().name()
    }

    /// The slug one level up; `None` directly below the account.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let path = self.path().parent()?;
        Some(Self::of(self.workspace().clone(), self.account().clone(), path))
    }

    /// The slug of something below this one.
    ///
    /// # Errors
    /// [`SlugError`] when it would be too deep or too long.
    pub fn child(&self, below: &AgentPath) -> Result<Self, SlugError> {
        Self::new(self.workspace().clone(), self.account().clone(), self.path().join(below)?)
    }

    /// What slugs are sorted by: one part after the other, which the text is not, as some characters of names come before `/`.
    fn order(&self) -> (&WorkspaceName, &AccountName, &AgentPath) {
        (self.workspace(), self.account(), self.path())
    }
}

impl PartialEq for Slug {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Slug {}

impl Hash for Slug {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl Ord for Slug {
    fn cmp(&self, other: &Self) -> Ordering {
        self.order().cmp(&other.order())
    }
}

impl PartialOrd for Slug {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
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
        slug.as_str().to_owned()
    }
}

impl fmt::Display for Slug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Slug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slug({})", self.as_str())
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
