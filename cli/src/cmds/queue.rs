//! `queue add|ls|clear`: work that waits for an agent's next turn.

use murmur_proto::{
    v1::{AddFollowUpRequest, ClearQueueRequest, FollowUp, ListFollowUpsRequest},
    words::Words as _,
};
use serde_json::{Value, json};

use super::body;
use crate::{
    agent_view::{first_line, follow_up_json},
    args::{self, Caller},
    connect::Target,
    output::{self, Outcome, Output},
    text::clean_line,
    time,
};

/// Everything that fits into a queue.
const PAGE: u32 = 256;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Give an agent work for its next turn; a sleeping one wakes for it
    Add {
        /// The agent
        slug: String,
        /// What it shall do; `-` or nothing reads stdin
        text: Option<String>,
        /// An item that joins its checklist; repeatable
        #[arg(long = "task", value_name = "SUBJECT")]
        tasks: Vec<String>,
        #[command(flatten)]
        caller: Caller,
        /// Your own key: a repeat with the same key and content is queued once
        #[arg(long, value_name = "KEY", value_parser = args::key)]
        idempotency_key: Option<String>,
    },
    /// What waits, oldest first
    Ls {
        /// The agent [default: the calling agent]
        #[arg(default_value = "", hide_default_value = true)]
        slug: String,
        #[command(flatten)]
        caller: Caller,
    },
    /// Drop what no turn has taken yet; the present turn is untouched
    Clear {
        /// The agent [default: the calling agent]
        #[arg(default_value = "", hide_default_value = true)]
        slug: String,
        #[command(flatten)]
        caller: Caller,
    },
}

pub(crate) async fn run(target: &Target, command: Command, output: Output) -> Outcome {
    match command {
        Command::Add { slug, text, tasks, caller, idempotency_key } => {
            let idempotency_key = idempotency_key.unwrap_or_default();
            let request = AddFollowUpRequest { slug, description: body::text(text)?, tasks, idempotency_key };
            add(target, &caller, request, output).await
        }
        Command::Ls { slug, caller } => ls(target, &caller, slug, output).await,
        Command::Clear { slug, caller } => clear(target, &caller, slug, output).await,
    }
}

async fn add(target: &Target, caller: &Caller, request: AddFollowUpRequest, output: Output) -> Outcome {
    let typed = request.slug.clone();
    let answer = target.control_as(caller).await?.queue.add_follow_up(request).await?.into_inner();
    let agent = answer.agent;
    let value = json!({
        "queued": true,
        "follow_up_id": answer.follow_up_id,
        "position": answer.position,
        "slug": agent.as_ref().map_or(&typed, |agent| &agent.slug),
        "phase": agent.as_ref().map(|agent| agent.phase().word()),
    });
    output.show(&value, || {
        let place = match answer.position {
            0 => "next".to_owned(),
            before => format!("behind {before} more"),
        };
        match &agent {
            Some(agent) => format!("queued for {}, {place}; it is {}", clean_line(&agent.slug), agent.phase().word()),
            None => format!("queued for {}, {place}", clean_line(&typed)),
        }
    })
}

async fn ls(target: &Target, caller: &Caller, slug: String, output: Output) -> Outcome {
    let mut control = target.control_as(caller).await?;
    let (mut waiting, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListFollowUpsRequest { slug: slug.clone(), page_size: PAGE, page_token };
        let page = control.queue.list_follow_ups(request).await?.into_inner();
        waiting.extend(page.follow_ups);
        if page.next_page_token.is_empty() {
            break;
        }
        page_token = page.next_page_token;
    }
    let value = json!({"follow_ups": waiting.iter().map(follow_up_json).collect::<Vec<Value>>()});
    output.show(&value, || if waiting.is_empty() { "nothing waits".to_owned() } else { table(&waiting) })
}

/// What waits, for people.
pub(super) fn table(waiting: &[FollowUp]) -> String {
    let rows = waiting.iter().map(|follow_up| {
        let again = if follow_up.redelivered { " (again)" } else { "" };
        vec![
            first_line(&follow_up.description) + again,
            follow_up.from.clone(),
            follow_up.kind().word().to_owned(),
            time::ago(follow_up.create_time.as_ref()),
            if follow_up.tasks.is_empty() { String::new() } else { follow_up.tasks.len().to_string() },
        ]
    });
    output::table(&["WORK", "FROM", "KIND", "QUEUED", "TASKS"], rows)
}

async fn clear(target: &Target, caller: &Caller, slug: String, output: Output) -> Outcome {
    let request = ClearQueueRequest { slug };
    let cleared = target.control_as(caller).await?.queue.clear_queue(request).await?.into_inner().cleared;
    output.show(&json!({"cleared": cleared}), || format!("dropped {cleared}"))
}
