//! One session: hello, welcome, then heartbeats and attachments until it ends (PROTOCOL §5.9).

use std::{sync::atomic::Ordering, time::Duration};

use bytes::Bytes;
use murmur_crypto::WIRE_VERSION;
use murmur_proto::{
    time::unix_ms,
    v1::{self, open_session_request::Item as Say, open_session_response::Item as Hear},
};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval_at, sleep_until},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;
use tracing::{info, warn};

use super::{
    Attachment, CALL_TIMEOUT, ControlError, broker,
    run::{Ended, Parts},
    token, watch,
};
use crate::delay::Delay;

/// Between two looks for keys that are due.
const KEYS_INTERVAL: Duration = Duration::from_secs(3600);

/// A clock that is further off is worth a line in the log.
const SKEW_TOLD_MS: u64 = 60_000;
/// How long the control plane may take to hear a goodbye.
const GOODBYE_WAIT: Duration = Duration::from_secs(1);

/// The stream of a session that is to be followed by another. It is closed when that one stands: in a gap between the two another process
/// could take this node's place.
pub(super) struct Before {
    _inbound: Streaming<v1::OpenSessionResponse>,
    _outbound: mpsc::Sender<v1::OpenSessionRequest>,
}

/// Runs one session from its hello to its end.
pub(super) async fn run(parts: &Parts, before: Option<Before>, delay: &mut Delay, stop: &CancellationToken) -> Ended {
    let mut heard = parts.control.heard.lock().await;
    // What was told before is in the hello as a whole; what comes from now on is told after it.
    while heard.try_recv().is_ok() {}
    let opened = tokio::select! {
        () = stop.cancelled() => return Ended::Left,
        opened = tokio::time::timeout(CALL_TIMEOUT, open(parts)) => opened,
    };
    let (mut inbound, outbound, welcome) = match opened {
        Ok(Ok(opened)) => opened,
        Ok(Err(ended)) => return ended,
        Err(_) => return Ended::Lost(ControlError::silent(CALL_TIMEOUT)),
    };
    drop(before);
    delay.reset();
    // Before anything that takes time: how long that takes is no difference between two clocks.
    note_time(parts, welcome.server_time.as_ref());
    if let Err(error) = begin_anew_if_restored(parts, &welcome).await {
        return Ended::Lost(error);
    }
    // Before any mail is taken.
    take_revocations(parts, &welcome.revocation_list);
    welcomed(parts, &welcome);
    let mut tasks = follow(parts);
    if let Some(at) = &welcome.token_renew_time {
        tasks.spawn(token::renew(parts.clone(), unix_ms(at)));
    }

    let beat = Duration::from_millis(u64::from(welcome.heartbeat_ms.max(100)));
    let lease = Duration::from_millis(u64::from(welcome.lease_ms)).max(beat * 2);
    parts.bus.wake().set_lease(lease);
    let mut beats = interval_at(Instant::now() + beat, beat);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut silent_at = Instant::now() + lease;
    loop {
        let said = tokio::select! {
            answer = inbound.message() => {
                silent_at = Instant::now() + lease;
                match hear(parts, answer) {
                    Some(ended) => return ended,
                    None => continue,
                }
            }
            () = stop.cancelled() => {
                // The half that is ours is closed, which is how a node says goodbye.
                let _ = outbound.send(v1::OpenSessionRequest { item: Some(heartbeat(parts).await) }).await;
                drop(outbound);
                let heard = async { while let Ok(Some(_)) = inbound.message().await {} };
                let _ = tokio::time::timeout(GOODBYE_WAIT, heard).await;
                return Ended::Left;
            }
            () = parts.control.again.notified() => {
                return Ended::Again(Box::new(Before { _inbound: inbound, _outbound: outbound }));
            }
            () = sleep_until(silent_at) => return Ended::Lost(ControlError::silent(lease)),
            _ = beats.tick() => heartbeat(parts).await,
            Some(Attachment { agent_id, attached }) = heard.recv() => {
                Say::Attachment(v1::AgentAttachment { agent_id: agent_id.to_string(), attached })
            }
        };
        if outbound.send(v1::OpenSessionRequest { item: Some(said) }).await.is_err() {
            return Ended::Lost(ControlError::Down("the session's stream is closed".to_owned()));
        }
    }
}

async fn heartbeat(parts: &Parts) -> Say {
    // Without a mark the control plane keeps the one that it has.
    Say::Heartbeat(v1::Heartbeat { store_mark: parts.agents.store_mark().await.unwrap_or_default() })
}

/// The control plane remembers how far this node's store had come. One that has come less far is an old copy.
async fn begin_anew_if_restored(parts: &Parts, welcome: &v1::Welcome) -> Result<(), ControlError> {
    let failed = |error: &dyn std::error::Error| ControlError::Down(format!("this node's own store failed: {error}"));
    let mark = parts.agents.store_mark().await.map_err(|error| failed(&error))?;
    if welcome.store_mark <= mark {
        return Ok(());
    }
    warn!(mark, remembered = welcome.store_mark, "the store was restored from an older copy: new epoch, new keys");
    parts.agents.begin_anew(welcome.store_mark).await.map_err(|error| failed(&error))?;
    parts.control.state.send_modify(|state| state.restored_ms = Some(parts.clock.now_ms()));
    Ok(())
}

type Opened = (Streaming<v1::OpenSessionResponse>, mpsc::Sender<v1::OpenSessionRequest>, v1::Welcome);

async fn open(parts: &Parts) -> Result<Opened, Ended> {
    let lost = |status: tonic::Status| Ended::Lost(status.into());
    let attached = parts.directory.attached();
    let hello = v1::Hello {
        incarnation: parts.incarnation.to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        wire_version_min: WIRE_VERSION,
        wire_version_max: WIRE_VERSION,
        features: Vec::new(),
        attached_agent_ids: attached.iter().map(ToString::to_string).collect(),
        takeover: parts.control.takeover.load(Ordering::SeqCst),
        store_mark: 0,
    };
    let (outbound, said) = mpsc::channel(64);
    let hello = v1::OpenSessionRequest { item: Some(Say::Hello(hello)) };
    // A fresh channel has room.
    let _ = outbound.send(hello).await;
    let mut client = parts.control.client.nodes.clone();
    let mut inbound = client.open_session(ReceiverStream::new(said)).await.map_err(lost)?.into_inner();
    match inbound.message().await.map_err(lost)?.and_then(|answer| answer.item) {
        Some(Hear::Welcome(welcome)) => Ok((inbound, outbound, welcome)),
        Some(Hear::Fenced(fenced)) => Err(Ended::Fenced(fenced.by_incarnation)),
        Some(Hear::Draining(_)) => Err(Ended::Draining),
        Some(Hear::HeartbeatAck(_) | Hear::RevocationList(_)) | None => {
            Err(Ended::Lost(ControlError::Malformed("the session's first answer must be a welcome".to_owned())))
        }
    }
}

/// Takes an answer. Returns how the session ended, if it did.
fn hear(parts: &Parts, answer: Result<Option<v1::OpenSessionResponse>, tonic::Status>) -> Option<Ended> {
    match answer {
        Err(status) => Some(Ended::Lost(status.into())),
        Ok(None) => Some(Ended::Lost(ControlError::Down("the session's stream ended".to_owned()))),
        Ok(Some(answer)) => match answer.item? {
            Hear::Fenced(fenced) => Some(Ended::Fenced(fenced.by_incarnation)),
            Hear::Draining(_) => Some(Ended::Draining),
            Hear::HeartbeatAck(ack) => {
                note_time(parts, ack.server_time.as_ref());
                None
            }
            Hear::RevocationList(changed) => {
                take_revocations(parts, &changed.revocation_list);
                None
            }
            Hear::Welcome(_) => None,
        },
    }
}

/// Takes the owner's revocation list; none when nothing was ever revoked. One that the owner did not sign changes nothing.
fn take_revocations(parts: &Parts, list: &Bytes) {
    if list.is_empty() {
        return;
    }
    if let Err(error) = parts.directory.revoke(list.clone(), parts.clock.now_ms()) {
        warn!(error = &error as &dyn std::error::Error, "the control plane's revocation list is refused");
    }
}

fn welcomed(parts: &Parts, welcome: &v1::Welcome) {
    parts.control.takeover.store(false, Ordering::SeqCst);
    parts.control.state.send_modify(|state| {
        state.connected = true;
        state.opened += 1;
        state.fenced = None;
        state.refused = false;
        state.trouble = None;
        state.server_version.clone_from(&welcome.server_version);
    });
    info!(server.version = %welcome.server_version, "connected to the control plane");
}

fn note_time(parts: &Parts, server_time: Option<&prost_types::Timestamp>) {
    let Some(server_ms) = server_time.map(unix_ms) else { return };
    let skew = parts.clock.tell(server_ms);
    remember_time(parts);
    parts.control.state.send_if_modified(|state| {
        let is_news = state.clock_skew_ms.abs_diff(skew) > 1_000;
        if is_news && skew.unsigned_abs() > SKEW_TOLD_MS {
            warn!(
                "this host's clock is {} s {} the control plane's, by which this node counts",
                skew.unsigned_abs() / 1000,
                side(skew)
            );
        }
        state.clock_skew_ms = skew;
        is_news
    });
}

/// For the next process, should the control plane be away then. What cannot be kept now is tried again with the next word.
fn remember_time(parts: &Parts) {
    let (Some(words), dir, control) = (parts.clock.remembered(), parts.dir.clone(), parts.control.clone()) else {
        return;
    };
    tokio::spawn(async move {
        // One at a time: the disk may be slower than the control plane's words.
        let Ok(mut kept) = control.kept_time.try_lock() else { return };
        if *kept == words {
            return;
        }
        let saved = words.clone();
        match dir.blocking(move |dir| dir.save_clock(&saved)).await {
            Ok(()) => *kept = words,
            Err(error) => warn!(error = &error as &dyn std::error::Error, "what time it is cannot be remembered"),
        }
    });
}

/// On which side of the control plane's clock the host's is.
pub(in crate::rpc) const fn side(skew_ms: i64) -> &'static str {
    if skew_ms > 0 { "behind" } else { "ahead of" }
}

/// What goes on beside a session, and ends with it.
fn follow(parts: &Parts) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    tasks.spawn(watch::follow(parts.clone()));
    tasks.spawn(broker::renew(parts.clone()));
    tasks.spawn(publish_keys(parts.clone()));
    tasks.spawn(token::follow_certificate(parts.clone()));
    tasks
}

/// Publishes keys that are due as soon as the directory is known, and every hour.
async fn publish_keys(parts: Parts) {
    let mut delay = Delay::new(watch::BACKOFF);
    let mut changed = parts.directory.changed();
    while !parts.directory.snapshot().live {
        if changed.changed().await.is_err() {
            return;
        }
    }
    loop {
        match parts.agents.publish_due().await {
            Ok(()) => {
                delay.reset();
                tokio::time::sleep(KEYS_INTERVAL).await;
            }
            Err(error) => {
                info!(%error, "keys are not published yet");
                delay.wait().await;
            }
        }
    }
}
