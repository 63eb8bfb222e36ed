//! What the broker holds of a message, read from its own stream files: the record of the nats-server file store, and in it the
//! sealed envelope.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::failure::{Context as _, Failure};

/// The broker writes a confirmed message to its file within this time.
const WRITTEN_WITHIN: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// A record: length (4), sequence (8), time (8), length of the subject (2), all little-endian; subject; then, with the highest
/// bit of the length set, a length (4) and headers; then the message and a checksum (8).
const RECORD_HEAD: usize = 22;
const RECORD_TAIL: usize = 8;
const HAS_HEADERS: u32 = 1 << 31;
/// `payload_ciphertext` of `murmur.wire.v2.EnvelopeV2`.
const CIPHERTEXT_FIELD: u64 = 4;

/// A sealed message as it lies in the broker's store.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) file: PathBuf,
    pub(super) subject: String,
    /// Bytes of the whole envelope.
    pub(super) envelope: usize,
    pub(super) ciphertext: Vec<u8>,
}

/// Waits until a message for this agent lies in the store. Agents are named by id in subjects.
pub(super) async fn message_for(store: &Path, agent_id: &str) -> Result<Seen, Failure> {
    let needle = format!(".{}.", agent_id.replace('-', ""));
    let deadline = Instant::now() + WRITTEN_WITHIN;
    loop {
        for file in super::search::files(store).context("looking into the broker's store")? {
            // A block may be replaced while it is read.
            let Ok(block) = fs::read(&file) else { continue };
            if let Some(seen) = last_message(&block, needle.as_bytes()) {
                return Ok(Seen { file, ..seen });
            }
        }
        if Instant::now() >= deadline {
            return Err(Failure::failed("no message for the recipient shows up in the broker's store"));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The last record in a block whose subject holds `needle`.
fn last_message(block: &[u8], needle: &[u8]) -> Option<Seen> {
    let starts = block.windows(b"mm.in.".len()).enumerate().filter(|(_, window)| *window == b"mm.in.");
    let records = starts.filter_map(|(at, _)| record(block.get(at.checked_sub(RECORD_HEAD)?..)?));
    records.filter(|(subject, _)| subject.windows(needle.len()).any(|part| part == needle)).filter_map(seen).next_back()
}

fn seen((subject, envelope): (&[u8], &[u8])) -> Option<Seen> {
    let ciphertext = field(envelope, CIPHERTEXT_FIELD)?.to_vec();
    let subject = String::from_utf8(subject.to_vec()).ok()?;
    Some(Seen { file: PathBuf::new(), subject, envelope: envelope.len(), ciphertext })
}

/// Subject and message of the record that begins here.
fn record(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let word = |at: usize| bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
    let flags_and_length = word(0)?;
    let length = usize::try_from(flags_and_length & !HAS_HEADERS).ok()?;
    let record = bytes.get(..length)?.get(..length.checked_sub(RECORD_TAIL)?)?;
    let subject_length = usize::from(u16::from_le_bytes(record.get(RECORD_HEAD - 2..RECORD_HEAD)?.try_into().ok()?));
    let (subject, rest) = record.get(RECORD_HEAD..)?.split_at_checked(subject_length)?;
    if flags_and_length & HAS_HEADERS == 0 {
        return Some((subject, rest));
    }
    let headers = usize::try_from(word(RECORD_HEAD + subject_length)?).ok()?;
    Some((subject, rest.get(4..)?.get(headers..)?))
}

/// A length-delimited field of a protobuf message that has no others.
fn field(mut message: &[u8], wanted: u64) -> Option<&[u8]> {
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        let length = usize::try_from(varint(&mut message)?).ok()?;
        let (value, rest) = message.split_at_checked(length)?;
        if tag == wanted << 3 | 2 {
            return Some(value);
        }
        message = rest;
    }
    None
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(subject: &str, headers: Option<&str>, message: &[u8]) -> Vec<u8> {
        let mut body = subject.as_bytes().to_vec();
        if let Some(headers) = headers {
            body.extend(u32::try_from(headers.len()).unwrap().to_le_bytes());
            body.extend(headers.as_bytes());
        }
        body.extend(message);
        let length = u32::try_from(RECORD_HEAD + body.len() + RECORD_TAIL).unwrap();
        let mut record = (length | if headers.is_some() { HAS_HEADERS } else { 0 }).to_le_bytes().to_vec();
        record.extend([0; 16]);
        record.extend(u16::try_from(subject.len()).unwrap().to_le_bytes());
        record.extend(body);
        record.extend([0; RECORD_TAIL]);
        record
    }

    #[test]
    fn the_ciphertext_is_found_between_other_records() {
        let envelope = [&[0x0a, 1, 9, 0x22, 3][..], b"xyz", &[0x2a, 0]].concat();
        let block = [
            stored("mm.in.local.00.w.n._ack.s", None, b"ack"),
            stored("mm.in.local.00.w.n.bob.s", Some("NATS/1.0\r\n\r\n"), &envelope),
            stored("mm.in.local.00.w.n.eve.s", None, b"?"),
        ]
        .concat();
        let seen = last_message(&block, b".bob.").unwrap();
        assert_eq!((seen.ciphertext.as_slice(), seen.envelope), (&b"xyz"[..], envelope.len()));
        assert_eq!(last_message(&block, b".carol."), None);
    }

    #[test]
    fn a_torn_block_is_no_trouble() {
        let block = stored("mm.in.local.00.w.n.bob.s", Some("h"), &[0x22, 3, 1, 2, 3]);
        for cut in 0..block.len() {
            assert_eq!(last_message(&block[..cut], b".bob."), None, "{cut}");
        }
    }
}
