//! Which files an agent may show: regular ones below its folders, and none that is named like a secret.

use std::{
    fs::File,
    io,
    path::{Component, Path, PathBuf},
};

use cap_std::{
    ambient_authority,
    fs::{Dir, OpenOptions, OpenOptionsExt as _},
};
use nix::fcntl::OFlag;

use crate::post::secret_name;

/// Where an agent's files may be.
#[derive(Debug, Clone)]
pub struct Roots {
    /// Relative paths begin here.
    pub directory: PathBuf,
    /// Below one of these.
    pub folders: Vec<PathBuf>,
    /// Never from below here, unless one of the folders lies there itself.
    pub data_dir: PathBuf,
}

/// A file that is not shown.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It is not there.
    #[error("there is no file `{}`", .0.display())]
    NotFound(PathBuf),
    /// It may not be shown.
    #[error("`{}` {why}", path.display())]
    Denied {
        /// As typed.
        path: PathBuf,
        /// What is against it.
        why: String,
    },
    /// It is no regular file, or cannot be read.
    #[error("{0}")]
    Refused(String),
}

impl Roots {
    /// Opens a file that may be shown, and says what it is called. It blocks.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn open(&self, typed: &str) -> Result<(File, String), FileError> {
        if typed.is_empty() || typed.contains('\0') {
            return Err(FileError::Refused("must name a file".to_owned()));
        }
        let path = self.directory.join(typed);
        let denied = |why: &str| FileError::Denied { path: typed.into(), why: why.to_owned() };
        if path.components().any(|part| part == Component::ParentDir) {
            return Err(denied("goes up by `..`: name it without"));
        }
        let (folder, below) = self.find(&path).ok_or_else(|| denied(&self.outside()))?;
        if let Some(pattern) = secret_name(&below) {
            return Err(denied(&format!("is named like a secret ({pattern})")));
        }
        let file = open_below(&folder, &below).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => FileError::NotFound(typed.into()),
            io::ErrorKind::PermissionDenied => denied(&format!("may not be read, or leads elsewhere: {error}")),
            _ => FileError::Refused(format!("cannot be opened: {error}")),
        })?;
        let kind = file.metadata().map_err(|error| FileError::Refused(error.to_string()))?;
        if !kind.is_file() {
            return Err(FileError::Refused("must be a regular file".to_owned()));
        }
        // A link inside the folder may lead to a file of another name.
        let real = real_path(&file).unwrap_or_else(|| folder.join(&below));
        let inside = real.strip_prefix(&folder).unwrap_or(&real);
        if let Some(pattern) = secret_name(inside) {
            return Err(denied(&format!("is named like a secret ({pattern})")));
        }
        let is_nodes =
            self.data_dir.canonicalize().is_ok_and(|own| real.starts_with(&own) && !folder.starts_with(&own));
        if is_nodes {
            return Err(denied("is one of the node's own files"));
        }
        Ok((file, below.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()))
    }

    /// The folder that a path is below, as it really is, and the rest of the path.
    fn find(&self, path: &Path) -> Option<(PathBuf, PathBuf)> {
        self.folders.iter().find_map(|folder| {
            let real = folder.canonicalize().ok()?;
            // The whole of a host is no folder to show.
            let below = path.strip_prefix(&real).or_else(|_| path.strip_prefix(folder)).ok()?;
            (real.parent().is_some() && below.components().next().is_some()).then(|| (real, below.to_owned()))
        })
    }

    fn outside(&self) -> String {
        let shown: Vec<_> = self.folders.iter().map(|folder| folder.display().to_string()).collect();
        format!("is outside the folders that may be shown ({})", shown.join(", "))
    }
}

fn open_below(folder: &Path, below: &Path) -> io::Result<File> {
    let dir = Dir::open_ambient_dir(folder, ambient_authority())?;
    let mut options = OpenOptions::new();
    // Without blocking: opening a pipe would wait for somebody to write into it.
    options.read(true).custom_flags((OFlag::O_NONBLOCK | OFlag::O_CLOEXEC).bits());
    Ok(dir.open_with(below, &options)?.into_std())
}

fn real_path(file: &File) -> Option<PathBuf> {
    use std::os::fd::AsRawFd as _;
    std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    struct World {
        _home: tempfile::TempDir,
        root: PathBuf,
        roots: Roots,
    }

    fn world() -> World {
        let home = tempfile::tempdir().unwrap();
        let at = home.path().canonicalize().unwrap();
        let (root, data_dir) = (at.join("work"), at.join("work/data"));
        fs::create_dir_all(root.join("sub")).unwrap();
        fs::create_dir_all(&data_dir).unwrap();
        for (path, text) in [
            (root.join("a.txt"), "a"),
            (root.join("sub/b.txt"), "b"),
            (root.join(".env.local"), "secret"),
            (root.join("sub/id_ed25519"), "secret"),
            (data_dir.join("store.db"), "secret"),
            (at.join("outside.txt"), "secret"),
        ] {
            fs::write(path, text).unwrap();
        }
        let roots = Roots { directory: root.join("sub"), folders: vec![root.clone()], data_dir };
        World { _home: home, root, roots }
    }

    fn read(world: &World, path: &str) -> Result<(String, String), FileError> {
        let (file, name) = world.roots.open(path)?;
        Ok((io::read_to_string(file).unwrap(), name))
    }

    #[test]
    fn a_file_below_the_folder_is_found_from_the_working_directory() {
        let world = world();
        assert_eq!(read(&world, "b.txt").unwrap(), ("b".to_owned(), "b.txt".to_owned()));
        assert_eq!(read(&world, "./b.txt").unwrap().0, "b");
        assert_eq!(read(&world, world.root.join("a.txt").to_str().unwrap()).unwrap().0, "a");
        symlink("sub/b.txt", world.root.join("link.txt")).unwrap();
        assert_eq!(read(&world, world.root.join("link.txt").to_str().unwrap()).unwrap().0, "b");
    }

    #[test]
    fn nothing_outside_the_folder_is_shown_whatever_leads_there() {
        let world = world();
        let outside = world.root.parent().unwrap().join("outside.txt");
        symlink(&outside, world.root.join("sub/absolute.txt")).unwrap();
        symlink("../../outside.txt", world.root.join("sub/relative.txt")).unwrap();
        symlink(world.root.parent().unwrap(), world.root.join("sub/up")).unwrap();
        let typed = [
            outside.to_str().unwrap(),
            "../../outside.txt",
            "../a.txt",
            "absolute.txt",
            "relative.txt",
            "up/outside.txt",
            "/etc/passwd",
        ];
        for path in typed {
            assert!(matches!(read(&world, path), Err(FileError::Denied { .. })), "{path}");
        }
    }

    #[test]
    fn secrets_and_the_nodes_own_files_are_not_shown() {
        let world = world();
        symlink("id_ed25519", world.root.join("sub/harmless.txt")).unwrap();
        let at = |path: &str| world.root.join(path).to_str().unwrap().to_owned();
        for path in [at(".env.local"), at("data/store.db"), "id_ed25519".to_owned(), "harmless.txt".to_owned()] {
            assert!(matches!(read(&world, &path), Err(FileError::Denied { .. })), "{path}");
        }
    }

    #[test]
    fn what_is_no_regular_file_is_refused_at_once() {
        let world = world();
        nix::unistd::mkfifo(&world.root.join("sub/pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        for path in ["pipe", "."] {
            assert!(read(&world, path).is_err(), "{path}");
        }
        for path in ["", "a\0b"] {
            assert!(matches!(read(&world, path), Err(FileError::Refused(_))), "{path:?}");
        }
        assert!(matches!(read(&world, "nothing.txt"), Err(FileError::NotFound(_))));
        assert!(matches!(read(&world, "b.txt/x"), Err(FileError::NotFound(_))));
    }

    #[test]
    fn the_whole_host_is_no_folder() {
        let world = world();
        let roots = Roots { directory: "/".into(), folders: vec!["/".into()], ..world.roots };
        assert!(matches!(roots.open("etc/hostname"), Err(FileError::Denied { .. })));
    }
}
