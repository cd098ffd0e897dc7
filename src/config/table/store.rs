//! Which database.

use std::path::PathBuf;

use super::read::{path, secret, text, whole_number};
use crate::config::setting::{ALWAYS, Setting};
use crate::config::settings::Config;
use crate::store::postgres::TlsMode;
use crate::store::settings::Database;

fn with_sqlite(config: &Config) -> Result<(), &'static str> {
    match (&config.store.url, &config.store.host) {
        (None, None) => Ok(()),
        _ => Err("the database is PostgreSQL"),
    }
}

fn without_url(config: &Config) -> Result<(), &'static str> {
    if config.store.url.is_some() { Err("DATABASE_URL is set, and wins over it") } else { Ok(()) }
}

pub(super) static SETTINGS: &[Setting] = &[
    Setting {
        name: "KEYWARD_DB",
        default: Some("keyward.db"),
        accepts: "a path",
        meaning: "SQLite file, used when neither DATABASE_URL nor DB_HOST is set",
        secret: false,
        counts: with_sqlite,
        read: |config, value| {
            if value.starts_with(':') || value.starts_with("file:") {
                return Err("is not the path of a file".to_string());
            }
            config.store.sqlite_file = PathBuf::from(value);
            Ok(())
        },
    },
    Setting {
        name: "DATABASE_URL",
        default: None,
        accepts: "postgres://user:password@host:port/name, also with ?sslmode=, sslrootcert= and options=-csearch_path%3DSCHEMA",
        meaning: "PostgreSQL as one URL; wins over DB_*",
        secret: true,
        counts: ALWAYS,
        read: |config, value| secret(&mut config.store.url, value),
    },
    Setting {
        name: "DATABASE_URL_DIRECT",
        default: None,
        accepts: "as DATABASE_URL",
        meaning: "The same database, past the pooler (PgBouncer) that DATABASE_URL names; used for migrations and notifications",
        secret: true,
        counts: ALWAYS,
        read: |config, value| secret(&mut config.store.direct_url, value),
    },
    Setting {
        name: "DB_HOST",
        default: None,
        accepts: "a host name, an IP address or the directory of a Unix socket",
        meaning: "PostgreSQL's host; without it and DATABASE_URL, SQLite is used",
        secret: false,
        counts: without_url,
        read: |config, value| text(&mut config.store.host, value),
    },
    Setting {
        name: "DB_PORT",
        default: Some("5432"),
        accepts: "1 to 65535",
        meaning: "PostgreSQL's port",
        secret: false,
        counts: without_url,
        read: |config, value| whole_number(value, 1..=65535).map(|port| config.store.port = port),
    },
    Setting {
        name: "DB_USERNAME",
        default: None,
        accepts: "a role's name",
        meaning: "PostgreSQL's user",
        secret: false,
        counts: without_url,
        read: |config, value| text(&mut config.store.user, value),
    },
    Setting {
        name: "DB_PASSWORD",
        default: None,
        accepts: "a text",
        meaning: "The user's password",
        secret: true,
        counts: without_url,
        read: |config, value| secret(&mut config.store.password, value),
    },
    Setting {
        name: "DB_NAME",
        default: None,
        accepts: "a database's name",
        meaning: "PostgreSQL's database",
        secret: false,
        counts: without_url,
        read: |config, value| text(&mut config.store.name, value),
    },
    Setting {
        name: "DB_SSLMODE",
        default: Some("prefer"),
        accepts: TlsMode::NAMES,
        meaning: "TLS to PostgreSQL, with libpq's meanings; only verify-full checks the server's identity",
        secret: false,
        counts: |config| match config.store.database() {
            _ if config.store.urls_have("sslmode") => Err("DATABASE_URL has an sslmode of its own"),
            Ok(Database::Postgres(target)) if target.is_local() => Err("there is no TLS over a Unix socket"),
            _ => Ok(()),
        },
        read: |config, value| {
            config.store.tls_mode = TlsMode::parse(value).ok_or("is not one of them")?;
            Ok(())
        },
    },
    Setting {
        name: "DB_SSLROOTCERT",
        default: None,
        accepts: "the path of a PEM file",
        meaning: "Certificate authorities that verify-full trusts; if set, require checks the server's chain against them too",
        secret: false,
        counts: |config| match config.store.database() {
            _ if config.store.urls_have("sslrootcert") => Err("DATABASE_URL has an sslrootcert of its own"),
            Ok(Database::Postgres(target)) if target.is_local() => Err("there is no TLS over a Unix socket"),
            Ok(Database::Postgres(target)) if !target.checks_server() => {
                Err("with the modes disable and prefer, nothing checks which server answers")
            }
            _ => Ok(()),
        },
        read: |config, value| path(&mut config.store.root_cert, value),
    },
];
