//! Our types in the contract's words.

use bytes::Bytes;
use murmur_core::outbox::Row;
use murmur_proto::{node::v1, time::timestamp};

use crate::{
    events::AgentEvent,
    post::{
        DeliveryView, Direction, FileInfo, InboxMessage, Listed, MessageKind, Outcome, Place, Redriven, StateName,
        TailItem, Transfer, TransferState, Waiting, view,
    },
    store::quarantine::QuarantineRow,
};

pub(super) fn message(message: InboxMessage) -> v1::Message {
    let InboxMessage {
        msg_id,
        conversation_id,
        kind,
        from,
        from_agent_id,
        to,
        tier,
        content_type,
        body,
        in_reply_to,
        created_ms,
        received_ms,
        sequence,
        cursor,
        redelivered,
        traceparent,
        deadline_ms,
        file: attached,
        gap,
    } = message;
    v1::Message {
        msg_id: msg_id.to_string(),
        conversation_id: conversation_id.to_string(),
        kind: kind_number(kind),
        from: from.into(),
        from_agent_id: from_agent_id.to_string(),
        tier: tier.to_string(),
        content_type,
        body,
        in_reply_to: in_reply_to.map(|id| id.to_string()).unwrap_or_default(),
        created_time: Some(timestamp(created_ms)),
        received_time: Some(timestamp(received_ms)),
        sequence,
        cursor,
        redelivered,
        traceparent,
        deadline_time: deadline_ms.map(timestamp),
        to: to.into(),
        file: attached.map(|attached| file(*attached)),
        gap,
    }
}

pub(super) fn event(event: AgentEvent) -> v1::AgentEvent {
    let AgentEvent { event, cursor, received_ms: _, replay, unread } = event;
    v1::AgentEvent { event: Some(event), cursor, replay, unread }
}

pub(super) fn file(info: FileInfo) -> v1::File {
    let FileInfo { stream_id, name, content_type, size, sha256, state, done, path, reason } = info;
    v1::File {
        transfer_id: stream_id.to_string(),
        name,
        content_type,
        size_bytes: size.unwrap_or_default(),
        sha256: sha256.map(|digest| digest.to_vec().into()).unwrap_or_default(),
        state: transfer_state(state).into(),
        done_bytes: done,
        path: path.unwrap_or_default(),
        reason: reason.unwrap_or_default(),
    }
}

const fn transfer_state(state: TransferState) -> v1::TransferState {
    match state {
        TransferState::Waiting => v1::TransferState::Waiting,
        TransferState::Active => v1::TransferState::Active,
        TransferState::Stalled => v1::TransferState::Stalled,
        TransferState::Done => v1::TransferState::Done,
        TransferState::Cancelled => v1::TransferState::Cancelled,
        TransferState::Failed => v1::TransferState::Failed,
    }
}

pub(super) fn transfer(transfer: Transfer) -> v1::Transfer {
    let Transfer { file: info, is_incoming, msg_id, from, to, created_ms, active_ms } = transfer;
    let direction = if is_incoming { v1::transfer::Direction::In } else { v1::transfer::Direction::Out };
    v1::Transfer {
        file: Some(file(info)),
        direction: direction.into(),
        msg_id: msg_id.to_string(),
        from,
        to,
        create_time: Some(timestamp(created_ms)),
        update_time: Some(timestamp(active_ms)),
    }
}

fn kind_number(kind: MessageKind) -> i32 {
    match kind {
        MessageKind::Message => v1::MessageKind::Message,
        MessageKind::Request => v1::MessageKind::Request,
        MessageKind::Reply => v1::MessageKind::Reply,
    }
    .into()
}

pub(super) fn state(state: StateName) -> i32 {
    match state {
        StateName::Queued => v1::DeliveryState::Queued,
        StateName::Sealed => v1::DeliveryState::Sealed,
        StateName::Stored => v1::DeliveryState::Stored,
        StateName::Delivered => v1::DeliveryState::Delivered,
        StateName::Read => v1::DeliveryState::Read,
        StateName::Expired => v1::DeliveryState::Expired,
        StateName::Dead => v1::DeliveryState::Dead,
        StateName::Cancelled => v1::DeliveryState::Cancelled,
    }
    .into()
}

pub(super) fn outcome(outcome: Outcome, unread: u64) -> v1::RequestOutcome {
    let Outcome { delivery, reply, timed_out, failure, unread: _ } = outcome;
    v1::RequestOutcome {
        delivery: state(delivery),
        reply: reply.map(message),
        timed_out,
        failure: failure.unwrap_or_default(),
        unread,
    }
}

pub(super) fn delivery(view: DeliveryView) -> v1::Delivery {
    let DeliveryView {
        to,
        to_agent_id,
        state: name,
        code,
        publish_tries,
        created_ms,
        delivered_ms,
        read_ms,
        expires_ms,
        stale_prekey,
    } = view;
    v1::Delivery {
        to: to.into(),
        to_agent_id: to_agent_id.to_string(),
        state: state(name),
        code: code.unwrap_or_default(),
        publish_tries,
        created_time: Some(timestamp(created_ms)),
        delivered_time: delivered_ms.map(timestamp),
        read_time: read_ms.map(timestamp),
        expire_time: Some(timestamp(expires_ms)),
        stale_prekey,
    }
}

pub(super) fn tail_item(item: TailItem) -> v1::TailResponse {
    let TailItem { direction, message: shown, state: name } = item;
    let direction = match direction {
        Direction::In => v1::tail_response::Direction::In,
        Direction::Out => v1::tail_response::Direction::Out,
    };
    v1::TailResponse {
        direction: direction.into(),
        message: Some(message(shown)),
        state: name.map_or(v1::DeliveryState::Unspecified.into(), state),
    }
}

pub(super) fn waiting(waiting: Waiting) -> v1::SentMessage {
    let Waiting { listed: found, waits_for } = waiting;
    v1::SentMessage { waits_for, ..listed(found) }
}

pub(super) fn listed(found: Listed) -> v1::SentMessage {
    let Listed { row, from, kind, bytes, letter } = found;
    let machine = Row::from(row.delivery.state);
    v1::SentMessage {
        msg_id: row.msg_id.to_string(),
        kind: kind_number(kind),
        from: from.into(),
        to: row.to_slug.as_str().to_owned(),
        seal_attempt: machine.seal_attempt,
        next_time: machine.next_at_ms.map(|at_ms| timestamp(at_ms.min(row.delivery.expires_ms))),
        waits_for: String::new(),
        size: bytes,
        dead_letter: letter
            .map(|letter| v1::DeadLetter { reason: letter.reason, dead_time: Some(timestamp(letter.at_ms)) }),
        delivery: Some(delivery(view(row))),
    }
}

pub(super) const fn place(found: &Listed) -> Place {
    (found.row.msg_id, found.row.recipient)
}

pub(super) fn redriven(redriven: Redriven) -> v1::Redriven {
    let Redriven { msg_id, redrive_of, to, to_agent_id, expires_ms } = redriven;
    v1::Redriven {
        msg_id: msg_id.to_string(),
        redrive_of: redrive_of.to_string(),
        to: to.into(),
        to_agent_id: to_agent_id.to_string(),
        expire_time: Some(timestamp(expires_ms)),
    }
}

/// What is known of an arrival, and its bytes.
pub(super) fn quarantined(row: QuarantineRow) -> (v1::Quarantined, Bytes) {
    let QuarantineRow { id, source, subject, size, bytes, reason, deliveries, at_ms } = row;
    let is_known = source.as_bytes() != &[0; 16];
    let arrival = v1::Quarantined {
        number: id,
        source_node_id: if is_known { source.to_string() } else { String::new() },
        subject,
        reason,
        size,
        deliveries,
        quarantine_time: Some(timestamp(at_ms)),
    };
    (arrival, bytes.into())
}
