//! As whom this process speaks, and whether the node pushes to it.
//!
//! The push task is the one writer; tools read, and ask it for a session by commands.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use murmur_core::{reason::Reason, slug::Slug};
use tokio::sync::{mpsc, oneshot};

use crate::{args::Identity, errors::Failure};

/// More commands than a client can have calls open at a sensible moment; further ones wait.
const COMMANDS_MAX: usize = 16;
/// A node that is there attaches a session at once. One that cannot says why, to the attempt under way and to one after it.
const SETTLE_MAX: Duration = Duration::from_secs(35);

/// Commands to the push task.
pub(crate) type Commands = mpsc::Receiver<Command>;

/// What tools ask of the push task.
#[derive(Debug)]
pub(crate) enum Command {
    /// Try to attach now, unless attached.
    Retry(oneshot::Sender<Result<(), Failure>>),
    /// Attach as this one instead; the present session is kept when that fails.
    Bind(Target, oneshot::Sender<Result<(), Failure>>),
    /// Let go of the session and seek no other.
    Park(oneshot::Sender<()>),
    /// Undo [`Command::Park`].
    Resume(oneshot::Sender<()>),
}

/// Whom to attach as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// Name or path under the account; empty with a token.
    pub(crate) agent: String,
    /// End another session of the agent.
    pub(crate) takeover: bool,
    /// Take `name-2` and so on when another session holds the name.
    pub(crate) suffix: bool,
    /// What others read about the agent.
    pub(crate) description: String,
    /// The group that it is listed under.
    pub(crate) group: String,
}

/// The state of the session with the node.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// Not attached, for the reason given if there was an attempt; attempts go on.
    Away(Option<Failure>),
    Attached,
    /// A newer session took over.
    Replaced,
    Deregistered,
}

#[derive(Debug)]
struct Standing {
    state: State,
    /// The absolute slug of the last session.
    slug: Option<String>,
    /// Something that the next tool result has to say.
    warning: Option<String>,
}

/// As whom this process speaks.
#[derive(Debug)]
pub(crate) struct Binding {
    identity: Identity,
    standing: Mutex<Standing>,
    commands: mpsc::Sender<Command>,
}

impl Binding {
    /// Nobody is attached yet.
    pub(crate) fn new(identity: Identity) -> (Self, Commands) {
        let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
        let standing = Mutex::new(Standing { state: State::Away(None), slug: None, warning: None });
        (Self { identity, standing, commands }, receiver)
    }

    // === for tools ===

    /// The name to speak under, for the `agent` field of a call. Attaches first where that decides the name.
    pub(crate) async fn speaker(&self) -> Result<String, Failure> {
        let (state, slug) = {
            let standing = self.lock();
            (standing.state.clone(), standing.slug.clone())
        };
        match state {
            State::Deregistered => Err(deregistered(slug.as_deref())),
            State::Attached | State::Replaced => Ok(self.name()),
            State::Away(_) => match self.retry().await {
                Ok(()) => Ok(self.name()),
                Err(failure) if self.speaks_without_session(&failure) => Ok(self.name()),
                Err(failure) => Err(failure),
            },
        }
    }

    /// The name that `register` without one repeats.
    pub(crate) async fn own_name(&self) -> Result<String, Failure> {
        if self.slug().is_none() && matches!(self.identity, Identity::Derived(_)) {
            self.retry().await?;
        }
        Ok(self.name())
    }

    /// The absolute slug of the session, or of the last one.
    pub(crate) fn slug(&self) -> Option<String> {
        self.lock().slug.clone()
    }

    /// Whether the node pushes to this process as `slug`.
    pub(crate) fn is_attached_as(&self, slug: &str) -> bool {
        let standing = self.lock();
        standing.state == State::Attached && standing.slug.as_deref() == Some(slug)
    }

    /// Attaches as somebody else, or as the same one again.
    pub(crate) async fn bind(&self, target: Target) -> Result<(), Failure> {
        self.ask(|reply| Command::Bind(target, reply)).await?
    }

    /// Ends the session for good.
    pub(crate) async fn park(&self) -> Result<(), Failure> {
        self.ask(Command::Park).await
    }

    /// Seeks the session again that was let go of.
    pub(crate) async fn resume(&self) -> Result<(), Failure> {
        self.ask(Command::Resume).await
    }

    /// What the next tool result has to say, once.
    pub(crate) fn take_warning(&self) -> Option<String> {
        self.lock().warning.take()
    }

    // === for the push task ===

    /// The node attached this process.
    pub(crate) fn attached(&self, slug: String) {
        let mut standing = self.lock();
        standing.state = State::Attached;
        standing.slug = Some(slug);
        standing.warning = None;
    }

    /// There is no session; attempts go on.
    pub(crate) fn away(&self, failure: Failure) {
        let mut standing = self.lock();
        let news = standing.state != State::Away(Some(failure.clone()));
        if news && !failure.unreachable {
            tracing::warn!(reason = %failure.reason, "not attached: {failure}");
            standing.warning =
                Some(format!("Messages are not pushed to this session: {}. {}", failure.happened, failure.remedy));
        }
        standing.state = State::Away(Some(failure));
    }

    /// A newer session took over.
    pub(crate) fn replaced(&self, by_client: &str) {
        let by = if by_client.is_empty() { "another session" } else { by_client };
        tracing::warn!("replaced by {by}");
        let mut standing = self.lock();
        standing.state = State::Replaced;
        standing.warning = Some(format!(
            "Messages are not pushed to this session any more: {by} took over this agent. \
             Call register with another name, or with takeover=true."
        ));
    }

    /// The agent's user gave it up.
    pub(crate) fn parked(&self) {
        self.lock().state = State::Deregistered;
    }

    /// The agent is still there after all.
    pub(crate) fn resumed(&self) {
        self.lock().state = State::Away(None);
    }

    /// Whether the name was made up, so that another one may be taken.
    pub(crate) fn name_is_derived(&self) -> bool {
        matches!(self.identity, Identity::Derived(_))
    }

    // === inside ===

    /// A chosen name may speak while another session has its pushes (DESIGN §8 point 5); a made-up one is not known yet.
    fn speaks_without_session(&self, failure: &Failure) -> bool {
        failure.reason == Reason::SessionTaken && (self.slug().is_some() || matches!(self.identity, Identity::Named(_)))
    }

    fn name(&self) -> String {
        if let Identity::Token(name) = &self.identity {
            return name.clone();
        }
        match self.slug() {
            Some(slug) => path_of(&slug),
            None => match &self.identity {
                Identity::Token(name) | Identity::Named(name) | Identity::Derived(name) => name.clone(),
            },
        }
    }

    async fn retry(&self) -> Result<(), Failure> {
        self.ask(Command::Retry).await?
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Failure> {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.commands.send(command(reply)).await.ok()?;
            answer.await.ok()
        };
        match tokio::time::timeout(SETTLE_MAX, asked).await {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) | Err(_) => Err(Failure::new(
                Reason::NodeDown,
                "the node did not attach this session in time",
                "Run `murmurctl doctor` in a shell and do what it says, then call again.",
            )),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn deregistered(slug: Option<&str>) -> Failure {
    let who = slug.unwrap_or("this session");
    Failure::refused(Reason::NoAgentIdentity, format!("{who} was deregistered, so this session speaks for nobody"))
}

/// The path under the account of an absolute slug: the form that a session is asked for in.
pub(crate) fn path_of(slug: &str) -> String {
    slug.parse::<Slug>().map_or_else(|_| slug.to_owned(), |slug| slug.path().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binding(identity: Identity) -> (Binding, Commands) {
        Binding::new(identity)
    }

    #[tokio::test]
    async fn a_chosen_name_speaks_while_another_session_has_it_and_a_made_up_one_does_not() {
        for (identity, expected) in [
            (Identity::Named("alice".to_owned()), Ok("alice".to_owned())),
            (Identity::Derived("alice".to_owned()), Err(Reason::SessionTaken)),
        ] {
            let (binding, mut commands) = binding(identity);
            let refuse = async {
                let Some(Command::Retry(reply)) = commands.recv().await else { panic!("a speaker asks to attach") };
                let _ = reply.send(Err(Failure::refused(Reason::SessionTaken, "taken")));
            };
            let (speaker, ()) = tokio::join!(binding.speaker(), refuse);
            assert_eq!(speaker.map_err(|failure| failure.reason), expected);
        }
    }

    #[tokio::test]
    async fn an_attached_agent_speaks_under_its_path_and_a_deregistered_one_not_at_all() {
        let (binding, _commands) = binding(Identity::Derived("app".to_owned()));
        binding.attached("/w/acme/u/jo/app-2".to_owned());
        assert_eq!(binding.speaker().await.unwrap(), "app-2");
        binding.parked();
        assert_eq!(binding.speaker().await.unwrap_err().reason, Reason::NoAgentIdentity);
    }

    #[test]
    fn a_refusal_is_told_once() {
        let (binding, _commands) = binding(Identity::Named("alice".to_owned()));
        let taken = Failure::refused(Reason::SessionTaken, "alice is taken");
        binding.away(taken.clone());
        assert!(binding.take_warning().unwrap().contains("takeover=true"));
        binding.away(taken);
        assert_eq!(binding.take_warning(), None);
    }
}
