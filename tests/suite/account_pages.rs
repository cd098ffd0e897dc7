//! The two pages to which links in mails lead. They do not depend on the store, so it is SQLite throughout.

use keyward_harness::service::{Backend, Service, error};

const PAGES: [&str; 2] = ["reset", "verify"];
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; \
    form-action 'none'; frame-ancestors 'none'";

fn with(settings: &[(&str, &str)]) -> Service {
    Service::start_with(Backend::Sqlite, settings, |_| {})
}

#[test]
fn a_page_runs_no_script_but_ours_is_framed_by_nobody_and_tells_nobody_its_address() {
    let service = with(&[("PUBLIC_URL", "https://auth.example.com")]);
    for page in PAGES {
        let answer = service.get(&format!("/account/{page}")).send();
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/html; charset=utf-8")));
        let headers = ["content-security-policy", "referrer-policy", "x-content-type-options"];
        let expected = [Some(POLICY), Some("no-referrer"), Some("nosniff")];
        assert_eq!(headers.map(|name| answer.header(name)), expected);
        let text = String::from_utf8(answer.body).unwrap();
        // The policy would refuse what is inline, so nothing may depend on it.
        let has_handler = text.split_whitespace().any(|word| word.starts_with("on") && word.contains('='));
        assert!(!text.contains("<style") && !text.contains(" style=") && !has_handler, "{text}");
        assert_eq!(text.matches("<script").count(), 1);
        // Whatever is before the path of the page, for proxies that serve it below one.
        assert!(text.contains("<script src=\"account.js\" defer></script>") && !text.contains("=\"/"), "{text}");
    }
    let reset = String::from_utf8(service.get("/account/reset").send().body).unwrap();
    for attribute in ["for=\"password\"", "autocomplete=\"new-password\"", "type=\"password\"", "lang=\"en\""] {
        assert!(reset.contains(attribute), "{attribute}");
    }
    for (file, content_type) in
        [("account.js", "text/javascript; charset=utf-8"), ("account.css", "text/css; charset=utf-8")]
    {
        let answer = service.get(&format!("/account/{file}")).send();
        assert_eq!((answer.status, answer.header("content-type")), (200, Some(content_type)));
    }
}

#[test]
fn a_page_is_there_where_links_lead_to_it() {
    const RESET: (&str, &str) = ("RESET_URL", "https://app.example.com/reset#{token}");
    const VERIFY: (&str, &str) = ("VERIFY_URL", "https://app.example.com/verify#{token}");
    const PUBLIC: (&str, &str) = ("PUBLIC_URL", "https://auth.example.com");
    for (settings, statuses) in [
        (&[][..], [404, 404, 404]),
        (&[PUBLIC], [200, 200, 200]),
        (&[PUBLIC, RESET], [404, 200, 200]),
        (&[PUBLIC, VERIFY], [200, 404, 200]),
        (&[PUBLIC, RESET, VERIFY], [404, 404, 404]),
    ] {
        let service = with(settings);
        let status = |file: &str| service.get(&format!("/account/{file}")).send().status;
        assert_eq!([status("reset"), status("verify"), status("account.js")], statuses, "{settings:?}");
    }
    let absent = with(&[]).get("/account/reset").send();
    assert_eq!(absent.json(), error(404, "Cannot GET /account/reset"));
}
