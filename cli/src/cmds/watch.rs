//! `watch`: what happens around your agents, permissions that they ask for, and the messages of the one you speak as, live, until
//! interrupted.
//!
//! It comes back by itself after whatever it watches was away, and goes on where it was; only messages that went by meanwhile are not
//! shown, since `inbox` has them.

use std::str::FromStr;

use murmur_core::{reason::Reason, slug::Slug};
use murmur_proto::{
    node::v1::{TailResponse, WatchPermissionsRequest, WatchPermissionsResponse},
    v1::{EventFilter, WatchEventsRequest, WatchEventsResponse, watch_events_response::Item},
};
use serde_json::{Value, json};
use tonic::Streaming;

use super::{
    follow::{Source, follow},
    permission::{permission_json, permission_text},
    tail,
};
use crate::{
    args::{Caller, Speaker},
    comeback::{Comeback, note},
    connect::Target,
    event_view::{event_json, event_text},
    exit::Exit,
    failure::Failure,
    output::{self, Outcome, Output},
    time,
};

/// The kind under which permission requests are shown.
const PERMISSION_KIND: &str = "permission";
/// Kinds that are messages.
const MESSAGE_KINDS: [&str; 3] = ["message", "request", "reply"];
/// As many events as a watch can begin with.
const BACKLOG_MAX: u32 = 1000;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only this agent and those below it; a number begins with the events that are kept from this one of each log on
    #[arg(long, value_name = "SLUG|SEQ")]
    from: Option<Beginning>,
    /// Only this kind, such as ci_result, message or permission; repeatable, or separated by commas
    #[arg(long = "kind", value_name = "KIND", value_delimiter = ',')]
    kinds: Vec<String>,
    /// Only events of this repository, `owner/name`
    #[arg(long, value_name = "REPO", default_value = "", hide_default_value = true)]
    repo: String,
    /// Only events of this branch
    #[arg(long, value_name = "BRANCH", default_value = "", hide_default_value = true)]
    branch: String,
    /// Only events of this pull request
    #[arg(long, value_name = "NUMBER", default_value_t = 0, hide_default_value = true)]
    pr: u64,
    /// First show this many earlier events
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=i64::from(BACKLOG_MAX)), value_name = "N")]
    backlog: u32,
    #[command(flatten)]
    caller: Caller,
}

/// Where to begin, or whom to watch.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Beginning {
    Slug(String),
    Seq(u64),
}

impl FromStr for Beginning {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            "" => Err("must be a slug, or the number of an event".to_owned()),
            text if text.bytes().all(|byte| byte.is_ascii_digit()) => {
                text.parse().map(Self::Seq).map_err(|_| "is too large for the number of an event".to_owned())
            }
            slug => Ok(Self::Slug(slug.to_owned())),
        }
    }
}

pub(crate) async fn run(target: &Target, args: Args, output: Output) -> Outcome {
    let Args { from, kinds, repo, branch, pr, backlog, caller } = args;
    let (subtree, since) = match from {
        None => (String::new(), 0),
        Some(Beginning::Slug(slug)) => (slug, 0),
        Some(Beginning::Seq(seq)) => (String::new(), seq),
    };
    let is_all = kinds.is_empty();
    let (message_kinds, mut event_kinds): (Vec<_>, Vec<_>) =
        kinds.into_iter().partition(|kind| MESSAGE_KINDS.contains(&kind.as_str()));
    let is_about_code = !repo.is_empty() || !branch.is_empty() || pr > 0;
    let wants_permissions = !is_about_code && (is_all || event_kinds.iter().any(|kind| kind == PERMISSION_KIND));
    event_kinds.retain(|kind| kind != PERMISSION_KIND);
    let wants_events = is_all || !event_kinds.is_empty() || is_about_code;
    let wants_messages = !is_about_code && (is_all || !message_kinds.is_empty());
    let shown = Shown { target, caller: &caller, output, subtree: &subtree };
    let filter = EventFilter { kinds: event_kinds, repo, branch, pr, subtree: subtree.clone(), slug: String::new() };
    let backlog = if since > 0 { BACKLOG_MAX } else { backlog };
    let request = WatchEventsRequest { filter: Some(filter), backlog, resume_token: String::new() };
    let events = Events { shown, since, request };
    let aside = || if wants_events { Comeback::silent() } else { Comeback::new() };
    // The first connection is made alone: a filter that is refused ends the command before anything is shown.
    let first = if wants_events { Some(events.open().await?) } else { None };
    tokio::select! {
        ended = follow(events, first, Comeback::new()), if wants_events => ended,
        ended = beside("messages", follow(Messages { shown, kinds: message_kinds }, None, aside())), if wants_messages => ended,
        ended = beside("permission requests", follow(Permissions { shown }, None, aside())), if wants_permissions => ended,
        // Interrupting is how one ends this; it is no failure.
        _ = tokio::signal::ctrl_c() => Ok(Exit::Ok),
    }
}

/// Something that is left out when it is refused: the rest is there all the same.
async fn beside(what: &str, following: impl Future<Output = Outcome>) -> Outcome {
    match following.await {
        Ok(exit) => Ok(exit),
        Err(failure) => {
            note(&format!("{what} are not shown: {}", failure.what));
            std::future::pending().await
        }
    }
}

/// What every source shows, and to whom.
#[derive(Clone, Copy)]
struct Shown<'a> {
    target: &'a Target,
    caller: &'a Caller,
    output: Output,
    /// As it was typed; empty: all.
    subtree: &'a str,
}

impl Shown<'_> {
    /// Whether an agent is watched.
    fn is_watched(&self, slug: &str) -> bool {
        self.subtree.is_empty() || is_below(slug, self.subtree)
    }

    /// Whether somebody still reads.
    fn line(&self, kind: &str, value: impl FnOnce() -> Value, text: impl FnOnce() -> String) -> Result<bool, Failure> {
        if !self.output.is_json() {
            return output::is_read(&text());
        }
        let mut value = value();
        value["type"] = json!(kind);
        output::is_read(&value.to_string())
    }
}

struct Events<'a> {
    shown: Shown<'a>,
    since: u64,
    request: WatchEventsRequest,
}

impl Source for Events<'_> {
    type Item = WatchEventsResponse;

    async fn open(&self) -> Result<Streaming<WatchEventsResponse>, Failure> {
        let Shown { target, caller, .. } = self.shown;
        Ok(target.control_as(caller).await?.events.watch_events(self.request.clone()).await?.into_inner())
    }

    fn take(&mut self, response: WatchEventsResponse) -> Result<bool, Failure> {
        if !response.resume_token.is_empty() {
            self.request.resume_token.clone_from(&response.resume_token);
        }
        match response.item {
            Some(Item::Event(event)) if event.seq >= self.since => {
                self.shown.line("event", || event_json(&event), || event_text(&event))
            }
            Some(Item::CaughtUp(_)) if self.shown.output.is_json() => {
                self.shown.line("caught_up", || json!({}), String::new)
            }
            Some(Item::Gap(gap)) => {
                let until = time::rfc3339(gap.until_time.as_ref());
                let text = || output::warn(&format!("events before {} are missing", until.clone().unwrap_or_default()));
                self.shown.line("gap", || json!({"until_time": until}), text)
            }
            Some(Item::Event(_) | Item::CaughtUp(_)) | None => Ok(true),
        }
    }

    fn broke(&mut self, failure: &Failure) -> bool {
        let is_stale = failure.reason == Some(Reason::ResumeTokenStale);
        if is_stale {
            note("the control plane has another database: events from here on");
            self.request.resume_token.clear();
            self.request.backlog = 0;
        }
        is_stale
    }
}

struct Messages<'a> {
    shown: Shown<'a>,
    kinds: Vec<String>,
}

impl Source for Messages<'_> {
    type Item = TailResponse;

    async fn open(&self) -> Result<Streaming<TailResponse>, Failure> {
        let Caller { agent, agent_token_file } = self.shown.caller.clone();
        tail::open(self.shown.target, &Speaker { agent, agent_token_file }, 0).await
    }

    fn take(&mut self, item: TailResponse) -> Result<bool, Failure> {
        let Some(message) = &item.message else { return Ok(true) };
        let is_kind = self.kinds.is_empty() || self.kinds.iter().any(|kind| kind == crate::view::kind(message));
        let is_there = [&message.from, &message.to].iter().any(|slug| self.shown.is_watched(slug));
        if !is_kind || !is_there {
            return Ok(true);
        }
        self.shown.line("message", || tail::json_of(&item), || tail::text_of(&item))
    }
}

struct Permissions<'a> {
    shown: Shown<'a>,
}

impl Source for Permissions<'_> {
    type Item = WatchPermissionsResponse;

    async fn open(&self) -> Result<Streaming<WatchPermissionsResponse>, Failure> {
        let Shown { target, caller, .. } = self.shown;
        let request = WatchPermissionsRequest { agent: caller.agent.clone() };
        Ok(target.node_of(caller).await?.permissions.watch_permissions(request).await?.into_inner())
    }

    fn take(&mut self, response: WatchPermissionsResponse) -> Result<bool, Failure> {
        match response.permission.filter(|permission| self.shown.is_watched(&permission.agent)) {
            Some(permission) => {
                self.shown.line("permission", || permission_json(&permission), || permission_text(&permission))
            }
            None => Ok(true),
        }
    }
}

/// Whether an absolute slug is the agent that was typed, or below it.
fn is_below(slug: &str, typed: &str) -> bool {
    let is_or_begins =
        |text: &str, with: &str| text.strip_prefix(with).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if typed.starts_with("/w/") {
        return is_or_begins(slug, typed);
    }
    let Ok(slug) = slug.parse::<Slug>() else { return false };
    match typed.strip_prefix("/u/") {
        Some(rest) => is_or_begins(&format!("{}/{}", slug.account(), slug.path()), rest),
        None => is_or_begins(slug.path().as_str(), typed.trim_start_matches("./")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_where_to_begin_and_everything_else_whom_to_watch() {
        assert_eq!("17".parse(), Ok(Beginning::Seq(17)));
        assert_eq!("lead/worker".parse(), Ok(Beginning::Slug("lead/worker".to_owned())));
        assert_eq!("17a".parse(), Ok(Beginning::Slug("17a".to_owned())));
        assert!("".parse::<Beginning>().is_err());
        assert!("99999999999999999999999".parse::<Beginning>().is_err());
    }

    #[test]
    fn a_subtree_is_an_agent_and_those_below_it() {
        let slug = "/w/acme/u/jo/lead/worker";
        for typed in ["lead", "lead/worker", "./lead", "/u/jo/lead", "/w/acme/u/jo/lead", "/w/acme/u/jo/lead/worker"] {
            assert!(is_below(slug, typed), "{typed}");
        }
        for typed in ["lea", "worker", "/u/eve/lead", "/w/acme/u/jo/lead/work", "lead/worker/x"] {
            assert!(!is_below(slug, typed), "{typed}");
        }
    }
}
