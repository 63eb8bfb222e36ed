//! The child's side of starting a background process. Not for people, and therefore hidden.

use std::{ffi::OsString, path::PathBuf};

use crate::{network::process, output::Outcome};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    pid_file: PathBuf,
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let Args { pid_file, command } = args;
    let (program, rest) = command.split_first().ok_or_else(|| crate::failure::Failure::usage("no program is named"))?;
    match process::detach(pid_file, program, rest)? {}
}
