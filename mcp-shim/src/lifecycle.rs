//! From start to exit: serve until a signal or the end of input, then let go of everything at once.
//!
//! A client ends its servers with SIGINT, SIGTERM 100 ms later and SIGKILL 400 ms after that, often without closing their input
//! (AGENTS-AND-TOOLS §5). So a signal waits for nothing; what a killed call would have told stays with the node. The end of input alone is how
//! a script says that it has asked everything: calls that run then are answered first.

use std::{sync::Arc, time::Duration};

use crate::{
    args::Args,
    seen::Marking,
    server::Shim,
    shared::Shared,
    stdio::{self, Course},
};
use anyhow::{Context as _, anyhow};
use rmcp::{ServiceExt, service::ServerInitializeError};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, timeout_at},
};

/// All of leaving, once nobody waits for an answer any more.
const EXIT_MAX: Duration = Duration::from_millis(60);
/// What calls get that still run when input ends, so that a piped script sees its answers. The library gives them as much.
const ANSWERS_MAX: Duration = Duration::from_secs(5);

/// Runs the shim until it is told to end.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let mut signals = Signals::new().context("cannot listen for signals")?;
    let tracing = murmur_telemetry::init("murmur-mcp", "warn")?;
    let course = Course::default();
    let shared = Arc::new(Shared::new(&args));
    let result = tokio::select! {
        result = serve(Arc::clone(&shared), &course) => result,
        () = signals.any() => Ok(()),
    };
    shared.stop();
    let deadline = Instant::now() + EXIT_MAX;
    let _ = timeout_at(deadline, shared.seen.settled()).await;
    // Spans that no collector took by then are lost, which costs a line in a trace.
    let _ = timeout_at(deadline, tracing.shutdown()).await;
    result
}

async fn serve(shared: Arc<Shared>, course: &Course) -> anyhow::Result<()> {
    let lines = Marking::new(stdio::streams(course.clone()), Arc::clone(&shared));
    let service = match Shim::new(shared).serve(lines).await {
        Ok(service) => service,
        // A client that only looked whether the program starts, or that reads no answers.
        Err(ServerInitializeError::ConnectionClosed(_)) => return Ok(()),
        Err(_) if course.ended.is_cancelled() || course.unread.is_cancelled() => return Ok(()),
        Err(error) => return Err(broken_off(&error)),
    };
    // Nothing was read meanwhile: the session's task begins when this one waits.
    course.began.cancel();
    let mut finished = std::pin::pin!(service.waiting());
    let answered = async {
        course.ended.cancelled().await;
        tokio::time::sleep(ANSWERS_MAX).await;
    };
    tokio::select! {
        _ = &mut finished => {}
        () = answered => {}
        () = course.unread.cancelled() => {}
    }
    Ok(())
}

/// Why there was no handshake, in words: what the library says of some causes is a dump of the message.
fn broken_off(error: &ServerInitializeError) -> anyhow::Error {
    match error {
        ServerInitializeError::InitializeFailed(error) => anyhow!("the MCP handshake failed: {}", error.message),
        ServerInitializeError::TransportError { error, .. } => anyhow!("the MCP handshake failed: {}", error.error),
        _ => anyhow!("the MCP handshake failed"),
    }
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn any(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
