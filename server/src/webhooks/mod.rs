//! The webhooks room: what code hosts and others post becomes events of the agents that work on the repository (PROTOCOL §6.6).
//!
//! A delivery is raw bytes until its signature holds ([`check`]). Then it is read by the rules of whoever sent it ([`github`], [`gitlab`],
//! [`generic`]) into a [`report`], which says nothing that the shape of the body does not bear out. What the source does not list is
//! dropped; words of somebody who is not listed are recorded and withheld. The rest is whole or not at all, in a transaction that deliveries
//! share: the repeat is known, the pull request is written down, the events stand in the agents' logs.

mod check;
mod deliver;
mod error;
mod generic;
mod github;
mod gitlab;
mod lists;
mod manage;
mod moment;
mod report;
mod room;
mod route;
mod sample;
mod secret;
mod take;

pub use error::{TakeError, WebhookError};
pub use manage::{Changes, NewWebhook};
pub use room::Webhooks;
pub use sample::{Place, Sample};
pub use take::{Answer, Head, Took};
