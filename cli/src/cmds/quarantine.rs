//! `quarantine`: arrivals that could not be authenticated or read.

use data_encoding::HEXLOWER;
use murmur_proto::{
    client::NodeClient,
    node::v1::{DropQuarantinedRequest, GetQuarantinedRequest, ListQuarantineRequest, Quarantined},
};
use serde_json::{Value, json};

use crate::{
    connect::Target,
    failure::Failure,
    output::{self, Outcome, Output},
    time, view,
};

const PAGE: u32 = 1000;
/// Bytes shown to a person; `--json` has all of them.
const SHOWN_BYTES: usize = 256;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// What is there, and from which node it came
    Ls {
        /// How many at most
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000), value_name = "N")]
        limit: u32,
        /// Go on behind this page
        #[arg(long, value_name = "TOKEN", default_value = "", hide_default_value = true)]
        page: String,
    },
    /// One of them, with its bytes
    Show {
        /// The number that `quarantine ls` showed
        number: u64,
    },
    /// Delete them
    Drop {
        /// Numbers that `quarantine ls` showed
        #[arg(required_unless_present = "all", value_name = "NUMBER")]
        numbers: Vec<u64>,
        /// All of them
        #[arg(long, conflicts_with = "numbers")]
        all: bool,
    },
}

pub(crate) async fn run(target: &Target, command: Command, output: Output) -> Outcome {
    let mut node = target.node().await?;
    match command {
        Command::Ls { limit, page } => ls(&mut node, limit, page, output).await,
        Command::Show { number } => show(&mut node, number, output).await,
        Command::Drop { numbers, all } => drop_arrivals(&mut node, numbers, all, output).await,
    }
}

async fn ls(node: &mut NodeClient, limit: u32, page: String, output: Output) -> Outcome {
    let request = ListQuarantineRequest { page_size: limit, page_token: page };
    let answer = node.outbox.list_quarantine(request).await?.into_inner();
    let value = json!({
        "arrivals": answer.arrivals.iter().map(arrival_json).collect::<Vec<Value>>(),
        "next_page": view::some(&answer.next_page_token),
    });
    output.show(&value, || {
        if answer.arrivals.is_empty() {
            return "the quarantine is empty".into();
        }
        let table =
            output::table(&["NUMBER", "FROM NODE", "REASON", "BYTES", "SINCE"], answer.arrivals.iter().map(row));
        match view::some(&answer.next_page_token) {
            Some(token) => format!("{table}\n\nmore with --page {token}"),
            None => table,
        }
    })
}

fn row(arrival: &Quarantined) -> Vec<String> {
    vec![
        arrival.number.to_string(),
        view::some(&arrival.source_node_id).unwrap_or("unknown").to_owned(),
        arrival.reason.clone(),
        arrival.size.to_string(),
        time::ago(arrival.quarantine_time.as_ref()),
    ]
}

async fn show(node: &mut NodeClient, number: u64, output: Output) -> Outcome {
    let answer = node.outbox.get_quarantined(GetQuarantinedRequest { number }).await?.into_inner();
    let arrival = answer.arrival.unwrap_or_default();
    let mut value = arrival_json(&arrival);
    value["content_hex"] = json!(HEXLOWER.encode(&answer.content));
    output.show(&value, || {
        let about = output::pairs([
            ("number", arrival.number.to_string()),
            ("from node", view::some(&arrival.source_node_id).unwrap_or("unknown").to_owned()),
            ("subject", arrival.subject.clone()),
            ("reason", arrival.reason.clone()),
            ("bytes", arrival.size.to_string()),
            ("deliveries", arrival.deliveries.to_string()),
            ("since", time::ago(arrival.quarantine_time.as_ref())),
        ]);
        let shown = answer.content.get(..SHOWN_BYTES).unwrap_or(&answer.content);
        let lines: Vec<_> = shown.chunks(32).map(|chunk| format!("  {}", HEXLOWER.encode(chunk))).collect();
        let rest = answer.content.len() - shown.len();
        let rest = if rest > 0 { format!("\n  and {rest} more") } else { String::new() };
        format!("{about}\n\n{}{rest}", lines.join("\n"))
    })
}

async fn drop_arrivals(node: &mut NodeClient, numbers: Vec<u64>, all: bool, output: Output) -> Outcome {
    let numbers = if all { every(node).await? } else { numbers };
    for number in &numbers {
        node.outbox.drop_quarantined(DropQuarantinedRequest { number: *number }).await?;
    }
    output.show(&json!({"dropped": numbers}), || match numbers.len() {
        0 => "the quarantine is empty".into(),
        1 => "dropped 1 arrival".into(),
        count => format!("dropped {count} arrivals"),
    })
}

async fn every(node: &mut NodeClient) -> Result<Vec<u64>, Failure> {
    let mut numbers = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListQuarantineRequest { page_size: PAGE, page_token };
        let page = node.outbox.list_quarantine(request).await?.into_inner();
        numbers.extend(page.arrivals.iter().map(|arrival| arrival.number));
        if page.next_page_token.is_empty() {
            return Ok(numbers);
        }
        page_token = page.next_page_token;
    }
}

fn arrival_json(arrival: &Quarantined) -> Value {
    json!({
        "number": arrival.number,
        "source_node_id": view::some(&arrival.source_node_id),
        "subject": arrival.subject,
        "reason": arrival.reason,
        "size": arrival.size,
        "deliveries": arrival.deliveries,
        "quarantine_time": time::rfc3339(arrival.quarantine_time.as_ref()),
    })
}
