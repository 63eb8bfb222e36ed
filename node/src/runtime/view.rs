//! Git over an agent's files without the configuration of its repository.
//!
//! What an agent leaves there names programs that git's plain commands run: content filters, `clean` when git is not sure whether a file was
//! changed, `smudge` at a checkout. Finding and overriding them would leave a moment in which another one can be added. So git is shown a
//! repository of the node's own making: its configuration says nothing of programs and there are no attributes beside those of the files;
//! objects and refs are links to the agent's. HEAD and index are the working copy's own, which are data. Filters that the node's user or the
//! host configured stay, such as git-lfs.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Output,
};

use data_encoding::HEXLOWER;

use super::git::Mirrors;
use crate::identity::{create_private_dir, write_private};

/// What git finds in the agent's repository: nothing in it is a program or names one.
const SHOWN: [&str; 5] = ["objects", "refs", "packed-refs", "shallow", "info/exclude"];

impl Mirrors {
    /// Runs a command that reads or writes files of a working copy, with nothing of its repository's configuration but, for filters that fetch,
    /// where it came from.
    pub(super) async fn git_on_files(&self, dir: &Path, url: Option<&str>, args: &[&str]) -> io::Result<Output> {
        let place = ["rev-parse", "--path-format=absolute", "--git-dir", "--git-common-dir", "--show-object-format"];
        let place = self.git(dir, &place).await?;
        if !place.status.success() {
            return Ok(place);
        }
        let text = String::from_utf8(place.stdout).map_err(io::Error::other)?;
        let [own, common, format] = text.lines().collect::<Vec<_>>()[..] else {
            return Err(io::Error::other("git does not say where the repository is"));
        };
        let view = View::new(self.folder(), Path::new(common), &config(format, url))?;
        let mut command = self.command(dir, args);
        command.env("GIT_DIR", own).env("GIT_COMMON_DIR", &view.0).env("GIT_WORK_TREE", ".");
        command.output().await
    }
}

/// The folder of such a repository, for as long as it is used.
struct View(PathBuf);

impl View {
    fn new(folder: &Path, common: &Path, config: &str) -> io::Result<Self> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        create_private_dir(folder)?;
        let view = Self(folder.join(format!(".view-{}", HEXLOWER.encode(&random))));
        create_private_dir(&view.0.join("info"))?;
        write_private(&view.0.join("config"), config.as_bytes())?;
        for name in SHOWN {
            symlink(common.join(name), view.0.join(name))?;
        }
        Ok(view)
    }
}

impl Drop for View {
    fn drop(&mut self) {
        // Links are removed, and not what they lead to.
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, "{} is left behind", self.0.display());
        }
    }
}

fn config(format: &str, url: Option<&str>) -> String {
    let (version, extensions) = match format {
        "sha256" => (1, "[extensions]\n\tobjectFormat = sha256\n"),
        _ => (0, ""),
    };
    let origin = url.map_or_else(String::new, |url| {
        format!("[remote \"origin\"]\n\turl = \"{}\"\n", url.replace('\\', r"\\").replace('"', "\\\""))
    });
    format!("[core]\n\trepositoryFormatVersion = {version}\n\tbare = false\n{extensions}{origin}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_one_value_whatever_it_holds() {
        let text = config("sha1", Some("/a\"b\\c # d"));
        assert!(text.ends_with("\turl = \"/a\\\"b\\\\c # d\"\n"), "{text}");
        assert!(config("sha256", None).contains("objectFormat = sha256"));
    }
}
