//! Reading: one agent with what is around it, lists, and lists that are told of every change.

use murmur_core::{id::AgentId, phase::Phase, slug::Scope};
use murmur_proto::v1;
use tokio::sync::watch::Receiver;

use super::{
    AgentError, Agents,
    find::{Who, resolved},
};
use crate::{
    db::{
        Source,
        agent_run::{self, AgentRun, Filter},
        timeline::{self, Entry},
    },
    invalid::{Invalid, parse},
    page::{Page, broken},
    tokens::Principal,
};

const PAGE_SIZE_DEFAULT: u32 = 100;
const PAGE_SIZE_MAX: u32 = 500;
const TIMELINE_MAX: usize = 200;
/// Changes of one read.
const CHANGES_MAX: u32 = 500;

/// What is wanted of a list.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    /// Ended ones too.
    pub all: bool,
    /// Empty: the caller's; `*`: every one that it may see.
    pub account: String,
    /// Only those below this one.
    pub parent: String,
    /// In this phase alone.
    pub phase: Option<Phase>,
}

/// One agent and what is around it.
#[derive(Debug)]
pub struct Detail {
    /// The agent.
    pub run: AgentRun,
    /// Live ones directly below it.
    pub children: Vec<AgentRun>,
    /// Oldest first.
    pub timeline: Vec<Entry>,
}

/// What changed up to a point.
#[derive(Debug)]
pub struct StatusBatch {
    /// In the order of their changes.
    pub runs: Vec<AgentRun>,
    /// Where the batch ends.
    pub end: u64,
    /// Nothing more is there now.
    pub whole: bool,
}

impl Agents {
    /// Reads one agent, ended ones included.
    ///
    /// # Errors
    /// [`AgentError`].
    pub async fn detail(
        &self,
        principal: &Principal,
        slug: &str,
        with_children: bool,
        kinds: &[v1::TimelineKind],
    ) -> Result<Detail, AgentError> {
        let mut tx = self.db.look()?;
        // An agent alone is one row.
        if with_children || !kinds.is_empty() {
            tx.begin()?;
        }
        let who = Who::of(&mut tx, principal).await?;
        let run = resolved(&mut tx, &who, slug).await?;
        let children = if with_children { agent_run::children(&mut tx, run.agent_id).await? } else { Vec::new() };
        let mut entries = if kinds.is_empty() { Vec::new() } else { timeline::since(&mut tx, run.agent_id, 0).await? };
        entries.retain(|entry| kinds.iter().any(|kind| entry.kind == i32::from(*kind)));
        let timeline = entries.split_off(entries.len().saturating_sub(TIMELINE_MAX));
        Ok(Detail { run, children, timeline })
    }

    /// Lists agents by slug, a page at a time.
    ///
    /// # Errors
    /// [`AgentError`].
    pub async fn list(
        &self,
        principal: &Principal,
        wanted: &Listing,
        page_size: u32,
        page_token: &str,
    ) -> Result<(Vec<AgentRun>, String), AgentError> {
        if page_size > PAGE_SIZE_MAX {
            return Err(Invalid::new("page_size", format!("must be at most {PAGE_SIZE_MAX}, got {page_size}")).into());
        }
        let page =
            Page::new("ListAgentStatus", if page_size == 0 { PAGE_SIZE_DEFAULT } else { page_size }, page_token)?;
        let (id, slug) = behind(&page.after)?;
        // The page is one statement; who asks, and below whom, need not be of the same moment.
        let mut tx = self.db.look()?;
        let filter = filter(&mut tx, principal, wanted).await?;
        let runs = agent_run::page(&mut tx, &filter, (slug, &id), page.limit()).await?;
        let key = |run: &AgentRun| [run.agent_id.as_bytes().as_slice(), run.slug.to_string().as_bytes()].concat();
        Ok(page.cut(runs, key))
    }

    /// The bell of the caller's workspace. Take it before the first batch.
    ///
    /// # Errors
    /// [`AgentError::NoWorkspace`].
    pub fn listen(&self, principal: &Principal) -> Result<Receiver<()>, AgentError> {
        Ok(self.moved.listen(principal.workspace_id().ok_or(AgentError::NoWorkspace)?))
    }

    /// What changed since a point of those that are listed; everything there is without one. Ended ones are told to whoever may have
    /// known them, which in a `first` look is nobody.
    ///
    /// # Errors
    /// [`AgentError`].
    pub async fn status_batch(
        &self,
        principal: &Principal,
        wanted: &Listing,
        since: Option<u64>,
        first: bool,
    ) -> Result<StatusBatch, AgentError> {
        let mut tx = self.db.read().await?;
        self.tokens.still_holds(&mut tx, principal).await?;
        let filter = filter(&mut tx, principal, wanted).await?;
        let last = agent_run::last_change(&mut tx).await?;
        let mut runs = agent_run::changed_since(&mut tx, filter.workspace_id, since.unwrap_or(0), CHANGES_MAX).await?;
        let whole = runs.len() < CHANGES_MAX as usize;
        let end = if whole { last } else { runs.last().map_or(last, |run| run.change) };
        runs.retain(|run| {
            let slug = run.slug.to_string();
            slug.starts_with(&filter.prefix) && slug.starts_with(&filter.within)
        });
        if first && !wanted.all {
            runs.retain(|run| run.ended_ms.is_none());
        }
        Ok(StatusBatch { runs, end, whole })
    }
}

/// The bounds of a list: what was asked for, inside what the caller may see.
async fn filter(conn: &mut impl Source, principal: &Principal, wanted: &Listing) -> Result<Filter, AgentError> {
    let who = Who::of(conn, principal).await?;
    let within = who.horizon();
    let account = match (wanted.account.as_str(), &who.account) {
        ("*", _) => None,
        ("", Some(own)) => Some(Scope::account(&who.workspace, own)),
        ("", None) => None,
        (named, _) => Some(Scope::account(&who.workspace, &parse("account", named)?)),
    };
    let prefix = if wanted.parent.is_empty() {
        account.map_or_else(|| within.clone(), |account| account.to_string())
    } else {
        let parent = resolved(conn, &who, &wanted.parent).await.map_err(|error| error.of_field("parent"))?;
        Scope::below(&parent.slug).to_string()
    };
    Ok(Filter { workspace_id: who.workspace_id, prefix, within, all: wanted.all, phase: wanted.phase })
}

/// Where a page begins: id and slug of the last one before it.
fn behind(after: &[u8]) -> Result<(Vec<u8>, &str), Invalid> {
    if after.is_empty() {
        return Ok((Vec::new(), ""));
    }
    let (id, slug) = after.split_at_checked(16).ok_or_else(broken)?;
    let id = AgentId::from_slice(id).map_err(|_| broken())?;
    Ok((id.to_vec(), std::str::from_utf8(slug).map_err(|_| broken())?))
}
