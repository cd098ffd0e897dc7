//! The kinds of tokens and their payloads, as they are written in JSON.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize};
use uuid::Uuid;

use crate::base::id::{KeyId, SessionId, UserId};
use crate::tokens::jws::Signed;

/// The kind of token, named by the header's `typ`, so that no kind passes for another: neither here nor at a service
/// that only knows the published keys (RFC 8725 §3.11).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// RFC 9068 §2.1.
    User,
    /// A token that was derived from a key.
    Key,
    Refresh,
    /// A token from before headers named the kind: only the payload's `type` tells it.
    Untold,
}

impl Kind {
    pub(crate) fn typ(self) -> &'static str {
        match self {
            Kind::User => "at+jwt",
            Kind::Key => "key+jwt",
            Kind::Refresh => "refresh+jwt",
            Kind::Untold => "JWT",
        }
    }

    pub(crate) fn of(signed: &Signed) -> Option<Kind> {
        let Some(typ) = &signed.typ else { return Some(Kind::Untold) };
        [Kind::User, Kind::Key, Kind::Refresh, Kind::Untold].into_iter().find(|kind| kind.typ() == typ)
    }
}

/// An access token's payload. `type` repeats the kind for services that do not read headers (RFC 8725 §3.12).
///
/// A repeated claim is refused, and so is one of another JSON type.
#[derive(Serialize, Deserialize)]
pub(crate) struct AccessPayload<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iss: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aud: Option<Audience<'a>>,
    pub sub: UserId,
    #[serde(borrow)]
    pub email: Cow<'a, str>,
    /// OpenID Connect Core §5.1. This and the next two are missing in tokens of earlier versions.
    #[serde(default, deserialize_with = "told", skip_serializing_if = "Option::is_none")]
    pub email_verified: Option<bool>,
    #[serde(default, deserialize_with = "told", skip_serializing_if = "Option::is_none")]
    pub name: Option<Cow<'a, str>>,
    /// RFC 9068 §2.2.3, for services that verify tokens by themselves. Keyward asks what the user has now.
    #[serde(default, deserialize_with = "told", skip_serializing_if = "Option::is_none")]
    pub scope: Option<Cow<'a, str>>,
    pub sid: SessionId,
    #[serde(rename = "gen", default, deserialize_with = "told", skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    pub iat: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nbf: Option<i64>,
    pub exp: i64,
    pub jti: Uuid,
    #[serde(rename = "type")]
    pub kind: AccessType,
}

#[derive(Serialize, Deserialize)]
pub(crate) enum AccessType {
    #[serde(rename = "access")]
    Access,
}

/// The payload of a token that was derived from a key; `scope` as in RFC 9068 §2.2.3.
#[derive(Serialize, Deserialize)]
pub(crate) struct ServicePayload<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iss: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aud: Option<Audience<'a>>,
    /// The key, so that nobody takes the token for its owner's. In tokens from before headers named the kind: the
    /// owner.
    pub sub: Uuid,
    /// Missing in tokens from before headers named the kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<UserId>,
    pub key: KeyId,
    #[serde(borrow)]
    pub scope: Cow<'a, str>,
    pub iat: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nbf: Option<i64>,
    pub exp: i64,
    pub jti: Uuid,
    #[serde(rename = "type")]
    pub kind: ServiceType,
}

#[derive(Serialize, Deserialize)]
pub(crate) enum ServiceType {
    #[serde(rename = "service")]
    Service,
}

/// A refresh token's payload.
#[derive(Serialize, Deserialize)]
pub(crate) struct RefreshPayload<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iss: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aud: Option<Audience<'a>>,
    pub sub: UserId,
    pub sid: SessionId,
    #[serde(rename = "gen")]
    pub generation: i64,
    pub iat: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nbf: Option<i64>,
    pub exp: i64,
    pub jti: Uuid,
    #[serde(rename = "type")]
    pub kind: RefreshType,
}

#[derive(Serialize, Deserialize)]
pub(crate) enum RefreshType {
    #[serde(rename = "refresh")]
    Refresh,
}

/// Reads a claim that may be missing but, if present, must not be null.
fn told<'de, D: Deserializer<'de>, T: Deserialize<'de>>(claim: D) -> Result<Option<T>, D::Error> {
    T::deserialize(claim).map(Some)
}

/// One audience or several (RFC 7519 §4.1.3).
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Audience<'a> {
    One(Cow<'a, str>),
    Several(Vec<String>),
}
