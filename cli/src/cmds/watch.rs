//! `watch`: what happens around your agents, and the messages of the one you speak as, live, until interrupted.
//!
//! It comes back by itself after whatever it watches was away, and goes on where it was; only messages that went by meanwhile are not
//! shown, since `inbox` has them.

use std::{
    io::{self, Write as _},
    str::FromStr,
    time::Duration,
};

use murmur_core::{reason::Reason, slug::Slug};
use murmur_proto::{
    node::v1::{TailRequest, TailResponse},
    v1::{EventFilter, WatchEventsRequest, WatchEventsResponse, watch_events_response::Item},
};
use serde_json::{Value, json};

use super::tail;
use crate::{
    args::{Caller, Speaker},
    connect::Target,
    event_view::{event_json, event_text},
    exit::Exit,
    failure::{Context as _, Failure},
    output::{self, Outcome, Output},
    text::clean_line,
    time,
};

/// Kinds that are messages.
const MESSAGE_KINDS: [&str; 3] = ["message", "request", "reply"];
/// As many events as a watch can begin with.
const BACKLOG_MAX: u32 = 1000;
const RETRY_MIN: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only this agent and those below it; a number begins with the events that are kept from this one of each log on
    #[arg(long, value_name = "SLUG|SEQ")]
    from: Option<Beginning>,
    /// Only this kind, such as ci_result or message; repeatable, or separated by commas
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
    let (message_kinds, event_kinds): (Vec<_>, Vec<_>) =
        kinds.into_iter().partition(|kind| MESSAGE_KINDS.contains(&kind.as_str()));
    let is_about_code = !repo.is_empty() || !branch.is_empty() || pr > 0;
    let wants_events = message_kinds.is_empty() || !event_kinds.is_empty() || is_about_code;
    let wants_messages = !is_about_code && (event_kinds.is_empty() || !message_kinds.is_empty());
    let filter = EventFilter { kinds: event_kinds, repo, branch, pr, subtree: subtree.clone(), slug: String::new() };
    let backlog = if since > 0 { BACKLOG_MAX } else { backlog };
    let events = Events { target, caller: &caller, output, since };
    let messages = Messages { target, caller: &caller, output, kinds: message_kinds, subtree };
    let request = WatchEventsRequest { filter: Some(filter), backlog, resume_token: String::new() };
    // The first connection is made alone: a filter that is refused ends the command before anything is shown.
    let first = if wants_events { Some(events.open(request.clone()).await?) } else { None };
    tokio::select! {
        ended = events.follow(first, request) => ended,
        ended = messages.follow(), if wants_messages => ended,
        // Interrupting is how one ends this; it is no failure.
        _ = tokio::signal::ctrl_c() => Ok(Exit::Ok),
    }
}

type EventStream = tonic::Streaming<WatchEventsResponse>;

struct Events<'a> {
    target: &'a Target,
    caller: &'a Caller,
    output: Output,
    since: u64,
}

impl Events<'_> {
    async fn open(&self, request: WatchEventsRequest) -> Result<EventStream, Failure> {
        Ok(self.target.control_as(self.caller).await?.events.watch_events(request).await?.into_inner())
    }

    async fn follow(&self, first: Option<EventStream>, mut request: WatchEventsRequest) -> Outcome {
        let Some(mut stream) = first else { return std::future::pending().await };
        let mut delay = RETRY_MIN;
        loop {
            let failure = loop {
                match stream.message().await {
                    Ok(Some(response)) => {
                        delay = RETRY_MIN;
                        if !response.resume_token.is_empty() {
                            request.resume_token.clone_from(&response.resume_token);
                        }
                        if let Some(item) = response.item
                            && !self.show(&item)?
                        {
                            return Ok(Exit::Ok);
                        }
                    }
                    Ok(None) => break Failure::new(Exit::Unavailable, "the stream of events ended"),
                    Err(status) => break Failure::from(status),
                }
            };
            stream = self.come_back(failure, &mut request, &mut delay).await?;
        }
    }

    /// Opens the stream again where it was, as soon as that can be done.
    async fn come_back(
        &self,
        mut failure: Failure,
        request: &mut WatchEventsRequest,
        delay: &mut Duration,
    ) -> Result<EventStream, Failure> {
        let mut is_told = false;
        loop {
            if failure.reason == Some(Reason::ResumeTokenStale) {
                note("the control plane has another database: events from here on");
                request.resume_token.clear();
                request.backlog = 0;
            } else if !is_away(&failure) {
                return Err(failure);
            } else if !is_told {
                note(&format!("{}; coming back by itself", failure.what));
                is_told = true;
            }
            tokio::time::sleep(*delay).await;
            *delay = (*delay * 2).min(RETRY_MAX);
            match self.open(request.clone()).await {
                Ok(stream) => return Ok(stream),
                Err(again) => failure = again,
            }
        }
    }

    /// Whether somebody still reads.
    fn show(&self, item: &Item) -> Result<bool, Failure> {
        match item {
            Item::Event(event) if event.seq < self.since => Ok(true),
            Item::Event(event) => self.line(|| typed("event", event_json(event)), || event_text(event)),
            Item::CaughtUp(_) if self.output.is_json() => line(&json!({"type": "caught_up"}).to_string()),
            Item::CaughtUp(_) => Ok(true),
            Item::Gap(gap) => {
                let until = time::rfc3339(gap.until_time.as_ref());
                let text = || output::warn(&format!("events before {} are missing", until.clone().unwrap_or_default()));
                self.line(|| json!({"type": "gap", "until_time": until}), text)
            }
        }
    }

    fn line(&self, value: impl FnOnce() -> Value, text: impl FnOnce() -> String) -> Result<bool, Failure> {
        if self.output.is_json() { line(&value().to_string()) } else { line(&text()) }
    }
}

struct Messages<'a> {
    target: &'a Target,
    caller: &'a Caller,
    output: Output,
    kinds: Vec<String>,
    subtree: String,
}

impl Messages<'_> {
    async fn follow(&self) -> Outcome {
        let mut delay = RETRY_MIN;
        loop {
            let failure = match self.open().await {
                Ok(mut items) => loop {
                    match items.message().await {
                        Ok(Some(item)) => {
                            delay = RETRY_MIN;
                            if self.is_wanted(&item) && !self.show(&item)? {
                                return Ok(Exit::Ok);
                            }
                        }
                        Ok(None) => break Failure::new(Exit::Unavailable, "the node ended the call"),
                        Err(status) => break Failure::from(status),
                    }
                },
                Err(failure) => failure,
            };
            if !is_away(&failure) {
                // Events are there all the same.
                note(&format!("messages are not shown: {}", failure.what));
                return std::future::pending().await;
            }
            tokio::time::sleep(delay).await;
            delay = (delay * 2).min(RETRY_MAX);
        }
    }

    async fn open(&self) -> Result<tonic::Streaming<TailResponse>, Failure> {
        let Caller { agent, agent_token_file } = self.caller.clone();
        let request = TailRequest { agent: agent.clone(), backlog: 0 };
        let speaker = Speaker { agent, agent_token_file };
        Ok(self.target.node_as(&speaker).await?.messages.tail(request).await?.into_inner())
    }

    fn is_wanted(&self, item: &TailResponse) -> bool {
        let Some(message) = &item.message else { return false };
        let is_kind = self.kinds.is_empty() || self.kinds.iter().any(|kind| kind == crate::view::kind(message));
        let is_there =
            self.subtree.is_empty() || [&message.from, &message.to].iter().any(|slug| is_below(slug, &self.subtree));
        is_kind && is_there
    }

    fn show(&self, item: &TailResponse) -> Result<bool, Failure> {
        if self.output.is_json() {
            line(&typed("message", tail::json_of(item)).to_string())
        } else {
            line(&tail::text_of(item))
        }
    }
}

/// Whether something was away, and comes back: every refusal of ours has a reason, and what dies under a call has none.
fn is_away(failure: &Failure) -> bool {
    failure.exit == Exit::Unavailable || (failure.exit == Exit::Failed && failure.reason.is_none())
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

fn typed(kind: &str, value: Value) -> Value {
    let mut value = value;
    value["type"] = json!(kind);
    value
}

fn note(text: &str) {
    eprintln!("-- {}", clean_line(text));
}

/// Whether somebody still reads: a reader that has gone, such as `head`, is no failure.
fn line(text: &str) -> Result<bool, Failure> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{}", text.trim_end()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        written => written.context("writing to stdout").map(|()| true),
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
    fn what_dies_under_a_call_comes_back_and_a_refusal_does_not() {
        let broke = tonic::Status::internal("h2 protocol error: error reading a body from connection");
        assert!(is_away(&broke.into()) && is_away(&tonic::Status::unavailable("gone").into()));
        for reason in [Reason::AgentNotFound, Reason::ScopeMissing, Reason::Internal] {
            assert!(!is_away(&murmur_proto::status::status(reason, "no").into()), "{reason}");
        }
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
