//! `murmur.node.v1.OutboxService`.

use std::sync::Arc;

use murmur_proto::node::v1::{self, outbox_service_server::OutboxService};
use tonic::{Request, Response, Status};

use super::{
    caller::{Caller, existing, is_interactive, own_path},
    convert, parse,
    server::{Call, Shared},
    status::{Field, Refusal},
};
use crate::{
    app::Core,
    post::{Place, QueryError, Whose},
};

/// What a person sees of messages and can do about them.
pub(super) struct Outbox {
    pub(super) shared: Arc<Shared>,
}

#[tonic::async_trait]
impl OutboxService for Outbox {
    async fn list_outbox(
        &self,
        request: Request<v1::ListOutboxRequest>,
    ) -> Result<Response<v1::ListOutboxResponse>, Status> {
        let (call, v1::ListOutboxRequest { agent, state, page_size, page_token }) = Call::of(request);
        let (core, whose) = self.whose(&call, &agent).await?;
        let state = parse::state_option("state", state)?;
        if state.is_some_and(|state| !state.is_open()) {
            let rule = "must be QUEUED, SEALED or STORED: what has ended waits no more".to_owned();
            return Err(Refusal::from(Field { name: "state", rule }).into());
        }
        let (after, size) = (parse::delivery_token(&page_token)?, parse::page_size(page_size));
        let found = core.post.list_outbox(whose, state, after, one_more(size)).await.map_err(Refusal::from)?;
        let (messages, next_page_token) = page(found, size, |waiting| convert::place(&waiting.listed));
        let messages = messages.into_iter().map(convert::waiting).collect();
        Ok(Response::new(v1::ListOutboxResponse { messages, next_page_token }))
    }

    async fn get_sent_message(
        &self,
        request: Request<v1::GetSentMessageRequest>,
    ) -> Result<Response<v1::GetSentMessageResponse>, Status> {
        let (call, v1::GetSentMessageRequest { agent, msg_id }) = Call::of(request);
        let (core, whose) = self.whose(&call, &agent).await?;
        let msg_id = parse::msg_id("msg_id", &msg_id)?;
        let found = core.post.sent_message(whose, msg_id).await.map_err(Refusal::from)?;
        let messages = found.into_iter().map(convert::waiting).collect();
        Ok(Response::new(v1::GetSentMessageResponse { messages }))
    }

    async fn cancel_message(
        &self,
        request: Request<v1::CancelMessageRequest>,
    ) -> Result<Response<v1::CancelMessageResponse>, Status> {
        let (call, v1::CancelMessageRequest { agent, msg_id }) = Call::of(request);
        let (core, whose) = self.whose(&call, &agent).await?;
        let msg_id = parse::msg_id("msg_id", &msg_id)?;
        let cancelled = core.post.cancel(whose, msg_id).await.map_err(Refusal::from)?;
        Ok(Response::new(v1::CancelMessageResponse {
            may_arrive: cancelled.iter().any(|cancelled| cancelled.may_arrive),
            messages: cancelled.into_iter().map(|cancelled| convert::listed(cancelled.listed)).collect(),
        }))
    }

    async fn list_dead_letters(
        &self,
        request: Request<v1::ListDeadLettersRequest>,
    ) -> Result<Response<v1::ListDeadLettersResponse>, Status> {
        let (call, v1::ListDeadLettersRequest { agent, page_size, page_token }) = Call::of(request);
        let (core, whose) = self.whose(&call, &agent).await?;
        let (after, size) = (parse::delivery_token(&page_token)?, parse::page_size(page_size));
        let found = core.post.dead_letters(whose, after, one_more(size)).await.map_err(Refusal::from)?;
        let (messages, next_page_token) = page(found, size, convert::place);
        let messages = messages.into_iter().map(convert::listed).collect();
        Ok(Response::new(v1::ListDeadLettersResponse { messages, next_page_token }))
    }

    async fn get_dead_letter(
        &self,
        request: Request<v1::GetDeadLetterRequest>,
    ) -> Result<Response<v1::GetDeadLetterResponse>, Status> {
        let (call, v1::GetDeadLetterRequest { agent, msg_id }) = Call::of(request);
        let (core, whose) = self.whose(&call, &agent).await?;
        let msg_id = parse::msg_id("msg_id", &msg_id)?;
        let (letters, content) = core.post.dead_letter(whose, msg_id).await.map_err(Refusal::from)?;
        Ok(Response::new(v1::GetDeadLetterResponse {
            messages: letters.into_iter().map(convert::listed).collect(),
            content: Some(convert::message(content)),
        }))
    }

    async fn redrive_dead_letter(
        &self,
        request: Request<v1::RedriveDeadLetterRequest>,
    ) -> Result<Response<v1::RedriveDeadLetterResponse>, Status> {
        let (call, v1::RedriveDeadLetterRequest { agent, msg_id }) = Call::of(request);
        let (core, whose) = self.whose(&call, &agent).await?;
        let msg_id = parse::msg_id("msg_id", &msg_id)?;
        let redriven = core.post.redrive(whose, msg_id).await.map_err(Refusal::from)?;
        let redriven = redriven.into_iter().map(convert::redriven).collect();
        Ok(Response::new(v1::RedriveDeadLetterResponse { redriven }))
    }

    async fn drop_dead_letter(
        &self,
        request: Request<v1::DropDeadLetterRequest>,
    ) -> Result<Response<v1::DropDeadLetterResponse>, Status> {
        let (call, v1::DropDeadLetterRequest { agent, msg_id }) = Call::of(request);
        let (core, whose) = self.whose(&call, &agent).await?;
        let msg_id = parse::msg_id("msg_id", &msg_id)?;
        let dropped = core.post.drop_dead_letter(whose, msg_id).await.map_err(Refusal::from)?;
        let messages = dropped.into_iter().map(convert::listed).collect();
        Ok(Response::new(v1::DropDeadLetterResponse { messages }))
    }

    async fn list_quarantine(
        &self,
        request: Request<v1::ListQuarantineRequest>,
    ) -> Result<Response<v1::ListQuarantineResponse>, Status> {
        let v1::ListQuarantineRequest { page_size, page_token } = request.into_inner();
        let core = self.shared.core()?;
        let (after, size) = (parse::number_token(&page_token)?, parse::page_size(page_size));
        let mut found = core.post.list_quarantine(after, one_more(size)).await.map_err(Refusal::from)?;
        let more = found.len() > size;
        found.truncate(size);
        let next_page_token = found.last().filter(|_| more).map(|row| row.id.to_string()).unwrap_or_default();
        let arrivals = found.into_iter().map(|row| convert::quarantined(row).0).collect();
        Ok(Response::new(v1::ListQuarantineResponse { arrivals, next_page_token }))
    }

    async fn get_quarantined(
        &self,
        request: Request<v1::GetQuarantinedRequest>,
    ) -> Result<Response<v1::GetQuarantinedResponse>, Status> {
        let v1::GetQuarantinedRequest { number } = request.into_inner();
        let row = self.shared.core()?.post.quarantined(number).await.map_err(Refusal::from)?;
        let (arrival, content) = convert::quarantined(row);
        Ok(Response::new(v1::GetQuarantinedResponse { arrival: Some(arrival), content }))
    }

    async fn drop_quarantined(
        &self,
        request: Request<v1::DropQuarantinedRequest>,
    ) -> Result<Response<v1::DropQuarantinedResponse>, Status> {
        let v1::DropQuarantinedRequest { number } = request.into_inner();
        self.shared.core()?.post.drop_quarantined(number).await.map_err(Refusal::from)?;
        Ok(Response::new(v1::DropQuarantinedResponse {}))
    }
}

impl Outbox {
    /// Whose messages a call is about. Nobody is registered by asking.
    async fn whose(&self, call: &Call, agent: &str) -> Result<(Arc<Core>, Whose), Refusal> {
        let core = self.shared.core()?;
        if agent.is_empty() && matches!(call.caller, Caller::User) {
            return Ok((core, Whose::Interactive));
        }
        if let Some(row) = existing(&call.caller, agent, &core.agents, &core.identity)? {
            return Ok((core, Whose::Agent(row.agent_id)));
        }
        let slug = core.agents.slug(&own_path(agent, &core.identity)?)?;
        match core.agents.ended_by_slug(slug.clone()).await?.filter(|row| is_interactive(row)) {
            Some(row) => Ok((core, Whose::Agent(row.agent_id))),
            None => Err(QueryError::NoAgent { slug: slug.to_string() }.into()),
        }
    }
}

/// One more than asked for tells whether there is a next page.
fn one_more(size: usize) -> u32 {
    u32::try_from(size).unwrap_or(u32::MAX).saturating_add(1)
}

fn page<T>(mut found: Vec<T>, size: usize, place: impl Fn(&T) -> Place) -> (Vec<T>, String) {
    let more = found.len() > size;
    found.truncate(size);
    let token = found.last().filter(|_| more).map(|last| parse::next_delivery_token(place(last)));
    (found, token.unwrap_or_default())
}
