//! What the functions of this room share.

use crate::{clock::Clock, db::Db};

/// The checklists of this control plane.
pub struct Tasks {
    pub(super) db: Db,
    pub(super) clock: Clock,
}

impl Tasks {
    /// The room over a database.
    #[must_use]
    pub const fn new(db: Db, clock: Clock) -> Self {
        Self { db, clock }
    }
}
