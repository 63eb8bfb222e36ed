//! Who may answer a permission request: the owner of the account that the asking agent belongs to, by person or by the agent `me`; and
//! agents above the asking one, which could have done what it wants to do themselves. Never the asking agent.

use std::fmt;

use murmur_core::slug::{AccountName, AgentPath, Slug};

/// The account's own agent.
const ME: &str = "me";

/// Who answers, as somebody found out who does not take the answerer's word for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answerer {
    /// The owner of this node's account, at a shell of the node's user.
    Owner(AccountName),
    /// The same, by a notification channel that knows its person, such as `telegram:jo`.
    Person(String),
    /// An agent, by its token, its socket or its signature.
    Agent(Slug),
}

impl Answerer {
    /// Whether it may answer what an agent of this node asks.
    #[must_use]
    pub fn may_answer(&self, asker: &Slug) -> bool {
        match self {
            // A node belongs to one account.
            Self::Owner(_) | Self::Person(_) => true,
            Self::Agent(slug) => {
                let is_same_account = slug.workspace() == asker.workspace() && slug.account() == asker.account();
                is_same_account && slug != asker && (slug.path().as_str() == ME || is_above(slug.path(), asker.path()))
            }
        }
    }

    /// Whether it is this agent.
    #[must_use]
    pub fn is(&self, agent: &Slug) -> bool {
        matches!(self, Self::Agent(slug) if slug == agent)
    }
}

impl fmt::Display for Answerer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Owner(account) => write!(f, "human:{account}"),
            Self::Person(person) => f.write_str(person),
            Self::Agent(slug) => write!(f, "agent:{slug}"),
        }
    }
}

/// Agents that are asked: the parent, and the account's own agent.
pub(super) fn asked(asker: &Slug) -> Vec<Slug> {
    let at = |path: AgentPath| Slug::new(asker.workspace().clone(), asker.account().clone(), path).ok();
    let me = ME.parse::<AgentPath>().ok();
    let mut slugs: Vec<Slug> = asker.path().parent().into_iter().chain(me).filter_map(at).collect();
    slugs.retain(|slug| slug != asker);
    slugs.dedup();
    slugs
}

fn is_above(path: &AgentPath, below: &AgentPath) -> bool {
    below.as_str().strip_prefix(path.as_str()).is_some_and(|rest| rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slug(text: &str) -> Slug {
        text.parse().unwrap()
    }

    #[test]
    fn those_above_and_the_owner_may_answer_and_nobody_else() {
        let asker = slug("/w/acme/u/jo/lead/worker/deep");
        for may in ["/w/acme/u/jo/lead", "/w/acme/u/jo/lead/worker", "/w/acme/u/jo/me"] {
            assert!(Answerer::Agent(slug(may)).may_answer(&asker), "{may}");
        }
        for may_not in [
            "/w/acme/u/jo/lead/worker/deep",
            "/w/acme/u/jo/lead/worker/deep/child",
            "/w/acme/u/jo/lead/work",
            "/w/acme/u/jo/other",
            "/w/acme/u/jo/lead/me",
            "/w/acme/u/eve/lead",
            "/w/acme/u/eve/me",
            "/w/evil/u/jo/lead",
        ] {
            assert!(!Answerer::Agent(slug(may_not)).may_answer(&asker), "{may_not}");
        }
        assert!(Answerer::Owner("jo".parse().unwrap()).may_answer(&asker));
    }

    #[test]
    fn an_agent_never_answers_for_itself_whoever_it_is() {
        let me = slug("/w/acme/u/jo/me");
        assert!(Answerer::Agent(me.clone()).is(&me) && !Answerer::Agent(me.clone()).may_answer(&me));
    }

    #[test]
    fn the_parent_and_the_accounts_own_agent_are_asked() {
        let of = |text: &str| asked(&slug(text)).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(of("/w/acme/u/jo/lead/worker"), ["/w/acme/u/jo/lead", "/w/acme/u/jo/me"]);
        assert_eq!(of("/w/acme/u/jo/me/worker"), ["/w/acme/u/jo/me"]);
        assert_eq!(of("/w/acme/u/jo/alice"), ["/w/acme/u/jo/me"]);
        assert!(of("/w/acme/u/jo/me").is_empty());
    }
}
