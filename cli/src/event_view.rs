//! Events as this program shows them: one JSON form, and a line and its text for people.

use murmur_proto::v1::Event;
use serde_json::{Value, json};

use crate::{
    output,
    text::{clean, clean_line},
    time, view,
};

/// An event for programs.
pub(crate) fn event_json(event: &Event) -> Value {
    json!({
        "event_id": event.event_id,
        "agent_id": event.agent_id,
        "slug": event.slug,
        "seq": event.seq,
        "kind": event.kind,
        "time": time::rfc3339(event.time.as_ref()),
        "receive_time": time::rfc3339(event.receive_time.as_ref()),
        "origin": event.origin,
        "untrusted": event.untrusted,
        "attributes": event.attributes,
        "text": event.text,
        "queued": event.queued,
        "stale": event.stale,
        "superseded": event.superseded,
        "withheld": event.withheld,
    })
}

/// An event for people: a line about it, then its text, indented so that it cannot pass for a line of ours.
pub(crate) fn event_text(event: &Event) -> String {
    let when = time::rfc3339(event.time.as_ref()).unwrap_or_default();
    let kind = painted(event);
    let about: Vec<String> =
        event.attributes.iter().map(|(name, value)| format!("{}={}", clean_line(name), clean_line(value))).collect();
    let marks = [
        (event.untrusted, "from outside"),
        (event.stale, "old news"),
        (event.superseded, "superseded"),
        (event.withheld, "withheld"),
    ];
    let marks: Vec<&str> = marks.iter().filter(|(is_set, _)| *is_set).map(|(_, mark)| *mark).collect();
    let marks = if marks.is_empty() { String::new() } else { format!(" [{}]", marks.join(", ")) };
    let head = format!(
        "{when} {kind} {} #{} by {}{marks}{}{}",
        clean_line(&event.slug),
        event.seq,
        clean_line(&event.origin),
        if about.is_empty() { "" } else { "  " },
        about.join(" ")
    );
    if event.text.is_empty() { head } else { format!("{head}\n{}", view::indented(&clean(&event.text))) }
}

/// The kind in the colour of what it says.
fn painted(event: &Event) -> String {
    let kind = clean_line(&event.kind);
    let says = ["conclusion", "state", "phase"].iter().find_map(|name| event.attributes.get(*name));
    match says.map(String::as_str) {
        Some("success" | "approved" | "task-complete" | "completed") => output::good(&kind),
        Some("failure" | "timed_out" | "changes_requested" | "failed") => output::bad(&kind),
        Some("cancelled" | "action_required" | "canceled") => output::warn(&kind),
        _ => output::bold(&kind),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_an_event_cannot_pass_for_a_line_of_ours() {
        let event = Event {
            slug: "/w/a/u/b/c".to_owned(),
            kind: "pr_comment".to_owned(),
            seq: 7,
            origin: "github:verified".to_owned(),
            untrusted: true,
            attributes: [("author".to_owned(), "eve\n2026 ci_result\u{1b}[31m".to_owned())].into(),
            text: "fine\n2026-01-01 ci_result /w/a/u/b/c\u{202e}\u{1b}[2J".to_owned(),
            ..Event::default()
        };
        let shown = event_text(&event);
        let lines: Vec<&str> = shown.lines().collect();
        assert!(lines[0].contains("#7 by github:verified [from outside]  author=eve 2026 ci_result"), "{shown}");
        assert!(lines[1..].iter().all(|line| line.starts_with("  ")), "{shown}");
        assert!(!shown.contains('\u{1b}') && !shown.contains('\u{202e}'), "{shown}");
    }
}
