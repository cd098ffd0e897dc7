//! What is in packaging/, run: the real gateways with the configurations that are shipped, Keyward on one side of them and a
//! service on the other. The service sees what Keyward has admitted, with Keyward's words on whose it is.

mod admission;
mod passing_on;
pub mod site;
mod unavailable;
mod upstream;

use std::collections::BTreeMap;
use std::io::{BufReader, Read, Write};
use std::net::Ipv4Addr;

use keyward_harness::http_client::{Answer, Request, connect, connect_from, read_answer};
use keyward_harness::service::Account;
use serde_json::json;

use site::Site;

/// A key, what it is worth, and whose it is.
struct Key {
    id: String,
    secret: String,
    owner: Account,
}

fn sign_up_with_key(site: &Site, scopes: &[&str]) -> Key {
    let owner = site.service.sign_up("ann@example.com");
    let created = site.service.create_key(&owner.access, json!({ "name": "ci", "scopes": scopes }));
    let text = |name: &str| created[name].as_str().unwrap().to_string();
    Key { id: text("id"), secret: text("key"), owner }
}

/// What the harness grants to every new user.
const GRANTED: &str = "%2A keys:verify";

/// As [`upstream::Seen::told`] has it.
fn told<const N: usize>(words: [(&str, &str); N]) -> BTreeMap<String, String> {
    let words = words.into_iter().filter(|(_, value)| !value.is_empty());
    words.map(|(name, value)| (format!("x_auth_{name}"), value.to_string())).collect()
}

impl Key {
    fn told(&self, scopes: &str) -> BTreeMap<String, String> {
        told([
            ("type", "service"),
            ("user_id", &self.owner.id),
            ("email", "ann@example.com"),
            ("email_verified", "false"),
            ("key_id", &self.id),
            ("key_name", "ci"),
            ("scopes", scopes),
        ])
    }
}

fn user_told(user: &Account) -> BTreeMap<String, String> {
    told([
        ("type", "user"),
        ("user_id", &user.id),
        ("email", &user.email),
        ("email_verified", "false"),
        ("scopes", GRANTED),
    ])
}

fn with_headers<'a>(request: Request<'a>, headers: &[(&str, String)]) -> Request<'a> {
    headers.iter().fold(request, |request, (name, value)| request.header(name, value))
}

/// The answer to these bytes, on a connection of their own.
#[track_caller]
fn exchange(site: &Site, bytes: &str) -> Answer {
    let mut connection = BufReader::new(connect(site.address()).unwrap());
    connection.get_mut().write_all(bytes.as_bytes()).unwrap();
    read_answer(&mut connection, false).unwrap_or_else(|error| panic!("{bytes:?}: {error}"))
}

/// All that comes for these bytes. Nothing more is sent after them: Envoy would wait a second for it.
fn last_exchange(site: &Site, bytes: &str) -> String {
    let mut stream = connect(site.address()).unwrap();
    stream.write_all(bytes.as_bytes()).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    // A client that is not understood may find its connection reset.
    let _ = stream.read_to_string(&mut answer);
    answer
}

/// The answer to a GET from this address of this machine.
#[track_caller]
fn get_from(site: &Site, from: Ipv4Addr, target: &str, lines: &str) -> Answer {
    send_from(site, from, &format!("GET {target} HTTP/1.1\r\nHost: here\r\n{lines}\r\n"))
}

#[track_caller]
fn send_from(site: &Site, from: Ipv4Addr, request: &str) -> Answer {
    let mut connection = BufReader::new(connect_from(from, site.address()).unwrap());
    connection.get_mut().write_all(request.as_bytes()).unwrap();
    read_answer(&mut connection, false).unwrap()
}
