//! The log of an agent: what its processes said, and when, in segments of which the oldest is dropped.
//!
//! A segment is a file `<number>` of frames: source (1 byte), Unix milliseconds (8), length (4), data; big-endian. Each frame is written
//! by one call, so that a reader sees it whole or sees that it is not all there yet.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

const HEADER_BYTES: usize = 13;
/// Data of one frame.
pub const FRAME_BYTES_MAX: usize = 32 * 1024;
/// A log is dropped in pieces of this part of it.
const SEGMENTS: u64 = 4;

/// Who said it (proto `OutputChunk.Source`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Source {
    /// Standard output.
    Stdout = 1,
    /// Standard error.
    Stderr = 2,
    /// The node.
    Note = 3,
}

/// A piece of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Who said it.
    pub source: Source,
    /// When, Unix time in milliseconds.
    pub time_ms: u64,
    /// What.
    pub data: Vec<u8>,
    /// What came before was dropped.
    pub gap: bool,
}

/// A place in a log, at the beginning of a frame.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Cursor {
    /// The segment.
    pub segment: u64,
    /// Bytes before it.
    pub offset: u64,
}

/// Adds frames to a log. One at a time.
#[derive(Debug)]
pub struct LogWriter {
    dir: PathBuf,
    segment: u64,
    file: File,
    length: u64,
    segment_bytes: u64,
}

/// Reads the frames of a log.
#[derive(Debug)]
pub struct LogReader {
    dir: PathBuf,
    cursor: Cursor,
    open: Option<File>,
}

impl LogWriter {
    /// Goes on at the end of a log.
    ///
    /// # Errors
    /// [`io::Error`].
    pub fn open(dir: &Path, bytes_max: u64) -> io::Result<Self> {
        // What an earlier writer left half written must not hide what comes: it stays in its own segment.
        let segment = segments(dir)?.last().map_or(1, |last| last + 1);
        let file = create(dir, segment)?;
        Ok(Self { dir: dir.to_owned(), segment, file, length: 0, segment_bytes: bytes_max / SEGMENTS })
    }

    /// Goes on in the newest segment. For a log with one writer, which was not killed while it wrote.
    ///
    /// # Errors
    /// [`io::Error`].
    pub fn append(dir: &Path, bytes_max: u64) -> io::Result<Self> {
        let segment = segments(dir)?.last().copied().unwrap_or(1);
        let file = create(dir, segment)?;
        let length = file.metadata()?.len();
        Ok(Self { dir: dir.to_owned(), segment, file, length, segment_bytes: bytes_max / SEGMENTS })
    }

    /// Adds data of any length.
    ///
    /// # Errors
    /// [`io::Error`]; of the frame nothing, or a beginning, is there then.
    pub fn write(&mut self, source: Source, time_ms: u64, data: &[u8]) -> io::Result<()> {
        for piece in data.chunks(FRAME_BYTES_MAX) {
            if self.length >= self.segment_bytes {
                self.rotate()?;
            }
            let mut frame = Vec::with_capacity(HEADER_BYTES + piece.len());
            frame.push(source as u8);
            frame.extend_from_slice(&time_ms.to_be_bytes());
            frame.extend_from_slice(&u32::try_from(piece.len()).unwrap_or(0).to_be_bytes());
            frame.extend_from_slice(piece);
            if let Err(error) = self.file.write_all(&frame) {
                // What is torn ends its segment.
                self.rotate()?;
                return Err(error);
            }
            self.length += frame.len() as u64;
        }
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.file = create(&self.dir, self.segment + 1)?;
        self.segment += 1;
        self.length = 0;
        for old in segments(&self.dir)? {
            if old + SEGMENTS <= self.segment {
                fs::remove_file(self.dir.join(old.to_string()))?;
            }
        }
        Ok(())
    }
}

impl LogReader {
    /// Reads from a place on.
    #[must_use]
    pub fn new(dir: &Path, cursor: Cursor) -> Self {
        Self { dir: dir.to_owned(), cursor, open: None }
    }

    /// Where it is.
    #[must_use]
    pub const fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// The next frame; `None` at the end of what is there.
    ///
    /// # Errors
    /// [`io::Error`].
    pub fn read(&mut self) -> io::Result<Option<Frame>> {
        let mut gap = false;
        loop {
            if self.open.is_none() {
                match self.open_next()? {
                    Some(skipped) => gap |= skipped,
                    None => return Ok(None),
                }
            }
            if let Some(frame) = self.read_here()? {
                return Ok(Some(Frame { gap, ..frame }));
            }
            // The end of a segment: of the last one more may come, and whatever comes is whole.
            if !segments(&self.dir)?.iter().any(|segment| *segment > self.cursor.segment) {
                return Ok(None);
            }
            // It may have been written to between the two looks.
            if let Some(frame) = self.read_here()? {
                return Ok(Some(Frame { gap, ..frame }));
            }
            self.cursor = Cursor { segment: self.cursor.segment + 1, offset: 0 };
            self.open = None;
        }
    }

    /// Opens the segment of the cursor or the first one after it, and says whether some were dropped.
    fn open_next(&mut self) -> io::Result<Option<bool>> {
        let Some(segment) = segments(&self.dir)?.into_iter().find(|segment| *segment >= self.cursor.segment) else {
            return Ok(None);
        };
        let skipped = segment != self.cursor.segment && self.cursor.segment > 0;
        if segment != self.cursor.segment {
            self.cursor = Cursor { segment, offset: 0 };
        }
        match File::open(self.dir.join(segment.to_string())) {
            Ok(file) => self.open = Some(file),
            // Dropped between the two looks: the next look sees that.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok(Some(skipped))
    }

    fn read_here(&mut self) -> io::Result<Option<Frame>> {
        let Some(file) = &mut self.open else { return Ok(None) };
        file.seek(SeekFrom::Start(self.cursor.offset))?;
        let mut header = [0; HEADER_BYTES];
        if !fill(file, &mut header)? {
            return Ok(None);
        }
        let [source, rest @ ..] = header;
        let (time, length) = rest.split_at(8);
        let time_ms = u64::from_be_bytes(time.try_into().unwrap_or_default());
        let length = u32::from_be_bytes(length.try_into().unwrap_or_default()) as usize;
        let source = match source {
            1 => Source::Stdout,
            2 => Source::Stderr,
            3 => Source::Note,
            _ => return Ok(None),
        };
        let mut data = vec![0; length.min(FRAME_BYTES_MAX)];
        if !fill(file, &mut data)? {
            return Ok(None);
        }
        self.cursor.offset += (HEADER_BYTES + data.len()) as u64;
        Ok(Some(Frame { source, time_ms, data, gap: false }))
    }
}

/// Fills the buffer, or says that there is not so much.
fn fill(file: &mut File, buffer: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn create(dir: &Path, segment: u64) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(dir.join(segment.to_string()))
}

/// The numbers of the segments, oldest first.
fn segments(dir: &Path) -> io::Result<Vec<u64>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let number = |entry: io::Result<fs::DirEntry>| entry.ok()?.file_name().to_str()?.parse().ok();
    let mut numbers: Vec<u64> = entries.filter_map(number).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(reader: &mut LogReader) -> Vec<Frame> {
        std::iter::from_fn(|| reader.read().unwrap()).collect()
    }

    #[test]
    fn what_is_written_is_read_and_a_later_writer_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let mut reader = LogReader::new(dir.path(), Cursor::default());
        assert_eq!(reader.read().unwrap(), None);
        let mut writer = LogWriter::open(dir.path(), 1 << 20).unwrap();
        writer.write(Source::Stdout, 7, b"one").unwrap();
        writer.write(Source::Stderr, 8, &[b'x'; FRAME_BYTES_MAX + 1]).unwrap();
        let frames = all(&mut reader);
        assert_eq!(frames[0], Frame { source: Source::Stdout, time_ms: 7, data: b"one".to_vec(), gap: false });
        assert_eq!((frames[1].data.len(), frames[2].data.len()), (FRAME_BYTES_MAX, 1));
        // A writer that was killed in the middle of a frame.
        let mut torn = OpenOptions::new().append(true).open(dir.path().join("1")).unwrap();
        torn.write_all(&[1, 0, 0]).unwrap();
        assert_eq!(reader.read().unwrap(), None);
        LogWriter::open(dir.path(), 1 << 20).unwrap().write(Source::Note, 9, b"again").unwrap();
        assert_eq!(all(&mut reader)[0].data, b"again");
        let mut resumed = LogReader::new(dir.path(), Cursor { segment: 2, offset: 0 });
        assert_eq!(all(&mut resumed).len(), 1);
    }

    #[test]
    fn a_log_is_bounded_and_a_slow_reader_sees_the_gap() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = LogWriter::open(dir.path(), 4096).unwrap();
        writer.write(Source::Stdout, 0, b"first").unwrap();
        let mut reader = LogReader::new(dir.path(), Cursor::default());
        assert_eq!(reader.read().unwrap().unwrap().data, b"first");
        for number in 0..100_u64 {
            writer.write(Source::Stdout, number, &[b'x'; 200]).unwrap();
        }
        let kept: u64 = segments(dir.path())
            .unwrap()
            .iter()
            .map(|n| fs::metadata(dir.path().join(n.to_string())).unwrap().len())
            .sum();
        assert!(kept <= 4096 + 4 * 213, "{kept}");
        // The file that it has open was dropped; what it holds may still be read.
        let frames = all(&mut reader);
        assert_eq!(frames.iter().filter(|frame| frame.gap).count(), 1);
        assert_eq!(frames.last().unwrap().time_ms, 99);
    }
}
