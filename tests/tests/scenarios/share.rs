//! What agents show to others by a link: through the tool or the command line, the node, the control plane, and back with an ordinary client.

use std::fs;

use murmur_tests::{network::Network, web};
use serde_json::json;

#[tokio::test]
async fn a_file_is_uploaded_by_tool_and_by_command_and_fetched_by_anybody() {
    let network = Network::start().await;
    let here = network.host("here", "jdoe").await;
    let work = network.dir.path().join("work");
    fs::create_dir(&work).unwrap();
    fs::write(work.join("report.csv"), "a,b\n1,2\n").unwrap();
    fs::write(work.join(".env"), "SECRET=1\n").unwrap();
    fs::write(network.dir.path().join("outside.txt"), "no").unwrap();

    let uploaded = here.ctl_in(&work, &["upload", "report.csv"]).await;
    let url = uploaded["url"].as_str().unwrap();
    assert!(url.starts_with(&format!("{}/f/", network.server_url)), "{uploaded}");
    let page = web::get(url).await;
    assert_eq!((page.status, page.body.as_str()), (200, "a,b\n1,2\n"));
    assert_eq!(page.header("content-type"), "text/csv; charset=utf-8");
    assert_eq!(page.header("content-disposition"), "attachment; filename=\"report.csv\"");

    for (path, reason) in [
        (".env", "FILE_DENIED"),
        ("../outside.txt", "FILE_DENIED"),
        ("/etc/hostname", "FILE_DENIED"),
        ("no.txt", "FILE_NOT_FOUND"),
        (".", "FILE_DENIED"),
    ] {
        let refused = here.ctl_refused(&work, &["upload", path]).await;
        assert_eq!(refused["reason"], reason, "{path}: {refused}");
    }

    let session = here.shim_in("alice", &work, &[]).await;
    let shared = session.ok("upload", json!({"path": "report.csv", "filename": "July report.csv"})).await;
    let page = web::get(shared["url"].as_str().unwrap()).await;
    assert_eq!((page.status, page.body.as_str()), (200, "a,b\n1,2\n"));
    assert_eq!(page.header("content-disposition"), "attachment; filename=\"July_report.csv\"");
    let refused = session.call("upload", json!({"path": "../outside.txt"})).await;
    assert!(refused.is_error && refused.text.starts_with("FILE_DENIED: "), "{}", refused.text);
}

#[tokio::test]
async fn an_agent_that_a_node_started_shows_its_own_folder_and_nothing_else() {
    let network = Network::start().await;
    let here = network.host("here", "jdoe").await;
    let secret = network.dir.path().join("secret.txt");
    fs::write(&secret, "no").unwrap();
    let script = format!(
        "mkdir sub && cd sub && echo content > out.txt && murmurctl upload out.txt --json && murmurctl upload {} --json; ln -s {} link.txt; murmurctl upload link.txt --json; cd / && murmurctl upload etc/hostname --json; true",
        secret.display(),
        secret.display()
    );
    here.ctl_json(None, &["spawn", "shower", &script, "--backend", "bash", "--on-idle", "keep_alive"]).await;
    let waited = here.ctl(None, &["wait", "shower", "--response", "--timeout", "1m"]).await;
    let said = String::from_utf8_lossy(&waited.stdout).into_owned();
    let first: serde_json::Value = serde_json::from_str(said.lines().next().unwrap_or_default()).unwrap_or_default();
    let page = web::get(first["url"].as_str().unwrap_or_else(|| panic!("{said}"))).await;
    assert_eq!((page.status, page.body.as_str()), (200, "content\n"));
    assert_eq!(said.matches("\"url\"").count(), 1, "only its own file: {said}");
    let status = here.ctl_json(None, &["status", "shower"]).await;
    assert!(status.to_string().contains("out.txt (8 bytes)"), "{status}");
}
