//! The statements of one-time tokens, and what a token does.

use uuid::Uuid;

use super::events::{record, record_all};
use super::outbox::queue_mail;
use super::user_rows::{is_free, locked_user, mark_verified};
use super::{SqlStore, codes, delete_found, sessions, webhooks};
use crate::accounts::address_change::AddressNews;
use crate::accounts::ending::ended_all;
use crate::accounts::one_time::{MOST, TokenHash, TokenKind};
use crate::accounts::passwords::PasswordHash;
use crate::accounts::purposes::{Purpose, recipient};
use crate::accounts::recovery::ends_keys;
use crate::accounts::store::{RecoveryStore, Reset, TokenAdded};
use crate::accounts::user::UserKind;
use crate::audit::event::{By, Event, Kind, Subject};
use crate::base::clock::Timestamp;
use crate::base::error::StoreError;
use crate::base::id::{KeyId, UserId};
use crate::mail::kinds::MailKind;
use crate::store::driver::{Driver, Transaction, Value, first};

/// How many keys end in one transaction.
const PART: usize = 100;

const DELETE_TOKENS: &str = "DELETE FROM one_time_tokens WHERE id IN (ROWS)";

/// Tokens are deleted when they are used, and all of them with a new password or address, together with a second factor
/// that was only begun. A user has few.
pub(super) fn void_all(transaction: &mut dyn Transaction, user: UserId) -> Result<(), StoreError> {
    codes::void_begun(transaction, user)?;
    transaction.execute("DELETE FROM one_time_tokens WHERE user_id = $1", &[Value::Uuid(user.0)])?;
    transaction.execute("UPDATE email_changes SET email = NULL WHERE user_id = $1", &[Value::Uuid(user.0)])?;
    Ok(())
}

/// Stores a token; of the earlier ones of its kind the latest two stay. `email`: where it is mailed.
fn insert(
    transaction: &mut dyn Transaction,
    user: UserId,
    kind: TokenKind,
    token: &TokenHash,
    email: Option<&str>,
    expires_at: Timestamp,
    now: Timestamp,
) -> Result<(), StoreError> {
    let kind = Value::Text(kind.as_str().to_string());
    delete_found(
        transaction,
        "SELECT id FROM one_time_tokens WHERE user_id = $1 AND kind = $2 \
         ORDER BY created_at DESC, id DESC LIMIT 100 OFFSET $3",
        &[Value::Uuid(user.0), kind.clone(), Value::Int(MOST - 1)],
        DELETE_TOKENS,
    )?;
    transaction.execute(
        "INSERT INTO one_time_tokens (id, user_id, kind, hash, created_at, expires_at, email) \
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
        &[
            Value::Uuid(Uuid::now_v7()),
            Value::Uuid(user.0),
            kind,
            Value::Bytes(token.as_bytes().to_vec()),
            Value::Timestamp(now),
            Value::Timestamp(expires_at),
            Value::or_null(email, |email| Value::Text(email.to_string())),
        ],
    )?;
    Ok(())
}

/// The e-mail that the user wants from now on. `None` also if it is somebody else's.
fn wanted_email(transaction: &mut dyn Transaction, user: UserId) -> Result<Option<String>, StoreError> {
    let rows = transaction.query("SELECT email FROM email_changes WHERE user_id = $1", &[Value::Uuid(user.0)])?;
    let Some(email) = first(rows).map_or(Ok(None), |mut row| row.optional_text(0))? else { return Ok(None) };
    let is_taken = "SELECT id FROM users WHERE email = $1 AND id <> $2";
    let is_taken = !transaction.query(is_taken, &[Value::Text(email.clone()), Value::Uuid(user.0)])?.is_empty();
    Ok((!is_taken && is_free(transaction, &email, user)?).then_some(email))
}

/// Revokes some of a user's usable keys, who is locked. Returns how many there were.
fn revoke_some_keys(
    transaction: &mut dyn Transaction,
    user: UserId,
    by: &By,
    now: Timestamp,
) -> Result<usize, StoreError> {
    let rows = transaction.query(
        "SELECT id FROM api_keys WHERE user_id = $1 AND ends_at > $2 ORDER BY ends_at DESC, id DESC LIMIT 100",
        &[Value::Uuid(user.0), Value::Timestamp(now)],
    )?;
    let (found, mut events) = (rows.len(), Vec::new());
    for mut row in rows {
        let id = KeyId(row.uuid(0)?);
        let revoked = transaction.execute(
            "UPDATE api_keys SET is_active = $3, revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL",
            &[Value::Uuid(id.0), Value::Timestamp(now), Value::Bool(false)],
        )?;
        if revoked > 0 {
            let event = Event::new(Kind::KeyRevoked, user, by, now).on(Subject::Key(id));
            events.push(event.with("reason", Kind::PasswordReset.as_str()));
        }
    }
    record_all(transaction, &events)?;
    Ok(found)
}

impl<D: Driver> RecoveryStore for SqlStore<D> {
    fn add_reset_token(
        &self,
        user: UserId,
        token: &TokenHash,
        expires_at: Timestamp,
        by: &By,
        now: Timestamp,
    ) -> Result<TokenAdded, StoreError> {
        self.driver.transaction(|transaction| {
            let Some(found) = locked_user(transaction, user)? else { return Ok(TokenAdded::NoSuchUser) };
            if found.kind == UserKind::Service {
                return Ok(TokenAdded::Service);
            }
            insert(transaction, user, TokenKind::ResetPassword, token, None, expires_at, now)?;
            record(transaction, &Event::new(Kind::PasswordResetRequested, user, by, now))?;
            Ok(TokenAdded::Done)
        })
    }

    fn note_forgotten(&self, user: Option<UserId>, receiver: Uuid, by: &By, now: Timestamp) -> Result<(), StoreError> {
        self.driver.transaction(|transaction| {
            queue_mail(transaction, receiver, MailKind::Reset, now)?;
            let event = Event::new(Kind::PasswordResetRequested, UserId(receiver), by, now);
            record(transaction, &Event { user, subject: user.map(Subject::User), ..event })
        })
    }

    fn add_mailed_token(
        &self,
        user: UserId,
        purpose: Purpose,
        token: &TokenHash,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<Option<String>, StoreError> {
        self.driver.transaction(|transaction| {
            let Some(found) = locked_user(transaction, user)? else { return Ok(None) };
            let wanted = match purpose {
                Purpose::AddressChange => wanted_email(transaction, user)?,
                _ => None,
            };
            let address = recipient(purpose, &found, wanted);
            if let Some(address) = &address {
                insert(transaction, user, purpose.token_kind(), token, Some(address), expires_at, now)?;
            }
            Ok(address)
        })
    }

    fn address_news(&self, user: UserId) -> Result<AddressNews, StoreError> {
        let rows =
            self.driver.query("SELECT email, former FROM email_changes WHERE user_id = $1", &[Value::Uuid(user.0)])?;
        let Some(mut row) = first(rows) else { return Ok(AddressNews::default()) };
        Ok(AddressNews { is_wanted: row.optional_text(0)?.is_some(), former: row.optional_text(1)? })
    }

    fn forget_former_address(&self, user: UserId, address: &str) -> Result<(), StoreError> {
        self.driver.execute(
            "UPDATE email_changes SET former = NULL, former_at = NULL WHERE user_id = $1 AND former = $2",
            &[Value::Uuid(user.0), Value::Text(address.to_string())],
        )?;
        Ok(())
    }

    fn user_of_reset_token(&self, token: &TokenHash, now: Timestamp) -> Result<Option<UserId>, StoreError> {
        let rows = self.driver.query(
            "SELECT users.id FROM one_time_tokens JOIN users ON users.id = one_time_tokens.user_id \
             WHERE one_time_tokens.hash = $1 AND one_time_tokens.kind = $2 AND one_time_tokens.expires_at > $3 \
             AND users.is_active",
            &[
                Value::Bytes(token.as_bytes().to_vec()),
                Value::Text(TokenKind::ResetPassword.as_str().to_string()),
                Value::Timestamp(now),
            ],
        )?;
        first(rows).map(|mut row| row.uuid(0).map(UserId)).transpose()
    }

    fn reset_password(
        &self,
        user: UserId,
        token: &TokenHash,
        password: &PasswordHash,
        by: &By,
        now: Timestamp,
    ) -> Result<Reset, StoreError> {
        self.change(
            user.0,
            |reset| *reset != Reset::NotGood,
            |transaction| {
                let Some(found) = locked_user(transaction, user)?.filter(|user| user.is_active) else {
                    return Ok(Reset::NotGood);
                };
                let good = transaction.query(
                    "SELECT email FROM one_time_tokens WHERE hash = $1 AND kind = $2 AND user_id = $3 AND expires_at > $4",
                    &[
                        Value::Bytes(token.as_bytes().to_vec()),
                        Value::Text(TokenKind::ResetPassword.as_str().to_string()),
                        Value::Uuid(user.0),
                        Value::Timestamp(now),
                    ],
                )?;
                let Some(mut row) = first(good) else { return Ok(Reset::NotGood) };
                let is_proven = row.optional_text(0)?.is_some_and(|mailed_to| mailed_to == found.email);
                // Keys go first: if this ends in the middle, the token is still there to go on with.
                if ends_keys(&found) {
                    if revoke_some_keys(transaction, user, by, now)? == PART {
                        return Ok(Reset::More);
                    }
                    webhooks::delete_all_of(transaction, user, Kind::PasswordReset, by, now)?;
                }
                transaction.execute(
                    "UPDATE users SET password_hash = $2 WHERE id = $1",
                    &[Value::Uuid(user.0), Value::Text(password.as_str().to_string())],
                )?;
                void_all(transaction, user)?;
                if ends_keys(&found) && codes::remove(transaction, user)? {
                    let event = Event::new(Kind::TotpDisabled, user, by, now);
                    record(transaction, &event.with("reason", Kind::PasswordReset.as_str()))?;
                }
                if is_proven {
                    mark_verified(transaction, &found, by, now)?;
                }
                let ended = sessions::end_all(transaction, user, None, now)?.unwrap_or_default().count;
                record(transaction, &ended_all(Kind::PasswordReset, ended, user, by, now))?;
                Ok(Reset::Done)
            },
        )
    }

    fn prune_tokens(&self, now: Timestamp) -> Result<bool, StoreError> {
        self.delete(
            "SELECT id FROM one_time_tokens WHERE expires_at <= $1 ORDER BY expires_at LIMIT 1000",
            Value::Timestamp(now),
            DELETE_TOKENS,
        )
    }
}
