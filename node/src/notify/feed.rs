//! What becomes a notice: messages of this node's agents, and permissions that they ask for.

use std::{collections::VecDeque, sync::Arc};

use murmur_core::id::MessageId;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use super::{Notice, Notify, size};
use crate::{
    permission::{News, PermissionRow, Permissions},
    post::{Post, TailItem},
};

/// Messages that are remembered, since one between two agents of this node goes by twice.
const KNOWN: usize = 256;
const MESSAGE: &str = "message";
/// Longest part of a body that is looked at.
const BODY_BYTES: usize = 4_096;

/// Tells of messages until the node goes down. A message is never held up: what this task is too slow for is not told.
pub async fn follow(notify: Arc<Notify>, post: Arc<Post>, stop: CancellationToken) {
    let mut seen = post.seen();
    let mut known: VecDeque<MessageId> = VecDeque::with_capacity(KNOWN);
    loop {
        let item = tokio::select! {
            () = stop.cancelled() => return,
            item = seen.recv() => item,
        };
        match item {
            Ok(item) => {
                if known.contains(&item.message.msg_id) || !notify.is_wanted(MESSAGE) {
                    continue;
                }
                if known.len() == KNOWN {
                    known.pop_front();
                }
                known.push_back(item.message.msg_id);
                notify.tell(&Arc::new(notice(&item)));
            }
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

/// Tells of permissions that agents ask for, until the node goes down. Whoever hears of one answers it on the host.
pub async fn follow_permissions(notify: Arc<Notify>, permissions: Arc<Permissions>, stop: CancellationToken) {
    let mut news = permissions.news();
    loop {
        let told = tokio::select! {
            () = stop.cancelled() => return,
            told = news.recv() => told,
        };
        match told {
            Ok(News::Asked(row)) => notify.tell(&Arc::new(asked(&row))),
            Ok(News::Settled(_)) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

/// What the tool call is to do is the agent's own words, and told as a body.
fn asked(row: &PermissionRow) -> Notice {
    let (slug, id) = (row.slug.to_string(), &row.request_id);
    let line = format!("{} asks to use {}: murmurctl permission allow|deny {id}", short(&slug), row.tool_name);
    Notice::new("permission", &line, row.asked_ms).about(vec![slug]).with_body(&row.description)
}

/// One line for a message: `alice → bob, 1.2 kB`.
fn notice(TailItem { message, .. }: &TailItem) -> Notice {
    let (from, to) = (message.from.to_string(), message.to.to_string());
    let line = format!("{} → {}, {}", short(&from), short(&to), size(message.body.len()));
    let body = &message.body[..message.body.len().min(BODY_BYTES)];
    let notice = Notice::new(MESSAGE, &line, message.created_ms);
    notice.about(vec![from, to]).with_body(&String::from_utf8_lossy(body))
}

/// A slug without its workspace: `/w/acme/u/jdoe/alice` is `jdoe/alice`.
fn short(slug: &str) -> &str {
    slug.split_once("/u/").map_or(slug, |(_, rest)| rest)
}
