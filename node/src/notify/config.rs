//! `[notify]` of the node's configuration. The channels themselves are set by `murmurctl notify-setup`.

use std::{num::NonZeroUsize, path::PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::outbound::{Outbound, Place, Rules};

/// What can be set about notifications.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NotifyConfig {
    /// What agents write to each other is told, too, and leaves this host in clear.
    pub include_body: bool,
    /// Servers of this host and its networks may be called, without TLS: for a receiver of one's own.
    pub allow_local: bool,
    /// Ports that may be called.
    pub ports: Vec<u16>,
    /// PEM file of an authority to trust beside the system's.
    pub ca: Option<PathBuf>,
    /// Notices that wait for one channel; more are dropped and counted.
    pub queue: NonZeroUsize,
    /// Shortest and longest wait between tries.
    pub retry_ms: [u64; 2],
    /// Tries of one notice.
    pub tries: u32,
    /// Where Telegram's Bot API is: the public one, or a server of one's own.
    pub telegram_api: String,
    /// Where WhatsApp's Cloud API is, version included.
    pub whatsapp_api: String,
}

impl Default for NotifyConfig {
    fn default() -> Self {
        Self {
            include_body: false,
            allow_local: false,
            ports: Rules::default().ports,
            ca: None,
            queue: NonZeroUsize::new(256).unwrap_or(NonZeroUsize::MIN),
            retry_ms: [1_000, 60_000],
            tries: 6,
            telegram_api: "https://api.telegram.org".to_owned(),
            whatsapp_api: "https://graph.facebook.com/v23.0".to_owned(),
        }
    }
}

impl NotifyConfig {
    /// The key that breaks a rule, and the rule.
    ///
    /// # Errors
    /// Both.
    pub fn check(&self) -> Result<(), (&'static str, &'static str)> {
        if self.retry_ms[0] == 0 || self.retry_ms[0] > self.retry_ms[1] {
            return Err(("notify.retry_ms", "a shortest wait of at least 1 and a longest that is no shorter"));
        }
        if self.tries == 0 {
            return Err(("notify.tries", "at least 1"));
        }
        if self.queue.get() > 100_000 {
            return Err(("notify.queue", "at most 100000"));
        }
        let fits = |url: &str| url.parse::<Place>().is_ok_and(|place| place.check(&self.rules()).is_ok());
        if !fits(&self.telegram_api) {
            return Err(("notify.telegram_api", "an address that may be called"));
        }
        if !fits(&self.whatsapp_api) {
            return Err(("notify.whatsapp_api", "an address that may be called"));
        }
        Ok(())
    }

    pub(super) fn rules(&self) -> Rules {
        Rules { ports: self.ports.clone(), allow_local: self.allow_local }
    }

    pub(super) fn outbound(&self) -> anyhow::Result<Outbound> {
        let pem = match &self.ca {
            Some(path) => {
                Some(std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?)
            }
            None => None,
        };
        Outbound::new(self.rules(), pem.as_deref()).context("notifications cannot be sent")
    }
}
