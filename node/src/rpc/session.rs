//! `murmur.node.v1.SessionService`.

use std::sync::Arc;

use futures::{StreamExt as _, stream};
use murmur_core::{id::TokenId, reason::Reason};
use murmur_proto::{
    node::v1::{self, attach_response::Item, session_service_server::SessionService},
    status::status,
    time::timestamp,
};
use tonic::{Request, Response, Status};

use super::{
    caller::{Caller, Wish, existing, known, local, own_path, speaker},
    convert,
    message::Answers,
    parse,
    server::{Call, Shared},
    status::{Field, Refusal},
};
use crate::{
    app::Core,
    events::{Answer, Summary, Told},
    session::{Closed, Push, Pushed, Session},
};

const DESCRIPTION_BYTES_MAX: usize = 1024;
const GROUP_BYTES_MAX: usize = 63;
const CLIENT_BYTES_MAX: usize = 128;
/// `name-2` to `name-99` are tried.
const SUFFIX_MAX: u32 = 99;

/// A program's standing as an agent.
pub(super) struct SessionsRpc {
    pub(super) shared: Arc<Shared>,
}

#[tonic::async_trait]
impl SessionService for SessionsRpc {
    type AttachStream = Answers<v1::AttachResponse>;

    async fn register(&self, request: Request<v1::RegisterRequest>) -> Result<Response<v1::RegisterResponse>, Status> {
        let (call, request) = Call::of(request);
        let v1::RegisterRequest { agent, description, group, suffix_when_taken, move_here } = request;
        let core = self.shared.core()?;
        let wish = Wish { move_here, ..wish(agent, description, group, suffix_when_taken)? };
        let (row, created) = speaker(&call.caller, wish, &core.agents, &core.identity).await?;
        let unread = core.post.unread(row.agent_id).await.map_err(Refusal::from)?;
        Ok(Response::new(v1::RegisterResponse {
            slug: row.slug.to_string(),
            agent_id: row.agent_id.to_string(),
            created,
            unread,
            description: row.description.clone(),
            group: row.group.clone(),
        }))
    }

    async fn attach(&self, request: Request<v1::AttachRequest>) -> Result<Response<Self::AttachStream>, Status> {
        let (call, request) = Call::of(request);
        let core = self.shared.core()?;
        if self.shared.drain.is_cancelled() {
            return Err(Shared::draining());
        }
        let instance = parse::instance(request.instance.clone())?;
        let session = attach(&core, &call.caller, request).await?;
        let agent = session.agent().clone();
        self.shared.clients.note(agent.agent_id, call.pid);
        core.permissions.begin(agent.agent_id, instance.clone()).await.map_err(Refusal::from)?;
        let attached = v1::Attached {
            slug: agent.slug.to_string(),
            agent_id: agent.agent_id.to_string(),
            unread: core.post.unread(agent.agent_id).await.map_err(Refusal::from)?,
            node_version: env!("CARGO_PKG_VERSION").to_owned(),
            unread_events: core.events.unread(agent.agent_id).await.map_err(Refusal::from)?,
        };
        let feed = core.events.feed(agent.agent_id, instance);
        let push = Push::new(session, Arc::clone(&core.post), feed, self.shared.drain.clone());
        let attached = v1::AttachResponse { item: Some(Item::Attached(attached)) };
        // The stream owns the session: when the caller goes away, both are dropped at once.
        let pushes = stream::try_unfold(push, |mut push| async move {
            let next = push.next().await.map_err(|error| Status::from(Refusal::from(error)))?;
            Ok(next.map(|pushed| (answer(pushed), push)))
        });
        let answers = stream::iter([Ok(attached)]).chain(pushes);
        Ok(Response::new(answers.boxed()))
    }

    async fn deregister(
        &self,
        request: Request<v1::DeregisterRequest>,
    ) -> Result<Response<v1::DeregisterResponse>, Status> {
        let (call, v1::DeregisterRequest { agent }) = Call::of(request);
        let core = self.shared.core()?;
        let Some(row) = existing(&call.caller, &agent, &core.agents, &core.identity)? else {
            let slug = core.agents.slug(&own_path(&agent, &core.identity)?).map_err(Refusal::from)?;
            return Ok(Response::new(v1::DeregisterResponse { slug: slug.into(), ..Default::default() }));
        };
        let unread = core.post.unread(row.agent_id).await.map_err(Refusal::from)?;
        let deregistered = core.agents.deregister(&row).await.map_err(Refusal::from)?;
        Ok(Response::new(v1::DeregisterResponse { slug: row.slug.to_string(), deregistered, unread }))
    }

    async fn issue_agent_token(
        &self,
        request: Request<v1::IssueAgentTokenRequest>,
    ) -> Result<Response<v1::IssueAgentTokenResponse>, Status> {
        let (call, v1::IssueAgentTokenRequest { agent }) = Call::of(request);
        let core = self.shared.core()?;
        let row = known(&call.caller, &agent, &core.agents, &core.identity).await?;
        let token = core.agents.issue_token(row.agent_id).await.map_err(Refusal::from)?;
        Ok(Response::new(v1::IssueAgentTokenResponse {
            slug: row.slug.to_string(),
            token: token.expose().to_string(),
            token_id: token.id().to_string(),
        }))
    }

    async fn revoke_agent_token(
        &self,
        request: Request<v1::RevokeAgentTokenRequest>,
    ) -> Result<Response<v1::RevokeAgentTokenResponse>, Status> {
        let (call, v1::RevokeAgentTokenRequest { token_id }) = Call::of(request);
        let core = self.shared.core()?;
        let rule = |_| Refusal::from(Field { name: "token_id", rule: "must be the id of a token, a UUID".to_owned() });
        let token = token_id.parse::<TokenId>().map_err(rule)?;
        let of = match &call.caller {
            Caller::Agent(row, _) => Some(row.agent_id),
            Caller::User => None,
        };
        let Some((row, revoked)) = core.agents.revoke_token(token, of).await.map_err(Refusal::from)? else {
            return Err(status(Reason::TokenNotFound, format!("this node issued no token {token}")));
        };
        Ok(Response::new(v1::RevokeAgentTokenResponse { slug: row.slug.to_string(), revoked }))
    }
}

/// Finds or makes the agent and attaches to it; with `suffix_when_taken` to the first name that is free.
async fn attach(core: &Core, caller: &Caller, request: v1::AttachRequest) -> Result<Session, Refusal> {
    let v1::AttachRequest { agent, takeover, client, suffix_when_taken, description, group, instance: _ } = request;
    let client = parse::words("client", client, CLIENT_BYTES_MAX)?;
    let may_suffix = suffix_when_taken && !takeover && matches!(caller, Caller::User);
    let mut wish = wish(agent.clone(), description, group, may_suffix)?;
    let mut number = 1;
    loop {
        let (row, _) = speaker(caller, wish.clone(), &core.agents, &core.identity).await?;
        match core.sessions.attach(&local(&row), &client, takeover) {
            Ok(session) => return Ok(session),
            Err(_) if may_suffix && number < SUFFIX_MAX => {
                number += 1;
                wish.agent = parse::suffixed(&agent, number)?;
            }
            Err(taken) => return Err(taken.into()),
        }
    }
}

fn wish(agent: String, description: String, group: String, suffix_when_taken: bool) -> Result<Wish, Refusal> {
    Ok(Wish {
        agent,
        description: parse::words("description", description, DESCRIPTION_BYTES_MAX)?,
        group: parse::words("group", group, GROUP_BYTES_MAX)?,
        suffix_when_taken,
        move_here: false,
    })
}

fn answer(pushed: Pushed) -> v1::AttachResponse {
    let item = match pushed {
        Pushed::Message(message) => Item::Message(convert::message(*message)),
        Pushed::Told(Told::Event(event)) => Item::Event(convert::event(*event)),
        Pushed::Told(Told::Summary(Summary { more, lost, cursor, received_ms: _ })) => {
            Item::EventSummary(v1::EventSummary { more, lost, cursor })
        }
        Pushed::Told(Told::Answer(Answer { request_id, allow, by })) => {
            Item::PermissionAnswer(v1::PermissionAnswer { request_id, allow, answered_by: by })
        }
        Pushed::Closed(Closed::Ended) => Item::Ended(v1::Ended {}),
        Pushed::Closed(Closed::Replaced(replaced)) => {
            Item::Replaced(v1::Replaced { by_client: replaced.by_client, at: Some(timestamp(replaced.at_ms)) })
        }
        Pushed::Draining => Item::Draining(v1::Draining {}),
    };
    v1::AttachResponse { item: Some(item) }
}
