//! The migrations of SQLite, in order.

use crate::store::driver::Migration;

pub(crate) const ALL: &[Migration] = &[
    Migration {
        version: 1,
        name: "users_sessions_keys",
        sql: include_str!("../../../sql/sqlite/0001_users_sessions_keys.sql"),
    },
    Migration { version: 2, name: "key_hours", sql: include_str!("../../../sql/sqlite/0002_key_hours.sql") },
    Migration { version: 3, name: "events", sql: include_str!("../../../sql/sqlite/0003_events.sql") },
    Migration { version: 4, name: "key_life", sql: include_str!("../../../sql/sqlite/0004_key_life.sql") },
    Migration { version: 5, name: "indexes", sql: include_str!("../../../sql/sqlite/0005_indexes.sql") },
    Migration {
        version: 6,
        name: "session_rotation",
        sql: include_str!("../../../sql/sqlite/0006_session_rotation.sql"),
    },
    Migration { version: 7, name: "key_ends", sql: include_str!("../../../sql/sqlite/0007_key_ends.sql") },
    Migration { version: 8, name: "deleted_users", sql: include_str!("../../../sql/sqlite/0008_deleted_users.sql") },
    Migration { version: 9, name: "session_epochs", sql: include_str!("../../../sql/sqlite/0009_session_epochs.sql") },
    Migration { version: 10, name: "grants", sql: include_str!("../../../sql/sqlite/0010_grants.sql") },
    Migration {
        version: 11,
        name: "email_spellings",
        sql: include_str!("../../../sql/sqlite/0011_email_spellings.sql"),
    },
    Migration { version: 12, name: "operators", sql: include_str!("../../../sql/sqlite/0012_operators.sql") },
    Migration { version: 13, name: "key_lists", sql: include_str!("../../../sql/sqlite/0013_key_lists.sql") },
    Migration { version: 14, name: "figures", sql: include_str!("../../../sql/sqlite/0014_figures.sql") },
    Migration { version: 15, name: "outbox", sql: include_str!("../../../sql/sqlite/0015_outbox.sql") },
    Migration { version: 16, name: "webhooks", sql: include_str!("../../../sql/sqlite/0016_webhooks.sql") },
    Migration { version: 17, name: "addresses", sql: include_str!("../../../sql/sqlite/0017_addresses.sql") },
    Migration { version: 18, name: "second_factors", sql: include_str!("../../../sql/sqlite/0018_second_factors.sql") },
    Migration { version: 19, name: "failures", sql: include_str!("../../../sql/sqlite/0019_failures.sql") },
    Migration { version: 20, name: "key_expiry", sql: include_str!("../../../sql/sqlite/0020_key_expiry.sql") },
];
