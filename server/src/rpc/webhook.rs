//! `murmur.v1.WebhookService`.

use std::sync::Arc;

use murmur_core::slug::WorkspaceName;
use murmur_proto::v1::{self, webhook_service_server::WebhookService};
use tonic::{Request, Response, Status};

use super::{caller, convert::timestamp};
use crate::{
    db::{
        webhook::{Kind, Webhook},
        webhook_delivery::Delivery,
    },
    invalid::{Invalid, parse},
    webhooks::{Changes, NewWebhook, Place, Sample, Webhooks},
};

/// Sources of webhooks.
pub(crate) struct WebhookRpc {
    pub(crate) webhooks: Arc<Webhooks>,
    /// Where others reach this control plane, when that is configured.
    pub(crate) public_url: Option<String>,
}

#[tonic::async_trait]
impl WebhookService for WebhookRpc {
    async fn create_webhook(
        &self,
        request: Request<v1::CreateWebhookRequest>,
    ) -> Result<Response<v1::CreateWebhookResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let kind = match request.kind() {
            v1::WebhookKind::Github => Kind::GitHub,
            v1::WebhookKind::Gitlab => Kind::GitLab,
            v1::WebhookKind::Generic => Kind::Generic,
            v1::WebhookKind::Unspecified => {
                return Err(Invalid::new("kind", "must be GITHUB, GITLAB or GENERIC").into());
            }
        };
        let v1::CreateWebhookRequest { name, kind: _, repos, events, actors, workspace } = request;
        let workspace = named(&workspace)?;
        let new = NewWebhook { name, kind, repos, events, actors };
        let (made, secret) = self.webhooks.create(&caller, workspace.as_ref(), new).await?;
        Ok(Response::new(v1::CreateWebhookResponse { webhook: Some(self.wire(made)), secret }))
    }

    async fn list_webhooks(
        &self,
        request: Request<v1::ListWebhooksRequest>,
    ) -> Result<Response<v1::ListWebhooksResponse>, Status> {
        let caller = caller(&request)?;
        let v1::ListWebhooksRequest { page_size, page_token, workspace } = request.into_inner();
        let workspace = named(&workspace)?;
        let (found, next_page_token) =
            self.webhooks.list(&caller, workspace.as_ref(), (page_size, &page_token)).await?;
        let webhooks = found.into_iter().map(|webhook| self.wire(webhook)).collect();
        Ok(Response::new(v1::ListWebhooksResponse { webhooks, next_page_token }))
    }

    async fn update_webhook(
        &self,
        request: Request<v1::UpdateWebhookRequest>,
    ) -> Result<Response<v1::UpdateWebhookResponse>, Status> {
        let caller = caller(&request)?;
        let v1::UpdateWebhookRequest { webhook, repos, events, actors, workspace } = request.into_inner();
        let items = |list: Option<v1::WebhookList>| list.map(|list| list.items);
        let changes = Changes { repos: items(repos), events: items(events), actors: items(actors) };
        let workspace = named(&workspace)?;
        let changed = self.webhooks.update(&caller, workspace.as_ref(), &webhook, changes).await?;
        Ok(Response::new(v1::UpdateWebhookResponse { webhook: Some(self.wire(changed)) }))
    }

    async fn rotate_webhook_secret(
        &self,
        request: Request<v1::RotateWebhookSecretRequest>,
    ) -> Result<Response<v1::RotateWebhookSecretResponse>, Status> {
        let caller = caller(&request)?;
        let v1::RotateWebhookSecretRequest { webhook, keep_seconds, workspace } = request.into_inner();
        let keep_ms = keep_seconds.map(|seconds| seconds.saturating_mul(1000));
        let workspace = named(&workspace)?;
        let (changed, secret) = self.webhooks.rotate(&caller, workspace.as_ref(), &webhook, keep_ms).await?;
        Ok(Response::new(v1::RotateWebhookSecretResponse { webhook: Some(self.wire(changed)), secret }))
    }

    async fn delete_webhook(
        &self,
        request: Request<v1::DeleteWebhookRequest>,
    ) -> Result<Response<v1::DeleteWebhookResponse>, Status> {
        let caller = caller(&request)?;
        let v1::DeleteWebhookRequest { webhook, workspace } = request.into_inner();
        self.webhooks.delete(&caller, named(&workspace)?.as_ref(), &webhook).await?;
        Ok(Response::new(v1::DeleteWebhookResponse {}))
    }

    async fn make_webhook_sample(
        &self,
        request: Request<v1::MakeWebhookSampleRequest>,
    ) -> Result<Response<v1::MakeWebhookSampleResponse>, Status> {
        let caller = caller(&request)?;
        let v1::MakeWebhookSampleRequest { webhook, repo, branch, workspace } = request.into_inner();
        let workspace = named(&workspace)?;
        let sample = self.webhooks.sample(&caller, workspace.as_ref(), &webhook, Place { repo, branch }).await?;
        let Sample { webhook, headers, body } = sample;
        let headers = headers.into_iter().map(|(name, value)| v1::WebhookHeader { name: name.to_owned(), value });
        Ok(Response::new(v1::MakeWebhookSampleResponse {
            webhook: Some(self.wire(webhook)),
            headers: headers.collect(),
            body: body.into(),
        }))
    }

    async fn list_webhook_deliveries(
        &self,
        request: Request<v1::ListWebhookDeliveriesRequest>,
    ) -> Result<Response<v1::ListWebhookDeliveriesResponse>, Status> {
        let caller = caller(&request)?;
        let v1::ListWebhookDeliveriesRequest { webhook, page_size, page_token, workspace } = request.into_inner();
        let workspace = named(&workspace)?;
        let page = (page_size, page_token.as_str());
        let (found, next_page_token) = self.webhooks.deliveries(&caller, workspace.as_ref(), &webhook, page).await?;
        let deliveries = found.into_iter().map(delivery).collect();
        Ok(Response::new(v1::ListWebhookDeliveriesResponse { deliveries, next_page_token }))
    }
}

impl WebhookRpc {
    fn wire(&self, webhook: Webhook) -> v1::Webhook {
        let kind = match webhook.kind {
            Kind::GitHub => v1::WebhookKind::Github,
            Kind::GitLab => v1::WebhookKind::Gitlab,
            Kind::Generic => v1::WebhookKind::Generic,
        };
        let path = format!("/hooks/{}", webhook.id);
        v1::Webhook {
            webhook_id: webhook.id.to_string(),
            url: self.public_url.as_ref().map(|url| format!("{}{path}", url.trim_end_matches('/'))).unwrap_or_default(),
            path,
            name: webhook.name,
            kind: kind.into(),
            repos: webhook.repos,
            events: webhook.events,
            actors: webhook.actors,
            create_time: Some(timestamp(webhook.created_ms)),
            last_delivery_time: webhook.last_delivery_ms.map(timestamp),
            old_secret_expire_time: webhook.old_secret_ms.map(timestamp),
        }
    }
}

/// The workspace that an administrator names.
fn named(workspace: &str) -> Result<Option<WorkspaceName>, Invalid> {
    if workspace.is_empty() { Ok(None) } else { parse("workspace", workspace).map(Some) }
}

fn delivery(delivery: Delivery) -> v1::WebhookDelivery {
    v1::WebhookDelivery {
        receive_time: Some(timestamp(delivery.received_ms)),
        delivery: delivery.delivery,
        event: delivery.event,
        outcome: delivery.outcome.to_string(),
        detail: delivery.detail,
        agents: u32::try_from(delivery.agents).unwrap_or(u32::MAX),
    }
}
