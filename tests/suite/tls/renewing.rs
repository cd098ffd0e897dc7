//! Certificates that change while the server runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use keyward::base::clock::Clock;
use keyward_harness::http_client::PATIENCE;
use keyward_harness::program::Home;
use keyward_harness::service::{Backend, TempDir};
use keyward_harness::tls_client::{Pair, Secure, TlsWire, openssl, succeeded};
use keyward_harness::tools::{Tool, installed};
use rustix::process::Signal;

use super::GET_HEALTH;

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
    let pair = Pair { certificate: folder.path().join("current/tls.pem"), key: folder.path().join("current/tls.key") };
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
