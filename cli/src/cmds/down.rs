//! `down`: ends what `up` started in this data directory, and nothing else.

use serde_json::{Value, json};

use crate::{
    args::Global,
    connect,
    network::{
        broker,
        lock::NetworkLock,
        node,
        process::{self, Ended, GRACE},
        progress::Progress,
        server, supervise,
    },
    output::{self, Outcome, Output},
};

/// Who would start others again ends first, then who needs somebody before them.
const ORDER: [&str; 4] = [supervise::PART, node::PART, server::PART, broker::PART];

pub(crate) async fn run(global: &Global, output: Output) -> Outcome {
    let layout = connect::layout(global)?;
    let mut parts = Vec::new();
    if layout.root().exists() {
        let progress = Progress::new(output.is_json());
        layout.create()?;
        let _lock = NetworkLock::take(&layout, &progress).await?;
        for part in ORDER {
            let step = progress.step(&format!("ending the {part}"));
            let ended = process::end_part(&layout, part, GRACE).await?;
            if ended != Ended::NotRunning {
                step.done();
            }
            parts.push((part, ended));
        }
        supervise::forget_all(&layout)?;
    }
    let value = json!({
        "data_dir": layout.root(),
        "parts": parts.iter().map(|(part, ended)| json!({"part": part, "ended": word(*ended)})).collect::<Vec<Value>>(),
    });
    output.show(&value, || {
        if parts.iter().all(|(_, ended)| *ended == Ended::NotRunning) {
            return format!("nothing was running in {}", layout.root().display());
        }
        output::table(
            &["PART", ""],
            parts.iter().map(|(part, ended)| vec![(*part).to_owned(), word(*ended).to_owned()]),
        )
    })
}

const fn word(ended: Ended) -> &'static str {
    match ended {
        Ended::NotRunning => "was not running",
        Ended::Terminated => "ended",
        Ended::Killed => "killed after 10 s",
    }
}
