//! What becomes a notice: messages of this node's agents, permissions that they ask for, their events, and their ends in trouble.

use std::{collections::VecDeque, sync::Arc};

use murmur_core::{event::EventKind, id::MessageId};
use murmur_proto::v1;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio_util::sync::CancellationToken;

use super::{
    MESSAGE, Notice, Notify,
    event::{self, AGENT_FAILED},
    short, size,
};
use crate::{
    permission::{News, PermissionRow, Permissions},
    post::{Post, TailItem},
    runtime::Failure,
};

/// Messages that are remembered, since one between two agents of this node goes by twice.
const KNOWN: usize = 256;
/// Longest part of a body that is looked at.
const BODY_BYTES: usize = 4_096;

/// Tells of messages until the node goes down. A message is never held up: what this task is too slow for is not told.
pub async fn follow(notify: Arc<Notify>, post: Arc<Post>, stop: CancellationToken) {
    let mut seen = post.seen(notify.messages_wanted());
    let mut known: VecDeque<MessageId> = VecDeque::with_capacity(KNOWN);
    while let Some(item) = next(&mut seen, &stop).await {
        if known.contains(&item.message.msg_id) {
            continue;
        }
        if known.len() == KNOWN {
            known.pop_front();
        }
        known.push_back(item.message.msg_id);
        notify.tell(&Arc::new(notice(&item)));
    }
}

/// Tells of permissions that agents ask for, until the node goes down. Whoever hears of one answers it on the host, or
/// where they are asked. What was over while the node was away is told first.
pub async fn follow_permissions(notify: Arc<Notify>, permissions: Arc<Permissions>, stop: CancellationToken) {
    let mut news = permissions.news();
    notify.close_old().await;
    while let Some(told) = next(&mut news, &stop).await {
        match told {
            News::Asked(row) => notify.tell(&Arc::new(asked(row))),
            News::Settled(row) => notify.settled(&row),
        }
    }
}

/// Tells of what happens around agents that live here, until the node goes down.
pub async fn follow_events(
    notify: Arc<Notify>,
    mut news: broadcast::Receiver<Arc<[v1::Event]>>,
    stop: CancellationToken,
) {
    while let Some(events) = next(&mut news, &stop).await {
        for notice in event::notices(&events, notify.clock.now_ms()) {
            notify.tell(&Arc::new(notice));
        }
    }
}

/// Tells of agents that fail on this node, until it goes down: also while the control plane is away.
pub async fn follow_failures(
    notify: Arc<Notify>,
    mut failures: broadcast::Receiver<Arc<Failure>>,
    stop: CancellationToken,
) {
    while let Some(failure) = next(&mut failures, &stop).await {
        let Failure { slug, incarnation, why, at_ms } = &*failure;
        let slug = slug.to_string();
        let once = event::failure(&slug, &incarnation.to_string());
        let notice = Notice::new(AGENT_FAILED, &event::failed(&slug), *at_ms);
        let notice = notice.of(Some(EventKind::ChildLifecycle.as_str())).about(vec![slug]).with_body(why).once(once);
        notify.tell(&Arc::new(notice));
    }
}

/// The next of what is told; `None` when the node goes down. What this task was too slow for is left out.
async fn next<T: Clone>(news: &mut broadcast::Receiver<T>, stop: &CancellationToken) -> Option<T> {
    loop {
        let told = tokio::select! {
            () = stop.cancelled() => return None,
            told = news.recv() => told,
        };
        match told {
            Ok(told) => return Some(told),
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return None,
        }
    }
}

/// What the tool call is to do is the agent's own words, and told as a body.
fn asked(row: Arc<PermissionRow>) -> Notice {
    let (slug, id) = (row.slug.to_string(), &row.request_id);
    let line = format!("{} asks to use {}: murmurctl permission allow|deny {id}", short(&slug), row.tool_name);
    Notice::new("permission", &line, row.asked_ms).about(vec![slug]).with_body(&row.description).asking(row)
}

/// One line for a message: `alice → bob, 1.2 kB`.
fn notice(TailItem { message, .. }: &TailItem) -> Notice {
    let (from, to) = (message.from.to_string(), message.to.to_string());
    let line = format!("{} → {}, {}", short(&from), short(&to), size(message.body.len()));
    let body = &message.body[..message.body.len().min(BODY_BYTES)];
    let notice = Notice::new(MESSAGE, &line, message.created_ms);
    notice.about(vec![from, to]).with_body(&String::from_utf8_lossy(body))
}
