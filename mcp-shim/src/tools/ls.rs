//! `ls`: which agents there are.

use murmur_proto::v1::{ListAgentStatusRequest, Phase};
use rmcp::model::ToolAnnotations;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Call, Murmur,
    choice::{Choice, number},
    control::some,
    shown::{Brief, now_ms},
};
use crate::errors::Failure;

pub(super) struct Ls;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Args {
    /// Include ended ones.
    #[serde(default)]
    all: bool,
    /// Agents of this account; * for all that you may see. Default: your own.
    #[serde(default)]
    account: Option<String>,
    /// Only agents below this slug.
    #[serde(default)]
    parent: Option<String>,
    /// Only agents in this phase.
    #[serde(default)]
    phase: Option<Choice<Phase>>,
    /// How many at most.
    #[serde(default = "limit")]
    #[schemars(range(min = 1, max = 500))]
    limit: u32,
    /// The next_cursor of the page before.
    #[serde(default)]
    #[schemars(length(min = 1))]
    cursor: Option<String>,
    /// Default: your own.
    #[serde(default)]
    workspace: Option<String>,
}

fn limit() -> u32 {
    100
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Answer {
    agents: Vec<Brief>,
    /// Pass as `cursor` for the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

impl Murmur for Ls {
    const NAME: &'static str = "ls";
    const TITLE: &'static str = "List started agents";
    const DESCRIPTION: &'static str = "List agents with phase, node, progress, cost and age: those of your account, or those below parent. \
        Ended ones only with all=true. To find out whom you can write to, use `peers`.";
    type Args = Args;
    type Answer = Answer;

    fn annotations() -> ToolAnnotations {
        ToolAnnotations::new().read_only(true).idempotent(true).open_world(false)
    }

    async fn run(args: Args, call: &Call) -> Result<Answer, Failure> {
        let request = ListAgentStatusRequest {
            all: args.all,
            account: args.account.unwrap_or_default(),
            parent: call.slug(args.parent, args.workspace.as_deref()).await?,
            phase: number(args.phase),
            page_size: args.limit,
            page_token: args.cursor.unwrap_or_default(),
        };
        let listed = call.answer(call.control().await?.agents.list_agent_status(request)).await?;
        let now_ms = now_ms();
        Ok(Answer {
            agents: listed.agents.iter().map(|agent| Brief::of(agent, now_ms)).collect(),
            next_cursor: some(&listed.next_page_token),
        })
    }
}
