//! An agent's task: one incarnation after the other, and the orders between them.

use std::sync::Arc;

use murmur_core::{id::AgentId, slug::Slug};
use murmur_proto::{
    time::timestamp,
    v1::{self, Phase, order::Item},
};
use prost::Message as _;
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use super::{
    Line, Runtime, Workshop,
    life::{Beginning, Life, Over},
    place::Place,
    state::State,
};
use crate::store::{
    StoreError,
    runtime::{self as table, RunAgentRow},
};

impl Runtime {
    /// Hands an order to the task of its agent, which is made as needed.
    pub(super) fn dispatch(self: &Arc<Self>, order: v1::Order) {
        let Ok(agent) = order.agent_id.parse::<AgentId>() else {
            warn!("an order for `{}`, which is no agent id, is left alone", order.agent_id);
            return;
        };
        let mut lines = self.lines();
        // A task takes itself off the list under this lock, and only when it has no orders.
        let unsent = match lines.get(&agent) {
            Some(line) => line.inbox.send(order).err().map(|unsent| unsent.0),
            None => Some(order),
        };
        if let Some(order) = unsent {
            let line = self.open(agent, None, Some(order));
            lines.insert(agent, line);
        }
    }

    /// Starts the task of an agent.
    pub(super) fn open(self: &Arc<Self>, agent: AgentId, row: Option<RunAgentRow>, first: Option<v1::Order>) -> Line {
        let (inbox, mut orders) = mpsc::unbounded_channel();
        if let Some(first) = first {
            // There is a receiver.
            let _ = inbox.send(first);
        }
        let output = watch::Sender::new(0);
        let incarnation = Arc::new(watch::Sender::new(row.as_ref().map_or(0, |row| row.incarnation)));
        let served =
            Served { shop: self.shop.clone(), agent, output: output.clone(), incarnation: incarnation.clone() };
        let runtime = self.clone();
        self.tasks.spawn(async move {
            if let Err(error) = Box::pin(served.run(&runtime, &mut orders, row)).await {
                // Its orders are told again with the next connection.
                warn!(agent.id = %agent, %error, "an agent cannot be looked after");
                runtime.lines().remove(&agent);
            }
        });
        Line { inbox, output, incarnation }
    }
}

struct Served {
    shop: Arc<Workshop>,
    agent: AgentId,
    output: watch::Sender<u64>,
    incarnation: Arc<watch::Sender<u32>>,
}

impl Served {
    async fn run(
        &self,
        runtime: &Runtime,
        orders: &mut mpsc::UnboundedReceiver<v1::Order>,
        row: Option<RunAgentRow>,
    ) -> Result<(), StoreError> {
        let mut next = None;
        if let Some(row) = row {
            match Box::pin(self.again(row, orders)).await {
                Over::Ended => {}
                Over::Superseded(order) => next = Some(*order),
                Over::Left => return Ok(()),
            }
        }
        loop {
            self.incarnation.send_replace(0);
            let order = match next.take() {
                Some(order) => order,
                None => match self.next(runtime, orders) {
                    Some(order) => order,
                    None => return Ok(()),
                },
            };
            match Box::pin(self.take(order, orders)).await? {
                Over::Ended => {}
                Over::Superseded(order) => next = Some(*order),
                Over::Left => return Ok(()),
            }
        }
    }

    /// The next order; `None` when there is none, and the task is taken off the list so that another one is made with the next.
    fn next(&self, runtime: &Runtime, orders: &mut mpsc::UnboundedReceiver<v1::Order>) -> Option<v1::Order> {
        let mut lines = runtime.lines();
        let order = orders.try_recv().ok().filter(|_| !self.shop.stop.is_cancelled());
        if order.is_none() {
            lines.remove(&self.agent);
        }
        order
    }

    /// Takes an order while the agent does not live here.
    async fn take(
        &self,
        order: v1::Order,
        orders: &mut mpsc::UnboundedReceiver<v1::Order>,
    ) -> Result<Over, StoreError> {
        let agent = self.agent;
        let known = self.shop.store.read(move |tx| table::get(tx, agent)).await?;
        match order.item {
            Some(Item::Start(start)) if known.as_ref().is_none_or(|known| known.incarnation < order.incarnation) => {
                let told = (order.order_id, order.incarnation, order.slug);
                return Box::pin(self.start(told, start, known, orders)).await;
            }
            // What has ended here, or was never here, is as it is to be.
            Some(Item::Stop(stop)) => {
                let end = Some(stop.end()).filter(|end| *end != Phase::Unspecified).unwrap_or(Phase::Canceled);
                self.tell((order.order_id, order.incarnation), Some((end, stop.reason))).await?;
            }
            Some(Item::Start(_) | Item::Interrupt(_) | Item::Drain(_)) | None => {
                self.tell((order.order_id, order.incarnation), None).await?;
            }
        }
        Ok(Over::Ended)
    }

    async fn start(
        &self,
        (order_id, incarnation, slug): (u64, u32, String),
        start: v1::StartAgent,
        known: Option<RunAgentRow>,
        orders: &mut mpsc::UnboundedReceiver<v1::Order>,
    ) -> Result<Over, StoreError> {
        let Ok(parsed) = slug.parse::<Slug>() else {
            self.tell((order_id, incarnation), Some((Phase::Failed, format!("`{slug}` is no slug")))).await?;
            return Ok(Over::Ended);
        };
        // From here until the row says that it lives, nobody clears its folder.
        let settling = self.shop.clearing.read().await;
        let place = Place::new(&self.shop.dir, self.agent);
        let cleared = place.cleared();
        place.settle();
        let before: State = known.and_then(|known| serde_json::from_str(&known.state).ok()).unwrap_or_default();
        let forked = match start.fork_from_agent_id.parse::<AgentId>() {
            Ok(other) if !start.resume => self.shop.store.read(move |tx| table::get(tx, other)).await?,
            _ => None,
        };
        let forked: Option<State> = forked.and_then(|row| serde_json::from_str(&row.state).ok());
        let state = State {
            slug,
            phase: Phase::Starting.into(),
            started_ms: self.shop.clock.now_ms(),
            orders: vec![order_id],
            was_asleep: before.phase() == Phase::Sleeping,
            run: before.run,
            cursor: before.cursor,
            is_fork: forked.is_some(),
            ..match forked {
                Some(forked) => State { session: forked.session, ..State::default() },
                None if start.resume => before,
                None => State::default(),
            }
        };
        let mut state = State { turn: None, has_process: false, assessed: 0, ..state };
        if cleared.is_some() {
            // Its processes, their output and its working copies are not there any more.
            (state.run, state.cursor, state.copies) = Default::default();
        }
        self.incarnation.send_replace(incarnation);
        let who = (self.agent, parsed.clone(), incarnation);
        match Life::new(self.shop.clone(), who, start, state, self.output.clone()) {
            Ok(mut life) => {
                life.commit(Vec::new()).await;
                drop(settling);
                if cleared.is_some() {
                    life.note(
                        "its folder was cleared after it had ended: its history is there, its output and files are not",
                    );
                }
                Ok(life.live(Beginning::Ordered, orders).await)
            }
            Err(why) => {
                self.tell((order_id, incarnation), Some((Phase::Failed, why.clone()))).await?;
                self.shop.failed(&parsed, incarnation, why);
                Ok(Over::Ended)
            }
        }
    }

    /// Goes on with what an earlier process of the node has left.
    async fn again(&self, row: RunAgentRow, orders: &mut mpsc::UnboundedReceiver<v1::Order>) -> Over {
        let start = v1::StartAgent::decode(row.start.as_slice()).unwrap_or_default();
        let state: State = serde_json::from_str(&row.state).unwrap_or_default();
        let Ok(slug) = state.slug.parse::<Slug>() else { return Over::Ended };
        info!(agent.slug = %slug, "looking for agent {slug}");
        let who = (self.agent, slug.clone(), row.incarnation);
        match Life::new(self.shop.clone(), who, start, state, self.output.clone()) {
            Ok(life) => life.live(Beginning::Found, orders).await,
            Err(why) => {
                let told = self.tell((0, row.incarnation), Some((Phase::Failed, why.clone()))).await;
                if let Err(error) = told {
                    warn!(agent.id = %self.agent, %error, "the end of an agent is not told");
                }
                self.shop.failed(&slug, row.incarnation, why);
                Over::Ended
            }
        }
    }

    /// A report on an agent that does not live here.
    async fn tell(&self, (order_id, incarnation): (u64, u32), end: Option<(Phase, String)>) -> Result<(), StoreError> {
        let (phase, reason) = end.unwrap_or((Phase::Unspecified, String::new()));
        let report = v1::AgentReport {
            agent_id: self.agent.to_string(),
            incarnation,
            time: Some(timestamp(self.shop.clock.now_ms())),
            phase: phase.into(),
            reason,
            order_ids: if order_id == 0 { Vec::new() } else { vec![order_id] },
            ..v1::AgentReport::default()
        };
        self.shop.store.write(move |tx| table::queue_report(tx, &report.encode_to_vec())).await?;
        self.shop.reports.notify_one();
        Ok(())
    }
}
