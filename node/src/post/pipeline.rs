//! Sends of one caller that are under way together, accepted in the order in which they were given.
//!
//! The position of a message in its conversation is chosen before its commit ([`super::direct`]), so that one whose commit comes to nothing takes
//! those behind it along, but for one whose position happens to fit. They are in order all the same: a pipeline in which one was displaced is
//! aborted, all commits behind it are turned back, and what was turned back is queued again, in its order, before anything else.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesOrdered};
use tracing::{Instrument as _, Span};

use super::{
    Post,
    error::SendError,
    send::Accepted,
    types::{Draft, LocalAgent, Sent},
};

/// How often a send is queued before it is committed by itself.
const TRIES_MAX: u32 = 3;

/// Whether commits of a pipeline are turned back.
#[derive(Debug, Clone, Default)]
pub(super) struct Abort(Arc<AtomicBool>);

impl Abort {
    /// Only the writer asks and sets it, in the order of its queue.
    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Sends that are under way, each with something of its caller's, and whatever else is to keep its place between them.
pub(crate) struct Pipeline<T, P> {
    under_way: FuturesOrdered<BoxFuture<'static, Ended<T, P>>>,
    abort: Abort,
}

/// What became of one of them.
pub(crate) enum Settled<T, P> {
    Sent(T, Result<Sent, SendError>),
    Passed(P),
}

/// One that is not under way any more.
pub(crate) struct Ended<T, P>(End<T, P>);

enum End<T, P> {
    Settled(Settled<T, P>),
    /// One before it was displaced, or it was itself.
    TurnedBack(Given<T>),
}

/// A send that was admitted.
struct Given<T> {
    tag: T,
    post: Arc<Post>,
    from: LocalAgent,
    accepted: Arc<Accepted>,
    span: Span,
    tries: u32,
}

impl<T, P> Default for Pipeline<T, P> {
    fn default() -> Self {
        Self { under_way: FuturesOrdered::new(), abort: Abort::default() }
    }
}

impl<T: Send + 'static, P: Send + 'static> Pipeline<T, P> {
    /// Gives the next send, and returns when its place behind the others is taken.
    pub(crate) async fn push(&mut self, post: &Arc<Post>, from: LocalAgent, draft: Draft, tag: T) {
        let span = murmur_telemetry::hot_span!("post.send");
        let admitted = async {
            let accepted = post.accept(&from, draft, None).await?;
            let before = post.admit(&from, &accepted).await?;
            Ok((accepted, before))
        };
        match admitted.instrument(span.clone()).await {
            Ok((_, Some(before))) => self.settled(Settled::Sent(tag, Ok(before))),
            Err(error) => self.settled(Settled::Sent(tag, Err(error))),
            Ok((accepted, None)) => {
                let post = Arc::clone(post);
                self.queue(Given { tag, post, from, accepted: Arc::new(accepted), span, tries: 0 }).await;
            }
        }
    }

    async fn queue(&mut self, mut send: Given<T>) {
        let span = send.span.clone();
        send.tries += 1;
        let queued = send.post.queue(&send.from, &send.accepted, &self.abort).instrument(span.clone()).await;
        let committing = match queued {
            Ok(committing) => committing,
            Err(error) => return self.settled(Settled::Sent(send.tag, Err(error))),
        };
        let ended = async move {
            match committing.await {
                Ok(None) => Ended(End::TurnedBack(send)),
                Ok(Some(sent)) => Ended(End::Settled(Settled::Sent(send.tag, Ok(sent)))),
                Err(error) => Ended(End::Settled(Settled::Sent(send.tag, Err(error)))),
            }
        };
        self.under_way.push_back(ended.instrument(span).boxed());
    }

    fn settled(&mut self, settled: Settled<T, P>) {
        self.under_way.push_back(async { Ended(End::Settled(settled)) }.boxed());
    }

    /// Takes a place behind the others for what is not sent.
    pub(crate) fn pass(&mut self, passed: P) {
        self.settled(Settled::Passed(passed));
    }

    /// The first that is not under way any more, for [`Pipeline::settle`]; `None` when there is none. Nothing is lost when this is dropped.
    pub(crate) async fn next(&mut self) -> Option<Ended<T, P>> {
        self.under_way.next().await
    }

    /// Whether none is under way.
    pub(crate) fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }

    /// What became of it; `None` when it was turned back, and is queued again with all that is under way.
    pub(crate) async fn settle(&mut self, ended: Ended<T, P>) -> Option<Settled<T, P>> {
        let first = match ended.0 {
            End::Settled(settled) => return Some(settled),
            End::TurnedBack(send) => send,
        };
        let mut behind = Vec::with_capacity(self.under_way.len());
        while let Some(ended) = self.under_way.next().await {
            behind.push(ended.0);
        }
        self.abort = Abort::default();
        self.again(first).await;
        for end in behind {
            match end {
                End::Settled(settled) => self.settled(settled),
                End::TurnedBack(send) => self.again(send).await,
            }
        }
        None
    }

    /// Queues it again; one that was turned back too often is committed before anything else is queued.
    async fn again(&mut self, send: Given<T>) {
        if send.tries < TRIES_MAX {
            return self.queue(send).await;
        }
        let sent = send.post.commit_admitted(&send.from, send.accepted).instrument(send.span).await;
        self.settled(Settled::Sent(send.tag, sent));
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::{
        clock::Clock,
        post::{
            PostConfig,
            testing::{TestNode, World, introduce},
        },
        store::outbox,
    };

    /// Alice's node, whose agents may send one another four messages and no more for a minute.
    async fn alice() -> TestNode {
        let some = |count| NonZeroU32::new(count).unwrap();
        let config = PostConfig { pair_per_minute: some(1), pair_burst: some(4), ..PostConfig::default() };
        let world = World::new();
        let a = world.node_with(1, &["alice"], config, Clock::system()).await;
        let b = world.node(2, &["bob", "carol"]).await;
        introduce(&[&a, &b]);
        a
    }

    fn draft(to: &str, text: &str) -> Draft {
        Draft { to: to.to_owned(), body: text.to_owned().into(), ..Draft::default() }
    }

    /// What became of each, in order; nothing for what was passed.
    async fn settled(
        mut pipeline: Pipeline<&'static str, &'static str>,
    ) -> Vec<(&'static str, Option<Result<Sent, SendError>>)> {
        let mut all = Vec::new();
        while let Some(ended) = pipeline.next().await {
            all.extend(pipeline.settle(ended).await.map(|settled| match settled {
                Settled::Sent(tag, sent) => (tag, Some(sent)),
                Settled::Passed(tag) => (tag, None),
            }));
        }
        all
    }

    /// The ids of what alice has sent to bob, by position.
    async fn sent_to_bob(a: &TestNode, sent: &Sent) -> Vec<String> {
        let (alice, conversation) = (a.agent(0).agent_id, sent.conversation_id);
        let mut rows = a.post.store.read(move |tx| outbox::newest(tx, alice, 100)).await.unwrap();
        rows.retain(|row| row.conversation_id == conversation);
        rows.sort_by_key(|row| row.sequence);
        rows.iter().map(|row| row.msg_id.to_string()).collect()
    }

    #[tokio::test]
    async fn what_is_behind_a_displaced_one_does_not_overtake_it_though_its_position_fits() {
        let a = alice().await;
        let alice = a.agent(0);
        let mut ids = Vec::new();
        for text in ["1", "2"] {
            let sent = a.post.send(&alice, draft("bob", text)).await.unwrap();
            ids.push(sent.msg_id.to_string());
            // As after an eviction: it is not known that there is a second one.
            a.post.places.set_for_test(alice.agent_id, sent.conversation_id, 1).await;
        }
        let mut pipeline = Pipeline::default();
        // It chooses 2, which is taken; the one behind it chooses 3, which is free.
        for (to, tag) in [("bob", "3"), ("bob", "4"), ("carol", "5")] {
            pipeline.push(&a.post, alice.clone(), draft(to, tag), tag).await;
        }
        assert!(pipeline.abort.is_set());
        pipeline.pass("6");
        let settled = settled(pipeline).await;
        assert_eq!(settled.iter().map(|(tag, _)| *tag).collect::<Vec<_>>(), ["3", "4", "5", "6"]);
        assert!(settled[3].1.is_none());
        // None of them is charged twice: the pair has no more than four.
        let sent: Vec<_> = settled.into_iter().filter_map(|(_, sent)| sent).map(Result::unwrap).collect();
        ids.extend(sent[..2].iter().map(|sent| sent.msg_id.to_string()));
        assert_eq!(sent_to_bob(&a, &sent[0]).await, ids);
        let over = a.post.send(&alice, draft("bob", "7")).await.unwrap_err();
        assert!(matches!(over, SendError::RateLimited { .. }), "{over}");
    }

    #[tokio::test]
    async fn a_repeat_and_a_refused_one_leave_those_behind_them_in_order() {
        let a = alice().await;
        let alice = a.agent(0);
        let keyed = |text: &str| Draft { idempotency_key: Some("key".to_owned()), ..draft("bob", text) };
        let first = a.post.send(&alice, keyed("1")).await.unwrap();
        let mut pipeline = Pipeline::default();
        let drafts =
            [("repeat", keyed("1")), ("2", draft("bob", "2")), ("other", keyed("x")), ("nobody", draft("nobody", "x"))];
        for (tag, draft) in drafts {
            pipeline.push(&a.post, alice.clone(), draft, tag).await;
        }
        let mut settled = settled(pipeline).await.into_iter().map(|(_, sent)| sent.unwrap());
        assert_eq!(settled.next().unwrap().unwrap().msg_id, first.msg_id);
        let second = settled.next().unwrap().unwrap();
        assert!(matches!(settled.next().unwrap(), Err(SendError::IdempotencyConflict { .. })));
        assert!(settled.next().unwrap().is_err());
        assert_eq!(sent_to_bob(&a, &first).await, [first.msg_id.to_string(), second.msg_id.to_string()]);
    }
}
