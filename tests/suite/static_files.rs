//! Answers that are the same for everyone: when they are compressed, and how `ETag` saves sending them again. They do
//! not depend on the store, so it is SQLite throughout.

use std::collections::BTreeSet;
use std::io::Read;

use flate2::read::GzDecoder;
use http::HeaderMap;
use keyward_harness::http_client::{Answer, Client};
use keyward_harness::service::{Backend, Service, error};

/// Every static answer: its path, and whether it is large enough to be compressed.
const FILES: [(&str, bool); 9] = [
    ("/api/docs", false),
    ("/api/docs/docs.js", false),
    ("/api/docs/favicon-32x32.png", false),
    ("/api/docs/NOTICE", false),
    ("/.well-known/jwks.json", false),
    ("/api/docs/openapi.json", true),
    ("/api/docs/swagger-ui.css", true),
    ("/api/docs/swagger-ui-bundle.js", true),
    ("/api/docs/LICENSE", true),
];

fn ask(service: &Service, method: &str, target: &str, headers: &[(&str, &str)]) -> Answer {
    // Nothing checks these answers against openapi.json: they may be compressed.
    let client = Client::unobserved(service.address());
    let request = client.method(method, target);
    headers.iter().fold(request, |request, (name, value)| request.header(name, value)).send()
}

#[track_caller]
fn tag(answer: &Answer) -> String {
    answer.header("etag").unwrap_or_else(|| panic!("no tag: {answer:?}")).to_string()
}

/// The headers of the answer that do not describe its content and do not change from request to request.
fn stable_headers(answer: &Answer) -> HeaderMap {
    let mut headers = answer.headers.clone();
    for name in ["date", "x-request-id", "content-type", "content-length", "content-encoding"] {
        headers.remove(name);
    }
    headers
}

#[test]
fn large_files_are_compressed_for_those_who_take_gzip() {
    let service = Service::start(Backend::Sqlite);
    for (path, large) in FILES {
        let plain = ask(&service, "GET", path, &[]);
        let packed = ask(&service, "GET", path, &[("accept-encoding", "gzip, deflate, br")]);
        for answer in [&plain, &packed] {
            assert_eq!(answer.status, 200, "{path}");
            // A cache must know that there are two forms.
            assert_eq!(answer.header("vary"), large.then_some("accept-encoding"), "{path}");
        }
        assert_eq!(plain.header("content-encoding"), None, "{path}");
        assert_eq!(packed.header("content-encoding"), large.then_some("gzip"), "{path}");
        if large {
            let mut unpacked = Vec::new();
            GzDecoder::new(packed.body.as_slice()).read_to_end(&mut unpacked).unwrap();
            assert!(unpacked == plain.body, "{path}");
            assert!(packed.body.len() < plain.body.len() / 2, "{path}");
        } else {
            assert!(packed.body == plain.body && plain.body.len() < 2000, "{path}");
        }
        for (accepted, gzip) in [("gzip;q=0", false), ("identity, gzip;q=0.5", false), ("*", large), ("br;q=1", false)]
        {
            let answer = ask(&service, "GET", path, &[("accept-encoding", accepted)]);
            assert_eq!(answer.header("content-encoding").is_some(), gzip, "{path} {accepted}");
        }
    }
}

#[test]
fn a_client_that_has_the_current_file_gets_a_304() {
    let service = Service::start(Backend::Sqlite);
    for (path, large) in FILES {
        for method in ["GET", "HEAD"] {
            for accepted in ["gzip", "identity"] {
                let accepted = ("accept-encoding", accepted);
                let full = ask(&service, method, path, &[accepted]);
                let tag = tag(&full);
                assert!(tag.starts_with('"') && tag.ends_with('"'), "{tag} is not strong");
                for known in [
                    tag.clone(),
                    format!("W/{tag}"),
                    format!("\"other\", {tag}"),
                    format!("\"a,b\",W/\"x\"\t,{tag} ,"),
                    "*".to_string(),
                ] {
                    let answer = ask(&service, method, path, &[accepted, ("if-none-match", &known)]);
                    assert_eq!((answer.status, answer.body.len()), (304, 0), "{method} {path} {known}");
                    // RFC 9110 §15.4.5. A browser updates its stored headers from a 304, the page's policy among them.
                    assert_eq!(stable_headers(&answer), stable_headers(&full), "{method} {path}");
                    for absent in ["content-type", "content-encoding", "content-length"] {
                        assert_eq!(answer.header(absent), None, "{method} {path}");
                    }
                }
                for other in ["", "\"other\"", "W/\"\"", &tag[1..tag.len() - 1], &tag.to_uppercase(), "\"*\""] {
                    let answer = ask(&service, method, path, &[accepted, ("if-none-match", other)]);
                    assert_eq!((answer.status, tag == self::tag(&answer)), (200, true), "{method} {path} {other}");
                }
                let lines = [accepted, ("if-none-match", "\"other\""), ("if-none-match", tag.as_str())];
                assert_eq!(ask(&service, method, path, &lines).status, 304, "{method} {path}");
            }
        }
        // The two forms have different tags.
        let [plain, packed] =
            ["identity", "gzip"].map(|accepted| tag(&ask(&service, "GET", path, &[("accept-encoding", accepted)])));
        assert_eq!(plain != packed, large, "{path}");
        let crossed = ask(&service, "GET", path, &[("accept-encoding", "gzip"), ("if-none-match", &plain)]);
        assert_eq!(crossed.status, if large { 200 } else { 304 }, "{path}");
    }
    let tags: BTreeSet<String> = FILES.iter().map(|(path, _)| tag(&ask(&service, "GET", path, &[]))).collect();
    assert_eq!(tags.len(), FILES.len(), "two files share a tag");
}

/// RFC 9110 §13.1.1, §13.2.2: `If-Match` is evaluated before `If-None-Match`, by strong comparison.
#[test]
fn if_match_with_another_tag_is_a_412() {
    let service = Service::start(Backend::Sqlite);
    for (path, _) in FILES {
        let tag = tag(&ask(&service, "GET", path, &[]));
        for known in ["*".to_string(), tag.clone(), format!("\"other\" , {tag}")] {
            assert_eq!(ask(&service, "GET", path, &[("if-match", &known)]).status, 200, "{path} {known}");
            let both = [("if-match", known.as_str()), ("if-none-match", tag.as_str())];
            assert_eq!(ask(&service, "GET", path, &both).status, 304, "{path} {known}");
        }
        for other in ["", "\"other\"", &format!("W/{tag}"), &tag[1..tag.len() - 1], "\"*\""] {
            for method in ["GET", "HEAD"] {
                let answer = ask(&service, method, path, &[("if-match", other), ("if-none-match", &tag)]);
                assert_eq!((answer.status, answer.header("etag")), (412, None), "{method} {path} {other}");
                assert_eq!(answer.header("content-encoding"), None, "{method} {path} {other}");
            }
            let answer = service.get(path).header("if-match", other).send();
            assert_eq!(answer.json(), error(412, "If-Match names another version than there is"), "{path} {other}");
        }
    }
}

#[test]
fn tags_survive_a_restart_and_other_answers_have_none() {
    let mut service = Service::start(Backend::Sqlite);
    let tags = |service: &Service| FILES.map(|(path, _)| tag(&ask(service, "GET", path, &[])));
    let before = tags(&service);
    service.restart();
    assert_eq!(before, tags(&service));
    for target in ["/health", "/keys", "/api/docs/nothing.js"] {
        let answer = ask(&service, "GET", target, &[("if-none-match", "*")]);
        assert_eq!((answer.status == 304, answer.header("etag")), (false, None), "{target}");
    }
}
