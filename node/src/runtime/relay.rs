//! Sends an agent's output to whoever watches it: what was kept, by time, then what comes.

use std::{collections::VecDeque, io, sync::Arc};

use futures::stream;
use murmur_core::id::AgentId;
use murmur_proto::{
    time::timestamp,
    v1::{self, output_chunk::Source as Told},
};
use tokio::sync::watch;

use super::{
    Workshop,
    keeper::log::{Cursor, Frame, LogReader, Source},
    place::Place,
};
use crate::rpc::control::ControlError;

/// Pieces that are read in one go.
const BATCH: usize = 64;

/// What an agent's processes and its node said, in the order of time.
struct Output {
    logs: [LogReader; 2],
    heads: [Option<Frame>; 2],
}

impl Output {
    fn new(place: &Place) -> Self {
        let log = |dir: std::path::PathBuf| LogReader::new(&dir, Cursor::default());
        Self { logs: [log(place.output()), log(place.notes())], heads: [None, None] }
    }

    /// The next piece of what is there.
    fn next(&mut self) -> io::Result<Option<Frame>> {
        for (log, head) in self.logs.iter_mut().zip(&mut self.heads) {
            if head.is_none() {
                *head = log.read()?;
            }
        }
        let first = match &self.heads {
            [Some(output), Some(note)] => usize::from(note.time_ms <= output.time_ms),
            [Some(_), None] => 0,
            [None, _] => 1,
        };
        Ok(self.heads[first].take())
    }

    /// The last `lines` lines of what is there.
    fn tail(&mut self, lines: u32) -> io::Result<VecDeque<Frame>> {
        let (mut kept, mut count) = (VecDeque::new(), 0);
        while let Some(frame) = self.next()? {
            count += ends(&frame);
            kept.push_back(frame);
            while kept.front().is_some_and(|first| count - ends(first) >= lines as usize) {
                count -= kept.pop_front().map_or(0, |frame| ends(&frame));
            }
        }
        if let Some(first) = kept.front_mut() {
            let extra = count.saturating_sub(lines as usize);
            let end = |(at, byte): (usize, &u8)| (*byte == b'\n').then_some(at + 1);
            let from = first.data.iter().enumerate().filter_map(end).take(extra).last().unwrap_or(0);
            first.data.drain(..from);
        }
        Ok(kept)
    }
}

/// Lines that end in a piece.
fn ends(frame: &Frame) -> usize {
    frame.data.iter().filter(|byte| **byte == b'\n').count()
}

/// Sends until everything is sent, or nobody watches any more. `rings` tells of more to come.
pub(super) async fn relay(
    shop: &Arc<Workshop>,
    agent: AgentId,
    wanted: v1::OutputWanted,
    rings: Option<watch::Receiver<u64>>,
) -> Result<(), ControlError> {
    let mut output = Output::new(&Place::new(&shop.dir, agent));
    let failed = |error: io::Error| ControlError::Malformed(format!("the output cannot be read: {error}"));
    let first = if wanted.tail > 0 { output.tail(wanted.tail).map_err(failed)? } else { VecDeque::new() };
    let rings = rings.filter(|_| wanted.follow);
    let watch_id = wanted.watch_id;
    // The first message has no chunk: it says that this node is there.
    let hello = v1::SendOutputRequest { watch_id: watch_id.clone(), chunk: None };
    let state = (output, first, rings, watch_id);
    let chunks = stream::unfold(state, |(mut output, mut first, mut rings, watch_id)| async move {
        loop {
            if let Some(frame) = first.pop_front() {
                let request = v1::SendOutputRequest { watch_id: watch_id.clone(), chunk: Some(chunk(frame)) };
                return Some((request, (output, first, rings, watch_id)));
            }
            if let Some(rings) = &mut rings {
                rings.mark_unchanged();
            }
            while first.len() < BATCH {
                match output.next() {
                    Ok(Some(frame)) => first.push_back(frame),
                    Ok(None) => break,
                    Err(error) => {
                        tracing::warn!(%error, "output cannot be read");
                        return None;
                    }
                }
            }
            if first.is_empty() {
                // The agent's task has ended with its agent, or goes on.
                rings.as_mut()?.changed().await.ok()?;
            }
        }
    });
    shop.control.send_output(futures::StreamExt::chain(stream::iter([hello]), chunks)).await
}

fn chunk(frame: Frame) -> v1::OutputChunk {
    let source = match frame.source {
        Source::Stdout => Told::Stdout,
        Source::Stderr => Told::Stderr,
        Source::Note => Told::Note,
    };
    v1::OutputChunk {
        source: source.into(),
        time: Some(timestamp(frame.time_ms)),
        data: frame.data.into(),
        gap: frame.gap,
    }
}

#[cfg(test)]
mod tests {
    use super::{super::keeper::log::LogWriter, *};

    #[test]
    fn the_tail_is_the_last_lines_of_all_that_was_said() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::new(dir.path(), AgentId::from_bytes([1; 16]));
        place.make().unwrap();
        place.note(5, "started");
        let mut log = LogWriter::open(&place.output(), 1 << 20).unwrap();
        log.write(Source::Stdout, 6, b"one\ntwo\n").unwrap();
        log.write(Source::Stderr, 7, b"three\n").unwrap();
        place.note(8, "ended");
        let said = |lines| {
            let frames = Output::new(&place).tail(lines).unwrap();
            frames.into_iter().map(|frame| String::from_utf8(frame.data).unwrap()).collect::<String>()
        };
        assert_eq!(said(3), "two\nthree\nended\n");
        assert_eq!(said(100), "started\none\ntwo\nthree\nended\n");
    }
}
