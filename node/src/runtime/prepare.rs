//! Everything that an agent has before its first process starts: folders, working copies, its place in the directory, its token, its
//! MCP servers.

use std::{collections::BTreeMap, path::PathBuf};

use murmur_core::{id::AgentId, slug::Slug};
use murmur_proto::v1;
use serde_json::json;

use super::{
    Workshop,
    config::passes,
    git::{self, Checkout},
    keeper::plan,
    place::Place,
};

/// What every agent has of the node's own environment.
const BASE_ENV: [&str; 12] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LC_*",
    "TZ",
    "TMPDIR",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "SSH_AUTH_SOCK",
];

/// What a process is started in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Prepared {
    pub(super) dir: PathBuf,
    pub(super) env: BTreeMap<String, String>,
}

/// Who is prepared for.
#[derive(Debug, Clone)]
pub(super) struct Whom {
    pub(super) agent: AgentId,
    pub(super) slug: Slug,
    pub(super) start: v1::StartAgent,
    pub(super) pass_env: Vec<String>,
    pub(super) backend_env: BTreeMap<String, String>,
}

/// Prepares an agent; what is there already stays. An error is for people.
pub(super) async fn prepare(shop: &Workshop, whom: &Whom) -> Result<Prepared, String> {
    let place = Place::new(&shop.dir, whom.agent);
    let disk = |error: std::io::Error| format!("its folder cannot be used: {error}");
    place.make().map_err(disk)?;
    if let Ok(other) = whom.start.fork_from_agent_id.parse::<AgentId>()
        && !place.history().exists()
    {
        place.copy_from(Place::new(&shop.dir, other)).await.map_err(disk)?;
    }
    let spec = whom.start.spec.clone().unwrap_or_default();
    let dir = check_out(shop, &place, &whom.slug, &spec).await?;
    let description = super::answer::cut(spec.description.lines().next().unwrap_or_default(), 200);
    let known = shop.agents.adopt_spawned(whom.agent, &whom.slug, description).await;
    known.map_err(|error| format!("it cannot be made known: {error}"))?;
    let token = shop.agents.renew_token(whom.agent).await.map_err(|error| format!("it gets no token: {error}"))?;
    plan::write_bytes(&place.token(), token.expose().as_bytes()).map_err(disk)?;
    let servers = mcp_servers(shop, &place, &spec)?;
    plan::write(&place.mcp_config(), &json!({ "mcpServers": servers })).map_err(disk)?;
    Ok(Prepared { dir, env: environment(shop, &place, whom, &spec) })
}

/// What an agent that is prepared already is started in, without a look at anything outside.
pub(super) fn prepared(shop: &Workshop, whom: &Whom) -> Prepared {
    let place = Place::new(&shop.dir, whom.agent);
    let spec = whom.start.spec.clone().unwrap_or_default();
    Prepared { dir: start_dir(&place, &spec), env: environment(shop, &place, whom, &spec) }
}

async fn check_out(shop: &Workshop, place: &Place, slug: &Slug, spec: &v1::AgentSpec) -> Result<PathBuf, String> {
    for (repo, into) in spec.repos.iter().zip(folders(place, spec)) {
        let own = [&repo.branch, &spec.branch].into_iter().find(|branch| !branch.is_empty());
        let wanted = Checkout {
            url: repo.clone_url.clone(),
            base_branch: repo.base_branch.clone(),
            // One name beside another: a branch cannot lie below a branch, as an agent lies below its parent.
            branch: own.map_or_else(|| format!("murmur/{}", slug.path().as_str().replace('/', "_")), Clone::clone),
            may_rename: own.is_none(),
        };
        shop.mirrors.check_out(&wanted, &into).await.map_err(|error| error.to_string())?;
    }
    Ok(start_dir(place, spec))
}

/// The folder of each repository; two of one name are told apart.
pub(super) fn folders(place: &Place, spec: &v1::AgentSpec) -> Vec<PathBuf> {
    let mut names = Vec::new();
    for repo in &spec.repos {
        let name = git::folder(&repo.clone_url);
        let taken = names.iter().filter(|known: &&(String, String)| known.0 == name).count();
        let shown = if taken == 0 { name.clone() } else { format!("{name}-{}", taken + 1) };
        names.push((name, shown));
    }
    names.into_iter().map(|(_, shown)| place.work().join(shown)).collect()
}

/// An agent of one repository starts in it.
fn start_dir(place: &Place, spec: &v1::AgentSpec) -> PathBuf {
    match folders(place, spec).as_slice() {
        [only] => only.clone(),
        _ => place.work(),
    }
}

fn mcp_servers(shop: &Workshop, place: &Place, spec: &v1::AgentSpec) -> Result<serde_json::Value, String> {
    let mut servers = serde_json::Map::new();
    for name in &spec.mcp_servers {
        let server = shop.config.mcp_servers.get(name);
        let server = server.ok_or_else(|| format!("this node has no MCP server `{name}`"))?;
        servers.insert(name.clone(), server.clone().into());
    }
    // Last, so that no other takes its name.
    let murmur = json!({
        "command": shop.mcp_program,
        "args": [],
        "env": { "MURMUR_NODE_SOCKET": shop.socket, "MURMUR_AGENT_TOKEN_FILE": place.token() },
    });
    servers.insert("murmur".to_owned(), murmur);
    Ok(servers.into())
}

/// A clean base, what the configuration passes, what the spawn says, and over all of it what Murmur says.
fn environment(shop: &Workshop, place: &Place, whom: &Whom, spec: &v1::AgentSpec) -> BTreeMap<String, String> {
    let patterns =
        || BASE_ENV.iter().copied().chain(shop.config.pass_env.iter().chain(&whom.pass_env).map(String::as_str));
    let passed = |name: &str| !name.starts_with("MURMUR_") && patterns().any(|pattern| passes(pattern, name));
    let mut env: BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    env.retain(|name, _| passed(name));
    env.extend(whom.backend_env.clone());
    env.extend(spec.env.iter().filter(|(name, _)| !name.starts_with("MURMUR_")).map(|(n, v)| (n.clone(), v.clone())));
    // So that an agent finds `murmurctl` and `murmur-mcp`, behind everything of its own.
    if let Some(bin) = shop.bin.as_ref().and_then(|dir| dir.to_str()) {
        let path = env.entry("PATH".to_owned()).or_insert_with(|| "/usr/local/bin:/usr/bin:/bin".to_owned());
        if !path.split(':').any(|dir| dir == bin) {
            path.push(':');
            path.push_str(bin);
        }
    }
    let shown = |path: PathBuf| path.to_string_lossy().into_owned();
    env.extend(
        [
            ("MURMUR_NODE_SOCKET", shown(shop.socket.clone())),
            ("MURMUR_AGENT_TOKEN_FILE", shown(place.token())),
            ("MURMUR_SLUG", whom.slug.to_string()),
            ("MURMUR_AGENT_ID", whom.agent.to_string()),
            ("MURMUR_PARENT", whom.start.parent.clone()),
            ("MURMUR_WORK_DIR", shown(place.work())),
            ("MURMUR_PROMPT_FILE", shown(place.prompt())),
            ("MURMUR_HISTORY_FILE", shown(place.history())),
            ("MURMUR_MCP_CONFIG", shown(place.mcp_config())),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    env
}
