//! Reading logs, a page at a time.

use murmur_core::{
    event::{Kind, branch},
    slug::Scope,
};
use murmur_proto::v1;

use super::{EventError, Events};
use crate::{
    agents::{AgentError, Who, resolved},
    db::{
        Source,
        event::{self, About, Event, Filter, Range, Whose},
    },
    invalid::{Invalid, parse},
    page::Page,
    tokens::Principal,
};

const PAGE_SIZE_DEFAULT: u32 = 100;
const PAGE_SIZE_MAX: u32 = 500;
/// Of one page: half of what an RPC may carry.
const PAGE_BYTES_MAX: usize = 2 * 1024 * 1024;
const KINDS_MAX: usize = 32;

/// What is wanted of the logs.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// As the contract writes it.
    pub filter: v1::EventFilter,
    /// What is superseded and withheld, too.
    pub all: bool,
    /// Newest first.
    pub descending: bool,
}

impl Events {
    /// A page of events, and the token of the next. A page may hold fewer than were asked for although another follows.
    ///
    /// # Errors
    /// [`EventError`].
    pub async fn list(
        &self,
        principal: &Principal,
        wanted: &Wanted,
        (page_size, page_token): (u32, &str),
    ) -> Result<(Vec<Event>, String), EventError> {
        let list = if wanted.descending { "ListEvents, newest first" } else { "ListEvents" };
        let page = Page::of(list, page_size, page_token, PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX)?;
        let after = page.after_number()?;
        let mut tx = self.db.read().await?;
        let filter = Filter { all: wanted.all, ..filter(&mut tx, principal, &wanted.filter).await? };
        let range = Range { after, descending: wanted.descending, limit: page.limit() };
        let events = event::page(&mut tx, &filter, range).await?;
        let bytes = |event: &Event| {
            event.text.len() + event.attributes.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()
        };
        Ok(page.cut_to(events, |event| event.position.to_be_bytes().to_vec(), bytes, PAGE_BYTES_MAX))
    }
}

/// What a filter means to a caller: never more than it may see.
pub(super) async fn filter(
    conn: &mut impl Source,
    principal: &Principal,
    wanted: &v1::EventFilter,
) -> Result<Filter, EventError> {
    let v1::EventFilter { kinds, repo, branch: on, pr, subtree, slug } = wanted;
    if kinds.len() > KINDS_MAX {
        return Err(Invalid::new("filter.kinds", format!("must be at most {KINDS_MAX}, got {}", kinds.len())).into());
    }
    if !subtree.is_empty() && !slug.is_empty() {
        return Err(Invalid::new("filter.slug", "must not be set together with subtree").into());
    }
    let kinds = kinds.iter().map(|kind| parse::<Kind>("filter.kinds", kind)).collect::<Result<_, _>>()?;
    let repo = if repo.is_empty() {
        String::new()
    } else {
        parse::<murmur_core::event::RepoName>("filter.repo", repo)?.to_string()
    };
    let about = About { repo, branch: branch(on).to_owned(), pr: *pr };
    let who = Who::of(conn, principal).await?;
    let whose = match (&who.agent, slug.is_empty(), subtree.is_empty()) {
        (_, false, _) => {
            let run = resolved(conn, &who, slug).await.map_err(|error| error.of_field("filter.slug"))?;
            Whose::Agent(run.agent_id)
        }
        (_, true, false) => {
            let top = resolved(conn, &who, subtree).await.map_err(|error| error.of_field("filter.subtree"))?;
            Whose::Below { top: Some(top.agent_id), prefix: Scope::below(&top.slug).to_string() }
        }
        (Some(own), true, true) => Whose::Agent(own.agent_id),
        (None, true, true) => Whose::Below { top: None, prefix: account(&who)? },
    };
    Ok(Filter { workspace_id: who.workspace_id, whose, kinds, about, all: false })
}

/// All of a person's account, as far as it may see.
fn account(who: &Who) -> Result<String, AgentError> {
    let horizon = who.horizon();
    let Some(account) = &who.account else { return Ok(horizon) };
    let account = Scope::account(&who.workspace, account).to_string();
    // Of two prefixes that overlap one lies in the other.
    if horizon.starts_with(&account) || !account.starts_with(&horizon) { Ok(horizon) } else { Ok(account) }
}
