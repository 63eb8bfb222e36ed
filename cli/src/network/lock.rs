//! One murmurctl at a time changes a network: a lock on a file that the kernel releases with the process.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Read as _, Seek as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    time::{Duration, Instant},
};

use super::{layout::Layout, progress::Progress};
use crate::{
    exit::Exit,
    failure::{Context as _, Failure},
};

/// How long to wait for another murmurctl: longer than `up` takes with a slow download.
const WAIT_MAX: Duration = Duration::from_secs(180);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The lock, held until dropped.
#[derive(Debug)]
pub(crate) struct NetworkLock {
    _file: File,
}

impl NetworkLock {
    /// Takes the lock, and waits for whoever has it.
    pub(crate) async fn take(layout: &Layout, progress: &Progress) -> Result<Self, Failure> {
        let path = layout.lock();
        let doing = || format!("locking `{}`", path.display());
        let mut options = OpenOptions::new();
        let mut file =
            options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path).context(doing())?;
        let deadline = Instant::now() + WAIT_MAX;
        let mut told = false;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(error)) => return Err(error).context(doing()),
                Err(TryLockError::WouldBlock) => {}
            }
            if Instant::now() >= deadline {
                return Err(Failure::new(
                    Exit::Timeout,
                    format!("another murmurctl{} is still at work here", holder(&mut file)),
                )
                .remedy("Wait for it or end it, then try again."));
            }
            if !told {
                progress.note(&format!("waiting for another murmurctl{}", holder(&mut file)));
                told = true;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        sign(&mut file).context(doing())?;
        Ok(Self { _file: file })
    }
}

/// Writes our pid into the file, for whoever waits.
fn sign(file: &mut File) -> std::io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    write!(file, "{}", std::process::id())
}

/// The pid in the file, if the holder has written it already.
fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let read = file.rewind().and_then(|()| file.read_to_string(&mut text));
    if read.is_ok() && !text.is_empty() { format!(" (process {text})") } else { String::new() }
}
