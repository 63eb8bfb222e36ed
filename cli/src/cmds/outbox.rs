//! `outbox`: what is still on its way, one message more closely, and taking one back.

use clap::ValueEnum;
use murmur_proto::node::v1::{
    CancelMessageRequest, DeliveryState, GetSentMessageRequest, ListOutboxRequest, SentMessage,
};
use serde_json::{Value, json};

use crate::{
    args::{self, Speaker},
    connect::Target,
    output::{self, Outcome, Output},
    text, time, view,
};

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    list: List,
}

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// What is on its way (the default)
    Ls(List),
    /// One message more closely
    Show(One),
    /// Take a message back that is not delivered yet
    Cancel(One),
}

#[derive(Debug, clap::Args)]
#[command(mut_arg("agent", args::whose))]
pub(crate) struct List {
    #[command(flatten)]
    speaker: Speaker,
    /// Only messages in this state
    #[arg(long, value_name = "STATE")]
    state: Option<Open>,
    /// How many at most
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000), value_name = "N")]
    limit: u32,
    /// Go on behind this page
    #[arg(long, value_name = "TOKEN", default_value = "", hide_default_value = true)]
    page: String,
}

#[derive(Debug, clap::Args)]
#[command(mut_arg("agent", args::whose))]
pub(crate) struct One {
    /// The id that `send`, `request` or `outbox` showed
    msg_id: String,
    #[command(flatten)]
    speaker: Speaker,
}

/// The states of a message that is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Open {
    /// On this host's disk only
    Queued,
    /// Sealed for the recipient, not yet with the broker
    Sealed,
    /// With the broker, no receipt yet
    Stored,
}

impl From<Open> for DeliveryState {
    fn from(open: Open) -> Self {
        match open {
            Open::Queued => Self::Queued,
            Open::Sealed => Self::Sealed,
            Open::Stored => Self::Stored,
        }
    }
}

pub(crate) async fn run(target: &Target, args: Args, output: Output) -> Outcome {
    match args.command.unwrap_or(Command::Ls(args.list)) {
        Command::Ls(list) => ls(target, list, output).await,
        Command::Show(one) => show(target, one, output).await,
        Command::Cancel(one) => cancel(target, one, output).await,
    }
}

async fn ls(target: &Target, list: List, output: Output) -> Outcome {
    let List { speaker, state, limit, page } = list;
    let request = ListOutboxRequest {
        agent: speaker.agent.clone(),
        state: state.map_or(DeliveryState::Unspecified, Into::into).into(),
        page_size: limit,
        page_token: page,
    };
    let answer = target.node_as(&speaker).await?.outbox.list_outbox(request).await?.into_inner();
    let value = json!({
        "messages": answer.messages.iter().map(view::sent_json).collect::<Vec<Value>>(),
        "next_page": view::some(&answer.next_page_token),
    });
    output.show(&value, || {
        if answer.messages.is_empty() {
            return "nothing is on its way".into();
        }
        let rows = answer.messages.iter().map(row);
        let table = output::table(&["MESSAGE", "FROM", "TO", "STATE", "TRIES", "SENT", "NEXT TRY", "WAITS FOR"], rows);
        match view::some(&answer.next_page_token) {
            Some(token) => format!("{table}\n\nmore with --page {token}"),
            None => table,
        }
    })
}

fn row(message: &SentMessage) -> Vec<String> {
    let delivery = message.delivery.clone().unwrap_or_default();
    vec![
        message.msg_id.clone(),
        message.from.clone(),
        message.to.clone(),
        view::state(delivery.state()).into(),
        delivery.publish_tries.to_string(),
        time::ago(delivery.created_time.as_ref()),
        time::ahead(message.next_time.as_ref()),
        message.waits_for.clone(),
    ]
}

async fn show(target: &Target, one: One, output: Output) -> Outcome {
    let One { msg_id, speaker } = one;
    let request = GetSentMessageRequest { agent: speaker.agent.clone(), msg_id };
    let answer = target.node_as(&speaker).await?.outbox.get_sent_message(request).await?.into_inner();
    let value = json!({"messages": answer.messages.iter().map(view::sent_json).collect::<Vec<Value>>()});
    output.show(&value, || answer.messages.iter().map(view::sent_text).collect::<Vec<_>>().join("\n\n"))
}

async fn cancel(target: &Target, one: One, output: Output) -> Outcome {
    let One { msg_id, speaker } = one;
    let request = CancelMessageRequest { agent: speaker.agent.clone(), msg_id };
    let answer = target.node_as(&speaker).await?.outbox.cancel_message(request).await?.into_inner();
    let value = json!({
        "messages": answer.messages.iter().map(view::sent_json).collect::<Vec<Value>>(),
        "may_arrive": answer.may_arrive,
    });
    output.show(&value, || {
        let mut lines: Vec<_> = answer
            .messages
            .iter()
            .map(|message| format!("cancelled {} to {}", message.msg_id, text::clean_line(&message.to)))
            .collect();
        if answer.may_arrive {
            lines.push("it had left this host, and may arrive all the same".into());
        }
        lines.join("\n")
    })
}
