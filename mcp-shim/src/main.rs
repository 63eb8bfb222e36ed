//! Murmur's MCP shim: tool calls come in over stdio, gRPC goes out to the node's socket, and the agent's messages come back as
//! `notifications/claude/channel`.
//!
//! It owns nothing: no key, no broker connection, no state that matters. Killing it loses nothing; the node has it all.
//!
//! - [`server`] is the MCP door, [`tools`] holds one file a tool, [`reply`] makes results of their answers.
//! - [`binding`] knows as whom this process speaks; [`push`] keeps the session with the node alive and tells the client.
//! - [`seen`] marks as read what an answer has shown.
//! - [`permission`] passes on what the client asks others to allow.
//! - [`node`] is the client of the socket; [`errors`] says what went wrong and what to do about it.
//! - [`render`] and [`channel`] turn foreign text into something that cannot pass for anything else.

mod args;
mod arguments;
mod backoff;
mod binding;
mod broken;
mod channel;
mod errors;
mod lifecycle;
mod node;
mod permission;
mod push;
mod render;
mod reply;
mod schema;
mod seen;
mod server;
mod shared;
mod stdio;
mod tools;
mod unread;

use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, builder::Resettable};

fn main() -> ExitCode {
    let args = arguments_given();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("murmur-mcp: cannot start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = match runtime.block_on(lifecycle::run(args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("murmur-mcp: {error:#}");
            ExitCode::FAILURE
        }
    };
    // Where standard input is no pipe, a thread sits in a blocking read that nothing can end.
    runtime.shutdown_background();
    code
}

/// The command line and the environment, where a variable that is set to nothing counts as unset.
fn arguments_given() -> args::Args {
    let is_empty = |arg: &clap::Arg| arg.get_env().and_then(std::env::var_os).is_some_and(|value| value.is_empty());
    let command = args::Args::command();
    let matches = command.mut_args(|arg| if is_empty(&arg) { arg.env(Resettable::Reset) } else { arg }).get_matches();
    args::Args::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}
