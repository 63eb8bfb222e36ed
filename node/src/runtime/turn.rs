//! Turns: a prompt goes in, an answer comes out, and then it is decided what comes next.

use murmur_proto::{
    v1::{self, OnIdle, Phase},
    words::Words as _,
};
use nix::sys::signal::Signal;
use tokio::time::Instant;
use tracing::{info, warn};

use super::{
    answer::{Ear, Heard, cut},
    backend::{InterruptSignal, PromptBy},
    keeper::plan::{self, Plan, Stdin},
    life::Life,
    place::Past,
    process::Process,
    state::Turn,
    template::Values,
};
use crate::{failpoint::failpoint, rpc::control::ControlError};

/// A prompt that is told as what the agent works on is cut here.
const DESCRIPTION_BYTES_MAX: usize = 4 * 1024;

/// What the control plane has for the next turn.
pub(super) enum Claimed {
    /// Follow-ups.
    Turn(v1::ClaimTurnResponse),
    /// Nothing; these items of the checklist are open, when somebody asked.
    Nothing(Vec<v1::Task>),
    /// It cannot be asked now.
    Away,
    /// It says that this incarnation has no turns.
    Refused(String),
}

impl Life {
    /// The first turn of an incarnation.
    pub(super) async fn first_turn(&mut self) {
        if !self.whom.start.resume {
            self.begin_turn(Turn::own(self.spec.description.clone())).await;
            return;
        }
        // What woke it waits in the queue; one that is resurrected begins with what it is told now.
        self.claiming = Some(self.claim());
    }

    /// Begins a turn again of which it cannot be known whether the program has heard.
    pub(super) async fn begin_turn_again(&mut self, mut turn: Turn) {
        if !turn.redelivered {
            turn.redelivered = true;
            turn.prompt = format!("(may have been told before)\n{}", turn.prompt);
        }
        self.begin_turn(turn).await;
    }

    /// Gives the program a prompt.
    pub(super) async fn begin_turn(&mut self, turn: Turn) {
        let is_first = self.state.phase() == Phase::Starting;
        // No program can be given a NUL, and an agent is not to end by what somebody tells it.
        let prompt = turn.prompt.replace('\0', "\u{fffd}");
        self.state.turn = Some(Turn { taken: false, prompt: prompt.clone(), ..turn });
        (self.heard, self.last_words) = (Heard::default(), Vec::new());
        self.note(&format!("turn {}: {}", self.state.turns + 1, cut(prompt.lines().next().unwrap_or_default(), 200)));
        self.note_copies().await;
        let goes_on = self.process.is_some();
        if !goes_on {
            self.state.run += 1;
            self.state.has_process = true;
        }
        self.mark();
        self.commit(Vec::new()).await;
        failpoint("A1");
        let handed = if goes_on { self.hand_over(&prompt).await } else { self.launch(&prompt).await };
        if let Err(why) = handed {
            self.state.has_process = self.process.is_some();
            self.stop(Phase::Failed, &why, self.shop.grace(), false).await;
            return;
        }
        if goes_on || self.backend.start_lines.is_empty() {
            self.taken();
        }
        self.tell_running().await;
        if is_first {
            info!(agent.slug = %self.whom.slug, "agent {} runs", self.whom.slug);
        }
        self.read_output().await;
    }

    /// The runtime has the prompt: what it was claimed with is done with.
    fn taken(&mut self) {
        if let Some(turn) = &mut self.state.turn {
            turn.taken = true;
            self.state.taken_turn.clone_from(&turn.turn_id);
        }
        self.complete_turn();
    }

    pub(super) async fn tell_running(&mut self) {
        let prompt = self.state.turn.as_ref().map(|turn| turn.prompt.clone()).unwrap_or_default();
        let report = v1::AgentReport {
            current_description: cut(&prompt, DESCRIPTION_BYTES_MAX).to_owned(),
            ..self.moved(Phase::Running, "")
        };
        self.commit(vec![report]).await;
    }

    /// A report of a new phase, with the orders that it finishes.
    fn moved(&mut self, phase: Phase, reason: &str) -> v1::AgentReport {
        self.state.phase = phase.into();
        let order_ids = std::mem::take(&mut self.state.orders);
        v1::AgentReport { phase: phase.into(), reason: reason.to_owned(), order_ids, ..self.report() }
    }

    /// Starts a process for a prompt.
    async fn launch(&mut self, prompt: &str) -> Result<(), String> {
        let disk = |error: std::io::Error| format!("its folder cannot be used: {error}");
        let prepared = self.prepared.clone().ok_or("it is not prepared")?;
        let prompt = self.with_system_prompt(prompt);
        plan::write_bytes(&self.place.prompt(), prompt.as_bytes()).map_err(disk)?;
        if self.state.is_fork && self.backend.fork_args.is_empty() {
            // It makes no copies, and the session itself is another agent's.
            (self.state.session, self.state.is_fork) = (None, false);
        }
        if self.state.session.is_none() && !self.backend.session.is_empty() {
            self.state.session = Some(self.values(&prompt).fill(&self.backend.session));
        }
        let values = self.values(&prompt);
        let args = match (&self.state.session, self.state.is_fork) {
            (Some(_), true) => &self.backend.fork_args,
            (Some(_), false) if self.backend.can_resume() => &self.backend.resume_args,
            _ => &self.backend.args,
        };
        if let Some(hosted) = &self.backend.http {
            plan::write(&self.place.request(), &hosted.filled(&values)).map_err(disk)?;
        }
        let mut env = prepared.env;
        if let Some(turn) = self.state.turn.as_ref().filter(|_| self.backend.verbatim) {
            env.insert("MURMUR_FROM".to_owned(), turn.from.clone());
            env.insert("MURMUR_REDELIVERED".to_owned(), u8::from(turn.redelivered).to_string());
        }
        let plan = Plan {
            program: values.fill(&self.backend.program),
            args: values.args(args),
            env,
            dir: prepared.dir,
            stdin: match self.backend.prompt {
                PromptBy::Stdin => Stdin::File(self.place.prompt()),
                PromptBy::Argument => Stdin::Null,
                PromptBy::Lines => Stdin::Pipe,
            },
            limits: self.shop.config.limits,
            log: self.place.output(),
            log_bytes_max: self.shop.config.output_bytes_max,
        };
        self.ear = Ear::of_process(&self.backend, self.state.session.is_some(), &values);
        self.place.drop_runs_before(self.state.run.saturating_sub(2)).await;
        let started = Process::start(&self.shop.keeper, &self.place.run(self.state.run), &plan).await;
        self.process = Some(started.map_err(|error| error.to_string())?);
        if self.backend.start_lines.is_empty() {
            return if self.backend.stays() { self.hand_over(&prompt).await } else { Ok(()) };
        }
        let values = self.values(&prompt);
        let lines: String = self.backend.start_lines.iter().map(|line| values.line(line)).collect();
        self.write(&lines).await
    }

    /// Gives a program that is ready now the prompt that it waits for.
    pub(super) async fn begin_prompt(&mut self) {
        let Some(turn) = self.state.turn.as_ref().filter(|turn| !turn.taken) else { return };
        // What it told of an earlier turn, when it loaded its session, is none of this one's.
        self.heard = Heard::default();
        let prompt = self.with_system_prompt(&turn.prompt);
        if let Err(why) = self.hand_over(&prompt).await {
            self.stop(Phase::Failed, &why, self.shop.grace(), false).await;
            return;
        }
        self.taken();
        self.commit(Vec::new()).await;
        if std::mem::take(&mut self.interrupt_soon) {
            self.interrupt().await;
        }
    }

    /// Writes what answers the program. What it said itself is not filled in again.
    pub(super) async fn reply(&mut self, reply: &serde_json::Value) {
        if let Err(why) = self.write(&format!("{reply}\n")).await {
            warn!(agent.slug = %self.whom.slug, "it is not answered: {why}");
        }
    }

    async fn write(&mut self, text: &str) -> Result<(), String> {
        let Some(process) = &self.process else { return Ok(()) };
        process.write(text.as_bytes()).await.map_err(|error| format!("it takes no prompt: {error}"))
    }

    /// Writes a prompt to a process that takes lines.
    async fn hand_over(&mut self, prompt: &str) -> Result<(), String> {
        let Some(template) = &self.backend.prompt_line else { return Ok(()) };
        let line = self.values(prompt).line(template);
        self.write(&line).await
    }

    /// What is added to the system prompt comes first where the program knows no better place.
    fn with_system_prompt(&self, prompt: &str) -> String {
        let added = self.spec.append_system_prompt.trim();
        if added.is_empty() || self.backend.takes_system_prompt() || self.state.turns > 0 {
            return prompt.to_owned();
        }
        format!("{added}\n\n{prompt}")
    }

    fn values(&self, prompt: &str) -> Values {
        let mut values = Values::default();
        let shown = |path: &std::path::Path| path.to_string_lossy().into_owned();
        values.set("prompt", prompt);
        values.set("model", &self.spec.model);
        values.set("slug", self.whom.slug.to_string());
        values.set("agent_id", self.whom.agent.to_string());
        values.set("session", self.state.session.clone().unwrap_or_default());
        values.set("system_prompt", self.spec.append_system_prompt.trim());
        values.set("mcp_config", shown(&self.place.mcp_config()));
        let allowed = std::iter::once("murmur").chain(self.spec.mcp_servers.iter().map(String::as_str));
        values.set("mcp_allow", allowed.map(|server| format!("mcp__{server}")).collect::<Vec<_>>().join(","));
        values.set("mcp_program", shown(&self.shop.mcp_program));
        values.set("work_dir", shown(&self.place.work()));
        values.set("cwd", self.prepared.as_ref().map(|prepared| shown(&prepared.dir)).unwrap_or_default());
        values.set("socket", shown(&self.shop.socket));
        values.set("token_file", shown(&self.place.token()));
        values.set("node_program", self.shop.keeper.to_string_lossy());
        values.set("request_file", shown(&self.place.request()));
        values.set("home", std::env::var("HOME").unwrap_or_default());
        values.set_list("trust_args", self.backend.trust_args(self.spec.trust_level().into()));
        values.set("request_id", format!("murmur-{}", self.state.turns));
        values
    }

    /// Tells that the runtime took the prompt. Unheard, the next claim answers the same turn, which is then told again.
    pub(super) fn complete_turn(&self) {
        let Some(turn) = self.state.turn.as_ref().filter(|turn| !turn.turn_id.is_empty()) else { return };
        self.complete(turn.turn_id.clone());
    }

    fn complete(&self, turn_id: String) {
        let (control, agent, incarnation) = (self.shop.control.clone(), self.whom.agent, self.incarnation);
        tokio::spawn(async move {
            if let Err(error) = control.complete_turn(agent, incarnation, turn_id).await {
                warn!(agent.id = %agent, %error, "that a turn began is not told yet");
            }
        });
    }

    /// The turn has ended by itself.
    pub(super) async fn on_turn_end(&mut self) {
        if self.interrupting.is_some() {
            self.on_interrupted().await;
            return;
        }
        if self.heard.failed {
            let why = self.why_failed("its turn failed");
            self.stop(Phase::Failed, &why, self.shop.grace(), false).await;
            return;
        }
        self.close_turn();
        let seen = self.look_at_copies().await;
        let mut report = self.moved(Phase::TaskComplete, "");
        (report.copies, report.timeline) = seen;
        report.exit_code = self.exit_code.take();
        report.output = Some(self.state.output());
        self.commit(vec![report]).await;
        if self.stopping.is_none() {
            self.claim_now();
        }
    }

    /// The turn has ended because somebody wanted that.
    pub(super) async fn on_interrupted(&mut self) {
        self.interrupting = None;
        self.close_turn();
        let seen = self.look_at_copies().await;
        let mut report = self.moved(Phase::Idle, "interrupted");
        (report.copies, report.timeline) = seen;
        report.output = Some(self.state.output());
        self.commit(vec![report]).await;
        self.claim_now();
    }

    /// Takes over what the turn has said.
    fn close_turn(&mut self) {
        let turn = self.state.turn.take().unwrap_or_default();
        let heard = std::mem::take(&mut self.heard);
        if let Some(answer) = heard.answer {
            self.state.response = answer;
        }
        self.state.tokens = self.state.tokens.saturating_add(heard.tokens);
        self.state.turns += 1;
        self.mark();
        let past = Past {
            incarnation: self.incarnation,
            turn: self.state.turns,
            time_ms: self.shop.clock.now_ms(),
            prompt: &turn.prompt,
            answer: &self.state.response,
        };
        if let Err(error) = self.place.remember(&past) {
            warn!(agent.slug = %self.whom.slug, %error, "a turn is missing in its history");
        }
    }

    /// Why it gets no other turn.
    fn over_budget(&self) -> Option<&'static str> {
        let budget = self.spec.budget.as_ref()?;
        let is_over = |limit: u64, used: u64| limit > 0 && used >= limit;
        if is_over(budget.max_turns.into(), self.state.turns.into()) {
            return Some("its turns are used up (budget.max_turns)");
        }
        is_over(budget.max_cost_micros, self.state.cost_micros).then_some("its money is used up (budget.max_cost_usd)")
    }

    pub(super) fn claim_now(&mut self) {
        self.claim_at = Some(Instant::now());
    }

    /// Asks what comes next.
    pub(super) fn claim(&self) -> futures::future::BoxFuture<'static, Claimed> {
        let (control, agent, incarnation) = (self.shop.control.clone(), self.whom.agent, self.incarnation);
        let single = self.backend.verbatim;
        let assesses = self.spec.completion_check() == v1::CompletionCheck::Assessor
            && self.state.assessed < self.shop.config.assess_rounds_max
            && self.state.turn.is_none()
            && self.state.turns > 0;
        Box::pin(async move {
            let claimed = match control.claim_turn(agent, incarnation, single).await {
                Ok(Some(turn)) => Ok(Claimed::Turn(turn)),
                Ok(None) if assesses => control.open_tasks(agent).await.map(Claimed::Nothing),
                Ok(None) => Ok(Claimed::Nothing(Vec::new())),
                Err(error) => Err(error),
            };
            claimed.unwrap_or_else(|error| match error {
                ControlError::Refused(refusal) if !refusal.is_passing() => Claimed::Refused(refusal.to_string()),
                ControlError::Refused(_) | ControlError::Down(_) | ControlError::Malformed(_) => Claimed::Away,
            })
        })
    }

    pub(super) async fn on_claimed(&mut self, claimed: Claimed) {
        if self.stopping.is_some() || !self.is_live {
            return;
        }
        if !matches!(claimed, Claimed::Away) {
            for order_id in std::mem::take(&mut self.drains) {
                self.add_order(order_id);
            }
        }
        match claimed {
            Claimed::Away => {
                self.claim_at = Some(Instant::now() + self.claim_delay.next());
                return;
            }
            Claimed::Refused(why) => {
                warn!(agent.slug = %self.whom.slug, "no turn: {why}");
                if self.state.phase() == Phase::Starting {
                    self.begin_turn(Turn::own(self.spec.description.clone())).await;
                }
            }
            // The runtime has it already, and that was not heard.
            Claimed::Turn(turn) if turn.turn_id == self.state.taken_turn => {
                self.complete(turn.turn_id);
                self.claim_at = Some(Instant::now() + self.claim_delay.next());
                return;
            }
            Claimed::Turn(turn) if self.state.turn.is_some() => self.join_turn(turn).await,
            Claimed::Turn(turn) => {
                self.state.assessed = 0;
                self.next_turn(self.given(turn)).await;
            }
            // Something has come meanwhile: it is asked again.
            Claimed::Nothing(_) if self.state.turn.is_some() || self.claim_at.is_some() => {}
            Claimed::Nothing(_) if self.state.phase() == Phase::Starting => self.begin_again().await,
            Claimed::Nothing(tasks) if !tasks.is_empty() => {
                self.state.assessed += 1;
                self.next_turn(Turn::own(reminder(&tasks))).await;
            }
            Claimed::Nothing(_) => self.on_idle().await,
        }
        self.claim_delay.reset();
    }

    /// An incarnation that goes on, and nothing waits for it: it was resurrected with a new description, or woken for what was
    /// taken back meanwhile.
    async fn begin_again(&mut self) {
        if !self.state.was_asleep {
            self.next_turn(Turn::own(self.spec.description.clone())).await;
            return;
        }
        let reports = [Phase::Running, Phase::Idle].map(|phase| self.moved(phase, "nothing waits"));
        self.commit(reports.into()).await;
        self.on_idle().await;
    }

    async fn next_turn(&mut self, turn: Turn) {
        match self.over_budget() {
            Some(why) => self.stop(Phase::Failed, why, self.shop.grace(), false).await,
            None => self.begin_turn(turn).await,
        }
    }

    /// The turn that the control plane has given.
    fn given(&self, claimed: v1::ClaimTurnResponse) -> Turn {
        let v1::ClaimTurnResponse { turn_id, follow_ups, .. } = claimed;
        let prompt = if self.backend.verbatim { verbatim(&follow_ups) } else { prompt(&follow_ups) };
        let mut from: Vec<&str> = follow_ups.iter().map(|follow_up| follow_up.from.as_str()).collect();
        from.dedup();
        let redelivered = follow_ups.iter().any(|follow_up| follow_up.redelivered);
        Turn { turn_id, prompt, taken: false, from: from.join(" "), redelivered }
    }

    /// Follow-ups for a turn that runs.
    async fn join_turn(&mut self, turn: v1::ClaimTurnResponse) {
        let text = prompt(&turn.follow_ups);
        match self.hand_over(&text).await {
            Ok(()) => {
                self.note("a follow-up joins the turn");
                self.state.taken_turn.clone_from(&turn.turn_id);
                self.complete(turn.turn_id);
                // It runs already; who waits for it hears by this that the work has begun.
                self.tell_running().await;
            }
            // It is claimed again after the turn.
            Err(why) => warn!(agent.slug = %self.whom.slug, "a follow-up waits: {why}"),
        }
    }

    fn idles_by(&self) -> OnIdle {
        match self.spec.on_idle() {
            OnIdle::Unspecified if self.is_done() => OnIdle::Terminate,
            on_idle => on_idle,
        }
    }

    /// A program that remembers nothing is done when it ends, unless it was said otherwise.
    fn is_done(&self) -> bool {
        self.spec.on_idle() == OnIdle::Unspecified && !self.backend.stays() && !self.backend.can_resume()
    }

    /// Nothing waits. Whether it is to sleep or to end then is the control plane's to say, which knows of work that comes meanwhile.
    async fn on_idle(&mut self) {
        match self.idles_by() {
            OnIdle::Unspecified => self.finish_orders().await,
            _ if self.is_done() => self.stop(Phase::Completed, "its work is done", self.shop.grace(), false).await,
            _ if self.state.phase() == Phase::Idle => self.finish_orders().await,
            _ => {
                let report = self.moved(Phase::Idle, "");
                self.commit(vec![report]).await;
            }
        }
    }

    async fn finish_orders(&mut self) {
        if !self.state.orders.is_empty() {
            let order_ids = std::mem::take(&mut self.state.orders);
            let report = v1::AgentReport { order_ids, ..self.report() };
            self.commit(vec![report]).await;
        }
    }

    /// Ends the turn, if there is one.
    pub(super) async fn on_interrupt(&mut self, order_id: u64) {
        let has_turn = self.process.is_some() && self.state.turn.is_some();
        if !has_turn || self.stopping.is_some() || !self.backend.can_interrupt() {
            self.finish_order(order_id).await;
            return;
        }
        self.add_order(order_id);
        match self.state.turn.as_ref().is_some_and(|turn| turn.taken) {
            true => self.interrupt().await,
            // Not before it has the prompt, or that would be lost.
            false => self.interrupt_soon = true,
        }
    }

    async fn interrupt(&mut self) {
        if self.interrupting.is_some() {
            return;
        }
        self.note("interrupted");
        self.interrupting = Some(Instant::now() + self.shop.grace());
        let line = self.backend.interrupt_line.as_ref().map(|line| self.values("").line(line));
        if let (Some(line), Some(process)) = (line, &self.process)
            && process.write(line.as_bytes()).await.is_ok()
        {
            return;
        }
        let signal = match self.backend.interrupt_signal {
            InterruptSignal::None => Signal::SIGTERM,
            signal => signal.signal().unwrap_or(Signal::SIGINT),
        };
        self.signal(signal);
    }

    /// The incarnation is over, or sleeps: told, and no longer looked after.
    pub(super) async fn finish(&mut self, end: Phase, reason: &str, exit_code: Option<i32>) {
        let is_ordered = self.stopping.as_ref().is_some_and(|stopping| stopping.is_ordered);
        if self.state.turn.is_some() {
            self.close_turn();
        }
        let mut reports = Vec::new();
        let phase = self.state.phase();
        let before = match end {
            Phase::Sleeping if phase != Phase::Idle => Some(Phase::Idle),
            Phase::Failed if matches!(phase, Phase::Starting | Phase::Running | Phase::ChecksPending) => None,
            Phase::Completed | Phase::Failed | Phase::Canceled if !is_ordered && phase != Phase::Destroying => {
                Some(Phase::Destroying)
            }
            _ => None,
        };
        if let Some(before) = before {
            let mut report = self.report();
            (report.phase, report.reason) = (before.into(), reason.to_owned());
            reports.push(report);
        }
        let mut last = self.moved(end, reason);
        last.output = Some(self.state.output());
        last.exit_code = exit_code;
        reports.push(last);
        self.is_live = false;
        let word = end.word();
        let shown = if reason.is_empty() { word.to_owned() } else { format!("{word}: {reason}") };
        self.note(&shown);
        // The reason may have words of the program in it, which are in its own log and in the report, and have no place in the node's.
        info!(agent.slug = %self.whom.slug, exit_code, "agent {} ends here: {word}", self.whom.slug);
        self.commit(reports).await;
    }
}

/// Follow-ups as they were written.
fn verbatim(follow_ups: &[v1::FollowUp]) -> String {
    follow_ups.iter().map(|follow_up| follow_up.description.as_str()).collect::<Vec<_>>().join("\n")
}

/// Follow-ups as one prompt.
fn prompt(follow_ups: &[v1::FollowUp]) -> String {
    let one = |follow_up: &v1::FollowUp| {
        let again = if follow_up.redelivered { " (may have been told before)" } else { "" };
        match follow_up.from.is_empty() {
            true => format!("{}{again}", follow_up.description),
            false => format!("[from {}]{again}\n{}", follow_up.from, follow_up.description),
        }
    };
    follow_ups.iter().map(one).collect::<Vec<_>>().join("\n\n")
}

/// The prompt for what is still open.
fn reminder(tasks: &[v1::Task]) -> String {
    let lines: Vec<String> = tasks.iter().map(|task| format!("- {} ({})", task.subject, task.task_id)).collect();
    format!(
        "These items of your checklist are still open. Go on with them, or mark as completed or deleted what is done or not needed:\n{}",
        lines.join("\n")
    )
}
