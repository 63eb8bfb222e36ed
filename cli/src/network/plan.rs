//! What a local network is: names, addresses and sockets, chosen once and remembered in `network.json`.

use std::{
    env,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    ops::RangeInclusive,
    path::PathBuf,
};

use murmur_core::{
    limits::{NODE_NAME_BYTES_MAX, SOCKET_PATH_BYTES_MAX},
    slug::{AccountName, Segment, normalise_name},
};
use nix::unistd::{User, getuid};
use serde::{Deserialize, Serialize};

use super::layout::{self, Layout};
use crate::failure::{Context as _, Failure};

/// The form of this file; another number is refused.
const FORMAT: u32 = 1;

/// A local network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Plan {
    format: u32,
    /// One slug segment.
    pub(crate) workspace: String,
    /// Whose node and agents these are.
    pub(crate) account: String,
    /// The node's name, for people.
    pub(crate) name: String,
    /// Where the broker listens.
    pub(crate) broker: SocketAddr,
    /// Where the control plane listens.
    pub(crate) server: SocketAddr,
    /// Where the node listens; in the file, one below the data directory is relative to that, which may be moved.
    pub(crate) socket: PathBuf,
}

/// What the caller of `up` asked for; `None` for what is remembered, or else the default.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wish {
    pub(crate) workspace: Option<String>,
    pub(crate) account: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) socket: Option<PathBuf>,
}

impl Plan {
    /// Reads the plan of a data directory; `None` when there is none.
    pub(crate) fn load(layout: &Layout) -> Result<Option<Self>, Failure> {
        let path = layout.plan();
        let Some(text) = layout::read_optional(&path)? else { return Ok(None) };
        let plan = serde_json::from_str(&text).context(format!("reading `{}`, which is damaged", path.display()));
        let mut plan: Self = plan.map_err(|failure: Failure| {
            failure.remedy(
                "Correct it, or put it back from a copy: it holds the names and ports of this network. Another network is made with \
                 --data-dir.",
            )
        })?;
        if plan.format != FORMAT {
            return Err(Failure::failed(format!(
                "`{}` has format {}, and this program knows {FORMAT}",
                path.display(),
                plan.format
            ))
            .remedy("Use the murmurctl that made it, or name another folder with --data-dir."));
        }
        plan.socket = layout.root().join(&plan.socket);
        Ok(Some(plan))
    }

    /// The remembered plan, or a new one that is remembered from now on.
    pub(crate) fn load_or_create(layout: &Layout, wish: Wish) -> Result<Self, Failure> {
        if let Some(plan) = Self::load(layout)? {
            plan.agrees(&wish)?;
            return Ok(plan);
        }
        let plan = Self::new(layout, wish)?;
        let socket = plan.socket.strip_prefix(layout.root()).unwrap_or(&plan.socket).to_owned();
        let text = serde_json::to_string_pretty(&Self { socket, ..plan.clone() }).context("encoding the plan")?;
        layout::write_private(&layout.plan(), text.as_bytes())?;
        Ok(plan)
    }

    /// A new plan with free ports. Nothing is written.
    pub(crate) fn new(layout: &Layout, wish: Wish) -> Result<Self, Failure> {
        let workspace: Segment = named(wish.workspace.as_deref().unwrap_or("local"), "--workspace")?;
        let account: AccountName = match wish.account {
            Some(account) => named(&account, "--account")?,
            None => account_default()?,
        };
        let name = wish.name.unwrap_or_else(host_name);
        check_name(&name)?;
        let socket = wish.socket.unwrap_or_else(|| layout.socket_default());
        check_socket(&socket)?;
        let [broker, server] = free_ports()?;
        Ok(Self {
            format: FORMAT,
            workspace: workspace.to_string(),
            account: account.to_string(),
            name,
            broker,
            server,
            socket,
        })
    }

    /// The control plane's address.
    pub(crate) fn server_url(&self) -> String {
        format!("http://{}", self.server)
    }

    /// The broker's address.
    pub(crate) fn broker_url(&self) -> String {
        format!("nats://{}", self.broker)
    }

    /// What was asked for must be what there is: a network is not renamed by starting it.
    fn agrees(&self, wish: &Wish) -> Result<(), Failure> {
        let differs = |wished: &Option<String>, is: &str| {
            wished.as_deref().is_some_and(|wished| !wished.eq_ignore_ascii_case(is))
        };
        let flag = if differs(&wish.workspace, &self.workspace) {
            "--workspace"
        } else if differs(&wish.account, &self.account) {
            "--account"
        } else if differs(&wish.name, &self.name) {
            "--name"
        } else if wish.socket.as_ref().is_some_and(|socket| *socket != self.socket) {
            "--socket"
        } else {
            return Ok(());
        };
        let Self { workspace, account, name, socket, .. } = self;
        Err(Failure::usage(format!(
            "{flag} differs from this network, which is workspace `{workspace}`, account `{account}`, node `{name}` on `{}`",
            socket.display()
        ))
        .remedy(format!("Leave {flag} out, or make another network with --data-dir.")))
    }
}

fn named<N: std::str::FromStr<Err: std::fmt::Display>>(text: &str, flag: &str) -> Result<N, Failure> {
    text.parse().map_err(|error| Failure::usage(format!("{flag}: {error}")))
}

/// The user's name, made to fit the grammar.
fn account_default() -> Result<AccountName, Failure> {
    let of_uid = || User::from_uid(getuid()).ok().flatten().map(|user| user.name);
    let user = env::var("USER").ok().or_else(of_uid).unwrap_or_else(|| "me".into());
    let name = normalise_name(&user).map_or_else(|_| "me".to_owned(), |name| name.to_string());
    named(&name, "--account")
}

/// The host's name without its domain.
fn host_name() -> String {
    let output = std::process::Command::new("uname").arg("-n").output();
    let name = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    let short = name.split('.').next().unwrap_or_default();
    if short.is_empty() { "host".into() } else { short.into() }
}

/// The control plane's rule at enrolment, which comes when the name is remembered already.
fn check_name(name: &str) -> Result<(), Failure> {
    if (1..=NODE_NAME_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control) {
        return Ok(());
    }
    Err(Failure::field("--name", &format!("must have 1 to {NODE_NAME_BYTES_MAX} bytes, without control characters")))
}

fn check_socket(path: &std::path::Path) -> Result<(), Failure> {
    let length = path.as_os_str().len();
    if length <= SOCKET_PATH_BYTES_MAX {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "the socket path `{}` is {length} bytes; at most {SOCKET_PATH_BYTES_MAX} are possible",
        path.display()
    ))
    .remedy("Name a shorter one with --socket, or a shorter --data-dir."))
}

/// Where ports are looked for: they are kept, so that none may be of those that the kernel hands to whoever asks for any, on Linux from
/// 32,768 on. Neither are they of those below 10,000, which other programs have for their own.
const PORTS: RangeInclusive<u16> = 10_000..=19_999;

/// Free ports of the loopback interface, all different because all are held until the last is known.
fn free_ports<const N: usize>() -> Result<[SocketAddr; N], Failure> {
    let doing = "looking for a free port";
    let mut all: Vec<u16> = PORTS.collect();
    // From a random place on: two networks that are planned at once do not meet.
    let random = getrandom::u32().map_err(std::io::Error::other).context(doing)?;
    let first = usize::try_from(random).unwrap_or_default() % all.len();
    all.rotate_left(first);
    let addresses = all.into_iter().map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let free = addresses.filter_map(|address| Some((address, TcpListener::bind(address).ok()?)));
    let (ports, _held): (Vec<_>, Vec<_>) = free.take(N).unzip();
    ports.try_into().map_err(|_| Failure::failed(format!("there is no free port of {PORTS:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;

    fn layout() -> (tempfile::TempDir, Layout) {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        layout.create().unwrap();
        (dir, layout)
    }

    #[test]
    fn a_plan_is_chosen_once() {
        let (_dir, layout) = layout();
        let first = Plan::load_or_create(&layout, Wish::default()).unwrap();
        assert_ne!(first.broker, first.server);
        assert_eq!(Plan::load_or_create(&layout, Wish::default()).unwrap(), first);
        let other = Wish { workspace: Some("other".into()), ..Wish::default() };
        let refused = Plan::load_or_create(&layout, other).unwrap_err();
        assert_eq!(refused.exit, Exit::Usage);
        assert!(refused.what.starts_with("--workspace differs"), "{refused}");
    }

    #[test]
    fn a_socket_in_the_data_directory_moves_with_it() {
        let ((_dir, layout), (_other, moved)) = (layout(), layout());
        let within = Wish { socket: Some(layout.root().join("run/node.sock")), ..Wish::default() };
        let plan = Plan::load_or_create(&layout, within.clone()).unwrap();
        assert_eq!(Plan::load_or_create(&layout, within).unwrap(), plan);
        std::fs::rename(layout.plan(), moved.plan()).unwrap();
        assert_eq!(Plan::load(&moved).unwrap().unwrap().socket, moved.root().join("run/node.sock"));
    }

    #[test]
    fn a_damaged_plan_is_named_with_a_way_out() {
        let (_dir, layout) = layout();
        std::fs::write(layout.plan(), "{ damaged").unwrap();
        let refused = Plan::load(&layout).unwrap_err();
        assert!(refused.what.contains("network.json") && refused.remedy.is_some(), "{refused}");
    }

    #[test]
    fn names_are_checked() {
        let (_dir, layout) = layout();
        for wish in [
            Wish { workspace: Some("no/slash".into()), ..Wish::default() },
            Wish { account: Some(String::new()), ..Wish::default() },
            Wish { socket: Some(PathBuf::from(format!("/{}", "x".repeat(120)))), ..Wish::default() },
        ] {
            assert_eq!(Plan::new(&layout, wish).unwrap_err().exit, Exit::Usage);
        }
    }

    #[test]
    fn a_name_that_no_node_can_have_is_not_remembered() {
        let (_dir, layout) = layout();
        for name in [String::new(), "x".repeat(129), "a\u{1b}[2J".into()] {
            let refused = Plan::load_or_create(&layout, Wish { name: Some(name), ..Wish::default() }).unwrap_err();
            assert_eq!((refused.exit, &*refused.fields[0].0), (Exit::Usage, "--name"));
            assert!(!layout.plan().exists());
        }
        let longest = Wish { name: Some("ü".repeat(64)), ..Wish::default() };
        Plan::load_or_create(&layout, longest).unwrap();
    }
}
