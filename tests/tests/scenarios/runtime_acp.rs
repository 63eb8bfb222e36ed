//! An agent of the Agent Client Protocol over its standard input and output: the same adapter, other data.

use murmur_proto::v1::{self, AgentSpec, Phase};
use murmur_tests::{network::Network, wait};

#[tokio::test]
async fn an_acp_agent_is_prompted_asked_cancelled_and_prompted_again() {
    let network = Network::start().await;
    let program = network.script("acp", include_str!("acp.py"));
    let toml = format!("[runtime.backends.acp]\nprogram = '{}'\n", program.display());
    let node = network.node_configured("here", "jdoe", &toml).await;
    let owner = node.owner("jdoe").await;
    let acp =
        |text: &str| AgentSpec { description: text.to_owned(), backend: "acp".to_owned(), ..AgentSpec::default() };

    owner.spawn("editor", acp("one")).await;
    let done = owner.is("editor", Phase::TaskComplete).await;
    assert_eq!(done.output.unwrap().response, "did one");
    owner.add("editor", "wait").await;
    wait::until("the second turn runs", || async {
        let agent = owner.status("editor").await;
        (agent.turns == 2 && agent.phase() == Phase::Running).then_some(())
    })
    .await;
    let request = v1::InterruptAgentRequest { slug: owner.slug("editor"), ..v1::InterruptAgentRequest::default() };
    owner.client().agents.interrupt_agent(request).await.unwrap();
    owner.is("editor", Phase::Idle).await;
    owner.add("editor", "three").await;
    let done = owner.is("editor", Phase::TaskComplete).await;
    let response = done.output.unwrap().response;
    assert!(response.starts_with("did one | ") && response.ends_with("three"), "{response}");

    owner.spawn("careful", acp("ask")).await;
    let done = owner.is("careful", Phase::TaskComplete).await;
    assert_eq!(done.output.unwrap().response, "allowed by yes");
    owner.spawn("unlucky", acp("error")).await;
    assert!(owner.is("unlucky", Phase::Failed).await.reason.contains("the model is away"));
}

#[tokio::test]
async fn a_resurrected_acp_agent_loads_its_session_where_it_can() {
    let network = Network::start().await;
    let program = network.script("acp", include_str!("acp.py"));
    let (program, kept) = (program.display(), network.dir.path().join("sessions.json"));
    let toml = format!(
        "[runtime.backends.keeps]\npreset = 'acp'\nprogram = '{program}'\nargs = ['{}']\n\
         [runtime.backends.forgets]\npreset = 'acp'\nprogram = '{program}'\n",
        kept.display()
    );
    let node = network.node_configured("here", "jdoe", &toml).await;
    let owner = node.owner("jdoe").await;
    for backend in ["keeps", "forgets"] {
        let spec = AgentSpec { description: "one".to_owned(), backend: backend.to_owned(), ..AgentSpec::default() };
        owner.spawn(backend, spec).await;
        assert_eq!(owner.is(backend, Phase::TaskComplete).await.output.unwrap().response, "did one");
        owner.kill(backend).await;
        owner.is(backend, Phase::Canceled).await;
        let request = v1::SpawnAgentRequest {
            slug: owner.slug(backend),
            spec: Some(AgentSpec { description: "two".to_owned(), ..AgentSpec::default() }),
            resurrect: true,
            ..v1::SpawnAgentRequest::default()
        };
        owner.spawn_as(request).await;
        let done = owner.is(backend, Phase::TaskComplete).await.output.unwrap().response;
        // What it tells of earlier turns while it loads is no answer of this one.
        assert!(done.starts_with("did ") && done.ends_with("two") && !done.contains("replayed"), "{backend}: {done}");
        assert_eq!(done.contains("one"), backend == "keeps", "{done}");
    }
}

#[tokio::test]
async fn what_was_claimed_and_never_reached_the_program_is_told_again_and_marked() {
    let network = Network::start().await;
    let program = network.script("acp", include_str!("acp.py"));
    let broken = network.dir.path().join("broken");
    let script = format!("#!/bin/sh\n[ -e {} ] && exit 3\nexec {}\n", broken.display(), program.display());
    let toml = format!("[runtime.backends.acp]\nprogram = '{}'\n", network.script("wrapped", &script).display());
    let node = network.node_configured("here", "jdoe", &toml).await;
    let owner = node.owner("jdoe").await;
    let again = |text: &str| v1::SpawnAgentRequest {
        slug: owner.slug("editor"),
        spec: Some(AgentSpec { description: text.to_owned(), ..AgentSpec::default() }),
        resurrect: true,
        ..v1::SpawnAgentRequest::default()
    };
    let first = AgentSpec { description: "one".to_owned(), backend: "acp".to_owned(), ..AgentSpec::default() };
    owner.spawn("editor", first).await;
    owner.is("editor", Phase::TaskComplete).await;
    owner.kill("editor").await;
    owner.is("editor", Phase::Canceled).await;
    // It ends before it has a session, and so before it has the prompt.
    std::fs::write(&broken, "").unwrap();
    owner.spawn_as(again("two")).await;
    owner.is("editor", Phase::Failed).await;
    std::fs::remove_file(&broken).unwrap();
    owner.spawn_as(again("three")).await;
    let done = owner.is("editor", Phase::TaskComplete).await.output.unwrap().response;
    let (two, three) = (done.find("two").unwrap(), done.find("three").unwrap());
    assert!(two < three && done[..two].contains("may have been told before"), "{done}");
}
