//! A lane's work: seal what is queued, commit, publish in order.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use murmur_core::{
    code::Code,
    id::{AgentId, NodeId},
    outbox::{Event, PublishAnswer, StateName},
    subject::Route,
};
use murmur_crypto::seal::SealError;

use super::{
    Post,
    publish::begin,
    seal::{self, Fresh, Ready},
    transition::{self, Key, Stepped},
};
use crate::{
    directory::VerifiedPeer,
    failpoint::failpoint,
    keys::AgentSigner,
    store::{
        StoreError, Tx,
        copy::{self, CopyRow},
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
    let route = post.directory.verified(recipient, post.clock.now_ms()).ok().map(|peer| peer.route.clone());
    let ready = match commit_all(post, sealed, route).await {
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
        let sealed = seal::seal_one(post, &self.signer, &self.peer, seal_attempt, message, delivery, self.now_ms);
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

/// Commits copies, broker ids and begun publishes of a whole batch at once. Left out are deliveries that ended or that the broker was found
/// to have meanwhile, and those whose copy is for a node that the recipient has left since: they are sealed anew.
async fn commit_all(
    post: &Post,
    work: Vec<(Job, Option<Fresh>)>,
    route: Option<Route>,
) -> Result<Vec<Ready>, StoreError> {
    if work.is_empty() {
        return Ok(Vec::new());
    }
    let (now_ms, config, node) = (post.clock.now_ms(), post.config.outbox.clone(), post.identity.node_id);
    let commit = move |tx: Tx<'_>| -> Result<(Vec<Ready>, Vec<Stepped>), StoreError> {
        let (mut ready, mut steps) = (Vec::new(), Vec::new());
        for (job, fresh) in work {
            let key = job.key;
            let Some(mut row) = delivery::get(tx, key.msg_id, key.recipient)? else { continue };
            let (copy, mut effects) = match fresh {
                Some(fresh) => seal::commit_fresh(tx, &mut row, fresh, now_ms, &config)?.unzip(),
                None => (stored_copy(tx, &row)?, None),
            };
            if let Some(copy) = copy {
                let is_open = row.delivery.state.name().is_open();
                let mut has_left = is_open && route.as_ref().is_some_and(|route| *route != copy.route);
                if has_left {
                    row.fresh_prekey = None;
                    let resolved = Event::Resolved { unchanged: false };
                    effects = Some(transition::advance(tx, &mut row, resolved, now_ms, &config)?);
                    has_left = row.delivery.state.name() != StateName::Sealed;
                }
                if !has_left {
                    let traceparent =
                        outbox::get(tx, key.msg_id)?.map(|message| message.traceparent).unwrap_or_default();
                    let (next, begun) = seal::begin_publish(node, tx, &mut row, copy, traceparent, now_ms, &config)?;
                    if next.is_some() || !begun.is_empty() {
                        effects = Some(begun);
                    }
                    ready.extend(next);
                }
                delivery::update(tx, &row)?;
            }
            let (effects, state) = (effects.unwrap_or_default(), row.delivery.state.name());
            // Also of what is with the broker or has ended, which is known here as it was before.
            if !effects.is_empty() || state == StateName::Stored || !state.is_open() {
                steps.push(Stepped::new(row, effects));
            }
        }
        Ok((ready, steps))
    };
    let (ready, steps) = post.store.write(commit).await?;
    steps.into_iter().for_each(|stepped| post.follow_up(stepped));
    Ok(ready)
}

fn stored_copy(tx: Tx<'_>, row: &DeliveryRow) -> Result<Option<CopyRow>, StoreError> {
    let Some(env_digest) = &row.env_digest else { return Ok(None) };
    copy::get(tx, row, env_digest)
}

/// Notes the broker's answer, and that of a refusal in the store.
async fn answered(post: &Arc<Post>, key: Key, seal_attempt: u32, answer: PublishAnswer, report: &mut LaneReport) {
    if post.publish_answered(key, seal_attempt, answer).await {
        report.published.push(key);
    } else {
        report.refused.push(key);
    }
}

/// Looks up again who is to have what waits for nodes that the owner has revoked: they will not say.
pub(super) async fn resolve_revoked(post: Arc<Post>, nodes: HashSet<NodeId>) {
    for node in nodes {
        match post.store.read(move |tx| delivery::stored_for(tx, node)).await {
            Ok(found) => {
                for (msg_id, recipient) in found {
                    resolve(Arc::clone(&post), Key { msg_id, recipient }).await;
                }
            }
            Err(error) => {
                tracing::warn!(%error, %node, "what waits for a revoked node is looked up again when its receipt is overdue");
            }
        }
    }
}

/// Looks a silent recipient up again: whether the copy still fits its keys and its node.
pub(super) async fn resolve(post: Arc<Post>, key: Key) {
    let peer = match post.directory.verified(key.recipient, post.clock.now_ms()) {
        Ok(peer) => peer,
        Err(trouble) => {
            // A node that the owner has revoked cannot answer for it any more: what it would sign counts for nothing.
            let is_revoked = trouble.code() == Code::Revoked;
            if is_revoked || post.directory.is_gone(key.recipient) {
                post.step(key, Event::RecipientGone).await;
            }
            return;
        }
    };
    let (now_ms, config) = (post.clock.now_ms(), post.config.outbox.clone());
    let look = move |tx: Tx<'_>| -> Result<Option<Stepped>, StoreError> {
        let Some(mut row) = delivery::get(tx, key.msg_id, key.recipient)? else { return Ok(None) };
        let Some(copy) = stored_copy(tx, &row)? else { return Ok(None) };
        let has_left = copy.route != peer.route;
        if has_left {
            // What it asked for is a key of the node that it has left.
            row.fresh_prekey = None;
        }
        let unchanged = !has_left && copy.prekey_id == *seal::wanted_prekey(&peer, &row, now_ms).id.as_bytes();
        let effects = transition::step_row(tx, &mut row, Event::Resolved { unchanged }, now_ms, &config)?;
        Ok(Some(Stepped::new(row, effects)))
    };
    match post.store.write(look).await {
        Ok(stepped) => stepped.into_iter().for_each(|stepped| post.follow_up(stepped)),
        Err(error) => tracing::warn!(%error, msg_id = %key.msg_id, "a silent recipient could not be looked up again"),
    }
}
