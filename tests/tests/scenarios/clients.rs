//! The real Claude Code, Codex and an agent of the Agent Client Protocol, against a stand-in for their model services.
//!
//! They are large and come from npm, so these run by `make clients` and not with every test. `MURMUR_CLIENTS` is where they are.

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use murmur_proto::v1::{self, AgentSpec, OnIdle, Phase};
use murmur_tests::{
    network::{Network, Node},
    spawned::Owner,
    talk, wait,
};

/// How long a client may take to end once nothing more comes.
const END_MAX: Duration = Duration::from_secs(10);

/// A process that is ended with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // Most of them end with their standard input, and end what they run; whoever does not is killed.
        if self.0.stdin.take().is_some() {
            let began = Instant::now();
            while began.elapsed() < END_MAX && matches!(self.0.try_wait(), Ok(None)) {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Stage {
    node: Node,
    owner: Owner,
    network: Network,
    requests: PathBuf,
    environment: Vec<(&'static str, String)>,
    _models: Ended,
}

impl Stage {
    async fn new() -> Self {
        let network = Network::start().await;
        let requests = network.dir.path().join("requests.jsonl");
        let (models, url) = models(&network, &requests);
        let codex_home = network.dir.path().join("codex");
        let claude_home = network.dir.path().join("claude");
        for home in [&codex_home, &claude_home] {
            std::fs::create_dir(home).unwrap();
        }
        std::fs::write(
            codex_home.join("config.toml"),
            format!(
                "model = 'obedient'\nmodel_provider = 'here'\n[analytics]\nenabled = false\n\
                 [model_providers.here]\nname = 'here'\nbase_url = '{url}/v1'\nwire_api = 'responses'\nenv_key = 'OPENAI_API_KEY'\n"
            ),
        )
        .unwrap();
        let environment = vec![
            ("ANTHROPIC_BASE_URL", url),
            ("ANTHROPIC_API_KEY", "sk-ant-none".to_owned()),
            ("CLAUDE_CONFIG_DIR", claude_home.display().to_string()),
            ("DISABLE_AUTOUPDATER", "1".to_owned()),
            ("OPENAI_API_KEY", "sk-none".to_owned()),
            ("CODEX_HOME", codex_home.display().to_string()),
        ];
        let env = environment.iter().map(|(name, value)| format!("{name} = '{value}'")).collect::<Vec<_>>().join(", ");
        let backend = |name: &str, program: &str| {
            format!("[runtime.backends.{name}]\nprogram = '{}'\nenv = {{ {env} }}\n", client(program).display())
        };
        let toml = backend("claude", "claude") + &backend("codex", "codex") + &backend("acp", "claude-agent-acp");
        let node = network.node_configured("here", "jdoe", &toml).await;
        let owner = node.owner("jdoe").await;
        Self { node, owner, network, requests, environment, _models: models }
    }

    /// Spawns an agent that makes an item of its checklist, and wakes it for a second turn in which it lists them.
    async fn works_with_its_tools(&self, backend: &str) {
        let spec = AgentSpec {
            description: format!("CALL mcp__murmur__task_create {{\"subject\": \"made by {backend}\"}}"),
            backend: backend.to_owned(),
            on_idle: OnIdle::Sleep.into(),
            ..AgentSpec::default()
        };
        self.owner.spawn(backend, spec).await;
        let slept = self.owner.is(backend, Phase::Sleeping).await;
        let output = slept.output.clone().unwrap();
        assert!(output.response.contains("task_id"), "{output:?}");
        assert!(output.tokens > 0, "{output:?}");
        let request = v1::ListTasksRequest { slug: self.owner.slug(backend), ..v1::ListTasksRequest::default() };
        let tasks = self.owner.client().tasks.list_tasks(request).await.unwrap().into_inner().tasks;
        assert_eq!(tasks.len(), 1);
        assert_eq!(tasks[0].subject, format!("made by {backend}"));

        self.owner.add(backend, "CALL mcp__murmur__task_list {}").await;
        let again = wait::until("the second turn", || async {
            let agent = self.owner.status(backend).await;
            (agent.turns == 2 && agent.phase() == Phase::Sleeping).then_some(agent)
        })
        .await;
        assert!(again.output.unwrap().response.contains(&format!("made by {backend}")));
        assert_eq!(again.incarnation, 2, "it slept in between");
    }
}

#[tokio::test]
#[ignore = "needs the clients: make clients"]
async fn claude_code_works_with_its_tools_and_wakes_with_its_session() {
    let stage = Stage::new().await;
    stage.works_with_its_tools("claude").await;
    assert!(stage.owner.status("claude").await.output.unwrap().cost_micros > 0);
}

#[tokio::test]
#[ignore = "needs the clients: make clients"]
async fn codex_works_with_its_tools_and_wakes_with_its_session() {
    Stage::new().await.works_with_its_tools("codex").await;
}

#[tokio::test]
#[ignore = "needs the clients: make clients"]
async fn an_agent_of_the_agent_client_protocol_works_with_its_tools() {
    let stage = Stage::new().await;
    let spec = AgentSpec {
        description: "CALL mcp__murmur__task_create {\"subject\": \"made by acp\"}".to_owned(),
        backend: "acp".to_owned(),
        ..AgentSpec::default()
    };
    stage.owner.spawn("acp", spec).await;
    let done = stage.owner.is("acp", Phase::TaskComplete).await.output.unwrap();
    assert!(done.response.contains("task_id") && done.cost_micros > 0, "{done:?}");
}

#[tokio::test]
#[ignore = "needs the clients: make clients"]
async fn a_message_is_a_turn_of_a_session_in_a_terminal() {
    let stage = Stage::new().await;
    let folder = stage.network.dir.path().join("project");
    std::fs::create_dir(&folder).unwrap();
    let config = stage.network.dir.path().join("claude");
    let _session = Ended(
        Command::new("python3")
            .arg(script("session.py"))
            .args([&client("claude"), &murmur_tests::process::binary("murmur-mcp")])
            .arg("bob")
            .args([&stage.node.socket, &config, &folder])
            .envs(stage.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap(),
    );
    talk::register(&stage.node, "alice").await;
    stage.node.knows(talk::BOB).await;
    talk::send(&stage.node, "alice", talk::BOB, "is it </channel> you?").await;
    wait::until("the message is a turn", || async {
        let requests = std::fs::read_to_string(&stage.requests).unwrap_or_default();
        let heard = requests.lines().find(|line| line.contains("<channel source=\\\"murmur\\\""))?.to_owned();
        assert!(heard.contains("is it &lt;/channel&gt; you?"), "{heard}");
        assert!(heard.contains("from=\\\"/w/acme/u/jdoe/alice\\\""), "{heard}");
        Some(())
    })
    .await;
}

/// Starts the stand-in for the services; it tells its port.
fn models(network: &Network, requests: &Path) -> (Ended, String) {
    let program = network.script("models", include_str!("clients/models.py"));
    let mut child = Command::new(program).arg(requests).stdout(Stdio::piped()).spawn().unwrap();
    let mut port = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut port).unwrap();
    (Ended(child), format!("http://127.0.0.1:{}", port.trim()))
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios/clients").join(name)
}

/// A client's program.
fn client(name: &str) -> PathBuf {
    let clients = std::env::var_os("MURMUR_CLIENTS").expect("MURMUR_CLIENTS is set by `make clients`");
    PathBuf::from(clients).join("node_modules/.bin").join(name)
}
