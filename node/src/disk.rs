//! How much room the disk has.

use std::{io, path::Path};

use nix::sys::statvfs::statvfs;

/// Less than this is not enough to accept anything: a commit's pages, and their copy in the database.
pub const NEEDED_BYTES: u64 = 1024 * 1024;

/// Room for this process's user on a folder's disk, in bytes.
///
/// # Errors
/// [`io::Error`] when the folder's file system cannot be asked.
pub fn left(folder: &Path) -> io::Result<u64> {
    let disk = statvfs(folder)?;
    Ok(disk.blocks_available().saturating_mul(disk.fragment_size()))
}

/// Whether something could not be written for want of room.
#[must_use]
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
