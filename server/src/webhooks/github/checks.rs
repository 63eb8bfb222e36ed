//! What machines say about a commit: checks, suites, statuses, workflow runs. All of them are `ci_result`.

use murmur_core::event::EventKind;
use serde::Deserialize;
use serde_json::Value;

use super::{Common, RepoName};
use crate::webhooks::{
    moment::unix_ms,
    report::{Report, Told},
};

const UNFINISHED: &str = "a check that has not ended";

#[derive(Deserialize)]
struct Numbered {
    number: u64,
}

#[derive(Deserialize)]
struct App {
    #[serde(default)]
    slug: String,
}

#[derive(Deserialize)]
struct OfRun {
    check_run: CheckRun,
}

#[derive(Deserialize)]
struct CheckRun {
    id: u64,
    name: String,
    head_sha: String,
    conclusion: Option<String>,
    html_url: Option<String>,
    completed_at: Option<String>,
    #[serde(default)]
    pull_requests: Vec<Numbered>,
    check_suite: Option<SuiteOfRun>,
    output: Option<Output>,
}

#[derive(Deserialize)]
struct SuiteOfRun {
    head_branch: Option<String>,
}

#[derive(Deserialize)]
struct Output {
    title: Option<String>,
    summary: Option<String>,
}

#[derive(Deserialize)]
struct OfSuite {
    check_suite: CheckSuite,
}

#[derive(Deserialize)]
struct CheckSuite {
    id: u64,
    head_branch: Option<String>,
    head_sha: String,
    conclusion: Option<String>,
    updated_at: String,
    app: Option<App>,
    #[serde(default)]
    pull_requests: Vec<Numbered>,
}

#[derive(Deserialize)]
struct Status {
    id: u64,
    sha: String,
    state: String,
    context: String,
    description: Option<String>,
    target_url: Option<String>,
    updated_at: String,
    branches: Vec<Branch>,
}

#[derive(Deserialize)]
struct Branch {
    name: String,
}

#[derive(Deserialize)]
struct OfWorkflow {
    workflow_run: WorkflowRun,
}

#[derive(Deserialize)]
struct WorkflowRun {
    id: u64,
    #[serde(default)]
    run_attempt: u64,
    name: Option<String>,
    head_branch: Option<String>,
    head_sha: String,
    head_repository: Option<RepoName>,
    conclusion: Option<String>,
    html_url: String,
    updated_at: String,
    #[serde(default)]
    pull_requests: Vec<Numbered>,
}

/// One result, as every type tells it.
struct Outcome<'a> {
    id: String,
    at: Option<&'a str>,
    sha: &'a str,
    check: &'a str,
    conclusion: &'a str,
    url: Option<String>,
    branches: Vec<&'a str>,
    prs: &'a [Numbered],
    text: String,
}

fn told(repo: &str, result: Outcome<'_>) -> Report {
    let Outcome { id, at, sha, check, conclusion, url, branches, prs, text } = result;
    let mut told = Told::new(EventKind::CiResult, &id, repo)
        .at(at.and_then(unix_ms))
        .with("sha", sha)
        .with("check", check)
        .with("conclusion", conclusion)
        .some("url", url)
        .some("branch", branches.first().copied())
        .text(&text);
    for branch in branches {
        told = told.branch(Some(branch));
    }
    told.prs = prs.iter().map(|pr| pr.number).collect();
    // One pull request is what it is about; several share a commit.
    if let [one] = prs {
        told = told.with("pr", one.number.to_string());
    }
    Report::of(repo.to_owned(), told)
}

pub(super) fn check_run(common: &Common, body: Value) -> Result<Report, serde_json::Error> {
    let run = serde_json::from_value::<OfRun>(body)?.check_run;
    let repo = common.repo.as_str();
    let Some(conclusion) = run.conclusion.as_deref().filter(|_| common.action == "completed") else {
        return Ok(Report::silent(repo.to_owned(), UNFINISHED));
    };
    let output = run.output.as_ref();
    let lines =
        [output.and_then(|output| output.title.as_deref()), output.and_then(|output| output.summary.as_deref())];
    let text = lines.into_iter().flatten().filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n");
    let result = Outcome {
        id: format!("gh-check-{}-{conclusion}", run.id),
        at: run.completed_at.as_deref(),
        sha: &run.head_sha,
        check: &run.name,
        conclusion,
        url: run.html_url.clone(),
        branches: run.check_suite.iter().filter_map(|suite| suite.head_branch.as_deref()).collect(),
        prs: &run.pull_requests,
        text,
    };
    Ok(told(repo, result))
}

pub(super) fn check_suite(common: &Common, body: Value) -> Result<Report, serde_json::Error> {
    let suite = serde_json::from_value::<OfSuite>(body)?.check_suite;
    let repo = common.repo.as_str();
    let Some(conclusion) = suite.conclusion.as_deref().filter(|_| common.action == "completed") else {
        return Ok(Report::silent(repo.to_owned(), UNFINISHED));
    };
    let app = suite.app.as_ref().map_or("", |app| app.slug.as_str());
    let check = if app.is_empty() { "suite".to_owned() } else { format!("suite {app}") };
    let result = Outcome {
        id: format!("gh-suite-{}-{conclusion}", suite.id),
        at: Some(&suite.updated_at),
        sha: &suite.head_sha,
        check: &check,
        conclusion,
        url: None,
        branches: suite.head_branch.as_deref().into_iter().collect(),
        prs: &suite.pull_requests,
        text: String::new(),
    };
    Ok(told(repo, result))
}

pub(super) fn status(common: &Common, body: Value) -> Result<Report, serde_json::Error> {
    let status: Status = serde_json::from_value(body)?;
    if status.state == "pending" {
        return Ok(Report::silent(common.repo.clone(), UNFINISHED));
    }
    let result = Outcome {
        id: format!("gh-status-{}", status.id),
        at: Some(&status.updated_at),
        sha: &status.sha,
        check: &status.context,
        conclusion: &status.state,
        url: status.target_url.clone(),
        branches: status.branches.iter().map(|branch| branch.name.as_str()).collect(),
        prs: &[],
        text: status.description.clone().unwrap_or_default(),
    };
    Ok(told(&common.repo, result))
}

pub(super) fn workflow_run(common: &Common, body: Value) -> Result<Report, serde_json::Error> {
    let run = serde_json::from_value::<OfWorkflow>(body)?.workflow_run;
    let repo = common.repo.as_str();
    let Some(conclusion) = run.conclusion.as_deref().filter(|_| common.action == "completed") else {
        return Ok(Report::silent(repo.to_owned(), UNFINISHED));
    };
    // A fork may call its branch whatever it likes.
    let is_own = run.head_repository.as_ref().is_none_or(|head| head.full_name.eq_ignore_ascii_case(repo));
    let result = Outcome {
        id: format!("gh-run-{}-{}", run.id, run.run_attempt),
        at: Some(&run.updated_at),
        sha: &run.head_sha,
        check: run.name.as_deref().unwrap_or("workflow"),
        conclusion,
        url: Some(run.html_url.clone()),
        branches: run.head_branch.as_deref().filter(|_| is_own).into_iter().collect(),
        prs: &run.pull_requests,
        text: String::new(),
    };
    Ok(told(repo, result))
}
