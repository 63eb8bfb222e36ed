//! `token issue|ls|revoke|whoami`: bearer tokens for the control plane.

use std::{path::PathBuf, time::Duration};

use clap::builder::NonEmptyStringValueParser;
use murmur_proto::{
    node::v1::RevokeAgentTokenRequest,
    v1::{IssueTokenRequest, ListTokensRequest, RevokeTokenRequest, Scope, Token, WhoAmIRequest, WhoAmIResponse},
};
use serde_json::{Value, json};

use super::scope::{self, KindArg, ScopeArg};
use crate::{
    connect::Target,
    duration,
    failure::Failure,
    network::layout::NewFile,
    output::{self, Outcome, Output},
    time,
    view::some,
};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Issue a token with a part of your own rights; it is shown this once
    Issue(Issue),
    /// Tokens of your workspace, without their secrets
    Ls,
    /// End a token and all that were derived from it
    Revoke {
        /// The token's id, as `token ls`, `token issue` or `agent token` showed it
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        token_id: String,
    },
    /// Whom the token in use speaks for
    Whoami,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Issue {
    /// Whom it is for
    #[arg(long, default_value = "user")]
    kind: KindArg,
    /// What it may do; several by repeating or with commas
    #[arg(long = "scope", value_delimiter = ',', required = true, value_name = "SCOPE")]
    scopes: Vec<ScopeArg>,
    /// Only under this slug prefix, such as /w/local/u/me/
    #[arg(long, value_name = "SLUG/", value_parser = NonEmptyStringValueParser::new())]
    prefix: Option<String>,
    /// How long it is good for [default: the kind's]
    #[arg(long, value_parser = duration::parse, value_name = "TIME")]
    ttl: Option<Duration>,
    /// Where it is valid; for an administrator
    #[arg(long, default_value = "", hide_default_value = true, value_name = "NAME")]
    workspace: String,
    /// Whose it is; for an administrator
    #[arg(long, default_value = "", hide_default_value = true, value_name = "NAME")]
    account: String,
    /// The agent it speaks for, with --kind agent
    #[arg(long, default_value = "", hide_default_value = true, value_name = "ID", required_if_eq("kind", "agent"))]
    agent_id: String,
    /// What it is for
    #[arg(long, default_value = "", hide_default_value = true, value_name = "TEXT")]
    label: String,
    /// Write it to this new file, readable by you alone, instead of showing it
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(crate) async fn run(target: &Target, command: Command, output: Output) -> Outcome {
    match command {
        Command::Issue(issue) => run_issue(target, issue, output).await,
        Command::Ls => run_ls(target, output).await,
        Command::Revoke { token_id } => {
            let revoked = revoke(target, token_id).await?;
            output.show(&json!({"revoked": revoked}), || match revoked {
                0 => "it had ended already".to_owned(),
                1 => "1 token ended".to_owned(),
                count => format!("{count} tokens ended"),
            })
        }
        Command::Whoami => {
            let caller = target.control().await?.auth.who_am_i(WhoAmIRequest {}).await?.into_inner();
            output.show(&whoami_json(&caller), || whoami_text(&caller))
        }
    }
}

/// Ends a token of this host's node or, when the node issued no such one, of the control plane.
async fn revoke(target: &Target, token_id: String) -> Result<u32, Failure> {
    if let Some(revoked) = revoke_at_node(target, token_id.clone()).await {
        return Ok(revoked.into());
    }
    let mut auth = target.control().await?.auth;
    Ok(auth.revoke_token(RevokeTokenRequest { token_id }).await?.into_inner().revoked)
}

/// `None` when the node does not know it, or cannot say: then the control plane has the last word.
async fn revoke_at_node(target: &Target, token_id: String) -> Option<bool> {
    let mut node = target.node().await.ok()?;
    let answer = node.sessions.revoke_agent_token(RevokeAgentTokenRequest { token_id }).await.ok()?;
    Some(answer.into_inner().revoked)
}

async fn run_issue(target: &Target, issue: Issue, output: Output) -> Outcome {
    let Issue { kind, scopes, prefix, ttl, workspace, account, agent_id, label, out } = issue;
    // An administrator of the local network means the local workspace.
    let planned = |text: String, of: fn(&crate::network::plan::Plan) -> &String| match &target.plan {
        Some(plan) if text.is_empty() => of(plan).clone(),
        _ => text,
    };
    let request = IssueTokenRequest {
        kind: murmur_proto::v1::TokenKind::from(kind).into(),
        scopes: scopes.into_iter().map(|scope| Scope::from(scope).into()).collect(),
        slug_prefix: prefix.unwrap_or_default(),
        ttl_seconds: ttl.map_or(0, |ttl| ttl.as_secs().max(1)),
        workspace: planned(workspace, |plan| &plan.workspace),
        account: planned(account, |plan| &plan.account),
        agent_id,
        label,
    };
    let file = out.as_deref().map(|out| NewFile::create(out, "--out")).transpose()?;
    let answer = target.control().await?.auth.issue_token(request).await?.into_inner();
    let expires = time::rfc3339(answer.expire_time.as_ref());
    let (Some(out), Some(file)) = (out, file) else {
        let value = json!({"token_id": answer.token_id, "token": answer.token, "expire_time": expires});
        return output.show(&value, || answer.token.clone());
    };
    file.fill(answer.token.as_bytes())?;
    let value = json!({"token_id": answer.token_id, "file": out.display().to_string(), "expire_time": expires});
    output.show(&value, || format!("{} holds token {}", out.display(), answer.token_id))
}

async fn run_ls(target: &Target, output: Output) -> Outcome {
    let tokens = list(target).await?;
    let value = json!({"tokens": tokens.iter().map(token_json).collect::<Vec<Value>>()});
    output.show(&value, || {
        let header = ["ID", "KIND", "ACCOUNT", "SCOPES", "PREFIX", "EXPIRES", "LABEL"];
        output::table(&header, tokens.iter().map(token_row))
    })
}

async fn list(target: &Target) -> Result<Vec<Token>, Failure> {
    let mut auth = target.control().await?.auth;
    let mut tokens = Vec::new();
    let mut page_token = String::new();
    loop {
        let mut page = auth.list_tokens(ListTokensRequest { page_size: 1000, page_token }).await?.into_inner();
        tokens.append(&mut page.tokens);
        if page.next_page_token.is_empty() {
            return Ok(tokens);
        }
        page_token = page.next_page_token;
    }
}

fn token_json(token: &Token) -> Value {
    json!({
        "token_id": token.token_id,
        "kind": scope::kind(token.kind()),
        "account": some(&token.account),
        "scopes": token.scopes().map(scope::name).collect::<Vec<_>>(),
        "slug_prefix": some(&token.slug_prefix),
        "label": some(&token.label),
        "create_time": time::rfc3339(token.create_time.as_ref()),
        "expire_time": time::rfc3339(token.expire_time.as_ref()),
        "revoked": token.revoked,
    })
}

fn token_row(token: &Token) -> Vec<String> {
    let expires = if token.revoked { Some("revoked".into()) } else { time::rfc3339(token.expire_time.as_ref()) };
    vec![
        token.token_id.clone(),
        scope::kind(token.kind()).into(),
        token.account.clone(),
        token.scopes().map(scope::name).collect::<Vec<_>>().join(","),
        token.slug_prefix.clone(),
        expires.unwrap_or_else(|| "never".into()),
        token.label.clone(),
    ]
}

fn whoami_json(caller: &WhoAmIResponse) -> Value {
    json!({
        "kind": scope::kind(caller.kind()),
        "token_id": caller.token_id,
        "workspace": some(&caller.workspace),
        "account": some(&caller.account),
        "node_id": some(&caller.node_id),
        "agent_id": some(&caller.agent_id),
        "scopes": caller.scopes().map(scope::name).collect::<Vec<_>>(),
        "slug_prefix": some(&caller.slug_prefix),
        "expire_time": time::rfc3339(caller.expire_time.as_ref()),
    })
}

fn whoami_text(caller: &WhoAmIResponse) -> String {
    let rows = [
        ("kind", scope::kind(caller.kind()).to_owned()),
        ("token", caller.token_id.clone()),
        ("workspace", some(&caller.workspace).unwrap_or("all").to_owned()),
        ("account", caller.account.clone()),
        ("scopes", caller.scopes().map(scope::name).collect::<Vec<_>>().join(", ")),
        ("prefix", caller.slug_prefix.clone()),
        ("expires", time::rfc3339(caller.expire_time.as_ref()).unwrap_or_else(|| "never".into())),
    ];
    output::pairs(rows)
}
