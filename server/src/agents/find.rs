//! Who calls, what they mean by a slug, and what they may do to it.

use std::collections::HashMap;

use murmur_core::{
    id::{AgentId, WorkspaceId},
    phase::Phase,
    slug::{AccountName, Caller, Lookup, ResolveError, Scope, Slug, WorkspaceName, asked, resolve},
};

use super::AgentError;
use crate::{
    db::{
        Conn, DbError, Source, agent_pruned,
        agent_run::{self, AgentRun},
    },
    tokens::Principal,
};

/// A caller inside its workspace.
#[derive(Debug, Clone)]
pub struct Who {
    /// Where it calls.
    pub workspace_id: WorkspaceId,
    /// By name.
    pub workspace: WorkspaceName,
    /// Whose caller it is; `None` for a program of nobody's.
    pub account: Option<AccountName>,
    /// The life of the agent that calls; `None` for a person or program.
    pub agent: Option<AgentRun>,
    prefix: Option<Scope>,
    /// It may act on every account that it sees.
    is_admin: bool,
}

impl Who {
    /// Finds out who a principal is.
    ///
    /// # Errors
    /// [`AgentError`]: an agent that has ended calls no more.
    pub(crate) async fn of(conn: &mut impl Source, principal: &Principal) -> Result<Self, AgentError> {
        let (workspace_id, workspace) = principal.workspace.clone().ok_or(AgentError::NoWorkspace)?;
        let agent = match principal.agent_id {
            Some(id) => {
                let run = agent_run::get(conn, workspace_id, id).await?;
                let run = run.ok_or_else(|| AgentError::NotFound(id.to_string()))?;
                if run.ended_ms.is_some() {
                    return Err(AgentError::Ended { slug: run.slug, phase: run.phase });
                }
                Some(run)
            }
            None => None,
        };
        let (prefix, account) = (principal.slug_prefix.clone(), principal.account.clone());
        let is_admin = principal.scopes.allows(murmur_proto::v1::Scope::Admin);
        Ok(Self { workspace_id, workspace, account, agent, prefix, is_admin })
    }

    /// Where relative slugs begin.
    pub(crate) fn caller(&self) -> Option<Caller> {
        match (&self.agent, &self.account) {
            (Some(run), _) => Some(Caller::Agent { id: run.agent_id, slug: run.slug.clone() }),
            (None, Some(account)) => {
                Some(Caller::Human { workspace: self.workspace.clone(), account: account.clone() })
            }
            (None, None) => None,
        }
    }

    /// The caller's slug, or the account of a person; empty for an administrator.
    pub(crate) fn name(&self) -> String {
        match self.caller() {
            Some(Caller::Agent { slug, .. }) => slug.to_string(),
            Some(Caller::Human { account, .. }) => account.to_string(),
            None => String::new(),
        }
    }

    /// Whether the caller may know of an agent of this slug.
    pub(crate) fn sees(&self, slug: &Slug) -> bool {
        *slug.workspace() == self.workspace
            && (self.prefix.as_ref().is_none_or(|prefix| prefix.contains(slug))
                || self.agent.as_ref().is_some_and(|own| own.slug == *slug))
    }

    /// Refuses what is neither the caller nor below it. A person acts on the whole account; on another one only with a token that was
    /// given for it, by a prefix inside it, and an administrator on every one.
    ///
    /// # Errors
    /// [`AgentError::Denied`].
    pub(crate) fn require_power(&self, slug: &Slug, what: &str) -> Result<(), AgentError> {
        let may = match &self.agent {
            Some(own) => own.slug == *slug || Scope::below(&own.slug).contains(slug),
            None => self.sees(slug) && self.decides_over(slug),
        };
        if may {
            return Ok(());
        }
        Err(AgentError::Denied(match &self.agent {
            Some(_) => format!("an agent may {what} itself and what is below it, and {slug} is neither"),
            None => format!("{slug} is of the account {}: to {what} it takes a token for that account", slug.account()),
        }))
    }

    fn decides_over(&self, slug: &Slug) -> bool {
        let theirs = Scope::account(slug.workspace(), slug.account());
        self.is_admin
            || self.account.as_ref() == Some(slug.account())
            || self.prefix.as_ref().is_some_and(|prefix| theirs.contains_scope(prefix))
    }

    /// Where listings begin and end at most; ends in `/`.
    pub(crate) fn horizon(&self) -> String {
        self.prefix.as_ref().map_or_else(|| Scope::workspace(&self.workspace), Clone::clone).to_string()
    }
}

/// The agent that a text means to the caller; ended ones only when no live one is meant.
///
/// # Errors
/// [`AgentError`].
pub(crate) async fn resolved(conn: &mut impl Source, who: &Who, text: &str) -> Result<AgentRun, AgentError> {
    let caller = who.caller();
    let (mut known, mut runs) = (Known::default(), Vec::new());
    for slug in asked(text, caller.as_ref()).into_iter().filter(|slug| who.sees(slug)) {
        if let Some(run) = agent_run::live_by_slug(conn, who.workspace_id, &slug).await? {
            known.live.insert(slug, run.agent_id);
            runs.push(run);
        } else if let Some(run) = agent_run::ended_by_slug(conn, who.workspace_id, &slug).await? {
            known.ended.insert(slug, run.agent_id);
            runs.push(run);
        }
    }
    let found = match resolve(text, caller.as_ref(), &known) {
        Ok(found) => found,
        Err(ResolveError::NotFound { candidates }) => {
            for slug in candidates.iter().filter(|slug| who.sees(slug)) {
                require_kept(conn, who.workspace_id, slug).await?;
            }
            return Err(ResolveError::NotFound { candidates }.into());
        }
        Err(error) => return Err(error.into()),
    };
    let run = match runs.into_iter().find(|run| run.agent_id == found.agent_id) {
        Some(run) => Some(run),
        // The caller itself, which was not looked for by its slug.
        None => agent_run::get(conn, who.workspace_id, found.agent_id).await?,
    };
    run.ok_or_else(|| ResolveError::NotFound { candidates: vec![found.slug] }.into())
}

/// Refuses a slug whose last agent was let go, with when that was.
///
/// # Errors
/// [`AgentError::Pruned`].
pub(crate) async fn require_kept(
    conn: &mut impl Source,
    workspace_id: WorkspaceId,
    slug: &Slug,
) -> Result<(), AgentError> {
    match agent_pruned::by_slug(conn, workspace_id, slug).await? {
        Some(gone) => {
            let (ended, pruned) = (day(gone.ended_ms), day(gone.pruned_ms));
            Err(AgentError::Pruned(format!("{} {} on {ended} and was let go on {pruned}", gone.slug, gone.phase)))
        }
        None => Ok(()),
    }
}

/// A day, as people write it.
fn day(unix_ms: u64) -> String {
    let at = i64::try_from(unix_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    at.map(|at| at.strftime("%Y-%m-%d").to_string()).unwrap_or_default()
}

/// As [`resolved`], live ones alone.
///
/// # Errors
/// [`AgentError::Ended`] for one that has ended.
pub(crate) async fn live(conn: &mut Conn, who: &Who, text: &str) -> Result<AgentRun, AgentError> {
    let run = resolved(conn, who, text).await?;
    if run.ended_ms.is_some() {
        return Err(AgentError::Ended { slug: run.slug, phase: run.phase });
    }
    Ok(run)
}

/// Refuses to begin anything at or below an agent that is being ended.
///
/// # Errors
/// [`AgentError::Destroying`].
pub(crate) async fn require_open(conn: &mut Conn, workspace_id: WorkspaceId, slug: &Slug) -> Result<(), AgentError> {
    let mut chain = vec![slug.clone()];
    while let Some(above) = chain.last().and_then(Slug::parent) {
        chain.push(above);
    }
    match agent_run::destroying(conn, workspace_id, &chain).await? {
        Some(slug) => Err(AgentError::Destroying(slug)),
        None => Ok(()),
    }
}

/// The nearest live agent above a slug.
pub(super) async fn parent_of(
    conn: &mut Conn,
    workspace_id: WorkspaceId,
    slug: &Slug,
) -> Result<Option<AgentRun>, DbError> {
    let mut above = slug.parent();
    while let Some(slug) = above {
        if let Some(run) = agent_run::live_by_slug(conn, workspace_id, &slug).await? {
            return Ok(Some(run));
        }
        above = slug.parent();
    }
    Ok(None)
}

/// Refuses a call of an agent that is itself being ended.
pub(super) fn require_steady(who: &Who) -> Result<(), AgentError> {
    match &who.agent {
        Some(run) if run.phase == Phase::Destroying => Err(AgentError::Destroying(run.slug.clone())),
        _ => Ok(()),
    }
}

#[derive(Default)]
struct Known {
    live: HashMap<Slug, AgentId>,
    ended: HashMap<Slug, AgentId>,
}

impl Lookup for Known {
    fn live(&self, slug: &Slug) -> Option<AgentId> {
        self.live.get(slug).copied()
    }

    fn ended(&self, slug: &Slug) -> Option<AgentId> {
        self.ended.get(slug).copied()
    }
}
