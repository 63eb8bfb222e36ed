//! Wakes watchers. Level-triggered: a wake says only that the directory of a workspace has moved on, the watcher reads the
//! database from its own revision. A lost or doubled wake costs nothing.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use murmur_core::id::WorkspaceId;
use tokio::sync::watch;

/// One bell per workspace, and one for the administrator, who hears all.
pub struct Hub {
    all: watch::Sender<()>,
    workspaces: Mutex<HashMap<WorkspaceId, watch::Sender<()>>>,
}

impl Default for Hub {
    fn default() -> Self {
        Self { all: watch::Sender::new(()), workspaces: Mutex::default() }
    }
}

impl Hub {
    /// Rings, after the change is committed.
    pub(crate) fn ring(&self, workspace_id: WorkspaceId) {
        self.all.send_replace(());
        let mut workspaces = self.workspaces.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bell) = workspaces.get(&workspace_id) {
            if bell.receiver_count() == 0 {
                workspaces.remove(&workspace_id);
            } else {
                bell.send_replace(());
            }
        }
    }

    /// Listens to a workspace, or to all. Subscribe before the first read, or a change between the two is missed.
    pub(crate) fn listen(&self, workspace_id: Option<WorkspaceId>) -> watch::Receiver<()> {
        let Some(id) = workspace_id else { return self.all.subscribe() };
        let mut workspaces = self.workspaces.lock().unwrap_or_else(PoisonError::into_inner);
        workspaces.entry(id).or_insert_with(|| watch::Sender::new(())).subscribe()
    }
}
