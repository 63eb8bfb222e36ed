//! What agents register: where their events come from.

use std::collections::BTreeSet;

use murmur_core::event::{PullRequest, branch};
use murmur_proto::v1;

use crate::{
    agents::Work,
    db::{
        DbError,
        agent_run::AgentRun,
        event_repo::{self, Registration, Source},
    },
};

/// Registers what an agent is spawned with: each repository with the branch that it works on.
///
/// # Errors
/// [`DbError`].
pub(crate) async fn registered_by_spawn(work: &mut Work, run: &AgentRun) -> Result<(), DbError> {
    let named = format!("murmur/{}", run.slug.path().as_str().replace('/', "_"));
    let on = |repo: &v1::Repo| {
        let own = [&repo.branch, &run.spec.branch].into_iter().find(|branch| !branch.is_empty());
        own.unwrap_or(&named).clone()
    };
    let repos = run.spec.repos.iter().map(|repo| v1::Repo { branch: on(repo), ..repo.clone() }).collect::<Vec<_>>();
    replace(work, run, Source::Spawn, &repos, &[]).await
}

/// Registers what an agent says of itself, in the place of what it said before: the repositories that it names, and the pull requests whose
/// pages stand in its output. What is absent stays.
///
/// # Errors
/// [`DbError`].
pub(crate) async fn registered_by_status(work: &mut Work, run: &AgentRun, repos: &[v1::Repo]) -> Result<(), DbError> {
    let pages = run.output.as_ref().map(|output| output.prs.as_slice()).unwrap_or_default();
    if !repos.is_empty() {
        return replace(work, run, Source::Status, repos, pages).await;
    }
    for new in pull_requests(pages) {
        event_repo::add(work, (run.workspace_id, run.agent_id), Source::Status, &new).await?;
    }
    Ok(())
}

async fn replace(
    work: &mut Work,
    run: &AgentRun,
    source: Source,
    repos: &[v1::Repo],
    pages: &[String],
) -> Result<(), DbError> {
    let mut all: BTreeSet<Registration> = pull_requests(pages).collect();
    for repo in repos {
        // What git can clone and has no name is a folder without one: nothing ever tells of it.
        let Ok(name) = repo.clone_url.parse() else { continue };
        all.insert(Registration { repo: name, branch: branch(&repo.branch).to_owned(), pr: repo.pr });
    }
    let before = event_repo::of_source(work, run.agent_id, source).await?;
    for gone in before.iter().filter(|known| !all.contains(known)) {
        event_repo::remove(work, run.agent_id, source, gone).await?;
    }
    for new in all.iter().filter(|new| !before.contains(new)) {
        event_repo::add(work, (run.workspace_id, run.agent_id), source, new).await?;
    }
    Ok(())
}

fn pull_requests(pages: &[String]) -> impl Iterator<Item = Registration> {
    let found = pages.iter().filter_map(|page| PullRequest::from_url(page));
    found.map(|PullRequest { repo, number }| Registration { repo, branch: String::new(), pr: number })
}
