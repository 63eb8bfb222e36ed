//! The call, and its answer as lines of JSON.

use std::{
    fs,
    io::{self, Write as _},
    ops::ControlFlow,
    time::Instant,
};

use anyhow::{Context as _, bail};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};

use super::{
    Hosted,
    again::{Busy, Tries},
    events::Events,
};
use crate::outbound::{Call, Head, Outbound, Place};

/// Of an answer that is one document.
const DOCUMENT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Of all that comes as events.
const EVENTS_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Of a refusal, for whoever reads why.
const REFUSAL_BYTES_MAX: usize = 1024;

/// Posts the request and prints what is answered.
pub(super) async fn call(hosted: &Hosted) -> anyhow::Result<()> {
    let place: Place = hosted.url.parse()?;
    let ca =
        hosted.ca.as_ref().map(|file| fs::read_to_string(file).with_context(|| format!("http.ca: {}", file.display())));
    let outbound = Outbound::new(hosted.rules(), ca.transpose()?.as_deref())?;
    let (body, headers) = (serde_json::to_vec(&hosted.body)?, headers(hosted)?);
    let mut tries = Tries::new(hosted, Instant::now());
    loop {
        let call = Call {
            place: &place,
            headers: vec![("accept", "application/json, text/event-stream".to_owned())],
            body: body.clone(),
            timeout: tries.left(Instant::now()),
        };
        let mut answer = Answer::default();
        let heard = outbound.post_heard(call, headers.clone(), |head, piece| answer.hear(head, piece)).await;
        let (ended, busy) = match heard {
            Ok(head) => (answer.end(&place, head.status), Busy::of(&head)),
            Err(error) => {
                let busy = Busy::unreached(&error);
                (Err(error.into()), busy)
            }
        };
        let (Err(why), Some(busy)) = (&ended, busy) else { return ended };
        match tries.next(busy, Instant::now()) {
            Ok(wait) => {
                let told = json!({ "progress": tries.told(&format!("{why:#}"), wait) });
                print(format!("{told}\n").as_bytes())?;
                tokio::time::sleep(wait).await;
            }
            Err(end) => return ended.with_context(|| end),
        }
    }
}

/// What the configuration adds.
fn headers(hosted: &Hosted) -> anyhow::Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, value) in &hosted.headers {
        headers.insert(name.parse::<HeaderName>()?, value.parse()?);
    }
    for (name, file) in &hosted.header_files {
        let secret = fs::read_to_string(file).with_context(|| format!("http.header_files: {}", file.display()))?;
        // The value itself is never told.
        let value = HeaderValue::from_str(secret.trim()).ok();
        let mut value = value.with_context(|| format!("{} holds no value of a header", file.display()))?;
        value.set_sensitive(true);
        headers.insert(name.parse::<HeaderName>()?, value);
    }
    Ok(headers)
}

/// What has come of an answer.
#[derive(Default)]
struct Answer {
    /// `None`: not as events.
    events: Option<Events>,
    document: Vec<u8>,
    length: usize,
    is_text: bool,
    broken: Option<String>,
}

impl Answer {
    /// Takes a piece of the body.
    fn hear(&mut self, head: &Head, piece: &[u8]) -> ControlFlow<()> {
        let taken = self.take(head, piece);
        self.broken = taken.err().map(|error| error.to_string());
        if self.broken.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn take(&mut self, head: &Head, piece: &[u8]) -> anyhow::Result<()> {
        if self.length == 0 {
            let kind = head.header("content-type").unwrap_or_default().trim().to_ascii_lowercase();
            let is_good = (200..300).contains(&head.status);
            self.events = (is_good && kind.starts_with("text/event-stream")).then(Events::default);
            self.is_text = !kind.contains("json");
        }
        self.length += piece.len();
        let most = if self.events.is_some() { EVENTS_BYTES_MAX } else { DOCUMENT_BYTES_MAX };
        if self.length > most {
            bail!("the answer is longer than {most} bytes");
        }
        match &mut self.events {
            Some(events) => print(&events.hear(piece)),
            None => {
                self.document.extend_from_slice(piece);
                Ok(())
            }
        }
    }

    /// The answer is all there.
    fn end(self, place: &Place, status: u16) -> anyhow::Result<()> {
        if let Some(why) = self.broken {
            bail!("{place}: {why}");
        }
        let text = String::from_utf8_lossy(&self.document);
        let text = text.trim();
        if !(200..300).contains(&status) {
            let said = &text[..text.floor_char_boundary(REFUSAL_BYTES_MAX)];
            bail!("{place} answered {status}{}{said}", if said.is_empty() { "" } else { ": " });
        }
        if self.events.is_some() {
            return Ok(());
        }
        let document = match serde_json::from_str::<Value>(text) {
            Ok(document) => document,
            // The answer in words.
            Err(_) if self.is_text => json!({ "output": text }),
            Err(error) => bail!("{place} answered what is no JSON: {error}"),
        };
        print(format!("{document}\n").as_bytes())
    }
}

fn print(lines: &[u8]) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(lines)?;
    Ok(out.flush()?)
}
