//! What may stand in a spawn.

use murmur_core::{checklist::Subject, slug::Segment};
use murmur_proto::v1;

use crate::invalid::{Invalid, parse, prompt, words};

const DESCRIPTION_BYTES_MAX: usize = 64 * 1024;
const PROMPT_BYTES_MAX: usize = 64 * 1024;
const TASKS_MAX: usize = 100;
const NAME_BYTES_MAX: usize = 128;
const URL_BYTES_MAX: usize = 2048;
const REPOS_MAX: usize = 16;
const NAMES_MAX: usize = 32;
const ENV_MAX: usize = 64;
const ENV_BYTES_MAX: usize = 32 * 1024;
const TIMEOUT_S_MAX: i64 = 30 * 24 * 3600;
/// Set by Murmur for every agent that it starts.
const OWN_ENV: &str = "MURMUR_";

/// The field of a request that holds it.
const SPEC: &str = "spec";

/// Checks every field of a request's specification.
pub(super) fn check(spec: &v1::AgentSpec) -> Result<(), Invalid> {
    check_all(spec).map_err(|invalid| invalid.within(SPEC))
}

/// A field of a request's specification, and the rule that it breaks.
pub(super) fn wrong(field: &'static str, rule: impl Into<String>) -> Invalid {
    Invalid::new(field, rule).within(SPEC)
}

fn check_all(spec: &v1::AgentSpec) -> Result<(), Invalid> {
    prompt("description", &spec.description, DESCRIPTION_BYTES_MAX)?;
    prompt("append_system_prompt", &spec.append_system_prompt, PROMPT_BYTES_MAX)?;
    words("model", &spec.model, NAME_BYTES_MAX)?;
    words("persona", &spec.persona, NAME_BYTES_MAX)?;
    words("backend", &spec.backend, NAME_BYTES_MAX)?;
    words("node", &spec.node, NAME_BYTES_MAX)?;
    branch("branch", &spec.branch)?;
    check_tasks(&spec.tasks)?;
    check_repos(&spec.repos)?;
    check_names("labels", &spec.labels)?;
    check_names("mcp_servers", &spec.mcp_servers)?;
    check_env(spec)?;
    check_enums(spec)?;
    spec.budget.as_ref().map_or(Ok(()), check_budget)
}

/// Refuses a list of repositories that git could take for something else.
pub(super) fn check_repos(repos: &[v1::Repo]) -> Result<(), Invalid> {
    few("repos", repos.len(), REPOS_MAX)?;
    for repo in repos {
        words("repos.clone_url", &repo.clone_url, URL_BYTES_MAX)?;
        if repo.clone_url.is_empty() || repo.clone_url.starts_with('-') {
            return Err(Invalid::new("repos.clone_url", "must be a URL or a path that git can clone"));
        }
        branch("repos.base_branch", &repo.base_branch)?;
        branch("repos.branch", &repo.branch)?;
    }
    Ok(())
}

/// How long the agent may live, in milliseconds; `None` for as long as it likes.
pub(super) fn timeout_ms(spec: &v1::AgentSpec) -> Option<u64> {
    let timeout = spec.budget.as_ref()?.timeout.as_ref()?;
    let ms = timeout.seconds.saturating_mul(1000).saturating_add(i64::from(timeout.nanos) / 1_000_000);
    u64::try_from(ms).ok().filter(|ms| *ms > 0)
}

fn check_tasks(tasks: &[String]) -> Result<(), Invalid> {
    few("tasks", tasks.len(), TASKS_MAX)?;
    tasks.iter().try_for_each(|task| parse::<Subject>("tasks", task).map(|_| ()))
}

fn check_names(field: &'static str, names: &[String]) -> Result<(), Invalid> {
    few(field, names.len(), NAMES_MAX)?;
    for name in names {
        words(field, name, NAME_BYTES_MAX)?;
        if name.is_empty() {
            return Err(Invalid::new(field, "must not hold an empty name"));
        }
    }
    Ok(())
}

fn check_env(spec: &v1::AgentSpec) -> Result<(), Invalid> {
    few("env", spec.env.len(), ENV_MAX)?;
    let bytes: usize = spec.env.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > ENV_BYTES_MAX {
        return Err(Invalid::new("env", format!("must be at most {ENV_BYTES_MAX} bytes together, got {bytes}")));
    }
    for (name, value) in &spec.env {
        let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if name.is_empty() || !is_name || name.starts_with(|c: char| c.is_ascii_digit()) || value.contains('\0') {
            return Err(Invalid::new("env", "must be names of letters, digits and _, with values without NUL"));
        }
        if name.starts_with(OWN_ENV) {
            return Err(Invalid::new("env", format!("must not set names that begin with {OWN_ENV}")));
        }
    }
    Ok(())
}

/// A number that is no value of its enum would be taken for the default.
fn check_enums(spec: &v1::AgentSpec) -> Result<(), Invalid> {
    let known = [
        ("session_mode", v1::SessionMode::try_from(spec.session_mode).is_ok()),
        ("completion_check", v1::CompletionCheck::try_from(spec.completion_check).is_ok()),
        ("on_idle", v1::OnIdle::try_from(spec.on_idle).is_ok()),
        ("dequeue_strategy", v1::DequeueStrategy::try_from(spec.dequeue_strategy).is_ok()),
        ("out", v1::OutputMode::try_from(spec.out).is_ok()),
        ("trust_level", v1::TrustLevel::try_from(spec.trust_level).is_ok()),
    ];
    match known.into_iter().find(|(_, is_known)| !is_known) {
        Some((field, _)) => Err(Invalid::new(field, "must be a value of the contract")),
        None => Ok(()),
    }
}

fn check_budget(budget: &v1::Budget) -> Result<(), Invalid> {
    let Some(timeout) = &budget.timeout else { return Ok(()) };
    let is_positive = timeout.seconds > 0 || (timeout.seconds == 0 && timeout.nanos >= 1_000_000);
    if !is_positive || timeout.seconds > TIMEOUT_S_MAX || timeout.nanos < 0 {
        return Err(Invalid::new("budget.timeout", format!("must be above 0 and at most {TIMEOUT_S_MAX} s")));
    }
    Ok(())
}

fn branch(field: &'static str, name: &str) -> Result<(), Invalid> {
    words(field, name, NAME_BYTES_MAX * 2)?;
    if name.starts_with('-') || name.contains("..") || name.contains(' ') {
        return Err(Invalid::new(field, "must be a branch's name"));
    }
    Ok(())
}

fn few(field: &'static str, count: usize, max: usize) -> Result<(), Invalid> {
    if count > max {
        return Err(Invalid::new(field, format!("must be at most {max}, got {count}")));
    }
    Ok(())
}

/// What a resurrected agent goes on with: what it had, and over it what is said now.
pub(super) fn merged(mut old: v1::AgentSpec, new: &v1::AgentSpec) -> v1::AgentSpec {
    use prost::Message as _;
    // Lists are replaced, not lengthened.
    old.tasks.clear();
    if !new.repos.is_empty() {
        old.repos.clear();
    }
    if !new.labels.is_empty() {
        old.labels.clear();
    }
    if !new.mcp_servers.is_empty() {
        old.mcp_servers.clear();
    }
    let kept = old.clone();
    // What was encoded a moment ago can be read.
    if old.merge(new.encode_to_vec().as_slice()).is_err() { kept } else { old }
}

/// A line as a segment of a slug.
pub(super) fn segment(line: &str) -> Result<Segment, Invalid> {
    murmur_core::slug::normalise_name(line).map_err(|error| Invalid::new("each", error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(change: impl FnOnce(&mut v1::AgentSpec)) -> Option<&'static str> {
        let mut spec = v1::AgentSpec { description: "do it".into(), ..v1::AgentSpec::default() };
        change(&mut spec);
        check(&spec).err().map(|invalid| invalid.field)
    }

    fn timeout(seconds: i64, nanos: i32) -> Option<v1::Budget> {
        let timeout = Some(prost_types::Duration { seconds, nanos });
        Some(v1::Budget { timeout, ..v1::Budget::default() })
    }

    #[test]
    fn what_breaks_a_rule_is_named() {
        assert_eq!(field(|_| {}), None);
        assert_eq!(field(|spec| spec.description = "x".repeat(65_537)), Some("description"));
        assert_eq!(field(|spec| spec.description = "a\0b".into()), Some("description"));
        assert_eq!(field(|spec| spec.append_system_prompt = "a\0b".into()), Some("append_system_prompt"));
        assert_eq!(field(|spec| spec.tasks = vec!["t".into(); 101]), Some("tasks"));
        assert_eq!(field(|spec| spec.tasks = vec![" ".into()]), Some("tasks"));
        assert_eq!(field(|spec| spec.env = [("MURMUR_AGENT".into(), "eve".into())].into()), Some("env"));
        assert_eq!(field(|spec| spec.env = [("A=B".into(), String::new())].into()), Some("env"));
        assert_eq!(field(|spec| spec.env = [("A".into(), "x".repeat(32_768))].into()), Some("env"));
        assert_eq!(field(|spec| spec.on_idle = 99), Some("on_idle"));
        assert_eq!(field(|spec| spec.branch = "--upload-pack=evil".into()), Some("branch"));
        let repo = v1::Repo { clone_url: "--upload-pack=evil".into(), ..v1::Repo::default() };
        assert_eq!(field(|spec| spec.repos = vec![repo]), Some("repos.clone_url"));
        for (seconds, nanos) in [(0, 0), (-1, 0), (i64::MAX, 0), (1, -5)] {
            assert_eq!(
                field(|spec| spec.budget = timeout(seconds, nanos)),
                Some("budget.timeout"),
                "{seconds} {nanos}"
            );
        }
        assert_eq!(field(|spec| spec.budget = timeout(0, 1_000_000)), None);
    }

    #[test]
    fn a_resurrected_agent_keeps_what_is_not_said_anew() {
        let old = v1::AgentSpec {
            description: "first".into(),
            backend: "command".into(),
            tasks: vec!["old".into()],
            labels: vec!["gpu".into()],
            ..v1::AgentSpec::default()
        };
        let new = v1::AgentSpec { description: "then".into(), tasks: vec!["new".into()], ..v1::AgentSpec::default() };
        let merged = merged(old, &new);
        assert_eq!((merged.description.as_str(), merged.backend.as_str()), ("then", "command"));
        assert_eq!((merged.tasks, merged.labels), (vec!["new".to_owned()], vec!["gpu".to_owned()]));
    }
}
