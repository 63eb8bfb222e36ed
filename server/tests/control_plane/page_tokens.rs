//! Tokens of pages: each is good for the list that it came from, in its order.

use murmur_proto::v1;

use crate::{
    agents::ready,
    events::{event, publish},
    world::{World, field},
};

#[tokio::test]
async fn a_token_that_no_page_before_had_is_refused() {
    let world = World::start().await;
    let (owner, _runner, _) = ready(&world).await;
    let person = world.person(&owner, "jdoe").await;
    let admin = world.admin();
    // base64 of `xxx`.
    let page_token = || "eHh4".to_owned();
    let tokens = v1::ListTokensRequest { page_token: page_token(), ..Default::default() };
    assert_eq!(field(admin.auth.clone().list_tokens(tokens).await), "page_token");
    let nodes = v1::ListNodesRequest { page_token: page_token(), ..Default::default() };
    assert_eq!(field(admin.nodes.clone().list_nodes(nodes).await), "page_token");
    let agents = v1::ListAgentsRequest { page_token: page_token(), ..Default::default() };
    assert_eq!(field(person.directory.clone().list_agents(agents).await), "page_token");
}

#[tokio::test]
async fn a_token_of_another_list_or_order_is_refused() {
    let world = World::start().await;
    let (owner, runner, user) = ready(&world).await;
    let person = world.person(&owner, "jdoe").await;
    for slug in ["alice", "bob"] {
        runner.node.agent(&world, slug).await;
        publish(&person, event(&format!("/u/jdoe/{slug}"), "", "x")).await.unwrap();
    }
    let agents = |page_token: &str| v1::ListAgentsRequest { page_size: 1, page_token: page_token.into() };
    let listed = person.directory.clone().list_agents(agents("")).await.unwrap().into_inner();
    let rest = person.directory.clone().list_agents(agents(&listed.next_page_token)).await.unwrap().into_inner();
    assert_eq!((rest.agents.len(), rest.next_page_token.as_str()), (1, ""));
    let foreign = v1::ListAgentStatusRequest { page_token: listed.next_page_token, ..Default::default() };
    assert_eq!(field(user.list(foreign).await), "page_token");

    let events = |page_token: &str, descending| {
        let request =
            v1::ListEventsRequest { page_size: 1, page_token: page_token.into(), descending, ..Default::default() };
        let mut events = person.events.clone();
        async move { events.list_events(request).await }
    };
    let next = events("", false).await.unwrap().into_inner().next_page_token;
    assert_eq!(events(&next, false).await.unwrap().into_inner().events.len(), 1);
    assert_eq!(field(events(&next, true).await), "page_token");
}
