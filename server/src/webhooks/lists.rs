//! What and whom a source lets through: repositories, types, and those whose words are delivered.

use crate::{db::webhook::Kind, invalid::Invalid};

/// Entries of one list.
const ENTRIES_MAX: usize = 200;
const ENTRY_BYTES_MAX: usize = 200;

/// Types that are understood, by the sender's own names.
pub(super) const fn events_of(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::GitHub => &[
            "check_run",
            "check_suite",
            "issue_comment",
            "pull_request",
            "pull_request_review",
            "pull_request_review_comment",
            "push",
            "status",
            "workflow_run",
        ],
        Kind::GitLab => &["merge_request", "note", "pipeline", "push"],
        // Whatever kind the sender chooses.
        Kind::Generic => &[],
    }
}

/// Refuses lists that could never let anything through, or that were meant otherwise.
pub(super) fn check(kind: Kind, repos: &[String], events: &[String], actors: &[String]) -> Result<(), Invalid> {
    few("repos", repos)?;
    few("events", events)?;
    few("actors", actors)?;
    if repos.is_empty() && kind != Kind::Generic {
        return Err(Invalid::new("repos", "must name at least one: owner/name, owner/*, or * for all"));
    }
    if actors.is_empty() && kind == Kind::GitLab {
        let rule = "must name at least one: GitLab does not say who is a member; * lets everybody through";
        return Err(Invalid::new("actors", rule));
    }
    if let Some(bad) = repos.iter().find(|repo| !is_repo_pattern(repo)) {
        return Err(Invalid::new("repos", format!("must be owner/name, owner/* or *, got `{bad}`")));
    }
    if let Some(bad) = actors.iter().find(|actor| !is_actor(actor, kind)) {
        let members = if kind == Kind::GitHub { ", @members" } else { "" };
        return Err(Invalid::new("actors", format!("must be names, !name{members} or *, got `{bad}`")));
    }
    let known = events_of(kind);
    match events.iter().find(|event| if known.is_empty() { !is_word(event) } else { !known.contains(&event.as_str()) })
    {
        Some(bad) if known.is_empty() => {
            Err(Invalid::new("events", format!("must be kinds of events, of a-z, 0-9 and _, got `{bad}`")))
        }
        Some(bad) => Err(Invalid::new("events", format!("must be of {}, got `{bad}`", known.join(", ")))),
        None => Ok(()),
    }
}

/// Whether a repository is listed; without a list nothing is bounded.
pub(super) fn repo_listed(repos: &[String], repo: &str) -> bool {
    let fits = |pattern: &String| match pattern.strip_suffix('*') {
        Some(prefix) => repo.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix)),
        None => pattern.eq_ignore_ascii_case(repo),
    };
    repos.is_empty() || repos.iter().any(fits)
}

/// Whether a type is listed.
pub(super) fn event_listed(kind: Kind, events: &[String], event: &str) -> bool {
    let known = events_of(kind);
    (known.is_empty() || known.contains(&event)) && (events.is_empty() || events.iter().any(|listed| listed == event))
}

/// Whether somebody's words are delivered. `member` is what the sender says of them.
pub(super) fn actor_listed(kind: Kind, actors: &[String], name: &str, member: bool) -> bool {
    let by_default = match kind {
        Kind::GitHub => member,
        Kind::GitLab => false,
        Kind::Generic => true,
    };
    let is = |listed: &str| listed.eq_ignore_ascii_case(name);
    if actors.iter().filter_map(|actor| actor.strip_prefix('!')).any(is) {
        return false;
    }
    let mut listed = actors.iter().filter(|actor| !actor.starts_with('!')).peekable();
    if listed.peek().is_none() {
        return by_default;
    }
    listed.any(|actor| actor == "*" || (actor == "@members" && member) || is(actor))
}

fn few(field: &'static str, entries: &[String]) -> Result<(), Invalid> {
    if entries.len() > ENTRIES_MAX {
        return Err(Invalid::new(field, format!("must be at most {ENTRIES_MAX}, got {}", entries.len())));
    }
    Ok(())
}

fn is_repo_pattern(text: &str) -> bool {
    let plain = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    };
    let (path, all) = match text.strip_suffix("/*") {
        Some(path) => (path, true),
        None => (text, false),
    };
    let parts = path.split('/').count();
    text == "*" || (text.len() <= ENTRY_BYTES_MAX && path.split('/').all(plain) && (all || parts >= 2))
}

fn is_actor(text: &str, kind: Kind) -> bool {
    let name = text.strip_prefix('!').unwrap_or(text);
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'[' | b']');
    text == "*"
        || (text == "@members" && kind == Kind::GitHub)
        || (!name.is_empty() && text.len() <= ENTRY_BYTES_MAX && name.bytes().all(plain))
}

fn is_word(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[&str]) -> Vec<String> {
        entries.iter().map(|entry| (*entry).to_owned()).collect()
    }

    #[test]
    fn repositories_are_matched_whole_or_below_an_owner() {
        let repos = list(&["Codertocat/Hello-World", "acme/*"]);
        for repo in ["codertocat/hello-world", "acme/x", "ACME/sub/x"] {
            assert!(repo_listed(&repos, repo), "{repo}");
        }
        for repo in ["codertocat/hello-world2", "acme", "acmex/y", "evil/acme/x", "é", ""] {
            assert!(!repo_listed(&repos, repo), "{repo}");
        }
        assert!(repo_listed(&list(&["*"]), "any/thing"));
    }

    #[test]
    fn words_of_strangers_are_not_listed() {
        let default = list(&[]);
        assert!(actor_listed(Kind::GitHub, &default, "alice", true));
        assert!(!actor_listed(Kind::GitHub, &default, "mallory", false));
        assert!(
            !actor_listed(Kind::GitLab, &default, "alice", false) && actor_listed(Kind::Generic, &default, "x", false)
        );
        let listed = list(&["@members", "Bob", "!robot[bot]"]);
        assert!(
            actor_listed(Kind::GitHub, &listed, "bob", false) && actor_listed(Kind::GitHub, &listed, "alice", true)
        );
        assert!(
            !actor_listed(Kind::GitHub, &listed, "robot[bot]", true)
                && !actor_listed(Kind::GitHub, &listed, "eve", false)
        );
        // Only exceptions: the default holds for all others.
        let except = list(&["!alice"]);
        assert!(
            !actor_listed(Kind::GitHub, &except, "Alice", true) && actor_listed(Kind::GitHub, &except, "bob", true)
        );
        assert!(!actor_listed(Kind::GitHub, &except, "eve", false));
    }

    #[test]
    fn lists_are_checked_when_they_are_made() {
        let field = |kind, repos: &[&str], events: &[&str], actors: &[&str]| {
            check(kind, &list(repos), &list(events), &list(actors)).err().map(|invalid| invalid.field)
        };
        assert_eq!(field(Kind::GitHub, &["a/b", "c/*", "*"], &["push"], &["@members", "x[bot]", "!y"]), None);
        assert_eq!(field(Kind::GitLab, &["a/b/c"], &[], &["*"]), None);
        assert_eq!(field(Kind::Generic, &[], &["deploy_done"], &[]), None);
        assert_eq!(field(Kind::GitHub, &[], &[], &[]), Some("repos"));
        assert_eq!(field(Kind::GitLab, &["a/b"], &[], &[]), Some("actors"));
        assert_eq!(field(Kind::GitLab, &["a/b"], &[], &["@members"]), Some("actors"));
        for repo in ["a", "", "a/", "/b", "a/b\nc/d", "https://github.com/a/b", "a b/c", "*/b", "a*"] {
            assert_eq!(field(Kind::GitHub, &[repo], &[], &[]), Some("repos"), "{repo}");
        }
        for actor in ["", "a b", "a\nb", "!", "@all"] {
            assert_eq!(field(Kind::GitHub, &["*"], &[], &[actor]), Some("actors"), "{actor}");
        }
        assert_eq!(field(Kind::GitHub, &["*"], &["issues"], &[]), Some("events"));
        assert_eq!(field(Kind::Generic, &[], &["Push"], &[]), Some("events"));
        assert_eq!(field(Kind::GitHub, &vec!["a/b"; 201], &[], &[]), Some("repos"));
    }
}
