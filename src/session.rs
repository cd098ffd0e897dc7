//! Sessions: signing up, logging in, refreshing and logging out.
//!
//! A session is one row with a generation. Each refresh moves it one generation on; tokens name the generation they
//! belong to and are never stored. A refresh token that was used before is theft (RFC 9700 §4.14.2), but for a short
//! time the last one is honoured: an answer may have been lost, or two tabs have asked at once.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use log::warn;
use uuid::Uuid;

use crate::cache::Subject;
use crate::clock::{Clock, Timestamp};
use crate::error::{Challenge, Error, Sent};
use crate::id::{SessionId, UserId};
use crate::password::{NewPassword, PasswordHash, Passwords};
use crate::store::{Created, Opened, Rotated, Store};
use crate::token::{TokenPair, Tokens};
use crate::user::{Email, User, new_user};

/// How long after a move the generation before it may still ask for the current pair.
pub const REUSE_GRACE: Duration = Duration::from_secs(10);

/// The first generation of a session.
const FIRST: i64 = 1;

/// A session that is about to be stored.
#[derive(Clone, Debug)]
pub struct NewSession {
    pub id: SessionId,
    pub user: UserId,
    pub generation: i64,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    pub ip: String,
    pub user_agent: Option<String>,
}

/// A session that has not ended, of an active user.
#[derive(Clone, Debug)]
pub struct LiveSession {
    pub id: SessionId,
    pub user: UserId,
    pub email: Arc<str>,
    pub expires_at: Timestamp,
}

impl Subject for LiveSession {
    fn ids(&self) -> [Uuid; 2] {
        [self.id.0, self.user.0]
    }
}

/// Where a login comes from, to be shown beside the session.
#[derive(Clone, Debug)]
pub struct Origin {
    pub ip: IpAddr,
    pub user_agent: Option<String>,
}

/// A new session's user and tokens.
pub struct LoggedIn {
    pub user: User,
    pub tokens: TokenPair,
}

pub struct Sessions {
    store: Arc<dyn Store>,
    passwords: Arc<Passwords>,
    tokens: Arc<Tokens>,
    signup_open: bool,
    clock: Clock,
}

impl Sessions {
    pub fn new(
        store: Arc<dyn Store>,
        passwords: Arc<Passwords>,
        tokens: Arc<Tokens>,
        signup_open: bool,
        clock: Clock,
    ) -> Sessions {
        Sessions { store, passwords, tokens, signup_open, clock }
    }

    /// Whether anyone may sign up; told before the form is judged.
    pub fn may_sign_up(&self) -> Result<(), Error> {
        if self.signup_open { Ok(()) } else { Err(Error::Forbidden("Sign-up is closed")) }
    }

    /// Makes a user and his first session, both or neither.
    pub fn sign_up(
        &self,
        email: Email,
        name: Option<String>,
        password: NewPassword,
        origin: Origin,
    ) -> Result<LoggedIn, Error> {
        let hash = self.passwords.hash(password)?;
        let user = new_user(email, name, self.clock.now());
        let session = self.new_session(user.id, origin);
        match self.store.create_user(&user, &hash, Some(&session))? {
            Created::Done => self.logged_in(user, &session),
            Created::EmailTaken => Err(Error::Conflict("User already exists")),
        }
    }

    /// Opens a session. Unknown e-mail, wrong password and inactive user are one answer, after the same work.
    pub fn log_in(&self, email: &Email, password: String, origin: Origin) -> Result<LoggedIn, Error> {
        let found = self.store.user_by_email(email)?;
        let hash = found.as_ref().map(|(_, hash)| hash);
        let matches = self.passwords.verify(password, hash)?;
        let Some((user, hash)) = found.filter(|(user, _)| matches && user.is_active) else {
            return Err(invalid_credentials());
        };
        let session = self.new_session(user.id, origin);
        self.open(user, &hash, session)
    }

    fn open(&self, user: User, hash: &PasswordHash, session: NewSession) -> Result<LoggedIn, Error> {
        match self.store.open_session(&session, hash)? {
            Opened::Done => self.logged_in(user, &session),
            Opened::UserChanged => Err(invalid_credentials()),
        }
    }

    /// Trades a refresh token for a new pair, and ends the session when the token was used before.
    pub fn refresh(&self, token: &str) -> Result<TokenPair, Error> {
        let claims = self.tokens.judge_refresh(token).ok_or_else(refused_refresh)?;
        let now = self.clock.now();
        let expires_at = now.plus(self.tokens.session_lifetime());
        let rotated =
            self.store.rotate_session(claims.sid, claims.generation, now, now.minus(REUSE_GRACE), expires_at)?;
        match rotated {
            Rotated::At { generation, user, email } => self.tokens.pair(user, &email, claims.sid, generation),
            Rotated::Reused => {
                warn!("session {}: a used refresh token came back, the session is ended", claims.sid);
                Err(refused_refresh())
            }
            Rotated::Gone => Err(refused_refresh()),
        }
    }

    /// Ends a session; its access and refresh tokens are worth nothing from now on.
    pub fn log_out(&self, session: SessionId) -> Result<(), Error> {
        Ok(self.store.end_session(session, self.clock.now())?)
    }

    /// Forgets sessions that no token can name any more.
    pub fn prune(&self) -> Result<(), Error> {
        Ok(self.store.prune_sessions(self.clock.now())?)
    }

    fn new_session(&self, user: UserId, origin: Origin) -> NewSession {
        let now = self.clock.now();
        NewSession {
            id: SessionId::new(),
            user,
            generation: FIRST,
            created_at: now,
            expires_at: now.plus(self.tokens.session_lifetime()),
            ip: origin.ip.to_string(),
            user_agent: origin.user_agent.map(|agent| agent.chars().take(255).collect()),
        }
    }

    fn logged_in(&self, user: User, session: &NewSession) -> Result<LoggedIn, Error> {
        let tokens = self.tokens.pair(user.id, &user.email, session.id, session.generation)?;
        Ok(LoggedIn { user, tokens })
    }
}

fn invalid_credentials() -> Error {
    let challenge = Challenge { token: Some(Sent::No), key: false };
    Error::Unauthenticated { message: "Invalid credentials", challenge }
}

fn refused_refresh() -> Error {
    Error::unauthorized(Challenge { token: Some(Sent::Yes), key: false })
}
