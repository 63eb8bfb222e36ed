//! `completions SHELL`: on stdout, for the shell's own folder.

use clap::{Command, CommandFactory as _};
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
    output::line(&String::from_utf8_lossy(&script(args.shell)))
}

fn script(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut for_people(&Cli::command()), "murmurctl", &mut script);
    script
}

/// The command line without what is hidden, which the scripts would offer all the same.
fn for_people(whole: &Command) -> Command {
    Command::new("murmurctl")
        .args(whole.get_arguments().cloned())
        .subcommands(whole.get_subcommands().filter(|command| !command.is_hide_set()).cloned())
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn what_is_hidden_is_not_offered() {
        for shell in Shell::value_variants() {
            let script = String::from_utf8(script(*shell)).unwrap();
            assert!(script.contains("register") && script.contains("data-dir"), "{shell}");
            assert!(!script.contains("internal-detach") && !script.contains("supervise"), "{shell}");
        }
    }
}
