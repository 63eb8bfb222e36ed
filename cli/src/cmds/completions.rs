//! `completions SHELL`: on stdout, for the shell's own folder.

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::{
    args::Cli,
    output::{self, Outcome},
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The shell
    shell: Shell,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "murmurctl", &mut script);
    output::line(&String::from_utf8_lossy(&script))
}
