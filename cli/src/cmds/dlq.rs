//! `dlq`: messages that died or expired: why, and trying again or dropping them.

use murmur_proto::{
    client::NodeClient,
    node::v1::{
        DropDeadLetterRequest, GetDeadLetterRequest, ListDeadLettersRequest, RedriveDeadLetterRequest, SentMessage,
    },
};
use serde_json::{Value, json};

use crate::{
    args::{self, Speaker},
    connect::Target,
    exit::Exit,
    failure::Failure,
    output::{self, Outcome, Output},
    text, time, view,
};

const PAGE: u32 = 1000;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// What could not be delivered, and why
    #[command(mut_arg("agent", args::whose))]
    Ls {
        #[command(flatten)]
        speaker: Speaker,
        /// How many at most
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000), value_name = "N")]
        limit: u32,
        /// Go on behind this page
        #[arg(long, value_name = "TOKEN", default_value = "", hide_default_value = true)]
        page: String,
    },
    /// One of them, with what it said
    #[command(mut_arg("agent", args::whose))]
    Show {
        /// The id that `dlq ls` showed
        msg_id: String,
        #[command(flatten)]
        speaker: Speaker,
    },
    /// Try again; see to what stood in the way first
    Redrive(Which),
    /// Give up on them for good
    Drop(Which),
}

/// Which dead letters.
#[derive(Debug, clap::Args)]
#[command(mut_arg("agent", args::whose))]
pub(crate) struct Which {
    /// Ids that `dlq ls` showed
    #[arg(required_unless_present = "all", value_name = "MSG_ID")]
    msg_ids: Vec<String>,
    /// All of them
    #[arg(long, conflicts_with = "msg_ids")]
    all: bool,
    #[command(flatten)]
    speaker: Speaker,
}

pub(crate) async fn run(target: &Target, command: Command, output: Output) -> Outcome {
    match command {
        Command::Ls { speaker, limit, page } => ls(target, &speaker, limit, page, output).await,
        Command::Show { msg_id, speaker } => show(target, &speaker, msg_id, output).await,
        Command::Redrive(letters) => redrive(target, letters, output).await,
        Command::Drop(letters) => drop_letters(target, letters, output).await,
    }
}

async fn ls(target: &Target, speaker: &Speaker, limit: u32, page: String, output: Output) -> Outcome {
    let request = ListDeadLettersRequest { agent: speaker.agent.clone(), page_size: limit, page_token: page };
    let answer = target.node_as(speaker).await?.outbox.list_dead_letters(request).await?.into_inner();
    let value = json!({
        "messages": answer.messages.iter().map(view::sent_json).collect::<Vec<Value>>(),
        "next_page": view::some(&answer.next_page_token),
    });
    output.show(&value, || {
        if answer.messages.is_empty() {
            return "no dead letters".into();
        }
        let table = output::table(
            &["MESSAGE", "FROM", "TO", "STATE", "REASON", "SENT", "GIVEN UP"],
            answer.messages.iter().map(row),
        );
        match view::some(&answer.next_page_token) {
            Some(token) => format!("{table}\n\nmore with --page {token}"),
            None => table,
        }
    })
}

fn row(message: &SentMessage) -> Vec<String> {
    let delivery = message.delivery.clone().unwrap_or_default();
    let letter = message.dead_letter.clone().unwrap_or_default();
    vec![
        message.msg_id.clone(),
        message.from.clone(),
        message.to.clone(),
        view::state(delivery.state()).into(),
        letter.reason,
        time::ago(delivery.created_time.as_ref()),
        time::ago(letter.dead_time.as_ref()),
    ]
}

async fn show(target: &Target, speaker: &Speaker, msg_id: String, output: Output) -> Outcome {
    let request = GetDeadLetterRequest { agent: speaker.agent.clone(), msg_id };
    let answer = target.node_as(speaker).await?.outbox.get_dead_letter(request).await?.into_inner();
    let content = answer.content.unwrap_or_default();
    let value = json!({
        "messages": answer.messages.iter().map(view::sent_json).collect::<Vec<Value>>(),
        "content": view::message_json(&content),
    });
    output.show(&value, || {
        let mut parts: Vec<_> = answer.messages.iter().map(view::sent_text).collect();
        parts.push(view::indented(&view::body_text(&content)));
        parts.join("\n\n")
    })
}

async fn redrive(target: &Target, letters: Which, output: Output) -> Outcome {
    let mut node = target.node_as(&letters.speaker).await?;
    let msg_ids = named(&mut node, &letters).await?;
    let (begun, refused) = each(msg_ids, async |msg_id| {
        let request = RedriveDeadLetterRequest { agent: letters.speaker.agent.clone(), msg_id };
        Ok(node.outbox.redrive_dead_letter(request).await?.into_inner().redriven)
    })
    .await;
    let one = |one: &murmur_proto::node::v1::Redriven| {
        json!({
            "msg_id": one.msg_id,
            "redrive_of": one.redrive_of,
            "to": one.to,
            "expire_time": time::rfc3339(one.expire_time.as_ref()),
        })
    };
    let line = |one: &murmur_proto::node::v1::Redriven| {
        let new = if one.msg_id == one.redrive_of { String::new() } else { format!(", now as {}", one.msg_id) };
        format!("redriven {} to {}{new}", one.redrive_of, text::clean_line(&one.to))
    };
    let done =
        Done { name: "redriven", json: begun.iter().map(one).collect(), lines: begun.iter().map(line).collect() };
    refused.show(done, output)
}

async fn drop_letters(target: &Target, letters: Which, output: Output) -> Outcome {
    let mut node = target.node_as(&letters.speaker).await?;
    let msg_ids = named(&mut node, &letters).await?;
    let (dropped, refused) = each(msg_ids, async |msg_id| {
        let request = DropDeadLetterRequest { agent: letters.speaker.agent.clone(), msg_id };
        Ok(node.outbox.drop_dead_letter(request).await?.into_inner().messages)
    })
    .await;
    let line = |letter: &SentMessage| format!("dropped {} to {}", letter.msg_id, text::clean_line(&letter.to));
    let json = dropped.iter().map(view::sent_json).collect();
    refused.show(Done { name: "dropped", json, lines: dropped.iter().map(line).collect() }, output)
}

/// What was done with letters, in both forms of output.
struct Done {
    name: &'static str,
    json: Vec<Value>,
    lines: Vec<String>,
}

/// Does the same with one letter after the other: what one is refused for, the next may not be. When nobody answers, the next one fares no
/// better.
async fn each<T>(
    msg_ids: Vec<String>,
    mut act: impl AsyncFnMut(String) -> Result<Vec<T>, tonic::Status>,
) -> (Vec<T>, Refused) {
    let (mut done, mut refused) = (Vec::new(), Refused(Vec::new()));
    for msg_id in msg_ids {
        match act(msg_id.clone()).await {
            Ok(some) => done.extend(some),
            Err(status) => {
                let failure = Failure::from(status);
                let is_away = failure.exit == Exit::Unavailable;
                refused.0.push((msg_id, failure));
                if is_away {
                    break;
                }
            }
        }
    }
    (done, refused)
}

/// Letters that stand where they stood, by their ids.
struct Refused(Vec<(String, Failure)>);

impl Refused {
    /// Shows what was done and what was not; a single refusal where nothing was done is the command's own.
    fn show(mut self, Done { name, json, mut lines }: Done, output: Output) -> Outcome {
        if json.is_empty() && self.0.len() == 1 {
            return self.0.pop().map_or(Ok(Exit::Ok), |(_, failure)| Err(failure));
        }
        let exit = self.0.first().map_or(Exit::Ok, |(_, failure)| failure.exit);
        let one = |(msg_id, failure): &(String, Failure)| {
            let mut refused = failure.json();
            refused["msg_id"] = msg_id.as_str().into();
            refused
        };
        let refused: Vec<Value> = self.0.iter().map(one).collect();
        let of_refused =
            |(msg_id, failure): &(String, Failure)| format!("not {name} {msg_id}: {}", text::clean_line(&failure.what));
        lines.extend(self.0.iter().map(of_refused));
        output.show(&json!({(name): json, "refused": refused}), || {
            if lines.is_empty() { "no dead letters".into() } else { lines.join("\n") }
        })?;
        Ok(exit)
    }
}

/// The ids that were typed; with `--all`, those of every dead letter.
async fn named(node: &mut NodeClient, letters: &Which) -> Result<Vec<String>, Failure> {
    if !letters.all {
        return Ok(letters.msg_ids.clone());
    }
    let mut ids: Vec<String> = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListDeadLettersRequest { agent: letters.speaker.agent.clone(), page_size: PAGE, page_token };
        let page = node.outbox.list_dead_letters(request).await?.into_inner();
        ids.extend(page.messages.into_iter().map(|letter| letter.msg_id));
        if page.next_page_token.is_empty() {
            ids.dedup();
            return Ok(ids);
        }
        page_token = page.next_page_token;
    }
}
