//! The real `murmur-mcp` driven by an MCP client.

use std::{ffi::OsString, path::Path, process::Stdio};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rmcp::{
    ClientHandler, RoleClient, ServiceExt,
    model::{CallToolRequestParams, CallToolResult, ClientNotification, CustomNotification, ProgressNotificationParam},
    service::{NotificationContext, RunningService},
    transport::TokioChildProcess,
};
use serde_json::{Value, json};
use tokio::{
    process::Command,
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    time::timeout,
};

use crate::{process::binary, wait::PATIENCE};

/// A session: one shim process and its client.
pub struct Shim {
    client: RunningService<RoleClient, Listener>,
    pid: i32,
    pushes: UnboundedReceiver<Value>,
    answers: UnboundedReceiver<Value>,
    progress: UnboundedReceiver<ProgressNotificationParam>,
}

/// What a tool answered.
#[derive(Debug, Clone)]
pub struct ToolResult {
    /// `isError`.
    pub is_error: bool,
    /// `structuredContent`, or null.
    pub structured: Value,
    /// All text contents, joined.
    pub text: String,
    /// The whole result.
    pub raw: Value,
}

impl Shim {
    /// Starts `murmur-mcp` with these arguments and variables, and shakes hands.
    ///
    /// # Panics
    /// When it does not start or does not answer.
    pub async fn start(args: Vec<OsString>, env: &[(&str, &str)]) -> Self {
        Self::start_in(None, args, env).await
    }

    /// As [`Shim::start`], in a working directory.
    ///
    /// # Panics
    /// When it does not start or does not answer.
    pub async fn start_in(dir: Option<&Path>, args: Vec<OsString>, env: &[(&str, &str)]) -> Self {
        let mut command = Command::new(binary("murmur-mcp"));
        command.args(args).envs(env.iter().copied());
        if let Some(dir) = dir {
            command.current_dir(dir);
        }
        Self::run(command).await
    }

    /// As [`Shim::start`], behind a process of its own, as the shim of a client is: otherwise the program that stands behind the session
    /// would be the test, and all that it does the session's doing.
    ///
    /// # Panics
    /// When it does not start or does not answer.
    pub async fn start_behind(args: Vec<OsString>, env: &[(&str, &str)]) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", "\"$@\"; exit $?", "client"]).arg(binary("murmur-mcp")).args(args);
        command.envs(env.iter().copied());
        Self::run(command).await
    }

    async fn run(command: Command) -> Self {
        let (transport, _) =
            TokioChildProcess::builder(command).stderr(Stdio::inherit()).spawn().expect("murmur-mcp starts");
        let pid = transport.id().and_then(|pid| i32::try_from(pid).ok()).expect("murmur-mcp runs");
        let (sender, pushes) = unbounded_channel();
        let (told, progress) = unbounded_channel();
        let (answered, answers) = unbounded_channel();
        let listener = Listener { pushes: sender, answers: answered, progress: told };
        let client = listener.serve(transport).await.expect("murmur-mcp answers initialize");
        Self { client, pid, pushes, answers, progress }
    }

    /// The client, for what the shortcuts do not cover.
    #[must_use]
    pub fn client(&self) -> &RunningService<RoleClient, Listener> {
        &self.client
    }

    /// Calls a tool.
    ///
    /// # Panics
    /// When the call itself fails; a tool's own error is a result.
    pub async fn call(&self, tool: &'static str, arguments: Value) -> ToolResult {
        let arguments = arguments.as_object().expect("arguments are an object").clone();
        let result = self
            .client
            .call_tool(CallToolRequestParams::new(tool).with_arguments(arguments))
            .await
            .unwrap_or_else(|error| panic!("{tool}: {error}"));
        ToolResult::from(result)
    }

    /// Calls a tool that is expected to succeed, and returns its structured result.
    ///
    /// # Panics
    /// When it fails.
    pub async fn ok(&self, tool: &'static str, arguments: Value) -> Value {
        let result = self.call(tool, arguments).await;
        assert!(!result.is_error, "{tool} failed: {}", result.text);
        result.structured
    }

    /// The next `notifications/claude/channel`: its parameters.
    ///
    /// # Panics
    /// When none comes.
    pub async fn push(&mut self) -> Value {
        timeout(PATIENCE, self.pushes.recv()).await.expect("a channel notification").expect("the session lives")
    }

    /// A push that has arrived already, if any.
    pub fn pushed(&mut self) -> Option<Value> {
        self.pushes.try_recv().ok()
    }

    /// Asks whether a tool may be used, as Claude Code does.
    ///
    /// # Panics
    /// When the shim takes nothing any more.
    pub async fn ask_permission(&self, params: Value) {
        let method = "notifications/claude/channel/permission_request";
        let asked = CustomNotification::new(method, Some(params));
        self.client.send_notification(ClientNotification::CustomNotification(asked)).await.expect("the session lives");
    }

    /// The next `notifications/claude/channel/permission`: its parameters.
    ///
    /// # Panics
    /// When none comes.
    pub async fn permission(&mut self) -> Value {
        timeout(PATIENCE, self.answers.recv()).await.expect("an answer").expect("the session lives")
    }

    /// An answer that has arrived already, if any.
    pub fn permitted(&mut self) -> Option<Value> {
        self.answers.try_recv().ok()
    }

    /// What a call that takes long told of its progress.
    ///
    /// # Panics
    /// When nothing comes.
    pub async fn progress(&mut self) -> ProgressNotificationParam {
        timeout(PATIENCE, self.progress.recv()).await.expect("a sign of progress").expect("the session lives")
    }

    /// Kills the process without a chance to clean up; what it had written by then can still be read. Not for one that was started behind
    /// a client: that client alone would die.
    ///
    /// # Panics
    /// When it is gone already.
    pub fn kill(&self) {
        kill(Pid::from_raw(self.pid), Signal::SIGKILL).unwrap();
    }

    /// Ends the session as a client does.
    ///
    /// # Panics
    /// When the shim cannot be ended.
    pub async fn close(self) {
        self.client.cancel().await.unwrap();
    }
}

impl From<CallToolResult> for ToolResult {
    fn from(result: CallToolResult) -> Self {
        let raw = serde_json::to_value(&result).unwrap();
        let texts = raw["content"].as_array().into_iter().flatten().filter_map(|item| item["text"].as_str());
        Self {
            is_error: raw["isError"] == json!(true),
            structured: raw["structuredContent"].clone(),
            text: texts.collect::<Vec<_>>().join("\n"),
            raw,
        }
    }
}

/// Collects channel notifications and signs of progress.
#[derive(Clone)]
pub struct Listener {
    pushes: UnboundedSender<Value>,
    answers: UnboundedSender<Value>,
    progress: UnboundedSender<ProgressNotificationParam>,
}

impl ClientHandler for Listener {
    async fn on_custom_notification(&self, notification: CustomNotification, _: NotificationContext<RoleClient>) {
        let params = notification.params.unwrap_or_default();
        // A test that has ended listens no more.
        let _ = match notification.method.as_str() {
            "notifications/claude/channel" => self.pushes.send(params),
            "notifications/claude/channel/permission" => self.answers.send(params),
            _ => Ok(()),
        };
    }

    async fn on_progress(&self, progress: ProgressNotificationParam, _: NotificationContext<RoleClient>) {
        let _ = self.progress.send(progress);
    }
}
