//! The schema: every migration, in order. What was applied is remembered by number and checksum, so a file that was shipped never changes.
//!
//! Listed by hand: sqlx's macro for it would compile a second SQLite for the compiler's own use.

use sqlx::{
    SqlSafeStr as _,
    migrate::{Migration, MigrationType, Migrator},
};

/// Number, description and text.
type Entry = (i64, &'static str, &'static str);

const ENTRIES: [Entry; 12] = [
    (1, "directory", include_str!("../../../migrations/server/sqlite/0001_directory.sql")),
    (2, "lease", include_str!("../../../migrations/server/sqlite/0002_lease.sql")),
    (3, "agents", include_str!("../../../migrations/server/sqlite/0003_agents.sql")),
    (4, "tasks", include_str!("../../../migrations/server/sqlite/0004_tasks.sql")),
    (5, "events", include_str!("../../../migrations/server/sqlite/0005_events.sql")),
    (6, "webhooks", include_str!("../../../migrations/server/sqlite/0006_webhooks.sql")),
    (7, "turn due", include_str!("../../../migrations/server/sqlite/0007_turn_due.sql")),
    (8, "uploads", include_str!("../../../migrations/server/sqlite/0008_uploads.sql")),
    (9, "retention", include_str!("../../../migrations/server/sqlite/0009_retention.sql")),
    (10, "moved", include_str!("../../../migrations/server/sqlite/0010_moved.sql")),
    (11, "node event", include_str!("../../../migrations/server/sqlite/0011_node_event.sql")),
    (12, "revocation", include_str!("../../../migrations/server/sqlite/0012_revocation.sql")),
];

/// All of them.
pub(super) fn migrations() -> Migrator {
    let migration = |(version, description, sql): Entry| {
        Migration::new(version, description.into(), MigrationType::Simple, sql.into_sql_str(), false)
    };
    Migrator::with_migrations(ENTRIES.map(migration).into())
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use super::*;

    #[test]
    fn every_file_is_listed_once_and_in_order() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations/server/sqlite");
        let files: BTreeSet<_> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        let listed =
            ENTRIES.map(|(version, description, _)| format!("{version:04}_{}.sql", description.replace(' ', "_")));
        assert_eq!(listed.to_vec(), Vec::from_iter(files));
    }
}
