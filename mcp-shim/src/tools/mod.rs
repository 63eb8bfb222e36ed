//! The tools, one file each. A tool is a few lines over one gRPC call; everything that all of them share is here.

mod agent_url;
mod choice;
mod clear_queue;
mod control;
mod deregister;
mod happened;
mod inbox;
mod interrupt;
mod kill;
mod ls;
mod notify;
mod peers;
mod permission_answer;
mod port_url;
mod profile;
mod progress;
mod queue_add;
mod received;
mod register;
mod request;
mod send;
mod shown;
mod spawn;
mod status;
mod tasks;
mod upload;
mod version;
mod wait;

use std::{
    future::Future,
    sync::{Arc, LazyLock},
    time::Instant,
};

use murmur_proto::client::NodeClient;
use rmcp::{
    RoleServer,
    model::{CallToolResult, JsonObject, Tool, ToolAnnotations},
    service::RequestContext,
};
use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};
use tracing::{Instrument, info_span};

pub(crate) use profile::Profile;

use crate::{
    arguments,
    errors::Failure,
    reply::{self, Aside},
    schema,
    shared::Shared,
};

/// One tool.
trait Murmur {
    const NAME: &'static str;
    const TITLE: &'static str;
    /// For a model, at most 4,096 characters: what it does, when to use it, what to expect.
    const DESCRIPTION: &'static str;
    type Args: DeserializeOwned + JsonSchema + Send;
    type Answer: Serialize + JsonSchema + Send;
    /// Arguments that the calls of this tool name otherwise.
    const FIELDS: Names = &[];

    /// Hints to the client; a tool that only adds is not destructive.
    fn annotations() -> ToolAnnotations;

    fn run(args: Self::Args, call: &Call) -> impl Future<Output = Result<Self::Answer, Failure>> + Send;

    /// The node's count of unread messages, where the call brought it.
    fn unread(_answer: &Self::Answer) -> Unread {
        Unread::Unknown
    }

    /// The call went well and its answer is bad news.
    fn is_bad_news(_answer: &Self::Answer) -> bool {
        false
    }
}

/// Fields of calls with the arguments that they come from.
type Names = &'static [(&'static str, &'static str)];

/// What every tool calls otherwise than its calls do.
const FIELDS: Names = &[("page_token", "cursor"), ("page_size", "limit")];

/// What an answer knows of unread messages.
#[derive(Clone, Copy)]
enum Unread {
    Unknown,
    /// The node's count, not shown in the answer.
    Counted(u64),
    /// The answer itself shows it.
    Shown {
        messages: u64,
        events: u64,
    },
}

/// One call of a tool.
struct Call {
    shared: Arc<Shared>,
    context: RequestContext<RoleServer>,
}

impl Call {
    fn node(&self) -> Result<NodeClient, Failure> {
        self.shared.node.client()
    }

    /// The `agent` field of a call to the node.
    async fn speaker(&self) -> Result<String, Failure> {
        self.shared.binding.speaker().await
    }
}

macro_rules! tools {
    ($($tool:ty),+ $(,)?) => {
        static TOOLS: LazyLock<Vec<Tool>> = LazyLock::new(|| vec![$(definition::<$tool>()),+]);

        /// Calls a tool; `None` when there is none of this name in the session's profile.
        pub(crate) async fn call(
            name: &str,
            arguments: Option<JsonObject>,
            shared: Arc<Shared>,
            context: RequestContext<RoleServer>,
        ) -> Option<CallToolResult> {
            if !shared.profile.offers(name, shared.relays_permissions) {
                return None;
            }
            let call = Call { shared, context };
            call.shared.seen.begin(&call.context.id);
            match name {
                // Boxed, or every call would be as large as the largest.
                $(<$tool>::NAME => Some(Box::pin(perform::<$tool>(arguments, call)).await),)+
                _ => None,
            }
        }
    };
}

tools![
    request::Request,
    send::Send,
    inbox::Inbox,
    peers::Peers,
    register::Register,
    deregister::Deregister,
    spawn::Spawn,
    wait::Wait,
    status::Status,
    ls::Ls,
    queue_add::QueueAdd,
    kill::Kill,
    interrupt::Interrupt,
    clear_queue::ClearQueue,
    permission_answer::PermissionAnswer,
    notify::Notify,
    tasks::TaskList,
    tasks::TaskUpdate,
    tasks::TaskCreate,
    tasks::TaskGet,
    upload::Upload,
    port_url::PortUrl,
    agent_url::AgentUrl,
    version::Version,
];

/// The tools of a profile, in a session that relays permissions or does not.
pub(crate) fn list(profile: Profile, relays_permissions: bool) -> Vec<Tool> {
    TOOLS.iter().filter(|tool| profile.offers(&tool.name, relays_permissions)).cloned().collect()
}

fn definition<T: Murmur>() -> Tool {
    Tool::new(T::NAME, T::DESCRIPTION, schema::of_arguments::<T::Args>())
        .with_title(T::TITLE)
        .with_raw_output_schema(schema::of_answer::<T::Answer>())
        .with_annotations(T::annotations())
}

fn input_schema(name: &str) -> Arc<JsonObject> {
    TOOLS.iter().find(|tool| tool.name == name).map(|tool| Arc::clone(&tool.input_schema)).unwrap_or_default()
}

async fn perform<T: Murmur>(arguments: Option<JsonObject>, call: Call) -> CallToolResult {
    let started = Instant::now();
    // A root of its own: the library's span around it lasts as long as the whole session.
    let span = info_span!(parent: None, "tool", otel.name = format!("tool.{}", T::NAME), otel.kind = "server");
    if let Some(parent) = call.context.meta.get_traceparent() {
        murmur_telemetry::set_parent(&span, parent);
    }
    let outcome = async {
        let args = arguments::read(&input_schema(T::NAME), arguments)?;
        T::run(args, &call).await.map_err(|failure| failure.named(T::FIELDS).named(FIELDS))
    };
    match outcome.instrument(span).await {
        Ok(answer) => {
            let aside = aside(&call.shared, T::unread(&answer));
            reply::answer(&answer, T::is_bad_news(&answer), aside, started.elapsed())
        }
        Err(failure) => reply::failure(&failure, aside(&call.shared, Unread::Unknown), started.elapsed()),
    }
}

fn aside(shared: &Shared, known: Unread) -> Aside {
    let (mut unread, mut events) = (shared.unread(), shared.unread_events());
    match known {
        Unread::Unknown => {}
        Unread::Counted(count) => unread.set(count),
        Unread::Shown { messages, events: count } => {
            unread.show(messages);
            events.show(count);
        }
    }
    let (count, grown_events) = (unread.mention(), events.mention());
    let waiting = (count.is_some() || grown_events.is_some()).then(|| waiting(unread.count(), events.count()));
    let parts: Vec<_> = waiting.into_iter().chain(shared.binding.take_warning()).collect();
    Aside { notice: (!parts.is_empty()).then(|| parts.join(" ")), unread: count }
}

/// What waits, and what to do about it.
fn waiting(messages: u64, events: u64) -> String {
    let some = |count: u64, what: &str| match count {
        0 => None,
        1 => Some(format!("1 unread {what}")),
        _ => Some(format!("{count} unread {what}s")),
    };
    let parts: Vec<_> = some(messages, "message").into_iter().chain(some(events, "event")).collect();
    format!("{}: call inbox.", parts.join(" and "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_counted_by_what_it_is() {
        assert_eq!(waiting(1, 0), "1 unread message: call inbox.");
        assert_eq!(waiting(0, 3), "3 unread events: call inbox.");
        assert_eq!(waiting(2, 1), "2 unread messages and 1 unread event: call inbox.");
    }

    /// What a client is told of the tools. To accept a change, run with `UPDATE_GOLDEN=1` and read the diff.
    #[test]
    fn the_list_of_tools_is_as_agreed() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/tools.json");
        let listed = format!("{:#}\n", serde_json::to_value(list(Profile::All, true)).unwrap());
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(path, &listed).unwrap();
        }
        let golden = std::fs::read_to_string(path).unwrap();
        assert!(listed == golden, "tests/golden/tools.json differs:\n{}", difference(&golden, &listed));
    }

    /// Lines that only one of the two has.
    fn difference(old: &str, new: &str) -> String {
        let only = |mark, one: &str, other: &str| -> String {
            let other: Vec<_> = other.lines().collect();
            one.lines().filter(|line| !other.contains(line)).map(|line| format!("{mark} {line}\n")).collect()
        };
        only('-', old, new) + &only('+', new, old)
    }

    #[test]
    fn every_tool_stays_within_what_a_client_reads() {
        for tool in list(Profile::All, true) {
            assert!(tool.description.unwrap().len() <= 4096, "{}", tool.name);
            assert_eq!(tool.input_schema["additionalProperties"], false, "{}", tool.name);
            for (name, property) in tool.input_schema["properties"].as_object().unwrap() {
                assert!(property["description"].is_string(), "{} {name} has no description", tool.name);
                assert!(property["type"].is_string(), "{} {name} is not flat", tool.name);
            }
        }
    }

    /// What a client sends to its model with every conversation, at about four characters a token.
    #[test]
    fn the_default_profile_stays_within_its_budget() {
        let said = |tool: &Tool| {
            let text = tool.description.as_deref().unwrap_or_default();
            tool.name.len() + text.len() + serde_json::to_string(&tool.input_schema).unwrap().len()
        };
        let spent: usize = list(Profile::Default, false).iter().map(said).sum();
        assert!(spent <= 19_000, "{spent} characters: shorten a description, or move a tool to another profile");
    }

    #[test]
    fn every_argument_that_is_one_of_a_few_words_lists_them() {
        let words = |tool: &str, argument: &str| {
            let tool = list(Profile::All, true).into_iter().find(|listed| listed.name == tool).unwrap();
            let schema = tool.input_schema["properties"][argument].clone();
            let items = schema.get("items").unwrap_or(&schema).clone();
            serde_json::from_value::<Vec<String>>(items["enum"].clone()).unwrap_or_default()
        };
        for (tool, argument, count) in [
            ("spawn", "session_mode", 3),
            ("spawn", "completion_check", 2),
            ("spawn", "on_idle", 4),
            ("spawn", "dequeue_strategy", 4),
            ("spawn", "out", 4),
            ("spawn", "trust_level", 4),
            ("wait", "phase", 10),
            ("ls", "phase", 10),
            ("status", "timeline", 8),
            ("task_create", "activate_when", 1),
            ("task_update", "status", 4),
        ] {
            assert_eq!(words(tool, argument).len(), count, "{tool} {argument}");
        }
    }

    #[test]
    fn what_may_be_left_out_and_is_a_word_tells_its_default() {
        let spawn = list(Profile::All, true).into_iter().find(|tool| tool.name == "spawn").unwrap();
        for (name, property) in spawn.input_schema["properties"].as_object().unwrap() {
            if let Some(words) = property["enum"].as_array() {
                let told = property["description"].as_str().unwrap().contains("Default: ");
                assert!(told || words.contains(&property["default"]), "{name}: {property}");
            }
        }
    }
}
