//! The one resolver: typed text and a caller in, an immutable agent id out (AGENTS-AND-TOOLS §1).
//!
//! It never guesses and never leaves the caller's account unless the text is absolute. The control plane runs it on its
//! database, a node on its directory snapshot.

use super::{AccountName, AgentPath, Force, Scope, Slug, SlugError, SlugText, WorkspaceName};
use crate::id::AgentId;

/// Who typed the slug.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// An agent: relative slugs are looked for below and beside it.
    Agent {
        /// The agent.
        id: AgentId,
        /// Its slug.
        slug: Slug,
    },
    /// A person: relative slugs are looked for below the account only.
    Human {
        /// The workspace the call is made in.
        workspace: WorkspaceName,
        /// The person's account.
        account: AccountName,
    },
}

impl Caller {
    /// The workspace the caller belongs to.
    #[must_use]
    pub fn workspace(&self) -> &WorkspaceName {
        match self {
            Self::Agent { slug, .. } => slug.workspace(),
            Self::Human { workspace, .. } => workspace,
        }
    }

    /// The account the caller belongs to.
    #[must_use]
    pub fn account(&self) -> &AccountName {
        match self {
            Self::Agent { slug, .. } => slug.account(),
            Self::Human { account, .. } => account,
        }
    }

    /// The slug of something below the caller, which is also where `spawn` creates: under an agent, at the account root for a
    /// person.
    ///
    /// # Errors
    /// [`SlugError`] when it would be too deep or too long.
    pub fn child(&self, path: &AgentPath) -> Result<Slug, SlugError> {
        match self {
            Self::Agent { slug, .. } => slug.child(path),
            Self::Human { workspace, account } => Slug::new(workspace.clone(), account.clone(), path.clone()),
        }
    }

    /// Whether the caller decides over an agent: it is the agent itself, one above it, or the owner of its account.
    #[must_use]
    pub fn is_over(&self, slug: &Slug) -> bool {
        match self {
            Self::Agent { slug: own, .. } => own == slug || Scope::below(own).contains(slug),
            Self::Human { workspace, account } => Scope::account(workspace, account).contains(slug),
        }
    }

    /// The slug of something beside the caller; `None` for a person, who has nothing beside the account root.
    fn sibling(&self, path: &AgentPath) -> Option<Result<Slug, SlugError>> {
        let Self::Agent { slug, .. } = self else { return None };
        Some(match slug.parent() {
            Some(parent) => parent.child(path),
            None => Slug::new(slug.workspace().clone(), slug.account().clone(), path.clone()),
        })
    }
}

/// What the resolver may ask. An implementation answers only for agents that the caller may see: what is hidden is not found.
pub trait Lookup {
    /// The agent that holds this slug now.
    fn live(&self, slug: &Slug) -> Option<AgentId>;
    /// The agent that held this slug last and has ended.
    fn ended(&self, slug: &Slug) -> Option<AgentId>;
}

/// An agent that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The agent; a slug reused later does not change it.
    pub agent_id: AgentId,
    /// Its absolute slug.
    pub slug: Slug,
    /// Whether the agent has ended: good for reading and resurrecting only.
    pub ended: bool,
}

/// Why a text resolved to no agent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// The text breaks the grammar.
    #[error(transparent)]
    Invalid(#[from] SlugError),
    /// The text needs a calling agent, or a caller at all, and there is none.
    #[error("no agent identity here: `{text}` means nothing without a caller; use /w/…/u/…/…")]
    NoIdentity {
        /// What was typed.
        text: String,
    },
    /// A person typed `../`, but there is nothing beside an account.
    #[error("`../{path}` leads out of the account: a person's slugs start at the account root")]
    NoSibling {
        /// What came after `../`.
        path: AgentPath,
    },
    /// Both places hold an agent.
    #[error("ambiguous slug: both {child} and {sibling} exist; type one of them, or ./ or ../ in front")]
    Ambiguous {
        /// The agent below the caller.
        child: Box<Slug>,
        /// The agent beside the caller.
        sibling: Box<Slug>,
    },
    /// No agent that the caller may see has this slug.
    #[error("no agent found at {}", list(candidates))]
    NotFound {
        /// Every absolute slug that was tried; empty when each would have been too long to exist.
        candidates: Vec<Slug>,
    },
}

/// Finds the agent that a text means to a caller.
///
/// 1. Empty or `self` is the calling agent.
/// 2. A leading `/` is absolute, in the caller's workspace unless it names one.
/// 3. Otherwise the candidates are below the caller and beside it; `./` and `../` pick one.
/// 4. Exactly one live candidate is the answer; two are an error.
/// 5. With none live, the same rule over ended agents.
///
/// # Errors
/// [`ResolveError`]; every text gives an answer or an error, none panics.
pub fn resolve(text: &str, caller: Option<&Caller>, lookup: &dyn Lookup) -> Result<Resolved, ResolveError> {
    match meant(text, caller)? {
        Meant::Caller(resolved) => Ok(resolved),
        Meant::OneOf(candidates) => find(candidates, lookup),
    }
}

/// The slugs that [`resolve`] will look up for a text, for who must know them before it can answer. None when nothing is looked up:
/// `resolve` says why.
#[must_use]
pub fn asked(text: &str, caller: Option<&Caller>) -> Vec<Slug> {
    match meant(text, caller) {
        Ok(Meant::OneOf(candidates)) => candidates,
        Ok(Meant::Caller(_)) | Err(_) => Vec::new(),
    }
}

/// What a text means before anything is looked up.
enum Meant {
    /// The calling agent.
    Caller(Resolved),
    /// Whatever is at one of these.
    OneOf(Vec<Slug>),
}

fn meant(text: &str, caller: Option<&Caller>) -> Result<Meant, ResolveError> {
    let no_identity = || ResolveError::NoIdentity { text: text.to_owned() };
    Ok(match SlugText::parse(text)? {
        SlugText::SelfSlug => match caller {
            Some(Caller::Agent { id, slug }) => {
                Meant::Caller(Resolved { agent_id: *id, slug: slug.clone(), ended: false })
            }
            Some(Caller::Human { .. }) | None => return Err(no_identity()),
        },
        SlugText::Absolute { workspace, account, path } => {
            let workspace = match workspace {
                Some(workspace) => workspace,
                None => caller.ok_or_else(no_identity)?.workspace().clone(),
            };
            Meant::OneOf(vec![Slug::new(workspace, account, path)?])
        }
        SlugText::Relative { force, path } => Meant::OneOf(candidates(caller.ok_or_else(no_identity)?, force, &path)?),
    })
}

/// The absolute slugs a relative path may mean, child first. A place too deep or too long to exist is no candidate.
fn candidates(caller: &Caller, force: Option<Force>, path: &AgentPath) -> Result<Vec<Slug>, ResolveError> {
    let child = (force != Some(Force::Sibling)).then(|| caller.child(path));
    let sibling = if force == Some(Force::Child) { None } else { caller.sibling(path) };
    if child.is_none() && sibling.is_none() {
        return Err(ResolveError::NoSibling { path: path.clone() });
    }
    Ok([child, sibling].into_iter().flatten().filter_map(Result::ok).collect())
}

fn find(candidates: Vec<Slug>, lookup: &dyn Lookup) -> Result<Resolved, ResolveError> {
    for ended in [false, true] {
        let agent = |slug: &Slug| if ended { lookup.ended(slug) } else { lookup.live(slug) };
        let mut found = candidates.iter().filter_map(|slug| Some((agent(slug)?, slug.clone())));
        match (found.next(), found.next()) {
            (None, _) => {}
            (Some((agent_id, slug)), None) => return Ok(Resolved { agent_id, slug, ended }),
            (Some((_, child)), Some((_, sibling))) => {
                return Err(ResolveError::Ambiguous { child: Box::new(child), sibling: Box::new(sibling) });
            }
        }
    }
    Err(ResolveError::NotFound { candidates })
}

fn list(slugs: &[Slug]) -> String {
    if slugs.is_empty() {
        return "any slug short enough to exist".to_owned();
    }
    slugs.iter().map(Slug::to_string).collect::<Vec<_>>().join(" or ")
}

#[cfg(test)]
#[path = "resolve_tests.rs"]
mod tests;
