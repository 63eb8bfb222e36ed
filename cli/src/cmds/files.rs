//! `files`: what is on its way, in and out; `files cancel ID` ends one.

use data_encoding::HEXLOWER;
use murmur_proto::node::v1::{
    CancelTransferRequest, File, ListTransfersRequest, Transfer, TransferState, WatchTransfersRequest,
    transfer::Direction,
};
use serde_json::{Value, json};

use crate::{
    args::Speaker,
    connect::Target,
    exit::Exit,
    failure::Failure,
    output::{self, Outcome, Output},
    text, time, view,
};

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    list: ListArgs,
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    #[command(flatten)]
    speaker: Speaker,
    /// Also those that have arrived or ended otherwise
    #[arg(long, conflicts_with = "watch")]
    all: bool,
    /// Follow them until interrupted
    #[arg(long)]
    watch: bool,
    /// How many at most
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000), value_name = "N")]
    limit: u32,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// End a transfer, from either side; what has arrived of it is deleted
    Cancel {
        /// The id that `files` shows
        transfer_id: String,
        #[command(flatten)]
        speaker: Speaker,
    },
}

pub(crate) async fn run(target: &Target, args: Args, output: Output) -> Outcome {
    let Args { command, list } = args;
    match command {
        Some(Command::Cancel { transfer_id, speaker }) => cancel(target, transfer_id, &speaker, output).await,
        None if list.watch => watch(target, &list.speaker, output).await,
        None => show(target, &list, output).await,
    }
}

async fn show(target: &Target, args: &ListArgs, output: Output) -> Outcome {
    let ListArgs { speaker, all, limit, watch: _, .. } = args;
    let request = ListTransfersRequest { agent: speaker.agent.clone(), all: *all, limit: *limit };
    let answer = target.node_as(speaker).await?.files.list_transfers(request).await?.into_inner();
    let value = json!({"transfers": answer.transfers.iter().map(transfer_json).collect::<Vec<_>>()});
    output.show(&value, || match answer.transfers.is_empty() {
        true if *all => "no files".to_owned(),
        true => "no files are on their way; --all shows earlier ones".to_owned(),
        false => output::table(
            &["", "FILE", "SIZE", "DONE", "STATE", "WITH", "MOVED", "WHERE", "ID"],
            answer.transfers.iter().map(row),
        ),
    })
}

fn row(transfer: &Transfer) -> Vec<String> {
    let file = transfer.file.clone().unwrap_or_default();
    let is_in = transfer.direction() == Direction::In;
    vec![
        if is_in { "in" } else { "out" }.to_owned(),
        file.name.clone(),
        size(file.size_bytes),
        percent(&file),
        stated(&file),
        if is_in { transfer.from.clone() } else { transfer.to.clone() },
        time::ago(transfer.update_time.as_ref()),
        file.path.clone(),
        file.transfer_id,
    ]
}

async fn watch(target: &Target, speaker: &Speaker, output: Output) -> Outcome {
    let request = WatchTransfersRequest { agent: speaker.agent.clone(), transfer_id: String::new() };
    let mut changes = target.node_as(speaker).await?.files.watch_transfers(request).await?.into_inner();
    loop {
        // Interrupting is how one ends this; it is no failure.
        let change = tokio::select! {
            change = changes.message() => change?,
            _ = tokio::signal::ctrl_c() => return Ok(Exit::Ok),
        };
        let Some(change) = change else {
            return Err(
                Failure::new(Exit::Unavailable, "the node ended the call").remedy("Call again when the node is back.")
            );
        };
        let transfer = change.transfer.unwrap_or_default();
        if output.is_json() {
            output::line(&transfer_json(&transfer).to_string())?;
        } else {
            output::line(&line(&transfer))?;
        }
    }
}

fn line(transfer: &Transfer) -> String {
    let file = transfer.file.clone().unwrap_or_default();
    let is_in = transfer.direction() == Direction::In;
    let (way, with) = if is_in { ("in from", &transfer.from) } else { ("out to", &transfer.to) };
    let (name, with) = (text::clean_line(&file.name), text::clean_line(with));
    let place =
        if is_in && !file.path.is_empty() { format!(" {}", text::clean_line(&file.path)) } else { String::new() };
    format!("{name} {way} {with}: {} of {} [{}]{place}", percent(&file), size(file.size_bytes), stated(&file))
}

async fn cancel(target: &Target, transfer_id: String, speaker: &Speaker, output: Output) -> Outcome {
    let request = CancelTransferRequest { agent: speaker.agent.clone(), transfer_id };
    let answer = target.node_as(speaker).await?.files.cancel_transfer(request).await?.into_inner();
    let transfer = answer.transfer.unwrap_or_default();
    output.show(&transfer_json(&transfer), || line(&transfer))
}

/// A transfer for programs.
fn transfer_json(transfer: &Transfer) -> Value {
    json!({
        "direction": if transfer.direction() == Direction::In { "in" } else { "out" },
        "msg_id": transfer.msg_id,
        "from": transfer.from,
        "to": transfer.to,
        "file": transfer.file.as_ref().map(file_json),
        "created_time": time::rfc3339(transfer.create_time.as_ref()),
        "updated_time": time::rfc3339(transfer.update_time.as_ref()),
    })
}

/// A file for programs.
pub(crate) fn file_json(file: &File) -> Value {
    json!({
        "transfer_id": file.transfer_id,
        "name": file.name,
        "content_type": file.content_type,
        "size_bytes": file.size_bytes,
        "sha256": Some(HEXLOWER.encode(&file.sha256)).filter(|digest| !digest.is_empty()),
        "state": state_name(file.state()),
        "done_bytes": file.done_bytes,
        "path": view::some(&file.path),
        "reason": view::some(&file.reason),
    })
}

/// A file of a message, for people.
pub(crate) fn file_text(file: &File) -> String {
    let what = format!(
        "file {} ({}, {})",
        text::clean_line(&file.name),
        size(file.size_bytes),
        text::clean_line(&file.content_type)
    );
    match file.state() {
        TransferState::Done => format!("{what}: {}", text::clean_line(&file.path)),
        TransferState::Cancelled | TransferState::Failed => format!("{what}: {}", stated(file)),
        _ => format!("{what}: {} so far", percent(file)),
    }
}

/// The state's name in lower case, such as `active`.
pub(crate) const fn state_name(state: TransferState) -> &'static str {
    match state {
        TransferState::Unspecified => "unknown",
        TransferState::Waiting => "waiting",
        TransferState::Active => "active",
        TransferState::Stalled => "stalled",
        TransferState::Done => "done",
        TransferState::Cancelled => "cancelled",
        TransferState::Failed => "failed",
    }
}

fn stated(file: &File) -> String {
    match view::some(&file.reason) {
        Some(reason) if file.state() == TransferState::Failed => format!("failed: {}", text::clean_line(reason)),
        _ => state_name(file.state()).to_owned(),
    }
}

fn percent(file: &File) -> String {
    if file.state() == TransferState::Done {
        return "100 %".to_owned();
    }
    match (file.done_bytes * 100).checked_div(file.size_bytes) {
        Some(percent) => format!("{percent} %"),
        None => size(file.done_bytes),
    }
}

/// A size for people.
pub(crate) fn size(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(state: TransferState) -> File {
        File {
            name: "a\u{1b}[2J.pdf".into(),
            content_type: "application/pdf".into(),
            size_bytes: 4096,
            done_bytes: 1024,
            state: state.into(),
            path: "/x/a.pdf".into(),
            reason: "CHUNK_AUTH".into(),
            ..File::default()
        }
    }

    #[test]
    fn a_file_says_where_it_is_or_how_far() {
        assert_eq!(file_text(&file(TransferState::Done)), "file a.pdf (4.00 KiB, application/pdf): /x/a.pdf");
        assert_eq!(file_text(&file(TransferState::Active)), "file a.pdf (4.00 KiB, application/pdf): 25 % so far");
        assert!(file_text(&file(TransferState::Failed)).ends_with(": failed: CHUNK_AUTH"));
    }

    #[test]
    fn an_empty_file_has_a_percentage_only_when_it_is_there() {
        let empty = File { size_bytes: 0, done_bytes: 0, ..file(TransferState::Active) };
        assert_eq!(percent(&empty), "0 B");
        assert_eq!(percent(&File { state: TransferState::Done.into(), ..empty }), "100 %");
    }
}
