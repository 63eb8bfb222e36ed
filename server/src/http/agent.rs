//! `/a/<key>`: a plain page about one agent, for whoever has its link.
//!
//! Everything on it was written by agents and strangers, so everything is escaped, and the page can do nothing: no script, no form, no image, no
//! frame, no request of any kind but to look again.

use std::{fmt::Write as _, sync::Arc};

use axum::{
    Router,
    extract::{Path, State},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use data_encoding::BASE64;
use http::{
    HeaderName, HeaderValue, StatusCode,
    header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS},
};
use murmur_core::limits::{FOLLOW_UPS_MAX, TASKS_MAX};
use murmur_proto::v1;
use sha2::{Digest as _, Sha256};

use crate::{
    agents::{AgentError, Agents, Detail},
    clock::Clock,
    db::{
        Db, DbError,
        agent_run::AgentRun,
        follow_up::FollowUp,
        task::{self, Task},
    },
    links::LinkKey,
    queue,
};

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#222;background:#fff}\
h1{font-size:1.3em;word-break:break-all}h2{font-size:1em;margin:1.6em 0 .3em;color:#666}table{border-spacing:0}td{padding:0 1em .2em 0;\
vertical-align:top}ul{margin:0;padding-left:1.2em}pre{white-space:pre-wrap;word-break:break-word;background:#f5f5f5;padding:.7em}\
.phase{display:inline-block;padding:0 .6em;border-radius:1em;background:#e8eef8}.dim{color:#777}\
@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}pre{background:#222}.phase{background:#2a3a55}a{color:#8ab4f8}}";
/// Of a text on the page; the status has the whole.
const TEXT_CHARS_MAX: usize = 4096;
/// Seconds.
const LOOK_AGAIN: u32 = 5;

/// What the page is made of.
pub(crate) struct AgentPages {
    pub(crate) agents: Arc<Agents>,
    /// For checklists and queues.
    pub(crate) db: Db,
    pub(crate) clock: Clock,
}

/// The route.
pub(crate) fn router(pages: Arc<AgentPages>) -> Router {
    Router::new().route("/a/{key}", get(page)).with_state(pages)
}

async fn page(State(pages): State<Arc<AgentPages>>, Path(key): Path<String>) -> Response {
    let mut response = match pages.found(&key).await {
        Ok(Some(shown)) => Html(html(&shown)).into_response(),
        Ok(None) => (StatusCode::NOT_FOUND, "there is no such page, or not any more\n").into_response(),
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "an agent's page could not be made");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    };
    let style = BASE64.encode(&Sha256::digest(STYLE));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{style}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let headers = response.headers_mut();
    // Base64 and words.
    headers.extend(HeaderValue::from_str(&policy).ok().map(|policy| (CONTENT_SECURITY_POLICY, policy)));
    for (name, value) in [
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("x-robots-tag"), "noindex"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// What is shown.
struct Shown {
    detail: Detail,
    tasks: Vec<Task>,
    queued: Vec<FollowUp>,
    now_ms: u64,
}

impl AgentPages {
    async fn found(&self, key: &str) -> Result<Option<Shown>, AgentError> {
        let Ok(key) = key.parse::<LinkKey>() else { return Ok(None) };
        let Some(detail) = self.agents.linked(key).await? else { return Ok(None) };
        let (tasks, queued) = self.around(&detail.run).await?;
        Ok(Some(Shown { detail, tasks, queued, now_ms: self.clock.now_ms() }))
    }

    async fn around(&self, run: &AgentRun) -> Result<(Vec<Task>, Vec<FollowUp>), DbError> {
        let most = |most: usize| u32::try_from(most).unwrap_or(u32::MAX);
        let mut tx = self.db.read().await?;
        let tasks = task::page(&mut tx, run.agent_id, 0, most(TASKS_MAX), false).await?;
        let now_ms = self.clock.now_ms();
        let queued = if run.backlog.is_empty() {
            Vec::new()
        } else {
            queue::waiting(&mut tx, run.agent_id, run.incarnation, now_ms, most(FOLLOW_UPS_MAX)).await?
        };
        Ok((tasks, queued))
    }
}

fn html(shown: &Shown) -> String {
    let Shown { detail: Detail { run, children, timeline }, tasks, queued, now_ms } = shown;
    let slug = escaped(&run.slug.to_string());
    let again = match run.ended_ms {
        Some(_) => String::new(),
        None => format!("<meta http-equiv=\"refresh\" content=\"{LOOK_AGAIN}\">"),
    };
    let mut page = format!(
        "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\">{again}\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{slug}</title><style>{STYLE}</style></head>\
         <body><h1>{slug}</h1><p><span class=\"phase\">{}</span> {}</p><table>",
        run.phase,
        escaped(&run.reason)
    );
    let progress = run.progress.as_ref().map(|progress| progress.label.as_str()).unwrap_or_default();
    let output = run.output.clone().unwrap_or_default();
    let cost = if output.cost_micros > 0 { dollars(output.cost_micros) } else { String::new() };
    let tokens = if output.tokens > 0 { output.tokens.to_string() } else { String::new() };
    let flag = if run.stuck { "stuck: nothing was heard from it for long" } else { "" };
    for (name, value) in [
        ("works on", run.current_description.lines().next().unwrap_or_default()),
        ("does", progress),
        ("", flag),
        ("node", &run.node_name),
        ("below", run.parent_slug.as_deref().unwrap_or_default()),
        ("turns", &run.turns.to_string()),
        ("cost", &cost),
        ("tokens", &tokens),
        ("since", &ago(*now_ms, run.created_ms)),
        ("in this phase", &ago(*now_ms, run.phase_ms)),
    ] {
        if !value.is_empty() {
            row(&mut page, name, &escaped(value));
        }
    }
    page.push_str("</table>");
    section(&mut page, "Pull requests", output.prs.iter().map(|place| link(place)));
    section(&mut page, "Commits", output.commits.iter().map(|commit| escaped(commit)));
    let mark = |task: &Task| if task.dormant { "dormant".to_owned() } else { task.status.to_string() };
    let task = |task: &Task| format!("{} <span class=\"dim\">{}</span>", escaped(task.subject.as_str()), mark(task));
    section(&mut page, "Checklist", tasks.iter().map(task));
    let waits = |follow_up: &FollowUp| {
        let from = escaped(&follow_up.sender);
        format!("{} <span class=\"dim\">{from}</span>", escaped(first_line(&follow_up.description)))
    };
    section(&mut page, "Queue", queued.iter().map(waits));
    let child =
        |child: &AgentRun| format!("{} <span class=\"phase\">{}</span>", escaped(&child.slug.to_string()), child.phase);
    section(&mut page, "Agents below it", children.iter().map(child));
    if !output.response.is_empty() {
        let _ = write!(page, "<h2>Last answer</h2><pre>{}</pre>", escaped(&output.response));
    }
    let entry = |entry: &crate::db::timeline::Entry| {
        let phase = entry.phase.map(|phase| format!(" <span class=\"phase\">{phase}</span>")).unwrap_or_default();
        let (when, kind) = (ago(*now_ms, entry.at_ms), kind(entry.kind));
        format!("<span class=\"dim\">{when} {kind}</span>{phase} {}", escaped(first_line(&entry.text)))
    };
    section(&mut page, "What happened", timeline.iter().rev().map(entry));
    page.push_str("</body></html>\n");
    page
}

fn row(page: &mut String, name: &str, value: &str) {
    // Writing into a string never fails.
    let _ = write!(page, "<tr><td class=\"dim\">{name}</td><td>{value}</td></tr>");
}

fn section(page: &mut String, title: &str, items: impl Iterator<Item = String>) {
    let items: Vec<String> = items.collect();
    if !items.is_empty() {
        let _ = write!(page, "<h2>{title}</h2><ul><li>{}</li></ul>", items.join("</li><li>"));
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// A link to a page of the web; anything else is text.
fn link(place: &str) -> String {
    let text = escaped(place);
    if place.starts_with("https://") {
        format!("<a href=\"{text}\" rel=\"noopener noreferrer\">{text}</a>")
    } else {
        text
    }
}

/// Text that is nothing but text wherever it stands on the page, cut at a length that a page bears.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(TEXT_CHARS_MAX));
    for (at, c) in text.chars().enumerate() {
        if at == TEXT_CHARS_MAX {
            out.push('…');
            break;
        }
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(c),
            // What turns the direction of text could make it say something else.
            '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' => {}
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

fn dollars(micros: u64) -> String {
    format!("${}.{:04}", micros / 1_000_000, micros % 1_000_000 / 100)
}

fn kind(number: i32) -> String {
    let name = v1::TimelineKind::try_from(number).map_or("", |kind| kind.as_str_name());
    name.trim_start_matches("TIMELINE_KIND_").to_ascii_lowercase().replace('_', " ")
}

fn ago(now_ms: u64, then_ms: u64) -> String {
    match now_ms.saturating_sub(then_ms) / 1000 {
        s @ 0..=99 => format!("{s} s ago"),
        s @ 100..=5999 => format!("{} min ago", s / 60),
        s @ 6000..=172_799 => format!("{} h ago", s / 3600),
        s => format!("{} d ago", s / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_text_wherever_it_stands() {
        assert_eq!(escaped("</td><script>alert('x\"&')"), "&lt;/td&gt;&lt;script&gt;alert(&#39;x&quot;&amp;&#39;)");
        assert_eq!(escaped("a\u{202e}b\u{0}\u{1b}[2J\u{200b}c"), "ab[2Jc");
        assert_eq!(escaped(&"x".repeat(10_000)).chars().count(), TEXT_CHARS_MAX + 1);
    }

    #[test]
    fn only_pages_of_the_web_are_links() {
        for place in ["javascript:alert(1)", "data:text/html,x", "http://x", "HTTPS://x", " https://x"] {
            assert!(!link(place).contains("<a"), "{place}");
        }
        assert_eq!(
            link("https://x/\" onclick=\"y"),
            "<a href=\"https://x/&quot; onclick=&quot;y\" rel=\"noopener noreferrer\">https://x/&quot; onclick=&quot;y</a>"
        );
    }
}
