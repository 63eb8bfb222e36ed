//! People on notification channels: what reaches them, and who of them may answer, against servers that speak the services' own protocols.

use std::fs;

use murmur_tests::{
    agents::RUNTIME,
    network::{Network, Node, Options},
    store,
    strangers::{CHAT, Message, Strangers, TOKEN},
    talk::register,
    wait,
};
use serde_json::{Value, json};

use crate::permissions::session;

const WORKER: &str = "/w/acme/u/jdoe/worker";
/// Telegram's numbers of two people, of whom the channel names the first.
const JO: u64 = 5_000_000_001;
const EVE: u64 = 5_000_000_002;

async fn node(network: &Network, strangers: &Strangers) -> Node {
    network.node_configured("here", "jdoe", &format!("{RUNTIME}{}", strangers.config())).await
}

/// Sets Telegram up, with one person who may answer.
async fn telegram(node: &Node) {
    let token = node.dir.join("bot.token");
    fs::write(&token, TOKEN).unwrap();
    let (token, chat, jo) = (token.to_str().unwrap(), CHAT.to_string(), format!("{JO}=jo"));
    let args = ["notify-setup", "telegram", "--token-file", token, "--chat", &chat, "--answerer", &jo, "--no-test"];
    let set = node.ctl_json(None, &args).await;
    assert_eq!((&set["kind"], &set["answerers"]), (&json!("telegram"), &json!(["jo"])));
}

fn question(id: &str) -> Value {
    json!({
        "request_id": id,
        "tool_name": "Bash",
        "description": "Removes the build folder\nAllowed by telegram:jo.",
        "input_preview": "{\"command\":\"rm -rf build\"}",
    })
}

/// The one request that there is, as it stands.
async fn only_request(node: &Node) -> Value {
    let all = node.ctl_json(None, &["permission", "ls", "--all"]).await;
    let [one] = all["permissions"].as_array().unwrap().as_slice() else { panic!("{all}") };
    one.clone()
}

async fn until_says(strangers: &Strangers, message: &Message, says: &str) -> Message {
    wait::until("the message says it", || async {
        Some(strangers.now(message.id)).filter(|now| now.text.contains(says))
    })
    .await
}

#[tokio::test]
async fn a_tool_call_is_allowed_from_telegram_once_and_by_nobody_but_whom_the_channel_names() {
    let (network, strangers) = (Network::start().await, Strangers::start().await);
    let node = node(&network, &strangers).await;
    telegram(&node).await;
    let mut worker = session(&node, "worker").await;
    worker.ask_permission(question("abcde")).await;
    let asked = strangers.message("asks to use Bash (abcde)").await;
    assert_eq!(
        asked.text,
        "jdoe/worker asks to use Bash (abcde)\n│ Removes the build folder\n│ Allowed by telegram:jo.\n\
         │ {\"command\":\"rm -rf build\"}"
    );
    assert_eq!(asked.buttons.iter().map(|(text, _)| text.as_str()).collect::<Vec<_>>(), ["Allow", "Deny"]);

    // A stranger, whatever is pressed.
    let (text, is_alert) = strangers.told(&strangers.press(EVE, &asked, "Allow")).await;
    assert!(is_alert && text.contains("may not answer") && text.contains(&EVE.to_string()), "{text}");
    // Forged data, another chat, another message: by the right person, and no answer.
    let allow = &asked.buttons[0].1;
    for query in [
        strangers.press_data(JO, CHAT, asked.id, "allow"),
        strangers.press_data(JO, CHAT, asked.id, &"A".repeat(22)),
        strangers.press_data(JO, CHAT + 1, asked.id, allow),
        strangers.press_data(JO, CHAT, asked.id + 1, allow),
    ] {
        let (text, is_alert) = strangers.told(&query).await;
        assert!(is_alert && text.contains("not known"), "{text}");
    }
    assert_eq!(only_request(&node).await["state"], "pending");

    assert_eq!(strangers.told(&strangers.press(JO, &asked, "Allow")).await, ("Allowed.".to_owned(), false));
    assert_eq!(worker.permission().await, json!({"request_id": "abcde", "behavior": "allow"}));
    let now = until_says(&strangers, &asked, "\nAllowed by telegram:jo.").await;
    assert!(now.buttons.is_empty() && now.text.ends_with("\nAllowed by telegram:jo."), "{now:?}");
    let row = only_request(&node).await;
    assert_eq!(
        (&row["state"], &row["answered_by"], &row["agent"]),
        (&json!("allowed"), &json!("telegram:jo"), &json!(WORKER))
    );

    // A second answer from the keyboard that somebody still sees, and one from the shell.
    let (text, is_alert) = strangers.told(&strangers.press(JO, &asked, "Deny")).await;
    assert_eq!((text.as_str(), is_alert), ("Too late: allowed by telegram:jo.", true));
    let late = node.ctl(None, &["permission", "deny", "abcde"]).await;
    assert!(String::from_utf8_lossy(&late.stderr).contains("allowed by telegram:jo already"));
    assert_eq!(strangers.messages().len(), 1, "one question, changed in its place");
}

#[tokio::test]
async fn an_answer_from_the_shell_takes_the_buttons_away() {
    let (network, strangers) = (Network::start().await, Strangers::start().await);
    let node = node(&network, &strangers).await;
    telegram(&node).await;
    let mut worker = session(&node, "worker").await;
    worker.ask_permission(question("abcde")).await;
    let asked = strangers.message("(abcde)").await;
    node.ctl_json(None, &["permission", "deny", "abcde"]).await;
    assert_eq!(worker.permission().await["behavior"], "deny");
    let now = until_says(&strangers, &asked, "\nDenied by human:jdoe.").await;
    assert!(now.buttons.is_empty());
    let (text, is_alert) = strangers.told(&strangers.press(JO, &asked, "Allow")).await;
    assert_eq!((text.as_str(), is_alert), ("Too late: denied by human:jdoe.", true));

    // A program that an agent's client has started, as this test has its client, names nobody who may answer for the agent.
    let inside = node.shim("inside").await;
    inside.ok("register", json!({})).await;
    let token = node.dir.join("bot.token");
    let token = token.to_str().unwrap();
    let args = ["notify-setup", "telegram", "--name", "mine", "--token-file", token, "--chat", "1", "--answerer", "6"];
    let refused = node.ctl(None, &args).await;
    assert!(String::from_utf8_lossy(&refused.stderr).contains("only the node's own user"), "{refused:?}");
    drop(inside);

    // What the program that asked does not wait for any more says so, too.
    worker.ask_permission(question("fghij")).await;
    let asked = strangers.message("(fghij)").await;
    drop(worker);
    node.unattended().await;
    let _again = session(&node, "worker").await;
    until_says(&strangers, &asked, "Withdrawn").await;
    let (text, _) = strangers.told(&strangers.press(JO, &asked, "Allow")).await;
    assert!(text.contains("Too late: the program that asked is gone"), "{text}");
}

#[tokio::test]
async fn an_answer_that_came_while_the_node_was_away_counts_once_however_often_it_is_told() {
    let (network, strangers) = (Network::start().await, Strangers::start().await);
    let mut node = node(&network, &strangers).await;
    telegram(&node).await;
    let mut worker = session(&node, "worker").await;
    worker.ask_permission(question("abcde")).await;
    let asked = strangers.message("(abcde)").await;
    node.process.kill_9();
    let query = strangers.press(JO, &asked, "Deny");
    let update = strangers.unconfirmed().remove(0);
    node.process.start();
    node.ready().await;
    assert_eq!(strangers.told(&query).await.0, "Denied.");
    assert_eq!(worker.permission().await, json!({"request_id": "abcde", "behavior": "deny"}));
    wait::until("the update is confirmed", || async { strangers.unconfirmed().is_empty().then_some(()) }).await;

    // The node went away before it confirmed it: Telegram tells it again.
    node.process.kill_9();
    strangers.repeat(update);
    node.process.start();
    node.ready().await;
    wait::until("the repeat is confirmed", || async { strangers.unconfirmed().is_empty().then_some(()) }).await;
    let answers = strangers.calls("answerCallbackQuery");
    assert_eq!(answers.len(), 2, "{answers:?}");
    assert!(answers.iter().all(|call| call.body["text"] == "Denied."), "the same answer is no second one");

    // After a week without updates the numbers begin anew, lower: nothing is skipped.
    strangers.number_anew(7);
    worker.ask_permission(question("fghij")).await;
    let asked = strangers.message("(fghij)").await;
    assert_eq!(strangers.told(&strangers.press(JO, &asked, "Allow")).await.0, "Allowed.");
}

#[tokio::test]
async fn a_question_whose_time_has_passed_says_so_over_restarts_too() {
    let (network, strangers) = (Network::start().await, Strangers::start().await);
    let mut node = node(&network, &strangers).await;
    telegram(&node).await;
    let worker = session(&node, "worker").await;
    let mut asked = Vec::new();
    for id in ["abcde", "fghij"] {
        worker.ask_permission(question(id)).await;
        asked.push(strangers.message(&format!("({id})")).await);
    }
    let open = "SELECT count(*) FROM permission_prompt WHERE message_id IS NOT NULL";
    wait::until("both messages are known", || async { (store::number(&node, open) == 2).then_some(()) }).await;
    node.process.kill_9();
    // The hour of one passes while nobody is there, and that of the other soon after.
    let soon = "expires_ms = CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) + 3000";
    store::change(
        &node,
        &format!(
            "UPDATE permission SET expires_ms = asked_ms + 1 WHERE request_id = 'fghij';
             UPDATE permission SET {soon} WHERE request_id = 'abcde';"
        ),
    );
    node.process.start();
    node.ready().await;
    for message in asked.iter().rev() {
        let now = until_says(&strangers, message, "\nIts time has passed.").await;
        assert!(now.buttons.is_empty(), "{now:?}");
        let (text, is_alert) = strangers.told(&strangers.press(JO, message, "Allow")).await;
        assert_eq!((text.as_str(), is_alert), ("Too late: its time has passed.", true));
    }
    wait::until("both are done with", || async { (store::number(&node, open) == 0).then_some(()) }).await;

    // What says so is left alone from then on.
    let edits = strangers.calls("editMessageText").len();
    node.process.kill_9();
    node.process.start();
    node.ready().await;
    worker.ask_permission(question("kmnop")).await;
    let third = strangers.message("(kmnop)").await;
    node.ctl_json(None, &["permission", "deny", "kmnop"]).await;
    until_says(&strangers, &third, "Denied").await;
    assert_eq!(strangers.calls("editMessageText").len(), edits + 1, "only the third was changed");
}

/// How often something was said in Telegram's chat.
fn said(strangers: &Strangers, text: &str) -> usize {
    strangers.messages().iter().map(|message| message.text.matches(text).count()).sum()
}

#[tokio::test]
async fn agents_that_were_lost_with_their_node_reach_people_once_by_the_account_s_other_nodes() {
    let env = vec![("MURMUR_SERVER_NODE_LOST_MS".to_owned(), "500".to_owned())];
    let network = Network::start_with(Options { env, ..Options::default() }).await;
    let strangers = Strangers::start().await;
    let here = node(&network, &strangers).await;
    telegram(&here).await;
    let mut there = network.node_configured("there", "jdoe", &format!("{RUNTIME}{}", strangers.config())).await;
    let (hook, secret) = (format!("{}/hook", strangers.url), there.dir.join("hook.secret"));
    let webhook = ["notify-setup", "webhook", "--url", &hook, "--secret-file", secret.to_str().unwrap(), "--no-test"];
    there.ctl_json(None, &webhook).await;
    register(&here, "lead").await;
    // Below an agent of this node, and below nobody.
    for slug in ["lead/child", "lone"] {
        here.ctl_json(None, &["spawn", slug, "exec sleep 600", "--node", "there"]).await;
        here.until_phase(slug, "running").await;
    }
    there.process.kill_9();
    for slug in ["lead/child", "lone"] {
        strangers.message(&format!("jdoe/{slug} failed")).await;
        let status = here.until_phase(slug, "failed").await;
        assert!(status["reason"].as_str().unwrap().starts_with("node_lost"), "{status}");
    }

    // The node itself tells its own people when it is back.
    there.process.start();
    there.ready().await;
    let fails = |slug: &'static str| {
        move |body: &Value| body["text"].as_str().unwrap().contains(&format!("jdoe/{slug} failed"))
    };
    strangers.called("/hook", fails("lone")).await;
    strangers.called("/hook", fails("lead/child")).await;
    // What comes after it was told after it.
    register(&there, "bob").await;
    here.ctl_json(None, &["notify", "lead", "the end"]).await;
    here.ctl_json(None, &["notify", "bob", "the end"]).await;
    strangers.message("jdoe notifies jdoe/lead").await;
    strangers.called("/hook", |body| body["text"].as_str().unwrap().contains("jdoe notifies jdoe/bob")).await;
    let texts = strangers.calls("/hook").iter().map(|call| call.body["text"].to_string()).collect::<String>();
    for slug in ["lone", "lead/child"] {
        let told = format!("jdoe/{slug} failed");
        assert_eq!((said(&strangers, &told), texts.matches(&told).count()), (1, 1), "{told}: {texts}");
    }
}

#[tokio::test]
async fn events_reach_every_service_by_the_kinds_that_its_channel_names() {
    let (network, strangers) = (Network::start().await, Strangers::start().await);
    let node = node(&network, &strangers).await;
    telegram(&node).await;
    register(&node, "alice").await;
    let file = |name: &str, text: &str| {
        let path = node.dir.join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let url = file("discord.url", &format!("{}/api/webhooks/1/secret", strangers.url));
    node.ctl_json(None, &["notify-setup", "discord", "--url-file", &url, "--kind", "child_lifecycle", "--no-test"])
        .await;
    let token = file("wa.token", "EAAGtoken");
    let whatsapp = ["--phone-number-id", "106540352242922", "--to", "+15550783881", "--kind", "ci_failed"];
    node.ctl_json(None, &[&["notify-setup", "whatsapp", "--token-file", &token, "--no-test"][..], &whatsapp].concat())
        .await;
    let (hook, secret) = (format!("{}/hook", strangers.url), node.dir.join("hook.secret"));
    let secret = secret.to_str().unwrap();
    let webhook = [
        "notify-setup",
        "webhook",
        "--url",
        &hook,
        "--secret-file",
        secret,
        "--kind",
        "notify,ci_result,agent_failed",
        "--no-test",
    ];
    node.ctl_json(None, &webhook).await;

    let ci = |conclusion: &'static str| {
        let conclusion = format!("conclusion={conclusion}");
        let node = &node;
        async move {
            let send = ["event", "send", "3 of 9 failed", "--to", "alice", "--kind", "ci_result"];
            let about = ["-a", "repo=acme/shop", "-a", "check=lint", "-a", &conclusion];
            node.ctl_json(None, &[&send[..], &about].concat()).await;
        }
    };
    ci("success").await;
    ci("failure").await;
    node.ctl_json(None, &["notify", "alice", "private words"]).await;
    node.ctl_json(None, &["spawn", "broken", "exit 3", "--on-idle", "keep_alive"]).await;

    // An agent that nobody started from here: its node sees it fail.
    let failed = strangers.called("/hook", |body| body["type"] == "agent_failed").await;
    assert_eq!(failed.body["text"], "jdoe/broken failed");
    strangers
        .called("/api/webhooks/1/secret", |body| body["content"].as_str().unwrap().contains("jdoe/broken failed"))
        .await;
    strangers.message("jdoe/broken failed").await;
    // Words stay on the host, what happened is told.
    strangers.called("/hook", |body| body["text"] == "jdoe notifies jdoe/alice, 13 B").await;
    strangers.message("jdoe notifies jdoe/alice").await;
    let red = strangers.called("/v23.0/", |_| true).await;
    assert!(red.body["text"]["body"].as_str().unwrap().starts_with("lint of acme/shop: failure"), "{red:?}");
    assert_eq!(strangers.calls("/v23.0/").len(), 1, "only what failed");
    strangers.called("/hook", |body| body["type"] == "ci_result").await;
    strangers.called("/hook", |body| body["type"] == "ci_failed").await;
    let said = format!("{:?} {:?}", strangers.messages(), strangers.calls(""));
    assert!(!said.contains("private words") && !said.contains("3 of 9"), "{said}");
}

#[tokio::test]
async fn telegram_is_waited_for_as_long_as_it_asks() {
    let (network, strangers) = (Network::start().await, Strangers::start().await);
    let node = node(&network, &strangers).await;
    telegram(&node).await;
    register(&node, "alice").await;
    let wait = json!({
        "ok": false, "error_code": 429, "description": "Too Many Requests: retry after 2", "parameters": {"retry_after": 2},
    });
    strangers.refuse(429, wait);
    node.ctl_json(None, &["notify", "alice", "hello"]).await;
    strangers.message("notifies jdoe/alice").await;
    let sent = strangers.calls("sendMessage");
    // Counted from when the first came to when the second did, it can only be longer.
    assert!(sent.len() == 2 && sent[1].at - sent[0].at >= std::time::Duration::from_secs(2), "{sent:?}");
}
