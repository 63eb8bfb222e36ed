//! An MCP client with a `murmur-mcp` of its own over stdio, as an agent's program has one.

use std::fs::File;

use rmcp::{
    ClientHandler, RoleClient, ServiceExt as _,
    model::{CallToolRequestParams, CustomNotification},
    service::{NotificationContext, RunningService},
    transport::TokioChildProcess,
};
use serde_json::{Map, Value};
use tokio::{process::Command, sync::mpsc};

use super::stage::{Host, Stage};
use crate::{
    failure::{Context as _, Failure},
    network::binaries,
};

/// What a client shows as `<channel …>`.
const CHANNEL: &str = "notifications/claude/channel";

/// A notification that arrived.
#[derive(Debug)]
pub(super) struct Pushed {
    pub(super) content: String,
    pub(super) meta: Map<String, Value>,
}

/// Passes channel notifications on.
struct Listener(mpsc::UnboundedSender<Pushed>);

impl ClientHandler for Listener {
    async fn on_custom_notification(&self, notification: CustomNotification, _: NotificationContext<RoleClient>) {
        if notification.method == CHANNEL
            && let Some(Value::Object(mut params)) = notification.params
            && let Some(Value::String(content)) = params.remove("content")
        {
            let meta = params.remove("meta").and_then(|meta| meta.as_object().cloned()).unwrap_or_default();
            // Nobody listens any more when the demo ends.
            drop(self.0.send(Pushed { content, meta }));
        }
    }
}

/// A running shim with its client.
pub(super) struct Session {
    service: RunningService<RoleClient, Listener>,
    pushed: mpsc::UnboundedReceiver<Pushed>,
    agent: &'static str,
}

impl Session {
    /// Starts a shim for the host's agent. It ends with this value at the latest.
    pub(super) async fn start(stage: &Stage, host: &Host) -> Result<Self, Failure> {
        let doing = format!("starting murmur-mcp for {}", host.agent);
        let log = File::create(stage.layout.log(&format!("mcp-{}", host.agent))).context(&doing)?;
        let mut command = Command::new(binaries::find(binaries::SHIM)?);
        command.args(["--agent", host.agent, "--socket"]).arg(&host.local.socket).kill_on_drop(true);
        // The user's own settings are for the user's own network.
        command.env_remove("MURMUR_AGENT_TOKEN_FILE").current_dir(stage.layout.root());
        let (transport, _) = TokioChildProcess::builder(command).stderr(log).spawn().context(&doing)?;
        let (sender, pushed) = mpsc::unbounded_channel();
        let service = Listener(sender).serve(transport).await.context(&doing)?;
        Ok(Self { service, pushed, agent: host.agent })
    }

    /// A caller of tools that can be used while notifications are awaited.
    pub(super) fn tools(&self) -> Tools {
        Tools { peer: self.service.peer().clone(), agent: self.agent }
    }

    /// The next notification.
    pub(super) async fn next(&mut self) -> Result<Pushed, Failure> {
        self.pushed.recv().await.ok_or_else(|| Failure::failed(format!("the murmur-mcp of {} ended", self.agent)))
    }

    /// Ends the shim as a client does.
    pub(super) async fn end(self) -> Result<(), Failure> {
        self.service.cancel().await.map(drop).context(format!("ending the murmur-mcp of {}", self.agent))
    }
}

/// The tools of a session.
#[derive(Clone)]
pub(super) struct Tools {
    peer: rmcp::Peer<RoleClient>,
    agent: &'static str,
}

impl Tools {
    /// Calls a tool and returns its structured answer.
    pub(super) async fn call(&self, tool: &'static str, arguments: Value) -> Result<Value, Failure> {
        let arguments = arguments.as_object().cloned().unwrap_or_default();
        let params = CallToolRequestParams::new(tool).with_arguments(arguments);
        let result = self.peer.call_tool(params).await.context(format!("{} calling {tool}", self.agent))?;
        let answer = result.structured_content.unwrap_or_default();
        if result.is_error == Some(true) {
            let said: Vec<_> =
                result.content.iter().filter_map(|part| part.as_text()).map(|text| text.text.clone()).collect();
            return Err(Failure::failed(format!("{} calling {tool}: {}", self.agent, said.join(" "))));
        }
        Ok(answer)
    }
}
