//! What the parts of one shim share.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use rmcp::{RoleServer, service::Peer};
use tokio_util::sync::CancellationToken;

use crate::{
    args::{Args, Identity},
    binding::{Binding, Commands, Target},
    node::Node,
    push::Push,
    seen::Seen,
    tools::Profile,
    unread::Unread,
};

/// The node, who speaks, and what is unread.
pub(crate) struct Shared {
    /// The way to the node.
    pub(crate) node: Node,
    /// As whom this process speaks.
    pub(crate) binding: Binding,
    /// Which tools there are.
    pub(crate) profile: Profile,
    /// Whether others may answer when the client asks for a permission.
    pub(crate) relays_permissions: bool,
    /// Tells this run of the program from others under the same name.
    pub(crate) instance: String,
    /// What answers show, to be marked as read when they are written.
    pub(crate) seen: Seen,
    unread: Mutex<Unread>,
    unread_events: Mutex<Unread>,
    started: OnceLock<()>,
    commands: Mutex<Option<Commands>>,
    target: Target,
    stop: CancellationToken,
}

impl Shared {
    /// Touches neither the node nor the disk.
    pub(crate) fn new(args: &Args) -> Self {
        let directory = std::env::current_dir().ok();
        let identity = args.identity(directory.as_deref());
        let target = Target::of(&identity, args);
        let (binding, commands) = Binding::new(identity);
        Self {
            node: Node::new(args.socket_path(), args.token_file.clone()),
            binding,
            profile: args.profile,
            relays_permissions: args.relay_permissions,
            instance: format!("{}-{:016x}", std::process::id(), RandomState::new().hash_one(())),
            seen: Seen::default(),
            unread: Mutex::default(),
            unread_events: Mutex::default(),
            started: OnceLock::new(),
            commands: Mutex::new(Some(commands)),
            target,
            stop: CancellationToken::new(),
        }
    }

    /// Begins to keep a session with the node and to tell the client; a repeat does nothing.
    pub(crate) fn start(self: &Arc<Self>, peer: &Peer<RoleServer>) {
        self.started.get_or_init(|| {
            let commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(commands) = commands {
                let push = Push::new(Arc::clone(self), peer.clone(), commands, self.target.clone());
                tokio::spawn(self.stop.clone().run_until_cancelled_owned(push.run()));
            }
        });
    }

    /// Lets go of the session.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    /// The count of unread messages.
    pub(crate) fn unread(&self) -> MutexGuard<'_, Unread> {
        self.unread.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The count of unread events.
    pub(crate) fn unread_events(&self) -> MutexGuard<'_, Unread> {
        self.unread_events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Target {
    fn of(identity: &Identity, args: &Args) -> Self {
        let (agent, suffix) = match identity {
            Identity::Token(name) | Identity::Named(name) => (name, false),
            Identity::Derived(name) => (name, true),
        };
        Self {
            agent: agent.clone(),
            takeover: args.takeover,
            suffix,
            description: args.description.clone(),
            group: args.group.clone(),
        }
    }
}
