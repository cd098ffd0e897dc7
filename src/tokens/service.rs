//! Issuing and verifying JWTs (RFC 7519, RFC 8725).

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use jsonwebtoken::jwk::JwkSet;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use serde::Serialize;
use uuid::Uuid;

use crate::base::clock::{Clock, Timestamp};
use crate::base::error::Error;
use crate::base::id::{KeyId, SessionId, UserId};
use crate::keys::scopes::Scopes;
use crate::memory::lookup::places;
use crate::tokens::claims::{AccessClaims, Claims, Issue, Lifetime, RefreshClaims, ServiceClaims, UserClaims};
use crate::tokens::discovery::Metadata;
use crate::tokens::jws::{Keyring, Signed, object};
use crate::tokens::payloads::{
    AccessPayload, AccessType, Audience, Kind, RefreshPayload, RefreshType, ServicePayload, ServiceType,
};

/// An access token, and the refresh token that gets the next pair.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenPair {
    pub access_token: String,
    pub refresh_token: String,
}

/// Who issues tokens and for whom. If set, it is put into tokens and required of them (RFC 8725 §3.8, §3.9).
#[derive(Clone, Debug, Default)]
pub struct Parties {
    pub issuer: Option<String>,
    pub audience: Option<String>,
}

#[derive(Clone)]
struct ByText;

impl Weighter<[u8; 32], Claims> for ByText {
    fn weight(&self, _: &[u8; 32], claims: &Claims) -> u64 {
        match claims {
            Claims::User(_) => 1,
            Claims::Service(claims) => places(claims.scopes.as_str().len()),
        }
    }
}

/// Signs and verifies tokens.
pub struct Tokens {
    access: Keyring,
    refresh: Keyring,
    access_lifetime: Duration,
    refresh_lifetime: Duration,
    parties: Parties,
    /// The claims of verified access and service tokens, by the SHA-256 of the token. They depend only on the token and
    /// the configured keys, so entries never become wrong; whether a token is valid now is checked at every use.
    verified: Cache<[u8; 32], Claims, ByText>,
    clock: Clock,
}

impl Tokens {
    /// `remembered`: how many verified tokens are cached.
    pub fn new(
        access: Keyring,
        refresh: Keyring,
        access_lifetime: Duration,
        refresh_lifetime: Duration,
        parties: Parties,
        remembered: usize,
        clock: Clock,
    ) -> Tokens {
        let verified = Cache::with_weighter(remembered, remembered as u64, ByText);
        Tokens { access, refresh, access_lifetime, refresh_lifetime, parties, verified, clock }
    }

    /// The longer lifetime of the two tokens of a pair.
    pub(crate) fn lifetime(&self) -> Duration {
        self.access_lifetime.max(self.refresh_lifetime)
    }

    pub(crate) fn parties(&self) -> &Parties {
        &self.parties
    }

    /// The public keys of access tokens.
    pub(crate) fn jwks(&self) -> JwkSet {
        self.access.jwks()
    }

    /// What others have to know to verify access tokens. `None`: the issuer is no https URL.
    pub(crate) fn metadata(&self) -> Option<Metadata<'_>> {
        Metadata::of(self.parties.issuer.as_deref()?, &self.access.published_algorithms())
    }

    /// A new pair for this generation of a session. Neither token is valid after `ends`.
    pub(crate) fn pair(
        &self,
        user: &UserClaims,
        session: SessionId,
        generation: i64,
        ends: Timestamp,
    ) -> Result<TokenPair, Error> {
        let now = self.clock.now();
        let issuer = || self.parties.issuer.as_deref().map(Cow::from);
        let audience = || self.parties.audience.as_deref().map(|audience| Audience::One(audience.into()));
        let access = AccessPayload {
            iss: issuer(),
            aud: audience(),
            sub: user.id,
            email: user.email.as_str().into(),
            email_verified: Some(user.email_verified),
            name: user.name.as_deref().map(Cow::from),
            scope: Some(user.scopes.as_str().into()),
            sid: session,
            generation: Some(generation),
            iat: now.seconds(),
            nbf: None,
            exp: now.plus(self.access_lifetime).min(ends).seconds(),
            jti: Uuid::now_v7(),
            kind: AccessType::Access,
        };
        let refresh = RefreshPayload {
            iss: issuer(),
            aud: audience(),
            sub: user.id,
            sid: session,
            generation,
            iat: now.seconds(),
            nbf: None,
            exp: now.plus(self.refresh_lifetime).min(ends).seconds(),
            jti: Uuid::now_v7(),
            kind: RefreshType::Refresh,
        };
        Ok(TokenPair {
            access_token: sign(&self.access, Kind::User, &access)?,
            refresh_token: sign(&self.refresh, Kind::Refresh, &refresh)?,
        })
    }

    /// A token that stands for this key, with these of its scopes, until `ends`.
    pub fn service(&self, owner: UserId, key: KeyId, scopes: &Scopes, ends: Timestamp) -> Result<String, Error> {
        let payload = ServicePayload {
            iss: self.parties.issuer.as_deref().map(Cow::from),
            aud: self.parties.audience.as_deref().map(|audience| Audience::One(audience.into())),
            sub: key.0,
            owner: Some(owner),
            key,
            scope: scopes.as_str().into(),
            iat: self.clock.now().seconds(),
            nbf: None,
            exp: ends.seconds(),
            jti: Uuid::now_v7(),
            kind: ServiceType::Service,
        };
        sign(&self.access, Kind::Key, &payload)
    }

    /// The claims of an access or service token that is valid now. Whether its session or key is still good is checked
    /// elsewhere.
    pub fn judge(&self, token: &str) -> Option<Claims> {
        let hash = digest::digest(&digest::SHA256, token.as_bytes()).as_ref().try_into().ok()?;
        let now = self.clock.now();
        if let Some(claims) = self.verified.get(&hash) {
            return claims.issue().lifetime.includes(now).then_some(claims);
        }
        let claims = self.verify(token).filter(|claims| claims.issue().lifetime.includes(now))?;
        self.verified.insert(hash, claims.clone());
        Some(claims)
    }

    fn verify(&self, token: &str) -> Option<Claims> {
        let signed = self.access.verify(token)?;
        match Kind::of(&signed)? {
            Kind::User => self.of_user(&signed),
            Kind::Key => self.of_key(&signed, |payload| payload.owner.is_some() && payload.sub == payload.key.0),
            Kind::Untold => self.of_user(&signed).or_else(|| self.of_key(&signed, |payload| payload.owner.is_none())),
            Kind::Refresh => None,
        }
    }

    fn of_user(&self, signed: &Signed) -> Option<Claims> {
        let AccessPayload { iss, aud, sub, sid, generation, iat, nbf, exp, jti, .. } = object(&signed.payload)?;
        let claims = AccessClaims { sub, sid, generation, issue: Issue { jti, iat, lifetime: Lifetime { nbf, exp } } };
        self.is_ours(iss, aud).then_some(Claims::User(claims))
    }

    fn of_key(&self, signed: &Signed, is_whole: impl Fn(&ServicePayload<'_>) -> bool) -> Option<Claims> {
        let payload: ServicePayload<'_> = object(&signed.payload).filter(is_whole)?;
        let ServicePayload { iss, aud, key, scope, iat, nbf, exp, jti, .. } = payload;
        let scopes = Scopes::from_stored(scope.into_owned());
        let claims = ServiceClaims { key, scopes, issue: Issue { jti, iat, lifetime: Lifetime { nbf, exp } } };
        self.is_ours(iss, aud).then(|| Claims::Service(Arc::new(claims)))
    }

    /// The claims of a refresh token that is valid now.
    pub fn judge_refresh(&self, token: &str) -> Option<RefreshClaims> {
        let signed = self.refresh.verify(token)?;
        let kind = Kind::of(&signed).filter(|kind| matches!(kind, Kind::Refresh | Kind::Untold));
        let RefreshPayload { iss, aud, sid, generation, nbf, exp, .. } = kind.and_then(|_| object(&signed.payload))?;
        let in_force = Lifetime { nbf, exp }.includes(self.clock.now());
        (in_force && self.is_ours(iss, aud)).then_some(RefreshClaims { sid, generation })
    }

    fn is_ours(&self, issuer: Option<Cow<'_, str>>, audience: Option<Audience<'_>>) -> bool {
        let issued_by = |expected: &String| issuer.as_deref() == Some(expected.as_str());
        let meant_for = |expected: &String| match &audience {
            Some(Audience::One(audience)) => audience == expected,
            Some(Audience::Several(audiences)) => audiences.contains(expected),
            None => false,
        };
        self.parties.issuer.as_ref().is_none_or(issued_by) && self.parties.audience.as_ref().is_none_or(meant_for)
    }
}

fn sign<T: Serialize>(keyring: &Keyring, kind: Kind, payload: &T) -> Result<String, Error> {
    keyring.sign(kind.typ(), payload).map_err(|error| Error::Internal(format!("signing a token: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::secret::Secret;
    use crate::keys::grants::Grants;
    use crate::tokens::signing_keys::SigningKey;

    const HOUR: Duration = Duration::from_secs(3600);

    fn tokens(secret: &str, clock: &Clock) -> Tokens {
        let keyring = || Keyring::new(SigningKey::from_secret(&Secret::new(secret.to_string())), []);
        Tokens::new(keyring(), keyring(), HOUR, HOUR, Parties::default(), 100, clock.clone())
    }

    fn pair(tokens: &Tokens) -> TokenPair {
        let ann = UserClaims {
            id: UserId::new(),
            email: "ann@example.com".to_string(),
            email_verified: false,
            name: None,
            scopes: Grants::default(),
        };
        tokens.pair(&ann, SessionId::new(), 1, tokens.clock.now().plus(HOUR)).unwrap()
    }

    #[test]
    fn only_good_access_tokens_are_remembered() {
        let clock = Clock::default();
        let ours = tokens("a-secret-of-ours", &clock);
        let (good, foreign) = (pair(&ours), pair(&tokens("another-secret", &clock)));
        for bad in [&good.refresh_token, &foreign.access_token, &format!("{}A", good.access_token), "", ".."] {
            assert!(ours.judge(bad).is_none(), "{bad}");
        }
        assert_eq!(ours.verified.len(), 0);
        let first = ours.judge(&good.access_token).unwrap();
        let second = ours.judge(&good.access_token).unwrap();
        let (Claims::User(first), Claims::User(second)) = (first, second) else { panic!("a user's token") };
        assert_eq!((first.sub, first.sid), (second.sub, second.sid));
        assert_eq!(ours.verified.len(), 1);
        clock.advance(HOUR);
        assert!(ours.judge(&good.access_token).is_none());
    }

    #[test]
    fn a_token_that_has_expired_is_not_remembered() {
        let clock = Clock::default();
        let tokens = tokens("a-secret-of-ours", &clock);
        let token = pair(&tokens).access_token;
        clock.advance(HOUR);
        assert!(tokens.judge(&token).is_none());
        assert_eq!(tokens.verified.len(), 0);
    }
}
