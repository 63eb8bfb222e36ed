//! Sends an agent's output to whoever watches it: what was kept, by time, then what comes.

use std::{collections::VecDeque, io, path::Path, sync::Arc};

use futures::stream;
use murmur_core::{id::AgentId, output::OutputPosition};
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
    /// Segments and offsets behind what was taken.
    ends: [(u64, u64); 2],
}

impl Output {
    fn new(place: &Place, from: OutputPosition) -> Self {
        let log = |dir: &Path, (segment, offset)| LogReader::new(dir, Cursor { segment, offset });
        let logs = [log(&place.output(), from.output), log(&place.notes(), from.notes)];
        Self { ends: [from.output, from.notes], logs, heads: [None, None] }
    }

    /// Where what [`Self::next`] returned last ends.
    fn position(&self) -> OutputPosition {
        let [output, notes] = self.ends;
        OutputPosition { output, notes }
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
        let taken = self.heads[first].take();
        if taken.is_some() {
            let Cursor { segment, offset } = self.logs[first].cursor();
            self.ends[first] = (segment, offset);
        }
        Ok(taken)
    }

    /// The last `lines` lines of what is there.
    fn tail(&mut self, lines: u32) -> io::Result<VecDeque<Piece>> {
        let (mut kept, mut count) = (VecDeque::new(), 0);
        while let Some(frame) = self.next()? {
            count += ends(&frame);
            kept.push_back((frame, self.position()));
            while kept.front().is_some_and(|(first, _)| count - ends(first) >= lines as usize) {
                count -= kept.pop_front().map_or(0, |(frame, _)| ends(&frame));
            }
        }
        if let Some((first, _)) = kept.front_mut() {
            let extra = count.saturating_sub(lines as usize);
            let end = |(at, byte): (usize, &u8)| (*byte == b'\n').then_some(at + 1);
            let from = first.data.iter().enumerate().filter_map(end).take(extra).last().unwrap_or(0);
            first.data.drain(..from);
        }
        Ok(kept)
    }
}

/// What was said, and where it ends.
type Piece = (Frame, OutputPosition);

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
    // The control plane has looked at it: nothing is no place to go on from.
    let from = wanted.resume_token.parse().ok();
    let mut output = Output::new(&Place::new(&shop.dir, agent), from.unwrap_or_default());
    let failed = |error: io::Error| ControlError::Malformed(format!("the output cannot be read: {error}"));
    let first = match wanted.tail.filter(|_| from.is_none()) {
        Some(lines) => output.tail(lines).map_err(failed)?,
        None => VecDeque::new(),
    };
    let rings = rings.filter(|_| wanted.follow);
    let watch_id = wanted.watch_id;
    // The first message has no chunk: it says that this node is there.
    let hello = v1::SendOutputRequest { watch_id: watch_id.clone(), chunk: None };
    let state = (output, first, rings, watch_id);
    let chunks = stream::unfold(state, |(mut output, mut first, mut rings, watch_id)| async move {
        loop {
            if let Some(piece) = first.pop_front() {
                let request = v1::SendOutputRequest { watch_id: watch_id.clone(), chunk: Some(chunk(piece)) };
                return Some((request, (output, first, rings, watch_id)));
            }
            if let Some(rings) = &mut rings {
                rings.mark_unchanged();
            }
            while first.len() < BATCH {
                match output.next() {
                    Ok(Some(frame)) => first.push_back((frame, output.position())),
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

fn chunk((frame, position): Piece) -> v1::OutputChunk {
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
        resume_token: position.to_string(),
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
            let pieces = Output::new(&place, OutputPosition::default()).tail(lines).unwrap();
            pieces.into_iter().map(|(frame, _)| String::from_utf8(frame.data).unwrap()).collect::<String>()
        };
        assert_eq!(said(3), "two\nthree\nended\n");
        assert_eq!(said(100), "started\none\ntwo\nthree\nended\n");
        assert_eq!(said(0), "");
        // Whoever comes back goes on behind what it has, in both logs.
        let pieces = Output::new(&place, OutputPosition::default()).tail(100).unwrap();
        for (seen, (_, position)) in pieces.iter().enumerate() {
            let mut output = Output::new(&place, position.to_string().parse().unwrap());
            let rest: Vec<_> = std::iter::from_fn(|| output.next().unwrap()).collect();
            assert!(rest.iter().eq(pieces.iter().skip(seen + 1).map(|(frame, _)| frame)), "{position}");
        }
    }
}
