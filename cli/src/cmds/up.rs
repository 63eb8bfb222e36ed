//! `up`: a private network on this machine. What runs already stays; what is missing is started.

use serde_json::{Value, json};

use crate::{
    args::Global,
    connect,
    failure::{Context as _, Failure},
    network::{
        binaries,
        layout::Layout,
        plan::{Plan, Wish},
        progress::Progress,
        start::{Started, start},
        supervise::Policy,
    },
    output::{self, Outcome, Output},
    text::quoted,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name of the workspace [default: local]
    #[arg(long, value_name = "NAME")]
    workspace: Option<String>,
    /// Whose node and agents these are [default: $USER]
    #[arg(long, value_name = "NAME")]
    account: Option<String>,
    /// The node's name, for people [default: the host's]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Try a part only once a minute after so many crashes within one
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000), value_name = "N")]
    crashes_max: u32,
}

pub(crate) async fn run(global: &Global, args: Args, output: Output) -> Outcome {
    let Args { workspace, account, name, crashes_max } = args;
    let layout = connect::layout(global)?;
    // The node has another working directory.
    let socket = global.socket.as_deref().map(std::path::absolute).transpose().context("finding the node's socket")?;
    let wish = Wish { workspace, account, name, socket };
    let progress = Progress::new(output.is_json());
    let (plan, parts) = start(&layout, wish, Policy::new(crashes_max), &progress).await?;
    let add = claude_line(&layout, &plan)?;
    let value = json!({
        "data_dir": layout.root(),
        "workspace": plan.workspace,
        "account": plan.account,
        "node": plan.name,
        "socket": plan.socket,
        "server": plan.server_url(),
        "broker": plan.broker_url(),
        "parts": parts.iter().map(part_json).collect::<Vec<Value>>(),
        "mcp": add,
    });
    output.show(&value, || text(&layout, &plan, &parts, &add))
}

fn part_json(part: &Started) -> Value {
    json!({"part": part.part, "pid": part.process.pid, "started": part.is_new})
}

fn text(layout: &Layout, plan: &Plan, parts: &[Started], add: &str) -> String {
    let rows = parts.iter().map(|part| {
        let address = match part.part.as_str() {
            "broker" => plan.broker_url(),
            "server" => plan.server_url(),
            "supervisor" => String::new(),
            _ => plan.socket.display().to_string(),
        };
        let how = if part.is_new { "started" } else { "was running" };
        vec![part.part.clone(), how.into(), part.process.pid.to_string(), address]
    });
    let data = layout.root().display();
    let Plan { workspace, account, .. } = plan;
    let own = own_options(layout);
    format!(
        "{}\n\nworkspace {workspace}, account {account}, data and logs in {data}\n\nGive an agent its tools:\n  {}\n\n\
         Then try:\n  murmurctl{own} peers\n  murmurctl{own} send NAME \"hello\"\n  murmurctl{own} doctor\n  murmurctl{own} down",
        output::table(&["PART", "", "PID", "WHERE"], rows),
        output::bold(add),
    )
}

/// The line that makes an agent of a Claude Code session. The shim finds the default socket by itself.
fn claude_line(layout: &Layout, plan: &Plan) -> Result<String, Failure> {
    let shim = quoted(&binaries::find(binaries::SHIM)?.display().to_string());
    let is_default =
        Layout::default_root().is_ok_and(|root| root == layout.root()) && plan.socket == layout.socket_default();
    let socket =
        if is_default { String::new() } else { format!(" --socket {}", quoted(&plan.socket.display().to_string())) };
    Ok(format!("claude mcp add murmur -- {shim}{socket}"))
}

/// What has to be repeated to mean this network.
fn own_options(layout: &Layout) -> String {
    let is_default = Layout::default_root().is_ok_and(|root| root == layout.root());
    if is_default { String::new() } else { format!(" --data-dir {}", quoted(&layout.root().display().to_string())) }
}
