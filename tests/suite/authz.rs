//! Gateways that ask whether they may pass a request on, and whose it is.

use std::collections::BTreeMap;
use std::io::{BufReader, Write};

use keyward_harness::http_client::{Answer, connect, read_answer};
use keyward_harness::service::{Backend, Service, error, on_both_stores, soon};
use serde_json::{Value, json};

/// One address for each gateway's contract, as it asks.
const GATEWAYS: [&str; 5] = [
    "/authz/forward-auth",
    "/authz/auth-request",
    "/authz/ext-authz",
    "/authz/ext-authz/",
    "/authz/ext-authz/orders/7?page=2",
];

/// Everything in the head of an answer but what changes from one to the next.
fn head(answer: &Answer) -> BTreeMap<&str, &str> {
    let mut head = BTreeMap::new();
    for (name, value) in &answer.headers {
        if name != "date" && name != "x-request-id" {
            assert_eq!(head.insert(name.as_str(), value.to_str().unwrap()), None, "{name} is there twice: {answer:?}");
        }
    }
    head
}

/// What an admission is to say in its head: of whom, by which key, and what else.
fn admission<'a>(
    [kind, user, email]: [&'a str; 3],
    [key, name, scopes]: [&'a str; 3],
    more: &[(&'a str, &'a str)],
) -> BTreeMap<&'a str, &'a str> {
    let always = [
        ("x-auth-type", kind),
        ("x-auth-user-id", user),
        ("x-auth-email", email),
        ("x-auth-key-id", key),
        ("x-auth-key-name", name),
        ("x-auth-scopes", scopes),
        ("x-auth-email-verified", "false"),
        ("x-auth-key-expires-at", ""),
        ("x-auth-external-id", ""),
        ("cache-control", "no-store"),
        ("content-length", "0"),
        ("x-content-type-options", "nosniff"),
    ];
    always.into_iter().chain(more.iter().copied()).collect()
}

fn says_who(answer: &Answer) -> bool {
    answer.headers.keys().any(|name| name.as_str().starts_with("x-auth"))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn derive(service: &Service, key: &Value, body: Value) -> String {
    let answer = service.post("/auth/token").api_key(text(&key["key"])).json(body).send();
    assert_eq!(answer.status, 200, "{answer:?}");
    text(&answer.json()["accessToken"]).to_string()
}

on_both_stores! {
    fn those_who_are_admitted_are_named_in_nine_headers_empty_ones_included(service) {
        let ann = service.sign_up("ann@example.com");
        let key = service.create_key(&ann.access, json!({ "name": "ci", "scopes": ["orders:read", "orders:write"] }));
        let bare = service.create_key(&ann.access, json!({ "name": "bare" }));
        let derived = derive(service, &key, json!({ "scopes": ["orders:read"] }));
        let owner = ["service", &ann.id, "ann@example.com"];
        for target in GATEWAYS {
            for method in ["GET", "HEAD"] {
                let ask = || service.method(method, target);
                let answer = ask().bearer(&ann.access).send();
                let user = admission(["user", &ann.id, "ann@example.com"], ["", "", "%2A keys:verify"], &[]);
                assert_eq!((answer.status, head(&answer)), (200, user), "{method} {target}");
                assert!(answer.body.is_empty());

                let answer = ask().api_key(text(&key["key"])).send();
                let by_key = [text(&key["id"]), "ci", "orders:read orders:write"];
                assert_eq!((answer.status, head(&answer)), (200, admission(owner, by_key, &[])), "{method} {target}");

                // Where both are good, it is a service, as everywhere.
                let answer = ask().api_key(text(&bare["key"])).bearer(&ann.access).send();
                let by_key = [text(&bare["id"]), "bare", ""];
                assert_eq!((answer.status, head(&answer)), (200, admission(owner, by_key, &[])), "{method} {target}");

                let answer = ask().bearer(&derived).send();
                let by_token = [text(&key["id"]), "ci", "orders:read"];
                assert_eq!((answer.status, head(&answer)), (200, admission(owner, by_token, &[])), "{method} {target}");
            }
        }
        // What the key has lost, its tokens have lost.
        let changed = format!("/keys/{}", text(&key["id"]));
        let changed = service.patch(&changed).bearer(&ann.access).json(json!({ "scopes": ["orders:write"] })).send();
        assert_eq!(changed.status, 200);
        let answer = service.get("/authz/forward-auth").bearer(&derived).send();
        assert_eq!(answer.header("x-auth-scopes"), Some(""));
    }

    fn texts_are_percent_encoded_utf_8_and_come_back_as_they_were(service) {
        let ann = service.sign_up("o'neil+tag%41@example.com");
        for (name, encoded) in [
            ("Billing service", "Billing%20service"),
            ("100 % ü+é", "100%20%25%20%C3%BC%2B%C3%A9"),
            ("%41", "%2541"),
            ("a\r\nX-Auth-Type: user\t\u{7f}\u{1}", "a%0D%0AX-Auth-Type:%20user%09%7F%01"),
            ("\u{202e}abc\u{200b}😀", "%E2%80%AEabc%E2%80%8B%F0%9F%98%80"),
            ("\"a\\b\", c=d; e", "%22a%5Cb%22%2C%20c%3Dd%3B%20e"),
            (" leading and trailing ", "%20leading%20and%20trailing%20"),
        ] {
            let key = service.create_key(&ann.access, json!({
                "name": name, "scopes": ["a:b/c.d-e_f~g@h", "x,y%+;="], "externalId": name,
            }));
            let answer = service.get("/authz/forward-auth").api_key(text(&key["key"])).send();
            assert_eq!(
                head(&answer),
                admission(
                    ["service", &ann.id, "o%27neil%2Btag%2541@example.com"],
                    [text(&key["id"]), encoded, "a:b/c.d-e_f~g@h x%2Cy%25%2B%3B%3D"],
                    &[("x-auth-external-id", encoded)],
                )
            );
            let decoded = percent_encoding::percent_decode_str(encoded).decode_utf8().unwrap();
            assert_eq!(decoded, name);
        }
    }

    fn the_longest_texts_and_all_scopes_find_room(service) {
        let ann = service.sign_up("ann@example.com");
        let name = "😀".repeat(255);
        let scopes: Vec<String> = (0..50).map(|number| format!("{number:%>100}")).collect();
        let key = service.create_key(&ann.access, json!({ "name": name, "scopes": scopes, "externalId": name }));
        let answer = service.get("/authz/forward-auth").api_key(text(&key["key"])).send();
        let decoded = |name: &str| {
            let value = answer.header(name).unwrap();
            percent_encoding::percent_decode_str(value).decode_utf8().unwrap().into_owned()
        };
        assert_eq!((answer.status, decoded("x-auth-key-name"), decoded("x-auth-external-id")), (200, name.clone(), name));
        assert_eq!(decoded("x-auth-scopes"), scopes.join(" "));
    }

    fn when_the_key_ends_and_whether_the_owner_has_verified_their_address_is_told(service) {
        let ann = service.sign_up("ann@example.com");
        let key = service.create_key(&ann.access, json!({ "name": "ci", "expiresAt": "2999-01-31" }));
        let derived = derive(service, &key, json!({}));
        service.restart();
        service.execute("UPDATE users SET email_verified = TRUE");
        let bearer = |token: &str| service.get("/authz/forward-auth").bearer(token).send();
        let by_key = service.get("/authz/forward-auth").api_key(text(&key["key"])).send();
        // A derived token ends within the hour; it is the key that is told of.
        for (answer, expires_at) in
            [(by_key, "2999-01-31T00:00:00.000Z"), (bearer(&derived), "2999-01-31T00:00:00.000Z"), (bearer(&ann.access), "")]
        {
            let told = ["x-auth-email-verified", "x-auth-key-expires-at"].map(|name| answer.header(name));
            assert_eq!(told, [Some("true"), Some(expires_at)], "{answer:?}");
        }
    }

    fn without_a_good_credential_nothing_passes_and_nobody_is_named(service) {
        let ann = service.sign_up("ann@example.com");
        let ended = service.log_in("ann@example.com");
        assert_eq!(service.post("/auth/logout").bearer(&ended.access).send().status, 200);
        let unknown = format!("sk_{}", "0".repeat(64));
        for target in GATEWAYS {
            for (name, value, message, challenges) in [
                ("x-no", "credential", "Unauthorized", ["Bearer", "ApiKey"]),
                ("authorization", "Basic YTpi", "Unauthorized", ["Bearer", "ApiKey"]),
                ("authorization", "Bearer x", "Unauthorized", ["Bearer error=\"invalid_token\"", "ApiKey"]),
                ("authorization", &format!("Bearer {}", ended.access), "Unauthorized", ["Bearer error=\"invalid_token\"", "ApiKey"]),
                ("authorization", &format!("Bearer {}", ann.refresh), "Unauthorized", ["Bearer error=\"invalid_token\"", "ApiKey"]),
                ("x-api-key", &unknown, "Invalid or expired API key", ["Bearer", "ApiKey"]),
                ("x-api-key", "sk_", "Invalid or expired API key", ["Bearer", "ApiKey"]),
                // Nobody is believed to be who they say they are.
                ("x-auth-user-id", &ann.id, "Unauthorized", ["Bearer", "ApiKey"]),
            ] {
                let answer = service.get(target).header(name, value).send();
                assert_eq!((answer.status, answer.json()), (401, error(401, message)), "{target} {name}: {value}");
                let asked: Vec<_> = answer.headers.get_all("www-authenticate").iter().collect();
                assert_eq!(asked, challenges, "{target} {name}: {value}");
                assert!(!says_who(&answer), "{answer:?}");
            }
        }
    }

    fn what_a_client_calls_itself_changes_nothing(service) {
        let ann = service.sign_up("ann@example.com");
        for target in GATEWAYS {
            let ask = || service.get(target).bearer(&ann.access);
            let plain = ask().send();
            let forged = ask()
                .header("X-Auth-Type", "service")
                .header("X-Auth-User-Id", "00000000-0000-0000-0000-000000000000")
                .header("X-Auth-Email", "root@example.com")
                .header("X-Auth-Key-Id", "00000000-0000-0000-0000-000000000000")
                .header("X-Auth-Key-Name", "root")
                .header("X-Auth-Scopes", "everything")
                .header("X-Auth-Email-Verified", "true")
                .header("X-Auth-External-Id", "root")
                .header("X-Auth-Key-Expires-At", "2999-01-01T00:00:00.000Z")
                .header("X-Original-URL", "/authz/forward-auth?allow=service")
                .header("X-Forwarded-Uri", "/?allow=service")
                .header("X-Forwarded-Method", "DELETE")
                .send();
            assert_eq!((forged.status, head(&forged)), (plain.status, head(&plain)), "{target}");
        }
    }

    fn another_spelling_of_what_keyward_says_is_let_through_for_nobody(service) {
        let ann = service.sign_up("ann@example.com");
        let names = [
            "X-Auth-Type", "X-Auth-User-Id", "X-Auth-Email", "X-Auth-Key-Id", "X-Auth-Key-Name", "X-Auth-Scopes",
            "X-Auth-Email-Verified", "X-Auth-External-Id", "X-Auth-Key-Expires-At",
        ];
        let message = "A header has another spelling of a name that begins with X-Auth-";
        for target in GATEWAYS {
            let spelled = |name: &str| [name.replace('-', "_"), name.replacen('-', ".", 2), name.to_uppercase().replacen('-', "~", 1)];
            let odd = "!#$%&'*+^`|".chars().map(|character| names[1].replacen('-', &character.to_string(), 1));
            for alias in names.iter().flat_map(|name| spelled(name)).chain(odd) {
                let answer = service.get(target).bearer(&ann.access).header(&alias, "").send();
                assert_eq!((answer.status, answer.json()), (403, error(403, message)), "{target} {alias}");
                assert!(!says_who(&answer), "{answer:?}");
            }
            // What reads like none of them is no concern of ours.
            for name in ["X_Auth_Token", "X.Auth", "X-Auth-Types", "X_Auth_Type_", "XAuth_Type", "X__Auth_Type", "x_y"] {
                let answer = service.get(target).bearer(&ann.access).header(name, "a").send();
                assert_eq!(answer.status, 200, "{target} {name}");
            }
        }
    }

    fn allow_says_whose_credentials_count(service) {
        let ann = service.sign_up("ann@example.com");
        let key = service.create_key(&ann.access, json!({ "name": "ci" }));
        let derived = derive(service, &key, json!({}));
        let key = text(&key["key"]);
        for gateway in ["/authz/forward-auth", "/authz/auth-request", "/authz/ext-authz"] {
            for (query, [by_token, by_key, by_derived, by_both]) in [
                ("", ["user", "service", "service", "service"]),
                ("?", ["user", "service", "service", "service"]),
                ("?allow=user,service", ["user", "service", "service", "service"]),
                ("?allow=service%2Cuser", ["user", "service", "service", "service"]),
                ("?allow=user", ["user", "", "", "user"]),
                ("?allow=service", ["", "service", "service", "service"]),
                ("?%61llow=%73ervice&", ["", "service", "service", "service"]),
            ] {
                let ask = || service.get(&format!("{gateway}{query}"));
                let answers = [
                    ask().bearer(&ann.access).send(), ask().api_key(key).send(), ask().bearer(&derived).send(),
                    ask().api_key(key).bearer(&ann.access).send(),
                ];
                for (answer, expected) in answers.iter().zip([by_token, by_key, by_derived, by_both]) {
                    let status = if expected.is_empty() { 401 } else { 200 };
                    assert_eq!(answer.status, status, "{gateway}{query} {answer:?}");
                    assert_eq!(answer.header("x-auth-type").unwrap_or_default(), expected, "{gateway}{query}");
                }
            }
        }
        let lacking = service.get("/authz/auth-request?allow=user").api_key(key).send();
        assert_eq!((lacking.json(), lacking.header("www-authenticate")), (error(401, "Unauthorized"), Some("Bearer")));
        // What does not count is not counted either.
        let listed = service.get("/keys").bearer(&ann.access).send().json();
        let before = listed[0]["usesLast24h"].as_u64().unwrap();
        for _ in 0..3 {
            service.get("/authz/auth-request?allow=user").api_key(key).send();
        }
        assert_eq!(service.get("/keys").bearer(&ann.access).send().json()[0]["usesLast24h"], before);
    }

    fn a_key_needs_every_scope_that_is_asked_for_and_a_user_none(service) {
        let ann = service.sign_up("ann@example.com");
        let key = service.create_key(&ann.access, json!({ "name": "ci", "scopes": ["a", "b", "c+d"] }));
        let derived = derive(service, &key, json!({ "scopes": ["a"] }));
        let key = text(&key["key"]);
        for gateway in ["/authz/forward-auth", "/authz/auth-request", "/authz/ext-authz"] {
            for (scope, [by_key, by_derived]) in [
                ("a", [200, 200]),
                ("a+b", [200, 403]),
                ("b%20a", [200, 403]),
                ("c%2Bd", [200, 403]),
                ("a&allow=service", [200, 200]),
                ("a+x", [403, 403]),
                ("A", [403, 403]),
                ("a,b", [403, 403]),
            ] {
                let ask = || service.get(&format!("{gateway}?scope={scope}"));
                let (by_key_was, by_derived_was) = (ask().api_key(key).send(), ask().bearer(&derived).send());
                assert_eq!([by_key_was.status, by_derived_was.status], [by_key, by_derived], "{gateway} {scope}");
                assert_eq!([says_who(&by_key_was), says_who(&by_derived_was)], [by_key == 200, by_derived == 200]);
                let expected = if scope.contains("allow=service") { 401 } else { 200 };
                assert_eq!(ask().bearer(&ann.access).send().status, expected, "{gateway} {scope}");
            }
        }
        let answer = service.get("/authz/forward-auth?scope=a+x").api_key(key).send();
        assert_eq!(answer.json(), error(403, "API key lacks one of the scopes a x"));
        assert_eq!(answer.header("www-authenticate"), Some("ApiKey error=\"insufficient_scope\", scope=\"a x\""));
        let answer = service.get("/authz/auth-request?scope=x").bearer(&derived).send();
        assert_eq!(answer.json(), error(403, "Token lacks the scope x"));
        assert_eq!(answer.header("www-authenticate"), Some("Bearer error=\"insufficient_scope\", scope=\"x\""));
    }

    fn a_query_that_is_not_understood_denies_everyone(service) {
        let ann = service.sign_up("ann@example.com");
        let key = service.create_key(&ann.access, json!({ "name": "ci", "scopes": ["a"] }));
        let message = "The gateway is misconfigured: its query is not understood";
        let many = format!("scope={}", (0..51).map(|number| number.to_string()).collect::<Vec<_>>().join("+"));
        let long = format!("scope={}", "a".repeat(101));
        for query in [
            "alow=user", "Allow=user", "allow", "allow=", "allow=users", "allow=USER", "allow=user,", "allow=,user",
            "allow=user,user", "allow=user+service", "allow=user, service", "allow=admin", "allow=user,service,admin",
            "allow=user&allow=user", "allow=user&allow=service", "allow=user&%61llow=service", "allow=none", "scope",
            "scope=", "scope=+", "scope=a++b", "scope=a+", "scope=%C3%BC", "scope=%22", "scope=%5C", "scope=a%00",
            "scope=a%0Ab", "scope=a&scope=b", "scope=%ff", "scope=%zz", "scope=a%2", "scope=%", "%ff=a", "scopes=a",
            "scope[]=a", "=", "=user", "a", "rd=https://example.com", "allow=user;scope=a", "allow=user&x=y", &many, &long,
        ] {
            let query = query.replace(' ', "%20");
            for gateway in ["/authz/forward-auth", "/authz/auth-request", "/authz/ext-authz"] {
                let ask = || service.get(&format!("{gateway}?{query}"));
                for answer in [
                    ask().bearer(&ann.access).send(), ask().api_key(text(&key["key"])).send(), ask().send(),
                ] {
                    assert_eq!((answer.status, answer.json()), (403, error(403, message)), "{gateway}?{query}");
                    assert!(!says_who(&answer), "{answer:?}");
                }
            }
        }
        for target in ["/authz/forward-auth?path=/", "/authz/auth-request?path=/", "/authz/ext-authz?Path=/"] {
            assert_eq!(service.get(target).bearer(&ann.access).send().status, 403, "{target}");
        }
    }

    fn a_key_over_its_limit_is_a_429_and_for_nginx_a_403_with_the_same_fields(service) {
        let ann = service.sign_up("ann@example.com");
        for (target, status) in [
            ("/authz/forward-auth", 429), ("/authz/auth-request", 403), ("/authz/ext-authz/x", 429),
        ] {
            let limit = json!({ "limit": 1, "window": "1h" });
            let key = service.create_key(&ann.access, json!({ "name": "ci", "rateLimit": limit }));
            let ask = || service.get(target).api_key(text(&key["key"]));
            let fields = [("ratelimit-policy", "\"default\";q=1;w=3600"), ("ratelimit", "\"default\";r=0;t=3600")];
            let answer = ask().send();
            let by_key = [text(&key["id"]), "ci", ""];
            let owner = ["service", &ann.id, "ann@example.com"];
            assert_eq!((answer.status, head(&answer)), (200, admission(owner, by_key, &fields)), "{target}");
            let answer = ask().send();
            assert_eq!((answer.status, answer.json()), (status, error(status, "API key is over its rate limit")));
            let refusal = [
                ("cache-control", "no-store"), ("content-type", "application/json; charset=utf-8"),
                ("content-length", &answer.body.len().to_string()), ("x-content-type-options", "nosniff"),
                ("retry-after", "3600"), fields[0], fields[1],
            ];
            assert_eq!(head(&answer), refusal.into_iter().collect(), "{target}");
            // The user's token decides then, as on every such route.
            assert_eq!(ask().bearer(&ann.access).send().header("x-auth-type"), Some("user"), "{target}");
        }
    }

    fn what_ends_is_refused_at_once_and_what_is_admitted_is_counted(service) {
        let ann = service.sign_up("ann@example.com");
        for target in ["/authz/forward-auth", "/authz/auth-request", "/authz/ext-authz/x"] {
            let key = service.create_key(&ann.access, json!({ "name": "ci" }));
            let ask = || service.get(target).api_key(text(&key["key"])).send().status;
            assert_eq!([ask(), ask()], [200, 200]);
            assert_eq!(service.get("/keys").bearer(&ann.access).send().json()[0]["usesLast24h"], 2);
            let id = text(&key["id"]);
            assert_eq!(service.delete(&format!("/keys/{id}")).bearer(&ann.access).send().status, 200);
            assert_eq!(ask(), 401);
            let session = service.log_in("ann@example.com");
            let ask = || service.get(target).bearer(&session.access).send().status;
            assert_eq!(ask(), 200);
            assert_eq!(service.post("/auth/logout").bearer(&session.access).send().status, 200);
            assert_eq!(ask(), 401);
        }
        service.operator(&["user", "deactivate", "ann@example.com"]);
        soon("they are refused", || service.get("/authz/forward-auth").bearer(&ann.access).send().status == 401);
    }

    fn envoy_asks_with_any_method_and_path_and_nothing_of_the_clients_matters(service) {
        let ann = service.sign_up("ann@example.com");
        let key = service.create_key(&ann.access, json!({ "name": "ci", "scopes": ["a"] }));
        for path in [
            "", "/", "//", "/orders/7", "/orders/7/", "//etc//passwd", "/../../health", "/%2e%2e/%2E%2E/health", "/a%2fb%00%ff",
            "/?", "/?allow=service", "/?allow=user&allow=user", "/x?scope=none&page=2", "/x?%zz", "/allow=service/x",
            "/orders;v=1/a:b@c/(d)!$'*,=~", "/x?path=/y", "/forward-auth?allow=nobody",
        ] {
            for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "M-SEARCH", "x"] {
                let target = format!("/authz/ext-authz{path}");
                let ask = || service.method(method, &target);
                let answer = ask().bearer(&ann.access).send();
                assert_eq!((answer.status, answer.header("x-auth-type")), (200, Some("user")), "{method} {target}");
                let answer = ask().send();
                assert_eq!((answer.status, says_who(&answer)), (401, false), "{method} {target}");
            }
        }
        for target in ["/authz/ext-authzx", "/authz", "/authz/", "/authz//ext-authz/x", "/AUTHZ/ext-authz/x", "/authz/ext%2dauthz/x"] {
            assert_eq!(service.get(target).bearer(&ann.access).send().status, 404, "{target}");
        }
        // What the operator has written before the client's part counts, and nothing after it.
        for client in ["/orders/7", "/?allow=user", "/x?a=b&allow=user&scope=none&path=/y", "/x&allow=user", "//%zz?", ""] {
            for (prefix, [by_token, by_key]) in [
                ("?path=", [200, 200]),
                ("?allow=user&path=", [200, 401]),
                ("?allow=service&path=", [401, 200]),
                ("?allow=service&scope=a&path=", [401, 200]),
                ("?scope=a+b&path=", [200, 403]),
                ("?allow=admin&path=", [403, 403]),
                ("?alow=user&path=", [403, 403]),
                // What is written where the client's part is would be passed over.
                ("?path=&allow=service", [403, 403]),
                ("?allow=user&path=&scope=a", [403, 403]),
                ("/?allow=service&path=", [403, 403]),
                ("/?allow=service/", [403, 403]),
            ] {
                let ask = || service.get(&format!("/authz/ext-authz{prefix}{client}"));
                let statuses =
                    [ask().bearer(&ann.access).send().status, ask().api_key(text(&key["key"])).send().status];
                assert_eq!(statuses, [by_token, by_key], "{prefix}{client}");
            }
            // Without it the client's part would be the operator's last value.
            let forgotten = service.get(&format!("/authz/ext-authz?allow=service{client}")).bearer(&ann.access).send();
            assert_ne!(forgotten.status, 200);
        }
    }

    fn a_body_that_is_passed_on_means_nothing_and_a_small_one_keeps_the_connection(service) {
        let ann = service.sign_up("ann@example.com");
        let stream = connect(service.address()).unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut ask = |method: &str, credential: &str, body: &str| {
            let head = format!("{method} /authz/ext-authz/x HTTP/1.1\r\nhost: a\r\n{credential}\r\n");
            (&stream).write_all(format!("{head}{body}").as_bytes()).unwrap();
            read_answer(&mut reader, false).unwrap()
        };
        let good = format!("authorization: Bearer {}", ann.access);
        let full = format!("content-length: 16384\r\n\r\n{}", "x".repeat(16384));
        for body in [
            "content-length: 0\r\n\r\n", "content-length: 3\r\n\r\n{\"a", "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            "content-type: application/json\r\ncontent-length: 4\r\n\r\nnull", &full, "\r\n",
        ] {
            for method in ["POST", "GET", "DELETE", "OPTIONS", "PURGE"] {
                for (credential, status) in [(good.as_str(), 200), ("x-no: credential", 401)] {
                    let answer = ask(method, credential, body);
                    assert_eq!((answer.status, answer.header("connection")), (status, None), "{method} {body:.40}");
                }
            }
        }
        let large = format!("content-length: 16385\r\n\r\n{}", "x".repeat(16385));
        let answer = ask("POST", &good, &large);
        assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    }

    fn other_gateways_keep_to_their_contract(service) {
        let ann = service.sign_up("ann@example.com");
        for method in ["GET", "HEAD", "POST", "DELETE", "OPTIONS", "PROPFIND"] {
            for target in ["/authz/forward-auth", "/authz/auth-request", "/authz/ext-authz"] {
                assert_eq!(service.method(method, target).bearer(&ann.access).send().status, 200, "{method} {target}");
                // Whatever is not 401 or 403 may pass.
                assert_eq!(service.method(method, target).send().status, 401, "{method} {target}");
            }
        }
        assert_eq!(service.get("/authz/forward-auth/").bearer(&ann.access).send().status, 200);
        for target in ["/authz/forward-auth/x", "/authz/auth-request/x"] {
            assert_eq!(service.get(target).bearer(&ann.access).send().status, 404);
        }
    }
}

#[test]
fn bad_keys_count_by_the_clients_address_that_the_gateway_tells() {
    let service = Service::start_with(Backend::Sqlite, &[("RATE_LIMIT_FAILED_KEYS", "2/1h")], |_| {});
    let ann = service.sign_up("ann@example.com");
    let key = service.create_key(&ann.access, json!({ "name": "ci" }));
    for (target, client, too_many) in [
        ("/authz/forward-auth", "198.51.100.1", 429),
        ("/authz/auth-request", "198.51.100.2", 403),
        ("/authz/ext-authz/x", "198.51.100.3", 429),
    ] {
        let asked = |key: &str| {
            let answer = service.get(target).header("x-forwarded-for", client).api_key(key).send();
            (answer.status, answer.header("retry-after").is_some())
        };
        assert_eq!([asked("sk_"), asked("sk_"), asked("sk_")], [(401, false), (401, false), (too_many, true)]);
        let other = service.get(target).header("x-forwarded-for", "203.0.113.9").api_key(text(&key["key"])).send();
        assert_eq!(other.status, 200, "{target}");
    }
}

#[test]
fn a_preflight_that_a_gateway_asks_about_is_judged_like_any_other_request() {
    const APP: &str = "https://app.example.com";
    let service = Service::start_with(Backend::Sqlite, &[("CORS_ORIGINS", APP)], |_| {});
    let ann = service.sign_up("ann@example.com");
    for target in ["/authz/forward-auth", "/authz/ext-authz/orders/7"] {
        let ask =
            || service.method("OPTIONS", target).header("origin", APP).header("access-control-request-method", "PUT");
        assert_eq!(ask().send().status, 401, "{target}");
        assert_eq!(ask().bearer(&ann.access).send().header("x-auth-type"), Some("user"), "{target}");
    }
}
