//! Working copies: a worktree for each repository of an agent, from one bare mirror for each URL.
//!
//! The mirror makes the second agent of a repository cheap, and a worktree pushes to where the mirror came from.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    sync::{Arc, Mutex, PoisonError},
};

use murmur_crypto::hash::sha256;
use tokio::process::Command;

/// Ways to a repository that git may take. Others run programs that the URL names.
const PROTOCOLS: &str = "file:git:http:https:ssh";
/// An agent can write into the mirror of its repository: what it leaves there must not run as the node.
const HARMLESS: [&str; 8] = [
    "-c",
    "core.hooksPath=/dev/null",
    "-c",
    "core.fsmonitor=false",
    "-c",
    "remote.origin.uploadpack=git-upload-pack",
    "-c",
    "log.showSignature=false",
];
/// What git is given of the node's environment: how to find programs, and how to reach and prove itself to a host.
const KEPT: [&str; 12] = [
    "PATH",
    "XDG_CONFIG_HOME",
    "SSH_AUTH_SOCK",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "TMPDIR",
];
/// Of what git says, so much is told.
const WORDS_BYTES_MAX: usize = 500;

/// The mirrors, one task at a time in each.
#[derive(Debug)]
pub struct Mirrors {
    dir: PathBuf,
    home: Option<std::ffi::OsString>,
    locks: Mutex<HashMap<PathBuf, Arc<tokio::sync::Mutex<()>>>>,
}

/// What to check out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkout {
    /// URL or absolute path.
    pub url: String,
    /// Empty: the repository's own default.
    pub base_branch: String,
    /// The branch to work on; made from the base branch when it is new.
    pub branch: String,
    /// Nobody asked for that very branch: when another worktree has it, one of a similar name is begun where it stands.
    pub may_rename: bool,
}

/// There is no working copy.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// Git cannot be run, or the disk refuses.
    #[error("git cannot be run: {0}")]
    Run(#[from] io::Error),
    /// Git says no.
    #[error("git {what} of {url}: {said}")]
    Refused {
        /// What it was to do.
        what: &'static str,
        /// Where from, without a password.
        url: String,
        /// Its words.
        said: String,
    },
    /// A name is none.
    #[error("`{0}` is no name of a branch")]
    Branch(String),
    /// A URL is none.
    #[error("`{0}` is neither a URL nor an absolute path")]
    Url(String),
}

impl Mirrors {
    /// Mirrors in a folder.
    #[must_use]
    pub fn new(dir: PathBuf) -> Self {
        Self { dir, home: std::env::var_os("HOME"), locks: Mutex::default() }
    }

    /// Puts a working copy into `into`; one that is there already stays as it is.
    ///
    /// # Errors
    /// [`GitError`].
    pub async fn check_out(&self, wanted: &Checkout, into: &Path) -> Result<(), GitError> {
        let Checkout { url, base_branch, branch, may_rename } = wanted;
        check_url(url)?;
        if into.join(".git").exists() {
            return Ok(());
        }
        let mirror = self.dir.join(name(url));
        let lock = self.lock(&mirror);
        let _one_at_a_time = lock.lock().await;
        self.refresh(url, &mirror).await?;
        for name in [base_branch, branch].into_iter().filter(|name| !name.is_empty()) {
            let checked = self.git(&mirror, &["check-ref-format", "--branch", name]).await?;
            if !checked.status.success() || name.starts_with('-') {
                return Err(GitError::Branch(name.clone()));
            }
        }
        let base = match base_branch.is_empty() {
            true => "refs/remotes/origin/HEAD".to_owned(),
            false => format!("refs/remotes/origin/{base_branch}"),
        };
        let theirs = format!("refs/remotes/origin/{branch}");
        let ours = format!("refs/heads/{branch}");
        // What somebody has pushed under the name, or an earlier agent left here, is gone on with.
        let from = if self.has(&mirror, &ours).await? {
            ours.clone()
        } else if self.has(&mirror, &theirs).await? {
            theirs
        } else {
            base
        };
        // What was checked out in a folder that is gone is forgotten.
        self.run("worktree prune", url, &mirror, &["worktree", "prune"]).await?;
        let folder = into.to_string_lossy();
        if from != ours {
            return self.begin(url, &mirror, into, branch, &from).await;
        }
        let args = ["worktree", "add", "--no-checkout", "--", &folder, branch];
        let added = self.run("worktree add", url, &mirror, &args).await;
        match added {
            Err(_) if *may_rename => {
                let other = self.free_name(&mirror, branch).await?;
                self.begin(url, &mirror, into, &other, &from).await
            }
            Err(error) => Err(error),
            Ok(()) => self.fill(url, &mirror, into).await,
        }
    }

    /// A worktree on a new branch.
    async fn begin(&self, url: &str, mirror: &Path, into: &Path, branch: &str, from: &str) -> Result<(), GitError> {
        let folder = into.to_string_lossy();
        let args = ["worktree", "add", "--no-checkout", "--no-track", "-b", branch, "--", &folder, from];
        self.run("worktree add", url, mirror, &args).await?;
        self.fill(url, mirror, into).await
    }

    /// Brings a new worktree's files, apart from making it, since another agent may have written into the mirror's configuration.
    async fn fill(&self, url: &str, mirror: &Path, into: &Path) -> Result<(), GitError> {
        let filled = self.git_on_files(into, Some(url), &["read-tree", "-u", "--reset", "HEAD"]).await?;
        if filled.status.success() {
            return Ok(());
        }
        // What is half there would pass for a working copy.
        let folder = into.to_string_lossy();
        self.git(mirror, &["worktree", "remove", "--force", "--", &folder]).await?;
        Err(refused("checkout", url, &filled))
    }

    /// A branch of a similar name that nobody has.
    async fn free_name(&self, mirror: &Path, branch: &str) -> Result<String, GitError> {
        let mut number = 2_u32;
        loop {
            let name = format!("{branch}_{number}");
            if !self.has(mirror, &format!("refs/heads/{name}")).await? {
                return Ok(name);
            }
            number += 1;
        }
    }

    /// Makes the mirror, or brings it up to date; an old one serves while its origin is away.
    async fn refresh(&self, url: &str, mirror: &Path) -> Result<(), GitError> {
        let is_new = !mirror.join("murmur-complete").exists();
        if is_new {
            crate::identity::create_private_dir(&self.dir)?;
            let _ = std::fs::remove_dir_all(mirror);
            let path = mirror.to_string_lossy();
            self.run("init", url, &self.dir, &["init", "--quiet", "--bare", "--", &path]).await?;
            self.run("remote add", url, mirror, &["remote", "add", "--", "origin", url]).await?;
        } else {
            self.tame(mirror).await?;
            self.run("remote set-url", url, mirror, &["remote", "set-url", "--", "origin", url]).await?;
        }
        let fetched = self.run("fetch", url, mirror, &["fetch", "--quiet", "--prune", "--tags", "origin"]).await;
        match fetched {
            Err(error) if is_new => return Err(error),
            Err(error) => tracing::warn!(%error, "a repository is used as it was"),
            Ok(()) => {}
        }
        // An empty repository has no default branch, and one that is renamed has another.
        let _ = self.git(mirror, &["remote", "set-head", "origin", "--auto"]).await?;
        if is_new {
            std::fs::write(mirror.join("murmur-complete"), "")?;
        }
        Ok(())
    }

    async fn has(&self, mirror: &Path, reference: &str) -> Result<bool, GitError> {
        Ok(self.git(mirror, &["show-ref", "--verify", "--quiet", reference]).await?.status.success())
    }

    async fn run(&self, what: &'static str, url: &str, dir: &Path, args: &[&str]) -> Result<(), GitError> {
        let output = self.git(dir, args).await?;
        if output.status.success() { Ok(()) } else { Err(refused(what, url, &output)) }
    }

    /// Where the mirrors are.
    pub(super) fn folder(&self) -> &Path {
        &self.dir
    }

    pub(super) async fn git(&self, dir: &Path, args: &[&str]) -> io::Result<Output> {
        self.command(dir, args).output().await
    }

    /// A command with nothing of the node's environment but what it needs.
    pub(super) fn command(&self, dir: &Path, args: &[&str]) -> Command {
        let mut command = Command::new("git");
        command.args(HARMLESS).args(args).current_dir(dir).stdin(Stdio::null()).kill_on_drop(true).env_clear();
        command.envs(KEPT.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        command.env("GIT_TERMINAL_PROMPT", "0").env("GIT_ALLOW_PROTOCOL", PROTOCOLS).env("LC_ALL", "C");
        if let Some(home) = &self.home {
            command.env("HOME", home);
        }
        command
    }

    fn lock(&self, mirror: &Path) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        locks.entry(mirror.to_owned()).or_default().clone()
    }
}

fn refused(what: &'static str, url: &str, output: &Output) -> GitError {
    let said = String::from_utf8_lossy(&output.stderr).replace(url, &shown(url));
    let said = super::answer::cut(said.trim(), WORDS_BYTES_MAX).replace('\n', "; ");
    GitError::Refused { what, url: shown(url), said }
}

/// The folder's name of a repository: the last part of its URL.
#[must_use]
pub fn folder(url: &str) -> String {
    let last = url.trim_end_matches('/').rsplit(['/', ':']).next().unwrap_or_default();
    let last = last.strip_suffix(".git").unwrap_or(last);
    let plain: String = last.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')).collect();
    let plain = plain.trim_start_matches('.');
    if plain.is_empty() { "repo".to_owned() } else { plain.to_owned() }
}

fn check_url(url: &str) -> Result<(), GitError> {
    let is_scp = || url.split_once(':').is_some_and(|(host, path)| !host.contains('/') && !path.is_empty());
    let is_url = url.starts_with('/') || url.contains("://") || is_scp();
    let is_plain = !url.starts_with('-') && !url.contains("::") && !url.chars().any(char::is_control);
    if is_url && is_plain { Ok(()) } else { Err(GitError::Url(shown(url))) }
}

/// Without the password that it may carry.
fn shown(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, rest)) => {
            let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
            let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
            format!("{scheme}://{host}/{path}")
        }
        None => url.to_owned(),
    }
}

fn name(url: &str) -> String {
    let digest = data_encoding::HEXLOWER.encode(&sha256(url.as_bytes())[..8]);
    format!("{}-{digest}.git", folder(url))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_run_a_program_is_no_url() {
        for url in ["--upload-pack=touch /tmp/x", "ext::sh -c x", "relative/path", "", "https://h/\nx"] {
            assert!(check_url(url).is_err(), "{url}");
        }
        for url in ["/srv/r.git", "https://h/r", "git@h:o/r.git", "ssh://h/r"] {
            assert!(check_url(url).is_ok(), "{url}");
        }
    }

    #[test]
    fn a_folder_has_the_repositorys_name_and_no_password_is_told() {
        assert_eq!(folder("https://h/o/widgets.git/"), "widgets");
        assert_eq!(folder("git@h:widgets"), "widgets");
        assert_eq!(folder("/srv/.git"), "repo");
        assert_eq!(shown("https://u:secret@h/o/r"), "https://h/o/r");
    }
}
