//! One file a command: its arguments, what it asks, how it answers.

pub(crate) mod agent;
mod agent_status;
pub(crate) mod agent_url;
mod body;
pub(crate) mod completions;
pub(crate) mod demo;
pub(crate) mod deregister;
pub(crate) mod dlq;
pub(crate) mod doctor;
pub(crate) mod down;
pub(crate) mod event;
pub(crate) mod files;
mod follow;
pub(crate) mod inbox;
pub(crate) mod internal_detach;
pub(crate) mod interrupt;
pub(crate) mod kill;
pub(crate) mod logs;
pub(crate) mod ls;
pub(crate) mod message;
pub(crate) mod node;
pub(crate) mod notify_setup;
mod once;
pub(crate) mod outbox;
pub(crate) mod peers;
pub(crate) mod permission;
pub(crate) mod port_url;
pub(crate) mod quarantine;
pub(crate) mod queue;
pub(crate) mod register;
pub(crate) mod request;
mod scope;
pub(crate) mod send;
mod send_file;
pub(crate) mod spawn;
pub(crate) mod status;
pub(crate) mod supervise;
pub(crate) mod tail;
pub(crate) mod task;
pub(crate) mod token;
pub(crate) mod up;
pub(crate) mod upload;
pub(crate) mod verify;
mod wait;
pub(crate) mod wait_agent;
pub(crate) mod watch;
pub(crate) mod webhook;
mod webhook_test;
pub(crate) mod workspace;

use crate::{
    args::{Cli, Command},
    connect::Target,
    output::{Outcome, Output},
};

/// Runs the command.
pub(crate) async fn run(cli: Cli, output: Output) -> Outcome {
    let Cli { global, command } = cli;
    let target = || Target::new(&global);
    match command {
        Command::Up(args) => up::run(&global, args, output).await,
        Command::Down => down::run(&global, output).await,
        Command::Status(args) => status::run(&target()?, args, output).await,
        Command::Doctor => doctor::run(&target()?, output).await,
        Command::Demo(args) => Box::pin(demo::run(&args, output)).await,
        Command::Spawn(args) => Box::pin(spawn::run(&target()?, *args, output)).await,
        Command::Ls(args) => ls::run(&target()?, args, output).await,
        Command::Wait(args) => wait_agent::run(&target()?, args, output).await,
        Command::Kill(args) => kill::run(&target()?, args, output).await,
        Command::PortUrl(args) => port_url::run(&target()?, args, output).await,
        Command::AgentUrl(args) => agent_url::run(&target()?, args, output).await,
        Command::Upload(args) => upload::run(&target()?, args, output).await,
        Command::Interrupt(args) => interrupt::run(&target()?, args, output).await,
        Command::Queue(command) => queue::run(&target()?, command, output).await,
        Command::Task(command) => task::run(&target()?, command, output).await,
        Command::Event(command) => event::run(&target()?, command, output).await,
        Command::Notify(args) => event::notify(&target()?, args, output).await,
        Command::Logs(args) => logs::run(&target()?, args, output).await,
        Command::Send(args) => send::run(&target()?, args, output).await,
        Command::Request(args) => request::run(&target()?, args, output).await,
        Command::Inbox(args) => inbox::run(&target()?, args, output).await,
        Command::Peers(args) => peers::run(&target()?, args, output).await,
        Command::Tail(args) => tail::run(&target()?, args, output).await,
        Command::Watch(args) => Box::pin(watch::run(&target()?, args, output)).await,
        Command::Permission(command) => permission::run(&target()?, command, output).await,
        Command::Files(args) => files::run(&target()?, args, output).await,
        Command::Message(args) => message::run(&target()?, args, output).await,
        Command::Outbox(args) => outbox::run(&target()?, args, output).await,
        Command::Dlq(command) => dlq::run(&target()?, command, output).await,
        Command::Quarantine(command) => quarantine::run(&target()?, command, output).await,
        Command::Register(args) => register::run(&target()?, args, output).await,
        Command::Deregister(args) => deregister::run(&target()?, args, output).await,
        Command::Verify(args) => verify::run(&target()?, args, output).await,
        Command::Workspace(command) => workspace::run(&target()?, &command, output).await,
        Command::Node(command) => node::run(&target()?, command, output).await,
        Command::Token(command) => token::run(&target()?, command, output).await,
        Command::Agent(command) => agent::run(&target()?, command, output).await,
        Command::NotifySetup(command) => Box::pin(notify_setup::run(&target()?, command, output)).await,
        Command::Webhook(command) => Box::pin(webhook::run(&target()?, command, output)).await,
        Command::Completions(args) => completions::run(&args),
        Command::InternalDetach(args) => internal_detach::run(&args),
        Command::Supervise(args) => supervise::run(&global, &args).await,
    }
}
