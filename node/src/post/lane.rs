//! A lane's work: seal what is queued, commit, publish in order.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use murmur_core::{
    id::AgentId,
    outbox::{Event, PublishAnswer, State},
    subject::Destination,
};
use murmur_crypto::{
    keys::PrekeyPublic,
    prekey::{PrekeyId, VerifiedPrekey},
    seal::{Recipient, SealError, SealRequest, Sealed, seal},
};
use tracing::Instrument as _;

use super::{
    Post,
    failpoint::failpoint,
    random,
    transition::{self, Key, Stepped},
};
use crate::{
    bus::Outgoing,
    directory::VerifiedPeer,
    keys::AgentSigner,
    store::{
        StoreError, Tx,
        copy::{self, CopyRow, Publication},
        delivery::{self, DeliveryRow},
        outbox::{self, OutboxRow},
    },
};

/// What a delivery waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// To be sealed, then published.
    Seal {
        /// The attempt that goes into the envelope.
        seal_attempt: u32,
    },
    /// To be published as it is.
    Publish,
}

/// A delivery to work on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Job {
    pub(super) key: Key,
    pub(super) need: Need,
}

/// How the work went.
#[derive(Default)]
pub(super) struct LaneReport {
    /// The broker has these.
    pub(super) published: Vec<Key>,
    /// These were not come to.
    pub(super) left: Vec<Job>,
    /// These wait for their recipient's keys.
    pub(super) keyless: Vec<Key>,
    /// These cannot be sealed by a fault of their own: they have ended, or wait without the others.
    pub(super) unsealable: Vec<Key>,
    /// The broker did not take these.
    pub(super) refused: Vec<Key>,
}

/// A sealed copy, not yet committed.
struct Fresh {
    seal_attempt: u32,
    sealed: Sealed,
    prekey_id: PrekeyId,
    peer: Arc<VerifiedPeer>,
    is_stale: bool,
}

/// A committed copy whose publish has begun.
struct Ready {
    key: Key,
    seal_attempt: u32,
    outgoing: Outgoing,
}

/// Works on the head of a lane and what follows it, in order, until something does not go through.
pub(super) async fn work(
    post: &Arc<Post>,
    sender: AgentId,
    recipient: AgentId,
    jobs: Vec<Job>,
    careful: bool,
) -> LaneReport {
    let mut report = LaneReport::default();
    let sealed = seal_all(post, sender, recipient, jobs, &mut report).await;
    let begun: Vec<Job> = sealed.iter().map(|(job, _)| *job).collect();
    let ready = match commit_all(post, sealed).await {
        Ok(ready) => ready,
        Err(error) => {
            give_up(post, begun, &error, &mut report).await;
            return report;
        }
    };
    failpoint("S3");
    if careful {
        one_by_one(post, ready, &mut report).await;
    } else {
        all_in_order(post, ready, &mut report).await;
    }
    report
}

/// Begins every publish in order before it waits for the first answer: the broker's fsync is shared. Should the broker refuse
/// one and take a later one, the two change places; so a lane that was refused goes on one by one for a while.
async fn all_in_order(post: &Arc<Post>, ready: Vec<Ready>, report: &mut LaneReport) {
    let mut begun = Vec::with_capacity(ready.len());
    for next in ready {
        let Ready { key, seal_attempt, outgoing } = next;
        begun.push((key, seal_attempt, begin(post, outgoing).await));
    }
    for (key, seal_attempt, answer) in begun {
        let answer = answer.await;
        answered(post, key, seal_attempt, answer, report).await;
    }
}

async fn one_by_one(post: &Arc<Post>, ready: Vec<Ready>, report: &mut LaneReport) {
    let mut ready = ready.into_iter();
    for Ready { key, seal_attempt, outgoing } in ready.by_ref() {
        let answer = begin(post, outgoing).await.await;
        answered(post, key, seal_attempt, answer, report).await;
        if !report.refused.is_empty() {
            break;
        }
    }
    report.left.extend(ready.map(|next| Job { key: next.key, need: Need::Publish }));
}

/// Hands a copy to the broker's client; the future that comes back waits for the broker's answer.
async fn begin(post: &Post, outgoing: Outgoing) -> impl Future<Output = PublishAnswer> + Send + use<> {
    let span = tracing::info_span!("post.publish");
    if let Some(traceparent) = &outgoing.traceparent {
        murmur_telemetry::set_parent(&span, traceparent);
    }
    let begun = post.bus.begin(outgoing).instrument(span.clone()).await;
    begun.instrument(span)
}

type Trouble = Box<dyn std::error::Error + Send + Sync>;

/// The first one waits for its next try, the others for the first.
async fn give_up(
    post: &Post,
    jobs: Vec<Job>,
    trouble: &(dyn std::error::Error + Send + Sync),
    report: &mut LaneReport,
) {
    let mut jobs = jobs.into_iter();
    if let Some(Job { key, need }) = jobs.next() {
        tracing::info!(msg_id = %key.msg_id, recipient = %key.recipient, %trouble, "a message waits");
        if let Need::Seal { seal_attempt } = need {
            post.step(key, Event::KeysMissing { seal_attempt }).await;
            report.keyless.push(key);
        }
    }
    report.left.extend(jobs);
}

/// The recipient has ended: what waits to be sealed for it ends, too.
async fn end_all(post: &Post, jobs: impl IntoIterator<Item = Job>, report: &mut LaneReport) {
    for Job { key, .. } in jobs {
        tracing::info!(msg_id = %key.msg_id, recipient = %key.recipient, "the recipient of a message has ended");
        post.step(key, Event::RecipientGone).await;
        report.unsealable.push(key);
    }
}

/// Seals what needs it. What cannot be sealed for lack of keys holds up what is behind it; what cannot be sealed by a fault of its
/// own holds up nobody.
async fn seal_all(
    post: &Post,
    sender: AgentId,
    recipient: AgentId,
    jobs: Vec<Job>,
    report: &mut LaneReport,
) -> Vec<(Job, Option<Fresh>)> {
    if !jobs.iter().any(|job| matches!(job.need, Need::Seal { .. })) {
        return jobs.into_iter().map(|job| (job, None)).collect();
    }
    let means = Means::find(post, sender, recipient, &jobs).await;
    let mut sealed = Vec::with_capacity(jobs.len());
    let mut jobs = jobs.into_iter();
    while let Some(job) = jobs.next() {
        let Need::Seal { seal_attempt } = job.need else {
            sealed.push((job, None));
            continue;
        };
        let outcome = match &means {
            Ok(means) => means.seal(post, job.key, seal_attempt),
            Err(trouble) => Err(Unsealed::Waits(trouble.to_string().into())),
        };
        match outcome {
            Ok(fresh) => sealed.push((job, fresh)),
            Err(Unsealed::Faulty(error)) => {
                set_aside(post, job.key, seal_attempt, &error).await;
                report.unsealable.push(job.key);
            }
            Err(Unsealed::Waits(_)) if post.directory.is_gone(recipient) => {
                end_all(post, std::iter::once(job).chain(jobs), report).await;
                break;
            }
            Err(Unsealed::Waits(trouble)) => {
                give_up(post, std::iter::once(job).chain(jobs).collect(), trouble.as_ref(), report).await;
                break;
            }
        }
    }
    sealed
}

/// Why a message was not sealed.
enum Unsealed {
    /// Something is missing that the messages behind it need as well.
    Waits(Trouble),
    /// It is the message's own fault.
    Faulty(SealError),
}

/// What sealing for one recipient takes.
struct Means {
    peer: Arc<VerifiedPeer>,
    signer: Arc<AgentSigner>,
    rows: HashMap<Key, (OutboxRow, DeliveryRow)>,
    now_ms: u64,
}

impl Means {
    async fn find(post: &Post, sender: AgentId, recipient: AgentId, jobs: &[Job]) -> Result<Self, Trouble> {
        let now_ms = post.clock.now_ms();
        let peer = post.directory.verified(recipient, now_ms)?;
        let signer = post.keys.signer(sender).ok_or("the sender has no keys on this node")?;
        let keys: Vec<Key> = jobs.iter().map(|job| job.key).collect();
        let load = move |tx: Tx<'_>| {
            let load = |key| load(tx, key).map(|rows| rows.map(|rows| (key, rows))).transpose();
            keys.into_iter().filter_map(load).collect::<Result<_, _>>()
        };
        Ok(Self { peer, signer, rows: post.store.read(load).await?, now_ms })
    }

    /// `None` when there is no such message any more.
    fn seal(&self, post: &Post, key: Key, seal_attempt: u32) -> Result<Option<Fresh>, Unsealed> {
        let Some((message, delivery)) = self.rows.get(&key) else { return Ok(None) };
        let sealed = seal_one(post, &self.signer, &self.peer, seal_attempt, message, delivery, self.now_ms);
        sealed.map(Some).map_err(|error| match error {
            SealError::Prekey(_) if delivery.fresh_prekey.is_none() => Unsealed::Waits(Box::new(error)),
            SealError::Randomness | SealError::NoRandomness(_) => Unsealed::Waits(Box::new(error)),
            SealError::Header(_) | SealError::TooLarge(_) | SealError::Prekey(_) | SealError::Payload => {
                Unsealed::Faulty(error)
            }
        })
    }
}

/// Ends a message that is too large for any envelope, as the broker would; anything else is tried again after a while.
async fn set_aside(post: &Post, key: Key, seal_attempt: u32, error: &SealError) {
    tracing::warn!(msg_id = %key.msg_id, recipient = %key.recipient, %error, "a message cannot be sealed");
    if !matches!(error, SealError::TooLarge(_) | SealError::Payload) {
        return post.step(key, Event::KeysMissing { seal_attempt }).await;
    }
    let (now_ms, config) = (post.clock.now_ms(), post.config.outbox.clone());
    let refused = Event::PublishAnswered { seal_attempt, answer: PublishAnswer::TooLarge };
    let ended = post.store.write(move |tx| {
        transition::step(tx, key, Event::Sealed { seal_attempt }, now_ms, &config)?;
        transition::step(tx, key, refused, now_ms, &config)
    });
    match ended.await {
        Ok(stepped) => stepped.into_iter().for_each(|stepped| post.follow_up(stepped)),
        Err(error) => tracing::warn!(%error, msg_id = %key.msg_id, "a delivery could not be ended"),
    }
}

fn load(tx: Tx<'_>, key: Key) -> Result<Option<(OutboxRow, DeliveryRow)>, StoreError> {
    Ok(outbox::get(tx, key.msg_id)?.zip(delivery::get(tx, key.msg_id, key.recipient)?))
}

fn seal_one(
    post: &Post,
    signer: &AgentSigner,
    peer: &Arc<VerifiedPeer>,
    seal_attempt: u32,
    message: &OutboxRow,
    delivery: &DeliveryRow,
    now_ms: u64,
) -> Result<Fresh, SealError> {
    let prekey = newest_prekey(peer, delivery);
    let reply_route = post.bus.route().map(|route| route.to_string());
    let sealed = seal(
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
    )?;
    Ok(Fresh { seal_attempt, sealed, prekey_id: prekey.id, peer: Arc::clone(peer), is_stale: prekey.is_stale(now_ms) })
}

/// The directory's prekey, or the one that the recipient itself asked for, whichever is newer.
fn newest_prekey(peer: &VerifiedPeer, delivery: &DeliveryRow) -> VerifiedPrekey {
    let asked = delivery.fresh_prekey.as_deref().and_then(|bytes| decode_prekey(delivery.recipient, bytes));
    match asked {
        Some(asked) if asked.created_ms > peer.prekey.created_ms => asked,
        _ => peer.prekey,
    }
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

/// Commits copies, broker ids and begun publishes of a whole batch at once. A delivery that ended meanwhile is left out.
async fn commit_all(post: &Post, work: Vec<(Job, Option<Fresh>)>) -> Result<Vec<Ready>, StoreError> {
    if work.is_empty() {
        return Ok(Vec::new());
    }
    let (now_ms, config, source) = (post.clock.now_ms(), post.config.outbox.clone(), post.identity.node_id);
    let commit = move |tx: Tx<'_>| -> Result<Vec<(Ready, Stepped)>, StoreError> {
        let mut ready = Vec::new();
        for (job, fresh) in work {
            let key = job.key;
            let Some(mut row) = delivery::get(tx, key.msg_id, key.recipient)? else { continue };
            let bytes = match fresh {
                Some(fresh) => commit_copy(tx, &mut row, fresh, now_ms, &config)?,
                None => stored_copy(tx, &row)?,
            };
            let State::Sealed { seal_attempt, .. } = row.delivery.state else { continue };
            let Some((bytes, publication)) = bytes else { continue };
            let mut effects = transition::step_row(tx, &mut row, Event::PublishStarted, now_ms, &config)?;
            // Being published is what this task does; nobody else is to.
            effects.retain(|effect| !matches!(effect, murmur_core::outbox::Effect::Publish));
            let outgoing = Outgoing {
                subject: publication.route.subject(Destination::Agent(key.recipient), source),
                nats_msg_id: publication.nats_msg_id,
                traceparent: outbox::get(tx, key.msg_id)?.map(|message| message.traceparent),
                bytes,
            };
            ready.push((Ready { key, seal_attempt, outgoing }, Stepped { row, effects }));
        }
        Ok(ready)
    };
    let committed = post.store.write(commit).await?;
    let (ready, stepped): (Vec<_>, Vec<_>) = committed.into_iter().unzip();
    stepped.into_iter().for_each(|stepped| post.follow_up(stepped));
    Ok(ready)
}

fn commit_copy(
    tx: Tx<'_>,
    row: &mut DeliveryRow,
    fresh: Fresh,
    now_ms: u64,
    config: &murmur_core::outbox::Config,
) -> Result<Option<(Bytes, Publication)>, StoreError> {
    let Fresh { seal_attempt, sealed, prekey_id, peer, is_stale } = fresh;
    let wanted = matches!(row.delivery.state, State::Queued { seal_attempt: wanted, .. } if wanted == seal_attempt);
    if !wanted {
        return Ok(None);
    }
    let env_digest = *sealed.env_digest.as_bytes();
    copy::insert(
        tx,
        &CopyRow {
            env_digest,
            msg_id: row.msg_id,
            recipient: row.recipient,
            seal_attempt,
            prekey_id: *prekey_id.as_bytes(),
            env_bytes: Some(sealed.bytes.clone()),
        },
    )?;
    let publication = Publication { env_digest, route: peer.route.clone(), nats_msg_id: random::nats_msg_id() };
    copy::save_publication(tx, &publication)?;
    row.env_digest = Some(env_digest);
    row.stale_prekey = is_stale;
    transition::step_row(tx, row, Event::Sealed { seal_attempt }, now_ms, config)?;
    Ok(Some((sealed.bytes, publication)))
}

fn stored_copy(tx: Tx<'_>, row: &DeliveryRow) -> Result<Option<(Bytes, Publication)>, StoreError> {
    let Some(env_digest) = row.env_digest else { return Ok(None) };
    let bytes = copy::get(tx, &env_digest)?.and_then(|copy| copy.env_bytes);
    Ok(bytes.zip(copy::publication(tx, &env_digest)?))
}

/// Notes the broker's answer. That it has a copy rides with a later commit: after a crash the same bytes are published again.
async fn answered(post: &Arc<Post>, key: Key, seal_attempt: u32, answer: PublishAnswer, report: &mut LaneReport) {
    failpoint("S5");
    let event = Event::PublishAnswered { seal_attempt, answer };
    if !matches!(answer, PublishAnswer::Stored { .. }) {
        post.counters.retried.add();
        report.refused.push(key);
        post.step(key, event).await;
        return;
    }
    report.published.push(key);
    post.counters.published.add();
    let (now_ms, config) = (post.clock.now_ms(), post.config.outbox.clone());
    let marking = post.store.queue_lazily(move |tx| transition::step(tx, key, event, now_ms, &config));
    let (post, tasks) = (Arc::clone(post), &post.tasks);
    tasks.spawn(async move {
        let marked: Result<_, StoreError> = marking.await;
        match marked {
            Ok(stepped) => stepped.into_iter().for_each(|stepped| post.follow_up(stepped)),
            Err(error) => tracing::warn!(%error, msg_id = %key.msg_id, "a publish could not be noted"),
        }
    });
}

/// Looks a silent recipient up again: whether the copy still fits its keys and its node.
pub(super) async fn resolve(post: Arc<Post>, key: Key) {
    let Ok(peer) = post.directory.verified(key.recipient, post.clock.now_ms()) else {
        if post.directory.is_gone(key.recipient) {
            post.step(key, Event::RecipientGone).await;
        }
        return;
    };
    let sealed_for = post.store.read(move |tx| {
        let Some(row) = delivery::get(tx, key.msg_id, key.recipient)? else { return Ok(None) };
        let Some(env_digest) = row.env_digest else { return Ok(None) };
        Ok(copy::get(tx, &env_digest)?.zip(copy::publication(tx, &env_digest)?))
    });
    if let Ok(Some((copy, publication))) = sealed_for.await {
        let unchanged = copy.prekey_id == *peer.prekey.id.as_bytes() && publication.route == peer.route;
        post.step(key, Event::Resolved { unchanged }).await;
    }
}
