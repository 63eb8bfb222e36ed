//! Who may call what.

use std::os::unix::fs::PermissionsExt;

use murmur_core::reason::Reason;
use murmur_proto::{
    client::{PROTOCOL_HEADER, server_channel},
    status::RpcError,
    v1::{self, auth_service_client::AuthServiceClient},
};
use tonic::{Code, Request};

use crate::world::{NodeKit, World, field, reason};

const WHO: v1::WhoAmIRequest = v1::WhoAmIRequest {};

#[tokio::test]
async fn the_bootstrap_token_is_private_and_made_once() {
    let world = World::start().await;
    let file = world.data("admin.token");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_to_string(world.data("server.addr")).unwrap(), world.app.address.to_string());
    let first = std::fs::read_to_string(&file).unwrap();
    let world = world.restart().await;
    assert_eq!(std::fs::read_to_string(&file).unwrap(), first);
    let who = world.admin().auth.who_am_i(WHO).await.unwrap().into_inner();
    assert_eq!((who.kind(), who.scopes), (v1::TokenKind::Admin, vec![i32::from(v1::Scope::Admin)]));
}

#[tokio::test]
async fn a_call_needs_a_token_that_is_one() {
    let world = World::start().await;
    assert_eq!(reason(world.anonymous().auth.who_am_i(WHO).await), Reason::TokenMissing);
    assert_eq!(reason(world.client("mmt_nonsense").auth.who_am_i(WHO).await), Reason::TokenInvalid);
    let elsewhere = World::start().await;
    let foreign = std::fs::read_to_string(elsewhere.data("admin.token")).unwrap();
    assert_eq!(reason(world.client(foreign.trim()).auth.who_am_i(WHO).await), Reason::TokenInvalid);
}

#[tokio::test]
async fn a_token_does_what_its_scopes_say() {
    let world = World::start().await;
    let owner = world.workspace("acme").await;
    let mut reader = world.reader(&owner).await;
    assert_eq!(reason(world.invite_as(&mut reader).await), Reason::ScopeMissing);
    assert_eq!(reason(reader.directory.create_workspace(owner.request()).await), Reason::ScopeMissing);
    let agent = v1::RegisterAgentRequest { path: "a".into(), ..v1::RegisterAgentRequest::default() };
    assert_eq!(reason(reader.directory.register_agent(agent.clone()).await), Reason::ScopeMissing);
    // Not even an administrator is a node.
    assert_eq!(reason(world.admin().directory.register_agent(agent).await), Reason::ScopeMissing);
    let node = world.node(&owner, "jdoe", 1).await;
    assert_eq!(reason(world.invite_as(&mut node.client(&world)).await), Reason::ScopeMissing);
}

#[tokio::test]
async fn a_token_hands_on_no_more_than_it_has() {
    let world = World::start().await;
    let owner = world.workspace("acme").await;
    let scopes = [v1::Scope::TokensIssue, v1::Scope::DirectoryRead];
    let parent = world.token(&owner, &scopes).await;
    let mut issuer = world.client(&parent.token).auth;
    let base = v1::IssueTokenRequest {
        kind: v1::TokenKind::Ci.into(),
        scopes: vec![v1::Scope::DirectoryRead.into()],
        ..v1::IssueTokenRequest::default()
    };
    let more = v1::IssueTokenRequest { scopes: vec![v1::Scope::NodesEnroll.into()], ..base.clone() };
    assert_eq!(reason(issuer.issue_token(more).await), Reason::ScopeMissing);
    let wider = v1::IssueTokenRequest { slug_prefix: "/w/other/".into(), ..base.clone() };
    assert_eq!(reason(issuer.issue_token(wider).await), Reason::ScopeMissing);
    let elsewhere = v1::IssueTokenRequest { workspace: "other".into(), ..base.clone() };
    assert_eq!(reason(issuer.issue_token(elsewhere).await), Reason::WorkspaceNotFound);
    let admin = v1::IssueTokenRequest { kind: v1::TokenKind::Admin.into(), ..base.clone() };
    assert_eq!(field(issuer.issue_token(admin).await), "kind");
    let endless = v1::IssueTokenRequest { ttl_seconds: 91 * 24 * 3600, ..base.clone() };
    assert_eq!(field(issuer.issue_token(endless).await), "ttl_seconds");

    // 24 hours are the default of its kind, but its parent lives for 12.
    let child = issuer.issue_token(base).await.unwrap().into_inner();
    assert_eq!(child.expire_time, parent.expire_time);
}

#[tokio::test]
async fn revoking_takes_the_derived_tokens_along_at_once() {
    let world = World::start().await;
    let owner = world.workspace("acme").await;
    let parent = world.token(&owner, &[v1::Scope::TokensIssue]).await;
    let request = v1::IssueTokenRequest {
        kind: v1::TokenKind::Ci.into(),
        scopes: vec![v1::Scope::TokensIssue.into()],
        ..v1::IssueTokenRequest::default()
    };
    let child = world.client(&parent.token).auth.issue_token(request).await.unwrap().into_inner();
    world.client(&child.token).auth.who_am_i(WHO).await.unwrap();

    let request = v1::RevokeTokenRequest { token_id: parent.token_id };
    let revoked = world.admin().auth.revoke_token(request.clone()).await.unwrap().into_inner().revoked;
    assert_eq!(revoked, 2);
    for token in [&parent.token, &child.token] {
        assert_eq!(reason(world.client(token).auth.who_am_i(WHO).await), Reason::TokenRevoked);
    }
    assert_eq!(world.admin().auth.revoke_token(request).await.unwrap().into_inner().revoked, 0);
}

#[tokio::test]
async fn a_token_expires_even_when_it_was_just_verified() {
    let world = World::start().await;
    let owner = world.workspace("acme").await;
    let token = world.token(&owner, &[v1::Scope::DirectoryRead]).await.token;
    let mut auth = world.client(&token).auth;
    world.clock.advance(12 * 3600 * 1000 - 1);
    auth.who_am_i(WHO).await.unwrap();
    world.clock.advance(1);
    assert_eq!(reason(auth.who_am_i(WHO).await), Reason::TokenExpired);
}

#[tokio::test]
async fn tokens_of_other_workspaces_are_not_there() {
    let world = World::start().await;
    let (acme, other) = (world.workspace("acme").await, world.workspace("other").await);
    let token = world.token(&acme, &[v1::Scope::DirectoryRead]).await;
    let stranger = world.token(&other, &[v1::Scope::TokensIssue]).await;
    let mut stranger = world.client(&stranger.token).auth;
    let request = v1::RevokeTokenRequest { token_id: token.token_id };
    assert_eq!(reason(stranger.revoke_token(request).await), Reason::TokenNotFound);
    world.client(&token.token).auth.who_am_i(WHO).await.unwrap();
    let listed = stranger.list_tokens(v1::ListTokensRequest::default()).await.unwrap().into_inner().tokens;
    assert_eq!(listed.len(), 1);
}

#[tokio::test]
async fn another_protocol_is_refused() {
    let world = World::start().await;
    let mut request = Request::new(WHO);
    request.metadata_mut().insert(PROTOCOL_HEADER, "999".parse().unwrap());
    let mut plain = AuthServiceClient::new(server_channel(&world.url(""), None).unwrap());
    assert_eq!(reason(plain.who_am_i(request).await), Reason::VersionSkew);
}

#[tokio::test]
async fn too_many_calls_are_told_when_to_come_back() {
    let one = 1.try_into().unwrap();
    let world = World::with(|config| (config.calls_burst, config.calls_per_second) = (one, one)).await;
    let auth = world.admin().auth;
    // Together, for one a second is allowed: of two after each other the second may be slow enough.
    let ask = || {
        let mut auth = auth.clone();
        async move { auth.who_am_i(WHO).await }
    };
    let answers = futures::future::join_all((0..10).map(|_| ask())).await;
    assert!(answers.iter().any(Result::is_ok));
    let refused = answers.into_iter().find_map(Result::err).unwrap();
    let error = RpcError::from(&refused);
    assert_eq!((error.code, error.reason), (Code::ResourceExhausted, Some(Reason::RateLimited)));
    assert!(error.retry_after_ms.is_some_and(|wait| wait <= 1000));
}

#[tokio::test]
async fn guessing_is_slow() {
    let one = 1.try_into().unwrap();
    let world = World::with(|config| (config.enroll_burst, config.enroll_per_minute) = (one, one)).await;
    assert_eq!(reason(NodeKit::new(1).enroll(&world, [1; 32]).await), Reason::InviteInvalid);
    assert_eq!(reason(NodeKit::new(1).enroll(&world, [2; 32]).await), Reason::RateLimited);
    let guess = async || reason(world.client("mmt_guess").auth.who_am_i(WHO).await);
    assert_eq!((guess().await, guess().await), (Reason::TokenInvalid, Reason::RateLimited));
}

impl World {
    async fn invite_as(
        &self,
        client: &mut murmur_proto::client::ControlClient,
    ) -> Result<tonic::Response<v1::CreateInviteResponse>, tonic::Status> {
        let request = v1::CreateInviteRequest {
            secret_hash: vec![0; 32].into(),
            account: "jdoe".into(),
            ..v1::CreateInviteRequest::default()
        };
        client.auth.create_invite(request).await
    }
}

#[tokio::test]
async fn a_narrow_token_sees_and_invites_inside_its_prefix_alone() {
    let world = World::start().await;
    let owner = world.workspace("acme").await;
    let outside = world.token(&owner, &[v1::Scope::DirectoryRead]).await;
    let narrow = |label: &str| v1::IssueTokenRequest {
        kind: v1::TokenKind::User.into(),
        scopes: vec![v1::Scope::TokensIssue.into(), v1::Scope::NodesEnroll.into()],
        workspace: owner.name.clone(),
        account: "mallory".into(),
        slug_prefix: "/w/acme/u/mallory/".into(),
        label: label.into(),
        ..v1::IssueTokenRequest::default()
    };
    assert_eq!(field(world.admin().auth.issue_token(narrow("two\nlines")).await), "label");
    let token = world.admin().auth.issue_token(narrow("narrow")).await.unwrap().into_inner();
    let mut mallory = world.client(&token.token).auth;

    let listed = mallory.list_tokens(v1::ListTokensRequest::default()).await.unwrap().into_inner().tokens;
    assert_eq!(listed.iter().map(|token| token.label.as_str()).collect::<Vec<_>>(), ["narrow"]);
    assert!(listed.iter().all(|token| token.token_id != outside.token_id));

    // A scope of her own does not make another account's node hers.
    let invite = |account: &str| v1::CreateInviteRequest {
        secret_hash: vec![account.len() as u8; 32].into(),
        account: account.into(),
        slug_scope: vec!["/w/acme/u/mallory/".into()],
        ..v1::CreateInviteRequest::default()
    };
    assert_eq!(reason(mallory.create_invite(invite("jdoe")).await), Reason::ScopeMissing);
    mallory.create_invite(invite("mallory")).await.unwrap();
}

#[tokio::test]
async fn nodes_are_shown_to_whoever_may_read_the_directory_and_to_themselves() {
    let world = World::start().await;
    let owner = world.workspace("acme").await;
    let node = world.node(&owner, "jdoe", 1).await;
    world.node(&owner, "jdoe", 2).await;
    let nodes = async |mut client: murmur_proto::client::ControlClient| {
        client.nodes.list_nodes(v1::ListNodesRequest::default()).await.map(|listed| listed.into_inner().nodes.len())
    };
    assert_eq!(nodes(world.reader(&owner).await).await.unwrap(), 2);
    assert_eq!(nodes(node.client(&world)).await.unwrap(), 1);
    let token = world.token(&owner, &[v1::Scope::AgentsRead, v1::Scope::EventsRead]).await.token;
    assert_eq!(reason(nodes(world.client(&token)).await), Reason::ScopeMissing);
    let watched = world.client(&token).nodes.watch_nodes(v1::WatchNodesRequest {}).await;
    assert_eq!(reason(watched.map(drop)), Reason::ScopeMissing);
}

#[tokio::test]
async fn a_refusal_arrives_however_long_what_is_refused_is() {
    let world = World::start().await;
    let owner = world.workspace("acme").await;
    let named = v1::GetWorkspaceRequest { name: "x".repeat(9_000) };
    let status = world.reader(&owner).await.directory.get_workspace(named).await.unwrap_err();
    assert!(status.message().len() < 1024, "{}", status.message());
    assert_eq!(reason::<()>(Err(status)), Reason::WorkspaceNotFound);
    let request = v1::CreateWebhookRequest {
        name: "code".into(),
        kind: v1::WebhookKind::Github.into(),
        repos: vec![format!("{} ", "x".repeat(3_000))],
        ..v1::CreateWebhookRequest::default()
    };
    let token = world.token(&owner, &[v1::Scope::WebhooksManage]).await.token;
    assert_eq!(field(world.client(&token).webhooks.create_webhook(request).await), "repos");
}
