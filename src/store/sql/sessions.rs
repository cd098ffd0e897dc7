//! The statements of sessions.

use std::sync::Arc;

use super::events::record;
use super::{SqlStore, codes, delete_found, is_so};
use crate::accounts::ending::{EndReason, OpenSession, ended_by_limit, ended_one, ended_others, surplus};
use crate::accounts::passwords::PasswordHash;
use crate::accounts::refresh::decision::{Refresh, StoredSession};
use crate::accounts::refresh::orphans::Orphans;
use crate::accounts::refresh::rotation::{FIRST, Rotation, RotationRules};
use crate::accounts::second_factor::shown::{Confirmed, Shown};
use crate::accounts::session::{Lifespan, LiveSession, NewSession, Session};
use crate::accounts::session_address::is_known_address;
use crate::accounts::store::{Rotated, SessionStore};
use crate::audit::event::{By, Event, Kind, NEW_ADDRESS, Subject};
use crate::base::clock::Timestamp;
use crate::base::error::{Error, StoreError};
use crate::base::id::{SessionId, UserId};
use crate::keys::grants::Grants;
use crate::memory::changes::Change;
use crate::store::driver::{Driver, Row, Transaction, Value, first, unexpected};
use crate::tokens::claims::UserClaims;

/// How many ended sessions of a user are kept for their addresses: of those that ended one by one, and of those that
/// ended all together (see [`end_all`]).
const KEPT: i64 = 200;
/// How many surplus sessions a login ends and how many ended ones it deletes. The next login goes on.
const PART: i64 = 100;
/// Up to which number sessions that end together are counted.
const COUNTED: i64 = 1000;

const INSERT_SESSION: &str = "INSERT INTO sessions \
    (id, user_id, generation, created_at, expires_at, ip, user_agent, epoch) \
    VALUES ($1, $2, $3, $4, $5, $6, $7, (SELECT session_epoch FROM users WHERE id = $2))";

const LIVE_SESSIONS: &str = "SELECT sessions.id, users.id, users.email, sessions.expires_at, sessions.orphans, \
    users.scopes, users.email_verified, users.needs_verified_email FROM sessions JOIN users ON users.id = sessions.user_id \
    WHERE sessions.id = ANY($1) AND sessions.ended_at IS NULL AND sessions.epoch = users.session_epoch \
    AND users.is_active";

const OPEN_SESSION: &str = "SELECT sessions.id FROM sessions JOIN users ON users.id = sessions.user_id \
    WHERE sessions.id = $1 AND sessions.user_id = $2 AND sessions.ended_at IS NULL \
    AND sessions.epoch = users.session_epoch";

const LOCK_SESSION: &str = "SELECT id FROM sessions WHERE id = $1 FOR UPDATE";

const LIVING_SESSION: &str = "SELECT users.id, users.email, sessions.created_at, sessions.expires_at, \
    sessions.generation, sessions.rotated_at, sessions.parent, sessions.left_at, sessions.given_at, sessions.moves, \
    sessions.orphans, users.email_verified, users.name, users.scopes \
    FROM sessions JOIN users ON users.id = sessions.user_id WHERE sessions.id = $1 AND sessions.ended_at IS NULL AND sessions.epoch = users.session_epoch \
    AND users.is_active";

/// Those of the epoch `$2`, newest first.
const OPEN_OF_EPOCH: &str = "SELECT id, expires_at FROM sessions \
    WHERE user_id = $1 AND epoch = $2 AND ended_at IS NULL ORDER BY created_at DESC, id DESC LIMIT $3";

const SESSIONS_OF_USER: &str = "SELECT id, created_at, rotated_at, expires_at, ip, user_agent FROM sessions \
    WHERE user_id = $1 AND epoch = (SELECT session_epoch FROM users WHERE id = $1) AND ended_at IS NULL \
    AND expires_at > $2 ORDER BY created_at DESC, id DESC LIMIT $3";

const OLDEST_SESSIONS_OF_USER: &str = "SELECT id, created_at, rotated_at, expires_at FROM sessions \
    WHERE user_id = $1 AND epoch = (SELECT session_epoch FROM users WHERE id = $1) AND ended_at IS NULL \
    ORDER BY created_at, id LIMIT $2";

const OPEN_ADDRESSES: &str = "SELECT ip FROM sessions \
    WHERE user_id = $1 AND ended_at IS NULL ORDER BY epoch DESC, created_at DESC, id DESC LIMIT $2";

const ENDED_ADDRESSES: &str = "SELECT ip FROM sessions \
    WHERE user_id = $1 AND ended_at IS NOT NULL ORDER BY created_at DESC, id DESC LIMIT $2";

const ENDED_AND_SPARE: &str = "SELECT id FROM sessions \
    WHERE user_id = $1 AND ended_at IS NOT NULL ORDER BY created_at DESC, id DESC LIMIT $2 OFFSET $3";

const LEFT_BEHIND_AND_SPARE: &str = "SELECT id FROM sessions \
    WHERE user_id = $1 AND epoch < (SELECT session_epoch FROM users WHERE id = $1) AND ended_at IS NULL \
    ORDER BY epoch DESC, created_at DESC, id DESC LIMIT $2 OFFSET $3";

const DELETE_SESSIONS: &str = "DELETE FROM sessions WHERE id IN (ROWS)";

const LOCK_EPOCH: &str = "SELECT session_epoch FROM users WHERE id = $1 FOR UPDATE";

const SET_EPOCH: &str = "UPDATE users SET session_epoch = $2 WHERE id = $1";

const KEEP_SESSION: &str = "UPDATE sessions SET epoch = $4 \
    WHERE id = $1 AND user_id = $2 AND epoch = $3 AND ended_at IS NULL";

const END_SESSION_OF_USER: &str = "UPDATE sessions SET ended_at = $3, end_reason = $4 \
    WHERE id = $1 AND user_id = $2 AND ended_at IS NULL AND expires_at > $3 \
    AND epoch = (SELECT session_epoch FROM users WHERE id = $2)";

const MOVE_SESSION: &str = "UPDATE sessions SET generation = $2, rotated_at = $3, expires_at = $4, parent = $5, \
    left_at = $6, given_at = $3, moves = $7, orphans = $8 WHERE id = $1";

const NOTE_GIVEN: &str = "UPDATE sessions SET given_at = $2 WHERE id = $1";

const END_SESSION: &str = "UPDATE sessions SET ended_at = $2, end_reason = $3 WHERE id = $1 AND ended_at IS NULL";

pub(crate) fn insert(transaction: &mut dyn Transaction, session: &NewSession) -> Result<(), StoreError> {
    transaction.execute(
        INSERT_SESSION,
        &[
            Value::Uuid(session.id.0),
            Value::Uuid(session.user.0),
            Value::Int(FIRST),
            Value::Timestamp(session.created_at),
            Value::Timestamp(session.expires_at),
            Value::Text(session.ip.clone()),
            Value::or_null(session.user_agent.clone(), Value::Text),
        ],
    )?;
    Ok(())
}

/// Stores a session, ends some of the user's if they are more than `most`, and deletes some of their ended ones.
/// Returns the sessions that it ended.
pub(crate) fn open(
    transaction: &mut dyn Transaction,
    session: &NewSession,
    most: u32,
) -> Result<Vec<SessionId>, StoreError> {
    insert(transaction, session)?;
    let (user, now) = (Value::Uuid(session.user.0), session.created_at);
    let limit = Value::Int(i64::from(most) + PART);
    let rows = transaction.query(OLDEST_SESSIONS_OF_USER, &[user.clone(), limit])?;
    let open = |mut row: Row| {
        let (id, created_at) = (SessionId(row.uuid(0)?), row.timestamp(1)?);
        Ok(OpenSession { id, created_at, rotated_at: row.optional_timestamp(2)?, expires_at: row.timestamp(3)? })
    };
    let open: Vec<OpenSession> = rows.into_iter().map(open).collect::<Result<_, StoreError>>()?;
    let surplus = surplus(open, session.id, most as usize, now);
    for id in &surplus {
        end(transaction, *id, EndReason::Limit, now)?;
    }
    for spare in [ENDED_AND_SPARE, LEFT_BEHIND_AND_SPARE] {
        let parameters = [user.clone(), Value::Int(PART), Value::Int(KEPT)];
        delete_found(transaction, spare, &parameters, DELETE_SESSIONS)?;
    }
    Ok(surplus)
}

/// Whether the user has logged in before, but from none of their latest addresses like this. The stored sessions tell the
/// addresses, and may have expired all.
fn is_new_address(transaction: &mut dyn Transaction, session: &NewSession) -> Result<bool, StoreError> {
    let mut addresses = Vec::new();
    for sql in [OPEN_ADDRESSES, ENDED_ADDRESSES] {
        for mut row in transaction.query(sql, &[Value::Uuid(session.user.0), Value::Int(KEPT)])? {
            addresses.push(row.text(0)?);
        }
    }
    if !addresses.is_empty() {
        return Ok(!is_known_address(&addresses, &session.ip));
    }
    let has_logged_in = "SELECT id FROM users WHERE id = $1 AND last_login_at IS NOT NULL";
    Ok(!transaction.query(has_logged_in, &[Value::Uuid(session.user.0)])?.is_empty())
}

/// Ends one session, if it has not ended.
fn end(transaction: &mut dyn Transaction, id: SessionId, reason: EndReason, now: Timestamp) -> Result<(), StoreError> {
    let reason = Value::Text(reason.as_str().to_string());
    transaction.execute(END_SESSION, &[Value::Uuid(id.0), Value::Timestamp(now), reason])?;
    Ok(())
}

/// The result of [`end_all`].
#[derive(Default)]
pub(crate) struct Ended {
    /// How many sessions that had not expired ended, counted up to [`COUNTED`].
    pub count: u64,
    /// Whether any session ended, expired or not.
    pub any: bool,
}

/// Whether the user's session has not ended. Holds until the transaction ends if the user's row is locked.
pub(crate) fn has_not_ended(
    transaction: &mut dyn Transaction,
    session: SessionId,
    user: UserId,
) -> Result<bool, StoreError> {
    let found = transaction.query(OPEN_SESSION, &[Value::Uuid(session.0), Value::Uuid(user.0)])?;
    Ok(!found.is_empty())
}

/// Ends all sessions of the user but `kept`. The work does not grow with their number: a session lives only as long as
/// its epoch is the user's, and this moves the user and `kept` to the next epoch. `None`, and none ends: there is no
/// such user, or `kept` itself has ended.
pub(crate) fn end_all(
    transaction: &mut dyn Transaction,
    user: UserId,
    kept: Option<SessionId>,
    now: Timestamp,
) -> Result<Option<Ended>, StoreError> {
    let id = Value::Uuid(user.0);
    // A login at the same time comes either before this, and its session ends, or after it, and its session has the new
    // epoch.
    let Some(mut row) = first(transaction.query(LOCK_EPOCH, std::slice::from_ref(&id))?) else { return Ok(None) };
    let epoch = row.int(0)?;
    let (of_epoch, next) = (Value::Int(epoch), Value::Int(epoch + 1));
    // Done even if there are no other sessions, because it shows whether `kept` has ended.
    if let Some(kept) = kept {
        let parameters = [Value::Uuid(kept.0), id.clone(), of_epoch.clone(), next.clone()];
        if transaction.execute(KEEP_SESSION, &parameters)? == 0 {
            return Ok(None);
        }
    }
    let mut ended = Ended::default();
    for mut row in transaction.query(OPEN_OF_EPOCH, &[id.clone(), of_epoch, Value::Int(COUNTED)])? {
        ended.any = true;
        ended.count += u64::from(row.timestamp(1)? > now);
    }
    transaction.execute(SET_EPOCH, &[id, next])?;
    Ok(Some(ended))
}

/// Columns from this one on: generation, rotated_at, parent, left_at, given_at, moves, orphans.
fn rotation(row: &mut Row, column: usize) -> Result<Rotation, StoreError> {
    let generation = row.int(column)?;
    let rotated_at = row.optional_timestamp(column + 1)?;
    let (parent, left_at) = (row.optional_int(column + 2)?, row.optional_timestamp(column + 3)?);
    let given_at = row.optional_timestamp(column + 4)?;
    let moves: Vec<i64> = json(row, column + 5)?;
    let moves: Option<Vec<Timestamp>> = moves.into_iter().map(Timestamp::from_millis).collect();
    let moves = moves.ok_or_else(|| unexpected(column + 5))?;
    let orphans = orphans(row, column + 6)?;
    Ok(Rotation::from_stored(generation, rotated_at, parent, left_at, given_at, moves, orphans))
}

fn orphans(row: &mut Row, column: usize) -> Result<Orphans, StoreError> {
    json(row, column).map(Orphans::from_stored)
}

fn json<T: serde::de::DeserializeOwned>(row: &mut Row, column: usize) -> Result<T, StoreError> {
    serde_json::from_str(&row.text(column)?).map_err(|_| unexpected(column))
}

fn move_to(
    transaction: &mut dyn Transaction,
    id: SessionId,
    rotation: &Rotation,
    now: Timestamp,
    expires_at: Timestamp,
) -> Result<(), StoreError> {
    let moves: Vec<i64> = rotation.moves.iter().map(|at| at.millis()).collect();
    transaction.execute(
        MOVE_SESSION,
        &[
            Value::Uuid(id.0),
            Value::Int(rotation.generation),
            Value::Timestamp(now),
            Value::Timestamp(expires_at),
            Value::Int(rotation.parent),
            Value::or_null(rotation.left_at, Value::Timestamp),
            Value::Text(serde_json::json!(moves).to_string()),
            Value::Text(serde_json::json!(rotation.orphans.ranges()).to_string()),
        ],
    )?;
    Ok(())
}

impl<D: Driver> SessionStore for SqlStore<D> {
    fn open_session(
        &self,
        session: &NewSession,
        shown: &Shown<'_>,
        rehashed: Option<&PasswordHash>,
        most: u32,
        admit: &dyn Fn() -> Result<(), Error>,
        by: &By,
    ) -> Result<Confirmed<Result<(), Error>>, StoreError> {
        let mut ended = Vec::new();
        let opened = self.driver.transaction(|transaction| {
            let is_new = is_new_address(transaction, session)?;
            // Locks the user's row. A deactivation, a new password or a new second factor at the same time comes either
            // before this, and is seen here, or after it, and ends this session.
            let admitted = match codes::confirm(transaction, session.user, shown, by, &self.clock)? {
                Confirmed::Done(()) => admit(),
                Confirmed::UserChanged => return Ok(Confirmed::UserChanged),
                Confirmed::Refused(fault) => return Ok(Confirmed::Refused(fault)),
            };
            if admitted.is_err() {
                return Ok(Confirmed::Done(admitted));
            }
            transaction.execute(
                "UPDATE users SET last_login_at = $2, password_hash = COALESCE($3, password_hash) WHERE id = $1",
                &[
                    Value::Uuid(session.user.0),
                    Value::Timestamp(session.created_at),
                    Value::or_null(rehashed, |hash| Value::Text(hash.as_str().to_string())),
                ],
            )?;
            ended = open(transaction, session, most)?;
            let mut opened =
                Event::new(Kind::SessionOpened, session.user, by, session.created_at).on(Subject::Session(session.id));
            if is_new {
                opened = opened.with(NEW_ADDRESS, true);
            }
            record(transaction, &opened)?;
            if let Some(event) = ended_by_limit(&ended, session.user, by, session.created_at) {
                record(transaction, &event)?;
            }
            for id in &ended {
                self.changes.note(Change::Of(id.0));
                transaction.notify(id.0)?;
            }
            Ok(Confirmed::Done(admitted))
        });
        ended.iter().for_each(|id| self.changes.note(Change::Of(id.0)));
        opened
    }

    fn live_sessions(&self, ids: &[SessionId]) -> Result<Vec<(SessionId, LiveSession)>, StoreError> {
        let ids = Value::List(ids.iter().map(|id| Value::Uuid(id.0)).collect());
        let live = |mut row: Row| {
            let id = SessionId(row.uuid(0)?);
            let (user, email, expires_at) = (UserId(row.uuid(1)?), row.text(2)?.into(), row.timestamp(3)?);
            let scopes = Arc::new(Grants::from_stored(row.text(5)?));
            let (orphans, email_verified) = (orphans(&mut row, 4)?, row.bool(6)?);
            let awaits_verification = row.bool(7)? && !email_verified;
            let live =
                LiveSession { id, user, email, email_verified, awaits_verification, scopes, expires_at, orphans };
            Ok((id, live))
        };
        self.driver.query(LIVE_SESSIONS, &[ids])?.into_iter().map(live).collect()
    }

    fn rotate_session(
        &self,
        id: SessionId,
        generation: i64,
        lifespan: &Lifespan,
        rules: &RotationRules,
        admit: &dyn Fn(UserId) -> Result<(), Error>,
        by: &By,
    ) -> Result<Rotated, StoreError> {
        let revokes = |(_, revokes): &(Rotated, bool)| *revokes;
        let rotated = self.change(id.0, revokes, |transaction| {
            // Two statements: after a wait for the lock, only the second sees the whole row as it then is.
            transaction.query(LOCK_SESSION, &[Value::Uuid(id.0)])?;
            let rows = transaction.query(LIVING_SESSION, &[Value::Uuid(id.0)])?;
            let Some(mut row) = first(rows) else { return Ok((Rotated::Gone, false)) };
            // Read with the lock held, so that it is later than every earlier move.
            let now = transaction.now(&self.clock)?;
            let user = UserClaims {
                id: UserId(row.uuid(0)?),
                email: row.text(1)?,
                email_verified: row.bool(11)?,
                name: row.optional_text(12)?,
                scopes: Grants::from_stored(row.text(13)?),
            };
            let (created_at, expires_at) = (row.timestamp(2)?, row.timestamp(3)?);
            let session = StoredSession { created_at, expires_at, rotation: rotation(&mut row, 4)? };
            let refresh = session.refresh(generation, now, lifespan, rules);
            if refresh.is_a_change()
                && let Err(error) = admit(user.id)
            {
                return Ok((Rotated::Refused(error), false));
            }
            if let Some(kind) = refresh.event() {
                record(transaction, &Event::new(kind, user.id, by, now).on(Subject::Session(id)))?;
            }
            let revokes = refresh.revokes();
            let rotated = match refresh {
                Refresh::Refused => Rotated::Gone,
                Refresh::Moved { rotation, expires_at, .. } => {
                    move_to(transaction, id, &rotation, now, expires_at)?;
                    Rotated::At { generation: rotation.generation, user, expires_at }
                }
                Refresh::Repeated { generation, expires_at, is_later } => {
                    if is_later {
                        transaction.execute(NOTE_GIVEN, &[Value::Uuid(id.0), Value::Timestamp(now)])?;
                    }
                    Rotated::At { generation, user, expires_at }
                }
                Refresh::Ended => {
                    end(transaction, id, EndReason::Reuse, now)?;
                    Rotated::Reused
                }
            };
            Ok((rotated, revokes))
        });
        rotated.map(|(rotated, _)| rotated)
    }

    fn sessions_of(&self, user: UserId, now: Timestamp, limit: i64) -> Result<Vec<Session>, StoreError> {
        let parameters = [Value::Uuid(user.0), Value::Timestamp(now), Value::Int(limit)];
        let session = |mut row: Row| {
            let created_at = row.timestamp(1)?;
            Ok(Session {
                id: SessionId(row.uuid(0)?),
                created_at,
                last_used_at: row.optional_timestamp(2)?.unwrap_or(created_at),
                expires_at: row.timestamp(3)?,
                ip: row.text(4)?,
                user_agent: row.optional_text(5)?,
            })
        };
        self.driver.query(SESSIONS_OF_USER, &parameters)?.into_iter().map(session).collect()
    }

    fn addresses_of(&self, user: UserId, limit: i64) -> Result<Vec<String>, StoreError> {
        let parameters = [Value::Uuid(user.0), Value::Int(limit)];
        let mut addresses = Vec::new();
        for statement in [OPEN_ADDRESSES, ENDED_ADDRESSES] {
            for mut row in self.driver.query(statement, &parameters)? {
                addresses.push(row.text(0)?);
            }
        }
        Ok(addresses)
    }

    fn end_session(&self, id: SessionId, user: UserId, by: &By, now: Timestamp) -> Result<bool, StoreError> {
        self.change(id.0, is_so, |transaction| {
            // If the user's other sessions are being ended, this session may be moved to the next epoch. The lock waits
            // for that, so that the next statement sees it.
            transaction.query(LOCK_EPOCH, &[Value::Uuid(user.0)])?;
            let reason = Value::Text(EndReason::Logout.as_str().to_string());
            let parameters = [Value::Uuid(id.0), Value::Uuid(user.0), Value::Timestamp(now), reason];
            let ended = transaction.execute(END_SESSION_OF_USER, &parameters)?;
            if ended > 0 {
                record(transaction, &ended_one(id, user, by, now))?;
            }
            Ok(ended > 0)
        })
    }

    fn end_sessions(&self, user: UserId, kept: Option<SessionId>, by: &By, now: Timestamp) -> Result<bool, StoreError> {
        // If nothing ended, what instances remember of the user still holds.
        let changed = |ended: &Option<Ended>| ended.as_ref().is_some_and(|ended| ended.any);
        let ended = self.change(user.0, changed, |transaction| {
            let ended = end_all(transaction, user, kept, now)?;
            let count = ended.as_ref().map_or(0, |ended| ended.count);
            if let Some(event) = ended_others(count, user, by, now) {
                record(transaction, &event)?;
            }
            Ok(ended)
        })?;
        Ok(ended.is_some())
    }

    fn prune_sessions(&self, now: Timestamp) -> Result<bool, StoreError> {
        self.delete(
            "SELECT id FROM sessions WHERE expires_at <= $1 ORDER BY expires_at LIMIT 1000 FOR UPDATE SKIP LOCKED",
            Value::Timestamp(now),
            "DELETE FROM sessions WHERE id IN (ROWS)",
        )
    }
}
