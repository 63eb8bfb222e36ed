//! A node of a local network: enrolling it, approving it, starting it.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{self, Path, PathBuf},
    time::Duration,
};

use murmur_proto::{
    client::{ControlClient, Headers, NodeClient, connect_socket},
    node::v1::{GetStatusRequest, GetStatusResponse},
};

use super::{
    binaries,
    enrol::{self, InviteSpec},
    layout::{self, Layout},
    plan::Plan,
    process::{Process, Spec},
    ready::{self, Wait},
    supervise::{self, Starter},
};
use crate::{
    failure::{Context as _, Failure},
    owner::Owner,
};

/// Names the node's settings; `murmur-node` knows it, too.
const CONFIG: &str = "MURMUR_NODE_CONFIG";
/// The part's name in a network with one node.
pub(crate) const PART: &str = "node";
const READY_WITHIN: Duration = Duration::from_secs(30);
/// An invite that never leaves this machine is used at once.
const INVITE_TTL: Duration = Duration::from_secs(600);

/// A node to run here.
#[derive(Debug)]
pub(crate) struct LocalNode {
    /// Its part, which names its folder, log and pid file.
    pub(crate) part: String,
    pub(crate) socket: PathBuf,
    /// For people.
    pub(crate) name: String,
}

impl LocalNode {
    /// The one node of `up`.
    pub(crate) fn planned(plan: &Plan) -> Self {
        Self { part: PART.into(), socket: plan.socket.clone(), name: plan.name.clone() }
    }

    fn data_dir(&self, layout: &Layout) -> PathBuf {
        layout.node(&self.part)
    }

    /// Whether it has redeemed an invite: the node writes this file when it has.
    fn is_enrolled(&self, layout: &Layout) -> bool {
        self.data_dir(layout).join("identity/node.json").exists()
    }

    /// Whether a node that runs lost its socket, as when somebody cleared the folder that it lies in: nobody can reach it any more. One that
    /// is starting has none yet, but its folder.
    pub(crate) fn is_out_of_reach(&self) -> bool {
        let has_folder = self.socket.parent().is_none_or(Path::exists);
        !self.socket.exists() && (!has_folder || is_bound(&self.socket))
    }

    /// Waits for a node that was started a moment ago; one that answers is there at once.
    pub(crate) async fn wait_until_answering(&self, layout: &Layout, process: &Process) -> Result<(), Failure> {
        let wait = Wait { layout, part: &self.part, process, until: "it answers on its socket", bound: READY_WITHIN };
        wait.ask(|| async { status(&self.socket).await.ok().map(|_| ()) }).await
    }

    /// Starts the node, and on its first start also invites and approves it; one that runs `before` is ended. Returns when it can send and
    /// receive.
    pub(crate) async fn start(
        &self,
        layout: &Layout,
        plan: &Plan,
        control: &mut ControlClient,
        owner: &Owner,
        (starter, before): (&Starter, Option<&Process>),
    ) -> Result<Process, Failure> {
        if let Some(parent) = self.socket.parent() {
            layout::private_dir(parent)?;
        }
        let join = if self.is_enrolled(layout) { None } else { Some(self.invite(layout, plan, control, owner).await?) };
        let spec = self.spec(layout, join.as_deref())?;
        let process = match before {
            Some(before) => starter.restart(layout, spec, before).await?,
            None => starter.spawn(layout, spec).await?,
        };
        self.approve(layout, &process, control, owner).await?;
        self.wait_until_connected(layout, &process).await?;
        if let Some(join) = join {
            if let Starter::Supervisor(_) = starter {
                supervise::want(layout, &self.spec(layout, None)?)?;
            }
            fs::remove_file(&join).context("removing the used invite")?;
        }
        Ok(process)
    }

    /// Writes an invite for this node into a file, since other users can read arguments.
    async fn invite(
        &self,
        layout: &Layout,
        plan: &Plan,
        control: &mut ControlClient,
        owner: &Owner,
    ) -> Result<PathBuf, Failure> {
        let url = plan.server_url();
        let spec =
            InviteSpec { workspace: &plan.workspace, account: &plan.account, url: &url, uses: 1, ttl: INVITE_TTL };
        let made = enrol::invite(control, owner, spec).await?;
        let file = layout.run().join(format!("{}.invite", self.part));
        layout::write_private(&file, made.blob.as_bytes())?;
        Ok(file)
    }

    fn spec(&self, layout: &Layout, join: Option<&Path>) -> Result<Spec, Failure> {
        let mut args = vec!["run".into()];
        if let Some(config) = config(layout, env::var_os(CONFIG))? {
            args.extend(["--config".into(), config.into()]);
        }
        args.extend([
            "--data-dir".into(),
            self.data_dir(layout).into(),
            "--socket".into(),
            self.socket.clone().into(),
            "--name".into(),
            self.name.clone().into(),
        ]);
        if let Some(join) = join {
            args.extend(["--join".into(), join.into()]);
        }
        Ok(Spec { part: self.part.clone(), program: binaries::find(binaries::NODE)?, args })
    }

    /// Waits until the node, asked on its own socket, has a key that the control plane shows too, and signs for it.
    async fn approve(
        &self,
        layout: &Layout,
        process: &Process,
        control: &mut ControlClient,
        owner: &Owner,
    ) -> Result<(), Failure> {
        let wait = Wait { layout, part: &self.part, process, until: "it has enrolled", bound: READY_WITHIN };
        let node = wait
            .ask(|| async {
                let own = status(&self.socket).await.ok().filter(|status| !status.node_id.is_empty())?.fingerprint;
                enrol::by_fingerprint(&mut control.clone(), &own).await.ok()?
            })
            .await?;
        enrol::approve(control, owner, node).await?;
        Ok(())
    }

    async fn wait_until_connected(&self, layout: &Layout, process: &Process) -> Result<(), Failure> {
        let until = "it is connected to control plane and broker";
        let wait = Wait { layout, part: &self.part, process, until, bound: READY_WITHIN };
        let connected = |status: &GetStatusResponse| status.control_plane_connected && status.broker_connected;
        wait.ask(|| async {
            let serves = ready::socket_serves(&self.socket).await;
            status(&self.socket).await.ok().filter(|status| serves && connected(status)).map(|_| ())
        })
        .await
    }
}

/// The node's own settings: the file that the caller names for this time, else `node.toml` in the data directory. The node has another
/// working directory.
fn config(layout: &Layout, named: Option<OsString>) -> Result<Option<PathBuf>, Failure> {
    let Some(named) = named.filter(|named| !named.is_empty()) else {
        return Ok(Some(layout.node_config()).filter(|file| file.exists()));
    };
    let path = path::absolute(&named).context(format!("finding `{}`", Path::new(&named).display()))?;
    if path.is_file() {
        return Ok(Some(path));
    }
    Err(Failure::usage(format!("{CONFIG}: there is no file `{}`", path.display()))
        .remedy(format!("Correct it, or unset it: then `{}` is used, if it is there.", layout.node_config().display())))
}

/// Whether somebody listens under this path, as the kernel remembers it whatever became of the file. `false` where the kernel does not tell.
fn is_bound(socket: &Path) -> bool {
    let bound = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let path = format!(" {}", socket.display());
    bound.lines().any(|line| line.ends_with(&path))
}

/// What the node says of itself.
pub(crate) async fn status(socket: &Path) -> Result<GetStatusResponse, Failure> {
    let mut node = NodeClient::new(connect_socket(socket).await?, Headers::new());
    Ok(node.host.get_status(GetStatusRequest {}).await?.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;

    #[test]
    fn the_nodes_settings_are_found_whatever_its_working_directory() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        assert_eq!(config(&layout, None).unwrap(), None);
        fs::write(layout.node_config(), "").unwrap();
        assert_eq!(config(&layout, Some(OsString::new())).unwrap(), Some(layout.node_config()));
        // Tests run in the crate's folder.
        let named = config(&layout, Some("Cargo.toml".into())).unwrap();
        assert_eq!(named, Some(env::current_dir().unwrap().join("Cargo.toml")));
        let missing = config(&layout, Some("no/such.toml".into())).unwrap_err();
        assert_eq!(missing.exit, Exit::Usage);
        assert!(missing.what.contains(CONFIG), "{missing}");
    }

    #[test]
    fn a_node_is_out_of_reach_when_its_socket_is_gone_and_not_before_it_has_one() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("run");
        fs::create_dir(&folder).unwrap();
        let node = LocalNode { part: PART.into(), socket: folder.join("node.sock"), name: "host".into() };
        assert!(!node.is_out_of_reach(), "it has made none yet");
        let _listener = std::os::unix::net::UnixListener::bind(&node.socket).unwrap();
        assert!(!node.is_out_of_reach());
        fs::remove_dir_all(&folder).unwrap();
        assert!(node.is_out_of_reach());
        fs::create_dir(&folder).unwrap();
        assert_eq!(node.is_out_of_reach(), cfg!(target_os = "linux"), "the folder was made again without it");
    }
}
