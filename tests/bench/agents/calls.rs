//! Unary calls beside a bare echo.

use std::time::Duration;

use murmur_proto::{client::ControlClient, v1};
use murmur_tests::network::Network;

use super::{per_second, person, slug, timed};
use crate::{echo, model::Table};

/// Agents that there are meanwhile.
pub(super) const AGENTS: usize = 100;
const IN_FLIGHT: [usize; 3] = [1, 16, 64];
const WINDOW: Duration = Duration::from_secs(2);
const LATENCIES: usize = 1_000;
/// Checklists that are written at one time.
const WRITERS: [usize; 2] = [1, 32];

const READS: [&str; 4] = ["who am I", "status", "ls, ten agents", "task get"];

/// The tables, and the smallest share of the echo's rate that a read has with the most in flight.
pub(super) async fn measure(network: &Network) -> (Vec<Table>, f64) {
    let caller = person(network).await;
    for agent in 0..AGENTS {
        let request = v1::CreateTaskRequest { slug: few(agent), subject: "an item".into(), ..Default::default() };
        caller.tasks.clone().create_task(request).await.unwrap();
    }
    let echo = echo::Tcp::start().await;
    let mut rates = Table::new(&["in flight", "who am I", "status", "ls, ten agents", "task get", "bare echo"]);
    let mut shares = Table::new(&["in flight", "who am I", "status", "ls, ten agents", "task get"]);
    let mut least = f64::NAN;
    for in_flight in IN_FLIGHT {
        let channel = echo.channel();
        let bare = per_second(in_flight, WINDOW, move |_| {
            let channel = channel.clone();
            async move { drop(echo::call(channel, echo::SMALL_BYTES).await.unwrap()) }
        })
        .await;
        let mut figures = Vec::new();
        for read in READS {
            let caller = caller.clone();
            figures.push(
                per_second(in_flight, WINDOW, move |lane| {
                    let caller = caller.clone();
                    async move { call(caller, read, lane).await }
                })
                .await,
            );
        }
        least = figures.iter().map(|figure| figure / bare).fold(f64::INFINITY, f64::min);
        shares.row(in_flight.to_string(), figures.iter().map(|figure| (figure / bare).into()).collect());
        rates.row(in_flight.to_string(), figures.into_iter().chain([bare]).map(Into::into).collect());
    }
    let mut single = super::latencies("one call after the other");
    for read in READS {
        let samples = timed(LATENCIES, |number| call(caller.clone(), read, number)).await;
        single.row(read, vec![samples.p50().into(), samples.p99().into()]);
    }
    let channel = echo.channel();
    let bare =
        timed(LATENCIES, |_| async { drop(echo::call(channel.clone(), echo::SMALL_BYTES).await.unwrap()) }).await;
    single.row("bare echo", vec![bare.p50().into(), bare.p99().into()]);
    let mut writes = Table::new(&["checklists written at once", "task_update, per second"]);
    for writers in WRITERS {
        let caller = caller.clone();
        let rate = per_second(writers, WINDOW, move |lane| {
            let caller = caller.clone();
            async move { toggle(caller, lane).await }
        })
        .await;
        // Each makes two updates.
        writes.row(writers.to_string(), vec![(2.0 * rate).into()]);
    }
    (vec![rates, shares, single, writes], least)
}

fn few(agent: usize) -> String {
    slug(&format!("few-{}", agent % AGENTS))
}

async fn call(mut caller: ControlClient, read: &str, lane: usize) {
    match read {
        "who am I" => drop(caller.auth.who_am_i(v1::WhoAmIRequest {}).await.unwrap()),
        "status" => {
            let request = v1::GetAgentStatusRequest { slug: few(lane), ..Default::default() };
            drop(caller.agents.get_agent_status(request).await.unwrap());
        }
        "task get" => {
            let request = v1::GetTaskRequest { slug: few(lane), task_id: "1".into() };
            drop(caller.tasks.get_task(request).await.unwrap());
        }
        _ => {
            let request = v1::ListAgentStatusRequest { page_size: 10, ..Default::default() };
            let answer = caller.agents.list_agent_status(request).await.unwrap().into_inner();
            assert_eq!(answer.agents.len(), 10);
        }
    }
}

/// Starts an item and puts it back.
async fn toggle(mut caller: ControlClient, lane: usize) {
    for status in [v1::TaskStatus::InProgress, v1::TaskStatus::Pending] {
        let request = v1::UpdateTaskRequest {
            slug: few(lane),
            task_id: "1".into(),
            status: Some(status.into()),
            ..Default::default()
        };
        caller.tasks.update_task(request).await.unwrap();
    }
}
