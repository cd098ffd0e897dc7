//! The whole API at a glance: each route with its group's guard and the lane in which its handler runs.

use std::sync::LazyLock;

use super::{
    account, account_pages, admin, auth, authz, discovery, docs, events, health, jwks, keys, oauth, protected,
    sessions, totp, usage, verification, webhooks,
};
use crate::accounts::limits::Limited;
use crate::guard::requirements::Guard::{ApiKey, Flexible, Jwt, Public};
use crate::http::lanes::Lane::{Inline, Password, Store};
use crate::http::route::{Route, any, delete, get, group, patch, post};
use crate::keys::scopes::{KEYS_VERIFY, KEYWARD_ADMIN};

/// The whole API at a glance. `static/openapi.json` documents each line; a test compares the two.
pub static ROUTES: LazyLock<Vec<Route>> = LazyLock::new(|| {
    [
        group("/auth", Public).routes([
            post("/signup", Password, auth::sign_up).limited(Limited::SignUp),
            post("/login", Password, auth::log_in).limited(Limited::LogIn),
            post("/refresh", Store, auth::refresh).limited(Limited::Refresh),
            post("/reset-password", Password, auth::reset_password).limited(Limited::OneTimeToken),
            post("/verify-email", Store, account::verify_email).limited(Limited::OneTimeToken),
            post("/forgot-password", Store, account::forgot_password).limited(Limited::Mail),
        ]),
        group("/auth", ApiKey).routes([post("/token", Store, auth::derive_token).without_derived()]),
        group("/auth", Jwt).even_unverified().routes([
            post("/logout", Store, auth::log_out),
            get("/me", Store, auth::me),
            patch("/me", Store, account::change_me).writing(),
            delete("/me", Password, auth::delete_me).with_body(),
            // For proxies that drop the bodies of DELETE.
            post("/delete", Password, auth::delete_me),
            post("/email", Password, account::change_email).limited(Limited::Mail).writing(),
            post("/verify-email/request", Store, account::request_verification).limited(Limited::Mail).writing(),
            post("/password", Password, auth::change_password).writing(),
            post("/totp", Password, totp::begin).writing(),
            post("/totp/confirm", Store, totp::confirm).writing(),
            post("/totp/disable", Password, totp::disable).writing(),
            get("/sessions", Store, sessions::list),
            delete("/sessions", Store, sessions::end_others),
            delete("/sessions/:id", Store, sessions::end),
            get("/events", Store, events::list),
        ]),
        group("/keys", Jwt).routes([
            post("/create", Store, keys::create).writing(),
            get("", Store, keys::list).with_large_answer(),
            get("/:id", Store, keys::show),
            patch("/:id", Store, keys::change).writing(),
            delete("/:id", Store, keys::revoke),
            post("/:id/rotate", Store, keys::rotate).writing(),
            get("/:id/usage", Store, usage::of_key),
        ]),
        group("/keys", Flexible).with_scopes(&KEYS_VERIFY).routes([
            post("/verify", Store, verification::verify),
            post("/verify-batch", Store, verification::verify_batch).with_body_bytes(256 * 1024),
        ]),
        // Somebody who finds a leaked key must be able to end it: wherever they are, while others use up its limit, and
        // while it is paused, before somebody resumes it.
        group("/keys", ApiKey).routes([post("/revoke-self", Store, keys::revoke_self)
            .without_derived()
            .without_limit()
            .even_paused()
            .accepted_from_anywhere()]),
        group("/oauth", ApiKey)
            .with_scopes(&KEYS_VERIFY)
            .routes([post("/introspect", Store, oauth::introspect).with_oauth_credentials()]),
        group("/admin", Flexible).with_scopes(&KEYWARD_ADMIN).for_operators().routes([
            get("/users", Store, admin::users::list),
            post("/users", Password, admin::users::create).writing(),
            get("/users/:id", Store, admin::users::show),
            patch("/users/:id", Store, admin::users::change).writing(),
            delete("/users/:id", Store, admin::users::delete),
            post("/users/:id/grant", Store, admin::users::grant).writing(),
            post("/users/:id/withdraw", Store, admin::users::withdraw).writing(),
            post("/users/:id/reset-password", Store, admin::users::reset_password).writing(),
            get("/users/:id/sessions", Store, admin::sessions::list),
            delete("/users/:id/sessions", Store, admin::sessions::end_all),
            get("/keys", Store, admin::keys::list),
            post("/keys", Store, admin::keys::create).writing(),
            get("/keys/:id", Store, admin::keys::show),
            patch("/keys/:id", Store, admin::keys::change).writing(),
            delete("/keys/:id", Store, admin::keys::revoke),
            post("/keys/:id/rotate", Store, admin::keys::rotate).writing(),
            get("/keys/:id/usage", Store, admin::keys::usage),
            post("/webhooks", Store, admin::webhooks::create).writing(),
            get("/webhooks", Store, admin::webhooks::list),
            get("/webhooks/:id", Store, admin::webhooks::show),
            patch("/webhooks/:id", Store, admin::webhooks::change).writing(),
            delete("/webhooks/:id", Store, admin::webhooks::delete),
            post("/webhooks/:id/rotate-secret", Store, admin::webhooks::rotate_secret).writing(),
            post("/webhooks/:id/test", Store, admin::webhooks::test).writing(),
            get("/webhooks/:id/deliveries", Store, admin::webhooks::deliveries),
            post("/webhooks/:id/deliveries/:delivery/resend", Store, admin::webhooks::resend).writing(),
            get("/events", Store, admin::events::list),
            get("/stats", Store, admin::stats::stats),
        ]),
        group("/webhooks", Jwt).routes([
            post("", Store, webhooks::create).writing(),
            get("", Store, webhooks::list),
            get("/:id", Store, webhooks::show),
            patch("/:id", Store, webhooks::change).writing(),
            delete("/:id", Store, webhooks::delete),
            post("/:id/rotate-secret", Store, webhooks::rotate_secret).writing(),
            post("/:id/test", Store, webhooks::test).writing(),
            get("/:id/deliveries", Store, webhooks::deliveries),
            post("/:id/deliveries/:delivery/resend", Store, webhooks::resend).writing(),
        ]),
        group("/protected", Jwt).routes([get("/user-only", Inline, protected::user_only)]),
        group("/protected", ApiKey).routes([get("/service-only", Inline, protected::service_only)]),
        group("/protected", Flexible).routes([get("/flexible", Inline, protected::flexible)]),
        group("/authz", Flexible).routes([
            any("/forward-auth", authz::demand, authz::admit),
            any("/auth-request", authz::demand, authz::admit).with_no_429(),
            any("/ext-authz/*", authz::demand_before_path, authz::admit),
        ]),
        group("/account", Public).routes([
            get("/reset", Inline, account_pages::reset),
            get("/verify", Inline, account_pages::verify),
            get("/:file", Inline, account_pages::file),
        ]),
        group("", Public).routes([
            get("/.well-known/jwks.json", Inline, jwks::jwks),
            get("/.well-known/openid-configuration", Inline, discovery::metadata),
            get("/.well-known/oauth-authorization-server", Inline, discovery::metadata),
            get("/health", Inline, health::health),
            get("/api/docs", Inline, docs::page),
            get("/api/docs/openapi.json", Inline, docs::openapi),
            get("/api/docs-json", Inline, docs::openapi),
            get("/api/docs/:file", Inline, docs::file),
        ]),
    ]
    .concat()
});

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::http::router::{Destination, Router};

    #[test]
    fn a_fixed_path_wins_over_a_parameter() {
        let router = Router::new(&ROUTES).unwrap();
        let find = |path: &'static str, name: &str| match router.find(&Method::GET, path) {
            Destination::Route(route, values) => (route.path, values.named(route).get(name).to_string()),
            _ => ("", String::new()),
        };
        assert_eq!(find("/api/docs/openapi.json", "file"), ("/api/docs/openapi.json", String::new()));
        assert_eq!(find("/api/docs/docs.js/", "file"), ("/api/docs/:file", "docs.js".to_string()));
        assert_eq!(find("/keys/7/usage", "id"), ("/keys/:id/usage", "7".to_string()));
        for path in ["/keys//usage", "/api/docs/a/b", "/health//"] {
            assert_eq!(find(path, "id"), ("", String::new()), "{path}");
        }
    }
}
