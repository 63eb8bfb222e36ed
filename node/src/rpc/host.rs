//! `murmur.node.v1.HostService`.

use std::sync::Arc;

use murmur_core::{
    limits::NODE_CERT_DUE_MS,
    slug::{Caller as Resolver, resolve},
};
use murmur_crypto::{WIRE_VERSION, hash::key_fingerprint, safety::safety_number};
use murmur_proto::{
    PROTOCOL,
    node::v1::{self, finding::Severity, host_service_server::HostService},
    time::timestamp,
};
use tonic::{Request, Response, Status};

use super::{
    caller::known,
    parse,
    server::{Call, Shared},
    status::Refusal,
};
use crate::{
    agents::AgentError,
    app::{Core, Pending, Stage},
    bus::Taking,
    clock::Clock,
    directory::{Peer, Snapshot},
    disk,
    identity::IdentityDir,
    notify,
    post::PostStats,
    store::agents::AgentRow,
};

/// Clocks further apart than this are worth telling; certificates stop holding at five minutes.
const SKEW_TOLD_MS: u64 = 60_000;
/// Space left on the data directory's disk that is worth telling.
const DISK_LOW_BYTES: u64 = 256 * 1024 * 1024;

/// Who this node knows, and how it is doing.
pub(super) struct Host {
    pub(super) shared: Arc<Shared>,
}

#[tonic::async_trait]
impl HostService for Host {
    async fn list_peers(
        &self,
        request: Request<v1::ListPeersRequest>,
    ) -> Result<Response<v1::ListPeersResponse>, Status> {
        let (call, v1::ListPeersRequest { agent, group, online_only, page_size, page_token }) = Call::of(request);
        let core = self.shared.core()?;
        let own = speaking(&core, &call, &agent).await?;
        let after = parse::page_token(&page_token)?;
        let snapshot = core.directory.snapshot();
        let mut peers: Vec<&Arc<Peer>> = snapshot
            .peers()
            .filter(|peer| own.as_ref().is_none_or(|own| own.agent_id != peer.agent_id))
            .filter(|peer| group.is_empty() || peer.group == group)
            .filter(|peer| !online_only || snapshot.online(peer))
            .filter(|peer| peer.slug.as_str() > after.as_str())
            .collect();
        peers.sort_by_cached_key(|peer| peer.slug.to_string());
        let size = parse::page_size(page_size);
        let has_more = peers.len() > size;
        peers.truncate(size);
        let last = peers.last().filter(|_| has_more);
        let next_page_token = last.map(|peer| parse::next_page_token(&peer.slug)).unwrap_or_default();
        let unread = match &own {
            Some(own) => core.post.unread(own.agent_id).await.map_err(Refusal::from)?,
            None => 0,
        };
        Ok(Response::new(v1::ListPeersResponse {
            peers: peers.into_iter().map(|peer| shown(&core, &snapshot, peer, self.shared.clock.now_ms())).collect(),
            next_page_token,
            confirmed_time: snapshot.confirmed_ms.map(timestamp),
            live: snapshot.live,
            unread,
        }))
    }

    async fn get_safety_number(
        &self,
        request: Request<v1::GetSafetyNumberRequest>,
    ) -> Result<Response<v1::GetSafetyNumberResponse>, Status> {
        let (call, v1::GetSafetyNumberRequest { agent, peer }) = Call::of(request);
        let core = self.shared.core()?;
        let caller = match speaking(&core, &call, &agent).await? {
            Some(row) => Resolver::Agent { id: row.agent_id, slug: row.slug.clone() },
            None => {
                Resolver::Human { workspace: core.identity.workspace.clone(), account: core.identity.account.clone() }
            }
        };
        let found = resolve(&peer, Some(&caller), &*core.directory.snapshot()).map_err(Refusal::Resolve)?;
        let slug = found.slug.to_string();
        let verified = core.directory.verified(found.agent_id, self.shared.clock.now_ms());
        let verified = verified.map_err(|trouble| Refusal::Peer { slug: slug.clone(), trouble })?;
        Ok(Response::new(v1::GetSafetyNumberResponse {
            safety_number: safety_number(&core.identity.key.public(), &verified.node_key),
            peer: slug,
            covers_roots: false,
        }))
    }

    async fn get_version(&self, _: Request<v1::GetVersionRequest>) -> Result<Response<v1::GetVersionResponse>, Status> {
        let control = self.shared.core().ok().map(|core| core.control.state().borrow().clone());
        let server_version = control.filter(|state| state.connected).map(|state| state.server_version);
        Ok(Response::new(v1::GetVersionResponse {
            node_version: env!("CARGO_PKG_VERSION").to_owned(),
            server_version: server_version.unwrap_or_default(),
            protocol: PROTOCOL,
            wire_version: WIRE_VERSION,
        }))
    }

    async fn take_over(&self, _: Request<v1::TakeOverRequest>) -> Result<Response<v1::TakeOverResponse>, Status> {
        let core = self.shared.core()?;
        let took_over = core.control.take_over().await.map_err(|error| Refusal::from(AgentError::from(error)))?;
        Ok(Response::new(v1::TakeOverResponse { took_over }))
    }

    async fn get_status(&self, _: Request<v1::GetStatusRequest>) -> Result<Response<v1::GetStatusResponse>, Status> {
        let stage = self.shared.stage.borrow().clone();
        let mut status = match stage {
            Stage::Starting(pending) | Stage::Pending(pending) => pending_status(&pending),
            Stage::Ready(core) => core_status(&core, self.shared.clock).await.map_err(Refusal::from)?,
        };
        status.start_time = Some(timestamp(self.shared.started_ms));
        status.data_dir = self.shared.data_dir.display().to_string();
        env!("CARGO_PKG_VERSION").clone_into(&mut status.version);
        "file".clone_into(&mut status.key_source);
        status.findings.extend(disk_finding(&self.shared.data_dir));
        status.findings.push(finding(
            Severity::Info,
            "private keys are in files that only this user may read (key_source=file)",
            "Nothing needs to be done; encrypt the disk if others have access to it.",
        ));
        Ok(Response::new(status))
    }
}

/// The agent that a call names, if it names one.
async fn speaking(core: &Core, call: &Call, agent: &str) -> Result<Option<Arc<AgentRow>>, Refusal> {
    if agent.is_empty() {
        return Ok(None);
    }
    known(&call.caller, agent, &core.agents, &core.identity).await.map(Some)
}

fn shown(core: &Core, snapshot: &Snapshot, peer: &Peer, now_ms: u64) -> v1::Peer {
    let (tier, fingerprint, trouble) = match core.directory.verified_peer(peer, now_ms) {
        Ok(verified) => (verified.tier.to_string(), verified.fingerprint.clone(), String::new()),
        Err(trouble) => (murmur_core::tier::Tier::Untrusted.to_string(), String::new(), trouble.to_string()),
    };
    v1::Peer {
        slug: peer.slug.to_string(),
        agent_id: peer.agent_id.to_string(),
        description: peer.description.clone(),
        group: peer.group.clone(),
        host: peer.host.clone(),
        online: snapshot.online(peer),
        tier,
        fingerprint,
        node_id: peer.node_id.to_string(),
        local: peer.node_id == core.identity.node_id,
        trouble,
        create_time: Some(timestamp(peer.created_ms)),
    }
}

fn pending_status(pending: &Pending) -> v1::GetStatusResponse {
    v1::GetStatusResponse {
        node_id: pending.node_id.map(|id| id.to_string()).unwrap_or_default(),
        node_name: pending.name.clone(),
        workspace: pending.workspace.clone().unwrap_or_default(),
        account: pending.account.clone().unwrap_or_default(),
        fingerprint: pending.fingerprint.clone(),
        control_plane_url: pending.control_plane_url.clone(),
        findings: vec![finding(Severity::Warning, &pending.to_string(), &pending.remedy())],
        ..v1::GetStatusResponse::default()
    }
}

async fn core_status(core: &Core, clock: Clock) -> Result<v1::GetStatusResponse, crate::store::StoreError> {
    let now_ms = clock.now_ms();
    let stats = core.post.stats().await?;
    let mut control = core.control.state().borrow().clone();
    if control.opened == 0 {
        // It has not spoken to this process: what an earlier one was told.
        control.clock_skew_ms = clock.ahead_ms();
    }
    let broker = core.dir.blocking(IdentityDir::broker).await.ok().flatten();
    let broker_connected = *core.bus.connected().borrow();
    let receiving = *core.bus.receiving().borrow();
    let open = [("queued", stats.queued), ("sealed", stats.sealed), ("stored", stats.stored)];
    let oldest = (stats.oldest_pending_ms > 0).then(|| now_ms.saturating_sub(stats.oldest_pending_ms));
    Ok(v1::GetStatusResponse {
        node_id: core.identity.node_id.to_string(),
        node_name: core.identity.name.clone(),
        workspace: core.identity.workspace.to_string(),
        account: core.identity.account.to_string(),
        fingerprint: key_fingerprint(core.identity.key.public().as_bytes()),
        control_plane_connected: control.connected,
        control_plane_url: core.identity.control_plane_url.clone(),
        broker_connected: broker_connected && receiving,
        broker_trouble: core.bus.stuck().unwrap_or_default(),
        broker_urls: broker.map(|broker| broker.urls).unwrap_or_default(),
        sessions: u32::try_from(core.sessions.count()).unwrap_or(u32::MAX),
        agents: u32::try_from(core.agents.all().len()).unwrap_or(u32::MAX),
        outbox: open.into_iter().map(|(name, count)| (name.to_owned(), count)).collect(),
        oldest_pending_time: oldest.map(timestamp),
        broker_credential_expire_time: core.bus.credentials_expire_ms().map(timestamp),
        clock_skew_ms: control.clock_skew_ms,
        findings: [
            findings(&control, &core.bus.taking(), receiving),
            certificate_findings(core, now_ms),
            letter_findings(&stats),
            rate_findings(&stats),
            notify_findings(core),
        ]
        .concat(),
        dead_letters: stats.dead_letters,
        quarantined: stats.in_quarantine,
        ..v1::GetStatusResponse::default()
    })
}

/// A certificate that ends is renewed by its owner alone.
fn certificate_findings(core: &Core, now_ms: u64) -> Vec<v1::Finding> {
    const DAY_MS: u64 = 24 * 3600 * 1000;
    let ends_ms = core.identity.certificate().claims().not_after_ms;
    if ends_ms.saturating_sub(now_ms) > NODE_CERT_DUE_MS {
        return Vec::new();
    }
    let (severity, what) = match ends_ms.checked_sub(now_ms) {
        Some(left_ms) => (Severity::Warning, format!("this node's certificate ends in {} days", left_ms / DAY_MS)),
        None => {
            let what = "this node's certificate has ended: nobody believes its agents' keys";
            (Severity::Error, what.to_owned())
        }
    };
    let fingerprint = key_fingerprint(core.identity.key.public().as_bytes());
    let remedy =
        format!("On the owner's host, run `murmurctl node approve {fingerprint}`: the node takes it up while it runs.");
    vec![finding(severity, &what, &remedy)]
}

fn findings(control: &super::control::ControlState, broker: &Taking, receiving: bool) -> Vec<v1::Finding> {
    let mut findings = Vec::new();
    if let Some(by) = &control.fenced {
        let by = if by.is_empty() { String::new() } else { format!(" ({by})") };
        let what = format!("another process{by} runs as this node: nothing is sent or received here");
        let remedy = "Stop the other process, or run `murmurctl node takeover` here to end its session. A copied data directory is no \
                      second node: enrol that one in a directory of its own.";
        findings.push(finding(Severity::Error, &what, remedy));
    } else if control.refused {
        let why = control.trouble.as_deref().unwrap_or_default();
        let what = format!("the control plane refuses this node: {why}");
        let remedy = "Ask the workspace's owner. A node that was revoked, or off for longer than its token lasts, has to be enrolled anew: with an \
                      empty data directory and a new invite. What came before can be read here.";
        findings.push(finding(Severity::Error, &what, remedy));
    } else if !control.connected {
        let why = control.trouble.as_deref().unwrap_or("it has not answered yet");
        let what = format!("the control plane is away: {why}");
        let remedy = "Messages between known agents still flow; start the control plane, or check its address.";
        findings.push(finding(Severity::Warning, &what, remedy));
    }
    match broker {
        Taking::Yes if receiving => {}
        Taking::Yes => {
            let what = "the broker is there, and this node's consumer on it is not: nothing is received";
            let remedy = "The control plane makes it again; if that takes more than some seconds, look into its log.";
            findings.push(finding(Severity::Error, what, remedy));
        }
        Taking::Nothing(why) => {
            let what = format!("the broker is there and stores nothing: {why}");
            findings.push(finding(Severity::Error, &what, stores_nothing(why)));
        }
        // Told above.
        Taking::Left if control.fenced.is_some() => {}
        Taking::Left | Taking::Away => {
            let remedy = "Messages wait on disk; start the broker, or check that this host can reach it.";
            findings.push(finding(Severity::Warning, "the broker is away", remedy));
        }
    }
    if control.restored_ms.is_some() {
        let what =
            "the store was restored from an older copy: what was received since that copy is gone; keys were renewed";
        let remedy =
            "Ask the senders for what is missing: they see it as delivered. What was sent before goes on by itself.";
        findings.push(finding(Severity::Warning, what, remedy));
    }
    let skew_ms = control.clock_skew_ms.unsigned_abs();
    if skew_ms > SKEW_TOLD_MS {
        let side = super::control::session::side(control.clock_skew_ms);
        let is_believed = skew_ms <= crate::clock::CORRECTION_MS_MAX;
        let counted = if is_believed { "by which this node counts" } else { "too far to be believed" };
        let what = format!("this host's clock is {} s {side} the control plane's, {counted}", skew_ms / 1000);
        let (severity, remedy) = if is_believed {
            (
                Severity::Warning,
                "Set the clock, for example by NTP: without the control plane this node would be wrong.",
            )
        } else {
            (
                Severity::Error,
                "Set the clocks, for example by NTP: others refuse this node's messages, and it refuses theirs.",
            )
        };
        findings.push(finding(severity, &what, remedy));
    }
    findings
}

/// What was given up or could not be believed, for as long as nobody has seen to it.
fn letter_findings(stats: &PostStats) -> Vec<v1::Finding> {
    let mut findings = Vec::new();
    if stats.dead_letters > 0 {
        let what = format!("{} could not be delivered", counted(stats.dead_letters, "message"));
        let remedy = "See why with `murmurctl dlq ls`; then `murmurctl dlq redrive` or `murmurctl dlq drop`.";
        findings.push(finding(Severity::Warning, &what, remedy));
    }
    if stats.in_quarantine > 0 {
        let arrivals = counted(stats.in_quarantine, "arrival");
        let verb = if stats.in_quarantine == 1 { "is" } else { "are" };
        let what =
            format!("{arrivals} {verb} in quarantine: not to be authenticated or read, or what stopped the node");
        let remedy = "See where they came from with `murmurctl quarantine ls`; then `murmurctl quarantine drop`.";
        findings.push(finding(Severity::Warning, &what, remedy));
    }
    findings
}

/// Pairs told of by name; of more, how many.
const PAIRS_TOLD: usize = 5;

/// Who was too fast: a flooder, or two who answer each other for ever.
fn rate_findings(stats: &PostStats) -> Vec<v1::Finding> {
    let remedy = "See whether the two answer each other for ever. If so much is meant, raise pair_rate_per_minute on both nodes.";
    let told = |(from, to): &(String, String)| {
        let what =
            format!("{from} is faster than one agent may write to another, to {to}; it is told, or made to wait");
        finding(Severity::Warning, &what, remedy)
    };
    let mut findings: Vec<_> = stats.over_rate.iter().take(PAIRS_TOLD).map(told).collect();
    if let Some(more) = stats.over_rate.len().checked_sub(PAIRS_TOLD).filter(|more| *more > 0) {
        findings.push(finding(Severity::Warning, &format!("{more} more pairs of agents are too fast"), remedy));
    }
    findings
}

/// Channels by which people are not told what they want to hear.
fn notify_findings(core: &Core) -> Vec<v1::Finding> {
    let told = |(channel, status): (notify::Channel, notify::Status)| {
        let why = status.trouble.map(|why| format!(" fail: {why}"));
        let lost = status.dropped + status.failed;
        let lost = (lost > 0)
            .then(|| format!("; {} not told", if lost == 1 { "1 was".into() } else { format!("{lost} were") }));
        let why = why.or_else(|| lost.as_ref().map(|_| " were too many".to_owned()))?;
        let what = format!("notifications by {channel}{why}{}", lost.unwrap_or_default());
        let remedy =
            format!("Try it with `murmurctl notify-setup test {}`, and set it anew if it does not work.", channel.name);
        Some(finding(Severity::Warning, &what, &remedy))
    };
    core.notify.list().into_iter().filter_map(told).collect()
}

fn counted(count: u64, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

fn disk_finding(data_dir: &std::path::Path) -> Option<v1::Finding> {
    let left = disk::left(data_dir).ok().filter(|left| *left < DISK_LOW_BYTES)?;
    let what = format!("the disk of the data directory has {} MiB left", left / (1024 * 1024));
    let severity = if left < disk::NEEDED_BYTES { Severity::Error } else { Severity::Warning };
    Some(finding(severity, &what, "Free some space: without it no message can be accepted."))
}

fn finding(severity: Severity, what: &str, remedy: &str) -> v1::Finding {
    v1::Finding { severity: severity.into(), what: what.to_owned(), remedy: remedy.to_owned() }
}

/// What to do about a broker that refuses to store, by what it says.
fn stores_nothing(why: &str) -> &'static str {
    if why.contains("maximum bytes") {
        "Messages wait on disk. The store that all nodes share is full (`stream_max_bytes` of the control plane): with mail for hosts that are \
         off, which goes when they are back, or when it expires. Mail to nodes that do not exist the control plane deletes; its log names \
         who wrote it."
    } else {
        "Messages wait on disk. See that the broker's disk has room, and restart the broker: after a full disk it does not store again by \
         itself. Where `murmurctl up` started it, its supervisor does that within a minute."
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::control::ControlState;

    fn told(control: &ControlState, broker: &Taking) -> Vec<String> {
        findings(control, broker, true).into_iter().map(|finding| finding.what).collect()
    }

    #[test]
    fn letters_are_told_with_the_command_to_run() {
        assert!(letter_findings(&PostStats::default()).is_empty());
        let told = letter_findings(&PostStats { dead_letters: 1, in_quarantine: 2, ..PostStats::default() });
        assert_eq!(told[0].what, "1 message could not be delivered");
        assert!(told[0].remedy.contains("`murmurctl dlq ls`"));
        assert!(told[1].what.starts_with("2 arrivals are in quarantine"), "{}", told[1].what);
        assert!(told[1].remedy.contains("`murmurctl quarantine ls`"));
    }

    #[test]
    fn what_needs_a_person_is_told_and_nothing_else() {
        let fine = ControlState { connected: true, clock_skew_ms: 50_000, ..ControlState::default() };
        assert!(told(&fine, &Taking::Yes).is_empty());
        assert_eq!(told(&fine, &Taking::Away), ["the broker is away"]);
        let full = Taking::Nothing("no space left on device".to_owned());
        assert_eq!(told(&fine, &full), ["the broker is there and stores nothing: no space left on device"]);
        assert!(stores_nothing("no space left on device").contains("broker's disk"));
        assert!(stores_nothing("maximum bytes exceeded").contains("`stream_max_bytes`"));
        let behind = ControlState { clock_skew_ms: 90_000, ..fine.clone() };
        assert_eq!(
            told(&behind, &Taking::Yes),
            ["this host's clock is 90 s behind the control plane's, by which this node counts"]
        );
        let away = ControlState { trouble: Some("refused".to_owned()), ..ControlState::default() };
        assert_eq!(told(&away, &Taking::Yes), ["the control plane is away: refused"]);
        let refused = ControlState { trouble: Some("the token was revoked".to_owned()), refused: true, ..fine.clone() };
        assert_eq!(told(&refused, &Taking::Yes), ["the control plane refuses this node: the token was revoked"]);
        let fenced = |by: &str| ControlState { fenced: Some(by.to_owned()), ..ControlState::default() };
        let what = |who| format!("{who} runs as this node: nothing is sent or received here");
        assert_eq!(told(&fenced("x"), &Taking::Left), [what("another process (x)")]);
        assert_eq!(told(&fenced(""), &Taking::Left), [what("another process")]);
    }
}
