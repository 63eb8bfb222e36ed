//! The bytes of streams on this node's disk: copies of what is sent, parts of what comes, and what has come.
//!
//! ```text
//! files/               0700
//!   out/<stream>       what is sent: a copy of its own, which nobody changes, until the stream has ended
//!   in/<stream>        what has come so far
//!   <message>/<name>   what has come whole
//! ```

use std::{
    collections::HashSet,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use murmur_core::id::{MessageId, StreamId};
use murmur_crypto::hash::Sha256Pieces;

use crate::disk;

/// Bytes read at a time.
const PIECE: usize = 128 * 1024;

/// Where the bytes are.
#[derive(Debug, Clone)]
pub(super) struct Spool {
    dir: PathBuf,
    /// Left free on the disk whatever comes.
    reserve_bytes: u64,
}

/// A copy of what is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Snapshot {
    pub(super) size: u64,
    pub(super) sha256: [u8; 32],
}

/// Why no copy was made.
#[derive(Debug, thiserror::Error)]
pub(super) enum SnapshotError {
    #[error("the file grew beyond {0} bytes while it was read")]
    TooLarge(u64),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Spool {
    pub(super) const fn new(dir: PathBuf, reserve_bytes: u64) -> Self {
        Self { dir, reserve_bytes }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Makes the folders as needed.
    pub(super) fn prepare(&self) -> io::Result<()> {
        for folder in [self.dir.join("out"), self.dir.join("in")] {
            private_folder(&folder)?;
        }
        Ok(())
    }

    pub(super) fn out(&self, stream: StreamId) -> PathBuf {
        self.dir.join("out").join(stream.hex())
    }

    pub(super) fn part(&self, stream: StreamId) -> PathBuf {
        self.dir.join("in").join(stream.hex())
    }

    /// Where a received file is to be. `apart` keeps it from another message of the same id.
    pub(super) fn received(&self, msg_id: MessageId, apart: Option<StreamId>, name: &str) -> PathBuf {
        let folder = apart.map_or_else(|| msg_id.to_string(), |stream| format!("{msg_id}-{}", &stream.hex()[..8]));
        self.dir.join(folder).join(name)
    }

    /// Whether the disk has room for so many bytes more.
    pub(super) fn has_room(&self, bytes: u64) -> bool {
        disk::left(&self.dir).is_ok_and(|left| left >= bytes.saturating_add(self.reserve_bytes))
    }

    /// Copies a file of at most `bytes_max` bytes, so that what is sent never changes: a chunk that was encrypted twice with other
    /// content would give its key away. The digest is that of the copy, and the copy is on the disk when this returns.
    pub(super) fn snapshot(&self, stream: StreamId, source: &File, bytes_max: u64) -> Result<Snapshot, SnapshotError> {
        let path = self.out(stream);
        let copied = self.copy(&path, source, bytes_max);
        if copied.is_err() {
            remove(&path);
        }
        copied
    }

    fn copy(&self, path: &Path, source: &File, bytes_max: u64) -> Result<Snapshot, SnapshotError> {
        self.prepare()?;
        let mut copy = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
        // The kernel copies, and shares the blocks where the file system can.
        let size = io::copy(&mut source.take(bytes_max.saturating_add(1)), &mut copy)?;
        if size > bytes_max {
            return Err(SnapshotError::TooLarge(bytes_max));
        }
        copy.sync_all()?;
        sync_folder(path)?;
        let (sha256, length) = digest(&copy)?;
        if length != size {
            return Err(io::Error::other("the copy has another length than what was copied").into());
        }
        Ok(Snapshot { size, sha256 })
    }

    /// Whether there is a copy of so many bytes.
    pub(super) fn has_copy(&self, stream: StreamId, size: u64) -> bool {
        fs::metadata(self.out(stream)).is_ok_and(|copy| copy.len() == size)
    }

    /// Gives a copy to another stream as well; `false` when that cannot be done.
    pub(super) fn link(&self, stream: StreamId, to: StreamId) -> bool {
        let path = self.out(to);
        fs::hard_link(self.out(stream), &path).and_then(|()| sync_folder(&path)).is_ok()
    }

    /// Opens the part of a stream, cut to the `size` bytes that are known to be safe.
    pub(super) fn open_part(&self, stream: StreamId, size: u64) -> io::Result<File> {
        self.prepare()?;
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(self.part(stream))?;
        if file.metadata()?.len() < size {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the spool lost what was written to it"));
        }
        file.set_len(size)?;
        Ok(file)
    }

    /// Brings a whole file to where it is seen, at once.
    pub(super) fn deliver(&self, stream: StreamId, target: &Path) -> io::Result<()> {
        let folder = target.parent().unwrap_or(&self.dir);
        private_folder(folder)?;
        fs::rename(self.part(stream), target)?;
        sync_folder(target)?;
        sync_folder(folder)
    }

    /// Deletes a file that came whole, and its folder when nothing else is in it. What its user has moved away is not looked for.
    pub(super) fn forget(&self, path: &Path) {
        if !path.starts_with(&self.dir) {
            return;
        }
        remove(path);
        if let Some(folder) = path.parent().filter(|folder| *folder != self.dir) {
            // One that holds something else stays.
            let _ = fs::remove_dir(folder);
        }
    }

    /// Deletes the copy of a stream that is not sent any more; `false` when there was none.
    pub(super) fn drop_out(&self, stream: StreamId) -> bool {
        remove(&self.out(stream))
    }

    /// Deletes what has come of a stream that is given up.
    pub(super) fn drop_part(&self, stream: StreamId) {
        remove(&self.part(stream));
    }

    /// Deletes what belongs to no stream that is still open: left by a process that died at the wrong moment.
    pub(super) fn sweep(&self, out: &HashSet<StreamId>, parts: &HashSet<StreamId>) -> io::Result<()> {
        for (folder, known) in [("out", out), ("in", parts)] {
            for entry in fs::read_dir(self.dir.join(folder))? {
                let entry = entry?;
                let stream = entry.file_name().to_string_lossy().parse::<StreamId>();
                if !stream.is_ok_and(|stream| known.contains(&stream)) {
                    remove(&entry.path());
                }
            }
        }
        Ok(())
    }
}

/// Digest and length of a whole file.
pub(super) fn digest(file: &File) -> io::Result<([u8; 32], u64)> {
    let (mut hasher, mut piece, mut at) = (Sha256Pieces::default(), vec![0; PIECE], 0);
    loop {
        let read = file.read_at(&mut piece, at)?;
        if read == 0 {
            return Ok((hasher.finish(), at));
        }
        hasher.add(piece.get(..read).unwrap_or_default());
        at += u64::try_from(read).unwrap_or(0);
    }
}

fn private_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Makes the name of a file durable.
fn sync_folder(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

fn remove(path: &Path) -> bool {
    let removed = fs::remove_file(path);
    if let Err(error) = &removed
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, path = %path.display(), "a file of a stream could not be deleted");
    }
    removed.is_ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use murmur_crypto::hash::sha256;

    use super::*;

    const STREAM: StreamId = StreamId::from_bytes([7; 16]);

    fn spool() -> (tempfile::TempDir, Spool) {
        let home = tempfile::tempdir().unwrap();
        let spool = Spool::new(home.path().join("files"), 0);
        (home, spool)
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn what_is_sent_is_a_copy_that_the_original_cannot_change() {
        let (home, spool) = spool();
        let original = home.path().join("a");
        fs::write(&original, "first").unwrap();
        let taken = spool.snapshot(STREAM, &File::open(&original).unwrap(), 5).unwrap();
        assert_eq!(taken, Snapshot { size: 5, sha256: sha256(b"first") });
        fs::write(&original, "other").unwrap();
        assert_eq!(fs::read(spool.out(STREAM)).unwrap(), b"first");
        assert_eq!((mode(&spool.out(STREAM)), mode(spool.dir())), (0o600, 0o700));
    }

    #[test]
    fn a_file_that_grows_beyond_the_limit_leaves_nothing_behind() {
        let (home, spool) = spool();
        let original = home.path().join("a");
        fs::write(&original, "sixsix").unwrap();
        let refused = spool.snapshot(STREAM, &File::open(&original).unwrap(), 5);
        assert!(matches!(refused, Err(SnapshotError::TooLarge(5))));
        assert!(!spool.out(STREAM).exists());
    }

    #[test]
    fn a_part_is_cut_to_what_is_safe_and_delivered_at_once() {
        let (_home, spool) = spool();
        spool.open_part(STREAM, 0).unwrap().write_all_at(b"0123456789", 0).unwrap();
        let part = spool.open_part(STREAM, 4).unwrap();
        assert_eq!(part.metadata().unwrap().len(), 4);
        assert!(spool.open_part(STREAM, 5).is_err(), "bytes that were safe are gone");
        let target = spool.received(MessageId::from_bytes([1; 16]), None, "x");
        spool.deliver(STREAM, &target).unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"0123");
        assert_eq!((mode(&target), mode(target.parent().unwrap())), (0o600, 0o700));
        assert!(!spool.part(STREAM).exists());
    }

    #[test]
    fn what_is_forgotten_goes_with_its_folder_and_nothing_else_does() {
        let (home, spool) = spool();
        let (one, other) = (spool.dir().join("m/one"), spool.dir().join("m/other"));
        private_folder(one.parent().unwrap()).unwrap();
        for path in [&one, &other] {
            fs::write(path, "x").unwrap();
        }
        spool.forget(&one);
        assert!(!one.exists() && other.exists());
        spool.forget(&other);
        assert!(!other.parent().unwrap().exists() && spool.dir().exists());
        let outside = home.path().join("outside");
        fs::write(&outside, "x").unwrap();
        spool.forget(&outside);
        assert!(outside.exists());
    }

    #[test]
    fn what_no_stream_owns_is_swept() {
        let (_home, spool) = spool();
        spool.open_part(STREAM, 0).unwrap();
        fs::write(spool.out(STREAM), "x").unwrap();
        spool.sweep(&HashSet::from([STREAM]), &HashSet::new()).unwrap();
        assert!(spool.out(STREAM).exists() && !spool.part(STREAM).exists());
    }
}
