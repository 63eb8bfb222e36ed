//! `task add|ls|show|set`: checklists.

use murmur_proto::{
    v1::{
        ActivateWhen, Activation, CreateTaskRequest, GetTaskRequest, ListTasksRequest, Task, TaskStatus,
        UpdateTaskRequest,
    },
    words::Words as _,
};
use serde_json::{Value, json};

use crate::{
    args::{self, Caller},
    connect::Target,
    output::{self, Outcome, Output},
    text::clean,
    time,
    view::{indented, some},
    word::{number, word},
};

/// Items of a page; a checklist has at most as many.
const PAGE: u32 = 500;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Add an item
    Add(Add),
    /// A checklist, in the order of creation, without deleted items
    Ls {
        #[command(flatten)]
        whose: Whose,
        /// Only what is to be done now: neither completed nor dormant
        #[arg(long)]
        active: bool,
    },
    /// One item
    Show {
        /// The item's id
        id: String,
        #[command(flatten)]
        whose: Whose,
    },
    /// Change an item, wholly or not at all
    Set(Set),
}

/// Whose checklist, and who asks.
#[derive(Debug, clap::Args)]
pub(crate) struct Whose {
    /// The agent whose checklist it is [default: the calling agent]
    #[arg(long = "for", value_name = "SLUG", default_value = "", hide_default_value = true)]
    slug: String,
    #[command(flatten)]
    caller: Caller,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Add {
    /// What is to be done, in at most 240 characters
    subject: String,
    /// More about it
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    description: String,
    /// The item sleeps until a file changes that fits --pattern
    #[arg(long, value_name = "EVENT", value_parser = word::<ActivateWhen>(), requires = "pattern")]
    activate_when: Option<ActivateWhen>,
    /// A glob such as `src/**/*.rs`
    #[arg(long, value_name = "GLOB", requires = "activate_when")]
    pattern: Option<String>,
    #[command(flatten)]
    whose: Whose,
    /// Your own key: a repeat with the same key and content adds nothing twice
    #[arg(long, value_name = "KEY", value_parser = args::key)]
    idempotency_key: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Set {
    /// The item's id
    id: String,
    /// Its new status; `deleted` is final
    #[arg(long, value_parser = word::<TaskStatus>())]
    status: Option<TaskStatus>,
    /// A new subject
    #[arg(long, value_name = "TEXT")]
    subject: Option<String>,
    /// A new description
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Items that wait for this one from now on
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    blocks: Vec<String>,
    /// Items that this one waits for from now on
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    blocked_by: Vec<String>,
    /// Items that wait for this one no more
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    unblocks: Vec<String>,
    /// Items that this one waits for no more
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    unblocked_by: Vec<String>,
    #[command(flatten)]
    whose: Whose,
    /// Your own key: a repeat with the same key and content changes nothing twice
    #[arg(long, value_name = "KEY", value_parser = args::key)]
    idempotency_key: Option<String>,
}

pub(crate) async fn run(target: &Target, command: Command, output: Output) -> Outcome {
    match command {
        Command::Add(args) => add(target, args, output).await,
        Command::Ls { whose, active } => ls(target, whose, active, output).await,
        Command::Show { id, whose } => show(target, id, whose, output).await,
        Command::Set(args) => set(target, args, output).await,
    }
}

async fn add(target: &Target, args: Add, output: Output) -> Outcome {
    let Add { subject, description, activate_when, pattern, whose: Whose { slug, caller }, idempotency_key } = args;
    let request = CreateTaskRequest {
        slug,
        subject,
        description,
        activate_when: number(activate_when),
        pattern: pattern.unwrap_or_default(),
        idempotency_key: idempotency_key.unwrap_or_default(),
    };
    let task = target.control_as(&caller).await?.tasks.create_task(request).await?.into_inner().task;
    let task = task.unwrap_or_default();
    output.show(&task_json(&task), || format!("added {}", task.task_id))
}

async fn ls(target: &Target, whose: Whose, active: bool, output: Output) -> Outcome {
    let mut control = target.control_as(&whose.caller).await?;
    let (mut tasks, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListTasksRequest { slug: whose.slug.clone(), active, page_size: PAGE, page_token };
        let page = control.tasks.list_tasks(request).await?.into_inner();
        tasks.extend(page.tasks);
        if page.next_page_token.is_empty() {
            break;
        }
        page_token = page.next_page_token;
    }
    let value = json!({"tasks": tasks.iter().map(task_json).collect::<Vec<Value>>()});
    output.show(&value, || match (tasks.is_empty(), active) {
        (true, false) => "the checklist is empty".to_owned(),
        (true, true) => "nothing is to be done".to_owned(),
        (false, _) => output::table(&["ID", "STATUS", "WAITS FOR", "BLOCKS", "SUBJECT"], tasks.iter().map(row)),
    })
}

async fn show(target: &Target, task_id: String, whose: Whose, output: Output) -> Outcome {
    let request = GetTaskRequest { slug: whose.slug, task_id };
    let task = target.control_as(&whose.caller).await?.tasks.get_task(request).await?.into_inner().task;
    let task = task.unwrap_or_default();
    output.show(&task_json(&task), || task_text(&task))
}

async fn set(target: &Target, args: Set, output: Output) -> Outcome {
    let Set { id, status, subject, description, blocks, blocked_by, unblocks, unblocked_by, whose, idempotency_key } =
        args;
    let request = UpdateTaskRequest {
        slug: whose.slug,
        task_id: id,
        status: status.map(Into::into),
        subject,
        description,
        add_blocks: blocks,
        add_blocked_by: blocked_by,
        remove_blocks: unblocks,
        remove_blocked_by: unblocked_by,
        idempotency_key: idempotency_key.unwrap_or_default(),
    };
    let task = target.control_as(&whose.caller).await?.tasks.update_task(request).await?.into_inner().task;
    let task = task.unwrap_or_default();
    output.show(&task_json(&task), || task_text(&task))
}

fn task_json(task: &Task) -> Value {
    json!({
        "task_id": task.task_id,
        "subject": task.subject,
        "description": some(&task.description),
        "status": task.status().word(),
        "blocks": task.blocks,
        "blocked_by": task.blocked_by,
        "activation": task.activation().word(),
        "pattern": some(&task.pattern),
        "rev": task.rev,
        "create_time": time::rfc3339(task.create_time.as_ref()),
        "update_time": time::rfc3339(task.update_time.as_ref()),
    })
}

fn status(task: &Task) -> String {
    let dormant = if task.activation() == Activation::Dormant { ", dormant" } else { "" };
    format!("{}{dormant}", task.status().word())
}

fn row(task: &Task) -> Vec<String> {
    vec![task.task_id.clone(), status(task), task.blocked_by.join(", "), task.blocks.join(", "), task.subject.clone()]
}

fn task_text(task: &Task) -> String {
    let facts = output::pairs([
        ("task", task.task_id.clone()),
        ("subject", task.subject.clone()),
        ("status", status(task)),
        ("waits for", task.blocked_by.join(", ")),
        ("blocks", task.blocks.join(", ")),
        ("wakes on", task.pattern.clone()),
        ("added", time::ago(task.create_time.as_ref())),
        ("changed", time::ago(task.update_time.as_ref())),
    ]);
    match task.description.as_str() {
        "" => facts,
        description => format!("{facts}\n\n{}", indented(&clean(description))),
    }
}
