//! The session with the node: attach, tell the client what comes, and come back whenever it breaks.
//!
//! Connected, nothing polls: the node's stream says everything. Away, attempts back off, and a tool call makes one at once.

use std::{sync::Arc, time::Duration};

use murmur_core::reason::Reason;
use murmur_proto::node::v1::{
    AckEventsRequest, AgentEvent, AttachRequest, AttachResponse, Attached, EventSummary, Message, PermissionAnswer,
    attach_response::Item,
};
use rmcp::{
    RoleServer,
    model::{CustomNotification, ServerNotification},
    service::Peer,
};
use tokio::sync::oneshot;
use tonic::{Status, Streaming};
use tracing::{Instrument, info_span};

use crate::{
    backoff,
    binding::{Command, Commands, Target, path_of},
    channel,
    errors::Failure,
    render,
    shared::Shared,
};

/// Unread messages that are pushed one by one when a session starts; one line tells of the rest.
const REPLAY_MAX: u64 = 50;
/// What the node takes as the name of a client.
const CLIENT_BYTES_MAX: usize = 128;
/// The node answers an attach from its own disk; for one whose agent is new it asks the control plane, which it gives up after 10 s.
const ATTACH_MAX: Duration = Duration::from_secs(15);

/// The task that owns the session.
pub(crate) struct Push {
    shared: Arc<Shared>,
    peer: Peer<RoleServer>,
    commands: Commands,
    target: Target,
    /// Where a name that was made up starts from, should the one it became be taken.
    origin: Option<Target>,
    failures: u32,
    shown: Shown,
    unacknowledged: Unacknowledged,
}

/// What was written to the client and the node does not know of yet.
#[derive(Debug, Default, PartialEq, Eq)]
struct Unacknowledged {
    told: u64,
    answers: Vec<String>,
}

/// What this client was told already: a session that only broke is not told again.
#[derive(Debug, Default)]
struct Shown {
    agent_id: String,
    cursor: u64,
    /// Of the last event.
    event_cursor: u64,
    /// Messages of the replay that are still to come, and how many came.
    replay_left: u64,
    replay_done: u64,
}

enum Step {
    Stay,
    Swap(Box<Streaming<AttachResponse>>),
    Leave(Phase),
}

enum Phase {
    Attached(Box<Streaming<AttachResponse>>),
    Waiting(Duration),
    Parked,
}

impl Push {
    /// Attaches as `target` once it runs.
    pub(crate) fn new(shared: Arc<Shared>, peer: Peer<RoleServer>, commands: Commands, target: Target) -> Self {
        let again = Target { takeover: false, suffix: true, ..target.clone() };
        let origin = shared.binding.name_is_derived().then_some(again);
        let (shown, unacknowledged) = (Shown::default(), Unacknowledged::default());
        Self { shared, peer, commands, target, origin, failures: 0, shown, unacknowledged }
    }

    /// Never ends by itself.
    pub(crate) async fn run(mut self) {
        let mut phase = Phase::Waiting(Duration::ZERO);
        loop {
            phase = match phase {
                Phase::Attached(stream) => self.follow(stream).await,
                Phase::Waiting(delay) => self.wait(delay).await,
                Phase::Parked => self.rest().await,
            };
        }
    }

    async fn follow(&mut self, mut stream: Box<Streaming<AttachResponse>>) -> Phase {
        loop {
            let owes = self.unacknowledged != Unacknowledged::default();
            let step = tokio::select! {
                biased;
                item = stream.message() => self.heed(item).await,
                Some(command) = self.commands.recv() => match command {
                // Asked while the first attach was under way: a second session of this very agent would be refused.
                Command::Bind(target, reply) if target.agent == self.target.agent => {
                    answer(reply, Ok(()));
                    Step::Stay
                }
                command => self.obey(command).await,
            },
                // Once for all that came at one time.
                () = std::future::ready(()), if owes => self.acknowledge().await,
            };
            match step {
                Step::Stay => {}
                Step::Swap(other) => stream = other,
                Step::Leave(phase) => return phase,
            }
        }
    }

    async fn heed(&mut self, item: Result<Option<AttachResponse>, Status>) -> Step {
        match item.map(|response| response.map(|response| response.item)) {
            Ok(Some(Some(Item::Message(message)))) => self.tell(&message).await,
            Ok(Some(Some(Item::Event(event)))) => return self.tell_event(&event).await,
            Ok(Some(Some(Item::EventSummary(summary)))) => return self.tell_summary(summary).await,
            Ok(Some(Some(Item::PermissionAnswer(answer)))) => return self.tell_answer(&answer).await,
            Ok(Some(Some(Item::Replaced(replaced)))) => {
                self.shared.binding.replaced(&replaced.by_client);
                return Step::Leave(Phase::Parked);
            }
            Ok(Some(Some(Item::Ended(_)))) => {
                // To attach again would make the agent anew that somebody wanted gone.
                self.shared.binding.parked();
                return Step::Leave(Phase::Parked);
            }
            Ok(Some(Some(Item::Attached(_)) | None)) => {}
            Ok(Some(Some(Item::Draining(_))) | None) => {
                return Step::Leave(self.lost(Failure::node_down(self.shared.node.socket())));
            }
            Err(status) => return Step::Leave(self.lost(self.shared.node.failure(&status))),
        }
        Step::Stay
    }

    async fn obey(&mut self, command: Command) -> Step {
        match command {
            Command::Retry(reply) => answer(reply, Ok(())),
            Command::Resume(reply) => answer(reply, ()),
            Command::Park(reply) => return Step::Leave(self.park(reply)),
            Command::Bind(target, reply) => match self.rebind(target).await {
                Ok(stream) => {
                    answer(reply, Ok(()));
                    return Step::Swap(stream);
                }
                Err(failure) => answer(reply, Err(failure)),
            },
        }
        Step::Stay
    }

    async fn wait(&mut self, delay: Duration) -> Phase {
        tokio::select! {
            () = tokio::time::sleep(delay) => self.attach().await.0,
            Some(command) = self.commands.recv() => match command {
                Command::Retry(reply) => {
                    let (phase, attached) = self.attach().await;
                    answer(reply, attached);
                    phase
                }
                other => self.leave(Phase::Waiting(delay), other).await,
            },
        }
    }

    async fn rest(&mut self) -> Phase {
        match self.commands.recv().await {
            Some(Command::Resume(reply)) => {
                self.shared.binding.resumed();
                answer(reply, ());
                Phase::Waiting(Duration::ZERO)
            }
            Some(command) => self.leave(Phase::Parked, command).await,
            // Nobody is left who could ask for anything.
            None => std::future::pending().await,
        }
    }

    /// What a command makes of a phase without a session.
    async fn leave(&mut self, phase: Phase, command: Command) -> Phase {
        match self.obey(command).await {
            Step::Stay => phase,
            Step::Swap(stream) => Phase::Attached(stream),
            Step::Leave(other) => other,
        }
    }

    async fn attach(&mut self) -> (Phase, Result<(), Failure>) {
        match self.open(self.target.clone()).await {
            Ok(stream) => (Phase::Attached(stream), Ok(())),
            Err(failure) => {
                self.failures = self.failures.saturating_add(1);
                if failure.reason == Reason::SessionTaken
                    && let Some(origin) = &self.origin
                {
                    self.target = origin.clone();
                }
                self.shared.binding.away(failure.clone());
                (Phase::Waiting(backoff::delay(self.failures, !failure.unreachable)), Err(failure))
            }
        }
    }

    async fn rebind(&mut self, target: Target) -> Result<Box<Streaming<AttachResponse>>, Failure> {
        let stream = self.open(target).await?;
        self.origin = None;
        Ok(stream)
    }

    fn park(&self, reply: oneshot::Sender<()>) -> Phase {
        self.shared.binding.parked();
        answer(reply, ());
        Phase::Parked
    }

    fn lost(&mut self, failure: Failure) -> Phase {
        self.failures = 1;
        let delay = backoff::delay(self.failures, !failure.unreachable);
        self.shared.binding.away(failure);
        Phase::Waiting(delay)
    }

    /// Opens a session and notes who it is for.
    async fn open(&mut self, target: Target) -> Result<Box<Streaming<AttachResponse>>, Failure> {
        let request = AttachRequest {
            agent: target.agent.clone(),
            takeover: target.takeover,
            client: self.client_name(),
            suffix_when_taken: target.suffix,
            description: target.description.clone(),
            group: target.group.clone(),
            instance: self.shared.instance.clone(),
        };
        let opening = self.opening(request);
        let (attached, stream) = match tokio::time::timeout(ATTACH_MAX, opening).await {
            Ok(opened) => opened?,
            Err(_) => return Err(Failure::node_silent(self.shared.node.socket(), ATTACH_MAX)),
        };
        self.note(&attached);
        // From now on it is this very agent, and nobody is thrown out for it again.
        let agent = if target.agent.is_empty() { target.agent } else { path_of(&attached.slug) };
        self.target = Target { agent, takeover: false, suffix: false, ..target };
        Ok(Box::new(stream))
    }

    async fn opening(&self, request: AttachRequest) -> Result<(Attached, Streaming<AttachResponse>), Failure> {
        let node = &self.shared.node;
        let mut stream = node.answer(node.client()?.sessions.attach(request)).await?;
        match stream.message().await {
            Ok(Some(AttachResponse { item: Some(Item::Attached(attached)) })) => Ok((attached, stream)),
            Ok(_) => Err(Failure::node_down(node.socket())),
            Err(status) => Err(node.failure(&status)),
        }
    }

    fn note(&mut self, attached: &Attached) {
        if self.shown.agent_id != attached.agent_id {
            self.shown = Shown { agent_id: attached.agent_id.clone(), ..Shown::default() };
        }
        self.shown.replay_left = attached.unread;
        self.shown.replay_done = 0;
        self.failures = 0;
        self.unacknowledged = Unacknowledged::default();
        self.shared.unread().set(attached.unread);
        self.shared.unread_events().set(attached.unread_events);
        self.shared.binding.attached(attached.slug.clone());
    }

    async fn tell(&mut self, message: &Message) {
        let notification = match self.shown.next(message.cursor) {
            Next::Old => return,
            Next::Replayed => channel::message(message),
            Next::TooMany(more) => channel::more(more),
            Next::New => {
                self.shared.unread().grow();
                channel::message(message)
            }
        };
        let span = info_span!(parent: None, "shim.notify", msg_id = %message.msg_id);
        murmur_telemetry::set_parent(&span, &message.traceparent);
        // Unwritten, the message stays unread with the node.
        self.write(notification).instrument(span).await;
    }

    async fn tell_event(&mut self, event: &AgentEvent) -> Step {
        self.shared.unread_events().set(event.unread);
        if event.cursor > self.shown.event_cursor {
            let span = info_span!(parent: None, "shim.notify", event_cursor = event.cursor);
            if !self.write(channel::event(event)).instrument(span).await {
                return self.unwritten();
            }
            self.shown.event_cursor = event.cursor;
        }
        self.unacknowledged.told = self.unacknowledged.told.max(event.cursor);
        Step::Stay
    }

    async fn tell_summary(&mut self, summary: EventSummary) -> Step {
        if summary.cursor > self.shown.event_cursor || summary.lost > 0 {
            if !self.write(channel::more_events(summary)).await {
                return self.unwritten();
            }
            self.shown.event_cursor = self.shown.event_cursor.max(summary.cursor);
        }
        self.unacknowledged.told = self.unacknowledged.told.max(summary.cursor);
        Step::Stay
    }

    async fn tell_answer(&mut self, answer: &PermissionAnswer) -> Step {
        // The client takes the answer to a question once, however often it is told.
        if !self.write(channel::permission(answer)).await {
            return self.unwritten();
        }
        self.unacknowledged.answers.push(answer.request_id.clone());
        Step::Stay
    }

    /// The client takes nothing any more, or its connection is about to end: what was not written is told to the next session.
    fn unwritten(&mut self) -> Step {
        Step::Leave(self.lost(Failure::node_down(self.shared.node.socket())))
    }

    async fn acknowledge(&mut self) -> Step {
        let Unacknowledged { told, answers } = std::mem::take(&mut self.unacknowledged);
        let request = AckEventsRequest {
            agent: self.target.agent.clone(),
            told,
            read: Vec::new(),
            permission_request_ids: answers,
        };
        let node = &self.shared.node;
        let acknowledged = match node.client() {
            Ok(mut client) => node.answer(client.events.ack_events(request)).await,
            Err(failure) => Err(failure),
        };
        if let Err(failure) = acknowledged {
            // It is told again to the next session, which passes over what this client has seen.
            tracing::debug!("events could not be acknowledged: {failure}");
        }
        Step::Stay
    }

    /// Whether it was written.
    async fn write(&self, notification: CustomNotification) -> bool {
        match self.peer.send_notification(ServerNotification::CustomNotification(notification)).await {
            Ok(()) => true,
            // The client is going.
            Err(error) => {
                tracing::debug!("a notification was not written: {error}");
                false
            }
        }
    }

    fn client_name(&self) -> String {
        let info = self.peer.peer_info();
        info.map(|info| shown_name(&info.client_info.name, &info.client_info.version)).unwrap_or_default()
    }
}

/// What a client calls itself, as the node takes it: a client cannot correct its own name, so no name may cost it its session.
fn shown_name(name: &str, version: &str) -> String {
    let name = render::clean(&format!("{name} {version}")).replace(['\n', '\t'], " ");
    render::cut(&name, CLIENT_BYTES_MAX).to_owned()
}

/// Whoever asked may have gone.
fn answer<T>(reply: oneshot::Sender<T>, value: T) {
    let _ = reply.send(value);
}

/// What to do with a message from the node.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// This client was told already.
    Old,
    /// Unread since before this session.
    Replayed,
    /// The replay is too long to push: so many more wait. Told once.
    TooMany(u64),
    New,
}

impl Shown {
    fn next(&mut self, cursor: u64) -> Next {
        let replayed = self.replay_left > 0;
        self.replay_left = self.replay_left.saturating_sub(1);
        if cursor <= self.cursor {
            return Next::Old;
        }
        self.cursor = cursor;
        if !replayed {
            return Next::New;
        }
        self.replay_done += 1;
        match self.replay_done.checked_sub(REPLAY_MAX) {
            None | Some(0) => Next::Replayed,
            Some(1) => Next::TooMany(self.replay_left + 1),
            Some(_) => Next::Old,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_of_a_client_costs_it_its_session() {
        assert_eq!(shown_name("claude-code", "2.1"), "claude-code 2.1");
        assert_eq!(shown_name("a\u{1b}[31m\n</channel>\u{202e}", "1\0"), "a[31m </channel> 1");
        assert_eq!(shown_name(&"é".repeat(100), "1").len(), CLIENT_BYTES_MAX);
    }

    #[test]
    fn a_broken_session_is_told_only_what_is_new() {
        let mut shown = Shown { replay_left: 1, ..Shown::default() };
        assert_eq!(shown.next(7), Next::Replayed);
        assert_eq!(shown.next(9), Next::New);
        shown.replay_left = 2;
        assert_eq!([shown.next(7), shown.next(9), shown.next(10)], [Next::Old, Next::Old, Next::New]);
    }

    #[test]
    fn a_long_replay_ends_in_one_line() {
        let mut shown = Shown { replay_left: REPLAY_MAX + 10, ..Shown::default() };
        let told: Vec<_> =
            (1..=REPLAY_MAX + 11).map(|cursor| shown.next(cursor)).filter(|next| *next != Next::Old).collect();
        let mut expected: Vec<_> = (0..REPLAY_MAX).map(|_| Next::Replayed).collect();
        expected.extend([Next::TooMany(10), Next::New]);
        assert_eq!(told, expected);
    }
}
