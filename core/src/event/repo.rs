//! What a repository is called, however it was written.

use std::{fmt, str::FromStr};

use crate::limits::EVENT_REPO_BYTES_MAX;

/// A repository by name: `owner/name` in lower case, as services tell it, or the absolute path of one on a disk. Spellings of one repository
/// have one name: clone URLs by https and ssh, with and without `.git`, in whatever case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepoName(String);

/// A text that names no repository.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be `owner/name` or a clone URL, at most {EVENT_REPO_BYTES_MAX} bytes, got `{0}`")]
pub struct InvalidRepo(String);

impl RepoName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RepoName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for RepoName {
    type Err = InvalidRepo;

    fn from_str(text: &str) -> Result<Self, InvalidRepo> {
        let refused = || InvalidRepo(text.chars().take(64).collect());
        if text.len() > EVENT_REPO_BYTES_MAX || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(refused());
        }
        let local = text.strip_prefix("file://").or_else(|| text.starts_with('/').then_some(text));
        if let Some(path) = local {
            let parts = parts(path).ok_or_else(refused)?;
            return Ok(Self(format!("/{parts}")));
        }
        let path = match text.split_once("://") {
            Some((_, rest)) => rest.split_once('/').ok_or_else(refused)?.1,
            // `git@host:owner/name`: a colon before any slash.
            None => match text.split_once(':') {
                Some((host, path)) if !host.contains('/') => path,
                Some(_) => return Err(refused()),
                None => text,
            },
        };
        Ok(Self(parts(path).ok_or_else(refused)?.to_lowercase()))
    }
}

/// The parts of a path, without what a clone URL has around them; `None` when there are none, or one means nothing.
fn parts(path: &str) -> Option<String> {
    let mut path = path.trim_matches('/');
    while let Some(bare) = path.strip_suffix(".git") {
        path = bare.trim_end_matches('/');
    }
    let is_part = |part: &str| !part.is_empty() && part != "." && part != "..";
    (!path.contains([':', '?', '#', '\\']) && path.split('/').all(is_part)).then(|| path.to_owned())
}

/// A branch's own name: without `refs/heads/`.
#[must_use]
pub fn branch(text: &str) -> &str {
    text.strip_prefix("refs/heads/").unwrap_or(text)
}

/// A pull or merge request by its repository and number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullRequest {
    /// Where it is.
    pub repo: RepoName,
    /// Its number.
    pub number: u64,
}

impl PullRequest {
    /// Reads the URL of a page, such as `https://github.com/owner/name/pull/5` or `…/-/merge_requests/5`; `None` for any other text.
    #[must_use]
    pub fn from_url(url: &str) -> Option<Self> {
        let (_, rest) = url.split_once("://")?;
        let (_, path) = rest.split_once('/')?;
        let path = path.split(['?', '#']).next().unwrap_or_default();
        let marks = ["/-/merge_requests/", "/merge_requests/", "/pulls/", "/pull/"];
        let (repo, tail) = marks.iter().find_map(|mark| path.split_once(mark))?;
        let number: u64 = tail.split('/').next()?.parse().ok().filter(|number| *number > 0)?;
        let repo = repo.contains('/').then(|| repo.parse().ok())??;
        Some(Self { repo, number })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_spelling_of_a_repository_is_its_name() {
        for text in [
            "acme/widgets",
            "Acme/Widgets",
            "https://github.com/acme/widgets",
            "https://github.com/Acme/widgets.git",
            "https://user:secret@github.com/acme/widgets.git/",
            "git@github.com:acme/widgets.git",
            "ssh://git@github.com:22/acme/widgets",
            "git://github.com/acme/widgets.git",
        ] {
            assert_eq!(text.parse::<RepoName>().unwrap().as_str(), "acme/widgets", "{text}");
        }
        for (text, name) in [
            ("/srv/Git/widgets.git", "/srv/Git/widgets"),
            ("file:///srv/Git/widgets.git", "/srv/Git/widgets"),
            ("https://gitlab.example/group/sub/name.git", "group/sub/name"),
        ] {
            assert_eq!(text.parse::<RepoName>().unwrap().as_str(), name, "{text}");
        }
        for text in ["", "/", "a b/c", "https://github.com", "a//b", "../x", "a/./b", "x\ny/z", "a/b:c", "https://h/"] {
            assert!(text.parse::<RepoName>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn pull_requests_are_read_from_their_pages() {
        let read = |url: &str| PullRequest::from_url(url).map(|found| (found.repo.to_string(), found.number));
        assert_eq!(read("https://github.com/Acme/widgets/pull/5/files#x"), Some(("acme/widgets".into(), 5)));
        assert_eq!(read("https://gitlab.example/g/s/n/-/merge_requests/7"), Some(("g/s/n".into(), 7)));
        for url in ["#5", "https://github.com/acme/widgets", "https://github.com/a/b/pull/x", "https://h/b/pull/0"] {
            assert_eq!(read(url), None, "{url}");
        }
        assert_eq!((branch("refs/heads/a/b"), branch("main")), ("a/b", "main"));
    }

    proptest! {
        #[test]
        fn a_name_reads_back_and_any_text_is_read_or_refused(text in any::<String>(), path in "[a-zA-Z0-9._/:@-]{0,40}") {
            for text in [text, path] {
                if let Ok(name) = text.parse::<RepoName>() {
                    prop_assert_eq!(name.as_str().parse::<RepoName>(), Ok(name.clone()), "{}", text);
                }
            }
        }

        #[test]
        fn https_and_ssh_name_the_same(owner in "[a-zA-Z0-9][a-zA-Z0-9-]{0,8}", name in "[a-zA-Z0-9_-]{1,8}") {
            let names = [
                format!("{owner}/{name}"),
                format!("https://github.com/{owner}/{name}.git"),
                format!("git@github.com:{owner}/{name}.git"),
                format!("ssh://git@github.com/{owner}/{name}/"),
            ];
            let parsed: Vec<RepoName> = names.iter().map(|text| text.parse().unwrap()).collect();
            prop_assert!(parsed.iter().all(|one| *one == parsed[0]));
        }
    }
}
