//! One incarnation of an agent, from its start to its end: a task that owns the agent's process, and takes orders between its events.

use std::{sync::Arc, time::Duration};

use futures::{FutureExt as _, future::BoxFuture};
use murmur_core::{id::AgentId, retry::Backoff, slug::Slug};
use murmur_proto::{
    time::{span, timestamp},
    v1::{self, Phase, order::Item},
};
use nix::sys::signal::Signal;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};
use tracing::{info, warn};

use super::{
    Workshop,
    answer::{ANSWER_BYTES_MAX, Ear, Heard, cut},
    backend::Backend,
    keeper::{
        log::{LogReader, Source},
        plan::Exit,
    },
    place::Place,
    prepare::{Prepared, Whom, prepare, prepared},
    process::{Found, Process},
    state::{State, Turn},
    turn::Claimed,
};
use crate::delay::Delay;

/// What the agent says of itself is told no more often than this.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);
/// Between tries to ask for a turn while the control plane is away.
const CLAIM_BACKOFF: Backoff = Backoff { base_ms: 200, cap_ms: 10_000 };
/// Nothing is that far away.
const FAR: Duration = Duration::from_secs(30 * 24 * 3600);
/// The end of what a failed program wrote to its standard error is told with its end.
const LAST_WORDS_BYTES_MAX: usize = 400;

/// Frames of its log that are taken in before orders and timers have their turn: a program may write faster than it is read.
const FRAMES_MAX: u32 = 64;

/// How an incarnation was left.
pub(super) enum Over {
    /// It has ended, or sleeps.
    Ended,
    /// A later incarnation is to start.
    Superseded(Box<v1::Order>),
    /// This node goes down; the process goes on.
    Left,
}

/// One incarnation of an agent.
pub(super) struct Life {
    pub(super) shop: Arc<Workshop>,
    pub(super) whom: Whom,
    pub(super) incarnation: u32,
    pub(super) spec: v1::AgentSpec,
    pub(super) backend: Backend,
    pub(super) place: Place,
    pub(super) state: State,
    pub(super) prepared: Option<Prepared>,
    pub(super) process: Option<Process>,
    pub(super) log: LogReader,
    pub(super) ear: Ear,
    /// What the process returned with which the turn ended.
    pub(super) exit_code: Option<i32>,
    /// What the turn has said so far.
    pub(super) heard: Heard,
    pub(super) last_words: Vec<u8>,
    /// Rings for those who watch the output.
    pub(super) output: watch::Sender<u64>,
    pub(super) stopping: Option<Stopping>,
    pub(super) interrupting: Option<Instant>,
    /// The turn is ended as soon as the program has its prompt.
    pub(super) interrupt_soon: bool,
    /// Orders to claim a turn, which the next answer finishes.
    pub(super) drains: Vec<u64>,
    /// Reports that could not be stored yet.
    pub(super) unsaved: Vec<v1::AgentReport>,
    pub(super) claiming: Option<BoxFuture<'static, Claimed>>,
    pub(super) claim_at: Option<Instant>,
    pub(super) claim_delay: Delay,
    pub(super) is_live: bool,
    is_stuck: bool,
    stuck_at: Instant,
    progress: Option<String>,
    progress_at: Option<Instant>,
    /// The log is to be read though nothing rings.
    look_at: Option<Instant>,
}

/// The process is being ended.
pub(super) struct Stopping {
    pub(super) end: Phase,
    pub(super) reason: String,
    /// The control plane ordered it, and has the agent DESTROYING.
    pub(super) is_ordered: bool,
    step: Step,
    deadline: Instant,
    grace: Duration,
}

/// How hard a process is asked to end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Its standard input has ended.
    Closed,
    Terminated,
    Killed,
}

/// How an incarnation begins here.
pub(super) enum Beginning {
    /// It is ordered.
    Ordered,
    /// An earlier process of the node has left it.
    Found,
}

impl Life {
    pub(super) fn new(
        shop: Arc<Workshop>,
        (agent, slug, incarnation): (AgentId, Slug, u32),
        start: v1::StartAgent,
        state: State,
        output: watch::Sender<u64>,
    ) -> Result<Self, String> {
        let mut spec = start.spec.clone().unwrap_or_default();
        if !spec.persona.is_empty() {
            let persona = shop.config.personas.get(&spec.persona);
            let persona = persona.ok_or_else(|| format!("this node has no persona `{}`", spec.persona))?;
            let own = std::mem::take(&mut spec.append_system_prompt);
            spec.append_system_prompt = [persona.system_prompt.as_str(), &own].join("\n\n").trim().to_owned();
            for (said, default) in [(&mut spec.model, &persona.model), (&mut spec.backend, &persona.backend)] {
                if said.is_empty() {
                    said.clone_from(default);
                }
            }
        }
        let name = if spec.backend.is_empty() { shop.config.default_backend() } else { spec.backend.clone() };
        let backend = shop.backends.get(&name).ok_or_else(|| format!("this node has no backend `{name}`"))?.clone();
        let place = Place::new(&shop.dir, agent);
        let (pass_env, backend_env) = (backend.pass_env.clone(), backend.env.clone());
        let whom = Whom { agent, slug, start, pass_env, backend_env };
        let now = Instant::now();
        Ok(Self {
            log: LogReader::new(&place.output(), state.cursor),
            ear: Ear::new(&backend),
            whom,
            incarnation,
            spec,
            backend,
            place,
            state,
            prepared: None,
            process: None,
            exit_code: None,
            heard: Heard::default(),
            last_words: Vec::new(),
            output,
            stopping: None,
            interrupting: None,
            interrupt_soon: false,
            drains: Vec::new(),
            unsaved: Vec::new(),
            claiming: None,
            claim_at: None,
            claim_delay: Delay::new(CLAIM_BACKOFF),
            is_live: true,
            is_stuck: false,
            stuck_at: now + Duration::from_millis(shop.config.stuck_after_ms),
            progress: None,
            progress_at: None,
            look_at: None,
            shop,
        })
    }

    /// Lives until it is over.
    pub(super) async fn live(mut self, beginning: Beginning, inbox: &mut mpsc::UnboundedReceiver<v1::Order>) -> Over {
        let begun = match beginning {
            Beginning::Ordered => self.begin(inbox).await,
            Beginning::Found => self.resume(inbox).await,
        };
        if let Some(over) = begun {
            return over;
        }
        let stop = self.shop.stop.clone();
        while self.is_live {
            let timers = self.timers();
            let stuck_at = self.stuck_at;
            let watches_silence = self.state.turn.is_some() && !self.is_stuck;
            tokio::select! {
                () = stop.cancelled() => {
                    self.commit(Vec::new()).await;
                    return Over::Left;
                }
                order = inbox.recv() => match order {
                    None => return Over::Left,
                    Some(order) => if let Some(over) = self.order(order).await { return over },
                },
                rings = rings(&mut self.process) => self.on_bell(rings).await,
                claimed = next(&mut self.claiming) => {
                    self.claiming = None;
                    self.on_claimed(claimed).await;
                }
                () = sleep_until(stuck_at), if watches_silence => self.set_stuck(true).await,
                () = sleep_until(timers) => self.on_timer().await,
            }
        }
        Over::Ended
    }

    /// Prepares and begins the first turn, unless an order comes between.
    async fn begin(&mut self, inbox: &mut mpsc::UnboundedReceiver<v1::Order>) -> Option<Over> {
        let (shop, whom) = (self.shop.clone(), self.whom.clone());
        // What cannot be made is told by what is prepared next.
        let _ = self.place.make();
        self.note(&format!("starting {} (incarnation {})", self.whom.slug, self.incarnation));
        let mut preparing = Box::pin(async move { prepare(&shop, &whom).await });
        let stop = self.shop.stop.clone();
        let prepared = loop {
            tokio::select! {
                () = stop.cancelled() => return Some(Over::Left),
                prepared = &mut preparing => break prepared,
                order = inbox.recv() => {
                    let Some(order) = order else { return Some(Over::Left) };
                    if let Some(over) = self.order(order).await {
                        return Some(over);
                    }
                    if !self.is_live {
                        return Some(Over::Ended);
                    }
                }
            }
        };
        match prepared {
            Ok(prepared) => {
                self.prepared = Some(prepared);
                self.first_turn().await;
            }
            Err(why) => self.finish(Phase::Failed, &why, None).await,
        }
        None
    }

    /// Goes on with what an earlier process of the node has left.
    async fn resume(&mut self, inbox: &mut mpsc::UnboundedReceiver<v1::Order>) -> Option<Over> {
        if self.state.phase() == Phase::Starting && !self.state.has_process {
            return self.begin(inbox).await;
        }
        self.prepared = Some(prepared(&self.shop, &self.whom));
        if !self.state.has_process {
            self.begin_wished().await;
            return None;
        }
        let found = Process::find(&self.place.run(self.state.run)).await;
        match found {
            Ok(Found::Unstarted) => {
                self.state.has_process = false;
                self.begin_wished().await;
            }
            Ok(Found::Running(process)) => self.rejoin(process).await,
            Ok(Found::Ended(exit)) => {
                self.read_rest().await;
                self.on_exit(Some(exit)).await;
            }
            Ok(Found::Lost) => {
                self.read_rest().await;
                self.on_exit(None).await;
            }
            Err(error) => {
                self.state.has_process = false;
                self.finish(Phase::Failed, &format!("its process cannot be looked for: {error}"), None).await;
            }
        }
        None
    }

    /// The node ended between its wish and the deed.
    async fn begin_wished(&mut self) {
        match self.state.turn.clone() {
            Some(turn) => self.begin_turn(turn).await,
            None => self.claim_now(),
        }
    }

    async fn rejoin(&mut self, mut process: Process) {
        info!(agent.slug = %self.whom.slug, "agent {} is found running", self.whom.slug);
        self.note("found running by a node that was started again");
        let was_handing = |turn: &Turn| !turn.taken || self.backend.replies();
        let is_torn = self.backend.stays() && self.state.turn.as_ref().is_some_and(was_handing);
        if is_torn {
            // How much of what was written it has cannot be known: it goes on from its session with all of it.
            process.signal(Signal::SIGKILL);
            while process.rings().await.unwrap_or(false) {}
            self.state.has_process = false;
            self.skip_output().await;
            if let Some(turn) = self.state.turn.clone() {
                self.begin_turn_again(turn).await;
            }
            return;
        }
        self.process = Some(process);
        if let Some(turn) = &mut self.state.turn {
            turn.taken = true;
        }
        self.read_output().await;
        if self.state.turn.is_some() && self.state.phase() == Phase::Starting {
            self.tell_running().await;
        } else if self.state.turn.is_none() {
            self.claim_now();
        }
        self.complete_turn();
    }

    /// Takes an order.
    async fn order(&mut self, order: v1::Order) -> Option<Over> {
        if order.incarnation < self.incarnation {
            self.finish_order(order.order_id).await;
            return None;
        }
        match order.item {
            Some(Item::Start(_)) if order.incarnation > self.incarnation => {
                // The control plane is sure that this incarnation is over: it ends without a word.
                self.end_now().await;
                return Some(Over::Superseded(Box::new(order)));
            }
            Some(Item::Start(_)) if self.state.phase() == Phase::Starting => self.add_order(order.order_id),
            Some(Item::Start(_)) | None => self.finish_order(order.order_id).await,
            Some(Item::Stop(stop)) => self.on_stop(order.order_id, stop).await,
            Some(Item::Interrupt(_)) => self.on_interrupt(order.order_id).await,
            // Work for one that is about to sleep wakes it again; the control plane takes the order back for that.
            Some(Item::Drain(_)) if self.stopping.is_some() => {}
            Some(Item::Drain(_)) => {
                // Open until something was claimed: as long as it is, the control plane lets nobody sleep.
                self.drains.push(order.order_id);
                let joins_turn = self.joins_turns() && self.state.turn.as_ref().is_some_and(|turn| turn.taken);
                if (self.state.turn.is_none() && self.state.phase() != Phase::Starting) || joins_turn {
                    self.claim_now();
                }
            }
        }
        None
    }

    /// Follow-ups go into the running turn.
    pub(super) fn joins_turns(&self) -> bool {
        self.backend.stays() && self.spec.session_mode() == v1::SessionMode::Streaming
    }

    async fn on_stop(&mut self, order_id: u64, stop: v1::StopAgent) {
        self.add_order(order_id);
        let end = match stop.end() {
            Phase::Unspecified => Phase::Canceled,
            end => end,
        };
        let grace = stop.grace.as_ref().and_then(span).unwrap_or(self.shop.grace());
        self.stop(end, &stop.reason, grace, true).await;
    }

    /// Ends the process, then the incarnation.
    pub(super) async fn stop(&mut self, end: Phase, reason: &str, grace: Duration, is_ordered: bool) {
        (self.claiming, self.claim_at) = (None, None);
        if self.process.is_none() {
            self.stopping = is_ordered.then(|| Stopping::new(end, reason, grace, true));
            self.finish(end, reason, None).await;
            return;
        }
        let known = self.stopping.as_ref().map(|known| (known.is_ordered, known.step));
        match known {
            // Somebody else's words on an end that is under way.
            Some((true, _)) => {}
            Some((false, Step::Closed)) | None => {
                let mut stopping = Stopping::new(end, reason, grace, is_ordered);
                let is_kill = is_ordered && end != Phase::Sleeping;
                if is_kill || !self.backend.stays() {
                    stopping.step = Step::Terminated;
                    self.signal(Signal::SIGTERM);
                } else if let Some(process) = &self.process {
                    process.close_stdin();
                }
                self.stopping = Some(stopping);
            }
            Some((false, _)) => {
                if let Some(stopping) = &mut self.stopping {
                    (stopping.end, stopping.reason, stopping.is_ordered) = (end, reason.to_owned(), is_ordered);
                }
            }
        }
    }

    async fn end_now(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.signal(Signal::SIGKILL);
            while process.rings().await.unwrap_or(false) {}
        }
        self.state.has_process = false;
    }

    /// A signal, and then a look at the log: what rang meanwhile has been taken.
    pub(super) fn signal(&mut self, signal: Signal) {
        if let Some(process) = &self.process {
            process.signal(signal);
        }
        self.look_at = Some(Instant::now());
    }

    async fn on_bell(&mut self, rings: std::io::Result<bool>) {
        self.read_output().await;
        if rings.unwrap_or(false) {
            return;
        }
        let exit = self.process.take().and_then(|process| process.exit().ok().flatten());
        self.read_rest().await;
        self.on_exit(exit).await;
    }

    /// Takes in what the log has; when that is much, a part of it, and the rest after orders and timers had their turn.
    pub(super) async fn read_output(&mut self) {
        if self.read_part().await {
            self.look_at = Some(Instant::now());
        }
    }

    /// Takes in all that the log has: its program has ended, and adds nothing to it.
    async fn read_rest(&mut self) {
        while self.read_part().await {}
    }

    /// Takes in some frames of the log and says whether there may be more.
    async fn read_part(&mut self) -> bool {
        let mut count = 0;
        while count < FRAMES_MAX {
            let frame = match self.log.read() {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(error) => {
                    warn!(agent.slug = %self.whom.slug, %error, "its output cannot be read");
                    break;
                }
            };
            count += 1;
            match frame.source {
                Source::Stdout => {
                    for heard in self.ear.hear(&frame.data) {
                        self.on_heard(heard).await;
                    }
                }
                Source::Stderr => {
                    self.last_words.extend_from_slice(&frame.data);
                    let extra = self.last_words.len().saturating_sub(4 * LAST_WORDS_BYTES_MAX);
                    self.last_words.drain(..extra);
                }
                Source::Note => {}
            }
            tokio::task::yield_now().await;
        }
        if count > 0 {
            self.output.send_modify(|count| *count += 1);
            self.stuck_at = Instant::now() + Duration::from_millis(self.shop.config.stuck_after_ms);
            if self.is_stuck {
                self.set_stuck(false).await;
            }
        }
        count == FRAMES_MAX
    }

    async fn skip_output(&mut self) {
        while let Ok(Some(_)) = self.log.read() {
            tokio::task::yield_now().await;
        }
        self.ear = Ear::new(&self.backend);
    }

    /// Takes in what the program says.
    pub(super) async fn on_heard(&mut self, heard: Heard) {
        if let Some(session) = heard.session {
            (self.state.session, self.state.is_fork) = (Some(session), false);
        }
        if let Some(cost) = heard.cost_micros {
            self.state.cost_micros = self.state.cost_before_micros.saturating_add(cost);
            let limit = self.spec.budget.as_ref().map_or(0, |budget| budget.max_cost_micros);
            if limit > 0 && self.state.cost_micros > limit && !heard.turn_ended && self.stopping.is_none() {
                self.stop(Phase::Failed, "its money is used up (budget.max_cost_usd)", self.shop.grace(), false).await;
            }
        }
        self.heard.answer = match (self.heard.answer.take(), heard.answer) {
            (Some(said), Some(more)) if heard.appends => Some(cut(&(said + &more), ANSWER_BYTES_MAX).to_owned()),
            (said, heard) => heard.or(said),
        };
        if let Some(reply) = heard.reply.filter(|_| !heard.failed) {
            self.reply(&reply).await;
        }
        if heard.begins && !heard.failed {
            self.begin_prompt().await;
        }
        self.heard.tokens = self.heard.tokens.saturating_add(heard.tokens);
        self.heard.failed |= heard.failed;
        if let Some(progress) = heard.progress.filter(|_| self.state.turn.is_some()) {
            self.progress = Some(progress);
            self.progress_at.get_or_insert_with(|| Instant::now() + PROGRESS_INTERVAL);
        }
        let is_over = heard.turn_ended || (heard.failed && self.backend.stays());
        if is_over && self.state.turn.as_ref().is_some_and(|turn| turn.taken || heard.failed) {
            self.on_turn_end().await;
        }
    }

    /// The process has ended; `None` when nobody knows how.
    pub(super) async fn on_exit(&mut self, exit: Option<Exit>) {
        self.state.has_process = false;
        let heard = self.ear.end();
        if self.state.turn.is_some() {
            self.on_heard(heard).await;
        }
        self.state.cost_before_micros = self.state.cost_micros;
        let how = exit.as_ref().map_or_else(|| "its process was lost".to_owned(), Exit::describe);
        self.note(&how);
        let code = exit.as_ref().and_then(|exit| exit.code);
        if let Some(Stopping { end, reason, .. }) = &self.stopping {
            let (end, reason) = (*end, reason.clone());
            self.finish(end, &reason, code).await;
        } else if self.interrupting.is_some() {
            self.on_interrupted().await;
        } else if self.state.turn.is_some() {
            let is_done = exit.as_ref().is_some_and(Exit::is_success) && !self.heard.failed && !self.backend.stays();
            if is_done {
                self.exit_code = code;
                self.on_turn_end().await;
            } else {
                let why = self.why_failed(&how);
                self.finish(Phase::Failed, &why, code).await;
            }
        } else if self.backend.can_resume() || exit.as_ref().is_some_and(Exit::is_success) {
            // Between turns a process may come and go.
            self.commit(Vec::new()).await;
        } else {
            let why = self.why_failed(&how);
            self.finish(Phase::Failed, &why, code).await;
        }
    }

    pub(super) fn why_failed(&mut self, how: &str) -> String {
        let said = match self.heard.answer.take().filter(|_| self.heard.failed) {
            Some(answer) => answer,
            None => String::from_utf8_lossy(&self.last_words).into_owned(),
        };
        let said = said.trim();
        let start = said.ceil_char_boundary(said.len().saturating_sub(LAST_WORDS_BYTES_MAX));
        if said.is_empty() { how.to_owned() } else { format!("{how}: {}", &said[start..]) }
    }

    /// The nearest of the deadlines.
    fn timers(&self) -> Instant {
        let stopping = self.stopping.as_ref().filter(|_| self.process.is_some()).map(|stopping| stopping.deadline);
        let budget = self.budget_deadline().filter(|_| self.stopping.is_none());
        let claim = self.claim_at.filter(|_| self.claiming.is_none());
        let next =
            [stopping, self.interrupting, budget, claim, self.progress_at, self.look_at].into_iter().flatten().min();
        next.unwrap_or_else(|| Instant::now() + FAR)
    }

    fn budget_deadline(&self) -> Option<Instant> {
        let timeout = span(self.spec.budget.as_ref()?.timeout.as_ref()?)?;
        let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        let end_ms = self.state.started_ms.saturating_add(timeout_ms);
        let left_ms = end_ms.saturating_sub(self.shop.clock.now_ms());
        (timeout_ms > 0).then(|| Instant::now() + Duration::from_millis(left_ms))
    }

    async fn on_timer(&mut self) {
        let now = Instant::now();
        if self.look_at.take().is_some() {
            self.read_output().await;
        }
        if self.progress_at.is_some_and(|at| at <= now) {
            self.tell_progress().await;
        }
        if self.claiming.is_none() && self.claim_at.is_some_and(|at| at <= now) {
            self.claim_at = None;
            self.claiming = Some(self.claim());
        }
        if self.interrupting.is_some_and(|at| at <= now) {
            // It takes no notice: the turn is ended with its process.
            self.interrupting = Some(now + FAR);
            self.signal(Signal::SIGKILL);
        }
        if self.stopping.is_none() && self.budget_deadline().is_some_and(|at| at <= now) {
            self.stop(Phase::Failed, "its time is over (budget.timeout)", self.shop.grace(), false).await;
        }
        let Some(stopping) = self.stopping.as_mut().filter(|stopping| stopping.deadline <= now) else { return };
        stopping.deadline = now + stopping.grace;
        let signal = match stopping.step {
            Step::Closed => {
                stopping.step = Step::Terminated;
                Signal::SIGTERM
            }
            Step::Terminated | Step::Killed => {
                stopping.step = Step::Killed;
                Signal::SIGKILL
            }
        };
        self.signal(signal);
    }

    async fn set_stuck(&mut self, is_stuck: bool) {
        self.is_stuck = is_stuck;
        let report = v1::AgentReport { stuck: Some(is_stuck), ..self.report() };
        self.commit(vec![report]).await;
    }

    async fn tell_progress(&mut self) {
        self.progress_at = None;
        let Some(label) = self.progress.take() else { return };
        let time = Some(timestamp(self.shop.clock.now_ms()));
        let progress = Some(v1::Progress { label, detail: String::new(), time });
        let report = v1::AgentReport { progress, ..self.report() };
        self.commit(vec![report]).await;
    }

    /// A report that says nothing yet.
    pub(super) fn report(&self) -> v1::AgentReport {
        v1::AgentReport {
            agent_id: self.whom.agent.to_string(),
            incarnation: self.incarnation,
            time: Some(timestamp(self.shop.clock.now_ms())),
            ..v1::AgentReport::default()
        }
    }

    pub(super) fn add_order(&mut self, order_id: u64) {
        if order_id != 0 && !self.state.orders.contains(&order_id) {
            self.state.orders.push(order_id);
        }
    }

    pub(super) async fn finish_order(&mut self, order_id: u64) {
        if order_id != 0 {
            let report = v1::AgentReport { order_ids: vec![order_id], ..self.report() };
            self.commit(vec![report]).await;
        }
    }

    /// Remembers where the agent is, and queues reports of it, in one transaction.
    pub(super) async fn commit(&mut self, reports: Vec<v1::AgentReport>) {
        let mut queued = std::mem::take(&mut self.unsaved);
        queued.extend(reports);
        let saved = self.shop.save(&self.whom, self.incarnation, self.is_live, &self.state, &queued).await;
        if let Err(error) = saved {
            // Told with the next change; what the agent does goes on.
            warn!(agent.slug = %self.whom.slug, %error, "a change of agent {} could not be stored", self.whom.slug);
            self.unsaved = queued;
        }
    }

    pub(super) fn note(&self, text: &str) {
        self.place.note(self.shop.clock.now_ms(), text);
        self.output.send_modify(|count| *count += 1);
    }

    /// The place in the log from which the output of a turn is read.
    pub(super) fn mark(&mut self) {
        self.state.cursor = self.log.cursor();
    }
}

impl Stopping {
    fn new(end: Phase, reason: &str, grace: Duration, is_ordered: bool) -> Self {
        let deadline = Instant::now() + grace;
        Self { end, reason: reason.to_owned(), is_ordered, step: Step::Closed, deadline, grace }
    }
}

/// The process's next ring; never without a process.
async fn rings(process: &mut Option<Process>) -> std::io::Result<bool> {
    match process {
        Some(process) => process.rings().await,
        None => std::future::pending().await,
    }
}

async fn next<T>(future: &mut Option<BoxFuture<'static, T>>) -> T {
    match future {
        Some(future) => future.as_mut().await,
        None => std::future::pending().boxed().await,
    }
}
