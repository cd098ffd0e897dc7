//! HTTPS: what is spoken and what is not, certificates that change while the server runs, and the way there from plain
//! HTTP. The store plays no part: it is SQLite throughout.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use keyward::base::clock::Clock;
use keyward::http::limits::Limits;
use keyward::run::Keyward;
use keyward_harness::http_client::{Answer, Client, PATIENCE, connect, raw, read_answer};
use keyward_harness::openapi;
use keyward_harness::program::Home;
use keyward_harness::service::{Backend, PASSWORD, Service, TempDir, error};
use keyward_harness::tls_client::{Pair, Secure, TlsWire, openssl, succeeded};
use keyward_harness::tools::{Tool, installed};
use rustix::process::Signal;
use serde_json::{Value, json};

/// A time that runs out in a test.
const SHORT: Duration = Duration::from_millis(500);
/// How late a busy machine may be.
const SLACK: Duration = Duration::from_secs(10);

const GET_HEALTH: &str = "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";

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

mod speaking {
    use super::*;

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
        let mut fields: Vec<String> = lines
            .filter(|line| !of_this_answer.contains(&line.split(':').next().unwrap()))
            .map(str::to_string)
            .collect();
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
}

/// The one answer of the port for plain HTTP.
#[track_caller]
fn redirected(secure: &Secure, request: &str) -> Answer {
    let heard = raw(secure.service.redirect(), request.as_bytes());
    let mut heard = heard.as_slice();
    let answer = read_answer(&mut heard, false).unwrap();
    assert!(heard.is_empty(), "{}", String::from_utf8_lossy(heard));
    answer
}

mod redirecting {
    use super::*;

    #[test]
    fn plain_http_is_sent_to_the_same_place_with_tls() {
        let secure = Secure::start(&[("HTTP_REDIRECT_PORT", "0")], |_| {});
        let port = secure.address().port();
        for (request, host, path) in [
            ("GET / HTTP/1.1\r\nHost: example.com\r\n\r\n", "example.com", "/"),
            ("GET /keys/7?a=%20b&c HTTP/1.1\r\nHost: example.com:80\r\n\r\n", "example.com", "/keys/7?a=%20b&c"),
            ("GET /health HTTP/1.0\r\nHost: [::1]:8080\r\n\r\n", "[::1]", "/health"),
            ("HEAD //a HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n", "192.0.2.1", "//a"),
            ("OPTIONS * HTTP/1.1\r\nHost: example.com\r\n\r\n", "example.com", "/"),
            ("GET http://example.org/x HTTP/1.1\r\nHost: example.com\r\n\r\n", "example.org", "/x"),
            ("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n", "a", "/1"),
        ] {
            let answer = redirected(&secure, request);
            assert_eq!((answer.status, answer.body.as_slice()), (308, &b""[..]), "{request:?}");
            assert_eq!(answer.header("location"), Some(format!("https://{host}:{port}{path}").as_str()), "{request:?}");
            assert_eq!(answer.header("connection"), Some("close"));
        }
    }

    #[test]
    fn a_host_that_is_none_is_not_repeated() {
        let secure = Secure::start(&[("HTTP_REDIRECT_PORT", "0")], |_| {});
        for request in [
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.0\r\n\r\n",
            "GET / HTTP/1.1\r\nHost:\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: :80\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: ann@example.com\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        ] {
            let answer = redirected(&secure, request);
            assert_eq!((answer.status, answer.header("location")), (400, None), "{request:?}");
        }
    }

    #[test]
    fn nothing_else_is_done_there() {
        let secure = Secure::start(&[("HTTP_REDIRECT_PORT", "0")], |_| {});
        let body = json!({ "email": "ann@example.com", "password": PASSWORD }).to_string();
        let sign_up = |length: usize| {
            let head = "POST /auth/signup HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json";
            format!("{head}\r\nContent-Length: {length}\r\n\r\n{body}")
        };
        assert_eq!(redirected(&secure, &sign_up(body.len())).status, 308);
        // Its body is not waited for.
        assert_eq!(redirected(&secure, &sign_up(100_000)).status, 308);
        let wrong = "GET /protected/user-only HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer x\r\n\r\n";
        let answer = redirected(&secure, wrong);
        assert_eq!((answer.status, answer.header("www-authenticate")), (308, None));
        let users = secure.service.operator(&["user", "list", "--json"]);
        assert_eq!(serde_json::from_str::<Value>(&users).unwrap(), json!([]));
    }

    #[test]
    fn its_clients_have_the_limits_of_all_others() {
        // Time enough for a good client's head.
        let limit = 4 * SHORT;
        let secure = Secure::start(&[("HTTP_REDIRECT_PORT", "0"), ("MAX_CONNECTIONS", "1")], |config| {
            config.http.limits.head = limit;
        });
        let started = Instant::now();
        let mut silent = connect(secure.service.redirect()).unwrap();
        silent.write_all(b"GET / HTTP/1.1\r\nHost: ").unwrap();
        assert_eq!(redirected(&secure, GET_HEALTH).status, 308);
        assert!(started.elapsed() + Duration::from_millis(10) >= limit, "the only place was taken");
        let large = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(16 * 1024));
        assert_eq!(redirected(&secure, &large).status, 431);
    }
}

mod renewing {
    use super::*;

    /// Waits until new connections get this certificate.
    #[track_caller]
    fn wait_for(secure: &Secure, pair: &Pair) {
        let started = Instant::now();
        while TlsWire::try_open(secure.address(), &pair.der(), &[]).is_err() {
            assert!(started.elapsed() < PATIENCE, "the renewed certificate is not taken up");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn renewed_files_are_taken_up_and_connections_go_on() {
        let secure = Secure::start(&[], |_| {});
        let mut before = secure.connect(&[]);
        assert_eq!(before.send(GET_HEALTH).answer().status, 200);
        for round in 0..3 {
            let renewed = Pair::make(secure.folder.path(), &format!("renewed-{round}"));
            renewed.overwrite(&secure.pair);
            wait_for(&secure, &renewed);
        }
        assert_eq!(before.send(GET_HEALTH).answer().status, 200);
        assert_ne!(before.certificate(), secure.pair.der());
    }

    #[test]
    fn links_that_lead_elsewhere_are_renewed_files() {
        use std::os::unix::fs::symlink;
        let folder = TempDir::fresh();
        // As kubelet has it: the files are links through a link to a folder, which alone is switched.
        let versions: Vec<Pair> = ["1", "2"]
            .iter()
            .map(|version| {
                fs::create_dir(folder.path().join(version)).unwrap();
                Pair::make(&folder.path().join(version), "tls")
            })
            .collect();
        symlink("1", folder.path().join("current")).unwrap();
        let pair =
            Pair { certificate: folder.path().join("current/tls.pem"), key: folder.path().join("current/tls.key") };
        let secure = Secure::start_with(folder, pair, &[], |_| {});
        wait_for(&secure, &versions[0]);
        symlink("2", secure.folder.path().join("next")).unwrap();
        fs::rename(secure.folder.path().join("next"), secure.folder.path().join("current")).unwrap();
        wait_for(&secure, &versions[1]);
    }

    /// The program with TLS, and its pair.
    fn program() -> (Home, Pair) {
        let mut home = Home::fresh(Backend::Sqlite);
        let pair = Pair::make(&home.path(""), "server");
        // Relative to the working directory, as all paths are.
        home.set("TLS_CERT", "server.pem");
        home.set("TLS_KEY", "server.key");
        (home, pair)
    }

    #[test]
    fn sighup_takes_up_a_good_pair_and_tells_what_is_wrong_with_a_bad_one() {
        if !installed(&[Tool::Openssl]) {
            return;
        }
        let (home, pair) = program();
        let mut server = home.start(&[]);
        let get_certificate = |pair: &Pair| TlsWire::try_open(server.address(), &pair.der(), &[]);
        let first = Pair::make(&home.path(""), "first");
        let is_first = pair.der();
        let address = server.address();
        assert!(get_certificate(&pair).is_ok());

        first.overwrite(&pair);
        server.signal(Signal::HUP);
        server.wait_for_line("new connections get the certificate that is now in server.pem");
        assert!(TlsWire::try_open(address, &first.der(), &[]).is_ok());
        assert!(TlsWire::try_open(address, &is_first, &[]).is_err());

        let other = Pair::make(&home.path(""), "other");
        let half = fs::read(&other.key).unwrap()[..100].to_vec();
        let expired = twin(&home.path(""), &other, ["20250101000000Z", "20250102000000Z"]);
        let early = twin(&home.path(""), &other, ["22000101000000Z", "22000201000000Z"]);
        let take = |certificate: &Path| {
            fs::copy(&other.key, &pair.key).unwrap();
            fs::copy(certificate, &pair.certificate).unwrap();
        };
        let spoil: [(&str, &dyn Fn()); 6] = [
            ("does not belong to the first certificate", &|| drop(fs::copy(&other.certificate, &pair.certificate))),
            ("there is no private key in", &|| fs::write(&pair.key, &half).unwrap()),
            ("there is no certificate in", &|| fs::write(&pair.certificate, "").unwrap()),
            ("No such file", &|| fs::remove_file(&pair.certificate).unwrap()),
            ("has expired", &|| take(&expired)),
            ("is not valid before 2200-01-01T00:00:00.000Z", &|| take(&early)),
        ];
        for (why, spoil) in spoil {
            spoil();
            server.signal(Signal::HUP);
            // It may say so twice, when it had found out by itself.
            let line = server.wait_for_line(why);
            assert!(line.contains("the certificate and key from before stay in use"), "{line}");
            assert!(line.contains("WARN"), "{line}");
            let mut wire = TlsWire::try_open(address, &first.der(), &[]).unwrap();
            assert_eq!(wire.send(GET_HEALTH).answer().status, 200);
        }
        other.overwrite(&pair);
        server.signal(Signal::HUP);
        server.wait_for_line("new connections get the certificate");
        assert!(TlsWire::try_open(address, &other.der(), &[]).is_ok());
        let finished = server.stop();
        assert_eq!(finished.code, Some(0), "{finished:?}");
        // What the file that was read and the log have in common.
        assert!(!finished.stderr.contains("PRIVATE KEY"), "{finished:?}");
    }

    #[test]
    fn a_certificate_that_is_valid_in_a_moment_is_taken_up_then() {
        if !installed(&[Tool::Openssl]) {
            return;
        }
        let secure = Secure::start(&[], |_| {});
        let before = secure.pair.der();
        let other = Pair::make(secure.folder.path(), "other");
        let start = Clock::default().now().seconds() + 2;
        let when = |seconds: i64| {
            let time = keyward::base::clock::Timestamp::from_millis(seconds * 1000).unwrap().to_string();
            time.replace(['-', ':', 'T'], "").replace(".000", "")
        };
        let early = twin(secure.folder.path(), &other, [&when(start), &when(start + 86_400)]);
        let early = Pair { certificate: early, key: other.key };
        early.overwrite(&secure.pair);
        while TlsWire::try_open(secure.address(), &early.der(), &[]).is_err() {
            let is_before = TlsWire::try_open(secure.address(), &before, &[]).is_ok();
            assert!(is_before || Clock::default().now().seconds() >= start, "clients would have refused the new one");
            assert!(Clock::default().now().seconds() < start + 10, "it is not taken up");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn a_start_with_a_certificate_that_is_not_valid_yet_says_so() {
        if !installed(&[Tool::Openssl]) {
            return;
        }
        let (home, pair) = program();
        let early = twin(&home.path(""), &pair, ["22000101000000Z", "22000201000000Z"]);
        fs::copy(early, &pair.certificate).unwrap();
        let mut server = home.start(&[]);
        let line = "the certificate in server.pem is not valid before 2200-01-01T00:00:00.000Z: clients refuse it";
        if !server.log().iter().any(|told| told.contains(line)) {
            server.wait_for_line(line);
        }
    }

    /// A certificate for the same key, from when to when.
    fn twin(folder: &Path, pair: &Pair, [from, to]: [&str; 2]) -> PathBuf {
        let (config, request) = (folder.join("ca.conf"), folder.join("csr.pem"));
        let made = folder.join(format!("of-{from}.pem"));
        let database = folder.join("database");
        fs::write(&database, "").unwrap();
        let settings = format!(
            "[ca]\ndefault_ca = own\n[own]\ndatabase = {}\nrand_serial = yes\ndefault_md = sha256\npolicy = any\n\
             unique_subject = no\nx509_extensions = extensions\n[any]\ncommonName = supplied\n\
             [extensions]\nbasicConstraints = CA:FALSE\nsubjectAltName = DNS:localhost\n",
            database.display()
        );
        fs::write(&config, settings).unwrap();
        let mut ask = openssl(&["req", "-new", "-subj", "/CN=localhost"]);
        succeeded(ask.arg("-key").arg(&pair.key).arg("-out").arg(&request));
        let mut sign = openssl(&["ca", "-batch", "-notext", "-selfsign", "-startdate", from, "-enddate", to]);
        sign.arg("-config").arg(&config).arg("-in").arg(&request);
        succeeded(sign.arg("-keyfile").arg(&pair.key).arg("-outdir").arg(folder).arg("-out").arg(&made));
        made
    }

    #[test]
    fn sighup_ends_no_server() {
        let home = Home::fresh(Backend::Sqlite);
        let mut server = home.start(&[]);
        server.signal(Signal::HUP);
        server.wait_for_line("there is no certificate to be read anew");
        assert_eq!(server.client().get("/health").send().status, 200);
        assert_eq!(server.stop().code, Some(0));
    }

    #[test]
    fn a_certificate_that_expires_soon_is_complained_of() {
        if !installed(&[Tool::Openssl]) {
            return;
        }
        let (home, _) = program();
        let finished = home.start(&[]).stop();
        assert!(!finished.stderr.contains("expires"), "{finished:?}");
        let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
        Pair::make_with(&home.path(""), "server", &[&key[..], &["-days", "3"]].concat());
        let mut server = home.start(&[]);
        // It is said by another thread than that which tells the address.
        if !server.log().iter().any(|line| line.contains("expires soon")) {
            server.wait_for_line("the certificate in server.pem expires soon, at ");
        }
    }

    #[test]
    fn the_start_line_says_https_and_healthcheck_asks_with_tls() {
        let (mut home, _) = program();
        let server = home.start(&[]);
        assert!(server.log().iter().any(|line| line.contains("listening on https://127.0.0.1:")), "{:?}", server.log());
        let port = server.address().port().to_string();
        let check = |settings: &[(&str, &str)]| {
            let mut command: Command = home.command(&["healthcheck"]);
            command.env("PORT", &port).envs(settings.iter().copied()).output().unwrap()
        };
        let output = check(&[]);
        assert!(output.status.success(), "{output:?}");
        let output = check(&[("TLS_CERT", ""), ("TLS_KEY", "")]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        server.stop();
        home.unset("TLS_CERT");
        home.unset("TLS_KEY");
        let plain = home.start(&[]);
        let port = plain.address().port().to_string();
        let mut command = home.command(&["healthcheck"]);
        command.env("PORT", &port).env("TLS_CERT", "server.pem").env("TLS_KEY", "server.key");
        assert_eq!(command.output().unwrap().status.code(), Some(1));
    }
}

mod refusing_to_start {
    use super::*;

    #[test]
    fn a_certificate_or_key_that_will_not_do_stops_the_start_with_a_line_that_says_why() {
        if !installed(&[Tool::Openssl]) {
            return;
        }
        let folder = TempDir::fresh();
        let path = |name: &str| folder.path().join(name);
        let good = Pair::make(folder.path(), "good");
        let other = Pair::make(folder.path(), "other");
        let small = Pair::make_with(folder.path(), "small", &["-newkey", "rsa:1024", "-days", "30"]);
        fs::write(path("empty"), "").unwrap();
        fs::write(path("noise"), "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n").unwrap();
        fs::write(path("damaged"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
        let mut encrypt = openssl(&["pkey", "-aes256", "-passout", "pass:hunter2", "-in"]);
        succeeded(encrypt.arg(&good.key).arg("-out").arg(path("encrypted")));
        let cases = [
            (path("missing"), good.key.clone(), "TLS_CERT", "No such file"),
            (good.certificate.clone(), path("missing"), "TLS_KEY", "No such file"),
            (folder.path().to_path_buf(), good.key.clone(), "TLS_CERT", "directory"),
            (path("empty"), good.key.clone(), "TLS_CERT", "there is no certificate in"),
            (good.key.clone(), good.key.clone(), "TLS_CERT", "there is no certificate in"),
            (path("noise"), good.key.clone(), "TLS_CERT", "is not PEM"),
            (path("damaged"), good.key.clone(), "TLS_CERT", "is damaged"),
            (good.certificate.clone(), path("empty"), "TLS_KEY", "there is no private key in"),
            (good.certificate.clone(), good.certificate.clone(), "TLS_KEY", "there is no private key in"),
            (good.certificate.clone(), path("encrypted"), "TLS_KEY", "without a passphrase"),
            (good.certificate.clone(), other.key.clone(), "TLS_KEY", "does not belong to the first certificate"),
            (small.certificate.clone(), small.key.clone(), "TLS_KEY", "RSA of 2048 bits or more"),
        ];
        let service = Service::start(Backend::Sqlite);
        for (certificate, key, setting, why) in cases {
            let mut config = service.config().clone();
            (config.http.tls_cert, config.http.tls_key) = (Some(certificate), Some(key));
            let line = Keyward::start(&config, Clock::default()).err().unwrap();
            assert!(line.starts_with(&format!("{setting}: ")) && line.contains(why), "{line}");
            assert!(!line.contains('\n'), "{line}");
        }
    }

    #[test]
    fn keys_of_every_usual_kind_will_do() {
        if !installed(&[Tool::Openssl]) {
            return;
        }
        for (options, convert) in [
            (&["-newkey", "rsa:2048"][..], &["rsa", "-traditional"][..]),
            (&["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384"], &["ec"]),
            (&["-newkey", "ed25519"], &["pkey"]),
        ] {
            let folder = TempDir::fresh();
            let pair = Pair::make_with(folder.path(), "server", &[options, &["-days", "30"]].concat());
            let other = folder.path().join("converted.key");
            succeeded(openssl(convert).arg("-in").arg(&pair.key).arg("-out").arg(&other));
            let secure = Secure::start_with(folder, Pair { key: other, ..pair }, &[], |_| {});
            assert_eq!(secure.connect(&[]).send(GET_HEALTH).answer().status, 200, "{options:?}");
        }
    }
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
