//! Git in a place where an agent may have written git's own configuration: what it left there must not run as the node.
//!
//! The mirror's own ways to its origin are the node's: what an agent adds there is taken out before it is used. What concerns files is
//! `view`'s.

use std::{io, path::Path};

use super::git::Mirrors;

/// Keys of a mirror under which programs hide, or ways to other places: their beginnings, in lower case.
const TAKEN_OUT: [&str; 9] = [
    "credential.",
    "core.sshcommand",
    "core.gitproxy",
    "core.askpass",
    "url.",
    "http.",
    "include.",
    "includeif.",
    "remote.origin.",
];
/// Of these, what the node itself sets.
const OWN: [&str; 2] = ["remote.origin.url", "remote.origin.fetch"];

impl Mirrors {
    /// Takes out of a mirror's configuration what leads git somewhere else, or to another program, on its way to the origin.
    pub(super) async fn tame(&self, mirror: &Path) -> io::Result<()> {
        let file = mirror.join("config");
        let file = file.to_string_lossy();
        let listed =
            self.git(mirror, &["config", "--file", &file, "--no-includes", "--name-only", "-z", "--list"]).await?;
        let mut taken: Vec<&str> =
            listed.stdout.split(|byte| *byte == 0).filter_map(|key| str::from_utf8(key).ok()).collect();
        taken.retain(|key| {
            let key = key.to_ascii_lowercase();
            TAKEN_OUT.iter().any(|begin| key.starts_with(begin)) && !OWN.contains(&key.as_str())
        });
        taken.sort_unstable();
        taken.dedup();
        for key in taken {
            tracing::warn!("{key} is taken out of the configuration of {}", mirror.display());
            self.git(mirror, &["config", "--file", &file, "--unset-all", key]).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf, process::Command};

    use super::*;
    use crate::runtime::git::Checkout;

    fn git(dir: &Path, args: &[&str]) -> String {
        let output = Command::new("git").args(args).current_dir(dir).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// A repository whose files all have the attribute `filter=evil`, and an agent's working copy of it.
    async fn copy(home: &Path) -> (Mirrors, Checkout, PathBuf) {
        let origin = home.join("origin");
        fs::create_dir(&origin).unwrap();
        git(&origin, &["init", "-q", "-b", "main"]);
        fs::write(origin.join(".gitattributes"), "*.txt filter=evil\n").unwrap();
        fs::write(origin.join("a.txt"), "one\n").unwrap();
        git(&origin, &["add", "."]);
        git(&origin, &["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "first"]);
        let mirrors = Mirrors::new(home.join("mirrors"));
        let wanted = Checkout {
            url: origin.to_str().unwrap().to_owned(),
            base_branch: "main".to_owned(),
            branch: "work".to_owned(),
            may_rename: false,
        };
        let copy = home.join("copy");
        mirrors.check_out(&wanted, &copy).await.unwrap();
        (mirrors, wanted, copy)
    }

    /// What an agent leaves in the configuration of its copy: programs that leave a mark.
    fn poison(copy: &Path, mark: &Path) {
        let mark = format!("touch {}; cat", mark.display());
        for way in ["clean", "smudge"] {
            git(copy, &["config", &format!("filter.evil.{way}"), &mark]);
        }
        git(copy, &["config", "filter.evil.required", "true"]);
        // Its size is the same and its time is that of the index: git has to read it.
        fs::write(copy.join("a.txt"), "two\n").unwrap();
        let index = PathBuf::from(git(copy, &["rev-parse", "--git-path", "index"]).trim());
        let time = fs::metadata(copy.join("a.txt")).unwrap().modified().unwrap();
        fs::File::options().append(true).open(copy.join("a.txt")).unwrap().set_modified(time).unwrap();
        fs::File::options().append(true).open(copy.join(index)).unwrap().set_modified(time).unwrap();
    }

    /// The folder of its mirror.
    fn mirror_of(copy: &Path) -> PathBuf {
        PathBuf::from(git(copy, &["rev-parse", "--path-format=absolute", "--git-common-dir"]).trim())
    }

    #[tokio::test]
    async fn a_hostile_filter_of_a_working_copy_does_not_run_as_the_node() {
        let home = tempfile::tempdir().unwrap();
        let (mirrors, wanted, copy) = copy(home.path()).await;
        let mark = home.path().join("ran");
        poison(&copy, &mark);
        git(&copy, &["diff", "--stat"]);
        assert!(mark.exists(), "git by itself runs the filter, or this test shows nothing");
        fs::remove_file(&mark).unwrap();

        poison(&copy, &mark);
        let seen = mirrors.git_on_files(&copy, None, &["diff-files", "--name-only", "-z"]).await.unwrap();
        assert!(seen.status.success(), "{}", String::from_utf8_lossy(&seen.stderr));
        assert_eq!(seen.stdout, b"a.txt\0", "what was changed is told all the same");
        // The look before a folder is cleared.
        poison(&copy, &mark);
        fs::write(home.path().join("mirrors").join(mirror_of(&copy)).join("info/attributes"), "*.txt filter=evil\n")
            .unwrap();
        let seen = mirrors.git_on_files(&copy, None, &["status", "--porcelain"]).await.unwrap();
        assert_eq!(seen.stdout, b" M a.txt\n");
        let other = Checkout { branch: "other".to_owned(), ..wanted };
        mirrors.check_out(&other, &home.path().join("second")).await.unwrap();
        assert_eq!(fs::read_to_string(home.path().join("second/a.txt")).unwrap(), "one\n");
        assert!(!mark.exists(), "neither looking nor checking out runs it");
        assert_eq!(git(&home.path().join("second"), &["status", "--porcelain"]), "");
        // Nothing of the repository's is read, so there is nothing that could be added in time.
        let read = mirrors.git_on_files(&copy, None, &["config", "--list", "--show-scope"]).await.unwrap();
        let read = String::from_utf8(read.stdout).unwrap();
        let local: Vec<&str> = read.lines().filter_map(|line| line.strip_prefix("local\t")).collect();
        assert_eq!(local, ["core.repositoryformatversion=0", "core.bare=false"]);
        let left = fs::read_dir(home.path().join("mirrors")).unwrap().flatten();
        assert_eq!(left.filter(|entry| entry.file_name().to_string_lossy().starts_with('.')).count(), 0);
    }

    #[tokio::test]
    async fn what_leads_a_mirror_elsewhere_is_taken_out() {
        let home = tempfile::tempdir().unwrap();
        let (mirrors, wanted, copy) = copy(home.path()).await;
        let elsewhere = home.path().join("elsewhere");
        let url = format!("url.{}.insteadOf", elsewhere.display());
        for (key, value) in [
            (url.as_str(), wanted.url.as_str()),
            ("credential.helper", "!touch x"),
            ("core.sshCommand", "touch x"),
            ("remote.origin.uploadpack", "touch x"),
            ("branch.work.remote", "origin"),
        ] {
            git(&copy, &["config", key, value]);
        }
        let other = Checkout { branch: "other".to_owned(), ..wanted.clone() };
        mirrors.check_out(&other, &home.path().join("second")).await.unwrap();
        let left = git(&copy, &["config", "--local", "--list"]);
        for gone in ["insteadof", "credential", "sshcommand", "uploadpack"] {
            assert!(!left.to_lowercase().contains(gone), "{gone}: {left}");
        }
        assert!(left.contains("branch.work.remote=origin") && left.contains(&wanted.url), "{left}");
    }
}
