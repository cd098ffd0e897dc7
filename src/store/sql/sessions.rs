//! The statements of sessions.

use super::events::record;
use super::{Driver, Row, SqlStore, Transaction, Value, first, unexpected};
use crate::clock::Timestamp;
use crate::error::Error;
use crate::event::{By, Event, Kind, Subject};
use crate::id::{SessionId, UserId};
use crate::session::{FIRST, Lifespan, LiveSession, Move, NewSession, Orphans, Rotation, RotationRules};
use crate::store::{Rotated, StoreError};

const INSERT_SESSION: &str = "INSERT INTO sessions \
    (id, user_id, generation, created_at, expires_at, ip, user_agent) VALUES ($1, $2, $3, $4, $5, $6, $7)";

const LIVE_SESSIONS: &str = "SELECT sessions.id, users.id, users.email, sessions.expires_at, sessions.orphans \
    FROM sessions JOIN users ON users.id = sessions.user_id \
    WHERE sessions.id = ANY($1) AND sessions.ended_at IS NULL AND users.is_active";

const LOCK_SESSION: &str = "SELECT users.id, users.email, sessions.created_at, sessions.expires_at, \
    sessions.generation, sessions.rotated_at, sessions.parent, sessions.left_at, sessions.given_at, sessions.moves, \
    sessions.orphans FROM sessions JOIN users ON users.id = sessions.user_id \
    WHERE sessions.id = $1 AND sessions.ended_at IS NULL AND users.is_active FOR UPDATE OF sessions";

const MOVE_SESSION: &str = "UPDATE sessions SET generation = $2, rotated_at = $3, expires_at = $4, parent = $5, \
    left_at = $6, given_at = $3, moves = $7, orphans = $8 WHERE id = $1";

const NOTE_GIVEN: &str = "UPDATE sessions SET given_at = $2 WHERE id = $1";

const END_SESSION: &str = "UPDATE sessions SET ended_at = $2, end_reason = $3 WHERE id = $1 AND ended_at IS NULL";

pub fn insert(transaction: &mut dyn Transaction, session: &NewSession) -> Result<(), StoreError> {
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
    Ok(match parent {
        Some(parent) if moves.first() == rotated_at.as_ref() => {
            Rotation { generation, parent, left_at, given_at, moves, orphans }
        }
        // An earlier version has moved it.
        _ => Rotation {
            generation,
            parent: generation - 1,
            left_at: rotated_at,
            given_at: rotated_at,
            moves: rotated_at.into_iter().collect(),
            orphans,
        },
    })
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

impl<D: Driver> SqlStore<D> {
    pub(super) fn find_live_sessions(&self, ids: &[SessionId]) -> Result<Vec<(SessionId, LiveSession)>, StoreError> {
        let ids = Value::List(ids.iter().map(|id| Value::Uuid(id.0)).collect());
        let live = |mut row: Row| {
            let id = SessionId(row.uuid(0)?);
            let (user, email, expires_at) = (UserId(row.uuid(1)?), row.text(2)?.into(), row.timestamp(3)?);
            Ok((id, LiveSession { id, user, email, expires_at, orphans: orphans(&mut row, 4)? }))
        };
        self.driver.query(LIVE_SESSIONS, &[ids])?.into_iter().map(live).collect()
    }

    pub(super) fn trade_refresh_token(
        &self,
        id: SessionId,
        generation: i64,
        lifespan: &Lifespan,
        rules: &RotationRules,
        admit: &dyn Fn(UserId) -> Result<(), Error>,
        by: &By,
    ) -> Result<Rotated, StoreError> {
        // Most refreshes change no verdict.
        let changed = |(_, verdict_changed): &(Rotated, bool)| *verdict_changed;
        let rotated = self.change(id.0, changed, |transaction| {
            let rows = transaction.query(LOCK_SESSION, &[Value::Uuid(id.0)])?;
            let Some(mut row) = first(rows) else { return Ok((Rotated::Gone, false)) };
            // After the row is locked: whoever had it before has moved it in the past.
            let now = transaction.now(&self.clock)?;
            let (user, email) = (UserId(row.uuid(0)?), row.text(1)?);
            let (created_at, expires_at) = (row.timestamp(2)?, row.timestamp(3)?);
            let rotation = rotation(&mut row, 4)?;
            let renewed_at = rotation.moves.first().copied().unwrap_or(created_at);
            // It is judged by today's settings as well, whatever they were when it was refreshed last.
            if expires_at.min(lifespan.end(created_at, renewed_at)) <= now {
                return Ok((Rotated::Gone, false));
            }
            let at = |rotation: Rotation, expires_at| Rotated::At {
                generation: rotation.generation,
                user,
                email,
                expires_at,
            };
            let moved_until = lifespan.end(created_at, now);
            let judged = rotation.judge(generation, now, rules);
            // Theft ends it whatever else its user has done.
            let writes = match &judged {
                Move::Forward(_) | Move::Retried(_) => true,
                Move::Again(next) => *next != rotation,
                Move::Ahead | Move::Theft => false,
            };
            if writes && let Err(error) = admit(user) {
                return Ok((Rotated::Refused(error), false));
            }
            Ok(match judged {
                Move::Forward(next) => {
                    move_to(transaction, id, &next, now, moved_until)?;
                    (at(next, moved_until), false)
                }
                Move::Retried(next) => {
                    move_to(transaction, id, &next, now, moved_until)?;
                    let retried = Event::new(Kind::SessionRetried, user, by, now);
                    record(transaction, &retried.on(Subject::Session(id)))?;
                    (at(next, moved_until), true)
                }
                Move::Again(next) => {
                    if next != rotation {
                        transaction.execute(NOTE_GIVEN, &[Value::Uuid(id.0), Value::Timestamp(now)])?;
                    }
                    (at(next, expires_at), false)
                }
                Move::Ahead => (Rotated::Gone, false),
                Move::Theft => {
                    let reason = Value::Text("reuse".to_string());
                    transaction.execute(END_SESSION, &[Value::Uuid(id.0), Value::Timestamp(now), reason])?;
                    let detected = Event::new(Kind::SessionReuseDetected, user, by, now);
                    record(transaction, &detected.on(Subject::Session(id)))?;
                    (Rotated::Reused, true)
                }
            })
        });
        rotated.map(|(rotated, _)| rotated)
    }
}
