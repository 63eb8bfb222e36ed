//! Sealing one message for one recipient, and committing the copy.

use std::sync::Arc;

use bytes::Bytes;
use murmur_core::{
    id::AgentId,
    outbox::{Config, Effect, Event, State},
    subject::Destination,
};
use murmur_crypto::{
    inner::opens_stream,
    keys::PrekeyPublic,
    prekey::{PrekeyId, VerifiedPrekey},
    seal::{Recipient, SealError, SealRequest, Sealed, seal_encapsulated},
};

use super::{
    Post, random,
    transition::{self, Key},
};
use crate::{
    bus::Outgoing,
    directory::VerifiedPeer,
    keys::AgentSigner,
    store::{
        StoreError, Tx,
        copy::{self, CopyRow},
        delivery::DeliveryRow,
        outbox::OutboxRow,
        stream,
    },
};

/// A sealed copy, not yet committed.
pub(super) struct Fresh {
    pub(super) seal_attempt: u32,
    sealed: Sealed,
    prekey_id: PrekeyId,
    peer: Arc<VerifiedPeer>,
    is_stale: bool,
    /// For a message that opens a stream.
    stream_key: Option<zeroize::Zeroizing<[u8; 64]>>,
}

/// A committed copy, to be published next.
pub(super) struct Ready {
    pub(super) key: Key,
    pub(super) seal_attempt: u32,
    pub(super) outgoing: Outgoing,
}

/// Seals a message for a recipient whose keys hold.
pub(super) fn seal_one(
    post: &Post,
    signer: &AgentSigner,
    peer: &Arc<VerifiedPeer>,
    seal_attempt: u32,
    message: &OutboxRow,
    delivery: &DeliveryRow,
    now_ms: u64,
) -> Result<Fresh, SealError> {
    let prekey = wanted_prekey(peer, delivery, now_ms);
    let reply_route = post.bus.route().map(|route| route.to_string());
    let sealed = seal_encapsulated(
        &signer.key,
        &SealRequest {
            msg_id: message.msg_id,
            sender_agent_id: message.sender,
            sender_node_id: post.identity.node_id,
            sender_cert_fp: signer.cert_fp,
            conversation_id: message.conversation_id,
            sequence: message.sequence,
            sequence_epoch: message.sequence_epoch,
            created_at_ms: message.created_ms,
            ttl_seconds: message.ttl_seconds,
            seal_attempt,
            reply_route: reply_route.as_deref(),
            recipients: &[Recipient::from(&prekey)],
            inner: &message.inner,
            chain: Some(&signer.chain),
        },
        post.ahead.take(prekey.public),
    )?;
    let stream_key = opens_stream(&message.inner).then(|| sealed.stream_key.to_bytes());
    let is_stale = prekey.is_stale(now_ms);
    Ok(Fresh { seal_attempt, sealed, prekey_id: prekey.id, peer: Arc::clone(peer), is_stale, stream_key })
}

/// Stores a copy under a random broker id and moves its delivery, which the caller saves, to SEALED. `None` when the delivery does not want
/// this copy any more.
pub(super) fn commit_fresh(
    tx: Tx<'_>,
    row: &mut DeliveryRow,
    fresh: Fresh,
    now_ms: u64,
    config: &Config,
) -> Result<Option<(CopyRow, Vec<Effect>)>, StoreError> {
    let Fresh { seal_attempt, sealed, prekey_id, peer, is_stale, stream_key } = fresh;
    let wanted = matches!(row.delivery.state, State::Queued { seal_attempt: wanted, .. } if wanted == seal_attempt);
    if !wanted {
        return Ok(None);
    }
    let copy = CopyRow {
        msg_id: row.msg_id,
        recipient: row.recipient,
        env_digest: *sealed.env_digest.as_bytes(),
        seal_attempt,
        prekey_id: *prekey_id.as_bytes(),
        route: peer.route.clone(),
        nats_msg_id: random::nats_msg_id(),
        env_bytes: Some(sealed.bytes),
    };
    if row.copy_id.is_some() {
        // The delivery stands for this one from now on; of the others only the names are of use.
        copy::drop_bytes(tx, row)?;
    }
    copy::insert(tx, row, &copy)?;
    if let Some(key) = stream_key {
        let (env_digest, route) = (copy.env_digest, Some(copy.route.clone()));
        stream::save_sealed_key(tx, row.msg_id, &stream::KeyRow { env_digest, key, route })?;
    }
    row.env_digest = Some(copy.env_digest);
    row.stale_prekey = is_stale;
    let effects = transition::advance(tx, row, Event::Sealed { seal_attempt }, now_ms, config)?;
    Ok(Some((copy, effects)))
}

/// Notes that a copy's publish begins right after the commit of the delivery, which the caller saves. `None` when there is nothing to
/// publish; if that is because it has ended with this, the effects say so.
pub(super) fn begin_publish(
    post_node: murmur_core::id::NodeId,
    tx: Tx<'_>,
    row: &mut DeliveryRow,
    copy: CopyRow,
    traceparent: String,
    now_ms: u64,
    config: &Config,
) -> Result<(Option<Ready>, Vec<Effect>), StoreError> {
    let State::Sealed { seal_attempt, .. } = row.delivery.state else { return Ok((None, Vec::new())) };
    let CopyRow { route, nats_msg_id, env_bytes: Some(bytes), .. } = copy else { return Ok((None, Vec::new())) };
    let mut effects = transition::advance(tx, row, Event::PublishStarted, now_ms, config)?;
    if !row.delivery.state.name().is_open() {
        return Ok((None, effects));
    }
    // Being published is what comes next; nobody else is to.
    effects.retain(|effect| !matches!(effect, Effect::Publish));
    let key = Key { msg_id: row.msg_id, recipient: row.recipient };
    let subject = route.subject(Destination::Agent(row.recipient), post_node);
    let outgoing = Outgoing { subject, nats_msg_id, traceparent: Some(traceparent), bytes };
    Ok((Some(Ready { key, seal_attempt, outgoing }), effects))
}

/// The prekey that the recipient asked for itself, while it holds, else the directory's. What the directory has may be newer and not the
/// recipient's any more, as when a copy of its node published it.
pub(super) fn wanted_prekey(peer: &VerifiedPeer, delivery: &DeliveryRow, now_ms: u64) -> VerifiedPrekey {
    let asked = delivery.fresh_prekey.as_deref().and_then(|bytes| decode_prekey(delivery.recipient, bytes));
    asked.filter(|asked| now_ms <= asked.not_after_ms).unwrap_or(peer.prekey)
}

/// A verified prekey as kept with a delivery: id, key, then four numbers.
pub(super) fn encode_prekey(prekey: &VerifiedPrekey) -> Bytes {
    let VerifiedPrekey { agent_id: _, id, public, seq, created_ms, fresh_until_ms, not_after_ms } = *prekey;
    let numbers = [seq, created_ms, fresh_until_ms, not_after_ms].map(u64::to_be_bytes).concat();
    [id.as_bytes().as_slice(), public.as_bytes(), &numbers].concat().into()
}

fn decode_prekey(agent_id: AgentId, bytes: &[u8]) -> Option<VerifiedPrekey> {
    let (id, rest) = bytes.split_first_chunk::<8>()?;
    let (public, rest) = rest.split_first_chunk::<32>()?;
    let mut numbers = rest.chunks_exact(8).filter_map(|chunk| chunk.try_into().ok().map(u64::from_be_bytes));
    Some(VerifiedPrekey {
        agent_id,
        id: PrekeyId::from_bytes(*id),
        public: PrekeyPublic::from_bytes(public).ok()?,
        seq: numbers.next()?,
        created_ms: numbers.next()?,
        fresh_until_ms: numbers.next()?,
        not_after_ms: numbers.next()?,
    })
}
