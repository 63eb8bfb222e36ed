//! `--wait`: following the delivery of a message until it got as far as the caller wants to know, over the node's restarts.

use std::time::Duration;

use clap::ValueEnum;
use murmur_core::reason::Reason;
use murmur_proto::{
    client::NodeClient,
    node::v1::{Delivery, DeliveryState, WatchDeliveryRequest},
};

use crate::{
    args::Speaker,
    comeback::Comeback,
    connect::Target,
    duration,
    exit::Exit,
    failure::{Failure, OwnReason},
    view,
};

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

/// What is waited for.
pub(crate) struct Wait<'a> {
    pub(crate) target: &'a Target,
    pub(crate) speaker: &'a Speaker,
    pub(crate) msg_id: &'a str,
    pub(crate) state: WaitFor,
    pub(crate) timeout: Duration,
}

impl Wait<'_> {
    /// Follows the delivery until it is where it should be, over the node's restarts. That it can never get there, or did not in time, is a
    /// failure.
    pub(crate) async fn until(&self, node: NodeClient) -> Result<Vec<Delivery>, Failure> {
        let mut last = Vec::new();
        let mut is_away = false;
        let followed = tokio::select! {
            followed = tokio::time::timeout(self.timeout, self.follow(node, &mut last, &mut is_away)) => followed,
            _ = tokio::signal::ctrl_c() => return Err(self.interrupted()),
        };
        match followed {
            Ok(followed) => followed.map_err(|failure| failure.about(self.msg_id))?,
            Err(_) if is_away => return Err(self.lost()),
            Err(_) => return Err(self.late(&last)),
        }
        match last.iter().find(|delivery| !self.state.is_reached(delivery.state())) {
            None => Ok(last),
            Some(ended) => Err(failed(ended, self.msg_id)),
        }
    }

    /// Waits on when the node is back; `is_away` says that it is not.
    async fn follow(&self, mut node: NodeClient, last: &mut Vec<Delivery>, is_away: &mut bool) -> Result<(), Failure> {
        let mut comeback = Comeback::new();
        loop {
            let failure = match self.attempt(&mut node, last, &mut comeback).await {
                Ok(()) => return Ok(()),
                Err(failure) => failure,
            };
            *is_away = true;
            node = comeback.reopen(failure, async || self.target.node_as(self.speaker).await).await?;
            *is_away = false;
        }
    }

    /// One stream of changes, to where the delivery should be.
    async fn attempt(
        &self,
        node: &mut NodeClient,
        last: &mut Vec<Delivery>,
        comeback: &mut Comeback,
    ) -> Result<(), Failure> {
        let (agent, msg_id) = (self.speaker.agent.clone(), self.msg_id.to_owned());
        let request = WatchDeliveryRequest { agent, msg_id, until: self.state.state().into() };
        let mut states = node.messages.watch_delivery(request).await?.into_inner();
        while let Some(item) = states.message().await? {
            comeback.arrived();
            *last = item.deliveries;
            let is_over = |state| view::is_final(state) || self.state.is_reached(state);
            if last.iter().all(|delivery| is_over(delivery.state())) {
                return Ok(());
            }
        }
        Err(Failure::new(Exit::Unavailable, "the node ended the call"))
    }

    /// How to look again.
    fn again(&self) -> String {
        format!("`murmurctl message {}{}`", self.msg_id, self.speaker.options())
    }

    fn late(&self, last: &[Delivery]) -> Failure {
        let Self { msg_id, timeout, .. } = self;
        let state = last.iter().map(Delivery::state).find(|state| !view::is_final(*state));
        let what = match state {
            Some(DeliveryState::Delivered) => "It has arrived, and nobody has read it yet.",
            _ => "It is still being delivered.",
        };
        let state = state.map_or("unknown", view::state);
        Failure::new(Exit::Timeout, format!("message {msg_id} is {state} after {}", duration::show(*timeout)))
            .own_reason(OwnReason::WaitTimedOut)
            .about(msg_id)
            .remedy(format!("{what} Look again with {}.", self.again()))
    }

    fn lost(&self) -> Failure {
        Failure::new(Exit::Unavailable, format!("the node went away with message {}", self.msg_id))
            .reason(Reason::NodeDown)
            .about(self.msg_id)
            .remedy(format!(
                "It is on the node's disk, and on its way when the node is back. Look again with {}.",
                self.again()
            ))
    }

    fn interrupted(&self) -> Failure {
        Failure::new(Exit::Interrupted, format!("interrupted; message {} goes on its way", self.msg_id))
            .own_reason(OwnReason::Interrupted)
            .about(self.msg_id)
            .remedy(format!("Look again with {}.", self.again()))
    }
}

fn failed(delivery: &Delivery, msg_id: &str) -> Failure {
    let code = view::some(&delivery.code).map(|code| format!(": {code}")).unwrap_or_default();
    let exit = if delivery.state() == DeliveryState::Expired { Exit::Timeout } else { Exit::Failed };
    let what = format!("message {msg_id} is {}{code}", view::state(delivery.state()));
    let failure = Failure::new(exit, what).about(msg_id);
    if delivery.state() == DeliveryState::Cancelled {
        return failure.remedy("Somebody took it back; send it again if it still matters.");
    }
    failure.remedy(format!("`murmurctl dlq show {msg_id}` tells more; `murmurctl dlq redrive {msg_id}` tries again."))
}
