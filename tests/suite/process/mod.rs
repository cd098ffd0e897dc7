//! The program as a process: how it starts, what it refuses to start with, what it logs, and how it ends.

mod data_key;
mod log;
mod secrets;
mod settings;
mod starting;
mod stopping;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use keyward_harness::http_client::{self, Client};
use keyward_harness::program::{Home, finish};
use keyward_harness::service::PASSWORD;
use serde_json::{Value, json};

/// Starts the program with these settings and expects it to stop at once; returns the one line it says.
#[track_caller]
fn refusal(home: &Home, settings: &[(&str, &str)]) -> String {
    let finished = finish(home.command(&[]).envs(settings.iter().copied()), "");
    assert_eq!(finished.stdout, "");
    finished.failed(1).to_string()
}

fn credentials(email: &str) -> Value {
    json!({ "email": email, "password": PASSWORD })
}

/// A new key: its id and the key.
#[track_caller]
fn create_key(client: &Client, access: &str) -> (String, String) {
    let answer = client.post("/keys/create").bearer(access).json(json!({ "name": "ci" })).send();
    assert_eq!(answer.status, 201, "{answer:?}");
    let text = |name: &str| answer.json()[name].as_str().unwrap().to_string();
    (text("id"), text("key"))
}

/// Sends the head of a request and waits until the server asks for its body: from then on it is under way.
fn begin_post(address: SocketAddr, path: &str, headers: &str, body: &Value) -> (TcpStream, String) {
    let body = body.to_string();
    let mut stream = http_client::connect(address).unwrap();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         expect: 100-continue\r\n{headers}\r\n",
        body.len()
    )
    .unwrap();
    let mut interim = [0; "HTTP/1.1 100 Continue\r\n\r\n".len()];
    stream.read_exact(&mut interim).unwrap();
    assert_eq!(interim, *b"HTTP/1.1 100 Continue\r\n\r\n");
    (stream, body)
}
