//! Making, changing and showing sources.

use murmur_core::reason::Reason;
use murmur_proto::{client::ControlClient, v1};

use crate::world::{Owner, World, field, reason};

/// A person who may manage webhooks.
pub(super) async fn manager(world: &World, owner: &Owner) -> ControlClient {
    world.client(&world.token(owner, &[v1::Scope::WebhooksManage]).await.token)
}

pub(super) fn github(name: &str) -> v1::CreateWebhookRequest {
    v1::CreateWebhookRequest {
        name: name.into(),
        kind: v1::WebhookKind::Github.into(),
        repos: vec!["Codertocat/*".into()],
        ..v1::CreateWebhookRequest::default()
    }
}

#[tokio::test]
async fn a_source_is_made_shown_changed_and_ended() {
    let world = World::start().await;
    let owner = world.workspace("acme").await;
    let mut manager = manager(&world, &owner).await.webhooks;
    let made = manager.create_webhook(github("code")).await.unwrap().into_inner();
    let webhook = made.webhook.unwrap();
    assert_eq!(webhook.path, format!("/hooks/{}", webhook.webhook_id));
    assert!(made.secret.starts_with("whsec_") && made.secret.len() == 50, "{}", made.secret);
    assert_eq!(reason(manager.create_webhook(github("code")).await), Reason::WebhookExists);

    let list = async |client: &mut v1::webhook_service_client::WebhookServiceClient<_>| {
        client.list_webhooks(v1::ListWebhooksRequest::default()).await.unwrap().into_inner().webhooks
    };
    assert_eq!(list(&mut manager).await, std::slice::from_ref(&webhook));

    let actors = Some(v1::WebhookList { items: vec!["octocat".into()] });
    let change = v1::UpdateWebhookRequest { webhook: "code".into(), actors, ..v1::UpdateWebhookRequest::default() };
    let changed = manager.update_webhook(change).await.unwrap().into_inner().webhook.unwrap();
    assert_eq!((changed.actors, changed.repos), (vec!["octocat".to_owned()], webhook.repos));

    let end = v1::DeleteWebhookRequest { webhook: webhook.webhook_id, ..v1::DeleteWebhookRequest::default() };
    manager.delete_webhook(end.clone()).await.unwrap();
    assert_eq!(reason(manager.delete_webhook(end).await), Reason::WebhookNotFound);
    assert_eq!(list(&mut manager).await, []);
}

#[tokio::test]
async fn what_is_wrong_with_a_source_is_named() {
    let world = World::start().await;
    let owner = world.workspace("acme").await;
    let mut manager = manager(&world, &owner).await.webhooks;
    let of = |change: fn(&mut v1::CreateWebhookRequest)| {
        let mut request = github("code");
        change(&mut request);
        request
    };
    for (request, wanted) in [
        (of(|request| request.name = "Code".into()), "name"),
        (of(|request| request.name = "a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1".into()), "name"),
        (of(|request| request.kind = 0), "kind"),
        (of(|request| request.kind = 9), "kind"),
        (of(|request| request.repos.clear()), "repos"),
        (of(|request| request.repos.push("not a repo".into())), "repos"),
        (of(|request| request.events.push("issues".into())), "events"),
        (of(|request| request.kind = v1::WebhookKind::Gitlab.into()), "actors"),
        (of(|request| request.workspace = "no/name".into()), "workspace"),
    ] {
        assert_eq!(field(manager.create_webhook(request).await), wanted);
    }
    let nothing = v1::UpdateWebhookRequest { webhook: "code".into(), ..v1::UpdateWebhookRequest::default() };
    assert_eq!(reason(manager.update_webhook(nothing).await), Reason::WebhookNotFound);
    let nobody = v1::ListWebhookDeliveriesRequest::default();
    assert_eq!(field(manager.list_webhook_deliveries(nobody).await), "webhook");
    let rotate = v1::RotateWebhookSecretRequest {
        webhook: "code".into(),
        keep_seconds: Some(8 * 24 * 3600),
        ..v1::RotateWebhookSecretRequest::default()
    };
    assert_eq!(field(manager.rotate_webhook_secret(rotate).await), "keep_seconds");
}

#[tokio::test]
async fn sources_are_for_those_who_may_and_of_their_workspace_alone() {
    let world = World::start().await;
    let (acme, other) = (world.workspace("acme").await, world.workspace("other").await);
    let mut manager_ = manager(&world, &acme).await.webhooks;
    manager_.create_webhook(github("code")).await.unwrap();
    let end = |workspace: &str| v1::DeleteWebhookRequest { webhook: "code".into(), workspace: workspace.into() };

    assert_eq!(reason(world.reader(&acme).await.webhooks.delete_webhook(end("")).await), Reason::ScopeMissing);
    let mut stranger = manager(&world, &other).await.webhooks;
    assert_eq!(reason(stranger.delete_webhook(end("")).await), Reason::WebhookNotFound);
    assert_eq!(reason(stranger.delete_webhook(end("acme")).await), Reason::WorkspaceNotFound);
    assert_eq!(field(world.admin().webhooks.delete_webhook(end("")).await), "workspace");

    // A token for a part of the workspace does not decide what all of it hears.
    let narrow = v1::IssueTokenRequest {
        kind: v1::TokenKind::User.into(),
        scopes: vec![v1::Scope::WebhooksManage.into()],
        workspace: acme.name.clone(),
        account: "jdoe".into(),
        slug_prefix: acme.account_scope("jdoe"),
        ..v1::IssueTokenRequest::default()
    };
    let narrow = world.admin().auth.issue_token(narrow).await.unwrap().into_inner().token;
    assert_eq!(reason(world.client(&narrow).webhooks.delete_webhook(end("")).await), Reason::ScopeMissing);
    world.admin().webhooks.delete_webhook(end("acme")).await.unwrap();
}

#[tokio::test]
async fn secrets_are_not_in_the_database_in_clear() {
    let world = World::start().await;
    let owner = world.workspace("acme").await;
    let mut manager = manager(&world, &owner).await.webhooks;
    let secret = manager.create_webhook(github("code")).await.unwrap().into_inner().secret;
    let key = std::fs::read_to_string(world.data("webhook.key")).unwrap();
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(world.data("webhook.key")).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    for name in ["server.db", "server.db-wal"] {
        let bytes = std::fs::read(world.data(name)).unwrap_or_default();
        let holds = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
        assert!(!holds(&secret) && !holds(&secret[6..]) && !holds(key.trim()), "{name}");
    }
}

#[tokio::test]
async fn a_source_knows_its_whole_address_where_the_control_plane_knows_its_own() {
    let world = World::with(|config| config.public_url = Some("https://murmur.example.org/".into())).await;
    let owner = world.workspace("acme").await;
    let mut client = manager(&world, &owner).await.webhooks;
    let made = client.create_webhook(github("code")).await.unwrap().into_inner().webhook.unwrap();
    assert_eq!(made.url, format!("https://murmur.example.org{}", made.path));

    let world = World::start().await;
    let owner = world.workspace("acme").await;
    let mut client = manager(&world, &owner).await.webhooks;
    assert_eq!(client.create_webhook(github("code")).await.unwrap().into_inner().webhook.unwrap().url, "");
}
