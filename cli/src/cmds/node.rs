//! `node invite|ls|approve|revoke|takeover`: nodes of this workspace, and this host's own place among them.

use std::time::Duration;

use murmur_core::{limits::INVITE_LIFE_MS_MAX, slug::AccountName};
use murmur_crypto::hash::key_fingerprint;
use murmur_proto::{
    node::v1::{GetStatusRequest, TakeOverRequest},
    v1::{Node, NodeState, Presence},
};
use serde_json::{Value, json};

use crate::{
    connect::Target,
    duration,
    exit::Exit,
    failure::Failure,
    network::{
        enrol::{self, InviteSpec},
        revoke::{Revoker, check_reason},
    },
    output::{self, Outcome, Output},
    text, time,
};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Make an invite for another host's node and print it
    Invite {
        /// Whose node it will be [default: the local network's account]
        #[arg(long, value_name = "NAME")]
        account: Option<String>,
        /// How long it is good for, at most 7d
        #[arg(long, value_parser = duration::parse, default_value = "24h", value_name = "TIME")]
        ttl: Duration,
        /// How many nodes may use it
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
        uses: u32,
    },
    /// Nodes of the workspace
    Ls,
    /// Sign the certificate of a node that waits, after comparing its fingerprint
    Approve {
        /// The fingerprint that the node shows on its own host: 64 hex digits, spaces and colons allowed
        fingerprint: String,
    },
    /// Cut a node off for good: nobody takes what it signs any more, its tokens and connections end, its agents are failed
    Revoke {
        /// Its name, id or fingerprint, as `murmurctl node ls` shows them
        node: String,
        /// Why, for people: one line of at most 200 bytes, which every node of the workspace can read
        #[arg(long, default_value = "", hide_default_value = true, value_name = "TEXT")]
        reason: String,
        /// Do it even if it is this host's own node
        #[arg(long)]
        own: bool,
    },
    /// End the session of whatever other process runs as this host's node, and take its place
    Takeover,
}

pub(crate) async fn run(target: &Target, command: Command, output: Output) -> Outcome {
    match command {
        Command::Invite { account, ttl, uses } => invite(target, account, ttl, uses, output).await,
        Command::Ls => ls(target, output).await,
        Command::Approve { fingerprint } => approve(target, &fingerprint, output).await,
        Command::Revoke { node, reason, own } => revoke(target, (&node, own), &reason, output).await,
        Command::Takeover => takeover(target, output).await,
    }
}

async fn invite(target: &Target, account: Option<String>, ttl: Duration, uses: u32, output: Output) -> Outcome {
    if ttl > Duration::from_millis(INVITE_LIFE_MS_MAX) {
        return Err(Failure::usage("--ttl must be at most 7d"));
    }
    let plan = plan(target)?;
    let owner = target.owner(&plan.workspace)?;
    let account = account.unwrap_or_else(|| plan.account.clone());
    if let Err(error) = account.parse::<AccountName>() {
        return Err(Failure::usage(format!("--account: {error}")));
    }
    let spec = InviteSpec { workspace: &plan.workspace, account: &account, url: &target.server_url()?, uses, ttl };
    let made = enrol::invite(&mut target.control().await?, &owner, spec).await?;
    let expires = time::rfc3339(made.expire_time.as_ref());
    let value = json!({"invite": made.blob, "invite_id": made.invite_id, "expire_time": expires, "account": account});
    output.show(&value, || made.blob.clone())
}

async fn ls(target: &Target, output: Output) -> Outcome {
    let nodes = enrol::list(&mut target.control().await?).await?;
    let value = json!({"nodes": nodes.iter().map(node_json).collect::<Vec<Value>>()});
    output.show(&value, || {
        output::table(
            &["NAME", "ACCOUNT", "STATE", "PRESENCE", "VERSION", "SEEN", "FINGERPRINT"],
            nodes.iter().map(node_row),
        )
    })
}

async fn approve(target: &Target, text: &str, output: Output) -> Outcome {
    let Some(wanted) = enrol::fingerprint(text) else {
        return Err(Failure::usage("the fingerprint must be 64 hex digits")
            .remedy("Run `murmurctl status` on the node's own host and copy the whole of it."));
    };
    let workspace = &plan(target)?.workspace;
    let owner = target.owner(workspace)?;
    let mut control = target.control().await?;
    let revoker = Revoker { layout: &target.layout, owner: &owner, workspace };
    let node = enrol::by_fingerprint(&mut control, &wanted).await?.ok_or_else(|| {
        Failure::new(Exit::NotFound, format!("no node has the fingerprint {wanted}"))
            .remedy("Compare it with `murmurctl node ls`; a node shows up there once it has redeemed its invite.")
    })?;
    // Whatever the control plane shows of it.
    if revoker.is_revoked(&node)? {
        return Err(Failure::new(Exit::Refused, format!("node {} was revoked", text::clean_line(&node.name)))
            .remedy("Invite the host anew, with an empty data directory."));
    }
    let node = enrol::approve(&mut control, &owner, node).await?;
    output.show(&node_json(&node), || {
        format!("approved: node {} of {}", text::clean_line(&node.name), text::clean_line(&node.account))
    })
}

async fn revoke(target: &Target, (wanted, own): (&str, bool), reason: &str, output: Output) -> Outcome {
    check_reason(reason)?;
    let workspace = &plan(target)?.workspace;
    let owner = target.owner(workspace)?;
    let mut control = target.control().await?;
    let node = enrol::by_name(&mut control, wanted).await?;
    let name = text::clean_line(&node.name);
    if !own && own_node_id(target).await.as_ref() == Some(&node.node_id) {
        return Err(Failure::usage(format!("{name} is this host's own node")).remedy(
            "Say --own if its key is to be given up: the host then has to enrol anew, with a new data directory.",
        ));
    }
    let revoker = Revoker { layout: &target.layout, owner: &owner, workspace };
    let answer = revoker.revoke(&mut control, &node, reason).await?;
    let is_new = answer.nodes.iter().any(|other| other.node_id == node.node_id);
    let node = enrol::by_name(&mut control, &node.node_id).await?;
    if node.state() != NodeState::Revoked {
        return Err(Failure::failed(format!("the list is published, and the control plane still counts {name} in"))
            .remedy("Its certificate was signed anew at this moment: run this again."));
    }
    let value = json!({"node": node_json(&node), "broker_told": answer.broker_told});
    output.show(&value, || {
        let mut text = if is_new {
            let account = text::clean_line(&node.account);
            format!(
                "revoked: node {name} of {account}; its agents have ended, and no node takes what it signs any more"
            )
        } else {
            format!("node {name} was revoked before; the list is signed again")
        };
        if !answer.broker_told {
            text.push_str("\nthe broker cannot be reached: its connection there ends as soon as it can be told");
        }
        text
    })
}

/// The node that runs on this host, if one answers.
async fn own_node_id(target: &Target) -> Option<String> {
    let mut client = target.node().await.ok()?;
    Some(client.host.get_status(GetStatusRequest {}).await.ok()?.into_inner().node_id)
}

async fn takeover(target: &Target, output: Output) -> Outcome {
    let took_over = target.node().await?.host.take_over(TakeOverRequest {}).await?.into_inner().took_over;
    output.show(&json!({"took_over": took_over}), || {
        if took_over {
            "this node has its place again; the other process is fenced and receives nothing more".into()
        } else {
            "this node has its place: no other process runs as it".into()
        }
    })
}

fn plan(target: &Target) -> Result<&crate::network::plan::Plan, Failure> {
    target.plan.as_ref().ok_or_else(|| {
        Failure::usage(format!("`{}` holds no network", target.layout.root().display()))
            .remedy("Run this on the owner's machine, or name its data directory with --data-dir.")
    })
}

fn state(node: &Node) -> &'static str {
    match node.state() {
        NodeState::Unspecified => "unknown",
        NodeState::Pending => "pending",
        NodeState::Approved => "approved",
        NodeState::Revoked => "revoked",
    }
}

fn node_json(node: &Node) -> Value {
    json!({
        "node_id": node.node_id,
        "name": node.name,
        "account": node.account,
        "state": state(node),
        "online": node.presence() == Presence::Online,
        "fingerprint": key_fingerprint(&node.public_key),
        "version": node.version,
        "slug_scope": node.slug_scope,
        "create_time": time::rfc3339(node.create_time.as_ref()),
        "last_seen_time": time::rfc3339(node.last_seen_time.as_ref()),
    })
}

fn node_row(node: &Node) -> Vec<String> {
    vec![
        node.name.clone(),
        node.account.clone(),
        state(node).into(),
        if node.presence() == Presence::Online { "online".into() } else { "offline".into() },
        node.version.clone(),
        time::ago(node.last_seen_time.as_ref()),
        key_fingerprint(&node.public_key),
    ]
}
