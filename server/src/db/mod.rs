//! The database room: the only one that names sqlx and rusqlite, a file per table group.
//!
//! One writer connection, so that nobody meets a busy database, a pool of readers that each see a consistent snapshot, and short looks.
//! A connection that fails is closed and opened anew.
//! Every query is bounded by a workspace, except where a credential is looked up by its own secret and for the administrator.
//! Time is an argument.

pub mod account;
pub mod agent;
pub mod agent_key;
pub mod agent_link;
pub mod agent_pruned;
pub mod agent_run;
mod error;
pub mod event;
pub mod event_repo;
pub mod follow_up;
mod health;
pub mod idempotency;
pub mod invite;
pub mod lease;
mod look;
pub mod meta;
pub mod node;
pub mod node_event;
pub mod node_order;
pub mod node_runtime;
mod open;
pub mod pull_request;
mod reader;
pub mod revocation_list;
mod row;
mod schema;
mod source;
pub mod task;
pub mod timeline;
pub mod token;
pub mod tunnel;
pub mod upload;
pub mod webhook;
pub mod webhook_delivery;
pub mod workspace;

pub use error::{DbError, is_full};
pub use health::{Health, Trouble};
pub use look::Look;
pub use open::{Conn, Db, Tx};
pub use reader::Reading;
pub use source::{Decode, Holder, Row, Source, Value};
