//! `agent token NAME --out FILE`: a token that speaks for one agent and no other.

use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use murmur_proto::node::v1::IssueAgentTokenRequest;
use serde_json::json;

use crate::{
    connect::Target,
    network::layout::NewFile,
    output::{Outcome, Output},
    text,
};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Issue a token for one of your agents; it goes to a file, never to the terminal
    Token {
        /// Name or path under your account
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        name: String,
        /// The new file to write, readable by you alone
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
}

pub(crate) async fn run(target: &Target, command: Command, output: Output) -> Outcome {
    let Command::Token { name, out } = command;
    let file = NewFile::create(&out, "--out")?;
    let request = IssueAgentTokenRequest { agent: name };
    let answer = target.node().await?.sessions.issue_agent_token(request).await?.into_inner();
    file.fill(answer.token.as_bytes())?;
    let value = json!({"slug": answer.slug, "token_id": answer.token_id, "file": out.display().to_string()});
    output.show(&value, || {
        let file = out.display();
        format!(
            "{file} now speaks for {}\nUse it with `murmur-mcp --token-file {file}`",
            text::clean_line(&answer.slug)
        )
    })
}
