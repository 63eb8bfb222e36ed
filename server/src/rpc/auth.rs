//! `murmur.v1.AuthService`.

use std::sync::Arc;

use murmur_core::token::TokenKind;
use murmur_proto::v1::{self, auth_service_server::AuthService};
use tonic::{Request, Response, Status};

use super::{caller, convert};
use crate::{
    invalid::{Invalid, fixed, parse, parse_optional},
    nodes::{InviteRequest, Nodes},
    tokens::{IssueRequest, Tokens},
};

/// Who calls, tokens and invites.
pub(crate) struct AuthRpc {
    pub(crate) tokens: Arc<Tokens>,
    pub(crate) nodes: Arc<Nodes>,
}

#[tonic::async_trait]
impl AuthService for AuthRpc {
    async fn who_am_i(&self, request: Request<v1::WhoAmIRequest>) -> Result<Response<v1::WhoAmIResponse>, Status> {
        let caller = caller(&request)?;
        Ok(Response::new(v1::WhoAmIResponse {
            kind: convert::token_kind(caller.kind).into(),
            token_id: caller.token_id.to_string(),
            workspace: caller.workspace.as_ref().map(|(_, name)| name.to_string()).unwrap_or_default(),
            account: caller.account.as_ref().map(ToString::to_string).unwrap_or_default(),
            node_id: caller.node_id.map(|id| id.to_string()).unwrap_or_default(),
            agent_id: caller.agent_id.map(|id| id.to_string()).unwrap_or_default(),
            scopes: caller.scopes.iter().map(Into::into).collect(),
            slug_prefix: caller.slug_prefix.as_ref().map(ToString::to_string).unwrap_or_default(),
            expire_time: caller.expire_ms.map(convert::timestamp),
        }))
    }

    async fn issue_token(
        &self,
        request: Request<v1::IssueTokenRequest>,
    ) -> Result<Response<v1::IssueTokenResponse>, Status> {
        let caller = caller(&request)?;
        let issued = self.tokens.issue(&caller, issue_request(request.into_inner())?).await?;
        Ok(Response::new(v1::IssueTokenResponse {
            token: issued.token.expose().to_string(),
            token_id: issued.token.id().to_string(),
            expire_time: issued.expire_ms.map(convert::timestamp),
        }))
    }

    async fn revoke_token(
        &self,
        request: Request<v1::RevokeTokenRequest>,
    ) -> Result<Response<v1::RevokeTokenResponse>, Status> {
        let caller = caller(&request)?;
        let id = parse("token_id", &request.into_inner().token_id)?;
        let revoked = self.tokens.revoke(&caller, id).await?;
        Ok(Response::new(v1::RevokeTokenResponse { revoked: u32::try_from(revoked).unwrap_or(u32::MAX) }))
    }

    async fn list_tokens(
        &self,
        request: Request<v1::ListTokensRequest>,
    ) -> Result<Response<v1::ListTokensResponse>, Status> {
        let caller = caller(&request)?;
        let v1::ListTokensRequest { page_size, page_token } = request.into_inner();
        let (tokens, next_page_token) = self.tokens.list(&caller, page_size, &page_token).await?;
        let tokens = tokens.into_iter().map(convert::token).collect();
        Ok(Response::new(v1::ListTokensResponse { tokens, next_page_token }))
    }

    async fn create_invite(
        &self,
        request: Request<v1::CreateInviteRequest>,
    ) -> Result<Response<v1::CreateInviteResponse>, Status> {
        let caller = caller(&request)?;
        let (id, expire_ms) = self.nodes.create_invite(&caller, invite_request(request.get_ref())?).await?;
        let expire_time = Some(convert::timestamp(expire_ms));
        Ok(Response::new(v1::CreateInviteResponse { invite_id: id.to_string(), expire_time }))
    }
}

fn issue_request(request: v1::IssueTokenRequest) -> Result<IssueRequest, Invalid> {
    let kind = match request.kind() {
        v1::TokenKind::User => TokenKind::User,
        v1::TokenKind::Agent => TokenKind::Agent,
        v1::TokenKind::Ci => TokenKind::Ci,
        v1::TokenKind::Node => TokenKind::Node,
        v1::TokenKind::Admin => TokenKind::Admin,
        v1::TokenKind::Unspecified => return Err(Invalid::new("kind", "must be USER, AGENT or CI")),
    };
    let scopes = request
        .scopes
        .iter()
        .map(|number| match v1::Scope::try_from(*number) {
            Ok(v1::Scope::Unspecified) | Err(_) => Err(Invalid::new("scopes", format!("{number} is no scope"))),
            Ok(scope) => Ok(scope),
        })
        .collect::<Result<_, _>>()?;
    Ok(IssueRequest {
        kind,
        scopes,
        slug_prefix: parse_optional("slug_prefix", &request.slug_prefix)?,
        ttl_ms: request.ttl_seconds.saturating_mul(1000),
        workspace: parse_optional("workspace", &request.workspace)?,
        account: parse_optional("account", &request.account)?,
        agent_id: parse_optional("agent_id", &request.agent_id)?,
        label: request.label,
    })
}

fn invite_request(request: &v1::CreateInviteRequest) -> Result<InviteRequest, Invalid> {
    Ok(InviteRequest {
        secret_hash: fixed("secret_hash", &request.secret_hash)?,
        account: parse("account", &request.account)?,
        slug_scope: request.slug_scope.iter().map(|text| parse("slug_scope", text)).collect::<Result<_, _>>()?,
        uses_max: request.uses_max,
        ttl_ms: request.ttl_seconds.saturating_mul(1000),
        workspace: parse_optional("workspace", &request.workspace)?,
    })
}
