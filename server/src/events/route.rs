//! From a repository's branch or pull request to the agents that registered it.
//!
//! How a webhook uses it, all in one transaction:
//!
//! ```text
//! let mut work = agents.begin().await?;
//! // its own rows: the delivery, deduplicated
//! let target = Target { repo: "owner/name".parse()?, branch: "topic".into(), pr: 5 };
//! let draft = Draft::new(Kind::PrReview, "github:<unique id>", Origin::Verified("github"), time_ms)
//!     .with("author", "octocat").with("state", "approved").text(body);
//! let draft = Draft { untrusted: true, withheld: !is_listed(author), ..draft };
//! let routed = route(&mut work, workspace_id, &target, &draft, &|_| true).await?;
//! agents.commit(work).await?;   // durable; nodes, watchers and sleeping agents are woken
//! ```

use murmur_core::{
    event::{Draft, RepoName},
    id::WorkspaceId,
};

use super::put::put;
use crate::{
    agents::Work,
    db::{
        DbError,
        agent_run::{self, AgentRun},
        event,
        event_repo::{self, Registration, Source},
    },
};

/// Where something happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// The repository.
    pub(crate) repo: RepoName,
    /// Without `refs/heads/`; empty when it is not known.
    pub(crate) branch: String,
    /// A pull request's number; 0 for none.
    pub(crate) pr: u64,
}

/// What became of an event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Routed {
    /// In whose logs it stands now.
    pub(crate) slugs: Vec<String>,
    /// In how many of them it is new.
    pub(crate) new: usize,
}

/// Writes an event into the logs of all live agents that registered the branch, the pull request, or the whole repository. Call it in the
/// change that stores what it was made from. An event that tells branch and pull request together teaches the room which belongs to which:
/// whoever registered the branch hears of the pull request from then on. `may` says whom the teller may tell something.
///
/// # Errors
/// [`DbError`].
pub(crate) async fn route(
    work: &mut Work,
    workspace_id: WorkspaceId,
    target: &Target,
    draft: &Draft,
    may: &(dyn Fn(&AgentRun) -> bool + Sync),
) -> Result<Routed, DbError> {
    let Target { repo, branch, pr } = target;
    learn(work, workspace_id, target, may).await?;
    let mut routed = Routed::default();
    for id in event_repo::listeners(work, workspace_id, repo, branch, *pr).await? {
        if let Some(run) = agent_run::get(work, workspace_id, id).await?.filter(|run| may(run)) {
            deliver(work, &run, target, draft, &mut routed).await?;
        }
    }
    Ok(routed)
}

/// Writes an event into one of the logs, with where it happened.
async fn deliver(
    work: &mut Work,
    run: &AgentRun,
    Target { repo, branch, pr }: &Target,
    draft: &Draft,
    routed: &mut Routed,
) -> Result<(), DbError> {
    let mut draft = draft.clone();
    let pr = if *pr > 0 { pr.to_string() } else { String::new() };
    for (name, value) in [("repo", repo.as_str()), ("branch", branch.as_str()), ("pr", pr.as_str())] {
        if !value.is_empty() {
            draft.attributes.entry(name.to_owned()).or_insert_with(|| value.to_owned());
        }
    }
    let event_id = draft.event_id.clone();
    let is_new = put(work, run, draft).await?;
    routed.new += usize::from(is_new);
    if is_new || event::exists(work, run.agent_id, &event_id).await? {
        routed.slugs.push(run.slug.to_string());
    }
    Ok(())
}

pub(super) async fn learn(
    work: &mut Work,
    workspace_id: WorkspaceId,
    Target { repo, branch, pr }: &Target,
    may: &(dyn Fn(&AgentRun) -> bool + Sync),
) -> Result<(), DbError> {
    if branch.is_empty() || *pr == 0 {
        return Ok(());
    }
    for id in event_repo::on_branch(work, workspace_id, repo, branch).await? {
        if agent_run::get(work, workspace_id, id).await?.is_some_and(|run| may(&run)) {
            let new = Registration { repo: repo.clone(), branch: String::new(), pr: *pr };
            event_repo::add(work, (workspace_id, id), Source::Event, &new).await?;
        }
    }
    Ok(())
}
