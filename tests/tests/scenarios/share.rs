//! What agents show to others by a link: through the tool or the command line, the node, the control plane, and back with an ordinary client.

use std::fs;

use murmur_tests::{network::Network, wait, web};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

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

/// A web server of this test: answers every request with its path, and a WebSocket with what it says.
async fn web_server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut bytes = Vec::new();
                while !bytes.ends_with(b"\r\n\r\n") {
                    if stream.read_buf(&mut bytes).await.unwrap() == 0 {
                        return;
                    }
                }
                let head = String::from_utf8(bytes).unwrap();
                let path = head.split(' ').nth(1).unwrap().to_owned();
                if path == "/ws" {
                    let changed =
                        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
                    stream.write_all(changed.as_bytes()).await.unwrap();
                    let (mut reader, mut writer) = stream.split();
                    let _ = tokio::io::copy(&mut reader, &mut writer).await;
                    return;
                }
                let body = format!("<a href=\"/next\">{path}</a>");
                let answer = format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                );
                stream.write_all(answer.as_bytes()).await.unwrap();
            });
        }
    });
    port
}

#[tokio::test]
async fn a_port_is_shown_by_tool_and_by_command_over_http_and_websocket() {
    let network = Network::start().await;
    let here = network.host("here", "jdoe").await;
    let port = web_server().await;
    let session = here.shim("alice").await;
    let shown = session.ok("port_url", json!({ "port": port })).await;
    let url = shown["url"].as_str().unwrap().to_owned();
    assert!(url.starts_with("http://") && url.contains(".localhost:"), "{url}");
    let page = web::get(&format!("{url}a/b?c=d")).await;
    assert_eq!((page.status, page.body.as_str()), (200, "<a href=\"/next\">/a/b?c=d</a>"));

    let uri: hyper::Uri = url.parse().unwrap();
    let mut visitor = web::socket(&uri).await;
    let host = uri.authority().unwrap();
    let ask = format!("GET /ws HTTP/1.1\r\nhost: {host}\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n");
    visitor.write_all(ask.as_bytes()).await.unwrap();
    let mut said = Vec::new();
    while !said.ends_with(b"\r\n\r\n") {
        assert_ne!(visitor.read_buf(&mut said).await.unwrap(), 0, "{}", String::from_utf8_lossy(&said));
    }
    visitor.write_all(b"\x81\x02hi").await.unwrap();
    let mut back = [0; 4];
    visitor.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"\x81\x02hi");

    // Fifty at once, as a browser with many pictures.
    let many = futures::future::join_all((0..50).map(|n| {
        let url = format!("{url}{n}");
        async move { web::get(&url).await }
    }));
    for (n, page) in many.await.iter().enumerate() {
        assert_eq!((page.status, page.body.as_str()), (200, &*format!("<a href=\"/next\">/{n}</a>")));
    }

    // The node is started again and the URL goes on; a port where nothing listens, and Murmur's own, have none.
    let again = here.ctl_json(Some("alice"), &["port-url", &port.to_string()]).await;
    assert_eq!(again["url"], url.as_str());
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port().to_string();
    let refused = here.ctl_refused(network.dir.path(), &["port-url", &closed]).await;
    assert_eq!(refused["reason"], "PORT_CLOSED", "{refused}");
    for own in [network.server_url.rsplit(':').next().unwrap(), network.broker_url.rsplit(':').next().unwrap()] {
        let refused = here.ctl_refused(network.dir.path(), &["port-url", own]).await;
        assert_eq!(refused["reason"], "PORT_DENIED", "{refused}");
    }
    session.ok("deregister", json!({})).await;
    let mut rest = Vec::new();
    let _ = visitor.read_to_end(&mut rest).await;
    assert_eq!(web::get(&url).await.status, 404, "it ends with its agent");
}

#[tokio::test]
async fn a_tunnel_of_a_started_agent_outlives_its_node_and_ends_with_the_agent() {
    let network = Network::start().await;
    let mut here = network.host("here", "jdoe").await;
    let port = web_server().await;
    let script = format!("murmurctl port-url {port} --json; sleep 600");
    here.ctl_json(None, &["spawn", "server", &script, "--backend", "bash", "--on-idle", "keep_alive"]).await;
    let url = wait::until("the agent has its URL", || async {
        let said = here.ctl(None, &["logs", "server"]).await;
        let said: serde_json::Value = serde_json::from_slice(&said.stdout).ok()?;
        said["url"].as_str().map(str::to_owned)
    })
    .await;
    assert_eq!(web::get(&url).await.status, 200);
    here.process.kill_9();
    assert!(matches!(web::get(&url).await.status, 502..=504), "its host is away");
    here.process.start();
    here.ready().await;
    wait::until("the tunnel is there again", || async { (web::get(&url).await.status == 200).then_some(()) }).await;
    here.ctl_json(None, &["kill", "server"]).await;
    here.until_phase("server", "canceled").await;
    assert_eq!(web::get(&url).await.status, 404);
}

#[tokio::test]
async fn an_agents_page_shows_how_it_is_doing_and_nothing_runs_on_it() {
    let network = Network::start().await;
    let here = network.host("here", "jdoe").await;
    let text = "<script>alert(1)</script>";
    let spawn = [
        "spawn",
        "shown",
        text,
        "--backend",
        "echo",
        "--on-idle",
        "keep_alive",
        "--task",
        "<img src=x>",
        "--task",
        "report",
    ];
    here.ctl_json(None, &spawn).await;
    assert!(here.ctl(None, &["wait", "shown", "--timeout", "1m"]).await.status.success());
    let made = here.ctl_json(None, &["agent-url", "shown"]).await;
    assert_eq!(made["slug"], "/w/acme/u/jdoe/shown");
    let page = web::get(made["url"].as_str().unwrap()).await;
    assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
    for shown in
        ["/w/acme/u/jdoe/shown", "task-complete", "&lt;script&gt;", "&lt;img src=x&gt;", "report", "here", "running"]
    {
        assert!(page.body.contains(shown), "{shown} in {}", page.body);
    }
    assert!(!page.body.contains("<script") && !page.body.contains("<img"), "{}", page.body);
    let policy = page.header("content-security-policy");
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    let session = here.shim_with("alice", &[("MURMUR_PROFILE", "all")]).await;
    let own = session.ok("agent_url", json!({})).await;
    let page = web::get(own["url"].as_str().unwrap()).await;
    assert!(page.status == 200 && page.body.contains("/w/acme/u/jdoe/alice"), "{}", page.body);
    let guessed = format!("{}/a/{}", network.server_url, "0".repeat(32));
    assert_eq!(web::get(&guessed).await.status, 404);
    assert_eq!(here.ctl(None, &["agent-url", "nobody"]).await.status.code(), Some(3));
}
