//! `murmur.node.v1.PermissionService`.

use std::sync::Arc;

use futures::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use murmur_core::slug::Slug;
use murmur_proto::{
    node::v1::{self, permission_service_server::PermissionService},
    time::timestamp,
};
use tokio::sync::broadcast::error::RecvError;
use tonic::{Request, Response, Status};
use tracing::warn;

use super::{
    caller::{Caller, CallerError, existing, own_path},
    parse,
    server::{Call, Shared},
    status::{Field, Refusal},
};
use crate::{
    app::Core,
    permission::{Answerer, News, PermissionRow, Question, is_request_id},
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

    type WatchPermissionsStream = BoxStream<'static, Result<v1::WatchPermissionsResponse, Status>>;

    async fn watch_permissions(
        &self,
        request: Request<v1::WatchPermissionsRequest>,
    ) -> Result<Response<Self::WatchPermissionsStream>, Status> {
        let (call, v1::WatchPermissionsRequest { agent }) = Call::of(request);
        let core = self.shared.core()?;
        let answerer = self.answerer(&core, &call.caller, &agent)?;
        // Before the first look, or what is asked between the two is missed.
        let news = core.permissions.news();
        let open = core.permissions.list(&answerer, false).await.map_err(Refusal::from)?;
        let last = open.last().map_or(0, |row| row.number);
        let later = stream::unfold(news, |mut news| async move {
            loop {
                match news.recv().await {
                    Ok(told) => return Some((told, news)),
                    Err(RecvError::Lagged(missed)) => warn!(missed, "a follower of permission requests was too slow"),
                    Err(RecvError::Closed) => return None,
                }
            }
        });
        let later = later.filter_map(move |told| {
            let row = match told {
                // It was asked before the look, which has shown it.
                News::Asked(row) if row.number <= last => None,
                News::Asked(row) | News::Settled(row) => Some(row),
            };
            let row = row.filter(|row| answerer.may_answer(&row.slug)).map(|row| PermissionRow::clone(&row));
            std::future::ready(row)
        });
        let (drain, clock) = (self.shared.drain.clone(), self.shared.clock);
        let rows = stream::iter(open).chain(later).take_until(async move { drain.cancelled().await });
        let told = move |row| Ok(v1::WatchPermissionsResponse { permission: Some(wire(row, clock.now_ms())) });
        Ok(Response::new(rows.map(told).boxed()))
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
        wire(row, self.shared.clock.now_ms())
    }
}

fn wire(row: PermissionRow, now_ms: u64) -> v1::Permission {
    let state = match row.allowed {
        Some(true) => v1::PermissionState::Allowed,
        Some(false) => v1::PermissionState::Denied,
        None if row.withdrawn_ms.is_some() => v1::PermissionState::Withdrawn,
        None if row.is_open(now_ms) => v1::PermissionState::Pending,
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
