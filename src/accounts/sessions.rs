//! Sessions: signing up, logging in, refreshing, listing and ending them.
//!
//! A session is one row with a generation. Each refresh moves it to the next generation. Tokens name their generation
//! and are never stored. A refresh token that was used before may mean theft (RFC 9700 §4.14.2), a lost answer or
//! another tab of the same client: [`crate::accounts::refresh::rotation::Rotation::judge`] decides.

use std::net::IpAddr;
use std::sync::Arc;

use log::warn;

use crate::accounts::email::Email;
use crate::accounts::limits::{Write, WriteLimits};
use crate::accounts::passwords::NewPassword;
use crate::accounts::refresh::rotation::FIRST;
use crate::accounts::second_factor::shown::{Confirmed, Proof, Shown};
use crate::accounts::session::{Lifespan, NewSession, Session};
use crate::accounts::settings::AccountSettings;
use crate::accounts::store::{Created, Rotated, SessionStore};
use crate::accounts::throttling::PasswordAttempt;
use crate::accounts::user::{User, new_user};
use crate::accounts::users::{Users, email_taken};
use crate::audit::event::{Actor, By, Kind, Origin};
use crate::base::clock::Clock;
use crate::base::error::{Challenge, Error, Sent};
use crate::base::id::{SessionId, UserId};
use crate::statistics::service::Statistics;
use crate::tokens::service::{TokenPair, Tokens};

/// The most sessions that one listing gives.
const LISTED: i64 = 1000;

/// A new session's user and tokens.
pub struct LoggedIn {
    pub user: User,
    pub tokens: TokenPair,
}

pub struct Sessions {
    users: Arc<Users>,
    store: Arc<dyn SessionStore>,
    tokens: Arc<Tokens>,
    writes: Arc<WriteLimits>,
    statistics: Arc<Statistics>,
    lifespan: Lifespan,
    settings: AccountSettings,
    clock: Clock,
}

impl Sessions {
    pub(crate) fn new(
        users: Arc<Users>,
        store: Arc<dyn SessionStore>,
        tokens: Arc<Tokens>,
        writes: Arc<WriteLimits>,
        statistics: Arc<Statistics>,
        settings: AccountSettings,
        clock: Clock,
    ) -> Sessions {
        let lifespan = settings.lifespan(tokens.lifetime());
        Sessions { users, store, tokens, writes, statistics, lifespan, settings, clock }
    }

    /// Refuses a sign-up if sign-up is closed. Called before the form is checked.
    pub(crate) fn may_sign_up(&self) -> Result<(), Error> {
        if self.settings.signup_open { Ok(()) } else { Err(Error::Forbidden("Sign-up is closed")) }
    }

    /// Creates a user and their first session, both or neither. `with_link`: a mail with a link that verifies the e-mail is sent
    /// to it.
    pub fn sign_up(
        &self,
        email: Email,
        name: Option<String>,
        password: NewPassword,
        with_link: bool,
        origin: Origin,
    ) -> Result<LoggedIn, Error> {
        let hash = self.users.passwords.hash(password)?;
        let mut user = new_user(email, name, self.users.user_scopes.clone(), self.clock.now());
        user.needs_verified_email = self.users.verified_email_required;
        let session = self.new_session(user.id, origin.ip, origin.user_agent.as_deref());
        let by = By::user(session.id, origin);
        match self.users.store.create_user(&user, &hash, Some(&session), with_link, &by)? {
            Created::Done => self.logged_in(user, &session),
            Created::EmailTaken => Err(email_taken()),
        }
    }

    /// Opens a session. An unknown e-mail, a wrong password and an inactive user get the same answer after the same
    /// work, so that nobody can tell them apart; each counts as a failure.
    ///
    /// Only after the right password do they learn that a code is asked for, too. That counts as no failure, and clears none.
    pub fn log_in(&self, email: &Email, proof: &Proof<'_>, origin: Origin) -> Result<LoggedIn, Error> {
        let by = By { actor: Actor::Anonymous, origin: Some(origin.clone()) };
        // Another login may replace the hash of the same password meanwhile; the second round reads the new one.
        for _ in 0..2 {
            let found = self.users.store.user_by_email(email)?;
            let attempt = PasswordAttempt {
                email: found.as_ref().map_or(email.as_str(), |(user, _)| &user.email),
                user: found.as_ref().map(|(user, _)| user.id),
                hash: found.as_ref().map(|(_, hash)| hash),
                is_active: found.as_ref().is_some_and(|(user, _)| user.is_active),
                by: &by,
                failure: Kind::LoginFailed,
            };
            let right = self.users.throttle.verify(&attempt, proof.password)?;
            let Some((user, hash)) = &found else { break };
            let rehashed = self.users.passwords.rehash(proof.password, right.typed, hash);
            let session = self.new_session(user.id, origin.ip, origin.user_agent.as_deref());
            let shown = Shown { password: hash, code: proof.code, key: &self.users.data_key };
            let most = self.settings.max_sessions;
            let as_user = By::user(session.id, origin.clone());
            // Not before a code is confirmed: somebody who knows the password alone cannot use the limit up.
            let admit = || self.writes.spend(Write::LogIn, user.id);
            match self.store.open_session(&session, &shown, rehashed.as_ref(), most, &admit, &as_user)? {
                Confirmed::Done(Err(refused)) => return Err(refused),
                Confirmed::Done(Ok(())) => {
                    self.users.throttle.clear(&attempt, &right);
                    self.statistics.note_login();
                    return self.logged_in(user.clone(), &session);
                }
                Confirmed::Refused(fault) => return Err(self.users.refused(fault, user.id, &by)),
                Confirmed::UserChanged => {}
            }
        }
        Err(Error::invalid_credentials())
    }

    /// Trades a refresh token for a new pair, and ends the session when the token shows that two parties hold it.
    pub fn refresh(&self, token: &str, by: &By) -> Result<TokenPair, Error> {
        let claims = self.tokens.judge_refresh(token).ok_or_else(refused)?;
        let (lifespan, rotation) = (&self.lifespan, &self.settings.rotation);
        let admit = |user| self.writes.spend(Write::Change, user);
        match self.store.rotate_session(claims.sid, claims.generation, lifespan, rotation, &admit, by)? {
            Rotated::Refused(error) => Err(error),
            Rotated::At { generation, user, expires_at } => self.tokens.pair(&user, claims.sid, generation, expires_at),
            Rotated::Reused => {
                warn!("session {}: a used refresh token came back, the session is ended", claims.sid);
                Err(refused())
            }
            Rotated::Gone => Err(refused()),
        }
    }

    /// The user's sessions that have neither ended nor expired, newest first; the newest thousand of them.
    pub fn of_user(&self, user: UserId) -> Result<Vec<Session>, Error> {
        Ok(self.store.sessions_of(user, self.clock.now(), LISTED)?)
    }

    /// Ends one of the user's sessions; its access and refresh tokens are refused from now on. False: the user has no
    /// such session, or it has already ended.
    pub fn end(&self, user: UserId, session: SessionId, by: &By) -> Result<bool, Error> {
        Ok(self.store.end_session(session, user, by, self.clock.now())?)
    }

    /// Ends all of the user's sessions except `kept`. An error: `kept` itself has ended, so none is ended.
    pub fn end_others(&self, user: UserId, kept: SessionId, by: &By) -> Result<(), Error> {
        let ended = self.store.end_sessions(user, Some(kept), by, self.clock.now())?;
        ended.then_some(()).ok_or_else(refused)
    }

    /// Ends all of a user's sessions. False: there is no such user.
    pub fn end_all(&self, user: UserId, by: &By) -> Result<bool, Error> {
        Ok(self.store.end_sessions(user, None, by, self.clock.now())?)
    }

    /// Changes the password of a user who gives the current one. Ends all their sessions and opens a new one.
    pub fn change_password(
        &self,
        user: UserId,
        email: &str,
        proof: &Proof<'_>,
        new: NewPassword,
        by: &By,
    ) -> Result<TokenPair, Error> {
        let session =
            self.new_session(user, by.ip(), by.origin.as_ref().and_then(|origin| origin.user_agent.as_deref()));
        self.users.change_password(user, email, proof, new, &session, by)?;
        // They may have been deleted meanwhile.
        let user = self.users.by_id(user)?.ok_or_else(refused)?;
        self.tokens.pair(&user.claims(), session.id, FIRST, session.expires_at)
    }

    /// Deletes a part of the expired sessions. No valid token names them any more. False: there were none.
    pub fn prune(&self) -> Result<bool, Error> {
        Ok(self.store.prune_sessions(self.clock.now())?)
    }

    fn new_session(&self, user: UserId, ip: IpAddr, user_agent: Option<&str>) -> NewSession {
        let now = self.clock.now();
        NewSession {
            id: SessionId::new(),
            user,
            created_at: now,
            expires_at: self.lifespan.end(now, now),
            ip: ip.to_string(),
            user_agent: user_agent.map(|agent| agent.chars().take(255).collect()),
        }
    }

    fn logged_in(&self, user: User, session: &NewSession) -> Result<LoggedIn, Error> {
        let tokens = self.tokens.pair(&user.clone().claims(), session.id, FIRST, session.expires_at)?;
        Ok(LoggedIn { user, tokens })
    }
}

fn refused() -> Error {
    Error::unauthorized(Challenge { token: Some(Sent::Yes), key: false, basic: false })
}
