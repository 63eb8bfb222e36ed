//! `webhook add|ls|set|rotate|test|log|rm`: sources of webhooks on the control plane.

use std::{path::PathBuf, time::Duration};

use clap::ValueEnum;
use murmur_proto::v1::{
    CreateWebhookRequest, DeleteWebhookRequest, ListWebhookDeliveriesRequest, ListWebhooksRequest,
    RotateWebhookSecretRequest, UpdateWebhookRequest, Webhook, WebhookDelivery, WebhookKind, WebhookList,
};
use serde_json::{Value, json};

use super::webhook_test;
use crate::{
    connect::Target,
    duration,
    failure::Failure,
    network::layout::NewFile,
    output::{self, Outcome, Output},
    time,
};

const PAGE: u32 = 1000;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Make a source; prints its address and its secret, which is shown this once
    Add(Add),
    /// Sources of the workspace, without their secrets
    Ls {
        #[command(flatten)]
        place: Place,
    },
    /// Change what and whom a source lets through; a list that is given replaces the one that is there
    Set {
        /// The source's name or id
        name: String,
        #[command(flatten)]
        lists: Lists,
        #[command(flatten)]
        place: Place,
    },
    /// Make a new secret; the present one stays good for a while
    Rotate {
        /// The source's name or id
        name: String,
        /// How long the present secret stays good [default: 24h]
        #[arg(long, value_parser = duration::parse, value_name = "TIME", conflicts_with = "now")]
        keep: Option<Duration>,
        /// The present secret ends at once
        #[arg(long)]
        now: bool,
        /// Write the secret to this new file, readable by you alone, instead of showing it
        #[arg(long, value_name = "FILE")]
        secret_out: Option<PathBuf>,
        #[command(flatten)]
        place: Place,
    },
    /// Post a signed sample to its address, as the sender would, and say what became of it
    Test(webhook_test::Test),
    /// What came in within 7 days and what became of it, newest first
    Log {
        /// The source's name or id
        name: String,
        /// Deliveries at most
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000), value_name = "N")]
        limit: u32,
        #[command(flatten)]
        place: Place,
    },
    /// End a source
    Rm {
        /// The source's name or id
        name: String,
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct Add {
    /// Name of the source: a-z, 0-9 and -
    name: String,
    /// Who posts
    #[arg(long, default_value = "github")]
    kind: KindArg,
    #[command(flatten)]
    lists: Lists,
    /// Write the secret to this new file, readable by you alone, instead of showing it
    #[arg(long, value_name = "FILE")]
    secret_out: Option<PathBuf>,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Lists {
    /// A repository: owner/name, owner/* or *; several by repeating or with commas
    #[arg(long = "repo", value_delimiter = ',', value_name = "REPO")]
    repos: Vec<String>,
    /// A type of the sender's, such as pull_request_review [default: all that are understood]
    #[arg(long = "event", value_delimiter = ',', value_name = "TYPE")]
    events: Vec<String>,
    /// Whose words are delivered: names, !name, @members, * [default: @members on GitHub]
    #[arg(long = "actor", value_delimiter = ',', value_name = "NAME")]
    actors: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Place {
    /// Workspace; for an administrator [default: the local network's]
    #[arg(long, default_value = "", hide_default_value = true, value_name = "NAME")]
    workspace: String,
}

/// Who posts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum KindArg {
    /// GitHub
    Github,
    /// GitLab
    Gitlab,
    /// Anybody who signs as standardwebhooks.com says
    Generic,
}

impl Place {
    /// An administrator of the local network means the local workspace.
    pub(super) fn of(&self, target: &Target) -> String {
        match &target.plan {
            Some(plan) if self.workspace.is_empty() => plan.workspace.clone(),
            _ => self.workspace.clone(),
        }
    }
}

pub(crate) async fn run(target: &Target, command: Command, output: Output) -> Outcome {
    match command {
        Command::Add(add) => run_add(target, add, output).await,
        Command::Ls { place } => run_ls(target, &place, output).await,
        Command::Set { name, lists, place } => run_set(target, name, lists, &place, output).await,
        Command::Rotate { name, keep, now, secret_out, place } => {
            let keep_seconds = if now { Some(0) } else { keep.map(|keep| keep.as_secs().max(1)) };
            let request = RotateWebhookSecretRequest { webhook: name, keep_seconds, workspace: place.of(target) };
            let mut webhooks = target.control().await?.webhooks;
            let file = new_file(secret_out)?;
            let answer = webhooks.rotate_webhook_secret(request).await?.into_inner();
            show_secret(target, &answer.webhook.unwrap_or_default(), &answer.secret, file, output)
        }
        Command::Test(test) => webhook_test::run(target, test, output).await,
        Command::Log { name, limit, place } => run_log(target, name, limit, &place, output).await,
        Command::Rm { name, place } => {
            let request = DeleteWebhookRequest { webhook: name.clone(), workspace: place.of(target) };
            target.control().await?.webhooks.delete_webhook(request).await?;
            output.show(&json!({"removed": name}), || format!("{name} takes no deliveries any more"))
        }
    }
}

async fn run_add(target: &Target, add: Add, output: Output) -> Outcome {
    let Add { name, kind, lists: Lists { repos, events, actors }, secret_out, place } = add;
    let kind = match kind {
        KindArg::Github => WebhookKind::Github,
        KindArg::Gitlab => WebhookKind::Gitlab,
        KindArg::Generic => WebhookKind::Generic,
    };
    let workspace = place.of(target);
    let request = CreateWebhookRequest { name, kind: kind.into(), repos, events, actors, workspace };
    let mut webhooks = target.control().await?.webhooks;
    let file = new_file(secret_out)?;
    let answer = webhooks.create_webhook(request).await?.into_inner();
    show_secret(target, &answer.webhook.unwrap_or_default(), &answer.secret, file, output)
}

/// The file for a secret, made before there is one: the secret is told once, and a rotation ends the one before.
fn new_file(secret_out: Option<PathBuf>) -> Result<Option<(PathBuf, NewFile)>, Failure> {
    let made = |path: PathBuf| NewFile::create(&path, "--secret-out").map(|file| (path, file));
    secret_out.map(made).transpose()
}

/// Its whole address: as the control plane knows itself, else where it is reached from here.
pub(super) fn url_of(target: &Target, webhook: &Webhook) -> Result<String, Failure> {
    if webhook.url.is_empty() {
        return Ok(format!("{}{}", target.server_url()?.trim_end_matches('/'), webhook.path));
    }
    Ok(webhook.url.clone())
}

/// Shows a new secret, or where it was written, and what to do with it.
fn show_secret(
    target: &Target,
    webhook: &Webhook,
    secret: &str,
    secret_out: Option<(PathBuf, NewFile)>,
    output: Output,
) -> Outcome {
    let mut value = webhook_json(webhook);
    let shown = match secret_out {
        Some((path, file)) => {
            file.fill(secret.as_bytes())?;
            value["secret_file"] = path.display().to_string().into();
            format!("in {}", path.display())
        }
        None => {
            value["secret"] = secret.into();
            format!("{secret}  (shown this once)")
        }
    };
    let url = url_of(target, webhook)?;
    value["url"] = url.clone().into();
    output.show(&value, || {
        let rows = [("webhook", webhook.name.clone()), ("url", url.clone()), ("secret", shown)];
        format!("{}\n\n{}", output::pairs(rows), how_to(webhook.kind(), &url))
    })
}

/// What to do at the sender's end.
fn how_to(kind: WebhookKind, url: &str) -> String {
    let steps = match kind {
        WebhookKind::Gitlab => {
            "On GitLab: Settings > Webhooks > Add new webhook. Paste the URL. Paste the secret as signing token\n\
             (GitLab 19 and later), or as secret token. Triggers: push, comments, merge request, pipeline events."
        }
        WebhookKind::Generic => {
            "Sign each POST as standardwebhooks.com says: webhook-id, webhook-timestamp, webhook-signature over\n\
             id.timestamp.body. The body is JSON: {\"kind\", \"repo\", \"branch\" or \"pr\", \"text\", \"attributes\"}."
        }
        WebhookKind::Github | WebhookKind::Unspecified => {
            "On GitHub: Settings > Webhooks > Add webhook. Paste the payload URL and the secret. Content type:\n\
             application/json. Individual events: pull requests, reviews, review comments, issue comments,\n\
             check runs, statuses, workflow runs, pushes."
        }
    };
    let is_local = ["//127.", "//localhost", "//[::1]"].iter().any(|host| url.contains(host));
    let note = "\n\nThis address is reachable from this machine alone: put a tunnel or a proxy with TLS before it.";
    format!("{steps}{}", if is_local { note } else { "" })
}

async fn run_ls(target: &Target, place: &Place, output: Output) -> Outcome {
    let mut client = target.control().await?.webhooks;
    let (mut webhooks, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListWebhooksRequest { page_size: PAGE, page_token, workspace: place.of(target) };
        let mut page = client.list_webhooks(request).await?.into_inner();
        webhooks.append(&mut page.webhooks);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let value = json!({"webhooks": webhooks.iter().map(webhook_json).collect::<Vec<Value>>()});
    output.show(&value, || {
        let header = ["NAME", "KIND", "REPOS", "EVENTS", "ACTORS", "LAST", "ID"];
        output::table(&header, webhooks.iter().map(webhook_row))
    })
}

async fn run_set(target: &Target, name: String, lists: Lists, place: &Place, output: Output) -> Outcome {
    let list = |items: Vec<String>| (!items.is_empty()).then_some(WebhookList { items });
    let Lists { repos, events, actors } = lists;
    if repos.is_empty() && events.is_empty() && actors.is_empty() {
        return Err(Failure::usage("nothing is to be changed").remedy("Give --repo, --event or --actor."));
    }
    let request = UpdateWebhookRequest {
        webhook: name,
        repos: list(repos),
        events: list(events),
        actors: list(actors),
        workspace: place.of(target),
    };
    let answer = target.control().await?.webhooks.update_webhook(request).await?.into_inner();
    let webhook = answer.webhook.unwrap_or_default();
    output.show(&webhook_json(&webhook), || {
        output::pairs([
            ("webhook", webhook.name.clone()),
            ("repos", webhook.repos.join(", ")),
            ("events", webhook.events.join(", ")),
            ("actors", webhook.actors.join(", ")),
        ])
    })
}

async fn run_log(target: &Target, name: String, limit: u32, place: &Place, output: Output) -> Outcome {
    let request = ListWebhookDeliveriesRequest {
        webhook: name,
        page_size: limit,
        page_token: String::new(),
        workspace: place.of(target),
    };
    let deliveries = target.control().await?.webhooks.list_webhook_deliveries(request).await?.into_inner().deliveries;
    let value = json!({"deliveries": deliveries.iter().map(delivery_json).collect::<Vec<Value>>()});
    output.show(&value, || {
        if deliveries.is_empty() {
            return "nothing came in; what cannot prove where it comes from is not written down".into();
        }
        let header = ["RECEIVED", "EVENT", "OUTCOME", "AGENTS", "DETAIL", "DELIVERY"];
        output::table(&header, deliveries.iter().map(delivery_row))
    })
}

fn kind(webhook: &Webhook) -> &'static str {
    match webhook.kind() {
        WebhookKind::Github => "github",
        WebhookKind::Gitlab => "gitlab",
        WebhookKind::Generic => "generic",
        WebhookKind::Unspecified => "unknown",
    }
}

fn webhook_json(webhook: &Webhook) -> Value {
    json!({
        "webhook_id": webhook.webhook_id,
        "name": webhook.name,
        "kind": kind(webhook),
        "path": webhook.path,
        "url": crate::view::some(&webhook.url),
        "repos": webhook.repos,
        "events": webhook.events,
        "actors": webhook.actors,
        "create_time": time::rfc3339(webhook.create_time.as_ref()),
        "last_delivery_time": time::rfc3339(webhook.last_delivery_time.as_ref()),
        "old_secret_expire_time": time::rfc3339(webhook.old_secret_expire_time.as_ref()),
    })
}

fn webhook_row(webhook: &Webhook) -> Vec<String> {
    let all = |list: &[String], none: &str| if list.is_empty() { none.to_owned() } else { list.join(",") };
    let nobody_named = if webhook.kind() == WebhookKind::Github { "@members" } else { "all" };
    vec![
        webhook.name.clone(),
        kind(webhook).into(),
        all(&webhook.repos, "all"),
        all(&webhook.events, "all"),
        all(&webhook.actors, nobody_named),
        time::ago(webhook.last_delivery_time.as_ref()),
        webhook.webhook_id.clone(),
    ]
}

fn delivery_json(delivery: &WebhookDelivery) -> Value {
    json!({
        "receive_time": time::rfc3339(delivery.receive_time.as_ref()),
        "delivery": delivery.delivery,
        "event": delivery.event,
        "outcome": delivery.outcome,
        "detail": delivery.detail,
        "agents": delivery.agents,
    })
}

fn delivery_row(delivery: &WebhookDelivery) -> Vec<String> {
    vec![
        time::ago(delivery.receive_time.as_ref()),
        delivery.event.clone(),
        delivery.outcome.clone(),
        delivery.agents.to_string(),
        delivery.detail.clone(),
        delivery.delivery.clone(),
    ]
}
