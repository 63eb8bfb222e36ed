//! `logs SLUG`: what an agent's process wrote, and what it writes.
//!
//! Its standard output goes to ours and its standard error to ours, so that a pipe gets what the program said and nothing else; what
//! Murmur notes goes to standard error. In a terminal the text is shown without control sequences, a line at a time; elsewhere it is
//! untouched.

use std::io::{self, IsTerminal as _, Write};

use data_encoding::BASE64;
use murmur_proto::v1::{OutputChunk, WatchAgentOutputRequest, WatchAgentOutputResponse, output_chunk::Source};
use serde_json::{Value, json};
use tonic::Streaming;

use crate::{
    args::Caller,
    comeback::Comeback,
    connect::Target,
    exit::Exit,
    failure::{Context as _, Failure},
    output::{Outcome, Output},
    text::clean,
    time,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The agent
    slug: String,
    /// Go on with what comes; Ctrl-C ends it
    #[arg(short, long)]
    follow: bool,
    /// Only the last N lines of what was kept; 0 shows none of it
    #[arg(long, value_name = "N")]
    tail: Option<u32>,
    #[command(flatten)]
    caller: Caller,
}

pub(crate) async fn run(target: &Target, args: Args, output: Output) -> Outcome {
    let Args { slug, follow, tail, caller } = args;
    let request = WatchAgentOutputRequest { slug, follow, tail, resume_token: String::new() };
    let watch = Watch { target, caller };
    // Whoever is not there to begin with is no reason to wait.
    let first = watch.open(&request).await?;
    let mut printer = Printer::new(output);
    let is_read = tokio::select! {
        ended = watch.follow(&mut printer, first, request) => ended?,
        // Interrupting is how one ends this; it is no failure.
        _ = tokio::signal::ctrl_c() => true,
    };
    if is_read { printer.finish() } else { Ok(Exit::Ok) }
}

struct Watch<'a> {
    target: &'a Target,
    caller: Caller,
}

type Chunks = Streaming<WatchAgentOutputResponse>;

impl Watch<'_> {
    async fn open(&self, request: &WatchAgentOutputRequest) -> Result<Chunks, Failure> {
        let mut control = self.target.control_as(&self.caller).await?;
        Ok(control.agents.watch_agent_output(request.clone()).await?.into_inner())
    }

    /// Until the output ends; whether somebody still reads. What restarts meanwhile is waited for, and nothing is shown twice.
    async fn follow(
        &self,
        printer: &mut Printer,
        mut chunks: Chunks,
        mut request: WatchAgentOutputRequest,
    ) -> Result<bool, Failure> {
        let mut comeback = Comeback::new();
        loop {
            match chunks.message().await {
                Ok(Some(response)) => {
                    comeback.arrived();
                    let chunk = response.chunk.unwrap_or_default();
                    if !printer.print(&chunk)? {
                        return Ok(false);
                    }
                    request.resume_token = chunk.resume_token;
                }
                Ok(None) => return Ok(true),
                // One who only wants what is there is not kept waiting for more.
                Err(status) if !request.follow => return Err(status.into()),
                Err(status) => chunks = comeback.reopen(status.into(), async || self.open(&request).await).await?,
            }
        }
    }
}

struct Printer {
    output: Output,
    out: Lines,
    err: Lines,
}

impl Printer {
    fn new(output: Output) -> Self {
        Self { output, out: Lines::new(io::stdout().is_terminal()), err: Lines::new(io::stderr().is_terminal()) }
    }

    /// Whether somebody still reads.
    fn print(&mut self, chunk: &OutputChunk) -> Result<bool, Failure> {
        if self.output.is_json() {
            return write(io::stdout(), format!("{}\n", chunk_json(chunk)).as_bytes());
        }
        if chunk.gap {
            write(io::stderr(), b"-- output is missing here\n")?;
        }
        match chunk.source() {
            Source::Stdout | Source::Unspecified => write(io::stdout(), &self.out.next(&chunk.data)),
            Source::Stderr => write(io::stderr(), &self.err.next(&chunk.data)),
            Source::Note => {
                let note = clean(&String::from_utf8_lossy(&chunk.data));
                write(io::stderr(), format!("-- {}\n", note.trim_end()).as_bytes())
            }
        }
    }

    fn finish(mut self) -> Outcome {
        write(io::stdout(), &self.out.rest())?;
        write(io::stderr(), &self.err.rest())?;
        Ok(Exit::Ok)
    }
}

/// Output on its way to a reader: whole lines without control sequences for a terminal, else as it came.
struct Lines {
    is_clean: bool,
    held: Vec<u8>,
}

impl Lines {
    /// A line that never ends is shown in pieces.
    const HELD_MAX: usize = 64 * 1024;

    const fn new(is_clean: bool) -> Self {
        Self { is_clean, held: Vec::new() }
    }

    fn next(&mut self, data: &[u8]) -> Vec<u8> {
        if !self.is_clean {
            return data.to_vec();
        }
        self.held.extend_from_slice(data);
        let end = match self.held.iter().rposition(|byte| *byte == b'\n') {
            Some(at) => at + 1,
            None if self.held.len() > Self::HELD_MAX => self.held.len(),
            None => return Vec::new(),
        };
        let rest = self.held.split_off(end);
        cleaned(&std::mem::replace(&mut self.held, rest))
    }

    fn rest(&mut self) -> Vec<u8> {
        let held = std::mem::take(&mut self.held);
        if held.is_empty() { held } else { [cleaned(&held), b"\n".to_vec()].concat() }
    }
}

fn cleaned(bytes: &[u8]) -> Vec<u8> {
    clean(&String::from_utf8_lossy(bytes)).into_bytes()
}

/// Whether somebody still reads: a reader that has gone, such as `head`, is no failure.
fn write(mut to: impl Write, bytes: &[u8]) -> Result<bool, Failure> {
    match to.write_all(bytes).and_then(|()| to.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        written => written.context("writing output").map(|()| true),
    }
}

fn chunk_json(chunk: &OutputChunk) -> Value {
    let source = match chunk.source() {
        Source::Stdout | Source::Unspecified => "stdout",
        Source::Stderr => "stderr",
        Source::Note => "note",
    };
    let time = time::rfc3339(chunk.time.as_ref());
    match std::str::from_utf8(&chunk.data) {
        Ok(text) => json!({"source": source, "time": time, "text": text, "gap": chunk.gap}),
        Err(_) => json!({"source": source, "time": time, "base64": BASE64.encode(&chunk.data), "gap": chunk.gap}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(is_clean: bool, pieces: &[&[u8]]) -> String {
        let mut lines = Lines::new(is_clean);
        let mut shown: Vec<u8> = pieces.iter().flat_map(|piece| lines.next(piece)).collect();
        shown.extend(lines.rest());
        String::from_utf8_lossy(&shown).into_owned()
    }

    #[test]
    fn a_terminal_sees_no_control_sequence_however_it_was_split() {
        assert_eq!(shown(true, &[b"a\x1b[3", b"1mred\x1b[0m\nb\xc3", b"\xa9\x1b]0;t\x07\n"]), "ared\nbé\n");
        assert_eq!(shown(true, &[b"no end"]), "no end\n");
    }

    #[test]
    fn a_pipe_gets_what_was_said() {
        assert_eq!(shown(false, &[b"a\x1b[3", b"1m"]), "a\x1b[31m");
    }
}
