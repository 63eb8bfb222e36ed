//! Why a message is still on its way, in words for a person.

use murmur_core::outbox::{State, StateName};

use super::transition::BROKER_FULL;
use crate::{bus::Taking, directory::PeerTrouble, store::delivery::DeliveryRow};

/// What is known of the world that a delivery waits in.
pub(super) struct World {
    /// Why nothing can be sealed for the recipient, if so.
    pub(super) trouble: Option<PeerTrouble>,
    /// The recipient's node is connected.
    pub(super) node_online: bool,
    /// How far the broker takes what is published.
    pub(super) broker: Taking,
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
        (State::Queued { .. } | State::Sealed { .. }, _) => match (&world.broker, refused) {
            (Taking::Left, _) => "the end of the other process that runs as this node".to_owned(),
            (Taking::Away, _) => "the broker, which is away".to_owned(),
            (Taking::Nothing(why), _) => format!("the broker, which stores nothing: {why}"),
            (Taking::Yes, Some(BROKER_FULL)) => "room at the broker, for this recipient or at all".to_owned(),
            (Taking::Yes, Some(code)) => format!("the recipient answered {code}; it is tried again"),
            (Taking::Yes, None) => "its turn, or the broker's answer".to_owned(),
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
        let world = |broker| World { trouble: None, node_online: true, broker };
        let fine = world(Taking::Yes);
        let keyless = World { trouble: Some(PeerTrouble::NoKeys), ..world(Taking::Yes) };
        let cut = World { node_online: false, ..world(Taking::Away) };
        let stored =
            State::Stored { seal_attempt: 0, republish_count: 0, since_ms: 1, next_at_ms: 2, backoff_prev_ms: 0 };
        assert_eq!(said(State::new(0), None, &keyless), "nothing can be sealed for the recipient: it has no keys yet");
        assert_eq!(said(State::new(0), None, &cut), "the broker, which is away");
        assert!(said(State::new(0), None, &world(Taking::Left)).contains("other process"));
        assert!(said(State::new(0), None, &world(Taking::Nothing("no space".to_owned()))).ends_with("no space"));
        assert!(said(State::new(0), Some(BROKER_FULL), &fine).contains("room at the broker"));
        assert!(said(State::new(0), Some("INBOX_FULL"), &fine).contains("INBOX_FULL"));
        assert!(said(stored, None, &cut).contains("which is away"));
        assert_eq!(said(stored, Some("RATE_LIMITED"), &fine), "the recipient's receipt");
        assert_eq!(said(State::Read { at_ms: 1 }, None, &fine), "");
    }
}
