//! Scopes: prefixes of absolute slugs that bound a certificate or a token (PROTOCOL §2.4, §6.2).

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{AccountName, AgentPath, Segment, Slug, SlugError, SlugRule, WorkspaceName};
use crate::limits::SLUG_BYTES_MAX;

/// A slug prefix that ends in `/`: a workspace (`/w/acme/`), an account (`/w/acme/u/bob/`) or what lies below an agent
/// (`/w/acme/u/bob/ci/`). A scope never spans workspaces.
///
/// The final `/` keeps `/w/acme/u/bob/` from covering the account `bobby`. An agent is not inside the scope below itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Scope(String);

impl Scope {
    /// Everything in a workspace.
    #[must_use]
    pub fn workspace(workspace: &WorkspaceName) -> Self {
        Self(format!("/w/{workspace}/"))
    }

    /// Everything of one account.
    #[must_use]
    pub fn account(workspace: &WorkspaceName, account: &AccountName) -> Self {
        Self(format!("/w/{workspace}/u/{account}/"))
    }

    /// Everything below an agent, the agent itself not included.
    #[must_use]
    pub fn below(slug: &Slug) -> Self {
        Self(format!("{slug}/"))
    }

    /// The prefix as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a slug lies inside.
    #[must_use]
    pub fn contains(&self, slug: &Slug) -> bool {
        slug.to_string().starts_with(&self.0)
    }

    /// Whether another scope lies inside or is the same: the test of narrowing along a chain.
    #[must_use]
    pub fn contains_scope(&self, other: &Self) -> bool {
        other.0.starts_with(&self.0)
    }
}

impl FromStr for Scope {
    type Err = SlugError;

    fn from_str(text: &str) -> Result<Self, SlugError> {
        let misfit = || SlugError::new(text, SlugRule::Absolute);
        if text.len() > SLUG_BYTES_MAX + 1 {
            return Err(SlugError::new(text, SlugRule::Length));
        }
        let body = text.strip_suffix('/').ok_or_else(|| SlugError::new(text, SlugRule::Prefix))?;
        let rest = body.strip_prefix("/w/").ok_or_else(misfit)?;
        let Some((workspace, rest)) = rest.split_once('/') else {
            return Ok(Self::workspace(&rest.parse()?));
        };
        let workspace: Segment = workspace.parse()?;
        let rest = rest.strip_prefix("u/").ok_or_else(misfit)?;
        match rest.split_once('/') {
            None => Ok(Self::account(&workspace, &rest.parse()?)),
            Some((account, path)) => {
                Ok(Self::below(&Slug::new(workspace, account.parse()?, path.parse::<AgentPath>()?)?))
            }
        }
    }
}

impl TryFrom<String> for Scope {
    type Error = SlugError;

    fn try_from(text: String) -> Result<Self, SlugError> {
        text.parse()
    }
}

impl From<Scope> for String {
    fn from(scope: Scope) -> Self {
        scope.0
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::strategy, *};

    #[test]
    fn a_scope_ends_at_a_slash() {
        let scope: Scope = "/w/acme/u/bob/".parse().unwrap();
        assert!(scope.contains(&"/w/acme/u/bob/ci".parse().unwrap()));
        assert!(!scope.contains(&"/w/acme/u/bobby/ci".parse().unwrap()));
        for text in ["/w/acme", "/", "", "/w//", "/w/acme/u/", "/w/acme/x/bob/", "/w/acme/u/bob//", "/u/bob/"] {
            assert!(text.parse::<Scope>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn narrower_scopes_hold_less(slug in strategy::slug(), other in strategy::slug()) {
            let wide = Scope::workspace(slug.workspace());
            let account = Scope::account(slug.workspace(), slug.account());
            let narrow = Scope::below(&slug);
            for scope in [&wide, &account, &narrow] {
                prop_assert_eq!(&scope.as_str().parse::<Scope>().unwrap(), scope);
            }
            prop_assert!(wide.contains_scope(&account) && account.contains_scope(&narrow));
            prop_assert!(account.contains(&slug) && !narrow.contains(&slug) && !narrow.contains_scope(&account));
            prop_assert_eq!(wide.contains(&other), slug.workspace() == other.workspace());
        }
    }
}
