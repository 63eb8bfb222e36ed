//! The supervisor's own process, which `up` starts. Not for people, and therefore hidden.

use crate::{
    args::Global,
    connect,
    exit::Exit,
    network::supervise::{self, Policy},
    output::Outcome,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[arg(long)]
    crashes_max: u32,
}

pub(crate) async fn run(global: &Global, args: &Args) -> Outcome {
    supervise::run(connect::layout(global)?, Policy::new(args.crashes_max)).await?;
    Ok(Exit::Ok)
}
