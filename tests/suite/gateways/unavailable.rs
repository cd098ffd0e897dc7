//! What clients hear while Keyward or its store is away, and when it refuses for a time.

use serde_json::json;

use super::sign_up_with_key;
use super::site::behind_each_gateway;

behind_each_gateway! {
    fn while_keyward_is_away_nothing_comes_through_and_after_its_return_everything_does(site) {
        let key = sign_up_with_key(site, &[]);
        let get = || site.client().get("/x").api_key(&key.secret).send();
        assert_eq!(get().status, 200);
        site.upstream.take_one();
        for _ in 0..2 {
            site.link.cut();
            for _ in 0..3 {
                let answer = get();
                if site.gateway == Gateway::Traefik {
                    // It has no other status for that.
                    assert_eq!(answer.status, 500, "{answer:?}");
                } else {
                    site.assert_refused(&answer, 503);
                    assert_eq!(answer.header("retry-after"), Some("1"), "{answer:?}");
                    assert_eq!(answer.headers.get_all("x-request-id").iter().count(), 1, "{answer:?}");
                }
            }
            let answer = site.client().get("/auth/me").send();
            assert!([502, 503].contains(&answer.status), "{answer:?}");
            site.assert_nothing_came_through("while Keyward was away");
            site.link.restore();
            assert_eq!(get().status, 200);
            site.upstream.take_one();
        }
        // The service's own absence is not Keyward's.
        site.wire.cut();
        let answer = get();
        let expected = if site.gateway == Gateway::Envoy { 503 } else { 502 };
        assert_eq!((answer.status, answer.header("retry-after")), (expected, None), "{answer:?}");
    }

    fn what_keyward_says_while_its_store_is_away_arrives(site) {
        let body = json!({ "statusCode": 503, "message": "later", "error": "Service Unavailable" }).to_string();
        let stub = tiny_http::Server::http("127.0.0.1:0").unwrap();
        site.link.redirect(stub.server_addr().to_ip().unwrap());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let header = |name: &str, value: &str| tiny_http::Header::from_bytes(name, value).unwrap();
                for request in stub.incoming_requests() {
                    let answer = tiny_http::Response::from_string(&body).with_status_code(503);
                    let answer = answer.with_header(header("content-type", "application/json; charset=utf-8"));
                    let _ = request.respond(answer.with_header(header("retry-after", "1")));
                }
            });
            let answer = site.client().get("/x").header("x-api-key", "some").send();
            stub.unblock();
            site.assert_refused(&answer, 503);
            assert_eq!(answer.header("retry-after"), Some("1"), "{answer:?}");
        });
        site.assert_nothing_came_through("while the store was away");
    }

    fn a_key_over_its_limit_hears_when_it_may_come_again(site) {
        let ann = site.service.sign_up("ann@example.com");
        let limit = json!({ "limit": 2, "window": "1h" });
        let key = site.service.create_key(&ann.access, json!({ "name": "ci", "rateLimit": limit }));
        let get = || {
            let answer = site.client().get("/x").api_key(key["key"].as_str().unwrap()).send();
            let fields = ["ratelimit-policy", "ratelimit", "retry-after"];
            let fields = fields.map(|name| answer.header(name).unwrap_or_default().to_string());
            (answer.status, fields)
        };
        let fields = |left: &str, after: &str| ["\"default\";q=2;w=3600", left, after].map(str::to_string);
        // Traefik has no way of telling while the key is good.
        let is_told = site.gateway != Gateway::Traefik;
        let admitted = |left: &str| (200, if is_told { fields(left, "") } else { <[String; 3]>::default() });
        assert_eq!(get(), admitted("\"default\";r=1;t=1800"));
        assert_eq!(get(), admitted("\"default\";r=0;t=3600"));
        assert_eq!(site.upstream.take_seen().len(), 2);
        assert_eq!(get(), (429, fields("\"default\";r=0;t=3600", "1800")));
        site.assert_nothing_came_through("over the limit");
        site.service.advance(1800);
        assert_eq!(get().0, 200);
        assert!(site.upstream.take_one().headers.iter().all(|(name, _)| !name.starts_with("ratelimit")));
        let answer = site.client().get("/x").bearer(&ann.access).header("RateLimit", "forged").send();
        assert_eq!((answer.status, answer.header("ratelimit")), (200, None));
    }
}
