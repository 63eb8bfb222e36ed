//! `event send|ls` and `notify`: what agents are told of, and what they were told.

use std::collections::BTreeMap;

use murmur_proto::v1::{
    Event, EventFilter, ListEventsRequest, PublishEventRequest, PublishEventResponse, RepoTarget,
    publish_event_request::Target as To,
};
use serde_json::{Value, json};

use super::body;
use crate::{
    agent_view::first_line,
    args::Caller,
    connect::Target,
    event_view::event_json,
    output::{self, Outcome, Output},
    text::{clean, clean_line},
    time,
};

const PAGE: u32 = 500;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Tell an agent of something, or all that work on a branch or pull request; it stands in their logs when this returns
    Send(Send),
    /// What agents were told, the newest last
    Ls(Ls),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Send {
    /// What there is to say; `-`, or nothing with something piped in, reads stdin
    #[arg(allow_hyphen_values = true)]
    text: Option<String>,
    /// The agent
    #[arg(long, value_name = "SLUG", required_unless_present = "repo", conflicts_with = "repo")]
    to: Option<String>,
    /// Agents that work in this repository: `owner/name` or a clone URL
    #[arg(long, value_name = "REPO")]
    repo: Option<String>,
    /// … on this branch
    #[arg(long, value_name = "NAME", requires = "repo", default_value = "", hide_default_value = true)]
    branch: String,
    /// … or on this pull request
    #[arg(long, value_name = "NUMBER", requires = "repo", default_value_t = 0, hide_default_value = true)]
    pr: u64,
    /// What it is: ci_result, pr_comment, pr_review, or a name of your own [default: notify]
    #[arg(long, value_name = "KIND", default_value = "", hide_default_value = true)]
    kind: String,
    /// What it is about, such as check=lint; repeatable
    #[arg(long = "attribute", short = 'a', value_name = "NAME=VALUE", value_parser = attribute)]
    attributes: Vec<(String, String)>,
    /// Your own id: a repeat with the same id is told once
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    id: String,
    #[command(flatten)]
    caller: Caller,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Ls {
    /// This agent's log [default: the calling agent's; for a person those of the whole account]
    #[arg(default_value = "", hide_default_value = true)]
    slug: String,
    /// The logs of this agent and of all below it
    #[arg(long, value_name = "SLUG", default_value = "", hide_default_value = true, conflicts_with = "slug")]
    subtree: String,
    /// Only of these kinds
    #[arg(long = "kind", value_name = "KINDS", value_delimiter = ',')]
    kinds: Vec<String>,
    /// Only about this repository
    #[arg(long, value_name = "REPO", default_value = "", hide_default_value = true)]
    repo: String,
    /// Only about this branch
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    branch: String,
    /// Only about this pull request
    #[arg(long, value_name = "NUMBER", default_value_t = 0, hide_default_value = true)]
    pr: u64,
    /// Also what a newer one replaced, and what was withheld
    #[arg(long)]
    all: bool,
    /// How many at most, the newest
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000), value_name = "N")]
    limit: u32,
    #[command(flatten)]
    caller: Caller,
}

/// `notify`.
#[derive(Debug, clap::Args)]
pub(crate) struct Notify {
    /// The agent: your own, one of your account, or one above you
    slug: String,
    /// What there is to say; `-` or nothing reads stdin
    #[arg(allow_hyphen_values = true)]
    text: Option<String>,
    /// Your own id: a repeat with the same id is told once
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    id: String,
    #[command(flatten)]
    caller: Caller,
}

pub(crate) async fn run(target: &Target, command: Command, output: Output) -> Outcome {
    match command {
        Command::Send(args) => send(target, args, output).await,
        Command::Ls(args) => ls(target, args, output).await,
    }
}

pub(crate) async fn notify(target: &Target, args: Notify, output: Output) -> Outcome {
    let Notify { slug, text, id, caller } = args;
    let request = PublishEventRequest {
        target: Some(To::Slug(slug)),
        text: body::text(text)?,
        event_id: id,
        ..PublishEventRequest::default()
    };
    publish(target, &caller, request, output).await
}

async fn send(target: &Target, args: Send, output: Output) -> Outcome {
    let Send { text, to, repo, branch, pr, kind, attributes, id, caller } = args;
    let text = body::text_if_any(text)?;
    let on = match (to, repo) {
        (Some(slug), _) => To::Slug(slug),
        (None, repo) => To::Repo(RepoTarget { repo: repo.unwrap_or_default(), branch, pr }),
    };
    let attributes: BTreeMap<_, _> = attributes.into_iter().collect();
    let request = PublishEventRequest { target: Some(on), kind, text, attributes, time: None, event_id: id };
    publish(target, &caller, request, output).await
}

async fn publish(target: &Target, caller: &Caller, request: PublishEventRequest, output: Output) -> Outcome {
    let told = target.control_as(caller).await?.events.publish_event(request).await?.into_inner();
    let PublishEventResponse { event_id, slugs, duplicate } = told;
    let value = json!({"event_id": event_id, "slugs": slugs, "duplicate": duplicate});
    output.show(&value, || {
        let whom = slugs.iter().map(|slug| clean_line(slug)).collect::<Vec<_>>().join(", ");
        match (slugs.is_empty(), duplicate) {
            (true, _) => "nobody works there: no agent has registered it".to_owned(),
            (false, true) => format!("told before: {whom}"),
            (false, false) => format!("told {whom}"),
        }
    })
}

async fn ls(target: &Target, args: Ls, output: Output) -> Outcome {
    let Ls { slug, subtree, kinds, repo, branch, pr, all, limit, caller } = args;
    let filter = Some(EventFilter { kinds, repo, branch, pr, subtree, slug });
    let mut control = target.control_as(&caller).await?;
    let (mut events, mut page_token) = (Vec::new(), String::new());
    let is_more = loop {
        let left = limit.saturating_sub(u32::try_from(events.len()).unwrap_or(u32::MAX));
        let request =
            ListEventsRequest { filter: filter.clone(), all, page_size: left.min(PAGE), page_token, descending: true };
        let page = control.events.list_events(request).await?.into_inner();
        events.extend(page.events);
        page_token = page.next_page_token;
        if page_token.is_empty() || events.len() >= limit as usize {
            break !page_token.is_empty();
        }
    };
    events.reverse();
    let value = json!({"events": events.iter().map(event_json).collect::<Vec<Value>>(), "is_more": is_more});
    output.show(&value, || {
        if events.is_empty() {
            return "nothing was told".to_owned();
        }
        let more = if is_more { "\n(there are older ones: --limit)" } else { "" };
        table(&events) + more
    })
}

fn table(events: &[Event]) -> String {
    let rows = events.iter().map(|event| {
        vec![
            time::ago(event.time.as_ref()),
            clean_line(&event.slug),
            event.kind.clone() + &marks(event),
            clean_line(&event.origin),
            about(event),
            first_line(&clean(&event.text)),
        ]
    });
    output::table(&["WHEN", "TOLD", "KIND", "BY", "ABOUT", "TEXT"], rows)
}

/// What is to be known before the text is believed.
fn marks(event: &Event) -> String {
    let said = [
        (event.untrusted, "untrusted"),
        (event.stale, "stale"),
        (event.superseded, "replaced"),
        (event.withheld, "withheld"),
    ];
    let words: Vec<_> = said.into_iter().filter(|(is, _)| *is).map(|(_, word)| word).collect();
    if words.is_empty() { String::new() } else { format!(" ({})", words.join(", ")) }
}

/// The attributes that tell one event from another of its kind.
fn about(event: &Event) -> String {
    let names: &[&str] = match event.kind.as_str() {
        "pr_comment" | "pr_review" => &["repo", "pr", "author", "state"],
        "ci_result" => &["repo", "check", "conclusion"],
        "child_lifecycle" => &["child", "phase"],
        "progress" => &["child", "label"],
        "file_changed" => &["repo", "branch", "count"],
        "notify" => &["from"],
        "gap" => &["dropped"],
        _ => {
            return event
                .attributes
                .iter()
                .map(|(name, value)| format!("{name}={}", clean_line(value)))
                .collect::<Vec<_>>()
                .join(" ");
        }
    };
    let known = names.iter().filter_map(|name| event.attributes.get(*name));
    known.map(|value| clean_line(value)).collect::<Vec<_>>().join(" ")
}

fn attribute(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("must be NAME=VALUE".to_owned()),
    }
}
