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
