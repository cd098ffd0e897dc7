//! Where webhooks may be, and that nothing is sent elsewhere: users name endpoints, and Keyward, which calls them, is inside
//! the operator's network.

use keyward::base::network::Network;
use keyward::webhooks::settings::Mode;
use keyward_harness::http_client::Client;
use keyward_harness::program::Home;
use keyward_harness::receiver::{Received, Receiver};
use keyward_harness::service::{Account, Backend, Service, TempDir, broken_rules, on_both_stores, soon};
use keyward_harness::tls_client::Pair;
use serde_json::{Value, json};

/// The reason of a try that was none.
const NOT_ALLOWED: &str = "the name does not exist, or has an address that is not allowed";

/// Users may have webhooks from now on, also in these networks.
fn for_users(service: &mut Service, networks: &[&str]) -> Account {
    service.reconfigure(|config| {
        config.webhooks.mode = Mode::Users;
        config.webhooks.networks = networks.iter().map(|network| Network::parse(network).unwrap()).collect();
    });
    service.sign_up("ann@example.com")
}

/// A new endpoint with its secret.
#[track_caller]
fn create(client: &Client, who: &Account, at: &str, url: &str) -> Value {
    let answer = client.post(at).bearer(&who.access).json(json!({ "url": url })).send();
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.json()
}

/// Waits until so many endpoints could not be told of a new key, for this reason.
#[track_caller]
fn failed(service: &Service, reason: &str, at_least: i64) {
    let tries =
        format!("SELECT count(*) FROM deliveries WHERE kind = 'key.created' AND tries > 0 AND reason = '{reason}'");
    soon("the tries have failed", || service.count(&tries) >= at_least);
}

on_both_stores! {
    fn users_name_no_address_of_the_machine_its_networks_and_clouds(service) {
        let ann = for_users(service, &[]);
        let made = create(&service.client(), &ann, "/webhooks", "https://hooks.example.com/");
        let path = format!("/webhooks/{}", made["id"].as_str().unwrap());
        let inner = "url must not be at an address that is not globally reachable";
        let usual = "url must be https on port 443";
        let odd = "url must have as host a name in ASCII, an IPv4 address of four decimal numbers or an IPv6 address in brackets";
        for (url, rule) in [
            ("https://127.0.0.1/", inner),
            ("https://10.0.0.1/", inner),
            ("https://169.254.169.254/latest/meta-data/", inner),
            ("https://[::1]/", inner),
            ("https://[::ffff:10.0.0.1]/", inner),
            ("https://[::ffff:169.254.169.254]/", inner),
            ("https://[64:ff9b::7f00:1]/", inner),
            ("https://[2002:7f00:1::]/", inner),
            ("https://[fd00:ec2::254]/", inner),
            ("https://0.0.0.0/", inner),
            ("http://hooks.example.com/", usual),
            ("https://hooks.example.com:8443/", usual),
            ("https://8.8.8.8:22/", usual),
            ("https://2130706433/", odd),
            ("https://0x7f.0.0.1/", odd),
            ("https://0177.0.0.1/", odd),
            ("https://127.1/", odd),
        ] {
            for (method, target) in [("POST", "/webhooks"), ("PATCH", path.as_str())] {
                let answer = service.method(method, target).bearer(&ann.access).json(json!({ "url": url })).send();
                assert_eq!((answer.status, answer.json()), (400, broken_rules(&[rule])), "{method} {url}");
            }
        }
    }

    fn operators_name_all_but_link_local_addresses(service) {
        let boss = service.sign_up("boss@example.com");
        service.grant(&boss.id, &["keyward:admin"]);
        for host in ["169.254.169.254", "[::ffff:169.254.169.254]", "[fe80::1]"] {
            let url = format!("http://{host}/");
            let answer = service.post("/admin/webhooks").bearer(&boss.access).json(json!({ "url": url })).send();
            let rule = "url must not be at a link-local, unspecified, multicast or broadcast address";
            assert_eq!((answer.status, answer.json()), (400, broken_rules(&[rule])), "{url}");
        }
        let receiver = Receiver::start();
        create(&service.client(), &boss, "/admin/webhooks", &receiver.url());
        create(&service.client(), &boss, "/admin/webhooks", &receiver.url_at("localhost"));
        service.create_key(&boss.access, json!({ "name": "deploy" }));
        soon("both endpoints are told", || {
            receiver.received().iter().filter(|received| received.json()["type"] == "key.created").count() == 2
        });
    }

    fn a_name_that_leads_inside_is_not_connected_to(service) {
        // With a network, users may name other ports. Where a name leads is only known when it is resolved.
        let ann = for_users(service, &["198.51.100.0/24"]);
        let receiver = Receiver::start();
        for url in [receiver.url_at("localhost"), receiver.url_at("LOCALHOST").replace("http:", "https:")] {
            create(&service.client(), &ann, "/webhooks", &url);
        }
        service.create_key(&ann.access, json!({ "name": "deploy" }));
        failed(service, NOT_ALLOWED, 2);
        assert_eq!(receiver.connections(), 0);
    }

    fn what_is_stored_is_judged_at_each_try(service) {
        let ann = for_users(service, &[]);
        let receiver = Receiver::start();
        let inside: Vec<String> = ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:10.0.0.1]", "169.254.169.254"]
            .map(|host| receiver.url_at(host))
            .into();
        for url in &inside {
            let made = create(&service.client(), &ann, "/webhooks", "https://hooks.example.com/");
            let id = made["id"].as_str().unwrap();
            service.execute(&format!("UPDATE webhooks SET url = '{url}' WHERE id = '{id}'"));
        }
        service.create_key(&ann.access, json!({ "name": "deploy" }));
        failed(service, NOT_ALLOWED, inside.len() as i64);
        assert_eq!(receiver.connections(), 0);
    }

    fn a_redirect_is_not_followed(service) {
        let ann = for_users(service, &["127.0.0.2/32"]);
        let (outer, inner) = (Receiver::at("127.0.0.2:0"), Receiver::start());
        outer.answer(&format!("HTTP/1.1 307 Elsewhere\r\nLocation: {}\r\nContent-Length: 0\r\n\r\n", inner.url()));
        create(&service.client(), &ann, "/webhooks", &outer.url());
        service.create_key(&ann.access, json!({ "name": "deploy" }));
        failed(service, "it redirects elsewhere, which is not followed", 1);
        assert!(outer.connections() > 0);
        assert_eq!(inner.connections(), 0);
        assert!(service.count("SELECT count(*) FROM deliveries WHERE status = 307") > 0);
    }

    fn a_delivery_is_signed_by_both_secrets_while_they_change(service) {
        let ann = for_users(service, &["127.0.0.2/32"]);
        let receiver = Receiver::at("127.0.0.2:0");
        let made = create(&service.client(), &ann, "/webhooks", &receiver.url());
        let rotate = format!("/webhooks/{}/rotate-secret", made["id"].as_str().unwrap());
        let rotated = service.post(&rotate).bearer(&ann.access).send().json();
        let key = service.create_key(&ann.access, json!({ "name": "deploy" }));
        let of_keys = || {
            let received = receiver.received().into_iter();
            received.filter(|received| received.json()["type"] == "key.created").collect::<Vec<_>>()
        };
        soon("the endpoint is told", || of_keys().len() == 1);
        let told = of_keys().remove(0);
        assert_eq!(told.json()["data"]["subject"]["id"], key["id"]);
        let [old, new] = [&made, &rotated].map(|answer| answer["secret"].as_str().unwrap());
        assert!(told.is_signed_by(old) && told.is_signed_by(new));
        assert_eq!(told.header("webhook-signature").split(' ').count(), 2);
        assert_eq!(told.header("webhook-timestamp"), service.clock.now().seconds().to_string());
        assert_eq!(told.header("user-agent"), concat!("Keyward/", env!("CARGO_PKG_VERSION")));
        assert_eq!(told.json()["data"]["id"], told.header("webhook-id"));
        let altered = Received { body: format!("{} ", told.body), ..told };
        assert!(!altered.is_signed_by(old) && !altered.is_signed_by(new));
        service.advance(24 * 60 * 60);
        let ann = service.log_in(&ann.email);
        service.create_key(&ann.access, json!({ "name": "later" }));
        soon("the endpoint is told again", || of_keys().len() == 2);
        let later = of_keys().remove(1);
        assert!(later.is_signed_by(new) && !later.is_signed_by(old));
    }
}

#[test]
fn a_certificate_is_trusted_if_the_system_trusts_its_authority_and_no_proxy_is_asked() {
    let home = Home::fresh(Backend::Sqlite);
    let folder = TempDir::fresh();
    let (trusted, authority) = Pair::make_issued(folder.path(), "trusted");
    let (untrusted, _) = Pair::make_issued(folder.path(), "untrusted");
    let [trusted, untrusted] = [trusted, untrusted].map(|pair| Receiver::with_tls(&pair));
    let proxy = Receiver::start();
    let asked = format!("http://{}", proxy.address());
    let proxies = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"];
    let mut settings = proxies.map(|name| (name, asked.as_str())).to_vec();
    settings.push(("SSL_CERT_FILE", authority.to_str().unwrap()));
    let server = home.start(&settings);
    let client = server.client();
    let boss = client.sign_up("boss@example.com");
    home.run(&["user", "grant", &boss.id, "keyward:admin", "*"]).succeeded();
    for url in [trusted.url_at("localhost"), untrusted.url_at("localhost"), trusted.url_at("127.0.0.1")] {
        create(&client, &boss, "/admin/webhooks", &url);
    }
    client.create_key(&boss.access, json!({ "name": "deploy" }));
    let told = || trusted.received().iter().filter(|received| received.json()["type"] == "key.created").count();
    soon("the endpoints of the trusted one are told", || told() == 2);
    soon("the other one is tried", || untrusted.connections() > 0);
    server.stop();
    assert!(untrusted.received().is_empty());
    assert_eq!(proxy.connections(), 0);
}
