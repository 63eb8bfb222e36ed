//! The command line's frame: options that every command takes, and the list of commands.

use std::path::PathBuf;

use clap::{Arg, Args, Parser, Subcommand};
use murmur_core::{limits::IDEMPOTENCY_KEY_BYTES_MAX, slug::Segment};

use crate::{cmds, exit, failure::Failure, text::quoted};

/// Murmur's command line: a private network in one command, messages between agents, and the operator's tools.
#[derive(Debug, Parser)]
#[command(name = "murmurctl", version, after_help = exit::HELP, arg_required_else_help = true, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Where things are, and how to answer. Every command takes them.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// Answer in JSON: one object, or one a line from `tail`, `watch` and what follows; errors as JSON on stderr
    #[arg(long, global = true, help_heading = "Global options")]
    pub(crate) json: bool,
    /// Folder of the local network [default: $XDG_DATA_HOME/murmur]
    #[arg(
        long,
        global = true,
        env = "MURMUR_DATA_DIR",
        hide_env_values = true,
        value_name = "DIR",
        help_heading = "Global options"
    )]
    pub(crate) data_dir: Option<PathBuf>,
    /// The node's socket [default: the local network's]
    #[arg(
        long,
        global = true,
        env = "MURMUR_NODE_SOCKET",
        hide_env_values = true,
        value_name = "PATH",
        help_heading = "Global options"
    )]
    pub(crate) socket: Option<PathBuf>,
    /// The control plane's address [default: the local network's]
    #[arg(
        long,
        global = true,
        env = "MURMUR_SERVER_URL",
        hide_env_values = true,
        value_name = "URL",
        help_heading = "Global options"
    )]
    pub(crate) server: Option<String>,
    /// PEM file of the authority that signed the control plane's certificate [default: the system's authorities]
    #[arg(
        long,
        global = true,
        env = "MURMUR_SERVER_CA",
        hide_env_values = true,
        value_name = "FILE",
        help_heading = "Global options"
    )]
    pub(crate) ca: Option<PathBuf>,
    /// File with the token for the control plane [default: the local network's administrator]
    #[arg(
        long,
        global = true,
        env = "MURMUR_TOKEN_FILE",
        hide_env_values = true,
        value_name = "FILE",
        help_heading = "Global options"
    )]
    pub(crate) token_file: Option<PathBuf>,
}

/// Who speaks.
#[derive(Debug, Clone, Args)]
pub(crate) struct Speaker {
    /// Speak as this agent of your account [default: the token's agent, else `me`]
    #[arg(
        long,
        alias = "as",
        env = "MURMUR_AGENT",
        hide_env_values = true,
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) agent: String,
    /// File with the token of the agent to speak for
    #[arg(long, env = "MURMUR_AGENT_TOKEN_FILE", hide_env_values = true, value_name = "FILE")]
    pub(crate) agent_token_file: Option<PathBuf>,
}

impl Speaker {
    /// What has to be repeated to speak as the same agent.
    pub(crate) fn options(&self) -> String {
        let agent = Some(&self.agent).filter(|agent| !agent.is_empty());
        let agent = agent.map(|agent| format!(" --agent {}", quoted(agent))).unwrap_or_default();
        let file = self.agent_token_file.as_ref();
        let file = file.map(|file| format!(" --agent-token-file {}", quoted(&file.display().to_string())));
        agent + &file.unwrap_or_default()
    }
}

/// [`Speaker::agent`] where nobody speaks: without it, all are looked at.
pub(crate) fn whose(agent: Arg) -> Arg {
    agent.help("Only what this agent of your account sent [default: the token's agent, else all of this host's]")
}

/// Refuses a name that a node would make fit: whoever mistypes an agent must not speak as another. `register` alone makes names fit.
///
/// # Errors
/// [`Failure`] that names the rule.
pub(crate) fn check_agent(agent: &str) -> Result<(), Failure> {
    // The other end says best what is wrong with a path.
    if agent.is_empty() || agent.contains('/') {
        return Ok(());
    }
    agent.parse::<Segment>().map(drop).map_err(|error| {
        Failure::field("--agent", &error.to_string()).remedy(
            "Name the agent as `murmurctl peers` shows it, with --agent or MURMUR_AGENT; `murmurctl register` makes a name fit.",
        )
    })
}

/// An idempotency key. One that is empty by mistake would let every repeat do it again.
///
/// # Errors
/// A sentence for clap that names the rule.
pub(crate) fn key(text: &str) -> Result<String, String> {
    match text.len() {
        1..=IDEMPOTENCY_KEY_BYTES_MAX => Ok(text.to_owned()),
        length => Err(format!("must have 1 to {IDEMPOTENCY_KEY_BYTES_MAX} bytes, got {length}")),
    }
}

/// As whom the control plane is called.
#[derive(Debug, Clone, Args)]
pub(crate) struct Caller {
    /// Call as this agent of your account [default: the token's agent, else you]
    #[arg(
        long,
        alias = "as",
        env = "MURMUR_AGENT",
        hide_env_values = true,
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) agent: String,
    /// File with the token of the agent to call as
    #[arg(long, env = "MURMUR_AGENT_TOKEN_FILE", hide_env_values = true, value_name = "FILE")]
    pub(crate) agent_token_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a private network on this machine, or what is missing of it
    Up(cmds::up::Args),
    /// End what `up` started, and nothing else
    Down,
    /// What runs here and how the node is doing; or, with a slug, all about one agent
    Status(cmds::status::Args),
    /// Look for trouble and say what to do; exits 1 when something is wrong
    Doctor,
    /// Run two agents through an encrypted request and reply, and show each step
    Demo(cmds::demo::Args),
    /// Start an agent, or one for each line of a file
    Spawn(Box<cmds::spawn::Args>),
    /// Agents as a tree: phase, node, age, cost, what they do
    Ls(cmds::ls::Args),
    /// Wait until agents need attention, or are in a phase; a timeout is exit code 6
    Wait(cmds::wait_agent::Args),
    /// End an agent and everything below it
    Kill(cmds::kill::Args),
    /// Stop an agent's present turn; what is queued comes next
    Interrupt(cmds::interrupt::Args),
    /// Work that waits for an agent's next turn
    #[command(subcommand)]
    Queue(cmds::queue::Command),
    /// Checklists of agents
    #[command(subcommand)]
    Task(cmds::task::Command),
    /// What agents were told of: comments, reviews, checks, their children, words of their people
    #[command(subcommand)]
    Event(cmds::event::Command),
    /// Tell an agent something: it is pushed to its session, or waits for its next turn
    Notify(cmds::event::Notify),
    /// What an agent's process wrote, and what it writes
    Logs(cmds::logs::Args),
    /// Send a message; it is on disk when this returns
    Send(cmds::send::Args),
    /// Send a message and wait for the reply
    Request(cmds::request::Args),
    /// Read messages; they are marked read unless --peek
    Inbox(cmds::inbox::Args),
    /// Who there is
    Peers(cmds::peers::Args),
    /// Follow messages in and out; marks nothing as read
    Tail(cmds::tail::Args),
    /// What happens around your agents, live: reviews, checks, phases, words, messages
    Watch(cmds::watch::Args),
    /// Agents that wait for a permission to use a tool
    #[command(subcommand)]
    Permission(cmds::permission::Command),
    /// Files on their way, in and out
    Files(cmds::files::Args),
    /// Put a file behind a link that anybody who has it can fetch for a day
    Upload(cmds::upload::Args),
    /// Give what listens on a port of this host a URL, for as long as the agent lives
    PortUrl(cmds::port_url::Args),
    /// A page about an agent, for people
    AgentUrl(cmds::agent_url::Args),
    /// How the delivery of a sent message stands
    Message(cmds::message::Args),
    /// What is still on its way, and taking a message back
    Outbox(cmds::outbox::Args),
    /// Messages that could not be delivered: why, and trying again
    #[command(subcommand)]
    Dlq(cmds::dlq::Command),
    /// Arrivals that could not be authenticated or read
    #[command(subcommand)]
    Quarantine(cmds::quarantine::Command),
    /// Make sure that an agent exists
    Register(cmds::register::Args),
    /// End an agent; its name is free again
    Deregister(cmds::deregister::Args),
    /// Show the safety number to compare with a peer's owner
    Verify(cmds::verify::Args),
    /// The workspace on the control plane
    #[command(subcommand)]
    Workspace(cmds::workspace::Command),
    /// Nodes: invite, list, approve, revoke, take over
    #[command(subcommand)]
    Node(cmds::node::Command),
    /// Tokens for the control plane
    #[command(subcommand)]
    Token(cmds::token::Command),
    /// Agents' own tokens
    #[command(subcommand)]
    Agent(cmds::agent::Command),
    /// Sources of webhooks: what GitHub, GitLab and others tell agents of their code
    #[command(subcommand)]
    Webhook(cmds::webhook::Command),
    /// Tell people what goes on: by Telegram, Discord, WhatsApp or a webhook
    #[command(subcommand)]
    NotifySetup(cmds::notify_setup::Command),
    /// Completions for a shell, on stdout
    Completions(cmds::completions::Args),
    #[command(hide = true)]
    InternalDetach(cmds::internal_detach::Args),
    #[command(hide = true)]
    Supervise(cmds::supervise::Args),
}

impl Command {
    /// The command's name, for the trace; what was typed after it stays out.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Up(_) => "up",
            Self::Down => "down",
            Self::Status(_) => "status",
            Self::Doctor => "doctor",
            Self::Demo(_) => "demo",
            Self::Spawn(_) => "spawn",
            Self::Ls(_) => "ls",
            Self::Wait(_) => "wait",
            Self::Kill(_) => "kill",
            Self::Interrupt(_) => "interrupt",
            Self::Queue(_) => "queue",
            Self::Task(_) => "task",
            Self::Event(_) => "event",
            Self::Notify(_) => "notify",
            Self::Logs(_) => "logs",
            Self::Send(_) => "send",
            Self::Request(_) => "request",
            Self::Inbox(_) => "inbox",
            Self::Peers(_) => "peers",
            Self::Tail(_) => "tail",
            Self::Watch(_) => "watch",
            Self::Permission(_) => "permission",
            Self::Files(_) => "files",
            Self::Upload(_) => "upload",
            Self::PortUrl(_) => "port-url",
            Self::AgentUrl(_) => "agent-url",
            Self::Message(_) => "message",
            Self::Outbox(_) => "outbox",
            Self::Dlq(_) => "dlq",
            Self::Quarantine(_) => "quarantine",
            Self::Register(_) => "register",
            Self::Deregister(_) => "deregister",
            Self::Verify(_) => "verify",
            Self::Workspace(_) => "workspace",
            Self::Node(_) => "node",
            Self::Token(_) => "token",
            Self::Agent(_) => "agent",
            Self::Webhook(_) => "webhook",
            Self::NotifySetup(_) => "notify-setup",
            Self::Completions(_) => "completions",
            Self::InternalDetach(_) => "internal-detach",
            Self::Supervise(_) => "supervise",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_would_be_changed_is_refused() {
        for fine in ["", "me", "ci-2", "ci/fix"] {
            check_agent(fine).unwrap();
        }
        for changed in ["Bad Name", "Alice", " alice", "alice-", "é"] {
            let refused = check_agent(changed).unwrap_err();
            assert_eq!(refused.fields[0].0, "--agent", "{changed}: {refused}");
        }
    }

    #[test]
    fn a_hint_repeats_who_speaks() {
        let speaker = |agent: &str, file: Option<&str>| {
            Speaker { agent: agent.to_owned(), agent_token_file: file.map(PathBuf::from) }.options()
        };
        assert_eq!(speaker("", None), "");
        assert_eq!(speaker("alice", None), " --agent alice");
        assert_eq!(speaker("", Some("/a b")), " --agent-token-file '/a b'");
    }

    #[test]
    fn a_key_is_not_empty_and_not_long() {
        assert_eq!(key("k").as_deref(), Ok("k"));
        assert!(key("").is_err() && key(&"k".repeat(129)).is_err());
    }
}
