//! Which node gets whom, and what is told to a node that comes back.

use murmur_core::reason::Reason;
use murmur_proto::{
    status::RpcError,
    v1::{self, watch_orders_response::Item},
};

use super::{Runner, Speaking, as_incarnation, facts, ready, report, spec, uuid};
use crate::{
    sessions::{Open, hello},
    world::{World, next, reason},
};

#[tokio::test]
async fn whoever_fits_nowhere_waits_with_a_reason_and_is_placed_when_there_is_room() {
    let world = World::start().await;
    let owner = world.workspace("acme").await;
    let mut runner = Runner::start(&world, &owner, 1, facts(1)).await;
    let user = Speaking::user(&world, &runner.node);
    user.spawn("first").await.unwrap();
    let second = user.spawn("second").await.unwrap();
    assert_eq!((second.phase(), second.node.as_str()), (v1::Phase::Starting, ""));
    assert_eq!(second.reason, "waits for room: node host runs 1 of 1");
    // One that waits has a name, and no entry in the directory yet.
    assert_eq!(reason(runner.node.register(&world, "second").await), Reason::SlugTaken);

    let order = runner.run(&world).await;
    assert!(order.slug.ends_with("/first"));
    runner.became(&world, &order, v1::Phase::Completed).await;
    let order = runner.run(&world).await;
    assert!(order.slug.ends_with("/second"));
    assert_eq!(user.status("second").await.unwrap().node, "host");
}

#[tokio::test]
async fn an_agent_waits_for_a_node_with_its_labels() {
    let world = World::start().await;
    let (owner, _runner, user) = ready(&world).await;
    let wish = v1::AgentSpec { labels: vec!["gpu".into()], ..spec() };
    let request = v1::SpawnAgentRequest { slug: "train".into(), spec: Some(wish), ..Default::default() };
    let waits = user.spawn_with(request).await.unwrap().remove(0);
    assert_eq!(waits.reason, "waits for a node with the label gpu");
    let mut watch = user.watch().await;
    let with_gpu = v1::ReportNodeRequest { labels: vec!["gpu".into()], ..facts(1) };
    let mut gpu = Runner::start(&world, &owner, 2, with_gpu).await;
    assert_eq!(gpu.run(&world).await.slug, "/w/acme/u/jdoe/train");
    // Nobody asked again for it to be placed: the watch tells.
    loop {
        if let Some(v1::watch_agent_status_response::Item::Agent(agent)) = next(&mut watch).await.item
            && agent.phase() == v1::Phase::Running
        {
            assert_eq!(agent.node_id, gpu.node.id.to_string());
            return;
        }
    }
}

#[tokio::test]
async fn an_agent_of_an_account_goes_to_no_other_accounts_node() {
    let world = World::start().await;
    let owner = world.workspace("acme").await;
    let theirs = world.node(&owner, "mallory", 7).await;
    let _session = Open::welcome(&world, &theirs, hello(7)).await;
    theirs.client(&world).runtime.report_node(facts(10)).await.unwrap();
    let mine = world.node(&owner, "jdoe", 1).await;
    let user = Speaking::user(&world, &mine);
    assert!(user.spawn("x").await.unwrap().reason.contains("say what it runs"));
    let elsewhere = v1::AgentSpec { node: theirs.id.to_string(), ..spec() };
    let request = v1::SpawnAgentRequest { slug: "y".into(), spec: Some(elsewhere), ..Default::default() };
    assert_eq!(reason(user.spawn_with(request).await), Reason::NodeNotFound);
}

#[tokio::test]
async fn open_orders_are_told_again_until_they_are_done() {
    let world = World::start().await;
    let (_owner, mut runner, user) = ready(&world).await;
    user.spawn("one").await.unwrap();
    user.spawn("two").await.unwrap();
    let (one, two) = (runner.order().await, runner.order().await);
    assert!(one.order_id < two.order_id);
    runner.became(&world, &one, v1::Phase::Running).await;
    runner.listen(&world).await;
    assert_eq!(runner.order().await, two);
    // A newer stream has the orders, and the older one is told.
    let mut client = runner.node.client(&world).runtime;
    let mut newer = client.watch_orders(v1::WatchOrdersRequest {}).await.unwrap().into_inner();
    assert!(matches!(next(&mut newer).await.item, Some(Item::Order(order)) if order == two));
    let told = runner.orders.message().await.unwrap_err();
    assert_eq!(RpcError::from(told).reason, Some(Reason::SessionReplaced));
}

#[tokio::test]
async fn a_node_that_was_fenced_hears_and_tells_nothing() {
    let world = World::start().await;
    let (_owner, runner, _user) = ready(&world).await;
    let mut client = runner.node.client(&world).runtime;
    client.report_node(as_incarnation(facts(1), 1)).await.unwrap();
    let older = as_incarnation(facts(1), 0);
    assert_eq!(reason(client.report_node(older).await), Reason::NodeFenced);
    let older = as_incarnation(v1::WatchOrdersRequest {}, 0);
    assert_eq!(reason(client.watch_orders(older).await), Reason::NodeFenced);
    // A person is no node, even through one.
    let user = Speaking::user(&world, &runner.node);
    let report = user.request(v1::ReportAgentsRequest { report_id: uuid(9), ..Default::default() });
    assert_eq!(reason(user.clients.runtime.clone().report_agents(report).await), Reason::ScopeMissing);
}

#[tokio::test]
async fn a_report_is_applied_once_and_only_by_the_agents_node() {
    let world = World::start().await;
    let (owner, mut runner, user) = ready(&world).await;
    let mut other = Runner::start(&world, &owner, 2, facts(0)).await;
    user.spawn("x").await.unwrap();
    let order = runner.run(&world).await;
    let done = v1::ReportAgentsRequest { reports: vec![report(&order, v1::Phase::TaskComplete)], report_id: uuid(77) };
    let mut client = runner.node.client(&world).runtime;
    let first = client.report_agents(done.clone()).await.unwrap().into_inner();
    let rev = user.status("x").await.unwrap().rev;
    assert_eq!(client.report_agents(done.clone()).await.unwrap().into_inner(), first);
    assert_eq!(user.status("x").await.unwrap().rev, rev);
    let changed = v1::ReportAgentsRequest { reports: Vec::new(), ..done };
    assert_eq!(reason(client.report_agents(changed).await), Reason::IdempotencyConflict);

    assert!(other.tell(&world, vec![report(&order, v1::Phase::Failed)]).await.unwrap()[0].stale);
    let refused = runner.tell(&world, vec![report(&order, v1::Phase::Sleeping)]).await.unwrap().remove(0);
    assert_eq!(refused.refused, "an agent that is task-complete cannot become sleeping");
    assert_eq!(refused.phase(), v1::Phase::TaskComplete);
}

#[tokio::test]
async fn what_a_node_does_not_run_any_more_has_ended_and_what_it_should_not_run_is_named() {
    let world = World::start().await;
    let (_owner, mut runner, user) = ready(&world).await;
    user.spawn("lost").await.unwrap();
    let lost = runner.run(&world).await;
    user.spawn("kept").await.unwrap();
    let kept = runner.run(&world).await;
    // Its order is still on the way, so nobody misses it.
    user.spawn("coming").await.unwrap();
    let running = |order: &v1::Order, incarnation| v1::RunningAgent { agent_id: order.agent_id.clone(), incarnation };
    let stranger = v1::RunningAgent { agent_id: uuid(5), incarnation: 1 };
    let report =
        v1::ReportNodeRequest { running: vec![running(&kept, 1), running(&kept, 9), stranger.clone()], ..facts(100) };
    let stop = runner.node.client(&world).runtime.report_node(report).await.unwrap().into_inner().stop;
    assert_eq!(stop, [running(&kept, 9), stranger]);
    assert_eq!(user.status("kept").await.unwrap().phase(), v1::Phase::Running);
    let gone = user.status("lost").await.unwrap();
    assert_eq!((gone.phase(), gone.agent_id.as_str()), (v1::Phase::Failed, lost.agent_id.as_str()));
    assert!(gone.reason.starts_with("process_lost"));
    assert_eq!(user.status("coming").await.unwrap().phase(), v1::Phase::Starting);
}

#[tokio::test]
async fn output_goes_from_the_node_to_whoever_watches() {
    let world = World::start().await;
    let (_owner, mut runner, user) = ready(&world).await;
    user.spawn("x").await.unwrap();
    let order = runner.run(&world).await;
    let mut out = user.output("x").await.unwrap();
    let Some(Item::OutputWanted(wanted)) = next(&mut runner.orders).await.item else { panic!("not a wish") };
    assert_eq!((wanted.agent_id.as_str(), wanted.follow), (order.agent_id.as_str(), true));
    let (say, said) = tokio::sync::mpsc::channel(4);
    let chunk = |text: &str| v1::SendOutputRequest {
        watch_id: wanted.watch_id.clone(),
        chunk: Some(v1::OutputChunk { data: text.to_owned().into(), ..v1::OutputChunk::default() }),
    };
    say.send(chunk("hello")).await.unwrap();
    let mut client = runner.node.client(&world).runtime;
    let sending = tokio::spawn(async move {
        client.send_output(tokio_stream::wrappers::ReceiverStream::new(said)).await.unwrap();
    });
    assert_eq!(&next(&mut out).await.chunk.unwrap().data[..], b"hello");
    say.send(chunk("world")).await.unwrap();
    assert_eq!(&next(&mut out).await.chunk.unwrap().data[..], b"world");
    // Nobody watches any more: the node is told by the answer.
    drop(out);
    sending.await.unwrap();

    // A node that does not listen cannot be asked.
    drop(runner.orders);
    drop(runner.session.take());
    loop {
        // The stream's end reaches the control plane in its own time.
        match user.output("x").await {
            Err(status) => {
                assert_eq!(RpcError::from(status).reason, Some(Reason::NodeOffline));
                return;
            }
            Ok(mut stream) => {
                if let Err(status) = stream.message().await {
                    assert_eq!(RpcError::from(status).reason, Some(Reason::NodeOffline));
                    return;
                }
            }
        }
    }
}
