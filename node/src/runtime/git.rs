//! Working copies: a worktree for each repository of an agent, from one bare mirror for each URL.
//!
//! The mirror makes the second agent of a repository cheap, and a worktree pushes to where the mirror came from.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use murmur_crypto::hash::sha256;
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    process::{Child, Command},
    sync::OwnedMutexGuard,
    task::spawn_blocking,
    time::timeout,
};

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
const KEPT: [&str; 13] = [
    "PATH",
    "XDG_CONFIG_HOME",
    "SSH_AUTH_SOCK",
    SSH_VARIABLE,
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
/// By what git reaches hosts over SSH, before `core.sshCommand`.
const SSH_VARIABLE: &str = "GIT_SSH_COMMAND";
/// What that is where the node's user says nothing: nobody is there to be asked, and a host that does not answer is given up.
const SSH: &str = "ssh -o BatchMode=yes -o ConnectTimeout=30";
/// A host that sends nothing at all over HTTP for two minutes is given up. One that prepares a large answer sends signs of life every few
/// seconds (`uploadpack.keepAlive`).
const PATIENCE: [&str; 4] = ["-c", "http.lowSpeedLimit=1", "-c", "http.lowSpeedTime=120"];
/// Git that speaks to a host is ended when it tells of no progress for so long. Generous: while there is any, it tells of it every second,
/// but a host may think for minutes before it sends something.
const SILENCE_MAX: Duration = Duration::from_secs(10 * 60);
/// Git that speaks to a host is ended after this, whatever progress it makes, since other agents wait for the mirror. Generous: the first
/// fetch of a large repository over a slow line takes hours.
const ASK_TIME_MAX: Duration = Duration::from_secs(12 * 3600);
/// Of what git says, so much is kept, the end of it: it tells of its progress for as long as it makes some.
const SAID_BYTES_MAX: usize = 16 * 1024;
/// Of what git says, so much is told.
const WORDS_BYTES_MAX: usize = 500;
/// In a mirror that was fetched once.
const COMPLETE: &str = "murmur-complete";

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
    /// Git was ended, since it waited for its host for too long.
    #[error("git {what} of {url} was ended: {why}")]
    Stuck {
        /// What it was to do.
        what: &'static str,
        /// Where from, without a password.
        url: String,
        /// For how long.
        why: String,
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
        let alone = self.lock(&mirror).lock_owned().await;
        let _one_at_a_time = remove_unfinished(&mirror, alone).await?;
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
        let is_new = !mirror.join(COMPLETE).exists();
        if is_new {
            crate::identity::create_private_dir(&self.dir)?;
            let path = mirror.to_string_lossy();
            self.run("init", url, &self.dir, &["init", "--quiet", "--bare", "--", &path]).await?;
            self.run("remote add", url, mirror, &["remote", "add", "--", "origin", url]).await?;
        } else {
            self.tame(mirror).await?;
            self.run("remote set-url", url, mirror, &["remote", "set-url", "--", "origin", url]).await?;
        }
        match self.fetch(url, mirror).await {
            Err(error) if is_new => return Err(error),
            Err(error) => tracing::warn!(%error, "a repository is used as it was"),
            Ok(()) => {}
        }
        if is_new {
            std::fs::write(mirror.join(COMPLETE), "")?;
        }
        Ok(())
    }

    async fn fetch(&self, url: &str, mirror: &Path) -> Result<(), GitError> {
        self.ask("fetch", url, mirror, &["fetch", "--progress", "--prune", "--tags", "origin"]).await?;
        match self.ask("remote set-head", url, mirror, &["remote", "set-head", "origin", "--auto"]).await {
            // An empty repository has no default branch, and one that is renamed has another.
            Err(GitError::Refused { .. }) => Ok(()),
            asked => asked,
        }
    }

    /// Runs a command that speaks to the origin, which may never answer: then git is ended, with every program that it has started.
    async fn ask(&self, what: &'static str, url: &str, mirror: &Path, args: &[&str]) -> Result<(), GitError> {
        let stuck = |why: String| GitError::Stuck { what, url: shown(url), why };
        let mut git = Group::start(self.asking(mirror, args).await?)?;
        match timeout(ASK_TIME_MAX, git.end()).await {
            Err(_) => Err(stuck(format!("it was not done after {} hours", ASK_TIME_MAX.as_secs() / 3600))),
            Ok(ended) => match ended? {
                None => Err(stuck(format!("it made no progress for {} minutes", SILENCE_MAX.as_secs() / 60))),
                Some(output) if output.status.success() => Ok(()),
                Some(output) => Err(refused(what, url, &output)),
            },
        }
    }

    /// A command that speaks to the origin, and is told when to give it up by itself. Where the node's user says how hosts are reached over
    /// SSH, that stays.
    async fn asking(&self, mirror: &Path, args: &[&str]) -> io::Result<Command> {
        let is_said = std::env::var_os(SSH_VARIABLE).is_some()
            || self.git(mirror, &["config", "--get", "core.sshCommand"]).await?.status.success();
        let mut command = self.command(mirror, &[&PATIENCE[..], args].concat());
        if !is_said {
            command.env(SSH_VARIABLE, SSH);
        }
        Ok(command)
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

/// Git and the programs that it has started. They end together, at the latest when nobody waits for them any more.
struct Group(Child);

impl Group {
    fn start(mut command: Command) -> io::Result<Self> {
        command.process_group(0).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().map(Self)
    }

    /// Waits for git to end; `None` when it fell silent.
    async fn end(&mut self) -> io::Result<Option<Output>> {
        let Some(stderr) = self.0.stderr.take() else { return Err(io::ErrorKind::BrokenPipe.into()) };
        let Some(stderr) = hear(stderr).await? else { return Ok(None) };
        let Ok(status) = timeout(SILENCE_MAX, self.0.wait()).await else { return Ok(None) };
        Ok(Some(Output { status: status?, stdout: Vec::new(), stderr }))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Git that was waited for has no number any more, which may be another's now.
        if let Some(git) = self.0.id().and_then(|id| i32::try_from(id).ok()) {
            let _ = killpg(Pid::from_raw(git), Signal::SIGKILL);
        }
    }
}

/// Reads to the end what git says, and keeps the last of it; `None` when it fell silent.
async fn hear(mut stderr: impl AsyncRead + Unpin) -> io::Result<Option<Vec<u8>>> {
    let mut said = Vec::new();
    loop {
        let Ok(read) = timeout(SILENCE_MAX, stderr.read_buf(&mut said)).await else { return Ok(None) };
        if read? == 0 {
            return Ok(Some(said));
        }
        let extra = said.len().saturating_sub(SAID_BYTES_MAX);
        said.drain(..extra);
    }
}

/// Removes a mirror that was never fetched to its end. Whose turn it is goes along: the removal goes on when nobody waits for it any more.
async fn remove_unfinished(mirror: &Path, alone: OwnedMutexGuard<()>) -> io::Result<OwnedMutexGuard<()>> {
    if mirror.join(COMPLETE).exists() {
        return Ok(alone);
    }
    let mirror = mirror.to_owned();
    let removing = spawn_blocking(move || {
        // What stays is told by what is made there next.
        let _ = std::fs::remove_dir_all(mirror);
        alone
    });
    removing.await.map_err(io::Error::other)
}

fn refused(what: &'static str, url: &str, output: &Output) -> GitError {
    let said = words(&output.stderr).replace(url, &shown(url));
    GitError::Refused { what, url: shown(url), said: super::answer::cut(&said, WORDS_BYTES_MAX).to_owned() }
}

/// What git says in words, without the progress that it tells of: over and over on one line, and when a part is done.
fn words(said: &[u8]) -> String {
    let said = String::from_utf8_lossy(said);
    let lines = said.lines().map(|line| line.rsplit('\r').next().unwrap_or_default().trim());
    let is_progress = |line: &str| line.ends_with(", done.") || line.starts_with("remote: Total ");
    lines.filter(|line| !line.is_empty() && !is_progress(line)).collect::<Vec<_>>().join("; ")
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
    use tokio::io::AsyncWriteExt as _;

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
    fn a_refusal_is_told_without_the_progress_before_it() {
        let said =
            b"remote: Counting objects:  50% (1/2)        \rremote: Counting objects: 100% (2/2), done.        \n\
            remote: Total 2 (delta 0), reused 0 (delta 0), pack-reused 0        \n\
            Receiving objects:  50% (1/2)\rerror: RPC failed\nfatal: early EOF\r\n";
        assert_eq!(words(said), "error: RPC failed; fatal: early EOF");
    }

    /// Mirrors of a user with a configuration, in a folder.
    fn mirrors(home: &Path, config: &str) -> Mirrors {
        std::fs::write(home.join(".gitconfig"), config).unwrap();
        Mirrors { home: Some(home.into()), ..Mirrors::new(home.join("mirrors")) }
    }

    fn of(url: &str) -> Checkout {
        Checkout { url: url.to_owned(), base_branch: String::new(), branch: "work".to_owned(), may_rename: false }
    }

    #[tokio::test(start_paused = true)]
    async fn git_that_makes_progress_is_not_ended() {
        let (mut git, stderr) = tokio::io::duplex(64);
        let telling = async move {
            for _ in 0..20 {
                tokio::time::sleep(SILENCE_MAX / 2).await;
                git.write_all(b"Receiving objects:  1%\r").await.unwrap();
            }
            git.write_all(b"done\n").await.unwrap();
        };
        let (said, ()) = tokio::join!(hear(stderr), telling);
        assert!(said.unwrap().is_some_and(|said| said.ends_with(b"done\n")));
        let (_silent, stderr) = tokio::io::duplex(64);
        assert!(hear(stderr).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_host_that_says_nothing_is_given_up_with_every_program_that_waits_for_it() {
        let home = tempfile::tempdir().unwrap();
        let (ssh, bell) = (home.path().join("ssh"), home.path().join("bell"));
        nix::unistd::mkfifo(&bell, nix::sys::stat::Mode::S_IRWXU).unwrap();
        // Whatever runs of it holds the bell.
        std::fs::write(&ssh, format!("#!/bin/sh\nexec 9>{}\necho >&9\nsleep 100000\n", bell.display())).unwrap();
        std::fs::set_permissions(&ssh, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        let config = format!("[core]\n\tsshCommand = {}\n[ssh]\n\tvariant = ssh\n", ssh.display());
        let mirrors = Arc::new(mirrors(home.path(), &config));
        let mut bell = tokio::net::unix::pipe::OpenOptions::new().open_receiver(bell).unwrap();
        let (waiting, into) = (Arc::clone(&mirrors), home.path().join("copy"));
        let waiting = tokio::spawn(async move { waiting.check_out(&of("ssh://host/repo"), &into).await });
        while bell.read(&mut [0; 8]).await.unwrap() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // Nothing else happens any more: the time passes at once.
        tokio::time::pause();
        let error = waiting.await.unwrap().unwrap_err().to_string();
        assert_eq!(error, "git fetch of ssh://host/repo was ended: it made no progress for 10 minutes");
        assert_eq!(bell.read(&mut [0; 8]).await.unwrap(), 0, "all of them have ended");
        let mirror = mirrors.folder().join(name("ssh://host/repo"));
        assert!(mirrors.lock(&mirror).try_lock().is_ok(), "the next agent may try");
    }

    #[tokio::test]
    async fn git_gives_up_a_silent_host_by_itself_unless_its_user_says_how() {
        let home = tempfile::tempdir().unwrap();
        let own = mirrors(home.path(), "[core]\n\tsshCommand = my-ssh -v\n");
        let ssh = |command: &Command| {
            let set = command.as_std().get_envs().find(|(name, _)| *name == SSH_VARIABLE);
            set.and_then(|(_, value)| value).map(std::ffi::OsStr::to_owned)
        };
        let of_the_node = std::env::var_os(SSH_VARIABLE);
        assert_eq!(ssh(&own.asking(home.path(), &[]).await.unwrap()), of_the_node);
        let plain = mirrors(home.path(), "");
        assert_eq!(ssh(&plain.asking(home.path(), &[]).await.unwrap()), of_the_node.or_else(|| Some(SSH.into())));
        for (key, value) in [("http.lowSpeedLimit", "1\n"), ("http.lowSpeedTime", "120\n")] {
            let output = plain.asking(home.path(), &["config", "--get", key]).await.unwrap().output().await.unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), value, "{key}");
        }
    }

    #[test]
    fn what_is_left_of_a_mirror_is_deleted_by_no_thread_that_serves_others() {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.max_blocking_threads(1).enable_all().build().unwrap();
        let home = tempfile::tempdir().unwrap();
        let mirrors = mirrors(home.path(), "");
        let (wanted, into) = (of("/nowhere"), home.path().join("copy"));
        let left = mirrors.folder().join(name(&wanted.url)).join("left");
        std::fs::create_dir_all(&left).unwrap();
        runtime.block_on(async {
            // As long as the only thread that may block is busy, nothing happens, and this one goes on.
            let (free, busy) = std::sync::mpsc::channel::<()>();
            let held = spawn_blocking(move || busy.recv().is_ok());
            let mut working = Box::pin(mirrors.check_out(&wanted, &into));
            assert!(futures::poll!(&mut working).is_pending());
            assert!(left.exists());
            drop(free);
            held.await.unwrap();
            assert!(working.await.is_err(), "there is no such repository");
        });
        assert!(!left.exists());
    }

    #[test]
    fn a_folder_has_the_repositorys_name_and_no_password_is_told() {
        assert_eq!(folder("https://h/o/widgets.git/"), "widgets");
        assert_eq!(folder("git@h:widgets"), "widgets");
        assert_eq!(folder("/srv/.git"), "repo");
        assert_eq!(shown("https://u:secret@h/o/r"), "https://h/o/r");
    }
}
