//! Whether time tells who has an account: the medians of resets, and of refused logins, for addresses that have one and for
//! addresses that have none, in turn.

use std::error::Error;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use keyward::base::clock::Clock;
use keyward::base::id::UserId;
use keyward_harness::postgres_cluster::{Database, available};
use serde_json::{Value, json};

use crate::load::{Clients, Keys, Requests};
use crate::process::{Folder, SILENT, Server, on_postgres};
use crate::report::{median, title};

/// How many addresses of either kind.
const ADDRESSES: usize = 1000;
/// A refused login takes as long as hashing a password.
const LOGINS: usize = 200;

pub fn section() -> Result<(), Box<dyn Error>> {
    let mail = accept_mail()?.to_string();
    let smtp = format!("smtp://{mail}?tls=none");
    let mail = [
        ("SMTP_URL", smtp.as_str()),
        ("MAIL_FROM", "keyward@example.com"),
        ("PUBLIC_URL", "https://keyward.example.com"),
        ("RATE_LIMIT_MAIL", "off"),
        ("RATE_LIMIT_LOGIN", "off"),
    ];
    let known = addresses("has-one");
    let folder = Folder::new("resets")?;
    let settings: Vec<_> = [SILENT].into_iter().chain(mail).collect();
    drop(Server::keyward(&folder, &settings)?);
    let connection = rusqlite::Connection::open(folder.path("keyward.db"))?;
    connection.execute_batch(&accounts(&known)?)?;
    drop(connection);
    known_and_unknown("SQLite", &Server::keyward(&folder, &settings)?, &known)?;
    if !available() {
        return Ok(());
    }
    let (folder, database) = (Folder::new("resets-postgres")?, Database::fresh());
    let url = database.url();
    let settings: Vec<_> = on_postgres(&url).into_iter().chain(mail).collect();
    drop(Server::keyward(&folder, &settings)?);
    database.client().batch_execute(&accounts(&known)?)?;
    known_and_unknown("PostgreSQL", &Server::keyward(&folder, &settings)?, &known)
}

/// Addresses of one length.
fn addresses(kind: &str) -> Keys {
    let text = |number| format!("{kind}-{number:04}@example.com");
    Keys { bytes: (0..ADDRESSES).map(text).collect::<String>().into(), length: text(0).len() }
}

/// A statement that gives each of them an account, for either database.
fn accounts(addresses: &Keys) -> Result<String, Box<dyn Error>> {
    let (hash, now) = (bcrypt::hash("a Password 123!", 10)?, Clock::default().now());
    let row = |number| {
        let email = String::from_utf8_lossy(addresses.get(number));
        format!("('{}', '{email}', '{hash}', TRUE, '{now}')", UserId::new())
    };
    let rows: Vec<String> = (0..addresses.count()).map(row).collect();
    let columns = "id, email, password_hash, is_active, created_at";
    Ok(format!("INSERT INTO users ({columns}) VALUES {}", rows.join(", ")))
}

fn known_and_unknown(store: &str, server: &Server, known: &Keys) -> Result<(), Box<dyn Error>> {
    let unknown = addresses("has-not");
    title(&format!("{store}: addresses with an account, and without one, in turn"));
    let reset = post("/auth/forgot-password", &json!({ "email": "KEY" }), known.length);
    let log_in = post("/auth/login", &json!({ "email": "KEY", "password": "wrong" }), known.length);
    for (name, request, status, count) in [
        ("resets, for the first time", &reset, 202, ADDRESSES),
        ("resets, again within five minutes", &reset, 202, ADDRESSES),
        ("logins with a wrong password", &log_in, 401, LOGINS),
    ] {
        let mut times = [Vec::new(), Vec::new()];
        let mut client = Clients::connect(server.address, 1)?;
        for number in 0..count {
            // Either is first as often as the other, in no order.
            let first = (number.wrapping_mul(0x9e37_79b9) >> 16) % 2;
            for kind in [first, 1 - first] {
                let addresses = [known, &unknown][kind];
                let mut asked = Requests::each(request, addresses, number);
                let seen = client.run(&mut asked, Duration::ZERO, &[status])?;
                times[kind].push(seen.percentile(50.0).as_secs_f64() * 1e3);
            }
        }
        let [known, unknown] = times.map(median);
        println!(
            "  {name:<36} p50 {known:.3} ms with, {unknown:.3} ms without: {:+.1} % (of {count} each)",
            (known / unknown - 1.0) * 100.0
        );
    }
    Ok(())
}

/// A request whose `KEY` stands for a text of this length.
fn post(path: &str, body: &Value, length: usize) -> String {
    let body = body.to_string();
    let length = body.len() - "KEY".len() + length;
    format!(
        "POST {path} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

/// A mail server that takes everything, for as long as the process lives.
fn accept_mail() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || converse(&stream));
        }
    });
    Ok(address)
}

/// RFC 5321, as far as a client needs it that does nothing wrong.
fn converse(mut stream: &TcpStream) -> io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    stream.write_all(b"220 bench\r\n")?;
    while let Some(line) = lines.next().transpose()? {
        let answer: &[u8] = match line.get(..4).unwrap_or_default().to_ascii_uppercase().as_str() {
            "DATA" => {
                stream.write_all(b"354 go on\r\n")?;
                while lines.next().transpose()?.is_some_and(|line| line != ".") {}
                b"250 taken\r\n"
            }
            "QUIT" => b"221 bye\r\n",
            _ => b"250 bench\r\n",
        };
        stream.write_all(answer)?;
    }
    Ok(())
}
