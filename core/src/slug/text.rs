//! The forms in which a slug may be typed, told apart by syntax alone.

use super::{AccountName, AgentPath, SlugError, SlugRule, WorkspaceName};
use crate::limits::SLUG_BYTES_MAX;

/// A typed slug, before anything is looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SlugText {
    /// Empty or `self`: the calling agent.
    SelfSlug,
    /// It began with `/`.
    Absolute {
        /// The workspace; `None` means the caller's.
        workspace: Option<WorkspaceName>,
        /// The account.
        account: AccountName,
        /// The path below the account.
        path: AgentPath,
    },
    /// Everything else: to be looked for around the caller.
    Relative {
        /// Where to look, if the text says so.
        force: Option<Force>,
        /// The path as typed, without the leading `./` or `../`.
        path: AgentPath,
    },
}

/// Which of the two places a relative slug insists on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Force {
    /// `./x`: below the caller.
    Child,
    /// `../x`: beside the caller.
    Sibling,
}

impl SlugText {
    /// Reads a typed slug.
    ///
    /// # Errors
    /// [`SlugError`] with the first segment that breaks the grammar.
    pub fn parse(text: &str) -> Result<Self, SlugError> {
        if text.len() > SLUG_BYTES_MAX {
            return Err(SlugError::new(text, SlugRule::Length));
        }
        if text.is_empty() || text == "self" {
            return Ok(Self::SelfSlug);
        }
        if text.starts_with('/') {
            return parse_absolute(text);
        }
        let (force, path) = if let Some(path) = text.strip_prefix("./") {
            (Some(Force::Child), path)
        } else if let Some(path) = text.strip_prefix("../") {
            (Some(Force::Sibling), path)
        } else {
            (None, text)
        };
        Ok(Self::Relative { force, path: path.parse()? })
    }
}

fn parse_absolute(text: &str) -> Result<SlugText, SlugError> {
    let misfit = || SlugError::new(text, SlugRule::Absolute);
    let (workspace, rest) = if let Some(rest) = text.strip_prefix("/w/") {
        let (workspace, rest) = rest.split_once('/').ok_or_else(misfit)?;
        (Some(workspace.parse()?), rest.strip_prefix("u/").ok_or_else(misfit)?)
    } else {
        (None, text.strip_prefix("/u/").ok_or_else(misfit)?)
    };
    let (account, path) = rest.split_once('/').ok_or_else(misfit)?;
    Ok(SlugText::Absolute { workspace, account: account.parse()?, path: path.parse()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_told_apart() {
        let path: AgentPath = "a/b".parse().unwrap();
        let relative = |force| Ok(SlugText::Relative { force, path: path.clone() });
        assert_eq!(SlugText::parse(""), Ok(SlugText::SelfSlug));
        assert_eq!(SlugText::parse("self"), Ok(SlugText::SelfSlug));
        assert_eq!(SlugText::parse("a/b"), relative(None));
        assert_eq!(SlugText::parse("./a/b"), relative(Some(Force::Child)));
        assert_eq!(SlugText::parse("../a/b"), relative(Some(Force::Sibling)));
        let account = "bob".parse().unwrap();
        assert_eq!(SlugText::parse("/u/BOB/a/b"), Ok(SlugText::Absolute { workspace: None, account, path }));
    }

    #[test]
    fn dots_are_understood_once_and_in_front() {
        for text in [".", "..", "../../a", "././a", "a/../b", "a/.", "/u/bob/../eve", "/u/../a"] {
            assert_eq!(SlugText::parse(text).unwrap_err().rule, SlugRule::Dots, "{text}");
        }
        assert_eq!(SlugText::parse("./").unwrap_err().rule, SlugRule::Empty);
        assert_eq!(SlugText::parse("self/a").unwrap_err().rule, SlugRule::Reserved);
    }
}
