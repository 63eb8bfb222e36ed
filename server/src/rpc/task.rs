//! `murmur.v1.TaskService`.

use std::sync::Arc;

use murmur_core::checklist::{Change, Details, InvalidDetails, Status as TaskStatus, TaskId};
use murmur_proto::v1::{self, task_service_server::TaskService};
use prost::Message as _;
use tonic::{Request, Response, Status};

use super::{caller, convert};
use crate::{
    idempotency::Once,
    invalid::{Invalid, parse},
    tasks::{Edit, NewTask, Tasks},
};

/// Checklists.
pub(crate) struct TaskRpc {
    pub(crate) tasks: Arc<Tasks>,
}

#[tonic::async_trait]
impl TaskService for TaskRpc {
    async fn create_task(
        &self,
        request: Request<v1::CreateTaskRequest>,
    ) -> Result<Response<v1::CreateTaskResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let once = Once::new(&caller, "CreateTask", &request.idempotency_key, &request.encode_to_vec())?;
        let slug = request.slug.clone();
        let task = self.tasks.create(&caller, &slug, new_task(request)?, once.as_ref()).await?;
        Ok(Response::new(v1::CreateTaskResponse { task: Some(convert::task(task)) }))
    }

    async fn update_task(
        &self,
        request: Request<v1::UpdateTaskRequest>,
    ) -> Result<Response<v1::UpdateTaskResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let once = Once::new(&caller, "UpdateTask", &request.idempotency_key, &request.encode_to_vec())?;
        let id = parse("task_id", &request.task_id)?;
        let slug = request.slug.clone();
        let task = self.tasks.update(&caller, &slug, id, edit(request)?, once.as_ref()).await?;
        Ok(Response::new(v1::UpdateTaskResponse { task: Some(convert::task(task)) }))
    }

    async fn list_tasks(
        &self,
        request: Request<v1::ListTasksRequest>,
    ) -> Result<Response<v1::ListTasksResponse>, Status> {
        let caller = caller(&request)?;
        let v1::ListTasksRequest { slug, active, page_size, page_token } = request.into_inner();
        let (tasks, next_page_token) = self.tasks.list(&caller, &slug, active, (page_size, &page_token)).await?;
        let tasks = tasks.into_iter().map(convert::task).collect();
        Ok(Response::new(v1::ListTasksResponse { tasks, next_page_token }))
    }

    async fn get_task(&self, request: Request<v1::GetTaskRequest>) -> Result<Response<v1::GetTaskResponse>, Status> {
        let caller = caller(&request)?;
        let v1::GetTaskRequest { slug, task_id } = request.into_inner();
        let task = self.tasks.get(&caller, &slug, parse("task_id", &task_id)?).await?;
        Ok(Response::new(v1::GetTaskResponse { task: Some(convert::task(task)) }))
    }
}

fn new_task(request: v1::CreateTaskRequest) -> Result<NewTask, Invalid> {
    let pattern = match v1::ActivateWhen::try_from(request.activate_when) {
        Ok(v1::ActivateWhen::FilesModified) => Some(parse("pattern", &request.pattern)?),
        Ok(v1::ActivateWhen::Unspecified) if request.pattern.is_empty() => None,
        Ok(v1::ActivateWhen::Unspecified) => {
            return Err(Invalid::new("pattern", "is needed with activate_when and with nothing else"));
        }
        Err(_) => return Err(Invalid::new("activate_when", "must be FILES_MODIFIED, or absent")),
    };
    Ok(NewTask { subject: parse("subject", &request.subject)?, details: details(request.description)?, pattern })
}

fn edit(request: v1::UpdateTaskRequest) -> Result<Edit, Invalid> {
    let status = request.status.map(v1::TaskStatus::try_from);
    let status = status.map(|status| match status {
        Ok(v1::TaskStatus::Pending) => Ok(TaskStatus::Pending),
        Ok(v1::TaskStatus::InProgress) => Ok(TaskStatus::InProgress),
        Ok(v1::TaskStatus::Completed) => Ok(TaskStatus::Completed),
        Ok(v1::TaskStatus::Deleted) => Ok(TaskStatus::Deleted),
        Ok(v1::TaskStatus::Unspecified) | Err(_) => {
            Err(Invalid::new("status", "must be PENDING, IN_PROGRESS, COMPLETED or DELETED"))
        }
    });
    Ok(Edit {
        subject: request.subject.map(|text| parse("subject", &text)).transpose()?,
        details: request.description.map(details).transpose()?,
        change: Change {
            status: status.transpose()?,
            add_blocks: ids("add_blocks", &request.add_blocks)?,
            add_blocked_by: ids("add_blocked_by", &request.add_blocked_by)?,
            remove_blocks: ids("remove_blocks", &request.remove_blocks)?,
            remove_blocked_by: ids("remove_blocked_by", &request.remove_blocked_by)?,
        },
    })
}

fn ids(field: &'static str, texts: &[String]) -> Result<Vec<TaskId>, Invalid> {
    texts.iter().map(|text| parse(field, text)).collect()
}

fn details(text: String) -> Result<Details, Invalid> {
    text.try_into().map_err(|error: InvalidDetails| Invalid::new("description", error.to_string()))
}
