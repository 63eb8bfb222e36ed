//! Files that a user names and a program reads whole: regular ones of bounded size, and private where they hold a secret.
//!
//! A pipe that nobody writes would hold the program for ever, and a device such as `/dev/zero` would fill its memory.

use std::{
    fs::{File, Metadata, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use nix::fcntl::OFlag;

/// More than any token has.
const SECRET_BYTES_MAX: u64 = 4096;

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system refuses.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A folder, pipe, socket or device.
    #[error("it is no regular file")]
    NotRegular,
    /// It is longer than anything of its kind.
    #[error("it is longer than {0} bytes")]
    TooLong(u64),
    /// It holds a secret that others can read.
    #[error("other users can read or write it (mode {mode:04o}, must be 0600)")]
    NotPrivate {
        /// Its permissions.
        mode: u32,
    },
    /// It is not UTF-8.
    #[error("it is not text in UTF-8")]
    NotText,
}

/// The text of a regular file of at most `bytes_max` bytes.
///
/// # Errors
/// [`FileError`].
pub fn read_text(path: &Path, bytes_max: u64) -> Result<String, FileError> {
    let (file, _) = open(path)?;
    text(file, bytes_max)
}

/// The text of a file that holds a secret: only its owner may have access.
///
/// # Errors
/// [`FileError`].
pub fn read_secret(path: &Path) -> Result<String, FileError> {
    let (file, about) = open(path)?;
    let mode = about.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(FileError::NotPrivate { mode });
    }
    text(file, SECRET_BYTES_MAX)
}

/// Opens a regular file, without waiting for anybody. What it is, is asked of what was opened.
fn open(path: &Path) -> Result<(File, Metadata), FileError> {
    let file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    let about = file.metadata()?;
    if about.is_file() { Ok((file, about)) } else { Err(FileError::NotRegular) }
}

fn text(file: File, bytes_max: u64) -> Result<String, FileError> {
    let mut bytes = Vec::new();
    file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(FileError::TooLong(bytes_max));
    }
    String::from_utf8(bytes).map_err(|_| FileError::NotText)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use nix::{sys::stat::Mode, unistd::mkfifo};

    use super::*;

    #[test]
    fn only_regular_files_are_read_and_nobody_waits_for_another() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        mkfifo(&fifo, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
        for path in [fifo.as_path(), Path::new("/dev/zero"), dir.path()] {
            assert!(matches!(read_secret(path), Err(FileError::NotRegular)), "{}", path.display());
            assert!(matches!(read_text(path, 10), Err(FileError::NotRegular)), "{}", path.display());
        }
    }

    #[test]
    fn a_file_has_a_bound_and_a_secret_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "12345").unwrap();
        assert_eq!(read_text(&path, 5).unwrap(), "12345");
        assert!(matches!(read_text(&path, 4), Err(FileError::TooLong(4))));
        for (mode, is_private) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false), (0o620, false)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(read_secret(&path).is_ok(), is_private, "{mode:o}");
        }
        fs::write(&path, [0xFF]).unwrap();
        assert!(matches!(read_text(&path, 5), Err(FileError::NotText)));
    }
}
