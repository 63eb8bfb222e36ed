//! Why a message is still on its way, in words for a person.

use murmur_core::outbox::{State, StateName};

use crate::{directory::PeerTrouble, store::delivery::DeliveryRow};

/// What is known of the world that a delivery waits in.
pub(super) struct World {
    /// Why nothing can be sealed for the recipient, if so.
    pub(super) trouble: Option<PeerTrouble>,
    /// The recipient's node is connected.
    pub(super) node_online: bool,
    /// The broker is connected.
    pub(super) broker_connected: bool,
}

/// What the delivery waits for; empty when it has ended.
pub(super) fn waits_for(row: &DeliveryRow, world: &World) -> String {
    let state = row.delivery.state;
    if !state.name().is_open() {
        return String::new();
    }
    let refused = row.code.as_deref().filter(|_| state.name() != StateName::Stored);
    match (state, &world.trouble) {
        (State::Queued { .. }, Some(trouble)) => format!("nothing can be sealed for the recipient: {trouble}"),
        (State::Queued { .. } | State::Sealed { .. }, _) if !world.broker_connected => "the broker is away".to_owned(),
        (State::Queued { .. } | State::Sealed { .. }, _) => match refused {
            Some(code) => format!("the recipient answered {code}; it is tried again"),
            None => "its turn, or the broker's answer".to_owned(),
        },
        _ if !world.node_online => "the recipient's node, which is away; the broker holds the message".to_owned(),
        _ => "the recipient's receipt".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use murmur_core::{
        id::{AgentId, MessageId},
        outbox::Delivery,
    };

    use super::*;

    fn said(state: State, code: Option<&str>, world: &World) -> String {
        let row = DeliveryRow {
            msg_id: MessageId::from_bytes([1; 16]),
            recipient: AgentId::from_bytes([2; 16]),
            sender: AgentId::from_bytes([3; 16]),
            to_slug: "/w/acme/u/jdoe/bob".parse().unwrap(),
            sequence: 1,
            delivery: Delivery { expires_ms: 9, state },
            published: 0,
            env_digest: None,
            code: code.map(ToOwned::to_owned),
            stale_prekey: false,
            fresh_prekey: None,
            created_ms: 1,
            delivered_ms: None,
            read_ms: None,
            copy_id: None,
        };
        waits_for(&row, world)
    }

    #[test]
    fn each_state_says_what_is_missing() {
        let fine = World { trouble: None, node_online: true, broker_connected: true };
        let keyless = World { trouble: Some(PeerTrouble::NoKeys), node_online: true, broker_connected: true };
        let cut = World { trouble: None, node_online: false, broker_connected: false };
        let stored =
            State::Stored { seal_attempt: 0, republish_count: 0, since_ms: 1, next_at_ms: 2, backoff_prev_ms: 0 };
        assert_eq!(said(State::new(0), None, &keyless), "nothing can be sealed for the recipient: it has no keys yet");
        assert_eq!(said(State::new(0), None, &cut), "the broker is away");
        assert!(said(State::new(0), Some("INBOX_FULL"), &fine).contains("INBOX_FULL"));
        assert!(said(stored, None, &cut).contains("which is away"));
        assert_eq!(said(stored, Some("RATE_LIMITED"), &fine), "the recipient's receipt");
        assert_eq!(said(State::Read { at_ms: 1 }, None, &fine), "");
    }
}
