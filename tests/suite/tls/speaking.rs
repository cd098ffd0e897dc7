//! What is spoken with TLS and what is not.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Stdio;
use std::time::{Duration, Instant};

use keyward::http::limits::Limits;
use keyward_harness::http_client::{Client, PATIENCE, connect, raw, read_answer};
use keyward_harness::openapi;
use keyward_harness::service::{Backend, PASSWORD, Service, TempDir, error};
use keyward_harness::tls_client::{Pair, Secure, TlsWire, openssl};
use keyward_harness::tools::{Tool, installed};
use serde_json::{Value, json};

use super::{GET_HEALTH, SHORT, SLACK, redirected};

/// What `openssl s_client` says of a handshake with these options.
fn handshake(address: SocketAddr, options: &[&str]) -> String {
    let mut command = openssl(&["s_client", "-connect", &address.to_string(), "-servername", "localhost"]);
    // The oldest that the client itself still knows.
    command.args(["-cipher", "ALL:COMPLEMENTOFALL:@SECLEVEL=0"]).args(options).stdin(Stdio::null());
    let output = command.output().unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

fn succeeds(said: &str) -> bool {
    said.contains("Server certificate") && !said.contains("Cipher is (NONE)")
}

#[test]
fn tls_1_2_and_1_3_are_spoken_and_nothing_older() {
    if !installed(&[Tool::Openssl]) {
        return;
    }
    let secure = Secure::start(&[], |_| {});
    for (option, version) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let said = handshake(secure.address(), &[option]);
        assert!(succeeds(&said) && said.contains(&format!("New, {version}, Cipher is")), "{said}");
    }
    for option in ["-tls1", "-tls1_1"] {
        let said = handshake(secure.address(), &[option]);
        assert!(!succeeds(&said) && said.contains("SSL alert number"), "{option}: {said}");
    }
}

#[test]
fn only_suites_with_forward_secrecy_and_authenticated_encryption_are_spoken() {
    if !installed(&[Tool::Openssl]) {
        return;
    }
    let folder = TempDir::fresh();
    // Most of what is weak needs a key for RSA.
    let pair = Pair::make_with(folder.path(), "server", &["-newkey", "rsa:2048", "-days", "30"]);
    let secure = Secure::start_with(folder, pair, &[], |_| {});
    for strong in ["ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-CHACHA20-POLY1305"] {
        let said = handshake(secure.address(), &["-tls1_2", "-cipher", strong]);
        assert!(said.contains(&format!("Cipher is {strong}")), "{strong}: {said}");
    }
    for weak in [
        "AES128-SHA",
        "AES128-GCM-SHA256",
        "ECDHE-RSA-AES128-SHA",
        "ECDHE-RSA-AES256-SHA384",
        "DHE-RSA-AES128-GCM-SHA256",
        "ADH-AES128-GCM-SHA256",
        "AECDH-AES128-SHA",
        "NULL-SHA256",
    ] {
        let said = handshake(secure.address(), &["-tls1_2", "-cipher", &format!("{weak}:@SECLEVEL=0")]);
        assert!(!succeeds(&said) && said.contains("alert handshake failure"), "{weak}: {said}");
    }
}

#[test]
fn there_is_no_compression_and_no_renegotiation() {
    if !installed(&[Tool::Openssl]) {
        return;
    }
    let secure = Secure::start(&[], |_| {});
    let said = handshake(secure.address(), &["-tls1_2", "-comp"]);
    assert!(said.contains("Compression: NONE") && said.contains("Secure Renegotiation IS supported"), "{said}");

    let mut command = openssl(&["s_client", "-connect", &secure.address().to_string(), "-tls1_2"]);
    let mut client = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut input = client.stdin.take().unwrap();
    // A line of this one letter asks for a new handshake.
    input.write_all(b"R\n").unwrap();
    let mut said = String::new();
    client.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(!client.wait().unwrap().success() && said.contains("no renegotiation"), "{said}");
}

#[test]
fn the_client_chooses_http_2_or_http_1_1_and_nothing_else() {
    if !installed(&[Tool::Openssl]) {
        return;
    }
    let secure = Secure::start(&[], |_| {});
    for (offered, chosen) in [
        (&["h2", "http/1.1"][..], Some("h2")),
        (&["http/1.1", "h2"], Some("h2")),
        (&["http/1.1"], Some("http/1.1")),
        (&["spdy/3", "http/1.1"], Some("http/1.1")),
        (&[], None),
    ] {
        let mut wire = secure.connect(offered);
        assert_eq!(wire.protocol(), chosen, "{offered:?}");
        if chosen != Some("h2") {
            assert_eq!(wire.send(GET_HEALTH).send(GET_HEALTH).answer().status, 200, "{offered:?}");
            assert_eq!(wire.answer().status, 200, "the connection is kept");
        }
    }
    let said = handshake(secure.address(), &["-alpn", "spdy/3"]);
    assert!(!succeeds(&said) && said.contains("no application protocol"), "{said}");
}

/// An answer as `curl` shows it, without what differs from one to the next or belongs to a version of HTTP alone.
fn curl(secure: &Secure, version: &str, arguments: &[&str], path: &str) -> (String, Vec<String>, Value) {
    let said = secure.curl(&[&[version, "-i"], arguments].concat(), path);
    let (head, body) = said.split_once("\r\n\r\n").unwrap();
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').take(2).collect::<Vec<_>>().join(" ");
    let of_this_answer = ["date", "x-request-id", "connection", "ratelimit"];
    let mut fields: Vec<String> =
        lines.filter(|line| !of_this_answer.contains(&line.split(':').next().unwrap())).map(str::to_string).collect();
    fields.sort();
    (status, fields, serde_json::from_str(body).unwrap_or(Value::Null))
}

#[test]
fn a_session_with_http_2_is_the_same_as_with_http_1_1() {
    if !installed(&[Tool::Curl]) {
        return;
    }
    let secure = Secure::start(&[], |_| {});
    for (version, shown) in [("--http2", "HTTP/2"), ("--http1.1", "HTTP/1.1")] {
        let email = format!("ann{}@example.com", shown.len());
        let credentials = json!({ "email": email, "password": PASSWORD }).to_string();
        let json = ["-H", "content-type: application/json", "-d"];
        let (status, _, account) = curl(&secure, version, &[&json[..], &[&credentials]].concat(), "/auth/signup");
        assert_eq!(status, format!("{shown} 201"));
        let bearer = format!("authorization: Bearer {}", account["accessToken"].as_str().unwrap());
        let limited = json!({ "name": "ci", "rateLimit": { "limit": 100, "window": "1h" } }).to_string();
        let (status, _, key) =
            curl(&secure, version, &[&["-H", &bearer], &json[..], &[&limited]].concat(), "/keys/create");
        assert_eq!(status, format!("{shown} 201"), "{key}");
        let key = format!("x-api-key: {}", key["key"].as_str().unwrap());
        let (status, fields, body) = curl(&secure, version, &["-H", &key], "/protected/service-only");
        assert_eq!((status, &body["user"]["email"]), (format!("{shown} 200"), &json!(email)));
        assert!(fields.contains(&"ratelimit-policy: \"default\";q=100;w=3600".to_string()), "{fields:?}");
        let (status, _, _) = curl(&secure, version, &["-H", &bearer, "-X", "POST"], "/auth/logout");
        assert_eq!(status, format!("{shown} 200"));
        let (status, _, _) = curl(&secure, version, &["-H", &bearer], "/auth/me");
        assert_eq!(status, format!("{shown} 401"));
    }
    let both = |arguments: &[&str], path: &str| {
        let [two, one] = ["--http2", "--http1.1"].map(|version| curl(&secure, version, arguments, path));
        assert_eq!((&two.1, &two.2), (&one.1, &one.2), "{arguments:?} {path}");
        two
    };
    let (status, fields, body) = both(&["-X", "PUT"], "/keys");
    assert_eq!((status.as_str(), body["statusCode"].as_u64()), ("HTTP/2 405", Some(405)));
    assert!(fields.iter().any(|field| field.starts_with("allow: ")), "{fields:?}");
    assert_eq!(both(&["-I"], "/protected/user-only").0, "HTTP/2 401");
    assert_eq!(both(&["-I"], "/api/docs").0, "HTTP/2 200");
    assert_eq!(both(&[], "/api/docs/openapi.json").0, "HTTP/2 200");
    assert_eq!(both(&["--compressed"], "/api/docs/openapi.json").0, "HTTP/2 200");
    assert_eq!(both(&["--data-binary", &"x".repeat(20_000)], "/auth/login").0, "HTTP/2 413");
    assert_eq!(both(&["-H", "x-request-id: mine"], "/nowhere").0, "HTTP/2 404");
}

#[test]
fn browsers_are_told_to_come_with_tls_where_there_is_any() {
    let secure = Secure::start(&[("HTTP_REDIRECT_PORT", "0")], |_| {});
    let answer = secure.connect(&[]).send(GET_HEALTH).answer();
    assert_eq!(answer.header("strict-transport-security"), Some("max-age=31536000"));
    // RFC 6797 §7.2
    let redirect = redirected(&secure, GET_HEALTH);
    assert_eq!((redirect.status, redirect.header("strict-transport-security")), (308, None));
    let plain = Service::start(Backend::Sqlite);
    assert_eq!(plain.get("/health").send().header("strict-transport-security"), None);
}

#[test]
fn plain_http_where_tls_is_spoken_is_told_so_and_tls_where_it_is_not_is_turned_away() {
    let secure = Secure::start(&[], |_| {});
    let heard = raw(secure.address(), GET_HEALTH.as_bytes());
    let answer = read_answer(&mut heard.as_slice(), false).unwrap();
    assert_eq!((answer.status, answer.json()), (400, error(400, "This port speaks HTTPS")));
    assert_eq!(answer.header("connection"), Some("close"));
    let heard = raw(secure.address(), b"\x80\x2e\x01\x00\x02binary noise\r\n\r\n");
    assert!(heard.is_empty() || heard.starts_with(b"HTTP/1.1 400 "), "{heard:?}");
    // A record that is none.
    let heard = raw(secure.address(), b"\x16\x03\x01\x00\x05hello, world");
    assert!(!heard.starts_with(b"HTTP"), "{heard:?}");

    let plain = Service::start(Backend::Sqlite);
    assert!(TlsWire::try_open(plain.address(), &secure.pair.der(), &[]).is_err());
    assert_eq!(plain.get("/health").send().status, 200);
    assert_eq!(secure.connect(&[]).send(GET_HEALTH).answer().status, 200);
}

#[test]
fn a_handshake_that_is_not_done_in_time_is_cut_and_holds_up_nobody() {
    // Time enough for the handshake of a good client.
    let limit = 4 * SHORT;
    let secure = Secure::start(&[], |config| config.http.limits.handshake = limit);
    let started = Instant::now();
    let mut silent: Vec<TcpStream> = (0..20).map(|_| connect(secure.address()).unwrap()).collect();
    for half in silent.iter_mut().step_by(2) {
        half.write_all(b"\x16\x03\x01\x02\x00\x01\x00").unwrap();
    }
    assert_eq!(secure.connect(&[]).send(GET_HEALTH).answer().status, 200);
    for mut stream in silent {
        let mut heard = Vec::new();
        let _ = stream.read_to_end(&mut heard);
        let took = started.elapsed();
        assert!(took + Duration::from_millis(10) >= limit && took < limit + SLACK, "{took:?}");
    }
}

#[test]
fn a_kept_connection_without_a_request_is_closed_with_a_goodbye() {
    let secure = Secure::start(&[], |config| config.http.limits.idle = SHORT);
    let mut wire = secure.connect(&[]);
    assert_eq!(wire.send(GET_HEALTH).answer().status, 200);
    // Without the goodbye, this would be an error: anyone on the way could have cut it.
    assert_eq!(wire.0.read_to_end(&mut Vec::new()).unwrap(), 0);
}

#[test]
fn a_connection_in_its_handshake_is_a_connection() {
    // Time enough for the handshake of a good client.
    let limit = 4 * SHORT;
    let secure = Secure::start(&[("MAX_CONNECTIONS", "1")], |config| config.http.limits.handshake = limit);
    let started = Instant::now();
    let silent = connect(secure.address()).unwrap();
    assert_eq!(secure.connect(&[]).send(GET_HEALTH).answer().status, 200);
    assert!(started.elapsed() + Duration::from_millis(10) >= limit, "{:?}", started.elapsed());
    drop(silent);
}

#[test]
fn a_stop_waits_for_no_handshake() {
    let mut secure = Secure::start(&[], |config| {
        let Limits { handshake, stopping, .. } = &mut config.http.limits;
        (*handshake, *stopping) = (Duration::from_secs(600), Duration::from_secs(600));
    });
    let silent = connect(secure.address()).unwrap();
    let served = secure.connect(&[]).send(GET_HEALTH).answer();
    assert_eq!(served.status, 200);
    let started = Instant::now();
    secure.service.stop();
    assert!(started.elapsed() < PATIENCE, "{:?}", started.elapsed());
    drop(silent);
}

#[test]
fn a_large_answer_arrives_whole_with_either_version_of_http() {
    if !installed(&[Tool::Curl]) {
        return;
    }
    let secure = Secure::start(&[], |_| {});
    let plain = Service::start(Backend::Sqlite);
    let path = "/api/docs/swagger-ui-bundle.js";
    let expected = Client::new(plain.address(), openapi::check).get(path).send().body;
    assert!(expected.len() > 1_000_000);
    for version in ["--http2", "--http1.1"] {
        assert!(secure.curl(&[version], path).into_bytes() == expected, "{version}");
    }
}
