//! The whole API at a glance: each route with the credential that it takes and the lane in which it runs.

use http::Method;

use super::{auth, authz, docs, events, health, jwks, keys, oauth, protected, sessions, verification};
use crate::accounts::limits::Limited;
use crate::guard::judge::Guard::{ApiKey, Flexible, Jwt, Public};
use crate::http::lanes::Lane;
use crate::http::router::{Route, delete_with_body, gateway, limited, route};
use crate::keys::scopes::KEYS_VERIFY;

/// The whole API at a glance. `static/openapi.json` documents each line; a test compares the two.
pub static ROUTES: &[Route] = &[
    limited("/auth/signup", Limited::SignUp, Lane::Password, auth::sign_up),
    limited("/auth/login", Limited::LogIn, Lane::Password, auth::log_in),
    limited("/auth/refresh", Limited::Refresh, Lane::Store, auth::refresh),
    route(Method::POST, "/auth/logout", Jwt, Lane::Store, auth::log_out),
    route(Method::POST, "/auth/token", ApiKey, Lane::Store, auth::derive_token).without_derived(),
    route(Method::GET, "/auth/me", Jwt, Lane::Store, auth::me),
    delete_with_body("/auth/me", Jwt, Lane::Password, auth::delete_me),
    route(Method::POST, "/auth/password", Jwt, Lane::Password, auth::change_password).writing(),
    route(Method::GET, "/auth/sessions", Jwt, Lane::Store, sessions::list),
    route(Method::DELETE, "/auth/sessions", Jwt, Lane::Store, sessions::end_others),
    route(Method::DELETE, "/auth/sessions/:id", Jwt, Lane::Store, sessions::end),
    route(Method::GET, "/auth/events", Jwt, Lane::Store, events::list),
    route(Method::POST, "/keys/create", Jwt, Lane::Store, keys::create).writing(),
    route(Method::POST, "/keys/verify", Flexible, Lane::Store, verification::verify).with_scopes(&KEYS_VERIFY),
    route(Method::POST, "/keys/verify-batch", Flexible, Lane::Store, verification::verify_batch)
        .with_scopes(&KEYS_VERIFY)
        .with_body_bytes(256 * 1024),
    route(Method::POST, "/oauth/introspect", ApiKey, Lane::Store, oauth::introspect)
        .with_scopes(&KEYS_VERIFY)
        .with_oauth_credentials(),
    // Whoever finds a leaked key must be able to end it while others use it up, or before somebody resumes it.
    route(Method::POST, "/keys/revoke-self", ApiKey, Lane::Store, keys::revoke_self)
        .without_derived()
        .without_limit()
        .even_paused(),
    route(Method::GET, "/keys", Jwt, Lane::Store, keys::list).with_large_answer(),
    route(Method::PATCH, "/keys/:id", Jwt, Lane::Store, keys::change).writing(),
    route(Method::DELETE, "/keys/:id", Jwt, Lane::Store, keys::revoke),
    route(Method::POST, "/keys/:id/rotate", Jwt, Lane::Store, keys::rotate).writing(),
    route(Method::GET, "/keys/:id/usage", Jwt, Lane::Store, keys::usage),
    route(Method::GET, "/protected/user-only", Jwt, Lane::Inline, protected::user_only),
    route(Method::GET, "/protected/service-only", ApiKey, Lane::Inline, protected::service_only),
    route(Method::GET, "/protected/flexible", Flexible, Lane::Inline, protected::flexible),
    gateway("/authz/forward-auth", authz::narrow, authz::admit),
    gateway("/authz/auth-request", authz::narrow, authz::admit).with_no_429(),
    gateway("/authz/ext-authz/*", authz::narrow_before_path, authz::admit),
    route(Method::GET, "/.well-known/jwks.json", Public, Lane::Inline, jwks::jwks),
    route(Method::GET, "/health", Public, Lane::Inline, health::health),
    route(Method::GET, "/api/docs", Public, Lane::Inline, docs::page),
    route(Method::GET, "/api/docs/openapi.json", Public, Lane::Inline, docs::openapi),
    route(Method::GET, "/api/docs-json", Public, Lane::Inline, docs::openapi),
    route(Method::GET, "/api/docs/:file", Public, Lane::Inline, docs::file),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::router::{Destination, Router};

    #[test]
    fn a_fixed_path_wins_over_a_parameter() {
        let router = Router::new(ROUTES).unwrap();
        let find = |path: &'static str| match router.find(&Method::GET, path) {
            Destination::Route(route, parameter) => (route.path, parameter),
            _ => ("", ""),
        };
        assert_eq!(find("/api/docs/openapi.json"), ("/api/docs/openapi.json", ""));
        assert_eq!(find("/api/docs/docs.js/"), ("/api/docs/:file", "docs.js"));
        assert_eq!(find("/keys/7/usage"), ("/keys/:id/usage", "7"));
        assert_eq!(find("/keys//usage"), ("", ""));
        assert_eq!(find("/api/docs/a/b"), ("", ""));
        assert_eq!(find("/health//"), ("", ""));
    }
}
