//! Tables of other programs where ours should be. They are told from ours before anything is written.

use std::collections::{BTreeMap, BTreeSet};

use super::driver::{Driver, Migration, Row, Value};
use crate::base::error::StoreError;

/// Runs a query.
pub(crate) type Query<'a> = &'a mut dyn FnMut(&'static str, &[Value]) -> Result<Vec<Row>, StoreError>;

/// Where the recorded migrations are. Other programs have a table of this name too.
pub(crate) const HISTORY: &str = "schema_migrations";
const HISTORY_COLUMNS: [&str; 4] = ["version", "name", "checksum", "applied_at"];

/// What there is of the relations that matter, with their columns.
pub(crate) struct Found {
    relations: BTreeMap<String, BTreeSet<String>>,
    /// In which schema or file.
    place: String,
}

impl Found {
    /// In one query: if another instance migrates meanwhile, this is from before or from after.
    pub(crate) fn look<D: Driver>(query: Query<'_>) -> Result<Found, StoreError> {
        let ours = D::MIGRATIONS.iter().flat_map(made_by).chain([HISTORY]);
        let names: BTreeSet<&str> = ours.chain(PROGRAMS.iter().map(|program| program.relation)).collect();
        let names = names.into_iter().map(|name| Value::Text(name.to_string())).collect();
        let mut found = Found { relations: BTreeMap::new(), place: String::new() };
        for mut row in query(D::FIND_RELATIONS, &[Value::List(names)])? {
            let columns = found.relations.entry(row.text(0)?).or_default();
            columns.extend(row.optional_text(1)?);
            found.place = row.text(2)?;
        }
        Ok(found)
    }

    /// Whether migrations are recorded as we record them.
    pub(crate) fn has_history(&self) -> bool {
        let columns = self.relations.get(HISTORY);
        columns.is_some_and(|columns| HISTORY_COLUMNS.iter().all(|column| columns.contains(*column)))
    }

    /// Refuses a database in which something has a name that the missing migrations need.
    pub(crate) fn check<D: Driver>(&self, applied: usize, has_history: bool) -> Result<(), StoreError> {
        let (done, missing) = D::MIGRATIONS.split_at(applied);
        let ours: BTreeSet<&str> = done.iter().flat_map(made_by).collect();
        let needed = missing.iter().flat_map(made_by).filter(|name| !ours.contains(name));
        let needed: BTreeSet<&str> = needed.chain((!has_history).then_some(HISTORY)).collect();
        let taken: Vec<&str> = needed.into_iter().filter(|name| self.relations.contains_key(*name)).collect();
        if taken.is_empty() {
            return Ok(());
        }
        let (place, taken, elsewhere) = (&self.place, listed(&taken), D::ELSEWHERE);
        if applied > 0 {
            return Err(StoreError::Internal(format!(
                "{place} has {taken} of another program beside Keyward's tables, and this version needs the name; \
                 rename what is there. Nothing was changed"
            )));
        }
        Err(StoreError::Internal(format!(
            "{place} seems to belong to {}: it already has {taken}. Nothing was changed. {elsewhere}",
            self.owner()
        )))
    }

    /// Refuses a database whose recorded migrations are another program's.
    pub(crate) fn refuse_history<D: Driver>(&self) -> StoreError {
        let (place, owner, elsewhere) = (&self.place, self.owner(), D::ELSEWHERE);
        StoreError::Internal(format!(
            "{place} seems to belong to {owner}: its {HISTORY} is not Keyward's. Nothing was changed. {elsewhere}"
        ))
    }

    fn owner(&self) -> String {
        let known = PROGRAMS.iter().find(|program| {
            let columns = self.relations.get(program.relation);
            columns.is_some_and(|columns| match program.columns {
                Columns::Any => true,
                Columns::Among(names) => names.iter().all(|name| columns.contains(*name)),
                Columns::Only(names) => columns.iter().map(String::as_str).eq(names.iter().copied()),
            })
        });
        known.map_or("another program".to_string(), |program| {
            format!("{} (there is {})", program.name, program.relation)
        })
    }
}

fn listed(names: &[&str]) -> String {
    const NAMED: usize = 3;
    match names.len() {
        0..=NAMED => names.join(", "),
        count => format!("{} and {} more", names[..NAMED].join(", "), count - NAMED),
    }
}

/// The tables and indexes that a migration makes, by the names that it gives them first or last.
fn made_by(migration: &'static Migration) -> Vec<&'static str> {
    let code = migration.sql.lines().map(|line| line.split("--").next().unwrap_or_default());
    let words: Vec<&str> = code.flat_map(|line| line.split(|c: char| !(c.is_alphanumeric() || c == '_'))).collect();
    let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
    let made = words.windows(3).filter_map(|words| match words {
        ["CREATE", "TABLE", name] | ["UNIQUE" | "CREATE", "INDEX", name] | ["RENAME", "TO", name] => Some(*name),
        _ => None,
    });
    made.collect()
}

/// How a program can be told by what it leaves in a database.
struct Program {
    name: &'static str,
    relation: &'static str,
    columns: Columns,
}

enum Columns {
    Any,
    Among(&'static [&'static str]),
    /// In alphabetical order.
    Only(&'static [&'static str]),
}

const fn by_table(name: &'static str, relation: &'static str) -> Program {
    Program { name, relation, columns: Columns::Any }
}

const fn by_columns(name: &'static str, relation: &'static str, columns: &'static [&'static str]) -> Program {
    Program { name, relation, columns: Columns::Among(columns) }
}

/// The first that fits counts.
const PROGRAMS: [Program; 26] = [
    by_table("Rails", "ar_internal_metadata"),
    by_table("Django", "django_migrations"),
    by_table("Keycloak", "keycloak_role"),
    by_table("a program with Prisma", "_prisma_migrations"),
    by_table("a program with Alembic (SQLAlchemy)", "alembic_version"),
    by_table("a program with Flyway", "flyway_schema_history"),
    by_table("a program with Liquibase", "databasechangelog"),
    by_table("a program with Knex", "knex_migrations"),
    by_table("a program with Sequelize", "SequelizeMeta"),
    by_table("a program with Drizzle", "drizzle.__drizzle_migrations"),
    by_table("a program with sqlx", "_sqlx_migrations"),
    by_table("a program with Diesel", "__diesel_schema_migrations"),
    by_table("a program with goose", "goose_db_version"),
    by_table("a program with Entity Framework", "__EFMigrationsHistory"),
    by_table("a program with ASP.NET Identity", "AspNetUsers"),
    by_table("a program with Doctrine (Symfony)", "doctrine_migration_versions"),
    by_columns("Laravel", "migrations", &["migration", "batch"]),
    by_columns("the NestJS service that Keyward replaces", "api_keys", &["isActive", "expiresAt"]),
    by_columns("a program with TypeORM (NestJS)", "migrations", &["timestamp", "name"]),
    by_table("a program with TypeORM (NestJS)", "typeorm_metadata"),
    by_columns("a program with golang-migrate", "schema_migrations", &["version", "dirty"]),
    by_columns("a program with Ecto (Phoenix)", "schema_migrations", &["version", "inserted_at"]),
    Program {
        name: "a program with Rails or dbmate",
        relation: "schema_migrations",
        columns: Columns::Only(&["version"]),
    },
    by_columns("a program with Auth.js", "accounts", &["providerAccountId"]),
    by_columns("a program with Supabase", "auth.users", &["aud"]),
    by_columns("a program with TypeORM or Sequelize", "users", &["createdAt", "updatedAt"]),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::postgres::Postgres;
    use crate::store::sqlite::Sqlite;

    fn found(relations: &[(&str, &[&str])]) -> Found {
        let relations = relations
            .iter()
            .map(|(name, columns)| (name.to_string(), columns.iter().map(|column| column.to_string()).collect()));
        Found { relations: relations.collect(), place: "the schema public".to_string() }
    }

    #[test]
    fn a_program_is_told_by_what_it_leaves() {
        let users: (&str, &[&str]) = ("users", &["id", "email"]);
        for (relations, expected) in [
            (&[users][..], "another program"),
            (
                &[users, ("schema_migrations", &["version"])],
                "a program with Rails or dbmate (there is schema_migrations)",
            ),
            (
                &[users, ("schema_migrations", &["version"]), ("ar_internal_metadata", &["key"])],
                "Rails (there is ar_internal_metadata)",
            ),
            (
                &[("schema_migrations", &["version", "dirty"])],
                "a program with golang-migrate (there is schema_migrations)",
            ),
            (
                &[("schema_migrations", &["version", "inserted_at"])],
                "a program with Ecto (Phoenix) (there is schema_migrations)",
            ),
            (&[users, ("migrations", &["id", "migration", "batch"])], "Laravel (there is migrations)"),
            (
                &[users, ("migrations", &["id", "timestamp", "name"])],
                "a program with TypeORM (NestJS) (there is migrations)",
            ),
            (
                &[users, ("api_keys", &["id", "isActive", "expiresAt"])],
                "the NestJS service that Keyward replaces (there is api_keys)",
            ),
            (&[users, ("auth.users", &["id", "aud"])], "a program with Supabase (there is auth.users)"),
            (&[("schema_migrations", &["version", "tag"])], "another program"),
        ] {
            assert_eq!(found(relations).owner(), expected);
        }
    }

    #[test]
    fn only_names_that_missing_migrations_need_are_taken() {
        let check = |names: &[&str], applied: usize, has_history: bool| {
            let names: Vec<(&str, &[&str])> = names.iter().map(|name| (*name, &["id"][..])).collect();
            found(&names).check::<Postgres>(applied, has_history).map_err(|error| error.to_string())
        };
        assert_eq!(check(&[], 0, false), Ok(()));
        assert_eq!(check(&["django_migrations", "orders"], 0, false), Ok(()));
        let ours = ["users", "sessions", "api_keys", "schema_migrations", "api_keys_by_user", "key_hours_by_hour"];
        // Later migrations make some of these indexes again.
        assert_eq!(check(&ours, 2, true), Ok(()));
        let line = check(&ours, 0, false).unwrap_err();
        assert!(line.contains("already has api_keys, api_keys_by_user, key_hours_by_hour and 3 more."), "{line}");
        assert!(line.contains("CREATE SCHEMA keyward") && line.contains("?options=-csearch_path%3Dkeyward"), "{line}");
        let line = check(&["events", "users"], 2, true).unwrap_err();
        assert!(line.contains("has events of another program beside Keyward's tables"), "{line}");
    }

    #[test]
    fn the_names_that_migrations_make_are_found_in_them() {
        let sqlite: BTreeSet<&str> = Sqlite::MIGRATIONS.iter().flat_map(made_by).collect();
        let postgres: BTreeSet<&str> = Postgres::MIGRATIONS.iter().flat_map(made_by).collect();
        assert!(sqlite.contains("users") && sqlite.contains("users_by_deletion") && sqlite.contains("key_usage"));
        assert_eq!(sqlite, postgres);
    }
}
