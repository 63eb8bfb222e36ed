//! The command line when something gets in its way: nothing is sent twice, read unseen or overwritten, and every error says what to do.

use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use murmur_tests::{
    home::Home,
    network::{Network, Node, Options},
    process::binary,
    talk::{alice_and_bob, until_texts},
    wait,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use crate::letters::{cli, command, failure, json_of};

/// The bit of signal 2 among those that a process catches, as the kernel shows them.
const SIGINT_CAUGHT: u64 = 1 << 1;

#[tokio::test]
async fn a_send_is_taken_once_when_the_node_dies_before_it_answers() {
    let (network, mut here, there) = alice_and_bob(Options::default()).await;
    let file = network.dir.path().join("report.txt");
    fs::write(&file, "all of it").unwrap();
    let with_file = ["--file", file.to_str().unwrap(), "--no-wait"];
    for (text, more) in [("a text", &[][..]), ("with a file", &with_file)] {
        here.process.terminate().await;
        here.process.start_to_die_at("S2");
        here.ready().await;
        let sending = begun(&here, &[&["send", "bob", text, "--agent", "alice"], more].concat());
        here.process.died_at("S2").await;
        here.process.start();
        let sent = done(sending).await;
        let error = String::from_utf8_lossy(&sent.stderr);
        assert!(sent.status.success(), "{text}: {error}");
        assert!(error.contains("coming back by itself"), "{error}");
        here.ready().await;
    }
    until_texts(&there, "bob", &["a text", "with a file"]).await;
}

#[tokio::test]
async fn whoever_waits_for_a_delivery_waits_on_when_the_node_is_back() {
    let (_network, mut here, there) = alice_and_bob(Options::default()).await;
    let sending = begun(&here, &["send", "bob", "look", "--agent", "alice", "--wait", "read", "--timeout", "60s"]);
    until_texts(&there, "bob", &["look"]).await;
    let msg_id = json_of(&there, &["inbox", "--agent", "bob", "--peek"])["messages"][0]["msg_id"].clone();
    here.process.kill_9();
    here.process.start();
    here.ready().await;
    json_of(&there, &["inbox", "--agent", "bob"]);
    let waited = done(sending).await;
    assert!(waited.status.success(), "{}", String::from_utf8_lossy(&waited.stderr));
    assert!(String::from_utf8_lossy(&waited.stdout).contains(msg_id.as_str().unwrap()));
}

#[tokio::test]
async fn a_file_is_followed_on_when_the_node_is_back() {
    let (network, mut here, mut there) = alice_and_bob(Options::default()).await;
    there.process.terminate().await;
    let file = network.dir.path().join("report.txt");
    fs::write(&file, "all of it").unwrap();
    let sending = begun(&here, &["send", "bob", "--file", file.to_str().unwrap(), "--agent", "alice"]);
    wait::until("the node has the file", || async {
        let files = json_of(&here, &["files", "--agent", "alice"]);
        (files["transfers"].as_array()?.len() == 1).then_some(())
    })
    .await;
    here.process.kill_9();
    here.process.start();
    let sent = done(sending).await;
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    assert!(String::from_utf8_lossy(&sent.stdout).contains("sent report.txt"), "{sent:?}");
    there.process.start();
    until_texts(&there, "bob", &[""]).await;
}

#[tokio::test]
async fn a_node_that_stays_away_leaves_the_id_of_what_it_has() {
    let (_network, mut here, there) = alice_and_bob(Options::default()).await;
    let args = ["send", "bob", "look", "--agent", "alice", "--wait", "read", "--timeout", "10s", "--json"];
    let sending = begun(&here, &args);
    until_texts(&there, "bob", &["look"]).await;
    let msg_id = json_of(&there, &["inbox", "--agent", "bob", "--peek"])["messages"][0]["msg_id"].clone();
    here.process.kill_9();
    let lost = done(sending).await;
    assert_eq!(lost.status.code(), Some(5));
    let error = error_of(&lost);
    assert_eq!((&error["msg_id"], &error["reason"]), (&msg_id, &json!("NODE_DOWN")), "{error}");
    assert!(error["hint"].as_str().unwrap().contains("--agent alice"), "{error}");
}

#[tokio::test]
async fn ctrl_c_leaves_the_id_of_what_was_asked() {
    let (_network, here, there) = alice_and_bob(Options::default()).await;
    let asking = begun(&here, &["request", "bob", "well?", "--agent", "alice", "--json"]);
    until_texts(&there, "bob", &["well?"]).await;
    kill(Pid::from_raw(asking.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    let interrupted = done(asking).await;
    assert_eq!(interrupted.status.code(), Some(130));
    let error = error_of(&interrupted);
    let asked = json_of(&there, &["inbox", "--agent", "bob"])["messages"][0]["msg_id"].clone();
    assert_eq!((&error["msg_id"], &error["reason"]), (&asked, &json!("INTERRUPTED")), "{error}");
    assert!(error["hint"].as_str().unwrap().contains("murmurctl inbox --agent alice"), "{error}");

    let late = failure(&here, &["request", "bob", "and?", "--agent", "alice", "--timeout", "300ms"], 6);
    assert_eq!(late["reason"], "REQUEST_TIMED_OUT");
    assert!(late["msg_id"].is_string() && late["hint"].as_str().unwrap().contains("--agent alice"), "{late}");
}

#[tokio::test]
async fn ctrl_c_leaves_the_agents_that_were_waited_for() {
    let network = Network::start().await;
    let here = network.node("here", "jdoe").await;
    json_of(&here, &["register", "alice"]);
    let ended = interrupted(begun(&here, &["wait", "alice", "--phase", "failed", "--json"])).await;
    assert_eq!(ended.status.code(), Some(130));
    let error = error_of(&ended);
    assert_eq!(error["reason"], "INTERRUPTED", "{error}");
    assert!(error["message"].as_str().unwrap().ends_with("alice goes on"), "{error}");
}

#[tokio::test]
async fn what_is_piped_in_is_the_text_of_an_event() {
    let network = Network::start().await;
    let here = network.node("here", "jdoe").await;
    json_of(&here, &["register", "alice"]);
    let mut sending = command(&here, &["event", "send", "--to", "alice", "--json"]);
    let mut sending = sending.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    sending.stdin.take().unwrap().write_all(b"3 of 9 failed").unwrap();
    let sent = done(sending).await;
    assert!(sent.status.success(), "{sent:?}");
    assert_eq!(json_of(&here, &["event", "ls", "alice"])["events"][0]["text"], "3 of 9 failed");
}

#[tokio::test]
async fn what_could_not_be_shown_stays_unread() {
    let (_network, here, there) = alice_and_bob(Options::default()).await;
    json_of(&here, &["send", "bob", "read me", "--agent", "alice"]);
    until_texts(&there, "bob", &["read me"]).await;
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let unseen = command(&there, &["inbox", "--agent", "bob"]).stdout(full).output().unwrap();
    assert_eq!(unseen.status.code(), Some(1));
    let shown = String::from_utf8(cli(&there, &["inbox", "--agent", "bob"]).stdout).unwrap();
    assert!(shown.contains("read me") && shown.contains("--in-reply-to"), "{shown}");
    let rest = json_of(&there, &["inbox", "--agent", "bob"]);
    assert_eq!((&rest["messages"], &rest["unread"]), (&json!([]), &json!(0)));
}

#[tokio::test]
async fn what_is_wrong_is_named_as_on_the_command_line() {
    let network = Network::start().await;
    let here = network.node("here", "jdoe").await;
    for (args, field) in [
        (&["send", "bob", ""][..], "text"),
        (&["send", "bob"], "text"),
        (&["request", "bob", ""], "text"),
        (&["request", "bob", "hi", "--timeout", "8d"], "--timeout"),
        (&["send", "bob", "hi", "--file", "/nonexistent"], "--file"),
        (&["send", "bob", "hi", "--file", "/etc/passwd", "--file-name", "a/b"], "--file-name"),
        (&["send", "bob", "hi", "--agent", "Bad Name"], "--agent"),
        (&["ls", "--agent", "Bad Name"], "--agent"),
        (&["outbox", "--page", "x"], "--page"),
    ] {
        let wrong = failure(&here, args, 2);
        assert_eq!(wrong["fields"][0]["field"], field, "{args:?}: {wrong}");
    }
    let mut sending = command(&here, &["send", "bob", "--json"]);
    let mut sending = sending.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    sending.stdin.take().unwrap().write_all(&[0xff, 0xfe]).unwrap();
    let binary = done(sending).await;
    assert!(error_of(&binary)["message"].as_str().unwrap().contains("UTF-8"));
    let key = failure(&here, &["send", "bob", "hi", "--idempotency-key", ""], 2);
    assert!(key["message"].as_str().unwrap().contains("--idempotency-key"), "{key}");
    // Only `register` makes a name fit.
    assert!(String::from_utf8(cli(&here, &["register", "Good Name"]).stdout).unwrap().contains("good-name"));
}

#[tokio::test]
async fn a_token_goes_to_a_new_file_or_is_not_issued() {
    let network = Network::start().await;
    let here = network.node("here", "jdoe").await;
    json_of(&here, &["register", "alice"]);
    let out = here.dir.join("alice.token");
    let shown = out.to_str().unwrap();
    fs::write(&out, "somebody's").unwrap();
    let refused = failure(&here, &["agent", "token", "alice", "--out", shown], 2);
    assert!(refused["message"].as_str().unwrap().contains(shown), "{refused}");
    assert_eq!(fs::read(&out).unwrap(), b"somebody's");
    fs::remove_file(&out).unwrap();
    failure(&here, &["agent", "token", "nobody", "--out", shown], 3);
    assert!(!out.exists(), "nothing was issued, and nothing is left of the file");
    json_of(&here, &["agent", "token", "alice", "--out", shown]);
    json_of(&here, &["peers", "--agent-token-file", shown]);
}

#[tokio::test]
async fn a_webhooks_secret_goes_to_a_new_file_or_there_is_none() {
    let network = Network::start().await;
    let here = network.node("here", "jdoe").await;
    let token = network.dir.path().join("server/admin.token");
    let place =
        ["--workspace", "acme", "--server", network.server_url.as_str(), "--token-file", token.to_str().unwrap()];
    let with = |args: &[&'static str], file: Option<&Path>| {
        let file = file.map(|file| ["--secret-out".to_owned(), file.to_str().unwrap().to_owned()]);
        let args = ["webhook"].iter().chain(args).chain(&place).map(|arg| (*arg).to_owned());
        args.chain(file.into_iter().flatten()).collect::<Vec<_>>()
    };
    let refused = |args: &[&'static str], file: &Path, code| {
        let args = with(args, Some(file));
        failure(&here, &args.iter().map(String::as_str).collect::<Vec<_>>(), code)
    };
    let answer = |args: &[&'static str], file: Option<&Path>| {
        let args = with(args, file);
        json_of(&here, &args.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let (out, link) = (here.dir.join("hook.secret"), here.dir.join("link"));
    fs::write(&out, "somebody's").unwrap();
    std::os::unix::fs::symlink(&out, &link).unwrap();
    for taken in [&out, &link] {
        let error = refused(&["add", "deploys", "--kind", "generic"], taken, 2);
        assert!(error["message"].as_str().unwrap().starts_with("--secret-out: "), "{error}");
        assert_eq!(fs::read(taken).unwrap(), b"somebody's");
    }
    assert_eq!(answer(&["ls"], None)["webhooks"], json!([]), "nothing was made");

    fs::remove_file(&out).unwrap();
    refused(&["rotate", "nothing"], &out, 3);
    assert!(!out.exists(), "there is no secret, and nothing is left of the file");
    answer(&["add", "deploys", "--kind", "generic"], Some(&out));
    assert!(!fs::read(&out).unwrap().is_empty());
    refused(&["rotate", "deploys", "--now"], &here.dir.join("no/folder"), 1);
    refused(&["rotate", "deploys"], &out, 2);
    assert_eq!(answer(&["ls"], None)["webhooks"][0]["old_secret_expire_time"], Value::Null, "the secret is as it was");
}

#[test]
fn a_broker_that_is_named_wrongly_is_not_replaced_by_another() {
    let home = Home::new();
    let mut up = Command::new(binary("murmurctl"));
    let up = up.args(["up", "--json", "--data-dir"]).arg(home.path()).env("NATS_SERVER", "/nonexistent/nats-server");
    let refused = up.output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    let error = error_of(&refused);
    assert!(error["message"].as_str().unwrap().starts_with("NATS_SERVER (/nonexistent/nats-server)"), "{error}");
    assert!(home.processes().is_empty(), "there is nothing to watch over: {:?}", home.processes());
}

#[test]
fn up_starts_a_node_again_whose_socket_is_gone() {
    let home = Home::new();
    let folder = home.path().join("sockets");
    let socket = folder.join("node.sock");
    home.ok(&["up", "--socket", socket.to_str().unwrap()]);
    let before = home.part("node")["pid"].clone();
    for is_whole_folder in [false, true] {
        if is_whole_folder { fs::remove_dir_all(&folder) } else { fs::remove_file(&socket) }.unwrap();
        home.ok(&["up"]);
        home.ok(&["peers"]);
    }
    assert_ne!(home.part("node")["pid"], before);
    let after = home.part("node")["pid"].clone();
    home.ok(&["up"]);
    assert_eq!(home.part("node")["pid"], after, "one that answers stays");
}

#[test]
fn a_damaged_file_of_the_network_is_named_with_a_way_out() {
    let home = Home::new();
    home.ok(&["up"]);
    home.ok(&["down"]);
    for (file, way_out) in [("run/supervisor.json", "murmurctl down"), ("network.json", "--data-dir")] {
        let path = home.path().join(file);
        let whole = fs::read(&path).ok();
        fs::write(&path, "{ damaged").unwrap();
        let output = home.run(&["doctor", "--json"]);
        let error = error_of(&output);
        assert!(error["message"].as_str().unwrap().contains(file), "{error}");
        assert!(error["hint"].as_str().unwrap().contains(way_out), "{error}");
        match whole {
            Some(whole) => fs::write(&path, whole).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
    }
}

fn begun(node: &Node, args: &[&str]) -> Child {
    command(node, args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// What a command ends with that hears of Ctrl-C while it is at its work.
pub(crate) async fn interrupted(child: Child) -> Output {
    let status = format!("/proc/{}/status", child.id());
    wait::until("it listens for Ctrl-C", || async {
        let status = fs::read_to_string(&status).ok()?;
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"))?;
        (u64::from_str_radix(caught.trim(), 16).ok()? & SIGINT_CAUGHT != 0).then_some(())
    })
    .await;
    kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    done(child).await
}

async fn done(child: Child) -> Output {
    let ended = tokio::task::spawn_blocking(move || child.wait_with_output());
    tokio::time::timeout(wait::PATIENCE, ended).await.expect("the command ends").unwrap().unwrap()
}

/// The error of a command with `--json`, behind notes that it came back.
fn error_of(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stderr);
    let last = text.lines().last().unwrap_or_default();
    serde_json::from_str::<Value>(last).unwrap_or_else(|error| panic!("{error}: {text}"))["error"].take()
}
