//! `wait SLUG…`: until agents need attention, or are in a phase. A timeout is exit code 6.

use std::time::{Duration, Instant};

use murmur_proto::{
    client::ControlClient,
    v1::{Phase, WaitAgentRequest, WaitAgentResponse},
    words::Words as _,
};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::{
    agent_view::{agent_json, told},
    args::Caller,
    comeback::is_away,
    connect::Target,
    duration,
    exit::Exit,
    failure::{Failure, OwnReason},
    output::{self, Outcome, Output},
    text::{clean, clean_line},
    word::word,
};

/// Between two tries to reach who went away during the wait.
const AGAIN: Duration = Duration::from_millis(500);
/// The longest that the control plane waits.
const TIMEOUT_MAX: Duration = Duration::from_secs(3600);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The agents; all of them are waited for
    #[arg(required = true, value_name = "SLUG")]
    slugs: Vec<String>,
    /// A phase to wait for; repeatable [default: task-complete, idle, sleeping, and every end]
    #[arg(long = "phase", value_name = "PHASE", value_parser = word::<Phase>())]
    phases: Vec<Phase>,
    /// How long to wait, at most 1h
    #[arg(long, value_parser = duration::parse, default_value = "10m", value_name = "TIME")]
    timeout: Duration,
    /// Print only what the agents answered
    #[arg(long, conflicts_with = "json")]
    response: bool,
    #[command(flatten)]
    caller: Caller,
}

/// What is waited for.
pub(super) struct Wait {
    pub(super) caller: Caller,
    pub(super) slugs: Vec<String>,
    pub(super) phases: Vec<Phase>,
    pub(super) timeout: Duration,
}

pub(crate) async fn run(target: &Target, args: Args, output: Output) -> Outcome {
    let Args { slugs, phases, timeout, response, caller } = args;
    let wait = Wait { caller, slugs, phases, timeout };
    if !response {
        return until(target, wait, output).await;
    }
    let asked = !wait.phases.is_empty();
    let answers = all_or_interrupted(target, wait).await?;
    let texts: Vec<_> = answers.iter().filter_map(|answer| answer.agent.as_ref()?.output.as_ref()).collect();
    output::line(&texts.iter().map(|output| clean(&output.response)).collect::<Vec<_>>().join("\n"))?;
    verdict(&answers, asked, timeout)
}

/// Waits, shows how all of them stand, and says by the exit code how it went.
pub(super) async fn until(target: &Target, wait: Wait, output: Output) -> Outcome {
    let (asked, timeout) = (!wait.phases.is_empty(), wait.timeout);
    let answers = all_or_interrupted(target, wait).await?;
    let values: Vec<Value> = answers.iter().map(answer_json).collect();
    let value = match values.as_slice() {
        [one] => one.clone(),
        _ => json!({"agents": values}),
    };
    output.show(&value, || {
        let agents = answers.iter().filter_map(|answer| answer.agent.as_ref());
        agents.map(told).collect::<Vec<_>>().join("\n")
    })?;
    verdict(&answers, asked, timeout)
}

/// A person who waits no longer is told that the agents are not concerned.
async fn all_or_interrupted(target: &Target, wait: Wait) -> Result<Vec<WaitAgentResponse>, Failure> {
    let slugs = wait.slugs.clone();
    tokio::select! {
        answers = all(target, wait) => answers,
        _ = tokio::signal::ctrl_c() => Err(interrupted(&slugs)),
    }
}

fn interrupted(slugs: &[String]) -> Failure {
    let names = slugs.iter().map(|slug| clean_line(slug)).collect::<Vec<_>>().join(", ");
    let (goes, them) = if slugs.len() == 1 { ("goes", "it") } else { ("go", "them") };
    Failure::new(Exit::Interrupted, format!("interrupted; {names} {goes} on"))
        .own_reason(OwnReason::Interrupted)
        .remedy(format!("Wait again with `murmurctl wait`, or end {them} with `murmurctl kill`."))
}

/// Everybody at once, in the order of their names on the command line.
async fn all(target: &Target, wait: Wait) -> Result<Vec<WaitAgentResponse>, Failure> {
    let Wait { caller, slugs, phases, timeout } = wait;
    if timeout > TIMEOUT_MAX {
        return Err(Failure::usage("--timeout must be at most 1h"));
    }
    let control = target.control_as(&caller).await?;
    let mut waits = JoinSet::new();
    for (at, slug) in slugs.into_iter().enumerate() {
        let phases = phases.iter().map(|phase| (*phase).into()).collect();
        let request = WaitAgentRequest { slug, phases, timeout: Some(proto_duration(timeout)) };
        let control = control.clone();
        waits.spawn(async move { one(control, request).await.map(|answer| (at, answer)) });
    }
    let mut answers = Vec::new();
    while let Some(ended) = waits.join_next().await {
        answers.push(ended.map_err(|error| Failure::failed(format!("waiting ended: {error}")))??);
    }
    answers.sort_by_key(|(at, _)| *at);
    Ok(answers.into_iter().map(|(_, answer)| answer).collect())
}

/// Waits through restarts of whoever is asked: the level is what counts, so that nothing is missed in between.
async fn one(control: ControlClient, mut request: WaitAgentRequest) -> Result<WaitAgentResponse, Failure> {
    let slug = request.slug.clone();
    let until = Instant::now() + request.timeout.and_then(|timeout| timeout.try_into().ok()).unwrap_or_default();
    let mut has_begun = false;
    loop {
        let ended = match ask(control.clone(), request.clone(), &mut has_begun).await {
            Ok(Some(answer)) => return Ok(answer),
            Ok(None) => None,
            Err(status) => Some(status),
        };
        let left = until.saturating_duration_since(Instant::now());
        let failure = ended.map_or_else(
            || Failure::new(Exit::Unavailable, format!("the call ended before {slug} was there")).remedy("Wait again."),
            Failure::from,
        );
        // Whoever was never there is told at once.
        if !has_begun || !is_away(&failure) || left.is_zero() {
            return Err(failure);
        }
        request.timeout = Some(proto_duration(left));
        tokio::time::sleep(AGAIN.min(left)).await;
    }
}

/// One call; `has_begun` once it was accepted.
async fn ask(
    mut control: ControlClient,
    request: WaitAgentRequest,
    has_begun: &mut bool,
) -> Result<Option<WaitAgentResponse>, tonic::Status> {
    let mut answers = control.agents.wait_agent(request).await?.into_inner();
    *has_begun = true;
    answers.message().await
}

fn answer_json(answer: &WaitAgentResponse) -> Value {
    let mut value = answer.agent.as_ref().map(agent_json).unwrap_or_default();
    value["matched"] = json!(answer.matched);
    value["timed_out"] = json!(answer.timed_out);
    value
}

/// All there: done. One late: timeout. Without asking for a phase, a failed agent is a failure.
fn verdict(answers: &[WaitAgentResponse], asked: bool, timeout: Duration) -> Outcome {
    let name = |answer: &WaitAgentResponse| {
        let agent = answer.agent.clone().unwrap_or_default();
        format!("{} is {}", clean_line(&agent.slug), agent.phase().word())
    };
    if let Some(late) = answers.iter().find(|answer| answer.timed_out) {
        let what = format!("{} after {}", name(late), duration::show(timeout));
        return Err(Failure::new(Exit::Timeout, what)
            .own_reason(OwnReason::WaitTimedOut)
            .remedy("It goes on; wait again, or look at it with `murmurctl logs`."));
    }
    if let Some(other) = answers.iter().find(|answer| !answer.matched) {
        return Err(Failure::failed(format!("{}, and will not be in that phase any more", name(other)))
            .remedy("`murmurctl status SLUG` tells why."));
    }
    let failed = answers.iter().find(|answer| {
        answer.agent.as_ref().is_some_and(|agent| matches!(agent.phase(), Phase::Failed | Phase::Canceled))
    });
    match failed {
        Some(failed) if !asked => Err(Failure::failed(name(failed))
            .remedy("`murmurctl status SLUG` tells why, `murmurctl logs SLUG` what it said.")),
        _ => Ok(Exit::Ok),
    }
}

/// A span of time as the contract writes it.
pub(super) fn proto_duration(duration: Duration) -> prost_types::Duration {
    murmur_proto::time::duration(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use murmur_proto::v1::AgentStatus;

    use super::*;

    fn exit(answers: &[(Phase, bool, bool)], asked: bool) -> Exit {
        let answers: Vec<_> = answers
            .iter()
            .map(|&(phase, matched, timed_out)| WaitAgentResponse {
                agent: Some(AgentStatus { phase: phase.into(), ..AgentStatus::default() }),
                matched,
                timed_out,
            })
            .collect();
        verdict(&answers, asked, Duration::from_secs(1)).unwrap_or_else(|failure| failure.exit)
    }

    #[test]
    fn the_exit_code_tells_how_it_went() {
        let there = (Phase::TaskComplete, true, false);
        let late = (Phase::Running, false, true);
        let failed = (Phase::Failed, true, false);
        assert_eq!(exit(&[there, there], false), Exit::Ok);
        assert_eq!(exit(&[there, late], false), Exit::Timeout);
        assert_eq!(exit(&[failed], false), Exit::Failed);
        assert_eq!(exit(&[failed], true), Exit::Ok);
        assert_eq!(exit(&[(Phase::Completed, false, false)], true), Exit::Failed);
    }
}
