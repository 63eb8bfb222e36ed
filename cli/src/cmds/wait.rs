//! `--wait`: following the delivery of a message until it got as far as the caller wants to know.

use std::time::Duration;

use clap::ValueEnum;
use murmur_proto::{
    client::NodeClient,
    node::v1::{Delivery, DeliveryState, WatchDeliveryRequest},
};

use crate::{duration, exit::Exit, failure::Failure, view};

/// What `--wait` waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum WaitFor {
    /// The recipient's node has verified and stored it
    Delivered,
    /// It was handed to the agent
    Read,
}

impl WaitFor {
    const fn state(self) -> DeliveryState {
        match self {
            Self::Delivered => DeliveryState::Delivered,
            Self::Read => DeliveryState::Read,
        }
    }

    const fn is_reached(self, state: DeliveryState) -> bool {
        matches!((state, self), (DeliveryState::Read, _) | (DeliveryState::Delivered, Self::Delivered))
    }
}

/// Follows the delivery until it is where it should be. That it can never get there, or did not in time, is a failure.
pub(crate) async fn until(
    node: &mut NodeClient,
    agent: &str,
    msg_id: &str,
    wait: WaitFor,
    timeout: Duration,
) -> Result<Vec<Delivery>, Failure> {
    let request =
        WatchDeliveryRequest { agent: agent.to_owned(), msg_id: msg_id.to_owned(), until: wait.state().into() };
    let mut states = node.messages.watch_delivery(request).await?.into_inner();
    let mut last = Vec::new();
    let follow = async {
        while let Some(item) = states.message().await? {
            last = item.deliveries;
            if last.iter().all(|delivery| view::is_final(delivery.state()) || wait.is_reached(delivery.state())) {
                return Ok(());
            }
        }
        let what = format!("the node ended the call before message {msg_id} was {}", view::state(wait.state()));
        Err(Failure::new(Exit::Unavailable, what)
            .remedy(format!("It is still being delivered. Look again with `murmurctl message {msg_id}`.")))
    };
    let in_time = tokio::time::timeout(timeout, follow).await;
    match in_time {
        Ok(followed) => followed?,
        Err(_) => return Err(late(&last, msg_id, timeout)),
    }
    match last.iter().find(|delivery| !wait.is_reached(delivery.state())) {
        None => Ok(last),
        Some(ended) => Err(failed(ended, msg_id)),
    }
}

fn late(last: &[Delivery], msg_id: &str, timeout: Duration) -> Failure {
    let state = last.iter().map(Delivery::state).find(|state| !view::is_final(*state));
    let what = match state {
        Some(DeliveryState::Delivered) => "It has arrived, and nobody has read it yet.",
        _ => "It is still being delivered.",
    };
    let state = state.map_or("unknown", view::state);
    Failure::new(Exit::Timeout, format!("message {msg_id} is {state} after {}", duration::show(timeout)))
        .remedy(format!("{what} Look again with `murmurctl message {msg_id}`."))
}

fn failed(delivery: &Delivery, msg_id: &str) -> Failure {
    let code = view::some(&delivery.code).map(|code| format!(": {code}")).unwrap_or_default();
    let exit = if delivery.state() == DeliveryState::Expired { Exit::Timeout } else { Exit::Failed };
    let failure = Failure::new(exit, format!("message {msg_id} is {}{code}", view::state(delivery.state())));
    if delivery.state() == DeliveryState::Cancelled {
        return failure.remedy("Somebody took it back; send it again if it still matters.");
    }
    failure.remedy(format!("`murmurctl dlq show {msg_id}` tells more; `murmurctl dlq redrive {msg_id}` tries again."))
}
