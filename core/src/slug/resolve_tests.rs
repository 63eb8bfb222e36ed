//! The resolver against a small directory, and against every text.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{super::strategy, *};

/// A directory in memory: the last live and the last ended holder of each slug.
#[derive(Default)]
struct Directory {
    live: BTreeMap<Slug, AgentId>,
    ended: BTreeMap<Slug, AgentId>,
}

impl Lookup for Directory {
    fn live(&self, slug: &Slug) -> Option<AgentId> {
        self.live.get(slug).copied()
    }

    fn ended(&self, slug: &Slug) -> Option<AgentId> {
        self.ended.get(slug).copied()
    }
}

/// A directory that holds every slug there is.
struct Everything;

impl Lookup for Everything {
    fn live(&self, _: &Slug) -> Option<AgentId> {
        Some(AgentId::from_bytes([1; 16]))
    }

    fn ended(&self, _: &Slug) -> Option<AgentId> {
        None
    }
}

fn slugs(texts: &[&str]) -> BTreeMap<Slug, AgentId> {
    texts.iter().zip(1..).map(|(text, n)| (text.parse().unwrap(), AgentId::from_bytes([n; 16]))).collect()
}

fn agent(slug: &str) -> Caller {
    Caller::Agent { id: AgentId::from_bytes([9; 16]), slug: slug.parse().unwrap() }
}

fn human() -> Caller {
    Caller::Human { workspace: "acme".parse().unwrap(), account: "bob".parse().unwrap() }
}

/// What a text resolves to: the slug, marked when it has ended, or the error as printed.
fn check(text: &str, caller: &Caller) -> String {
    let directory = Directory {
        live: slugs(&[
            "/w/acme/u/bob/ci",
            "/w/acme/u/bob/ci/fix",
            "/w/acme/u/bob/fix",
            "/w/acme/u/bob/ci/lint",
            "/w/acme/u/bob/docs",
            "/w/acme/u/eve/spy",
            "/w/other/u/bob/ci",
        ]),
        ended: slugs(&["/w/acme/u/bob/ci/docs", "/w/acme/u/bob/gone", "/w/acme/u/bob/old", "/w/acme/u/bob/ci/old"]),
    };
    match resolve(text, Some(caller), &directory) {
        Ok(Resolved { slug, ended: false, .. }) => slug.to_string(),
        Ok(Resolved { slug, ended: true, .. }) => format!("{slug} (ended)"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn an_agent_looks_below_and_beside() {
    let ci = agent("/w/acme/u/bob/ci");
    assert_eq!(check("", &ci), "/w/acme/u/bob/ci");
    assert_eq!(check("self", &ci), "/w/acme/u/bob/ci");
    assert_eq!(check("lint", &ci), "/w/acme/u/bob/ci/lint");
    assert_eq!(check("docs", &ci), "/w/acme/u/bob/docs");
    assert_eq!(check("./fix", &ci), "/w/acme/u/bob/ci/fix");
    assert_eq!(check("../fix", &ci), "/w/acme/u/bob/fix");
    assert_eq!(check("fix", &agent("/w/acme/u/bob/ci/lint")), "/w/acme/u/bob/ci/fix");
}

#[test]
fn two_matches_are_never_guessed() {
    let ci = agent("/w/acme/u/bob/ci");
    assert!(check("fix", &ci).starts_with("ambiguous slug: both /w/acme/u/bob/ci/fix and /w/acme/u/bob/fix exist"));
    assert!(check("old", &ci).starts_with("ambiguous slug: both /w/acme/u/bob/ci/old and /w/acme/u/bob/old exist"));
}

#[test]
fn absolute_slugs_reach_other_accounts_and_workspaces() {
    let ci = agent("/w/acme/u/bob/ci");
    assert_eq!(check("/u/eve/spy", &ci), "/w/acme/u/eve/spy");
    assert_eq!(check("/w/other/u/bob/ci", &ci), "/w/other/u/bob/ci");
    assert_eq!(check("spy", &ci), "no agent found at /w/acme/u/bob/ci/spy or /w/acme/u/bob/spy");
}

#[test]
fn ended_agents_are_found_when_no_live_one_is() {
    assert_eq!(check("gone", &agent("/w/acme/u/bob/ci")), "/w/acme/u/bob/gone (ended)");
    assert_eq!(check("./docs", &agent("/w/acme/u/bob/ci")), "/w/acme/u/bob/ci/docs (ended)");
}

#[test]
fn a_person_has_only_the_account_root() {
    assert_eq!(check("fix", &human()), "/w/acme/u/bob/fix");
    assert_eq!(check("./ci/fix", &human()), "/w/acme/u/bob/ci/fix");
    assert!(check("../fix", &human()).contains("leads out of the account"));
    assert!(check("self", &human()).starts_with("no agent identity here"));
}

#[test]
fn without_a_caller_only_whole_slugs_mean_anything() {
    assert!(resolve("/w/acme/u/bob/ci", None, &Everything).is_ok());
    for text in ["", "self", "ci", "./ci", "/u/bob/ci"] {
        assert!(matches!(resolve(text, None, &Everything), Err(ResolveError::NoIdentity { .. })), "{text}");
    }
}

#[test]
fn a_place_too_deep_to_exist_is_no_candidate() {
    let deep = agent("/w/acme/u/bob/a/b/c/d/e/f/g/h");
    assert_eq!(resolve("x", Some(&deep), &Everything).unwrap().slug.to_string(), "/w/acme/u/bob/a/b/c/d/e/f/g/x");
    assert_eq!(resolve("./x", Some(&deep), &Everything), Err(ResolveError::NotFound { candidates: vec![] }));
}

/// Text that is nearly a slug, so that the interesting branches are met often.
fn nearly_slug() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), "(\\.{0,3}/){0,2}[a-z./-]{0,12}", "/?[wu]?/[a-zA-Z./-]{0,20}"]
}

proptest! {
    #[test]
    fn every_text_gives_an_answer(text in nearly_slug(), slug in strategy::slug()) {
        let caller = Caller::Agent { id: AgentId::from_bytes([9; 16]), slug };
        for caller in [Some(&caller), Some(&human()), None] {
            let _ = resolve(&text, caller, &Everything);
            let _ = resolve(&text, caller, &Directory::default());
        }
    }

    #[test]
    fn relative_text_stays_in_the_account(text in "(\\.{0,2}/)?[a-z./]{0,12}", slug in strategy::slug()) {
        prop_assume!(!text.starts_with('/'));
        let caller = Caller::Agent { id: AgentId::from_bytes([9; 16]), slug: slug.clone() };
        let seen = match resolve(&text, Some(&caller), &Everything) {
            Ok(resolved) => vec![resolved.slug],
            Err(ResolveError::Ambiguous { child, sibling }) => vec![*child, *sibling],
            Err(ResolveError::NotFound { candidates }) => candidates,
            Err(ResolveError::Invalid(_) | ResolveError::NoIdentity { .. } | ResolveError::NoSibling { .. }) => vec![],
        };
        for found in seen {
            prop_assert_eq!(found.workspace(), slug.workspace());
            prop_assert_eq!(found.account(), slug.account());
        }
    }

    #[test]
    fn an_absolute_slug_means_itself(target in strategy::slug(), slug in strategy::slug()) {
        let caller = Caller::Agent { id: AgentId::from_bytes([9; 16]), slug };
        prop_assert_eq!(resolve(&target.to_string(), Some(&caller), &Everything).unwrap().slug, target);
    }
}

#[test]
fn one_decides_over_oneself_and_what_is_below() {
    let slug = |text: &str| text.parse::<Slug>().unwrap();
    let agent = Caller::Agent { id: AgentId::from_bytes([1; 16]), slug: slug("/w/acme/u/bob/a") };
    let person = Caller::Human { workspace: "acme".parse().unwrap(), account: "bob".parse().unwrap() };
    for (text, by_agent, by_person) in [
        ("/w/acme/u/bob/a", true, true),
        ("/w/acme/u/bob/a/b/c", true, true),
        ("/w/acme/u/bob/ab", false, true),
        ("/w/acme/u/bob/b", false, true),
        ("/w/acme/u/bobby/a", false, false),
        ("/w/other/u/bob/a", false, false),
    ] {
        assert_eq!((agent.is_over(&slug(text)), person.is_over(&slug(text))), (by_agent, by_person), "{text}");
    }
}
