//! A node's session as a stream of messages both ways.
//!
//! The node says hello, the control plane welcomes or refuses; then heartbeats and attachments come in. The stream ends when
//! the node leaves, says nothing for a whole lease, is fenced by another incarnation or revoked, or the control plane drains. However it
//! ends, the lease is free and presence is offline at once.

use std::{sync::Arc, time::Duration};

use murmur_core::id::{NodeId, WorkspaceId};
use murmur_proto::v1::{self, open_session_request::Item as In, open_session_response::Item as Out};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::{convert::timestamp, status};
use crate::{
    clock::Clock,
    db::lease::Departed,
    invalid::{Invalid, parse, words},
    lifecycle::Lifecycle,
    nodes::{Hello, NodeError, Nodes, Session},
    tokens::Principal,
};

const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// Answers that wait for a node that does not read; heartbeats need no more.
const ANSWERS_MAX: usize = 8;
const VERSION_BYTES_MAX: usize = 64;
const ATTACHED_MAX: usize = 10_000;

type Answer = Result<v1::OpenSessionResponse, Status>;

/// What every session shares.
#[derive(Clone)]
pub(crate) struct SessionDoor {
    pub(crate) clock: Clock,
    pub(crate) heartbeat_ms: u32,
    pub(crate) lease_ms: u32,
}

impl SessionDoor {
    /// Serves a session until it ends. Refusals come through the stream, so that a client may open it before it says hello.
    pub(crate) fn open(
        &self,
        nodes: Arc<Nodes>,
        (caller, node): (Arc<Principal>, (WorkspaceId, NodeId)),
        inbound: Streaming<v1::OpenSessionRequest>,
        lifecycle: &Lifecycle,
    ) -> ReceiverStream<Answer> {
        let (answers, stream) = mpsc::channel(ANSWERS_MAX);
        let serving = Serving { door: self.clone(), nodes, caller, inbound, answers: answers.clone() };
        let drain = lifecycle.clone();
        lifecycle.spawn(async move {
            if let Err(status) = serving.run(node, &drain).await {
                let _ = answers.try_send(Err(status));
            }
        });
        ReceiverStream::new(stream)
    }
}

struct Serving {
    door: SessionDoor,
    nodes: Arc<Nodes>,
    caller: Arc<Principal>,
    inbound: Streaming<v1::OpenSessionRequest>,
    answers: mpsc::Sender<Answer>,
}

impl Serving {
    async fn run(mut self, node: (WorkspaceId, NodeId), drain: &Lifecycle) -> Result<(), Status> {
        let first = timeout(HELLO_TIMEOUT, self.inbound.message()).await;
        let Some(first) = first.map_err(|_| Invalid::new("hello", "must come within 10 s"))?? else { return Ok(()) };
        let Some(In::Hello(hello)) = first.item else {
            return Err(Invalid::new("hello", "must be the first message").into());
        };
        let mut session = self.nodes.open_session(node, &self.caller, read_hello(hello)?).await?;
        let result = self.serve(&mut session, drain).await;
        let departed = result.as_ref().map_or(Departed::No, |departed| *departed);
        self.nodes.close_session(&session, departed).await?;
        result.map(|_| ())
    }

    async fn serve(&mut self, session: &mut Session, drain: &Lifecycle) -> Result<Departed, Status> {
        let lease = Duration::from_millis(self.door.lease_ms.into());
        let mut lists = self.nodes.revocation_lists();
        let (mut told, revocation_list) = self.nodes.revocation_list_for(session).await?;
        self.answer(Out::Welcome(self.welcome(session, revocation_list)));
        let mut deadline = Instant::now() + lease;
        let mut is_told = true;
        loop {
            if !is_told {
                is_told = self.tell_revoked(session, &mut told).await?;
            }
            let message = tokio::select! {
                // What a session says that another has replaced is out of date.
                biased;
                by = &mut session.ended => {
                    let by_incarnation = by.map_err(|_| NodeError::Revoked)?.to_string();
                    self.answer(Out::Fenced(v1::Fenced { by_incarnation }));
                    return Ok(Departed::No);
                }
                Ok(()) = lists.changed(), if is_told => {
                    is_told = false;
                    continue;
                }
                message = self.inbound.message() => message,
                () = drain.draining() => {
                    self.answer(Out::Draining(v1::Draining {}));
                    return Ok(Departed::No);
                }
                () = sleep_until(deadline) => return Err(Status::deadline_exceeded("no heartbeat for a whole lease")),
                () = self.answers.closed() => return Ok(Departed::Broke),
            };
            let message = match message {
                Ok(Some(message)) => message,
                Ok(None) => return Ok(Departed::Left),
                // A broken stream is an ordinary end of a session, not an error of ours.
                Err(_) => return Ok(Departed::Broke),
            };
            deadline = Instant::now() + lease;
            self.nodes.heard_from(session, &self.caller).await?;
            self.handle(session, message).await?;
        }
    }

    async fn handle(&self, session: &mut Session, message: v1::OpenSessionRequest) -> Result<(), Status> {
        match message.item {
            Some(In::Heartbeat(v1::Heartbeat { store_mark })) => {
                // One that tells none is older than marks.
                if store_mark > 0 {
                    self.nodes.note_store(session, store_mark).await?;
                }
                let server_time = Some(timestamp(self.door.clock.now_ms()));
                self.answer(Out::HeartbeatAck(v1::HeartbeatAck { server_time }));
                Ok(())
            }
            Some(In::Attachment(v1::AgentAttachment { agent_id, attached })) => {
                Ok(self.nodes.attach(session, parse("agent_id", &agent_id)?, attached).await?)
            }
            Some(In::Hello(_)) => Err(Invalid::new("hello", "must come once").into()),
            // A newer node may say more; what we do not know we need not do.
            None => Ok(()),
        }
    }

    fn welcome(&self, session: &Session, revocation_list: Vec<u8>) -> v1::Welcome {
        v1::Welcome {
            server_version: env!("CARGO_PKG_VERSION").to_owned(),
            heartbeat_ms: self.door.heartbeat_ms,
            lease_ms: self.door.lease_ms,
            server_time: Some(timestamp(self.door.clock.now_ms())),
            store_mark: session.store_mark,
            token_renew_time: session.token_renew_ms.map(timestamp),
            revocation_list: revocation_list.into(),
        }
    }

    /// Tells which certificates do not count any more, if the list is another than the one of this version. False when the node has no room
    /// to hear it: it is told with its next sign of life.
    async fn tell_revoked(&self, session: &Session, told: &mut u64) -> Result<bool, Status> {
        let (version, revocation_list) = self.nodes.revocation_list_for(session).await?;
        if version == *told {
            return Ok(true);
        }
        let revocation_list = revocation_list.into();
        let is_told = self.answer(Out::RevocationList(v1::RevocationListChanged { revocation_list }));
        if is_told {
            *told = version;
        }
        Ok(is_told)
    }

    /// A node that does not read its answers misses some; the session itself does not wait for it. Says whether there was room.
    fn answer(&self, item: Out) -> bool {
        self.answers.try_send(Ok(v1::OpenSessionResponse { item: Some(item) })).is_ok()
    }
}

fn read_hello(hello: v1::Hello) -> Result<Hello, Status> {
    words("version", &hello.version, VERSION_BYTES_MAX)?;
    let wire = murmur_crypto::WIRE_VERSION;
    if hello.wire_version_min > wire || (hello.wire_version_max != 0 && hello.wire_version_max < wire) {
        return Err(status::wire_skew(hello.wire_version_min, hello.wire_version_max));
    }
    if hello.attached_agent_ids.len() > ATTACHED_MAX {
        return Err(Invalid::new("attached_agent_ids", format!("must be at most {ATTACHED_MAX}")).into());
    }
    let attached =
        hello.attached_agent_ids.iter().map(|text| parse("attached_agent_ids", text)).collect::<Result<_, _>>()?;
    Ok(Hello {
        incarnation: parse("incarnation", &hello.incarnation)?,
        version: hello.version,
        attached,
        takeover: hello.takeover,
        store_mark: hello.store_mark,
    })
}
