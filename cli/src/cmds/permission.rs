//! `permission ls|allow|deny`: agents that wait for a permission to use a tool.

use murmur_proto::node::v1::{AnswerPermissionRequest, ListPermissionsRequest, Permission, PermissionState};
use serde_json::{Value, json};

use crate::{
    args::Caller,
    connect::Target,
    output::{self, Outcome, Output},
    text::{clean, clean_line},
    time,
    view::{indented, some},
};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Requests that wait for your answer, oldest first
    Ls {
        /// Answered, expired and withdrawn ones too
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        caller: Caller,
    },
    /// Let the tool be used, this once
    Allow(Answer),
    /// Do not let the tool be used
    Deny(Answer),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Answer {
    /// The five letters of the request
    id: String,
    /// Who asks; only needed when two have a request of this id
    #[arg(long, value_name = "SLUG", default_value = "", hide_default_value = true)]
    slug: String,
    #[command(flatten)]
    caller: Caller,
}

pub(crate) async fn run(target: &Target, command: Command, output: Output) -> Outcome {
    match command {
        Command::Ls { all, caller } => ls(target, &caller, all, output).await,
        Command::Allow(args) => answer(target, args, true, output).await,
        Command::Deny(args) => answer(target, args, false, output).await,
    }
}

async fn ls(target: &Target, caller: &Caller, all: bool, output: Output) -> Outcome {
    let request = ListPermissionsRequest { agent: caller.agent.clone(), all };
    let listed = target.node_of(caller).await?.permissions.list_permissions(request).await?.into_inner().permissions;
    let value = json!({"permissions": listed.iter().map(permission_json).collect::<Vec<Value>>()});
    output.show(&value, || {
        if listed.is_empty() {
            return "nobody waits for a permission".to_owned();
        }
        listed.iter().map(permission_text).collect::<Vec<_>>().join("\n\n")
    })
}

async fn answer(target: &Target, args: Answer, allow: bool, output: Output) -> Outcome {
    let Answer { id, slug, caller } = args;
    let request = AnswerPermissionRequest { agent: caller.agent.clone(), request_id: id, allow, asked_by: slug };
    let answered = target.node_of(&caller).await?.permissions.answer_permission(request).await?.into_inner();
    let permission = answered.permission.unwrap_or_default();
    output.show(&permission_json(&permission), || {
        let verb = if allow { "allowed" } else { "denied" };
        format!("{verb} {} to {}", clean_line(&permission.tool_name), clean_line(&permission.agent))
    })
}

pub(super) fn permission_json(permission: &Permission) -> Value {
    json!({
        "request_id": permission.request_id,
        "agent": permission.agent,
        "tool_name": permission.tool_name,
        "description": permission.description,
        "input_preview": permission.input_preview,
        "state": state(permission.state()),
        "ask_time": time::rfc3339(permission.ask_time.as_ref()),
        "expire_time": time::rfc3339(permission.expire_time.as_ref()),
        "answered_by": some(&permission.answered_by),
        "answer_time": time::rfc3339(permission.answer_time.as_ref()),
    })
}

/// A line of ours, then the agent's own words, indented so that they cannot pass for one.
pub(super) fn permission_text(permission: &Permission) -> String {
    let Permission { request_id, agent, tool_name, description, input_preview, answered_by, .. } = permission;
    let how = match permission.state() {
        PermissionState::Pending => format!("expires {}", time::ahead(permission.expire_time.as_ref())),
        other if answered_by.is_empty() => state(other).to_owned(),
        other => format!("{} by {}", state(other), clean_line(answered_by)),
    };
    let asked = time::ago(permission.ask_time.as_ref());
    let (agent, tool) = (clean_line(agent), clean_line(tool_name));
    let head = output::bold(&format!("{} {agent} wants to use {tool}", clean_line(request_id)));
    let words: Vec<String> = [description, input_preview]
        .iter()
        .filter(|words| !words.is_empty())
        .map(|words| indented(&clean(words)))
        .collect();
    [vec![format!("{head}  ({asked}; {how})")], words].concat().join("\n")
}

const fn state(state: PermissionState) -> &'static str {
    match state {
        PermissionState::Unspecified => "unknown",
        PermissionState::Pending => "pending",
        PermissionState::Allowed => "allowed",
        PermissionState::Denied => "denied",
        PermissionState::Expired => "expired",
        PermissionState::Withdrawn => "withdrawn",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agents_words_cannot_pass_for_another_request() {
        let permission = Permission {
            request_id: "abcde".to_owned(),
            agent: "/w/a/u/b/c".to_owned(),
            tool_name: "Bash\nfghij".to_owned(),
            description: "ls\nfghij /w/a/u/b/d wants to use Read\u{1b}[2J".to_owned(),
            state: PermissionState::Pending.into(),
            ..Permission::default()
        };
        let shown = permission_text(&permission);
        assert!(shown.lines().skip(1).all(|line| line.starts_with("  ")) && !shown.contains('\u{1b}'), "{shown}");
        assert!(shown.starts_with("abcde /w/a/u/b/c wants to use Bash fghij"), "{shown}");
    }
}
