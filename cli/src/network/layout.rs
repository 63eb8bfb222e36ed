//! Where a local network keeps its things under one data directory.

use std::{
    env, fs, io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use murmur_core::place::BaseDirs;

use crate::failure::{Context as _, Failure};

/// Paths under one data directory. Every directory is made 0700.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    root: PathBuf,
}

impl Layout {
    pub(crate) fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// `$XDG_DATA_HOME/murmur`, else `~/.local/share/murmur`.
    pub(crate) fn default_root() -> Result<PathBuf, Failure> {
        base_dirs().data_dir().ok_or_else(|| {
            Failure::usage("neither HOME nor XDG_DATA_HOME is set")
                .remedy("Name a folder with --data-dir or MURMUR_DATA_DIR.")
        })
    }

    /// Where the node's socket is unless somebody names another place.
    pub(crate) fn socket_default(&self) -> PathBuf {
        base_dirs().socket_of(&self.root)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Names, ports and sockets of the network.
    pub(crate) fn plan(&self) -> PathBuf {
        self.root.join("network.json")
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// stdout and stderr of each part, one file each.
    pub(crate) fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    pub(crate) fn log(&self, part: &str) -> PathBuf {
        self.logs().join(format!("{part}.log"))
    }

    /// How long a part's log was when somebody last asked for the part: what an earlier one wrote explains nothing.
    pub(crate) fn log_mark(&self, part: &str) -> PathBuf {
        self.run().join(format!("{part}.log-mark"))
    }

    pub(crate) fn run(&self) -> PathBuf {
        self.root.join("run")
    }

    pub(crate) fn pid_file(&self, part: &str) -> PathBuf {
        self.run().join(format!("{part}.pid"))
    }

    /// What a part is to be started with, for the supervisor.
    pub(crate) fn wanted_file(&self, part: &str) -> PathBuf {
        self.run().join(format!("{part}.wanted"))
    }

    /// What the supervisor knows.
    pub(crate) fn supervisor_report(&self) -> PathBuf {
        self.run().join("supervisor.json")
    }

    /// Settings of the node that the user wrote; there may be none.
    pub(crate) fn node_config(&self) -> PathBuf {
        self.root.join("node.toml")
    }

    pub(crate) fn broker(&self) -> PathBuf {
        self.root.join("broker")
    }

    pub(crate) fn broker_config(&self) -> PathBuf {
        self.broker().join("nats-server.conf")
    }

    pub(crate) fn server(&self) -> PathBuf {
        self.root.join("server")
    }

    /// Written by the control plane at its first start.
    pub(crate) fn admin_token(&self) -> PathBuf {
        self.server().join("admin.token")
    }

    /// Keys and store of the node of this name.
    pub(crate) fn node(&self, part: &str) -> PathBuf {
        self.root.join(part)
    }

    /// The owner's keys: one file a workspace.
    pub(crate) fn owner(&self) -> PathBuf {
        self.root.join("owner")
    }

    /// Makes the directories that every network has.
    pub(crate) fn create(&self) -> Result<(), Failure> {
        for dir in [self.root.clone(), self.logs(), self.run(), self.owner()] {
            private_dir(&dir)?;
        }
        Ok(())
    }
}

/// The user's base directories.
fn base_dirs() -> BaseDirs {
    BaseDirs::new(env::var_os)
}

/// Makes a directory, and those above it, that only this user can read.
pub(crate) fn private_dir(path: &Path) -> Result<(), Failure> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.context(format!("making the folder `{}`", path.display()))
}

/// Replaces a file in one step with content that only this user can read, on disk before this returns.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> Result<(), Failure> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let temporary = PathBuf::from(name);
    let write = || -> io::Result<()> {
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        io::Write::write_all(&mut file, content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().inspect_err(|_| drop(fs::remove_file(&temporary))).context(format!("writing `{}`", path.display()))
}

/// A file that only this user can read, made before what goes into it: a place that cannot be written is told while nothing is lost.
/// Dropped before it holds anything, it is removed again.
#[derive(Debug)]
pub(crate) struct NewFile {
    path: PathBuf,
    file: fs::File,
    is_kept: bool,
}

impl NewFile {
    /// Makes the file for an option such as `--out`. One that is there already may be somebody's only copy, and stays.
    pub(crate) fn create(path: &Path, option: &str) -> Result<Self, Failure> {
        let shown = path.display();
        match fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
            Ok(file) => Ok(Self { path: path.to_owned(), file, is_kept: false }),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(Failure::usage(format!("{option}: `{shown}` is there already, and is not overwritten"))
                    .remedy("Name a new file, or move that one away first."))
            }
            Err(error) => Err(error).context(format!("{option}: making `{shown}`")),
        }
    }

    /// Writes the content, on disk before this returns.
    pub(crate) fn fill(mut self, content: &[u8]) -> Result<(), Failure> {
        let written = io::Write::write_all(&mut self.file, content).and_then(|()| self.file.sync_all());
        written.context(format!("writing `{}`", self.path.display()))?;
        self.is_kept = true;
        Ok(())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.is_kept {
            drop(fs::remove_file(&self.path));
        }
    }
}

/// A file's text; `None` when there is no such file.
pub(crate) fn read_optional(path: &Path) -> Result<Option<String>, Failure> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).context(format!("reading `{}`", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_new_file_replaces_none_and_leaves_none_that_is_empty() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        drop(NewFile::create(&path, "--out").unwrap());
        assert!(!path.exists(), "nothing came of it");
        NewFile::create(&path, "--out").unwrap().fill(b"secret").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let refused = NewFile::create(&path, "--out").unwrap_err();
        assert!(refused.what.contains("--out") && refused.what.contains("is there already"), "{refused}");
        assert_eq!(fs::read(&path).unwrap(), b"secret");
        assert!(NewFile::create(&dir.path().join("no/folder"), "--out").is_err());
    }
}
