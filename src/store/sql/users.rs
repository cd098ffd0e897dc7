//! The statements of users and their passwords.

use super::events::record;
use super::key_rows::metadata_value;
use super::one_time_tokens::void_all;
use super::operators::leaves_an_operator;
use super::outbox::queue_mail;
use super::usage::DELETE_HOURS;
use super::user_rows::{FURTHER, is_free, locked_user, max_keys_value, user, user_columns};
use super::{SqlStore, codes, delete_found, outbox, sessions, webhooks};
use crate::accounts::changing::UserChange;
use crate::accounts::email::Email;
use crate::accounts::ending::ended_all;
use crate::accounts::granting::ScopeChange;
use crate::accounts::passwords::PasswordHash;
use crate::accounts::second_factor::shown::{Confirmed, Shown};
use crate::accounts::session::NewSession;
use crate::accounts::store::{Created, Deleted, PasswordSet, UserChanged, UserStore};
use crate::accounts::user::{User, UserFilter, UserKind};
use crate::audit::event::{By, Event, Kind, Subject};
use crate::base::clock::Timestamp;
use crate::base::error::StoreError;
use crate::base::id::UserId;
use crate::mail::kinds::MailKind;
use crate::store::driver::{Column, Driver, Transaction, Value, first};

/// There is one prefix for each cost in use. Further ones are not of our hashes.
const PREFIXES: usize = 100;

/// Deletes some of a deleted user's keys and of their counts of use. False: there were none.
fn delete_some_keys(transaction: &mut dyn Transaction, user: &[Value]) -> Result<bool, StoreError> {
    const HOURS: usize = 1000;
    let hours = transaction.query(
        "SELECT key_id, hour FROM key_hours WHERE key_id IN \
         (SELECT id FROM api_keys WHERE user_id = $1 ORDER BY created_at, id LIMIT 100) LIMIT 1000",
        user,
    )?;
    let are_all = hours.len() < HOURS;
    let hours = hours.into_iter().map(|mut row| Ok(vec![Value::Uuid(row.uuid(0)?), Value::Int(row.int(1)?)]));
    let hours = hours.collect::<Result<Vec<_>, StoreError>>()?;
    transaction.execute_with_rows(DELETE_HOURS, &[Column::Uuid, Column::Int], &mut hours.into_iter())?;
    let keys = "SELECT id FROM api_keys WHERE user_id = $1 ORDER BY created_at, id LIMIT 100";
    Ok(!are_all || delete_found(transaction, keys, user, "DELETE FROM api_keys WHERE id IN (ROWS)")?)
}

/// What is recorded of a new user.
fn created_event(user: &User, session: Option<&NewSession>) -> Kind {
    match user.kind {
        _ if session.is_some() => Kind::UserSignedUp,
        UserKind::User if !user.has_password => Kind::UserInvited,
        _ => Kind::UserCreated,
    }
}

impl<D: Driver> UserStore for SqlStore<D> {
    fn create_user(
        &self,
        user: &User,
        password: &PasswordHash,
        session: Option<&NewSession>,
        with_link: bool,
        by: &By,
    ) -> Result<Created, StoreError> {
        let outcome = self.driver.transaction(|transaction| {
            if !is_free(transaction, &user.email, user.id)? {
                return Ok(Created::EmailTaken);
            }
            transaction.execute(
                "INSERT INTO users (id, email, name, password_hash, is_active, created_at, kind, email_verified, \
                 scopes, metadata, max_keys, needs_verified_email) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
                &[
                    Value::Uuid(user.id.0),
                    Value::Text(user.email.clone()),
                    Value::or_null(user.name.clone(), Value::Text),
                    Value::Text(password.as_str().to_string()),
                    Value::Bool(user.is_active),
                    Value::Timestamp(user.created_at),
                    Value::Text(user.kind.as_str().to_string()),
                    Value::Bool(user.email_verified),
                    Value::Text(user.scopes.as_str().to_string()),
                    metadata_value(user.metadata.as_ref()),
                    max_keys_value(user.max_keys),
                    Value::Bool(user.needs_verified_email),
                ],
            )?;
            session.map_or(Ok(()), |session| sessions::insert(transaction, session))?;
            let mut event = Event::new(created_event(user, session), user.id, by, user.created_at);
            if user.kind == UserKind::Service {
                event = event.with("kind", user.kind.as_str());
            }
            record(transaction, &event)?;
            match event.kind {
                _ if !with_link => {}
                Kind::UserSignedUp => queue_mail(transaction, user.id.0, MailKind::Verification, user.created_at)?,
                Kind::UserInvited => queue_mail(transaction, user.id.0, MailKind::Invitation, user.created_at)?,
                _ => {}
            }
            Ok(Created::Done)
        });
        match outcome {
            Err(StoreError::Conflict(_)) => Ok(Created::EmailTaken),
            outcome => outcome,
        }
    }

    fn user(&self, id: UserId) -> Result<Option<User>, StoreError> {
        let rows = self.driver.query(
            concat!("SELECT ", user_columns!(), " FROM users WHERE id = $1 AND deleted_at IS NULL"),
            &[Value::Uuid(id.0)],
        )?;
        first(rows).map(|mut row| user(&mut row)).transpose()
    }

    fn user_by_email(&self, email: &Email) -> Result<Option<(User, PasswordHash)>, StoreError> {
        let rows = self.driver.query(
            concat!(
                "SELECT ",
                user_columns!(),
                ", password_hash FROM users WHERE id = COALESCE((SELECT id FROM users WHERE email = $1), \
                 (SELECT id FROM users WHERE email = $2), (SELECT id FROM users WHERE email = $3), \
                 (SELECT id FROM users WHERE normal_email = $3 ORDER BY id LIMIT 1))"
            ),
            &email.spellings().map(|spelling| Value::Text(spelling.to_string())),
        )?;
        first(rows).map(|mut row| Ok((user(&mut row)?, PasswordHash::from_stored(row.text(FURTHER)?)))).transpose()
    }

    fn users(&self, filter: &UserFilter, after: Option<UserId>, limit: i64) -> Result<Option<Vec<User>>, StoreError> {
        self.page_of_users(filter, after, limit)
    }

    fn respelled(&self, after: &str) -> Result<Option<(String, Vec<User>)>, StoreError> {
        let next = "SELECT normal_email FROM users WHERE normal_email > $1 ORDER BY normal_email LIMIT 1";
        let Some(mut row) = first(self.driver.query(next, &[Value::Text(after.to_string())])?) else { return Ok(None) };
        let email = row.text(0)?;
        let rows = self.driver.query(
            concat!("SELECT ", user_columns!(), " FROM users WHERE email = $1 OR normal_email = $1 LIMIT 1000"),
            &[Value::Text(email.clone())],
        )?;
        let mut users = rows.into_iter().map(|mut row| user(&mut row)).collect::<Result<Vec<_>, _>>()?;
        users.sort_by_key(|user| user.id);
        Ok(Some((email, users)))
    }

    fn change_user(&self, id: UserId, change: &UserChange, by: &By, now: Timestamp) -> Result<UserChanged, StoreError> {
        self.change_row_of_user(id, change, by, now)
    }

    fn change_scopes(
        &self,
        id: UserId,
        change: &ScopeChange,
        by: &By,
        now: Timestamp,
    ) -> Result<UserChanged, StoreError> {
        self.change_scopes_of_user(id, change, by, now)
    }

    fn set_password(
        &self,
        id: UserId,
        password: &PasswordHash,
        by: &By,
        now: Timestamp,
    ) -> Result<PasswordSet, StoreError> {
        self.change(
            id.0,
            |set| *set == PasswordSet::Done,
            |transaction| {
                let Some(user) = locked_user(transaction, id)? else { return Ok(PasswordSet::NoSuchUser) };
                if user.kind == UserKind::Service {
                    return Ok(PasswordSet::Service);
                }
                transaction.execute(
                    "UPDATE users SET password_hash = $2 WHERE id = $1",
                    &[Value::Uuid(id.0), Value::Text(password.as_str().to_string())],
                )?;
                void_all(transaction, id)?;
                let ended = sessions::end_all(transaction, id, None, now)?.unwrap_or_default().count;
                record(transaction, &ended_all(Kind::UserPasswordSet, ended, id, by, now))?;
                Ok(PasswordSet::Done)
            },
        )
    }

    fn password_of(&self, id: UserId) -> Result<Option<PasswordHash>, StoreError> {
        let rows =
            self.driver.query("SELECT password_hash FROM users WHERE id = $1 AND is_active", &[Value::Uuid(id.0)])?;
        first(rows).map(|mut row| Ok(PasswordHash::from_stored(row.text(0)?))).transpose()
    }

    fn change_password(
        &self,
        id: UserId,
        shown: &Shown<'_>,
        new: &PasswordHash,
        session: &NewSession,
        by: &By,
    ) -> Result<Confirmed<()>, StoreError> {
        let now = session.created_at;
        let changed = |confirmed: &Confirmed<()>| *confirmed == Confirmed::Done(());
        self.change(id.0, changed, |transaction| {
            // Locks the user's row, as a login does. A login with the old password at the same time comes either before
            // this, and its session is ended here, or after it, and fails.
            let confirmed = codes::confirm(transaction, id, shown, by, &self.clock)?;
            if confirmed != Confirmed::Done(()) {
                return Ok(confirmed);
            }
            transaction.execute(
                "UPDATE users SET password_hash = $2 WHERE id = $1",
                &[Value::Uuid(id.0), Value::Text(new.as_str().to_string())],
            )?;
            void_all(transaction, id)?;
            let ended = sessions::end_all(transaction, id, None, now)?.unwrap_or_default().count;
            record(transaction, &ended_all(Kind::PasswordChanged, ended, id, by, now))?;
            sessions::open(transaction, session, 1)?;
            let opened = Event::new(Kind::SessionOpened, id, by, now);
            record(transaction, &opened.on(Subject::Session(session.id)))?;
            Ok(Confirmed::Done(()))
        })
    }

    fn delete_user(
        &self,
        id: UserId,
        shown: Option<&Shown<'_>>,
        by: &By,
        now: Timestamp,
    ) -> Result<Deleted, StoreError> {
        self.change(
            id.0,
            |deleted| *deleted == Deleted::Done,
            |transaction| {
                let Some(old) = locked_user(transaction, id)? else { return Ok(Deleted::NoSuchUser) };
                if !leaves_an_operator(transaction, &old, None, by)? {
                    return Ok(Deleted::LastOperator);
                }
                if let Some(shown) = shown {
                    match codes::confirm(transaction, id, shown, by, &self.clock)? {
                        Confirmed::Done(()) => {}
                        Confirmed::UserChanged => return Ok(Deleted::NoSuchUser),
                        Confirmed::Refused(fault) => return Ok(Deleted::Refused(fault)),
                    }
                }
                // Only the id stays, until the rows that refer to it are deleted, and no statement finds the user by it.
                transaction.execute(
                    "UPDATE users SET deleted_at = $2, is_active = $3, email = $4, normal_email = NULL, name = NULL, \
                     password_hash = '', last_login_at = NULL, scopes = '', metadata = NULL WHERE id = $1",
                    &[
                        Value::Uuid(id.0),
                        Value::Timestamp(now),
                        Value::Bool(false),
                        // E-mails are unique; this is no e-mail, and no other user's.
                        Value::Text(id.to_string()),
                    ],
                )?;
                void_all(transaction, id)?;
                transaction.execute("DELETE FROM email_changes WHERE user_id = $1", &[Value::Uuid(id.0)])?;
                codes::remove(transaction, id)?;
                webhooks::delete_all_of(transaction, id, Kind::UserDeleted, by, now)?;
                record(transaction, &Event::new(Kind::UserDeleted, id, by, now))?;
                Ok(Deleted::Done)
            },
        )
    }

    fn delete_rows_of_deleted_users(&self) -> Result<bool, StoreError> {
        self.driver.transaction(|transaction| {
            let rows = transaction
                .query("SELECT id FROM users WHERE deleted_at IS NOT NULL ORDER BY deleted_at LIMIT 1", &[])?;
            let Some(mut row) = first(rows) else { return Ok(false) };
            let id = row.uuid(0)?;
            let user = [Value::Uuid(id)];
            if delete_some_keys(transaction, &user)?
                || webhooks::delete_some_rows_of(transaction, &user)?
                || outbox::delete_some_deliveries(transaction, id)?
                || delete_found(
                    transaction,
                    "SELECT id FROM sessions WHERE user_id = $1 LIMIT 1000",
                    &user,
                    "DELETE FROM sessions WHERE id IN (ROWS)",
                )?
            {
                return Ok(true);
            }
            transaction.execute("DELETE FROM users WHERE id = $1 AND deleted_at IS NOT NULL", &user)?;
            Ok(true)
        })
    }

    fn hash_prefixes(&self) -> Result<Vec<String>, StoreError> {
        // From each prefix to the next one, along the index.
        let mut prefixes = Vec::new();
        let mut last = String::new();
        while prefixes.len() < PREFIXES {
            let rows = self.driver.query(
                "SELECT SUBSTR(password_hash, 1, 7) FROM users WHERE SUBSTR(password_hash, 1, 7) > $1 \
                 ORDER BY SUBSTR(password_hash, 1, 7) LIMIT 1",
                &[Value::Text(last)],
            )?;
            let Some(mut row) = first(rows) else { break };
            last = row.text(0)?;
            prefixes.push(last.clone());
        }
        Ok(prefixes)
    }
}
