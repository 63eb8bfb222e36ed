//! Where the node and the control plane are, and connecting to them: the command line first, then the environment, then the
//! local network of the data directory.

use std::{
    env,
    path::{Path, PathBuf},
};

use murmur_core::token::Token;
use murmur_proto::{
    client::{ControlClient, Headers, NodeClient, check_server, connect_server, connect_socket},
    file::{self, FileError},
};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};

use crate::{
    args::{Caller, Global, Speaker, check_agent},
    exit::Exit,
    failure::{Context as _, Failure},
    network::{layout::Layout, plan::Plan},
    owner::Owner,
};

/// More than all authorities of the world have in PEM.
const CA_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Resolved defaults of one run.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) layout: Layout,
    /// The local network, if this data directory has one.
    pub(crate) plan: Option<Plan>,
    socket: Option<PathBuf>,
    server: Option<String>,
    ca: Option<PathBuf>,
    token_file: Option<PathBuf>,
    /// This is a process of an agent, which does nothing in its owner's name unless it is told to.
    is_agents: bool,
}

impl Target {
    pub(crate) fn new(global: &Global) -> Result<Self, Failure> {
        let layout = layout(global)?;
        let plan = Plan::load(&layout)?;
        let Global { socket, server, ca, token_file, .. } = global.clone();
        let is_agents = env::var_os("MURMUR_AGENT_TOKEN_FILE").is_some_and(|path| !path.is_empty());
        Ok(Self { layout, plan, socket, server, ca, token_file, is_agents })
    }

    /// The node's socket.
    pub(crate) fn socket(&self) -> PathBuf {
        let planned = self.plan.as_ref().map(|plan| plan.socket.clone());
        self.socket.clone().or(planned).unwrap_or_else(|| self.layout.socket_default())
    }

    /// The control plane's address, to which a token may go.
    pub(crate) fn server_url(&self) -> Result<String, Failure> {
        let planned = self.plan.as_ref().map(Plan::server_url);
        let url = self.server.clone().or(planned).ok_or_else(|| {
            Failure::usage("no control plane is known here")
                .remedy("Start a network with `murmurctl up`, or name one with --server or MURMUR_SERVER_URL.")
        })?;
        check_server(&url)?;
        Ok(url)
    }

    /// The node, with nobody's token: for what concerns the host.
    pub(crate) async fn node(&self) -> Result<NodeClient, Failure> {
        Ok(NodeClient::new(connect_socket(&self.socket()).await?, headers(None)?))
    }

    /// The node, as whoever calls: a process of an agent is heard with the agent's token alone.
    pub(crate) async fn node_of(&self, caller: &Caller) -> Result<NodeClient, Failure> {
        check_agent(&caller.agent)?;
        let token = caller.agent_token_file.as_deref().map(read_agent_token).transpose()?;
        Ok(NodeClient::new(connect_socket(&self.socket()).await?, headers(token.as_ref())?))
    }

    /// The node, speaking as an agent.
    pub(crate) async fn node_as(&self, speaker: &Speaker) -> Result<NodeClient, Failure> {
        check_agent(&speaker.agent)?;
        self.node_for(speaker).await
    }

    /// The node, for whoever names an agent that may not be there yet: its name is made to fit.
    pub(crate) async fn node_for(&self, speaker: &Speaker) -> Result<NodeClient, Failure> {
        let token = speaker.agent_token_file.as_deref().map(read_agent_token).transpose()?;
        Ok(NodeClient::new(connect_socket(&self.socket()).await?, headers(token.as_ref())?))
    }

    /// The control plane, with the caller's token.
    pub(crate) async fn control(&self) -> Result<ControlClient, Failure> {
        let url = self.server_url()?;
        let ca = self.ca_pem()?;
        let token = read_token(&self.token_path()?)?;
        Ok(ControlClient::new(connect_server(&url, ca.as_deref()).await?, headers(Some(&token))?))
    }

    /// The authority to trust beside the system's, if one is named.
    pub(crate) fn ca_pem(&self) -> Result<Option<String>, Failure> {
        self.ca.as_deref().map(read_ca).transpose()
    }

    /// The control plane's services around agents: over the node's socket, which says who calls; directly when a control plane or a token
    /// for it was named.
    pub(crate) async fn control_as(&self, caller: &Caller) -> Result<ControlClient, Failure> {
        let Caller { agent, agent_token_file } = caller;
        check_agent(agent)?;
        if self.server.is_some() || self.token_file.is_some() {
            let is_agent = !agent.is_empty() || agent_token_file.is_some();
            return if is_agent { Err(two_callers()) } else { self.control().await };
        }
        let token = agent_token_file.as_deref().map(read_agent_token).transpose()?;
        // A token says by itself as whom it speaks, and nobody else.
        let headers = headers(token.as_ref())?.with_agent(if token.is_some() { "" } else { agent });
        let headers = headers.map_err(|_| Failure::usage("--agent must be an agent's name, of a-z, 0-9, - and /"))?;
        Ok(ControlClient::new(connect_socket(&self.socket()).await?, headers))
    }

    /// The owner's keys of a workspace.
    pub(crate) fn owner(&self, workspace: &str) -> Result<Owner, Failure> {
        if self.is_agents && self.token_file.is_none() {
            Err(agents_own())
        } else {
            Owner::require(&self.layout, workspace)
        }
    }

    /// The named token file; else, for the local network only, its administrator's. A local secret never goes to another server, and
    /// is nothing that an agent picks up by itself.
    fn token_path(&self) -> Result<PathBuf, Failure> {
        if let Some(named) = &self.token_file {
            return Ok(named.clone());
        }
        if self.is_agents {
            return Err(agents_own());
        }
        let is_local =
            self.plan.as_ref().is_some_and(|plan| self.server.as_ref().is_none_or(|url| *url == plan.server_url()));
        let local = is_local.then(|| self.layout.admin_token());
        local.ok_or_else(|| {
            Failure::new(Exit::Refused, "there is no token for this control plane")
                .remedy("Name a token file with --token-file or MURMUR_TOKEN_FILE.")
        })
    }
}

fn agents_own() -> Failure {
    Failure::new(
        Exit::Refused,
        "this is a process of an agent, as MURMUR_AGENT_TOKEN_FILE says, and the owner's token and key are not for it",
    )
    .remedy("Leave it to the owner. An owner in this shell unsets MURMUR_AGENT_TOKEN_FILE, or names a token with --token-file.")
}

fn two_callers() -> Failure {
    Failure::usage("--agent speaks through a node, and --server and --token-file go past it")
        .remedy("Leave one of them out; look for MURMUR_AGENT, MURMUR_SERVER_URL and MURMUR_TOKEN_FILE, too.")
}

/// The data directory of this run.
pub(crate) fn layout(global: &Global) -> Result<Layout, Failure> {
    let root = global.data_dir.clone().map_or_else(Layout::default_root, Ok)?;
    // Background processes have another working directory.
    let root = std::path::absolute(&root).context(format!("finding `{}`", root.display()))?;
    Ok(Layout::new(root))
}

/// Reads and checks a certificate authority: without one in the file, every control plane would look as if it were away.
fn read_ca(path: &Path) -> Result<String, Failure> {
    let refused = |what: String| {
        Failure::field("--ca", &format!("must be a PEM file with a certificate; `{}` {what}", path.display())).remedy(
            "Name the authority of the control plane with --ca or MURMUR_SERVER_CA, or neither for the system's.",
        )
    };
    let text = file::read_text(path, CA_BYTES_MAX).map_err(|error| refused(format!("cannot be read: {error}")))?;
    let mut authorities = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(text.as_bytes()) {
        let certificate = certificate.map_err(|error| refused(format!("is damaged: {error}")))?;
        authorities.add(certificate).map_err(|error| refused(format!("is damaged: {error}")))?;
    }
    if authorities.is_empty() { Err(refused("holds none".to_owned())) } else { Ok(text) }
}

/// Reads and checks a token file, so that a truncated copy is told before anybody is asked.
pub(crate) fn read_token(path: &Path) -> Result<Token, Failure> {
    token_of(path, "the token file", "--token-file or MURMUR_TOKEN_FILE")
}

/// As [`read_token`], for the token of an agent.
fn read_agent_token(path: &Path) -> Result<Token, Failure> {
    token_of(path, "the agent token file", "--agent-token-file or MURMUR_AGENT_TOKEN_FILE")
}

fn token_of(path: &Path, what: &str, options: &str) -> Result<Token, Failure> {
    let shown = path.display();
    let text = file::read_secret(path).map_err(|error| {
        let remedy = match error {
            FileError::NotPrivate { .. } => format!("Run `chmod 600 {shown}`; then nobody but you can use it."),
            _ => format!("Name another with {options}."),
        };
        Failure::new(Exit::Refused, format!("{what} `{shown}` cannot be used: {error}")).remedy(remedy)
    })?;
    Token::parse(text.trim()).map_err(|error| {
        Failure::new(Exit::Refused, format!("{what} `{shown}` holds no token: {error}"))
            .remedy(format!("Check that the whole token was copied, or name another file with {options}."))
    })
}

/// What every call carries: the token, if any, and the trace.
pub(crate) fn headers(token: Option<&Token>) -> Result<Headers, Failure> {
    let headers = Headers::new().with_trace(murmur_telemetry::grpc::inject);
    match token {
        Some(token) => headers.with_token(&token.expose()).context("reading the token"),
        None => Ok(headers),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_picks_up_nothing_of_its_owners() {
        let target = |token_file: Option<&str>, is_agents| {
            let (layout, token_file) = (Layout::new("/nonexistent"), token_file.map(PathBuf::from));
            Target { layout, plan: None, socket: None, server: None, ca: None, token_file, is_agents }
        };
        let refused = target(None, true).token_path().unwrap_err();
        assert_eq!(refused.exit, Exit::Refused);
        assert!(refused.what.contains("MURMUR_AGENT_TOKEN_FILE"), "{refused}");
        assert_eq!(target(None, true).owner("local").err().unwrap().what, refused.what);
        assert_eq!(target(Some("/t"), true).token_path().unwrap(), Path::new("/t"));
        assert!(target(None, false).owner("local").err().unwrap().what.contains("root key"));
    }
}
