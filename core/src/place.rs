//! Where things are on a host, as functions of the environment: the XDG base directories, and the socket that node, command line
//! and shim must agree on without asking each other (DESIGN §8.14).

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

/// The user's base directories, as far as the environment names them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BaseDirs {
    runtime: Option<PathBuf>,
    data: Option<PathBuf>,
}

impl BaseDirs {
    /// Asks `variable`, such as `std::env::var_os`. Relative paths are ignored, as the XDG base directory specification demands.
    pub fn new(variable: impl Fn(&'static str) -> Option<OsString>) -> Self {
        let absolute = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
        Self {
            runtime: absolute("XDG_RUNTIME_DIR"),
            data: absolute("XDG_DATA_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/share"))),
        }
    }

    /// The default data directory: `$XDG_DATA_HOME/murmur`, else `~/.local/share/murmur`; `None` when neither variable is set.
    #[must_use]
    pub fn data_dir(&self) -> Option<PathBuf> {
        self.data.as_ref().map(|data| data.join("murmur"))
    }

    /// The socket of the node whose network is in the default data directory: `$XDG_RUNTIME_DIR/murmur/node.sock`, else
    /// `run/node.sock` in the data directory; `None` when there is neither.
    #[must_use]
    pub fn socket(&self) -> Option<PathBuf> {
        let in_runtime = self.runtime.as_ref().map(|runtime| runtime.join("murmur/node.sock"));
        in_runtime.or_else(|| self.data_dir().map(|dir| socket_in(&dir)))
    }

    /// Where a program of the same user looks that was started without `XDG_RUNTIME_DIR`, as some clients start their MCP servers: the
    /// node that serves [`Self::socket`] leaves a link there. `None` when that is the socket itself.
    #[must_use]
    pub fn socket_link(&self) -> Option<PathBuf> {
        self.runtime.as_ref().and(self.data_dir()).map(|dir| socket_in(&dir))
    }

    /// The socket of the node whose network is in `data_dir`: the default one's as above, any other's in its own directory, so
    /// that two networks never share one.
    #[must_use]
    pub fn socket_of(&self, data_dir: &Path) -> PathBuf {
        let shared = self.socket().filter(|_| self.data_dir().is_some_and(|default| default == data_dir));
        shared.unwrap_or_else(|| socket_in(data_dir))
    }
}

fn socket_in(data_dir: &Path) -> PathBuf {
    data_dir.join("run/node.sock")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dirs(set: &'static [(&'static str, &'static str)]) -> BaseDirs {
        BaseDirs::new(|name| set.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into()))
    }

    #[test]
    fn the_socket_is_in_the_runtime_directory_or_else_with_the_data() {
        let socket = |set| dirs(set).socket().map(|path| path.display().to_string());
        let all = socket(&[("XDG_RUNTIME_DIR", "/run/user/7"), ("XDG_DATA_HOME", "/d"), ("HOME", "/h")]);
        assert_eq!(all.as_deref(), Some("/run/user/7/murmur/node.sock"));
        let no_runtime = socket(&[("XDG_DATA_HOME", "/d"), ("HOME", "/h")]);
        assert_eq!(no_runtime.as_deref(), Some("/d/murmur/run/node.sock"));
        assert_eq!(socket(&[("HOME", "/h")]).as_deref(), Some("/h/.local/share/murmur/run/node.sock"));
        assert_eq!(socket(&[]), None);
    }

    #[test]
    fn who_has_no_runtime_directory_looks_where_the_link_is() {
        let with = dirs(&[("XDG_RUNTIME_DIR", "/run/user/7"), ("HOME", "/h")]);
        let without = dirs(&[("HOME", "/h")]);
        assert_eq!(with.socket_link(), without.socket());
        assert_eq!(without.socket_link(), None);
    }

    #[test]
    fn a_relative_path_is_as_good_as_none() {
        let relative = dirs(&[("XDG_RUNTIME_DIR", "run"), ("XDG_DATA_HOME", "data"), ("HOME", "/h")]);
        assert_eq!(relative, dirs(&[("HOME", "/h")]));
    }

    #[test]
    fn another_network_keeps_its_socket_to_itself() {
        let dirs = dirs(&[("XDG_RUNTIME_DIR", "/run/user/7"), ("HOME", "/h")]);
        assert_eq!(dirs.socket_of(Path::new("/h/.local/share/murmur")), Path::new("/run/user/7/murmur/node.sock"));
        assert_eq!(dirs.socket_of(Path::new("/other")), Path::new("/other/run/node.sock"));
    }
}
