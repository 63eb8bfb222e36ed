//! `notify-setup telegram|discord|whatsapp|webhook|ls|test|rm`: by which channels this node tells people what goes on.
//!
//! Secrets come from a file, from a prompt, or from stdin; never from the command line, which others can read.

use std::{
    fs,
    io::{self, BufRead as _, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    str::FromStr,
};

use data_encoding::BASE64;
use murmur_proto::node::v1::{
    Channel, Discord, ListChannelsRequest, OutgoingWebhook, PairTelegramRequest, RemoveChannelRequest,
    SetChannelRequest, Telegram, TelegramPerson, TestChannelRequest, Whatsapp, set_channel_request::Service,
};
use serde_json::{Value, json};

use crate::{
    connect::Target,
    exit::Exit,
    failure::{Context as _, Failure},
    network::layout,
    output::{self, Outcome, Output},
    time,
};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// A Telegram bot: make one with @BotFather, then run this and send the bot the code that it shows
    Telegram {
        #[command(flatten)]
        common: Common,
        /// File with the bot's token [default: ask]
        #[arg(long, value_name = "FILE")]
        token_file: Option<PathBuf>,
        /// The chat, when you know its number [default: found by a code that you send to the bot]
        #[arg(long, value_name = "ID", allow_hyphen_values = true)]
        chat: Option<String>,
        /// Who may answer there what agents ask, by Telegram's number of the account: 12345, or 12345=jo to be called jo; `me` for whoever
        /// sends the code; repeatable, or separated by commas
        #[arg(long = "answerer", value_delimiter = ',', value_name = "ID[=NAME]")]
        answerers: Vec<Answerer>,
    },
    /// A webhook of a Discord channel: Server settings > Integrations > Webhooks > Copy webhook URL
    Discord {
        #[command(flatten)]
        common: Common,
        /// File with the webhook's URL, which is a secret [default: ask]
        #[arg(long, value_name = "FILE")]
        url_file: Option<PathBuf>,
    },
    /// WhatsApp's Cloud API: an app of type business at developers.facebook.com
    Whatsapp {
        #[command(flatten)]
        common: Common,
        /// File with a system user's access token [default: ask]
        #[arg(long, value_name = "FILE")]
        token_file: Option<PathBuf>,
        /// Meta's number of the sending number, as the app's page shows it
        #[arg(long, value_name = "ID")]
        phone_number_id: String,
        /// Who is told, with the country's code
        #[arg(long, value_name = "NUMBER")]
        to: String,
        /// An approved template with one parameter: without one you must have written within 24 hours
        #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
        template: String,
        /// Of the template
        #[arg(long, value_name = "CODE", default_value = "en_US")]
        language: String,
    },
    /// Any server that takes a POST, signed as standardwebhooks.com says
    Webhook {
        #[command(flatten)]
        common: Common,
        /// Where
        #[arg(long, value_name = "URL")]
        url: String,
        /// File with the secret to sign with; made when it is not there
        #[arg(long, value_name = "FILE")]
        secret_file: PathBuf,
    },
    /// Channels and how they are doing
    Ls,
    /// Send a word by a channel now
    Test {
        /// The channel
        name: String,
    },
    /// Remove a channel with its secret
    Rm {
        /// The channel
        name: String,
    },
}

/// Somebody who may answer; without a number whoever sends the code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answerer {
    user_id: Option<u64>,
    name: String,
}

impl FromStr for Answerer {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (id, name) = text.trim().split_once('=').unwrap_or((text.trim(), ""));
        let user_id = match id {
            "me" => None,
            id => Some(
                id.parse().map_err(|_| "must be the number of a Telegram account, or `me`, and =NAME if need be")?,
            ),
        };
        Ok(Self { user_id, name: name.to_owned() })
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct Common {
    /// The channel's name; one that is there is replaced [default: the service's]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// What is told: message, notify, permission, agent_failed, ci_failed, or a kind of event [default: the first four]
    #[arg(long = "kind", value_delimiter = ',', value_name = "KIND")]
    kinds: Vec<String>,
    /// About which agents, with all below them [default: all]
    #[arg(long = "about", value_delimiter = ',', value_name = "SLUG")]
    agents: Vec<String>,
    /// Do not send a word to try it
    #[arg(long)]
    no_test: bool,
}

pub(crate) async fn run(target: &Target, command: Command, output: Output) -> Outcome {
    match command {
        Command::Telegram { common, token_file, chat, answerers } => {
            let needs_code = answerers.iter().any(|answerer| answerer.user_id.is_none());
            if chat.is_some() && needs_code {
                return Err(Failure::usage("`--answerer me` is whoever sends the code, which --chat does without")
                    .remedy("Leave --chat out, or give the number of the account in the place of `me`."));
            }
            let token = secret(token_file.as_deref(), "the bot's token")?;
            let (chat_id, user_id) = match chat {
                Some(chat) => (chat, 0),
                None => pair(target, &token).await?,
            };
            if needs_code && user_id == 0 {
                return Err(Failure::new(Exit::Refused, "the code came without a name: in a channel nobody is named")
                    .remedy("Send it in a chat with the bot, or in a group."));
            }
            let person = |Answerer { user_id: known, name }| TelegramPerson { user_id: known.unwrap_or(user_id), name };
            let answerers = answerers.into_iter().map(person).collect();
            set(target, "telegram", common, Service::Telegram(Telegram { token, chat_id, answerers }), output).await
        }
        Command::Discord { common, url_file } => {
            let url = secret(url_file.as_deref(), "the webhook's URL")?;
            set(target, "discord", common, Service::Discord(Discord { url }), output).await
        }
        Command::Whatsapp { common, token_file, phone_number_id, to, template, language } => {
            let token = secret(token_file.as_deref(), "the access token")?;
            let whatsapp = Whatsapp { token, phone_number_id, to, template, language };
            set(target, "whatsapp", common, Service::Whatsapp(whatsapp), output).await
        }
        Command::Webhook { common, url, secret_file } => {
            let secret = signing_secret(&secret_file)?;
            set(target, "webhook", common, Service::Webhook(OutgoingWebhook { url, secret }), output).await
        }
        Command::Ls => ls(target, output).await,
        Command::Test { name } => {
            target.node().await?.notify.test_channel(TestChannelRequest { name: name.clone() }).await?;
            output.show(&json!({"tested": name}), || format!("{name} works: look at it"))
        }
        Command::Rm { name } => {
            target.node().await?.notify.remove_channel(RemoveChannelRequest { name: name.clone() }).await?;
            output.show(&json!({"removed": name}), || format!("nothing is told by {name} any more"))
        }
    }
}

async fn set(target: &Target, kind: &str, common: Common, service: Service, output: Output) -> Outcome {
    let Common { name, kinds, agents, no_test } = common;
    let name = name.unwrap_or_else(|| kind.to_owned());
    let request = SetChannelRequest { name: name.clone(), service: Some(service), kinds, agents };
    let mut notify = target.node().await?.notify;
    let channel = notify.set_channel(request).await?.into_inner().channel.unwrap_or_default();
    if !no_test {
        let tested = notify.test_channel(TestChannelRequest { name }).await;
        tested.map_err(|status| {
            Failure::from(status).remedy("The channel is kept. Run the same command with what was wrong put right.")
        })?;
    }
    output.show(&channel_json(&channel), || {
        let tried = if no_test { "is set" } else { "works: look at it" };
        let set = format!("{} ({}) {tried}", channel.name, channel.target);
        match channel.answerers.as_slice() {
            [] => set,
            names => format!("{set}\nanswers to permission requests are taken there from: {}", names.join(", ")),
        }
    })
}

/// Shows a code, and waits for the chat that it comes from, and who sent it.
async fn pair(target: &Target, token: &str) -> Result<(String, u64), Failure> {
    let request = PairTelegramRequest { token: token.to_owned() };
    let mut answers = target.node().await?.notify.pair_telegram(request).await?.into_inner();
    while let Some(answer) = answers.message().await? {
        if !answer.chat_id.is_empty() {
            say(&format!("found the chat of {}", answer.title));
            return Ok((answer.chat_id, answer.user_id));
        }
        say(&format!("Send this to @{} within 5 minutes: {}", answer.bot, answer.code));
    }
    Err(Failure::new(Exit::Refused, "the node ended before the code came"))
}

/// For whoever follows; the result alone goes to stdout.
fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{}", crate::text::clean_line(text));
}

/// A secret from a file, else from the first line of stdin, which is asked for on a terminal.
fn secret(file: Option<&Path>, what: &str) -> Result<String, Failure> {
    let text = match file {
        Some(file) => fs::read_to_string(file).context(format!("reading `{}`", file.display()))?,
        None => {
            if io::stdin().is_terminal() {
                say(&format!("Paste {what} and press return (it is shown as you paste it):"));
            }
            let mut line = String::new();
            io::stdin().lock().read_line(&mut line).context(format!("reading {what}"))?;
            line
        }
    };
    let text = text.trim().to_owned();
    if text.is_empty() {
        return Err(Failure::usage(format!("{what} is missing")).remedy("Name a file that holds it, or pipe it in."));
    }
    Ok(text)
}

/// The secret of a file, made when there is none.
fn signing_secret(file: &Path) -> Result<String, Failure> {
    if let Some(text) = layout::read_optional(file)? {
        return Ok(text.trim().to_owned());
    }
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).context("making a secret")?;
    let secret = format!("whsec_{}", BASE64.encode(&bytes));
    layout::write_private(file, secret.as_bytes())?;
    Ok(secret)
}

async fn ls(target: &Target, output: Output) -> Outcome {
    let channels = target.node().await?.notify.list_channels(ListChannelsRequest {}).await?.into_inner().channels;
    let value = json!({"channels": channels.iter().map(channel_json).collect::<Vec<Value>>()});
    output.show(&value, || {
        if channels.is_empty() {
            return "there is no channel; see `murmurctl notify-setup --help`".into();
        }
        let header = ["NAME", "KIND", "TARGET", "TELLS", "ABOUT", "SENT", "LOST", "LAST", "TROUBLE"];
        output::table(&header, channels.iter().map(channel_row))
    })
}

fn channel_json(channel: &Channel) -> Value {
    json!({
        "name": channel.name,
        "kind": channel.kind,
        "target": channel.target,
        "kinds": channel.kinds,
        "agents": channel.agents,
        "answerers": channel.answerers,
        "sent": channel.sent,
        "dropped": channel.dropped,
        "failed": channel.failed,
        "queued": channel.queued,
        "send_time": time::rfc3339(channel.send_time.as_ref()),
        "trouble": crate::view::some(&channel.trouble),
    })
}

fn channel_row(channel: &Channel) -> Vec<String> {
    let list = |items: &[String], none: &str| if items.is_empty() { none.to_owned() } else { items.join(",") };
    vec![
        channel.name.clone(),
        channel.kind.clone(),
        channel.target.clone(),
        list(&channel.kinds, "default"),
        list(&channel.agents, "all"),
        channel.sent.to_string(),
        (channel.dropped + channel.failed).to_string(),
        time::ago(channel.send_time.as_ref()),
        channel.trouble.clone(),
    ]
}
