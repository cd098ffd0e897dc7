//! Whether every page of the operators' lists costs the same: over a million users with a key each, the first, the middle
//! and the last page, on both databases.

use std::error::Error;

use keyward_harness::postgres_cluster::{Database, available};

use crate::data::{self, Account, EMAIL};
use crate::process::{Folder, SILENT, Server, on_postgres};
use crate::report::{table, title};
use crate::sections::{MILLION, Scenario, alternate, scenario, with_token};

const ROUNDS: usize = 9;
const SPAN: std::time::Duration = std::time::Duration::from_millis(500);
/// Few, so that a page's time is its own and not that of a queue.
const CONNECTIONS: usize = 1;

/// Five of sixteen keys are for one customer.
const EXTERNAL_IDS: &str = "UPDATE api_keys SET external_id = CASE WHEN SUBSTR(CAST(id AS TEXT), 36) < '5' THEN 'acme' \
                            ELSE 'customer-' || CAST(id AS TEXT) END";

/// The lists, and the table and condition of what is in them.
const LISTS: [(&str, &str); 5] = [
    ("/admin/users?", "FROM users"),
    ("/admin/users?kind=user&active=true&", "FROM users"),
    ("/admin/keys?", "FROM api_keys"),
    ("/admin/keys?externalId=acme&", "FROM api_keys WHERE external_id = 'acme'"),
    ("/admin/keys?status=usable&", "FROM api_keys"),
];

/// The ids behind which the middle and the last page of each list begin.
fn places(mut query: impl FnMut(&str) -> Result<String, Box<dyn Error>>) -> Result<Vec<[String; 2]>, Box<dyn Error>> {
    let mut places = Vec::new();
    for (_, rows) in LISTS {
        let count: usize = query(&format!("SELECT CAST(COUNT(*) AS TEXT) {rows}"))?.parse()?;
        let mut behind = |offset| query(&format!("SELECT CAST(id AS TEXT) {rows} ORDER BY id LIMIT 1 OFFSET {offset}"));
        places.push([behind(count / 2)?, behind(count - 101)?]);
    }
    Ok(places)
}

pub fn section() -> Result<(), Box<dyn Error>> {
    let keys = data::keys(MILLION);
    let folder = Folder::new("lists")?;
    drop(Server::keyward(&folder, &[SILENT])?);
    let file = folder.path("keyward.db");
    data::store_in_sqlite(&file, &keys, 1)?;
    let connection = rusqlite::Connection::open(&file)?;
    connection.execute(EXTERNAL_IDS, [])?;
    let places_in_sqlite = places(|sql| Ok(connection.query_row(sql, [], |row| row.get(0))?))?;
    drop(connection);
    pages("SQLite", &folder, &[SILENT], &places_in_sqlite)?;
    if !available() {
        return Ok(());
    }
    let (folder, database) = (Folder::new("lists-postgres")?, Database::fresh());
    let url = database.url();
    let settings = on_postgres(&url);
    drop(Server::keyward(&folder, &settings)?);
    let mut client = database.client();
    data::store_in_postgres(&mut client, &keys, 1)?;
    client.batch_execute(EXTERNAL_IDS)?;
    client.batch_execute("VACUUM ANALYZE")?;
    let places = places(|sql| Ok(client.query_one(sql, &[])?.get(0)))?;
    pages("PostgreSQL", &folder, &settings, &places)
}

fn pages(
    store: &str,
    folder: &Folder,
    settings: &[(&str, &str)],
    places: &[[String; 2]],
) -> Result<(), Box<dyn Error>> {
    let server = Server::keyward(folder, settings)?;
    let operator = Account::sign_up(server.address)?;
    Server::operate(folder, settings, &["user", "grant", EMAIL, "keyward:admin"])?;
    for ((list, _), [middle, last]) in LISTS.into_iter().zip(places) {
        title(&format!("{store}, a million users with a key each: pages of a hundred of {list}"));
        let page = |name, after: &str| -> Scenario<'_> {
            let after = if after.is_empty() { String::new() } else { format!("&after={after}") };
            scenario(name, &server, &with_token(&format!("{list}limit=100{after}"), &operator.access))
        };
        let mut scenarios = [page("the first", ""), page("the middle", middle), page("the last", last)];
        table(&alternate(&mut scenarios, CONNECTIONS, ROUNDS, SPAN)?);
    }
    title(&format!("{store}, a million users with a key each: /admin/stats"));
    let stats = scenario("counted a moment ago", &server, &with_token("/admin/stats", &operator.access));
    table(&alternate(&mut [stats], CONNECTIONS, 1, SPAN)?);
    Ok(())
}
