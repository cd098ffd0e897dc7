//! The bodies of every route that takes one, `METHOD path` on the first line: what its handler makes of them.
#![no_main]

use std::cell::RefCell;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};
use keyward::api::routes::ROUTES;
use keyward::app::App;
use keyward::base::error::Error;
use keyward::guard::principal::Principal;
use keyward::guard::requirements::Guard;
use keyward::http::request::Parameters;
use keyward::http::response;
use keyward::http::route::Route;
use keyward_fuzz::account::{Account, assert_no_secret, config, open};
use keyward_fuzz::request;
use keyward_fuzz::service::assert_error_shape;
use libfuzzer_sys::fuzz_target;

thread_local! {
    static APP: RefCell<(App, Account)> = {
        let app = open(&config());
        let account = Account::new(&app);
        RefCell::new((app, account))
    };
}

fuzz_target!(|data: &[u8]| {
    let end = data.iter().position(|b| *b == b'\n').unwrap_or(data.len());
    let (line, body) = (&data[..end], data.get(end + 1..).unwrap_or_default());
    let is_named = |route: &&Route| route.takes_body() && line == format!("{} {}", route.verb(), route.path).as_bytes();
    let Some(route) = ROUTES.iter().find(is_named) else { return };
    APP.with_borrow_mut(|(app, account)| {
        let mut headers = HeaderMap::new();
        let media_type =
            if route.requirements.oauth { "application/x-www-form-urlencoded" } else { "application/json" };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        let mut request = request(headers, None, &account.fill(body));
        request.parameters = Parameters::new(route.path, [account.key_id.clone(), String::new()]);
        request.principal = match route.guard {
            Guard::Public => Principal::Anonymous,
            Guard::Jwt => account.as_user(),
            // A user may do more: no scope is asked of their requests.
            Guard::Flexible if body.len().is_multiple_of(2) => account.as_user(),
            Guard::ApiKey | Guard::Flexible => account.as_service(app),
        };
        match route.call(app, &mut request) {
            Ok(answer) => {
                assert!(answer.status().is_success(), "{answer:?}");
                // What was changed must not show in what the next input does.
                *account = Account::new(app);
            }
            Err(error @ (Error::Internal(_) | Error::Unavailable(_))) => panic!("{error:?}"),
            Err(error) => {
                let answer = response::error(&error, route.too_many, "fuzz");
                assert_error_shape(answer.status().as_u16(), answer.body());
                let text = String::from_utf8_lossy(answer.body());
                // Names of fields are told, and they may be anything; values are not.
                if !text.contains("should not exist") && !text.contains("is there twice") {
                    assert_no_secret(&text, "an error");
                }
            }
        }
    });
});
