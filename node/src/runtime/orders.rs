//! Follows the orders of the control plane, from one connection to the next.

use std::{sync::Arc, time::Duration};

use futures::StreamExt as _;
use murmur_core::retry::Backoff;
use murmur_proto::v1::{self, watch_orders_response::Item};
use tracing::{info, warn};

use super::{Runtime, relay, reports::TellError};
use crate::delay::Delay;

/// Between two tries while the session is there.
const BACKOFF: Backoff = Backoff { base_ms: 200, cap_ms: 10_000 };
/// The load is told with the connection, and while it is there so often if it has changed.
const LOAD_INTERVAL: Duration = Duration::from_secs(60);
/// A change of the load of so much is worth telling.
const LOAD_CHANGE: u32 = 10;

impl Runtime {
    /// Follows orders until the node goes down.
    pub(super) async fn follow_orders(self: &Arc<Self>) {
        let mut delay = Delay::new(BACKOFF);
        let mut state = self.shop.control.state();
        let followed = async {
            loop {
                if state.wait_for(|state| state.connected).await.is_err() {
                    return;
                }
                let opened = state.borrow().opened;
                let gone = state.wait_for(|state| !state.connected || state.opened != opened);
                let ended = tokio::select! {
                    // Another session is another database's, perhaps: what runs here is told anew.
                    _ = gone => continue,
                    ended = self.follow(&mut delay) => ended,
                };
                if let Err(error) = ended {
                    info!(%error, "orders are not heard");
                }
                delay.wait().await;
            }
        };
        tokio::select! { () = followed => {} () = self.shop.stop.cancelled() => {} }
    }

    async fn follow(self: &Arc<Self>, delay: &mut Delay) -> Result<(), TellError> {
        let mut told = self.tell_node().await?;
        let mut orders = self.shop.control.watch_orders().await?;
        delay.reset();
        loop {
            tokio::select! {
                item = orders.next() => match item {
                    None => return Ok(()),
                    Some(item) => self.on_item(item?.item),
                },
                () = self.shop.tell_again.notified() => told = self.tell_node().await?,
                () = tokio::time::sleep(LOAD_INTERVAL) => {
                    if load_percent().abs_diff(told) >= LOAD_CHANGE {
                        told = self.tell_node().await?;
                    }
                }
            }
        }
    }

    fn on_item(self: &Arc<Self>, item: Option<Item>) {
        match item {
            Some(Item::Order(order)) => self.dispatch(order),
            Some(Item::OutputWanted(wanted)) => self.relay(wanted),
            Some(Item::TunnelWanted(wanted)) => {
                let (tunnels, stop) = (self.shop.tunnels.clone(), self.shop.stop.clone());
                self.tasks.spawn(async move {
                    tokio::select! { () = tunnels.answer(wanted) => {} () = stop.cancelled() => {} }
                });
            }
            None => warn!("the control plane says what this version does not know"),
        }
    }

    /// Says what this node can run, and what runs. Returns the load that was told.
    async fn tell_node(self: &Arc<Self>) -> Result<u32, TellError> {
        let shop = &self.shop;
        // What is missing here has ended for the control plane. So what ends meanwhile is still named, since its end may not have been
        // told; and no start is told before the agent is named, since with that its order would be done with.
        let mut running = self.running();
        let _nothing_else = self.tell_all().await?;
        running.extend(self.running());
        // A preset is offered where its program is; what is configured is offered in any case, and fails with words.
        let is_offered = |name: &str, program: &str| shop.config.backends.contains_key(name) || is_installed(program);
        let offered = shop.backends.iter().filter(|(name, backend)| is_offered(name, &backend.program));
        let backends = offered.map(|(name, backend)| v1::NodeBackend {
            name: name.clone(),
            can_interrupt: backend.can_interrupt(),
            can_resume: backend.can_resume(),
            stays: backend.stays(),
        });
        let load_percent = load_percent();
        let report = v1::ReportNodeRequest {
            backends: backends.collect(),
            default_backend: shop.config.default_backend(),
            labels: shop.config.labels.clone(),
            capacity: shop.config.capacity,
            load_percent,
            running,
            personas: shop.config.personas.keys().cloned().collect(),
            mcp_servers: shop.config.mcp_servers.keys().cloned().collect(),
            kept: shop.cleared().await?,
        };
        let answer = shop.control.report_node(report).await?;
        for stop in answer.stop {
            self.end_stale(&stop.agent_id, stop.incarnation);
        }
        for gone in answer.gone.iter().filter_map(|id| id.parse().ok()) {
            shop.forget(gone).await?;
        }
        Ok(load_percent)
    }

    /// Sends an agent's output to whoever watches.
    fn relay(self: &Arc<Self>, wanted: v1::OutputWanted) {
        let Ok(agent) = wanted.agent_id.parse() else { return };
        let rings = self.lines().get(&agent).map(|line| line.output.subscribe());
        let (shop, stop) = (self.shop.clone(), self.shop.stop.clone());
        self.tasks.spawn(async move {
            let relayed = relay::relay(&shop, agent, wanted, rings);
            tokio::select! {
                () = stop.cancelled() => {}
                relayed = relayed => if let Err(error) = relayed {
                    info!(agent.id = %agent, %error, "output is no longer sent");
                },
            }
        });
    }
}

/// Whether `PATH` finds a program.
fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// Load average of the last minute in hundredths, by processor; 0 where the kernel does not tell.
fn load_percent() -> u32 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: f64 = text.split_ascii_whitespace().next().and_then(|load| load.parse().ok()).unwrap_or(0.0);
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let processors = u32::try_from(processors).unwrap_or(1);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a load is a small positive number")]
    let percent = (load.clamp(0.0, 1e6) * 100.0 / f64::from(processors)) as u32;
    percent
}
