//! The statements of e-mails that are verified and changed.

use super::events::record;
use super::one_time_tokens::void_all;
use super::outbox::queue_mail;
use super::user_rows::{is_free, locked_user, mark_verified};
use super::{SqlStore, codes};
use crate::accounts::address_change::AddressChange;
use crate::accounts::email::Email;
use crate::accounts::one_time::{TokenHash, TokenKind};
use crate::accounts::second_factor::shown::{Confirmed, Shown};
use crate::accounts::store::{AddressStore, Asked, Verified};
use crate::accounts::user::{User, UserKind};
use crate::audit::event::{By, Event, Kind};
use crate::base::clock::Timestamp;
use crate::base::error::StoreError;
use crate::base::id::UserId;
use crate::mail::kinds::MailKind;
use crate::store::driver::{Driver, Transaction, Value, first, unexpected};

const FIND_TOKEN: &str = "SELECT user_id, kind, email FROM one_time_tokens \
    WHERE hash = $1 AND kind IN ($2, $3) AND expires_at > $4";

fn of_token(token: &TokenHash, now: Timestamp) -> [Value; 4] {
    let kind = |kind: TokenKind| Value::Text(kind.as_str().to_string());
    let token = Value::Bytes(token.as_bytes().to_vec());
    [token, kind(TokenKind::VerifyEmail), kind(TokenKind::ChangeEmail), Value::Timestamp(now)]
}

/// The e-mail that the account has turned out to be its user's. False: it is another one by now.
fn verify(
    transaction: &mut dyn Transaction,
    user: &User,
    email: &str,
    by: &By,
    now: Timestamp,
) -> Result<bool, StoreError> {
    if email != user.email {
        return Ok(false);
    }
    let kind = Value::Text(TokenKind::VerifyEmail.as_str().to_string());
    transaction
        .execute("DELETE FROM one_time_tokens WHERE user_id = $1 AND kind = $2", &[Value::Uuid(user.id.0), kind])?;
    mark_verified(transaction, user, by, now)?;
    Ok(true)
}

/// The e-mail is the user's from now on. False: it is somebody else's.
fn change(
    transaction: &mut dyn Transaction,
    old: &User,
    email: &str,
    by: &By,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let user = old.id;
    if !is_free(transaction, email, user)? {
        return Ok(false);
    }
    transaction.execute(
        "UPDATE users SET email = $2, normal_email = NULL, email_verified = $3 WHERE id = $1",
        &[Value::Uuid(user.0), Value::Text(email.to_string()), Value::Bool(true)],
    )?;
    void_all(transaction, user)?;
    note_left(transaction, old, now)?;
    record(transaction, &Event::new(Kind::EmailChanged, user, by, now))?;
    Ok(true)
}

/// Notes that the user, who was `old` and whose row is locked, has another e-mail now, so that the former one can be told.
pub(super) fn note_left(transaction: &mut dyn Transaction, old: &User, now: Timestamp) -> Result<(), StoreError> {
    // Where nobody can be told, the address is not kept.
    if old.kind == UserKind::Service || !transaction.outlet().reach().mail {
        return Ok(());
    }
    let mut wishes = wishes(transaction, old.id)?;
    wishes.note_left(&old.email, now);
    keep_wishes(transaction, old.id, wishes)
}

/// The user's wishes; their row is locked.
fn wishes(transaction: &mut dyn Transaction, user: UserId) -> Result<AddressChange, StoreError> {
    let rows = transaction.query(
        "SELECT email, former, former_at, asked_at FROM email_changes WHERE user_id = $1",
        &[Value::Uuid(user.0)],
    )?;
    let Some(mut row) = first(rows) else { return Ok(AddressChange::default()) };
    let asked_at: Vec<i64> = serde_json::from_str(&row.text(3)?).map_err(|_| unexpected(3))?;
    let asked_at: Option<Vec<Timestamp>> = asked_at.into_iter().map(Timestamp::from_millis).collect();
    Ok(AddressChange {
        wanted: row.optional_text(0)?,
        former: row.optional_text(1)?.zip(row.optional_timestamp(2)?),
        asked_at: asked_at.ok_or_else(|| unexpected(3))?,
    })
}

fn keep_wishes(transaction: &mut dyn Transaction, user: UserId, wishes: AddressChange) -> Result<(), StoreError> {
    let (former, former_at) = wishes.former.unzip();
    let asked_at: Vec<i64> = wishes.asked_at.iter().map(|at| at.millis()).collect();
    transaction.execute(
        "INSERT INTO email_changes (user_id, email, former, former_at, asked_at) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (user_id) DO UPDATE SET email = excluded.email, former = excluded.former, \
         former_at = excluded.former_at, asked_at = excluded.asked_at",
        &[
            Value::Uuid(user.0),
            Value::or_null(wishes.wanted, Value::Text),
            Value::or_null(former, Value::Text),
            Value::or_null(former_at, Value::Timestamp),
            Value::Text(serde_json::json!(asked_at).to_string()),
        ],
    )?;
    Ok(())
}

/// An address that was mistyped may be somebody's, who must not get the account after the user has asked for another one.
fn void_others(transaction: &mut dyn Transaction, user: UserId, wanted: &Email) -> Result<(), StoreError> {
    transaction.execute(
        "DELETE FROM one_time_tokens WHERE user_id = $1 AND kind = $2 AND email <> $3",
        &[
            Value::Uuid(user.0),
            Value::Text(TokenKind::ChangeEmail.as_str().to_string()),
            Value::Text(wanted.as_str().to_string()),
        ],
    )?;
    Ok(())
}

impl<D: Driver> AddressStore for SqlStore<D> {
    fn request_verification(&self, user: UserId, now: Timestamp) -> Result<(), StoreError> {
        self.driver.transaction(|transaction| queue_mail(transaction, user.0, MailKind::Verification, now))
    }

    fn request_address_change(
        &self,
        user: UserId,
        shown: &Shown<'_>,
        wanted: &Email,
        by: &By,
        now: Timestamp,
    ) -> Result<Confirmed<Asked>, StoreError> {
        self.driver.transaction(|transaction| {
            match codes::confirm(transaction, user, shown, by, &self.clock)? {
                Confirmed::Done(()) => {}
                Confirmed::UserChanged => return Ok(Confirmed::UserChanged),
                Confirmed::Refused(fault) => return Ok(Confirmed::Refused(fault)),
            }
            if locked_user(transaction, user)?.is_none() {
                return Ok(Confirmed::UserChanged);
            }
            let mut wishes = wishes(transaction, user)?;
            if let Err(wait) = wishes.ask(wanted.as_str(), now) {
                return Ok(Confirmed::Done(Asked::TooOften(wait)));
            }
            keep_wishes(transaction, user, wishes)?;
            void_others(transaction, user, wanted)?;
            queue_mail(transaction, user.0, MailKind::AddressChange, now)?;
            // It is told to the e-mail that the account has.
            record(transaction, &Event::new(Kind::EmailChangeRequested, user, by, now))?;
            Ok(Confirmed::Done(Asked::Done))
        })
    }

    fn verify_email(&self, token: &TokenHash, by: &By, now: Timestamp) -> Result<Verified, StoreError> {
        let token = of_token(token, now);
        let Some(mut row) = first(self.driver.query(FIND_TOKEN, &token)?) else { return Ok(Verified::NotGood) };
        let user = UserId(row.uuid(0)?);
        let outcome = self.change(
            user.0,
            |verified| *verified == Verified::Done,
            |transaction| {
                let Some(found) = locked_user(transaction, user)?.filter(|user| user.is_active) else {
                    return Ok(Verified::NotGood);
                };
                // Once more: it may have been used while this waited for the lock.
                let Some(mut row) = first(transaction.query(FIND_TOKEN, &token)?) else {
                    return Ok(Verified::NotGood);
                };
                let (is_change, email) = (row.text(1)? == TokenKind::ChangeEmail.as_str(), row.text(2)?);
                Ok(match is_change {
                    true if change(transaction, &found, &email, by, now)? => Verified::Done,
                    true => Verified::EmailTaken,
                    false if verify(transaction, &found, &email, by, now)? => Verified::Done,
                    false => Verified::NotGood,
                })
            },
        );
        match outcome {
            // Somebody else has taken the e-mail in this moment.
            Err(StoreError::Conflict(_)) => Ok(Verified::EmailTaken),
            outcome => outcome,
        }
    }
}
