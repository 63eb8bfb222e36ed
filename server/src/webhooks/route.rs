//! From what a delivery says to the agents that registered its repository's branch or pull request.

use std::collections::BTreeSet;

use murmur_core::event::{Origin, RepoName};

use super::{
    lists,
    report::{Push, Report, Told},
};
use crate::{
    agents::{AgentError, Work},
    db::{
        DbError, pull_request,
        pull_request::State,
        webhook::{Kind, Webhook},
    },
    events::{
        files::{self, pushed},
        pull_request::pull_request_resolved,
        route::{Target, route},
    },
};

/// What became of a report.
#[derive(Debug, Default)]
pub(super) struct Handed {
    /// Agents in whose logs something stands now.
    pub(super) agents: u64,
    /// It stands there and is told to nobody.
    pub(super) withheld: bool,
}

/// Hands a report on, inside the change that stores the delivery.
///
/// # Errors
/// [`AgentError`].
pub(super) async fn hand_on(work: &mut Work, webhook: &Webhook, report: &Report) -> Result<Handed, AgentError> {
    let Ok(repo) = report.repo.parse::<RepoName>() else { return Ok(Handed::default()) };
    let mut handed = Handed::default();
    if let Some(pull) = &report.pull {
        pull_request::put(work, webhook.workspace_id, &repo, pull).await?;
    }
    if let Some(told) = &report.told {
        handed = tell(work, webhook, &repo, told).await?;
    }
    if let Some(pull) = &report.pull {
        // After it was told, which is when an agent of the branch learns of the number.
        let target = Target { repo: repo.clone(), branch: String::new(), pr: pull.number };
        let resolved = pull.state != State::Open;
        pull_request_resolved(work, webhook.workspace_id, &target, resolved, &|_| true).await?;
    }
    if let Some(push) = &report.push {
        let told = pushed(work, webhook.workspace_id, &changed(webhook, repo, push, work.now_ms())).await?;
        handed.agents += told.len() as u64;
    }
    Ok(handed)
}

fn changed(webhook: &Webhook, repo: RepoName, push: &Push, now_ms: u64) -> files::Push {
    files::Push {
        repo,
        branch: push.branch.clone(),
        base_sha: push.before.clone(),
        head_sha: push.after.clone(),
        files: push.paths.clone(),
        author: String::new(),
        origin: origin(webhook),
        untrusted: true,
        time_ms: push.at_ms.unwrap_or(now_ms),
        by: None,
    }
}

fn origin(webhook: &Webhook) -> Origin {
    Origin::Verified(match webhook.kind {
        Kind::GitHub => "github",
        Kind::GitLab => "gitlab",
        Kind::Generic => "webhook",
    })
}

async fn tell(work: &mut Work, webhook: &Webhook, repo: &RepoName, told: &Told) -> Result<Handed, DbError> {
    let withheld = told
        .author
        .as_ref()
        .is_some_and(|author| !lists::actor_listed(webhook.kind, &webhook.actors, &author.name, author.is_member));
    let draft = told.draft(origin(webhook), withheld, work.now_ms());
    let mut slugs = BTreeSet::new();
    for target in targets(work, webhook, repo, told).await? {
        slugs.extend(route(work, webhook.workspace_id, &target, &draft, &|_| true).await?.slugs);
    }
    Ok(Handed { agents: slugs.len() as u64, withheld })
}

/// Each pull request with its branch, as far as it is known, then the branches that belong to none.
async fn targets(work: &mut Work, webhook: &Webhook, repo: &RepoName, told: &Told) -> Result<Vec<Target>, DbError> {
    let mut targets = Vec::new();
    let mut branches: BTreeSet<&str> = told.branches.iter().map(String::as_str).collect();
    for pr in &told.prs {
        let branch = match told.branches.as_slice() {
            [one] => one.clone(),
            // A comment says nothing of the branch; what was told of the pull request before does.
            _ => pull_request::branch(work, webhook.workspace_id, repo, *pr).await?.unwrap_or_default(),
        };
        branches.remove(branch.as_str());
        targets.push(Target { repo: repo.clone(), branch, pr: *pr });
    }
    let alone = |branch: &str| Target { repo: repo.clone(), branch: branch.to_owned(), pr: 0 };
    targets.extend(branches.into_iter().map(alone));
    if targets.is_empty() {
        // Nobody's branch: those hear of it who registered the whole repository.
        targets.push(alone(""));
    }
    Ok(targets)
}
