//! JWTs: what an access token and a refresh token say, how they are signed and judged (RFC 7519, RFC 8725).

use std::time::Duration;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::clock::{Clock, Timestamp};
use crate::config::Secret;
use crate::error::Error;
use crate::id::{SessionId, UserId};

/// What an access token says. `type` keeps one kind of token from passing for the other (RFC 8725 §3.12).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AccessClaims {
    pub sub: UserId,
    pub email: String,
    pub sid: SessionId,
    pub iat: i64,
    pub exp: i64,
    pub jti: Uuid,
    #[serde(rename = "type")]
    kind: AccessType,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum AccessType {
    #[serde(rename = "access")]
    Access,
}

/// What a refresh token says: the session, and the generation of it that the token belongs to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RefreshClaims {
    pub sub: UserId,
    pub sid: SessionId,
    #[serde(rename = "gen")]
    pub generation: i64,
    pub iat: i64,
    pub exp: i64,
    pub jti: Uuid,
    #[serde(rename = "type")]
    kind: RefreshType,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum RefreshType {
    #[serde(rename = "refresh")]
    Refresh,
}

/// An access token and the refresh token that replaces both.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenPair {
    pub access_token: String,
    pub refresh_token: String,
}

/// Signs and judges tokens.
pub struct Tokens {
    access: HmacKey,
    refresh: HmacKey,
    access_lifetime: Duration,
    refresh_lifetime: Duration,
    validation: Validation,
    clock: Clock,
}

struct HmacKey {
    signing: EncodingKey,
    verifying: DecodingKey,
}

impl HmacKey {
    fn new(secret: &Secret) -> HmacKey {
        let secret = secret.expose().as_bytes();
        HmacKey { signing: EncodingKey::from_secret(secret), verifying: DecodingKey::from_secret(secret) }
    }
}

impl Tokens {
    pub fn new(
        access_secret: &Secret,
        refresh_secret: &Secret,
        access_lifetime: Duration,
        refresh_lifetime: Duration,
        clock: Clock,
    ) -> Tokens {
        // One algorithm and no other, whatever a header claims (RFC 8725 §3.1). Expiry is judged below: the library
        // would read the system's clock and allow a minute more.
        let mut validation = Validation::new(Algorithm::HS256);
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        Tokens {
            access: HmacKey::new(access_secret),
            refresh: HmacKey::new(refresh_secret),
            access_lifetime,
            refresh_lifetime,
            validation,
            clock,
        }
    }

    /// How long the tokens of a pair live: the longer of the two.
    pub fn lifetime(&self) -> Duration {
        self.access_lifetime.max(self.refresh_lifetime)
    }

    /// A fresh pair for this generation of a session, which ends at `ends` at the latest.
    pub fn pair(
        &self,
        user: UserId,
        email: &str,
        session: SessionId,
        generation: i64,
        ends: Timestamp,
    ) -> Result<TokenPair, Error> {
        let now = self.clock.now();
        let access = AccessClaims {
            sub: user,
            email: email.to_string(),
            sid: session,
            iat: now.seconds(),
            exp: now.plus(self.access_lifetime).min(ends).seconds(),
            jti: Uuid::now_v7(),
            kind: AccessType::Access,
        };
        let refresh = RefreshClaims {
            sub: user,
            sid: session,
            generation,
            iat: now.seconds(),
            exp: now.plus(self.refresh_lifetime).min(ends).seconds(),
            jti: Uuid::now_v7(),
            kind: RefreshType::Refresh,
        };
        Ok(TokenPair {
            access_token: sign(&access, &self.access.signing)?,
            refresh_token: sign(&refresh, &self.refresh.signing)?,
        })
    }

    /// The claims of a good, unexpired access token. Whether its session still lives is the session's to say.
    pub fn judge_access(&self, token: &str) -> Option<AccessClaims> {
        let claims: AccessClaims = self.verify(token, &self.access.verifying)?;
        (claims.exp > self.clock.now().seconds()).then_some(claims)
    }

    /// The claims of a good, unexpired refresh token.
    pub fn judge_refresh(&self, token: &str) -> Option<RefreshClaims> {
        let claims: RefreshClaims = self.verify(token, &self.refresh.verifying)?;
        (claims.exp > self.clock.now().seconds()).then_some(claims)
    }

    fn verify<T: DeserializeOwned>(&self, token: &str, key: &DecodingKey) -> Option<T> {
        jsonwebtoken::decode(token, key, &self.validation).ok().map(|data| data.claims)
    }
}

fn sign<T: Serialize>(claims: &T, key: &EncodingKey) -> Result<String, Error> {
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, key)
        .map_err(|error| Error::Internal(format!("signing a token: {error}")))
}
