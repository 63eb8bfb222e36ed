//! `murmur.node.v1.PermissionService`.

use std::sync::Arc;

use murmur_core::slug::Slug;
use murmur_proto::{
    node::v1::{self, permission_service_server::PermissionService},
    time::timestamp,
};
use tonic::{Request, Response, Status};

use super::{
    caller::{Caller, CallerError, existing, own_path},
    parse,
    server::{Call, Shared},
    status::{Field, Refusal},
};
use crate::{
    app::Core,
    permission::{Answerer, PermissionRow, Question, is_request_id},
};

const TOOL_NAME_BYTES_MAX: usize = 128;

/// Approvals of tool calls, for local programs.
pub(super) struct PermissionsRpc {
    pub(super) shared: Arc<Shared>,
}

#[tonic::async_trait]
impl PermissionService for PermissionsRpc {
    async fn ask_permission(
        &self,
        request: Request<v1::AskPermissionRequest>,
    ) -> Result<Response<v1::AskPermissionResponse>, Status> {
        let (call, request) = Call::of(request);
        let v1::AskPermissionRequest { agent, request_id: id, tool_name, description, input_preview, instance } =
            request;
        let request_id = request_id(&id)?;
        let tool_name = parse::words("tool_name", tool_name, TOOL_NAME_BYTES_MAX)?;
        let instance = parse::instance(instance)?;
        let (core, asker) = self.shared.speaker(&call, &agent).await?;
        self.shared.clients.note(asker.agent_id, call.pid);
        let question = Question { request_id, tool_name, description, input_preview, instance };
        let (row, told) = core.permissions.ask(&asker, question).await.map_err(Refusal::from)?;
        Ok(Response::new(v1::AskPermissionResponse {
            permission: Some(self.permission(row)),
            told: told.iter().map(ToString::to_string).collect(),
        }))
    }

    async fn list_permissions(
        &self,
        request: Request<v1::ListPermissionsRequest>,
    ) -> Result<Response<v1::ListPermissionsResponse>, Status> {
        let (call, v1::ListPermissionsRequest { agent, all }) = Call::of(request);
        let core = self.shared.core()?;
        let answerer = self.answerer(&core, &call.caller, &agent)?;
        let rows = core.permissions.list(&answerer, all).await.map_err(Refusal::from)?;
        let permissions = rows.into_iter().map(|row| self.permission(row)).collect();
        Ok(Response::new(v1::ListPermissionsResponse { permissions }))
    }

    async fn answer_permission(
        &self,
        request: Request<v1::AnswerPermissionRequest>,
    ) -> Result<Response<v1::AnswerPermissionResponse>, Status> {
        let (call, v1::AnswerPermissionRequest { agent, request_id: id, allow, asked_by }) = Call::of(request);
        let core = self.shared.core()?;
        let answerer = self.answerer(&core, &call.caller, &agent)?;
        let request_id = request_id(&id)?;
        let asked_by = asked_by_option(&core, &asked_by)?;
        // Whoever has a token has said by it who it is.
        let below = if matches!(call.caller, Caller::User) { self.shared.clients.above(call.pid) } else { Vec::new() };
        let answered = core.permissions.answer(&answerer, &below, &request_id, asked_by.as_ref(), allow).await;
        let permission = Some(self.permission(answered.map_err(Refusal::from)?));
        Ok(Response::new(v1::AnswerPermissionResponse { permission }))
    }
}

impl PermissionsRpc {
    /// Who answers: the token's agent, the agent that a program of the node's user names, or that user.
    fn answerer(&self, core: &Core, caller: &Caller, agent: &str) -> Result<Answerer, Refusal> {
        match caller {
            Caller::User if agent.is_empty() => Ok(Answerer::Owner(core.identity.account.clone())),
            // Without its token it is not known whether it is the agent.
            Caller::User if self.shared.require_token => {
                Err(CallerError::TokenRequired { slug: agent.chars().take(128).collect() }.into())
            }
            Caller::User | Caller::Agent(..) => {
                let row = existing(caller, agent, &core.agents, &core.identity)?;
                let unknown = || CallerError::Foreign { slug: agent.chars().take(128).collect() };
                Ok(Answerer::Agent(row.ok_or_else(unknown)?.slug.clone()))
            }
        }
    }

    fn permission(&self, row: PermissionRow) -> v1::Permission {
        let state = match row.allowed {
            Some(true) => v1::PermissionState::Allowed,
            Some(false) => v1::PermissionState::Denied,
            None if row.withdrawn_ms.is_some() => v1::PermissionState::Withdrawn,
            None if row.is_open(self.shared.clock.now_ms()) => v1::PermissionState::Pending,
            None => v1::PermissionState::Expired,
        };
        v1::Permission {
            request_id: row.request_id,
            agent: row.slug.to_string(),
            tool_name: row.tool_name,
            description: row.description,
            input_preview: row.input_preview,
            state: state.into(),
            ask_time: Some(timestamp(row.asked_ms)),
            expire_time: Some(timestamp(row.expires_ms)),
            answered_by: row.answered_by,
            answer_time: row.answered_ms.map(timestamp),
        }
    }
}

/// A permission request's id, as people type it.
fn request_id(text: &str) -> Result<String, Refusal> {
    let id = text.trim().to_ascii_lowercase();
    let rule = || "must be five letters a to z without l, such as abcde".to_owned();
    if is_request_id(&id) { Ok(id) } else { Err(Field { name: "request_id", rule: rule() }.into()) }
}

/// The asking agent, if it was named.
fn asked_by_option(core: &Core, text: &str) -> Result<Option<Slug>, Refusal> {
    if text.is_empty() {
        return Ok(None);
    }
    Ok(Some(core.agents.slug(&own_path(text, &core.identity)?)?))
}
