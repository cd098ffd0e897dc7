//! Accounts and keys: one made through the API, a million put into the tables.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;

use aws_lc_rs::digest;
use keyward::base::clock::Clock;
use keyward::base::id::{KeyId, UserId};
use keyward::keys::key::KeyHash;
use serde_json::{Value, json};

use crate::load::Keys;
use crate::process::ask;

pub const EMAIL: &str = "bench@example.com";
pub const PASSWORD: &str = "Password123!";

/// What the API gave to somebody who signed up and made a key.
pub struct Account {
    pub access: String,
    pub key: String,
}

impl Account {
    pub fn sign_up(address: SocketAddr) -> io::Result<Account> {
        Account::sign_up_as(address, EMAIL)
    }

    pub fn sign_up_as(address: SocketAddr, email: &str) -> io::Result<Account> {
        let body = json!({ "email": email, "password": PASSWORD });
        let access = text(&post(address, "/auth/signup", "", &body)?, "accessToken")?;
        let authorization = format!("authorization: Bearer {access}\r\n");
        let key = text(&post(address, "/keys/create", &authorization, &json!({ "name": "bench" }))?, "key")?;
        Ok(Account { access, key })
    }
}

pub fn text(body: &Value, name: &str) -> io::Result<String> {
    body[name].as_str().map(str::to_string).ok_or_else(|| io::Error::other(format!("no {name} in {body}")))
}

pub fn post(address: SocketAddr, path: &str, headers: &str, body: &Value) -> io::Result<Value> {
    let body = body.to_string();
    let answer = ask(
        address,
        &format!(
            "POST {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{headers}content-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        ),
    )?;
    let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    serde_json::from_str(body).map_err(io::Error::other)
}

/// How many keys each of the users has.
pub const KEYS_A_USER: usize = 100;

/// This many keys that look like any other, the same ones each time.
pub fn keys(count: usize) -> Keys {
    const LENGTH: usize = "sk_".len() + 64;
    let mut bytes = Vec::with_capacity(count * LENGTH);
    for number in 0..count {
        let secret = digest::digest(&digest::SHA256, &number.to_le_bytes());
        write!(bytes, "sk_{}", hex::encode(secret)).expect("memory takes everything");
    }
    Keys { bytes, length: LENGTH }
}

struct Stored {
    id: KeyId,
    owner: UserId,
    hash: KeyHash,
}

/// The rows of these keys, in the order in which the index on their hashes takes them quickest.
fn rows(keys: &Keys, owners: &[UserId], each: usize) -> Vec<Stored> {
    let hash = |number| KeyHash::of(keys.get(number)).expect("it is well-formed");
    let stored = |number: usize| Stored { id: KeyId::new(), owner: owners[number / each], hash: hash(number) };
    let mut rows: Vec<Stored> = (0..keys.count()).map(stored).collect();
    rows.sort_unstable_by(|a, b| a.hash.as_bytes().cmp(b.hash.as_bytes()));
    rows
}

fn owners(keys: &Keys, each: usize) -> Vec<UserId> {
    (0..keys.count().div_ceil(each)).map(|_| UserId::new()).collect()
}

/// Stores the keys and their owners, who have `each` of them, in a SQLite file that has been migrated and that no server
/// uses.
pub fn store_in_sqlite(file: &Path, keys: &Keys, each: usize) -> rusqlite::Result<()> {
    let now = Clock::default().now().to_string();
    let mut connection = rusqlite::Connection::open(file)?;
    connection.pragma_update(None, "synchronous", "OFF")?;
    connection.pragma_update(None, "cache_size", -500_000)?;
    let owners = owners(keys, each);
    let transaction = connection.transaction()?;
    {
        let mut insert = transaction.prepare(
            "INSERT INTO users (id, email, password_hash, is_active, created_at) VALUES (?1, ?2, 'none', 1, ?3)",
        )?;
        for owner in &owners {
            insert.execute((owner.to_string(), format!("{owner}@example.com"), &now))?;
        }
        let mut insert = transaction.prepare(
            "INSERT INTO api_keys (id, user_id, hash, hint, name, is_active, created_at) \
             VALUES (?1, ?2, ?3, 'sk_1a2b…9f0e', 'bench', 1, ?4)",
        )?;
        for row in rows(keys, &owners, each) {
            insert.execute((row.id.to_string(), row.owner.to_string(), row.hash.as_bytes(), &now))?;
        }
    }
    transaction.commit()?;
    connection.pragma_update(None, "wal_checkpoint", "TRUNCATE")?;
    Ok(())
}

/// Stores the keys and their owners, who have `each` of them, in a PostgreSQL database that has been migrated.
pub fn store_in_postgres(
    client: &mut postgres::Client,
    keys: &Keys,
    each: usize,
) -> Result<(), Box<dyn std::error::Error>> {
    let now = Clock::default().now().to_string();
    let owners = owners(keys, each);
    let mut copy = client.copy_in("COPY users (id, email, password_hash, is_active, created_at) FROM STDIN")?;
    for owner in &owners {
        writeln!(copy, "{owner}\t{owner}@example.com\tnone\tt\t{now}")?;
    }
    copy.finish()?;
    let mut copy = client.copy_in("COPY api_keys (id, user_id, hash, hint, name, is_active, created_at) FROM STDIN")?;
    for row in rows(keys, &owners, each) {
        let hash = hex::encode(row.hash.as_bytes());
        writeln!(copy, "{}\t{}\t\\\\x{hash}\tsk_1a2b…9f0e\tbench\tt\t{now}", row.id, row.owner)?;
    }
    copy.finish()?;
    client.batch_execute("VACUUM ANALYZE")?;
    Ok(())
}
