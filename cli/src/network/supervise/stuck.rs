//! A part that runs and is of no use. That is known of the broker: it can hang, and after a full disk it stores nothing until it is
//! started again, though there is room (nats-server 2.15.1).

use std::time::Duration;

use nix::sys::statvfs::statvfs;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::super::{broker, layout::Layout, node, plan::Plan};

const LOOK_EVERY: Duration = Duration::from_secs(5);
/// So many looks in a row must show it: who is only busy is left alone.
const LOOKS: u32 = 4;
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// With less room than this the broker would fill the disk again at once.
const ROOM_BYTES_MIN: u64 = 32 * 1024 * 1024;
/// A start that did not help is not repeated for this long, and then for twice as long each time.
const REST_MIN: Duration = Duration::from_secs(60);
const REST_MAX: Duration = Duration::from_secs(3600);

/// Looks after one part.
pub(super) struct Looks {
    is_broker: bool,
    rest: Duration,
    not_before: Instant,
}

impl Looks {
    pub(super) fn of(part: &str) -> Self {
        Self { is_broker: part == broker::PART, rest: Duration::ZERO, not_before: Instant::now() }
    }

    /// Waits until the part should be started anew, and says why.
    pub(super) async fn until_stuck(&mut self, layout: &Layout) -> String {
        if !self.is_broker {
            return std::future::pending().await;
        }
        sleep_until(self.not_before).await;
        let (mut has_greeted, mut in_a_row) = (false, 0);
        let why = loop {
            sleep(LOOK_EVERY).await;
            match trouble(layout, &mut has_greeted).await.filter(|_| has_room(layout)) {
                Some(_) if in_a_row + 1 < LOOKS => in_a_row += 1,
                Some(why) => break why,
                None => in_a_row = 0,
            }
        };
        let now = Instant::now();
        if now > self.not_before + REST_MAX {
            self.rest = Duration::ZERO;
        }
        self.rest = (self.rest * 2).clamp(REST_MIN, REST_MAX);
        self.not_before = now + self.rest;
        why
    }
}

/// What is wrong with a broker that runs. One that has greeted nobody yet may still read its store.
async fn trouble(layout: &Layout, has_greeted: &mut bool) -> Option<String> {
    let plan = Plan::load(layout).ok().flatten()?;
    if broker::greeting(plan.broker).await.is_none() {
        return has_greeted.then(|| "it ran and answered nobody".to_owned());
    }
    if !std::mem::replace(has_greeted, true) {
        tracing::info!("the broker has greeted");
    }
    let status = timeout(ANSWER_WITHIN, node::status(&plan.socket)).await.ok()?.ok()?;
    (!status.broker_trouble.is_empty()).then(|| format!("it ran and stored nothing ({})", status.broker_trouble))
}

/// Whether the broker's disk has room for it to work.
fn has_room(layout: &Layout) -> bool {
    // The store may be a disk of its own.
    let disk = statvfs(&layout.broker().join("store")).or_else(|_| statvfs(&layout.broker()));
    disk.is_ok_and(|disk| disk.blocks_available() * disk.fragment_size() >= ROOM_BYTES_MIN)
}
