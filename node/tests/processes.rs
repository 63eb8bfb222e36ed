//! Agents' processes through the real keeper: what they say, how they end, and that nothing of them is left.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use murmur_node::runtime::{
    config::Limits,
    git::{Checkout, Mirrors},
    keeper::{
        log::{Cursor, LogReader, Source},
        plan::{self, Exit, Plan, Stdin},
    },
    process::{Found, Process, StartError},
};
use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

const KEEPER: &str = env!("CARGO_BIN_EXE_murmur-node");

struct Stage {
    dir: TempDir,
    plan: Plan,
}

impl Stage {
    fn new(script: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let plan = Plan {
            program: "bash".to_owned(),
            args: vec!["-c".to_owned(), script.to_owned()],
            env: BTreeMap::from([("PATH".to_owned(), std::env::var("PATH").unwrap())]),
            dir: dir.path().to_owned(),
            stdin: Stdin::Null,
            limits: Limits::default(),
            log: dir.path().join("output"),
            log_bytes_max: 1 << 20,
        };
        Self { dir, plan }
    }

    fn run(&self) -> PathBuf {
        self.dir.path().join("runs/1")
    }

    async fn start(&self) -> Process {
        self.try_start().await.unwrap()
    }

    async fn try_start(&self) -> Result<Process, StartError> {
        Process::start(OsStr::new(KEEPER), &self.run(), &self.plan).await
    }

    fn said(&self, source: Source) -> String {
        let mut log = LogReader::new(&self.plan.log, Cursor::default());
        let frames = std::iter::from_fn(|| log.read().unwrap());
        let data = frames.filter(|frame| frame.source == source).flat_map(|frame| frame.data).collect();
        String::from_utf8(data).unwrap()
    }

    /// Waits until the program has said something.
    async fn says(&self, process: &mut Process, text: &str) {
        while !self.said(Source::Stdout).contains(text) {
            assert!(process.rings().await.unwrap(), "it ended with: {}", self.said(Source::Stdout));
        }
    }
}

async fn end(process: &mut Process) -> Exit {
    while process.rings().await.unwrap() {}
    process.exit().unwrap().expect("the keeper says how it ended")
}

fn is_gone(pid: i32) -> bool {
    // A zombie whose parent has not looked yet has ended, too.
    let is_zombie = fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "));
    is_zombie || kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH)
}

#[tokio::test]
async fn a_program_is_heard_to_its_end() {
    let stage = Stage::new("echo out; echo err >&2; pwd; exit 3");
    let mut process = stage.start().await;
    let exit = end(&mut process).await;
    assert_eq!((exit.code, exit.is_success()), (Some(3), false));
    assert_eq!(stage.said(Source::Stdout), format!("out\n{}\n", stage.dir.path().display()));
    assert_eq!(stage.said(Source::Stderr), "err\n");
    assert!(is_gone(process.group()));
}

#[tokio::test]
async fn its_environment_is_what_the_plan_says_and_nothing_else() {
    let mut stage = Stage::new("env");
    stage.plan.env.insert("MURMUR_SLUG".to_owned(), "/w/acme/u/jdoe/x".to_owned());
    end(&mut stage.start().await).await;
    let said = stage.said(Source::Stdout);
    let names: Vec<&str> = said.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
    // What bash itself adds.
    let strangers: Vec<_> =
        names.iter().filter(|name| !["PATH", "MURMUR_SLUG", "PWD", "SHLVL", "_", "OLDPWD"].contains(name)).collect();
    assert!(names.contains(&"MURMUR_SLUG") && strangers.is_empty(), "{said}");
}

#[tokio::test]
async fn a_program_that_is_not_there_is_said_so() {
    let mut stage = Stage::new("");
    stage.plan.program = "no-such-program".to_owned();
    let error = stage.try_start().await.unwrap_err().to_string();
    assert!(error.contains("no-such-program"), "{error}");
}

#[tokio::test]
async fn the_end_of_a_program_is_the_end_of_all_that_it_started() {
    // One in its process group, one in a session of its own that forgot its parent, both holding its output open.
    let script = "sleep 1000 & echo $!; setsid bash -c 'sleep 1000 & echo $!; exec sleep 1000' & read -r line";
    let mut stage = Stage::new(script);
    stage.plan.stdin = Stdin::Pipe;
    let mut process = stage.start().await;
    while stage.said(Source::Stdout).lines().count() < 2 {
        assert!(process.rings().await.unwrap());
    }
    let started: Vec<i32> = stage.said(Source::Stdout).lines().map(|pid| pid.parse().unwrap()).collect();
    assert!(started.iter().all(|pid| !is_gone(*pid)));
    process.write(b"go\n").await.unwrap();
    assert!(end(&mut process).await.is_success());
    assert!(started.iter().all(|pid| is_gone(*pid)), "{started:?}");
}

#[tokio::test]
async fn a_signal_reaches_the_group_and_how_it_ended_is_told() {
    let stage = Stage::new("trap '' TERM; echo deaf; while :; do sleep 1000; done");
    let mut process = stage.start().await;
    stage.says(&mut process, "deaf").await;
    process.signal(Signal::SIGKILL);
    let exit = end(&mut process).await;
    assert_eq!(exit.signal, Some(9));
    assert_eq!(exit.describe(), "ended by SIGKILL");
}

#[tokio::test]
async fn standard_input_stays_open_until_it_is_closed() {
    let mut stage = Stage::new("while read -r line; do echo \"got $line\"; done; echo over");
    stage.plan.stdin = Stdin::Pipe;
    let mut process = stage.start().await;
    process.write(b"one\n").await.unwrap();
    stage.says(&mut process, "got one").await;
    // More than a pipe takes at once.
    let long = "x".repeat(200_000);
    process.write(format!("{long}\n").as_bytes()).await.unwrap();
    stage.says(&mut process, &long).await;
    process.close_stdin();
    assert!(end(&mut process).await.is_success());
    assert!(stage.said(Source::Stdout).ends_with("over\n"));
}

#[tokio::test]
async fn a_running_process_is_found_again_and_heard_to_its_end() {
    let mut stage = Stage::new("echo before; read -r line; echo $line; exit 4");
    stage.plan.stdin = Stdin::Pipe;
    let mut first = stage.start().await;
    stage.says(&mut first, "before").await;
    // As after a kill of the node: nothing is left but the folder.
    drop(first);
    let Found::Running(mut again) = Process::find(&stage.run()).await.unwrap() else { panic!("not found") };
    again.write(b"after\n").await.unwrap();
    assert_eq!(end(&mut again).await.code, Some(4));
    assert_eq!(stage.said(Source::Stdout), "before\nafter\n");
    let Found::Ended(exit) = Process::find(&stage.run()).await.unwrap() else { panic!("its end is not known") };
    assert_eq!(exit.code, Some(4));
}

#[tokio::test]
async fn without_its_keeper_a_program_is_ended_and_lost() {
    let stage = Stage::new("sleep 1000 & echo $!; wait");
    let mut process = stage.start().await;
    stage.says(&mut process, "\n").await;
    let sleep: i32 = stage.said(Source::Stdout).trim().parse().unwrap();
    let run: plan::Run = plan::read(&stage.run().join("run.json")).unwrap().unwrap();
    kill(Pid::from_raw(run.keeper_pid), Signal::SIGKILL).unwrap();
    while process.rings().await.unwrap() {}
    assert_eq!(process.exit().unwrap(), None);
    assert!(matches!(Process::find(&stage.run()).await.unwrap(), Found::Lost));
    // Nobody waits for it any more but the first process of the machine.
    while !is_gone(process.group()) || !is_gone(sleep) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_keeper_that_comes_after_the_node_looked_for_it_starts_nothing() {
    let stage = Stage::new("echo started");
    assert!(matches!(Process::find(&stage.run()).await.unwrap(), Found::Unstarted), "there is no folder yet");
    end(&mut stage.start().await).await;
    // As the node leaves the folder when it ends before the keeper has done anything.
    for name in ["claim", "run.json", "exit.json"] {
        fs::remove_file(stage.run().join(name)).unwrap();
    }
    assert!(matches!(Process::find(&stage.run()).await.unwrap(), Found::Unstarted));
    let late = Command::new(KEEPER).arg("keep").arg(stage.run()).output().unwrap();
    assert!(!late.status.success() && String::from_utf8_lossy(&late.stdout).contains("started again"), "{late:?}");
    assert_eq!(stage.said(Source::Stdout), "started\n", "by the first keeper alone");
    assert_eq!(fs::read_dir(&stage.plan.log).unwrap().count(), 1, "it leaves the log alone, which another run writes");
    assert!(matches!(Process::find(&stage.run()).await.unwrap(), Found::Unstarted), "so does a third node find it");
}

#[tokio::test]
async fn what_was_started_is_not_unstarted_where_the_pipes_are_gone() {
    let stage = Stage::new("");
    end(&mut stage.start().await).await;
    fs::remove_file(stage.run().join("bell")).unwrap();
    assert!(matches!(Process::find(&stage.run()).await.unwrap(), Found::Ended(_)));
    fs::remove_file(stage.run().join("exit.json")).unwrap();
    assert!(matches!(Process::find(&stage.run()).await.unwrap(), Found::Lost));
}

#[tokio::test]
async fn a_run_whose_program_is_there_is_not_started_again() {
    let mut stage = Stage::new("read -r line");
    stage.plan.stdin = Stdin::Pipe;
    let mut process = stage.start().await;
    let refused = stage.try_start().await.unwrap_err();
    assert!(refused.to_string().contains("still runs"), "{refused}");
    process.close_stdin();
    assert!(process.exit().unwrap().is_none());
    end(&mut process).await;
}

#[tokio::test]
async fn a_keeper_that_ended_on_its_way_is_lost_unless_it_could_not_start_the_program() {
    let mut stage = Stage::new("");
    end(&mut stage.start().await).await;
    for name in ["run.json", "exit.json"] {
        fs::remove_file(stage.run().join(name)).unwrap();
    }
    assert!(matches!(Process::find(&stage.run()).await.unwrap(), Found::Lost), "it may have started it");
    stage.plan.program = "no-such-program".to_owned();
    stage.try_start().await.unwrap_err();
    assert!(matches!(Process::find(&stage.run()).await.unwrap(), Found::Unstarted));
}

#[tokio::test]
async fn a_keeper_that_is_told_to_end_tells_its_program() {
    let stage = Stage::new("trap 'echo told; exit 5' TERM; echo up; while :; do sleep 0.01; done");
    let mut process = stage.start().await;
    stage.says(&mut process, "up").await;
    let run: plan::Run = plan::read(&stage.run().join("run.json")).unwrap().unwrap();
    kill(Pid::from_raw(run.keeper_pid), Signal::SIGTERM).unwrap();
    assert_eq!(end(&mut process).await.code, Some(5));
    assert!(stage.said(Source::Stdout).contains("told"));
}

#[tokio::test]
async fn limits_hold_from_the_first_instruction() {
    let mut stage = Stage::new("ulimit -n; ulimit -c; ulimit -f");
    stage.plan.limits = Limits { open_files: Some(64), file_bytes: Some(8 << 20), ..Limits::default() };
    end(&mut stage.start().await).await;
    assert_eq!(stage.said(Source::Stdout), "64\n0\n8192\n");
}

#[tokio::test]
async fn output_is_bounded() {
    let mut stage = Stage::new("head -c 5000000 /dev/zero | tr '\\0' x; echo; echo last");
    stage.plan.log_bytes_max = 256 * 1024;
    assert!(end(&mut stage.start().await).await.is_success());
    let kept: u64 = fs::read_dir(&stage.plan.log).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum();
    assert!(kept <= 400 * 1024, "{kept}");
    assert!(stage.said(Source::Stdout).ends_with("last\n"));
}

fn git(dir: &Path, args: &[&str]) {
    let mut git = Command::new("git");
    git.current_dir(dir).args(["-c", "user.name=t", "-c", "user.email=t@t", "-c", "init.defaultBranch=main"]);
    let output = git.args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn origin(dir: &Path) -> String {
    let origin = dir.join("widgets");
    fs::create_dir(&origin).unwrap();
    git(&origin, &["init", "-q"]);
    fs::write(origin.join("a.txt"), "one").unwrap();
    git(&origin, &["add", "."]);
    git(&origin, &["commit", "-qm", "one"]);
    git(&origin, &["branch", "release"]);
    fs::write(origin.join("a.txt"), "two").unwrap();
    git(&origin, &["commit", "-qam", "two"]);
    origin.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn each_agent_has_a_worktree_of_its_own_from_one_mirror() {
    let dir = tempfile::tempdir().unwrap();
    let url = origin(dir.path());
    let mirrors = Mirrors::new(dir.path().join("mirrors"));
    let checkout = |base: &str, branch: &str| Checkout {
        url: url.clone(),
        base_branch: base.to_owned(),
        branch: branch.to_owned(),
        may_rename: false,
    };
    let (first, second) = (dir.path().join("first"), dir.path().join("second"));
    let (one, two) = (checkout("", "murmur/one"), checkout("release", "murmur/two"));
    let (a, b) = tokio::join!(mirrors.check_out(&one, &first), mirrors.check_out(&two, &second));
    a.unwrap();
    b.unwrap();
    assert_eq!(fs::read_to_string(first.join("a.txt")).unwrap(), "two");
    assert_eq!(fs::read_to_string(second.join("a.txt")).unwrap(), "one");
    assert_eq!(fs::read_dir(dir.path().join("mirrors")).unwrap().count(), 1);
    // What is there stays, work that is not committed included; and it can be pushed to where it came from.
    fs::write(first.join("a.txt"), "mine").unwrap();
    mirrors.check_out(&one, &first).await.unwrap();
    git(&first, &["commit", "-qam", "mine"]);
    git(&first, &["push", "-q", "origin", "murmur/one"]);
    git(Path::new(&url), &["rev-parse", "--verify", "refs/heads/murmur/one"]);
    // A branch that another agent works on is refused; of one whose folder is gone the work is gone on with.
    assert!(mirrors.check_out(&one, &dir.path().join("third")).await.is_err());
    fs::remove_dir_all(&first).unwrap();
    mirrors.check_out(&one, &dir.path().join("third")).await.unwrap();
    assert_eq!(fs::read_to_string(dir.path().join("third/a.txt")).unwrap(), "mine");
}

#[tokio::test]
async fn a_repository_that_is_not_there_is_said_so_without_its_password() {
    let dir = tempfile::tempdir().unwrap();
    let mirrors = Mirrors::new(dir.path().join("mirrors"));
    let wanted = |url: &str, branch: &str| Checkout {
        url: url.to_owned(),
        base_branch: String::new(),
        branch: branch.to_owned(),
        may_rename: false,
    };
    let url = format!("file://me:secret@{}/nothing.git", dir.path().display());
    let error = mirrors.check_out(&wanted(&url, "b"), &dir.path().join("x")).await.unwrap_err().to_string();
    assert!(error.contains("nothing") && !error.contains("secret"), "{error}");
    let url = origin(dir.path());
    for branch in ["--force", "a..b", "a b"] {
        let error = mirrors.check_out(&wanted(&url, branch), &dir.path().join("y")).await.unwrap_err().to_string();
        assert!(error.contains(branch), "{error}");
    }
}
