//! `/oauth/…`: questions of gateways and services that speak OAuth 2.0.

use serde::Serialize;
use uuid::Uuid;

use super::verification::parse_ip;
use crate::app::App;
use crate::base::error::Error;
use crate::base::id::{KeyId, SessionId, UserId};
use crate::base::metadata::Metadata;
use crate::guard::credentials::Credentials;
use crate::guard::principal::Principal;
use crate::guard::requirements::{Guard, Requirements};
use crate::http::form::Form;
use crate::http::request::Request;
use crate::http::response::{self, Response};
use crate::keys::key::KeyHash;
use crate::tokens::claims::Claims;

/// RFC 7662 §2.2. Times are in Unix seconds. For anything invalid, `active: false` is all that is told.
#[derive(Default, Serialize)]
struct Introspection<'a> {
    active: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_type: Option<&'static str>,
    /// Separated by spaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<KeyId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sub: Option<UserId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iat: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exp: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jti: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sid: Option<SessionId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    external_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a Metadata>,
}

impl<'a> Introspection<'a> {
    /// `claims`: those of the token; a key has none.
    fn new(app: &'a App, principal: &'a Principal, claims: Option<&Claims>) -> Introspection<'a> {
        let mut said = match principal {
            Principal::Anonymous => return Introspection::default(),
            Principal::User(user) => Introspection {
                scope: Some(user.scopes.to_string()).filter(|scopes| !scopes.is_empty()),
                username: Some(&user.email),
                sub: Some(user.id),
                sid: Some(user.session),
                ..Introspection::default()
            },
            Principal::Service(service) => {
                let scopes = service.scopes().collect::<Vec<_>>().join(" ");
                Introspection {
                    token_type: Some("ApiKey"),
                    scope: Some(scopes).filter(|scopes| !scopes.is_empty()),
                    client_id: Some(service.key.id),
                    username: Some(&service.key.email),
                    sub: Some(service.key.owner),
                    iat: Some(service.key.created_at.seconds()),
                    exp: service.key.expires_at.map(|expires_at| expires_at.seconds()),
                    external_id: service.key.external_id.as_deref(),
                    metadata: service.key.metadata.as_ref(),
                    ..Introspection::default()
                }
            }
        };
        said.active = true;
        if let Some(claims) = claims {
            let issue = claims.issue();
            let parties = app.tokens.parties();
            said.token_type = Some("Bearer");
            said.iss = parties.issuer.as_deref();
            said.aud = parties.audience.as_deref();
            said.iat = Some(issue.iat);
            // The key may have been given an earlier end since.
            said.exp = Some(said.exp.map_or(issue.lifetime.exp, |end| end.min(issue.lifetime.exp)));
            said.jti = Some(issue.jti);
        }
        said
    }
}

/// `POST /oauth/introspect` → 200 with the state of an access token, a derived token or a key (RFC 7662): whatever a
/// guard would admit is active. It counts as a use of the key, like `/keys/verify`. Refresh tokens are never active
/// here.
pub(crate) fn introspect(app: &App, request: &mut Request) -> Result<Response, Error> {
    let mut form = Form::read_url_encoded(request, &["token", "token_type_hint", "ip"])?;
    let token = form.required("token", |text| match text {
        "" => Err("should not be empty"),
        text => Ok(text.to_string()),
    });
    // `token_type_hint` is ignored: the form of a token tells its kind.
    form.optional("token_type_hint", |_| Ok(()));
    let client = form.optional("ip", parse_ip);
    let token = form.finish(token)?;
    let hash = KeyHash::of(token.as_bytes());
    let claims = if hash.is_none() { app.tokens.judge(&token) } else { None };
    let credentials = hash.map(|hash| Credentials::of_key(hash, client));
    let credentials = credentials.or_else(|| claims.clone().map(|claims| Credentials::of_token(claims, client)));
    let principal = match credentials {
        Some(credentials) => Guard::Flexible.settle(app, Requirements::plain(), credentials)?,
        None => None,
    };
    let principal = principal.unwrap_or(Principal::Anonymous);
    response::ok(&Introspection::new(app, &principal, claims.as_ref()))
}
