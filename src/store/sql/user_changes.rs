//! What an operator changes of a user.

use super::addresses::note_left;
use super::events::record;
use super::key_rows::metadata_value;
use super::one_time_tokens::void_all;
use super::operators::leaves_an_operator;
use super::user_rows::{is_free, locked_user, max_keys_value};
use super::{SqlStore, sessions};
use crate::accounts::changing::{UserChange, changed_fields};
use crate::accounts::ending::ended_all;
use crate::accounts::granting::{ScopeChange, scopes_event};
use crate::accounts::store::UserChanged;
use crate::accounts::user::User;
use crate::audit::event::{By, Event, Kind};
use crate::base::clock::Timestamp;
use crate::base::error::StoreError;
use crate::base::id::UserId;
use crate::store::driver::{Driver, Value};

/// Whether the outcome is a change.
fn is_change((_, is_change): &(UserChanged, bool)) -> bool {
    *is_change
}

impl<D: Driver> SqlStore<D> {
    /// [`crate::accounts::store::UserStore::change_user`]
    pub(super) fn change_row_of_user(
        &self,
        id: UserId,
        change: &UserChange,
        by: &By,
        now: Timestamp,
    ) -> Result<UserChanged, StoreError> {
        let outcome = self.change(id.0, is_change, |transaction| {
            let Some(old) = locked_user(transaction, id)? else { return Ok((UserChanged::NoSuchUser, false)) };
            let new = change.apply(&old);
            if !leaves_an_operator(transaction, &old, Some(&new), by)? {
                return Ok((UserChanged::LastOperator, false));
            }
            if new.email != old.email && !is_free(transaction, &new.email, id)? {
                return Ok((UserChanged::EmailTaken, false));
            }
            let fields = changed_fields(&old, &new);
            if fields.is_empty() && new.is_active == old.is_active {
                return Ok((UserChanged::To(Box::new(new)), false));
            }
            transaction.execute(
                "UPDATE users SET email = $2, normal_email = CASE WHEN email = $2 THEN normal_email END, name = $3, \
                 is_active = $4, email_verified = $5, metadata = $6, max_keys = $7 WHERE id = $1",
                &[
                    Value::Uuid(id.0),
                    Value::Text(new.email.clone()),
                    Value::or_null(new.name.clone(), Value::Text),
                    Value::Bool(new.is_active),
                    Value::Bool(new.email_verified),
                    metadata_value(new.metadata.as_ref()),
                    max_keys_value(new.max_keys),
                ],
            )?;
            if new.email != old.email {
                void_all(transaction, id)?;
                note_left(transaction, &old, now)?;
            }
            if !fields.is_empty() {
                record(transaction, &Event::new(Kind::UserChanged, id, by, now).with("fields", fields))?;
            }
            match (old.is_active, new.is_active) {
                (false, true) => record(transaction, &Event::new(Kind::UserActivated, id, by, now))?,
                (true, false) => {
                    let ended = sessions::end_all(transaction, id, None, now)?.unwrap_or_default().count;
                    record(transaction, &ended_all(Kind::UserDeactivated, ended, id, by, now))?;
                }
                _ => {}
            }
            Ok((UserChanged::To(Box::new(new)), true))
        });
        match outcome {
            Err(StoreError::Conflict(_)) => Ok(UserChanged::EmailTaken),
            outcome => outcome.map(|(changed, _)| changed),
        }
    }

    /// [`crate::accounts::store::UserStore::change_scopes`]
    pub(super) fn change_scopes_of_user(
        &self,
        id: UserId,
        change: &ScopeChange,
        by: &By,
        now: Timestamp,
    ) -> Result<UserChanged, StoreError> {
        let outcome = self.change(id.0, is_change, |transaction| {
            let Some(old) = locked_user(transaction, id)? else { return Ok((UserChanged::NoSuchUser, false)) };
            let new = match change.apply(&old) {
                Ok(scopes) => User { scopes, ..old.clone() },
                Err(rule) => return Ok((UserChanged::Breaks(rule), false)),
            };
            if !leaves_an_operator(transaction, &old, Some(&new), by)? {
                return Ok((UserChanged::LastOperator, false));
            }
            let event = scopes_event(&old.scopes, &new.scopes, id, by, now);
            if let Some(event) = &event {
                let scopes = [Value::Uuid(id.0), Value::Text(new.scopes.as_str().to_string())];
                transaction.execute("UPDATE users SET scopes = $2 WHERE id = $1", &scopes)?;
                record(transaction, event)?;
            }
            Ok((UserChanged::To(Box::new(new)), event.is_some()))
        });
        outcome.map(|(changed, _)| changed)
    }
}
