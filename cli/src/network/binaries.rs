//! Finding our own programs: beside this one, then on PATH.

use std::{
    env,
    path::{Path, PathBuf},
};

use nix::unistd::{AccessFlags, access};

use crate::failure::{Context as _, Failure};

pub(crate) const SERVER: &str = "murmur-server";
pub(crate) const NODE: &str = "murmur-node";
pub(crate) const SHIM: &str = "murmur-mcp";

/// The path of this program. One that was replaced while it ran is found where it was.
pub(crate) fn own() -> Result<PathBuf, Failure> {
    let path = env::current_exe().context("finding the own program")?;
    // So the kernel names a file that is gone.
    let replaced = path.to_str().and_then(|text| text.strip_suffix(" (deleted)")).map(PathBuf::from);
    Ok(replaced.unwrap_or(path))
}

/// The path of one of our programs.
pub(crate) fn find(name: &str) -> Result<PathBuf, Failure> {
    let own = own()?;
    let beside = own.parent().map(|folder| folder.join(name));
    let path = env::var_os("PATH").unwrap_or_default();
    let on_path = env::split_paths(&path).filter(|folder| folder.is_absolute()).map(|folder| folder.join(name));
    beside.into_iter().chain(on_path).find(|program| is_program(program)).ok_or_else(|| {
        Failure::failed(format!("`{name}` is neither beside `{}` nor on PATH", own.display()))
            .remedy("Build it with `cargo build --workspace`, or install it and put its folder on PATH.")
    })
}

fn is_program(path: &Path) -> bool {
    path.is_file() && access(path, AccessFlags::X_OK).is_ok()
}

/// What `--version` says, such as `murmur-node 0.1.0`; `None` when it does not run.
pub(crate) fn version(program: &Path) -> Option<String> {
    let output =
        std::process::Command::new(program).arg("--version").output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok().map(|text| text.trim().to_owned())
}
