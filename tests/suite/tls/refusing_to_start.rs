//! Certificates and keys that will do, and those that will not.

use std::fs;

use keyward::base::clock::Clock;
use keyward::run::Keyward;
use keyward_harness::service::{Backend, Service, TempDir};
use keyward_harness::tls_client::{Pair, Secure, openssl, succeeded};
use keyward_harness::tools::{Tool, installed};

use super::GET_HEALTH;

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
