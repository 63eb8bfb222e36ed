//! The demo's network: broker, control plane and two nodes, in a folder of their own.

use std::path::{Path, PathBuf};

use murmur_proto::{
    client::{Headers, NodeClient, connect_socket},
    node::v1::{ListPeersRequest, Peer},
};
use tempfile::TempDir;

use crate::{
    failure::{Context as _, Failure},
    network::{
        broker,
        layout::Layout,
        node::LocalNode,
        plan::{Plan, Wish},
        process::{self, Ended, Process},
        progress::Progress,
        ready::Wait,
        server, start,
        supervise::Starter,
    },
};
use std::time::Duration;

/// Ends sooner than `down` waits: nothing here is worth keeping.
const GRACE: Duration = Duration::from_secs(5);
/// A directory change reaches the other node within this time.
const KNOWN_WITHIN: Duration = Duration::from_secs(10);

/// One of the two hosts in miniature.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) agent: &'static str,
    pub(super) local: LocalNode,
}

/// The network.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) layout: Layout,
    plan: Plan,
    pub(super) alice: Host,
    pub(super) bob: Host,
    folder: Option<TempDir>,
}

impl Stage {
    /// A folder and free ports; nothing is started.
    pub(super) fn new(keep: bool) -> Result<Self, Failure> {
        let folder = tempfile::Builder::new().prefix("murmur-demo-").tempdir().context("making a temporary folder")?;
        let layout = Layout::new(folder.path());
        let wish = Wish { workspace: Some("demo".into()), account: Some("demo".into()), ..Wish::default() };
        let plan = Plan::new(&layout, wish)?;
        let host = |agent| {
            let part = format!("node-{agent}");
            let socket = layout.run().join(format!("{agent}.sock"));
            Host { agent, local: LocalNode { part, socket, name: format!("host-of-{agent}") } }
        };
        let folder = if keep {
            drop(folder.keep());
            None
        } else {
            Some(folder)
        };
        Ok(Self { alice: host("alice"), bob: host("bob"), layout, plan, folder })
    }

    /// Starts everything, both nodes at once.
    pub(super) async fn start(&self, progress: &Progress) -> Result<(), Failure> {
        let Self { layout, plan, alice, bob, .. } = self;
        layout.create()?;
        // A demonstration ends before anything could want a restart.
        let starter = Starter::Alone;
        start::core(layout, plan, &starter, progress).await?;
        start::workspace(layout, plan, progress).await?;
        let node = async |host: &Host| start::node(layout, plan, &host.local, &starter, progress).await;
        tokio::try_join!(node(alice), node(bob))?;
        Ok(())
    }

    /// The folder, when it is left behind.
    pub(super) fn kept(&self) -> Option<&Path> {
        self.folder.is_none().then(|| self.layout.root())
    }

    /// The stream store of the broker.
    pub(super) fn streams(&self) -> PathBuf {
        self.layout.broker().join("store")
    }

    /// Where a node keeps its messages.
    pub(super) fn node_data(&self, host: &Host) -> PathBuf {
        self.layout.node(&host.local.part)
    }

    /// Ends all processes, those that need others first, and counts them.
    pub(super) async fn end(&self) -> Result<usize, Failure> {
        let mut count = 0;
        let mut trouble = None;
        for part in [&*self.alice.local.part, &*self.bob.local.part, server::PART, broker::PART] {
            match process::end_part(&self.layout, part, GRACE).await {
                Ok(Ended::NotRunning) => {}
                Ok(_) => count += 1,
                // One that does not end must not keep the others.
                Err(failure) => trouble = Some(failure),
            }
        }
        trouble.map_or(Ok(count), Err)
    }

    /// Waits until `host` knows the other agent and its keys.
    pub(super) async fn wait_until_known(&self, host: &Host, other: &Host) -> Result<Peer, Failure> {
        let process = self.process(host)?;
        let until = "it knows the other agent";
        let wait = Wait { layout: &self.layout, part: &host.local.part, process: &process, until, bound: KNOWN_WITHIN };
        let name = format!("/{}", other.agent);
        wait.ask(|| async { find_peer(host, &name).await.ok()? }).await
    }

    /// A node's process.
    pub(super) fn process(&self, host: &Host) -> Result<Process, Failure> {
        Process::find(&self.layout, &host.local.part)?
            .ok_or_else(|| Failure::failed(format!("{} is not running", host.local.part)))
    }
}

impl Host {
    /// The node's local interface.
    pub(super) async fn client(&self) -> Result<NodeClient, Failure> {
        Ok(NodeClient::new(connect_socket(&self.local.socket).await?, Headers::new()))
    }
}

/// The peer with this name that somebody listens for and that has published keys.
async fn find_peer(host: &Host, name: &str) -> Result<Option<Peer>, Failure> {
    let request = ListPeersRequest { online_only: true, ..ListPeersRequest::default() };
    let peers = host.client().await?.host.list_peers(request).await?.into_inner().peers;
    Ok(peers.into_iter().find(|peer| peer.slug.ends_with(name) && !peer.fingerprint.is_empty()))
}
