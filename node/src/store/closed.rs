//! How the database was left: what was closed in order and is as it was then need not be read whole at the start.
//!
//! Beside the database stands its size and its time of change when it was closed. It goes before the database is opened, so that after
//! a crash there is none; a copy that was put back, or bytes that were written by anybody else, have another time.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// What the database was like when it was closed.
fn path(database: &Path) -> PathBuf {
    database.with_extension("closed")
}

/// Size and time of change; `None` while there is a journal, whose pages would have to be read as well.
fn looks(database: &Path) -> io::Result<Option<String>> {
    let mut journal = database.as_os_str().to_owned();
    journal.push("-wal");
    if fs::exists(&journal)? {
        return Ok(None);
    }
    let found = fs::metadata(database)?;
    Ok(Some(format!("{} {}.{:09}", found.len(), found.mtime(), found.mtime_nsec())))
}

/// Notes that the database was closed in order. Should that fail, it is read whole once more.
pub(super) fn note(database: &Path) {
    let noted = looks(database).and_then(|looks| looks.map_or(Ok(()), |looks| fs::write(path(database), looks)));
    if let Err(error) = noted {
        tracing::debug!(%error, "how the store was closed could not be noted");
    }
}

/// Takes the note away and says whether the database is as it was when it was closed.
pub(super) fn take(database: &Path) -> bool {
    let (path, looks) = (path(database), looks(database).ok().flatten());
    let noted = fs::read_to_string(&path).ok();
    let is_gone = match fs::remove_file(&path) {
        Ok(()) => true,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    };
    // A note that stays would vouch for what is about to change.
    is_gone && noted.is_some() && noted == looks
}
