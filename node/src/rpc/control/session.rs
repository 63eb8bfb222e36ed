//! One session: hello, welcome, then heartbeats and attachments until it ends (PROTOCOL §5.9).

use std::time::Duration;

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
use tonic::Streaming;
use tracing::info;

use super::{
    Attachment, CALL_TIMEOUT, ControlError, broker,
    run::{Ended, Parts},
    watch,
};
use crate::delay::Delay;

/// Between two looks for keys that are due.
const KEYS_INTERVAL: Duration = Duration::from_secs(3600);

/// Runs one session from its hello to its end.
pub(super) async fn run(parts: &Parts, delay: &mut Delay) -> Ended {
    let mut heard = parts.control.heard.lock().await;
    // What was told before is in the hello as a whole; what comes from now on is told after it.
    while heard.try_recv().is_ok() {}
    let (mut inbound, outbound, welcome) = match tokio::time::timeout(CALL_TIMEOUT, open(parts)).await {
        Ok(Ok(opened)) => opened,
        Ok(Err(ended)) => return ended,
        Err(_) => return Ended::Lost(ControlError::silent(CALL_TIMEOUT)),
    };
    delay.reset();
    welcomed(parts, &welcome);
    let _tasks = follow(parts);

    let beat = Duration::from_millis(u64::from(welcome.heartbeat_ms.max(100)));
    let lease = Duration::from_millis(u64::from(welcome.lease_ms)).max(beat * 2);
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
            () = sleep_until(silent_at) => return Ended::Lost(ControlError::silent(lease)),
            _ = beats.tick() => Say::Heartbeat(v1::Heartbeat {}),
            Some(Attachment { agent_id, attached }) = heard.recv() => {
                Say::Attachment(v1::AgentAttachment { agent_id: agent_id.to_string(), attached })
            }
        };
        if outbound.send(v1::OpenSessionRequest { item: Some(said) }).await.is_err() {
            return Ended::Lost(ControlError::Down("the session's stream is closed".to_owned()));
        }
    }
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
        takeover: false,
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
        Some(Hear::HeartbeatAck(_)) | None => {
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
            Hear::Welcome(_) => None,
        },
    }
}

fn welcomed(parts: &Parts, welcome: &v1::Welcome) {
    parts.control.state.send_modify(|state| {
        state.connected = true;
        state.fenced = None;
        state.trouble = None;
        state.server_version.clone_from(&welcome.server_version);
    });
    note_time(parts, welcome.server_time.as_ref());
    info!(server.version = %welcome.server_version, "connected to the control plane");
}

fn note_time(parts: &Parts, server_time: Option<&prost_types::Timestamp>) {
    let Some(server_ms) = server_time.map(unix_ms) else { return };
    let skew = i128::from(server_ms) - i128::from(parts.clock.now_ms());
    let skew = i64::try_from(skew).unwrap_or(i64::MAX);
    parts.control.state.send_if_modified(|state| {
        let is_news = state.clock_skew_ms.abs_diff(skew) > 1_000;
        state.clock_skew_ms = skew;
        is_news
    });
}

/// What goes on beside a session, and ends with it.
fn follow(parts: &Parts) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    tasks.spawn(watch::follow(parts.clone()));
    tasks.spawn(broker::renew(parts.clone()));
    tasks.spawn(publish_keys(parts.clone()));
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
