//! A part that runs and is of no use. That is known of the broker: it can hang, and after a full disk it stores nothing until it is
//! started again, though there is room (nats-server 2.15.1).

use std::{path::Path, time::Duration};

use nix::sys::statvfs::statvfs;
use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep, timeout},
};

use super::super::{broker, layout::Layout, node, plan::Plan};

const LOOK_EVERY: Duration = Duration::from_secs(5);
/// So many looks in a row must show it: who is only busy is left alone.
const LOOKS: u32 = 4;
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// A broker that begins reads its store before it greets anybody. One that has not by now does something else.
const READS_FOR_MAX: Duration = Duration::from_secs(600);
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

    /// Waits until the part, which runs now, should be started anew, and says why. One that ran before this supervisor has had its time to
    /// begin.
    pub(super) async fn until_stuck(&mut self, layout: &Layout, is_adopted: bool) -> String {
        if !self.is_broker {
            return std::future::pending().await;
        }
        let (since, mut has_greeted, mut in_a_row) = (Instant::now(), is_adopted, 0);
        let why = loop {
            sleep(LOOK_EVERY).await;
            // Nobody to ask is no trouble of the broker's.
            let Ok(Some(plan)) = Plan::load(layout) else {
                in_a_row = 0;
                continue;
            };
            let greets = broker::greeting(plan.broker).await.is_some();
            if greets && !has_greeted {
                tracing::info!("the broker has greeted");
            }
            has_greeted |= greets;
            let trouble = match greets {
                true => stores_nothing(&plan.socket).await,
                false if has_greeted || since.elapsed() > READS_FOR_MAX => {
                    Some("it ran and answered nobody".to_owned())
                }
                false => None,
            };
            in_a_row = if trouble.is_some() { in_a_row + 1 } else { 0 };
            match trouble {
                Some(why) if in_a_row >= LOOKS && Instant::now() >= self.not_before && has_room(layout).await => {
                    break why;
                }
                _ => {}
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

/// Why it stores nothing, if the node on this socket has met that.
async fn stores_nothing(node: &Path) -> Option<String> {
    let status = timeout(ANSWER_WITHIN, node::status(node)).await.ok()?.ok()?;
    (!status.broker_trouble.is_empty()).then(|| format!("it ran and stored nothing ({})", status.broker_trouble))
}

/// Whether the broker's disk answers and has room for it to work.
async fn has_room(layout: &Layout) -> bool {
    let folder = layout.broker();
    // The store may be a disk of its own.
    let room = spawn_blocking(move || {
        let disk = statvfs(&folder.join("store")).or_else(|_| statvfs(&folder))?;
        Ok::<_, nix::Error>(disk.blocks_available().saturating_mul(disk.fragment_size()))
    });
    matches!(timeout(ANSWER_WITHIN, room).await, Ok(Ok(Ok(bytes))) if bytes >= ROOM_BYTES_MIN)
}
