//! Acknowledgements that come in: believed only from the agent that was addressed, about a copy that was really sent
//! (PROTOCOL §4.4).

use std::{collections::HashMap, sync::Arc, time::Duration};

use murmur_core::{
    code::Code,
    id::{AgentId, MessageId, NodeId},
    outbox::{Config, Event, Receipt, Row, StateName},
};
use murmur_crypto::{
    ack::{AckBody, AckFrame, AckItem, AckStatus},
    chain::VerifiedChain,
    prekey,
};

use super::{
    Post,
    publish::stored_event,
    receive::{After, Completion, Frame, Refusal},
    seal::encode_prekey,
    stream,
    transition::{self, Key, Stepped},
};
use crate::{
    bus::Verdict,
    failpoint::failpoint,
    store::{
        StoreError, Tx, copy,
        delivery::{self, DeliveryRow},
        stream as streams,
    },
};

/// When a frame that was early is looked at again.
const AGAIN: Duration = Duration::from_millis(500);

/// An item that was believed.
struct Believed {
    item: AckItem,
    /// With KEY_UNKNOWN: a prekey that holds, as kept with a delivery.
    fresh_prekey: Option<bytes::Bytes>,
    /// The broker's word for the copy of this seal attempt, which was not on disk yet.
    stored: Option<u32>,
}

/// Whose word it is, and to whom.
struct Parties {
    acker: AgentId,
    /// The slug in the acker's certificate: an id alone is no name.
    slug: String,
    sender: AgentId,
}

impl Post {
    /// Verifies a frame and queues what it says.
    pub(super) async fn ack(self: &Arc<Self>, frame: &Frame, source: NodeId) -> Result<Completion, Refusal> {
        let ack = AckFrame::decode(frame.bytes.clone()).map_err(|error| Refusal::Quarantine(error.code))?;
        let chain = self.acker_chain(&ack)?;
        if chain.node_id() != source {
            return Err(Refusal::Quarantine(Code::SenderMismatch));
        }
        let body = ack.verify_sender(&chain).map_err(|error| Refusal::Quarantine(error.code()))?;
        let (now_ms, config) = (self.clock.now_ms(), self.config.outbox.clone());
        let parties =
            Parties { acker: body.acker_agent_id, slug: chain.slug().to_owned(), sender: body.sender_agent_id };
        if body.items.iter().any(|item| matches!(item.status, AckStatus::Failed { code: Code::AgentMoved, .. })) {
            self.directory.set_left(body.acker_agent_id, source, body.at_ms);
        }
        let heard = stream::Heard::of(&body, chain.slug());
        let files = self.files_back(&body).await?;
        let items = self.believe(body, &chain, now_ms);
        let come_back = files.clone();
        let committing = self.store.queue_plainly(move |tx| commit(tx, &parties, items, &come_back, now_ms, &config));
        let post = Arc::clone(self);
        Ok(Box::pin(async move {
            let committed: Result<Outcome, StoreError> = committing.await;
            let Outcome { steps, ignored, is_early } = committed?;
            failpoint("S7");
            let heard = match post.hear_of_files(files.into_keys(), heard).await {
                Ok(()) if is_early => Err(Refusal::Later(AGAIN)),
                heard => heard.map_err(Refusal::from),
            };
            if let Err(refusal) = heard {
                // When the frame comes again its steps are old news.
                steps.into_iter().for_each(|stepped| post.follow_up(stepped));
                return Err(refusal);
            }
            let after = move || {
                (0..ignored).for_each(|_| post.counters.acks_ignored.add());
                steps.into_iter().for_each(|stepped| post.follow_up(stepped));
                Verdict::Ack.into()
            };
            Ok(Box::new(after) as After)
        }))
    }

    /// Begins the files again that came back, and hears what is said of others.
    async fn hear_of_files(
        self: &Arc<Self>,
        back: impl Iterator<Item = MessageId>,
        heard: Option<stream::Heard>,
    ) -> Result<(), StoreError> {
        for msg_id in back {
            self.restart_stream(msg_id, msg_id).await?;
        }
        match heard {
            Some(heard) => self.hear(heard).await,
            None => Ok(()),
        }
    }

    /// Of the messages that come back from where their recipient has left, those with a file, and whether that can be sent again.
    async fn files_back(&self, body: &AckBody) -> Result<HashMap<MessageId, bool>, StoreError> {
        let is_back = |item: &&AckItem| matches!(item.status, AckStatus::Failed { code: Code::AgentMoved, .. });
        let back = body.items.iter().filter(is_back);
        let back: Vec<_> = back.map(|item| (item.msg_id, *item.env_digest.as_bytes())).collect();
        let mut files = HashMap::new();
        if back.is_empty() {
            return Ok(files);
        }
        let recipient = body.acker_agent_id;
        let look = move |tx: Tx<'_>| {
            let mut found = Vec::new();
            for (msg_id, env_digest) in back {
                let row = delivery::get(tx, msg_id, recipient)?;
                let is_there = row.is_some_and(|row| {
                    row.delivery.state.name() == StateName::Delivered && row.env_digest == Some(env_digest)
                });
                if is_there {
                    found.extend(streams::of_message(tx, msg_id)?.map(|file| (msg_id, file)));
                }
            }
            Ok(found)
        };
        for (msg_id, file) in self.store.read(look).await? {
            files.insert(msg_id, self.file_back(file).await);
        }
        Ok(files)
    }

    /// The chain that came along, or the one that the directory has.
    fn acker_chain(&self, ack: &AckFrame) -> Result<Arc<VerifiedChain>, Refusal> {
        let carried = ack.chain_bytes();
        if !carried.is_empty() {
            return self.directory.verify_carried(carried, ack.claimed().at_ms).map_err(Refusal::Quarantine);
        }
        let snapshot = self.directory.snapshot();
        let keys = snapshot.peer(ack.claimed().acker_agent_id).and_then(|peer| peer.keys.as_ref());
        let keys = keys.ok_or(Refusal::Quarantine(Code::ChainInvalid))?;
        self.directory.verify_chain(&keys.chain, ack.claimed().at_ms).map_err(|error| Refusal::Quarantine(error.code()))
    }

    /// Checks the prekeys that came along; one that does not hold counts as none.
    fn believe(&self, body: AckBody, chain: &VerifiedChain, now_ms: u64) -> Vec<Believed> {
        let recipient = body.acker_agent_id;
        let believe = |item: AckItem| {
            let stored = self.stored.take(Key { msg_id: item.msg_id, recipient });
            let AckStatus::Failed { fresh_prekey: Some(statement), .. } = &item.status else {
                return Believed { item, fresh_prekey: None, stored };
            };
            let verified = prekey::verify(statement, chain.agent(), now_ms, 0).ok();
            Believed { fresh_prekey: verified.map(|prekey| encode_prekey(&prekey)), item, stored }
        };
        body.items.into_iter().map(believe).collect()
    }
}

/// What came of the items of a frame.
#[derive(Default)]
struct Outcome {
    steps: Vec<Stepped>,
    /// Items that did not count.
    ignored: usize,
    /// An item gave back a file that was not known to have arrived when the frame was looked at: it has to come again.
    is_early: bool,
}

/// Steps every delivery that an item rightly speaks of.
fn commit(
    tx: Tx<'_>,
    parties: &Parties,
    items: Vec<Believed>,
    files: &HashMap<MessageId, bool>,
    now_ms: u64,
    config: &Config,
) -> Result<Outcome, StoreError> {
    failpoint("S6");
    let mut outcome = Outcome::default();
    for Believed { item, fresh_prekey, stored } in items {
        let key = Key { msg_id: item.msg_id, recipient: parties.acker };
        let row = delivery::get(tx, key.msg_id, key.recipient)?;
        let rightly = |row: &DeliveryRow| row.sender == parties.sender && row.to_slug.as_str() == parties.slug;
        let Some(mut row) = row.filter(rightly) else {
            outcome.ignored += 1;
            continue;
        };
        let Some(seal_attempt) = seal_attempt(tx, &row, item.env_digest.as_bytes())? else {
            outcome.ignored += 1;
            continue;
        };
        let mut effects = Vec::new();
        if let Some(stored) = stored {
            effects = transition::advance(tx, &mut row, stored_event(stored), now_ms, config)?;
        }
        let receipt = receipt(&item.status, fresh_prekey.is_some());
        let is_accepted = matches!(receipt, Receipt::Delivered | Receipt::Read);
        let before = row.delivery;
        let event = match receipt {
            // Said again of an earlier copy, it is old news.
            Receipt::Failed { code: Code::AgentMoved, .. }
                if before.state.name() == StateName::Delivered
                    && row.env_digest.as_ref() == Some(item.env_digest.as_bytes()) =>
            {
                Event::GivenBack
            }
            receipt => Event::Receipt { seal_attempt, receipt },
        };
        match (event, files.get(&key.msg_id)) {
            // Without its file it is of more use where it is.
            (Event::GivenBack, Some(false)) => {
                outcome.ignored += 1;
                continue;
            }
            (Event::GivenBack, Some(true)) => streams::reopen(tx, key.msg_id, now_ms)?,
            (Event::GivenBack, None) if streams::of_message(tx, key.msg_id)?.is_some() => {
                outcome.is_early = true;
                continue;
            }
            _ => {}
        }
        if is_accepted && !matches!(before.state.name(), StateName::Delivered | StateName::Read) {
            // It is this copy that was accepted: a stream goes under its key, and the names of the others stay for what is said of them.
            row.env_digest = Some(*item.env_digest.as_bytes());
        }
        let more = transition::advance(tx, &mut row, event, now_ms, config)?;
        if row.delivery != before {
            // What is said again of an earlier copy brings an earlier prekey.
            match item.status {
                // It was a key of the node that the recipient has left.
                AckStatus::Failed { code: Code::AgentMoved, .. } => row.fresh_prekey = None,
                // What was asked for before is what was refused.
                AckStatus::Failed { code: Code::KeyUnknown, .. } => row.fresh_prekey = fresh_prekey,
                _ => {}
            }
        }
        if row.delivery != before || !more.is_empty() {
            effects = more;
        }
        if row.delivery == before && !before.state.name().is_open() && effects.is_empty() {
            // Said again, to one who knows.
            continue;
        }
        if event == Event::GivenBack {
            // Its seals are counted from the beginning, and nothing that is said of the earlier ones counts.
            copy::retire(tx, &row)?;
            (row.env_digest, row.delivered_ms) = (None, None);
            row.code = Some(Code::AgentMoved.name().to_owned());
        }
        delivery::update(tx, &row)?;
        outcome.steps.push(Stepped::new(row, effects));
    }
    Ok(outcome)
}

/// Which attempt of a delivery the copy of that name was; `None` when there was no such copy.
fn seal_attempt(tx: Tx<'_>, row: &DeliveryRow, env_digest: &[u8; 32]) -> Result<Option<u32>, StoreError> {
    let state = row.delivery.state.name();
    if row.env_digest.as_ref() == Some(env_digest) {
        match state {
            // The delivery stands for its newest copy.
            StateName::Sealed | StateName::Stored => return Ok(Some(Row::from(row.delivery.state).seal_attempt)),
            StateName::Queued => {}
            // The attempt of an ended delivery means nothing any more.
            _ => return Ok(Some(0)),
        }
    }
    copy::seal_attempt(tx, row, env_digest)
}

fn receipt(status: &AckStatus, has_fresh_prekey: bool) -> Receipt {
    match status {
        AckStatus::Delivered => Receipt::Delivered,
        AckStatus::Read => Receipt::Read,
        AckStatus::Failed { code, retry_after_s, .. } => {
            Receipt::Failed { code: *code, retry_after_s: retry_after_s.unwrap_or_default(), has_fresh_prekey }
        }
    }
}
