//! The checklist: `task_create`, `task_update`, `task_list` and `task_get`.

use murmur_proto::v1::{
    self, ActivateWhen, Activation, CreateTaskRequest, GetTaskRequest, ListTasksRequest, TaskStatus, UpdateTaskRequest,
};
use rmcp::model::ToolAnnotations;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Call, Murmur,
    choice::{Choice, number},
    control::some,
};
use crate::{errors::Failure, render};

pub(super) struct TaskCreate;
pub(super) struct TaskUpdate;
pub(super) struct TaskList;
pub(super) struct TaskGet;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateArgs {
    /// What is to be done, in at most 240 characters.
    #[schemars(length(min = 1))]
    subject: String,
    /// More about it.
    #[serde(default)]
    description: Option<String>,
    /// The item sleeps until a file changes that fits pattern.
    #[serde(default)]
    activate_when: Option<Choice<ActivateWhen>>,
    /// A glob such as src/**/*.rs; needed with activate_when.
    #[serde(default)]
    pattern: Option<String>,
    /// Whose checklist. Default: yours.
    #[serde(default)]
    slug: Option<String>,
    /// Default: your own.
    #[serde(default)]
    workspace: Option<String>,
    /// Any key of your own: a repeat with the same key and content adds nothing twice.
    #[serde(default)]
    #[schemars(length(min = 1))]
    idempotency_key: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Created {
    task_id: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct UpdateArgs {
    /// The item.
    #[schemars(length(min = 1))]
    task_id: String,
    /// deleted is final.
    #[serde(default)]
    status: Option<Choice<TaskStatus>>,
    /// A new subject.
    #[serde(default)]
    subject: Option<String>,
    /// A new description.
    #[serde(default)]
    description: Option<String>,
    /// Ids of items that wait for this one from now on.
    #[serde(default)]
    add_blocks: Vec<String>,
    /// Ids of items that this one waits for from now on.
    #[serde(default)]
    add_blocked_by: Vec<String>,
    /// Ids of items that wait for this one no more.
    #[serde(default)]
    remove_blocks: Vec<String>,
    /// Ids of items that this one waits for no more.
    #[serde(default)]
    remove_blocked_by: Vec<String>,
    /// Whose checklist. Default: yours.
    #[serde(default)]
    slug: Option<String>,
    /// Default: your own.
    #[serde(default)]
    workspace: Option<String>,
    /// Any key of your own: a repeat with the same key and content changes nothing twice.
    #[serde(default)]
    #[schemars(length(min = 1))]
    idempotency_key: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ListArgs {
    /// Whose checklist. Default: yours.
    #[serde(default)]
    slug: Option<String>,
    /// Only what is to be done now: neither completed nor dormant.
    #[serde(default)]
    active: bool,
    /// How many at most.
    #[serde(default = "limit")]
    #[schemars(range(min = 1, max = 500))]
    limit: u32,
    /// The next_cursor of the page before.
    #[serde(default)]
    #[schemars(length(min = 1))]
    cursor: Option<String>,
    /// Default: your own.
    #[serde(default)]
    workspace: Option<String>,
}

fn limit() -> u32 {
    100
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Listed {
    /// In the order of their creation.
    tasks: Vec<Task>,
    /// Pass as `cursor` for the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct GetArgs {
    /// The item.
    #[schemars(length(min = 1))]
    task_id: String,
    /// Whose checklist. Default: yours.
    #[serde(default)]
    slug: Option<String>,
    /// Default: your own.
    #[serde(default)]
    workspace: Option<String>,
}

/// One item.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Task {
    task_id: String,
    subject: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Choice<TaskStatus>>,
    /// Items that wait for this one.
    blocks: Vec<String>,
    /// Items that this one waits for.
    blocked_by: Vec<String>,
    /// A dormant item waits for a changed file and cannot be started.
    #[serde(skip_serializing_if = "Option::is_none")]
    activation: Option<Choice<Activation>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pattern: Option<String>,
}

impl From<v1::Task> for Task {
    fn from(task: v1::Task) -> Self {
        Self {
            status: Choice::known(task.status()),
            activation: Choice::known(task.activation()),
            subject: render::clean(&task.subject),
            description: some(&render::clean(&task.description)),
            pattern: some(&render::clean(&task.pattern)),
            task_id: task.task_id,
            blocks: task.blocks,
            blocked_by: task.blocked_by,
        }
    }
}

impl Murmur for TaskCreate {
    const NAME: &'static str = "task_create";
    const TITLE: &'static str = "Add a checklist item";
    const DESCRIPTION: &'static str = "Add an item to your checklist, or to that of an agent below you.";
    type Args = CreateArgs;
    type Answer = Created;

    fn annotations() -> ToolAnnotations {
        ToolAnnotations::new().read_only(false).destructive(false).idempotent(false).open_world(false)
    }

    async fn run(args: CreateArgs, call: &Call) -> Result<Created, Failure> {
        let request = CreateTaskRequest {
            slug: call.slug(args.slug, args.workspace.as_deref()).await?,
            subject: args.subject,
            description: args.description.unwrap_or_default(),
            activate_when: number(args.activate_when),
            pattern: args.pattern.unwrap_or_default(),
            idempotency_key: String::new(),
        };
        let control = call.control().await?;
        let once = |idempotency_key| {
            let mut tasks = control.tasks.clone();
            let request = CreateTaskRequest { idempotency_key, ..request.clone() };
            async move { tasks.create_task(request).await }
        };
        let task = call.write(args.idempotency_key, once).await?.task.unwrap_or_default();
        Ok(Created { task_id: task.task_id })
    }
}

impl Murmur for TaskUpdate {
    const NAME: &'static str = "task_update";
    const TITLE: &'static str = "Change a checklist item";
    const DESCRIPTION: &'static str = "Change an item of your checklist, or of that of an agent below you: wholly or not at all. Answers \
        the item as it is now. An item with open blockers can be neither started nor completed; the refusal lists them.";
    type Args = UpdateArgs;
    type Answer = Task;

    fn annotations() -> ToolAnnotations {
        ToolAnnotations::new().read_only(false).destructive(true).idempotent(true).open_world(false)
    }

    async fn run(args: UpdateArgs, call: &Call) -> Result<Task, Failure> {
        let request = UpdateTaskRequest {
            slug: call.slug(args.slug, args.workspace.as_deref()).await?,
            task_id: args.task_id,
            status: args.status.map(|Choice(status)| status.into()),
            subject: args.subject,
            description: args.description,
            add_blocks: args.add_blocks,
            add_blocked_by: args.add_blocked_by,
            remove_blocks: args.remove_blocks,
            remove_blocked_by: args.remove_blocked_by,
            idempotency_key: String::new(),
        };
        let control = call.control().await?;
        let once = |idempotency_key| {
            let mut tasks = control.tasks.clone();
            let request = UpdateTaskRequest { idempotency_key, ..request.clone() };
            async move { tasks.update_task(request).await }
        };
        let task = call.write(args.idempotency_key, once).await?.task;
        // What is not told as changed was not changed.
        task.map(Task::from).ok_or_else(nothing_told)
    }
}

impl Murmur for TaskList {
    const NAME: &'static str = "task_list";
    const TITLE: &'static str = "Show a checklist";
    const DESCRIPTION: &'static str =
        "List your checklist, or that of another agent, in the order of creation; deleted items are left out.";
    type Args = ListArgs;
    type Answer = Listed;

    fn annotations() -> ToolAnnotations {
        ToolAnnotations::new().read_only(true).idempotent(true).open_world(false)
    }

    async fn run(args: ListArgs, call: &Call) -> Result<Listed, Failure> {
        let request = ListTasksRequest {
            slug: call.slug(args.slug, args.workspace.as_deref()).await?,
            active: args.active,
            page_size: args.limit,
            page_token: args.cursor.unwrap_or_default(),
        };
        let listed = call.answer(call.control().await?.tasks.list_tasks(request)).await?;
        let tasks = listed.tasks.into_iter().map(Task::from).collect();
        Ok(Listed { tasks, next_cursor: some(&listed.next_page_token) })
    }
}

impl Murmur for TaskGet {
    const NAME: &'static str = "task_get";
    const TITLE: &'static str = "Show a checklist item";
    const DESCRIPTION: &'static str = "Show one item of your checklist, or of that of another agent.";
    type Args = GetArgs;
    type Answer = Task;

    fn annotations() -> ToolAnnotations {
        ToolAnnotations::new().read_only(true).idempotent(true).open_world(false)
    }

    async fn run(args: GetArgs, call: &Call) -> Result<Task, Failure> {
        let slug = call.slug(args.slug, args.workspace.as_deref()).await?;
        let request = GetTaskRequest { slug, task_id: args.task_id };
        let task = call.answer(call.control().await?.tasks.get_task(request)).await?.task;
        task.map(Task::from).ok_or_else(nothing_told)
    }
}

fn nothing_told() -> Failure {
    Failure::refused(murmur_core::reason::Reason::Internal, "the control plane answered without an item")
}
