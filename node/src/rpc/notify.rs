//! `murmur.node.v1.NotifyService`.

use std::{pin::Pin, sync::Arc};

use murmur_proto::{
    node::v1::{self, notify_service_server::NotifyService, set_channel_request::Service as Wanted},
    time::timestamp,
};
use tokio::sync::mpsc;
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status};

use super::{
    caller::{Caller, CallerError},
    server::{Call, Shared},
    status::{Field, Refusal},
};
use crate::{
    app::Core,
    notify::{self, Channel, Filter, Person, Service},
};

const LANGUAGE_DEFAULT: &str = "en_US";

/// Notification channels.
pub(super) struct Notifications {
    pub(super) shared: Arc<Shared>,
}

impl Notifications {
    /// The node and what is asked of it, when its own user asks: an agent would choose for itself where messages are told.
    fn of_user<T>(&self, request: Request<T>) -> Result<(Arc<Core>, T), Refusal> {
        let (call, inner) = Call::of(request);
        Ok((self.user(&call)?, inner))
    }

    fn user(&self, call: &Call) -> Result<Arc<Core>, Refusal> {
        match call.caller {
            Caller::User => self.shared.core(),
            Caller::Agent(..) => Err(CallerError::UserAlone.into()),
        }
    }
}

#[tonic::async_trait]
impl NotifyService for Notifications {
    async fn set_channel(
        &self,
        request: Request<v1::SetChannelRequest>,
    ) -> Result<Response<v1::SetChannelResponse>, Status> {
        let (call, request) = Call::of(request);
        let core = self.user(&call)?;
        let channel = channel(request)?;
        // Whoever an agent's program names could answer for the agent.
        if !channel.service.answerers().is_empty() && !self.shared.clients.above(call.pid).is_empty() {
            return Err(Refusal::from(CallerError::UserAlone).into());
        }
        let shown = wire((channel.clone(), notify::Status::default()));
        core.notify.set(channel).map_err(Refusal::from)?;
        Ok(Response::new(v1::SetChannelResponse { channel: Some(shown) }))
    }

    async fn list_channels(
        &self,
        request: Request<v1::ListChannelsRequest>,
    ) -> Result<Response<v1::ListChannelsResponse>, Status> {
        let (core, _) = self.of_user(request)?;
        let channels = core.notify.list().into_iter().map(wire).collect();
        Ok(Response::new(v1::ListChannelsResponse { channels }))
    }

    async fn remove_channel(
        &self,
        request: Request<v1::RemoveChannelRequest>,
    ) -> Result<Response<v1::RemoveChannelResponse>, Status> {
        let (core, v1::RemoveChannelRequest { name }) = self.of_user(request)?;
        core.notify.remove(&name).map_err(Refusal::from)?;
        Ok(Response::new(v1::RemoveChannelResponse {}))
    }

    async fn test_channel(
        &self,
        request: Request<v1::TestChannelRequest>,
    ) -> Result<Response<v1::TestChannelResponse>, Status> {
        let (core, v1::TestChannelRequest { name }) = self.of_user(request)?;
        core.notify.try_out(&name).await.map_err(Refusal::from)?;
        Ok(Response::new(v1::TestChannelResponse {}))
    }

    type PairTelegramStream = Pin<Box<dyn Stream<Item = Result<v1::PairTelegramResponse, Status>> + Send>>;

    async fn pair_telegram(
        &self,
        request: Request<v1::PairTelegramRequest>,
    ) -> Result<Response<Self::PairTelegramStream>, Status> {
        let (core, v1::PairTelegramRequest { token }) = self.of_user(request)?;
        let (answers, stream) = mpsc::channel(2);
        let drain = self.shared.drain.clone();
        tokio::spawn(async move {
            let shown = |bot: &str, code: &str| {
                // There is room: it is the first.
                let _ = answers.try_send(Ok(v1::PairTelegramResponse {
                    code: code.to_owned(),
                    bot: bot.to_owned(),
                    ..v1::PairTelegramResponse::default()
                }));
            };
            let paired = tokio::select! {
                paired = core.notify.pair(&token, shown) => paired,
                () = answers.closed() => return,
                () = drain.cancelled() => return,
            };
            let answer = paired.map(|notify::Paired { chat_id, title, user_id }| v1::PairTelegramResponse {
                chat_id,
                title,
                user_id: user_id.unwrap_or_default(),
                ..v1::PairTelegramResponse::default()
            });
            // Whoever asked may have gone.
            let _ = answers.send(answer.map_err(|error| Refusal::from(error).into())).await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

fn channel(request: v1::SetChannelRequest) -> Result<Channel, Refusal> {
    let v1::SetChannelRequest { name, service, kinds, agents } = request;
    let needed = || Field { name: "service", rule: "must be telegram, discord, whatsapp or webhook".to_owned() };
    let service = match service.ok_or_else(needed)? {
        Wanted::Telegram(v1::Telegram { token, chat_id, answerers }) => {
            let person = |v1::TelegramPerson { user_id, name }| Person::new(user_id, name);
            Service::Telegram { token, chat_id, answerers: answerers.into_iter().map(person).collect() }
        }
        Wanted::Discord(v1::Discord { url }) => Service::Discord { url },
        Wanted::Whatsapp(v1::Whatsapp { token, phone_number_id, to, template, language }) => Service::Whatsapp {
            token,
            phone_number_id,
            to,
            template: Some(template).filter(|template| !template.is_empty()),
            language: if language.is_empty() { LANGUAGE_DEFAULT.to_owned() } else { language },
        },
        Wanted::Webhook(v1::OutgoingWebhook { url, secret }) => Service::Webhook { url, secret },
    };
    Ok(Channel { name, service, filter: Filter { kinds, agents } })
}

fn wire((channel, status): (Channel, notify::Status)) -> v1::Channel {
    v1::Channel {
        kind: channel.service.kind().to_owned(),
        answerers: channel.service.answerers().iter().map(|person| person.name.clone()).collect(),
        target: channel.service.target(),
        name: channel.name,
        kinds: channel.filter.kinds,
        agents: channel.filter.agents,
        sent: status.sent,
        dropped: status.dropped,
        failed: status.failed,
        queued: status.queued,
        send_time: status.sent_ms.map(timestamp),
        trouble: status.trouble.unwrap_or_default(),
    }
}
