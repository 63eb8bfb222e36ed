//! Git in a place where an agent may have written git's own configuration: what it left there must not run as the node.
//!
//! Content filters are the programs that git's plain commands run: `clean` when it is not sure whether a file was changed, `smudge` at a
//! checkout. Those that the node's user or the host configured stay, such as git-lfs; those of the repository do not. The mirror's own ways to
//! its origin are the node's: what an agent adds there is taken out before it is used.

use std::{collections::BTreeMap, io, path::Path, process::Output};

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
    /// Runs a command that reads or writes files of a working copy, without the filters that its repository names.
    pub(super) async fn git_on_files(&self, dir: &Path, args: &[&str]) -> io::Result<Output> {
        let listed = self.git(dir, &["config", "--show-scope", "-z", "--get-regexp", r"^filter\."]).await?;
        let mut command = self.command(dir, args);
        let settings = settings(&listed.stdout);
        command.env("GIT_CONFIG_COUNT", settings.len().to_string());
        for (index, (key, value)) in settings.iter().enumerate() {
            command.env(format!("GIT_CONFIG_KEY_{index}"), key).env(format!("GIT_CONFIG_VALUE_{index}"), value);
        }
        command.output().await
    }

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

/// What to set in the place of a repository's filters, from git's list of scope, key and value: what the user or the host says, or nothing.
fn settings(listed: &[u8]) -> BTreeMap<String, String> {
    let mut fields = listed.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    let (mut trusted, mut hostile) = (BTreeMap::new(), BTreeMap::new());
    while let (Some(scope), Some(setting)) = (fields.next(), fields.next()) {
        // A key without a value is a true one, which is no program.
        let (key, value) = setting.split_once('\n').unwrap_or((&setting, ""));
        let of = if matches!(&*scope, "system" | "global") { &mut trusted } else { &mut hostile };
        of.insert(key.to_owned(), value.to_owned());
    }
    for (key, value) in &mut hostile {
        *value = trusted.get(key).cloned().unwrap_or_default();
    }
    hostile
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf, process::Command};

    use super::*;
    use crate::runtime::git::Checkout;

    #[test]
    fn what_the_user_configured_stays() {
        let listed =
            b"global\0filter.lfs.clean\ngit-lfs clean\0local\0filter.lfs.clean\nevil\0local\0filter.x.process\nevil\0";
        let set = settings(listed);
        assert_eq!(set["filter.lfs.clean"], "git-lfs clean");
        assert_eq!((set["filter.x.process"].as_str(), set.len()), ("", 2));
    }

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
        let seen = mirrors.git_on_files(&copy, &["diff-files", "--name-only", "-z"]).await.unwrap();
        assert!(seen.status.success(), "{}", String::from_utf8_lossy(&seen.stderr));
        assert_eq!(seen.stdout, b"a.txt\0", "what was changed is told all the same");
        let other = Checkout { branch: "other".to_owned(), ..wanted };
        mirrors.check_out(&other, &home.path().join("second")).await.unwrap();
        assert_eq!(fs::read_to_string(home.path().join("second/a.txt")).unwrap(), "one\n");
        assert!(!mark.exists(), "neither looking nor checking out runs it");
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
