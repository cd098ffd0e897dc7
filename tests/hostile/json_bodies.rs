//! Bodies that are meant to hurt a reader of JSON.

use std::time::Instant;

use http::Method;
use keyward::api::routes::ROUTES;
use keyward::guard::requirements::Guard;
use keyward_harness::http_client::Client;
use keyward_harness::service::error;
use serde_json::Value;

use crate::target::{SLACK, attack};

/// The operations that are documented to take a JSON object, each with its guard.
fn operations() -> Vec<(&'static str, String, Guard)> {
    let document: Value = serde_json::from_str(include_str!("../../static/openapi.json")).unwrap();
    ROUTES
        .iter()
        .filter(|route| {
            let path = route.path.replace(":id", "{id}");
            let method = route.method.as_ref().map(|method| method.as_str().to_lowercase());
            let operation = &document["paths"][&path][method.unwrap_or_default()];
            operation["requestBody"]["content"]["application/json"].is_object()
        })
        .map(|route| {
            let path = route.path.replace(":id", "0192f0c1-0000-7000-8000-000000000001");
            (route.method.as_ref().map_or("", Method::as_str), path, route.guard)
        })
        .collect()
}

fn text(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

/// Sends each of these bodies to every route that takes JSON. None of them is an object that any route could take.
#[track_caller]
fn are_refused(bombs: &[Vec<u8>]) {
    attack(|server| {
        let client = Client::unobserved(server.address);
        let operations = operations();
        assert!(operations.len() >= 10, "{operations:?}");
        for (method, path, guard) in &operations {
            for bomb in bombs {
                let request = client.method(method, path).body("application/json", bomb.as_slice());
                let request = match guard {
                    Guard::Public => request,
                    Guard::ApiKey => request.api_key(&server.key),
                    _ => request.bearer(&server.account.access),
                };
                let asked = Instant::now();
                let answer = request.send();
                let shown = String::from_utf8_lossy(&bomb[..bomb.len().min(100)]);
                assert!([400, 404, 413].contains(&answer.status), "{method} {path} {shown:?}: {answer:?}");
                // The rule that was broken, or where the text stops to be JSON.
                assert_eq!(answer.json()["statusCode"], answer.status, "{method} {path} {shown:?}");
                assert!(asked.elapsed() < SLACK, "{method} {path} {shown:?}: {:?}", asked.elapsed());
            }
        }
        println!("{} bodies for each of {} routes", bombs.len(), operations.len());
    });
}

#[test]
fn bodies_that_nest_deeply_are_refused() {
    let mut bombs = Vec::new();
    for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("[{\"a\":", "}]")] {
        for depth in [200, 1500] {
            bombs.push(text(&open.repeat(depth)));
            bombs.push(text(&(open.repeat(depth) + "1" + &close.repeat(depth))));
            bombs.push(text(&format!("{{\"email\":{}1{}}}", open.repeat(depth), close.repeat(depth))));
        }
    }
    bombs.push(text(&"[".repeat(100_000)));
    are_refused(&bombs);
}

#[test]
fn long_texts_and_many_fields_are_refused() {
    let mut bombs = Vec::new();
    for field in ["email", "password", "name", "refreshToken", "key", "expiresAt", "scopes"] {
        bombs.push(text(&format!("{{\"{field}\":\"{}\",\"x\":0}}", "a".repeat(15_000))));
        bombs.push(text(&format!("{{\"{field}\":[{}0]}}", "0,".repeat(5_000))));
    }
    let many: Vec<String> = (0..1200).map(|number| format!("\"k{number}\":{number}")).collect();
    bombs.push(text(&format!("{{{}}}", many.join(","))));
    bombs.push(text(&format!("{{\"{}\":1}}", "\\u0061".repeat(2500))));
    are_refused(&bombs);
}

#[test]
fn huge_numbers_and_what_is_no_number_are_refused() {
    let mut bombs = Vec::new();
    let digits = "9".repeat(10_000);
    for number in ["1e999999999", "-1e999999999", "1e-999999999", "0e999999999", &digits, &format!("0.5{digits}"), "-0"]
    {
        bombs.push(text(&format!("{{\"name\":{number}}}")));
        bombs.push(text(&format!("{{\"name\":\"a\",\"rateLimit\":{{\"limit\":{number},\"window\":\"1d\"}}}}")));
        bombs.push(text(number));
    }
    for number in
        ["18446744073709551616", "4294967296", "-1", "1.5", "1e2.5", "0x10", "01", "+1", ".5", "5.", "NaN", "-Infinity"]
    {
        bombs.push(text(&format!("{{\"name\":\"a\",\"rateLimit\":{{\"limit\":{number},\"window\":\"1d\"}}}}")));
    }
    are_refused(&bombs);
}

/// Said alike or not, and beside names that mean something to others.
#[test]
fn names_that_are_there_twice_are_refused() {
    let mut bombs = Vec::new();
    for (first, second) in [("email", "email"), ("name", "\\u006eame"), ("\\u0061", "a"), ("", "")] {
        bombs.push(text(&format!("{{\"{first}\":\"a@example.com\",\"{second}\":\"b@example.com\"}}")));
        bombs.push(text(&format!("{{\"name\":\"a\",\"rateLimit\":{{\"{first}\":1,\"{second}\":1}}}}")));
    }
    for key in ["__proto__", "constructor", "$where", "\\u0000", "\\ud83d\\ude00", "isAdmin"] {
        bombs.push(text(&format!("{{\"{key}\":{{\"isAdmin\":true}}}}")));
    }
    are_refused(&bombs);
}

/// Or a pair the wrong way round, or an escape that is none.
#[test]
fn halves_of_surrogate_pairs_are_refused() {
    let mut bombs = Vec::new();
    for escape in
        ["\\ud800", "\\udfff", "\\ud800\\u0041", "\\udc00\\ud800", "\\ud800\\ud800", "\\u", "\\u00", "\\x41", "\\"]
    {
        bombs.push(text(&format!("{{\"name\":\"{escape}\"}}")));
        bombs.push(text(&format!("{{\"{escape}\":1}}")));
    }
    are_refused(&bombs);
}

#[test]
fn bytes_that_are_no_utf_8_are_refused() {
    let mut bombs = Vec::new();
    let no_utf_8: [&[u8]; 8] = [
        b"\xff",
        b"\x80",
        b"\xc0\xaf",
        b"\xe0\x80\xaf",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xf0\x9f\x98",
        b"\xc3",
    ];
    for bytes in no_utf_8 {
        bombs.push([b"{\"name\":\"", bytes, b"\"}"].concat());
        bombs.push([b"{\"", bytes, b"\":1}"].concat());
        bombs.push([bytes, b"{}"].concat());
    }
    are_refused(&bombs);
}

/// They end texts, lines or terminals elsewhere.
#[test]
fn nul_and_control_characters_in_texts_are_refused() {
    let mut bombs = Vec::new();
    for text_within in ["\\u0000", "a\\u0000b"] {
        for field in ["email", "password", "name", "refreshToken", "key"] {
            bombs.push(text(&format!("{{\"{field}\":\"{text_within}\"}}")));
        }
    }
    for raw in ["\0", "\n", "\t", "\u{1b}[2J", "\u{7f}"] {
        bombs.push(text(&format!("{{\"email\":\"{raw}\"}}")));
    }
    are_refused(&bombs);
}

/// RFC 8259 §8.1.
#[test]
fn two_byte_order_marks_and_other_encodings_are_refused() {
    are_refused(&[
        text("\u{feff}\u{feff}{}"),
        text("\u{feff}"),
        text("{}\u{feff}"),
        text(" \u{feff}{}"),
        "{\"name\":\"a\"}".encode_utf16().flat_map(u16::to_le_bytes).collect(),
        "\u{feff}{\"name\":\"a\"}".encode_utf16().flat_map(u16::to_be_bytes).collect(),
    ]);
}

#[test]
fn what_is_no_json_object_is_refused() {
    let mut bombs = Vec::new();
    for no_object in [
        " ",
        "null",
        "true",
        "1",
        "\"a\"",
        "[]",
        "[{}]",
        "{",
        "}",
        "{]",
        "{}{}",
        "{} x",
        "{}\0",
        "{,}",
        "{\"a\"}",
        "{\"a\":}",
        "{\"name\":\"a\",}",
        "{'name':'a'}",
        "{name:\"a\"}",
        "{\"name\":\"a\"/**/}",
        "// a\n{}",
        "{\"a\":1 \"b\":2}",
        "{\"a\":tru}",
        "\u{a0}{}",
        "\u{2028}{}",
        "\u{b}{}",
        "<a/>",
        "a=b",
        "--",
        "{\"a\":undefined}",
    ] {
        bombs.push(text(no_object));
    }
    are_refused(&bombs);
}

#[test]
fn a_body_that_calls_itself_something_else_than_json_is_refused() {
    attack(|server| {
        let client = Client::unobserved(server.address);
        for content_type in
            ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", "multipart/form-data", ""]
        {
            let answer = client.post("/auth/login").body(content_type, "{}").send();
            let expected = error(400, "Content-Type must be application/json");
            assert_eq!((answer.status, answer.json()), (400, expected), "{content_type:?}");
        }
    });
}
