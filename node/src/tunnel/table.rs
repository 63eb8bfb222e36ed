//! Which tunnel leads to which port, in a private file that is replaced whole.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use murmur_core::id::AgentId;
use serde::{Deserialize, Serialize};

use crate::identity::{read_private, write_private};

/// Where a tunnel leads, and for whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Open {
    pub(super) agent_id: AgentId,
    pub(super) port: u16,
}

/// The tunnels of this node.
#[derive(Debug)]
pub(super) struct Table {
    file: PathBuf,
    open: BTreeMap<String, Open>,
}

impl Table {
    /// Reads it, or begins one. One that cannot be read is begun anew: its tunnels are dead, and asked for again.
    pub(super) fn load(data_dir: &Path) -> Self {
        let file = data_dir.join("tunnels.json");
        let read = read_private(&file).and_then(|bytes| match bytes {
            Some(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::other),
            None => Ok(BTreeMap::new()),
        });
        let open = read.unwrap_or_else(|error| {
            tracing::warn!(%error, "the tunnels of before cannot be read");
            BTreeMap::new()
        });
        Self { file, open }
    }

    pub(super) fn get(&self, tunnel_id: &str) -> Option<Open> {
        self.open.get(tunnel_id).copied()
    }

    /// Writes one down, and drops those of agents that are gone.
    pub(super) fn insert(&mut self, tunnel_id: &str, open: Open, is_live: impl Fn(AgentId) -> bool) -> io::Result<()> {
        let mut next = self.open.clone();
        next.retain(|_, open| is_live(open.agent_id));
        next.insert(tunnel_id.to_owned(), open);
        if next != self.open {
            write_private(&self.file, &serde_json::to_vec(&next)?)?;
            self.open = next;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_open_is_known_after_a_restart_and_the_dead_are_dropped() {
        let home = tempfile::tempdir().unwrap();
        let [one, two] = [1, 2].map(|byte| AgentId::from_bytes([byte; 16]));
        let mut table = Table::load(home.path());
        table.insert("a", Open { agent_id: one, port: 1 }, |_| true).unwrap();
        table.insert("b", Open { agent_id: two, port: 2 }, |agent| agent == two).unwrap();
        let table = Table::load(home.path());
        assert_eq!((table.get("a"), table.get("b")), (None, Some(Open { agent_id: two, port: 2 })));
        std::fs::write(home.path().join("tunnels.json"), "{").unwrap();
        assert_eq!(Table::load(home.path()).get("b"), None);
    }
}
