//! What the transactions of logins and of guarded changes check: the password, and a code where the user has a second
//! factor. See also [`super::second_factors`].

use log::warn;

use super::events::record;
use crate::accounts::second_factor::codes::Code;
use crate::accounts::second_factor::decision::StoredFactor;
use crate::accounts::second_factor::shown::{CodeFault, Confirmed, Shown};
use crate::accounts::second_factor::totp::{TotpSecret, place};
use crate::audit::event::{By, Event, Kind, RESTS_UNTIL};
use crate::base::clock::{Clock, Timestamp};
use crate::base::data_key::DataKey;
use crate::base::error::{Error, StoreError};
use crate::base::id::UserId;
use crate::store::driver::{Row, Transaction, Value, first};

/// A factor, as it is stored.
pub(super) struct FactorRow {
    pub(super) secret: Vec<u8>,
    pub(super) is_enabled: bool,
    pub(super) factor: StoredFactor,
}

fn factor_row(mut row: Row) -> Result<FactorRow, StoreError> {
    let factor = StoredFactor { last_step: row.int(2)?, wrong: row.int(3)?, rests_until: row.optional_timestamp(4)? };
    Ok(FactorRow { secret: row.bytes(0)?, is_enabled: row.optional_timestamp(1)?.is_some(), factor })
}

/// What changes a factor locks its user first.
pub(super) fn find(transaction: &mut dyn Transaction, user: UserId) -> Result<Option<FactorRow>, StoreError> {
    let rows = transaction.query(
        "SELECT secret, enabled_at, last_step, wrong, rests_until FROM second_factors WHERE user_id = $1",
        &[Value::Uuid(user.0)],
    )?;
    first(rows).map(factor_row).transpose()
}

fn write(transaction: &mut dyn Transaction, user: UserId, factor: &StoredFactor) -> Result<(), StoreError> {
    transaction.execute(
        "UPDATE second_factors SET last_step = $2, wrong = $3, rests_until = $4 WHERE user_id = $1",
        &[
            Value::Uuid(user.0),
            Value::Int(factor.last_step),
            Value::Int(factor.wrong),
            Value::or_null(factor.rests_until, Value::Timestamp),
        ],
    )?;
    Ok(())
}

/// Removes the factor and its recovery codes. False: there is none.
pub(super) fn remove(transaction: &mut dyn Transaction, user: UserId) -> Result<bool, StoreError> {
    transaction.execute("DELETE FROM recovery_codes WHERE user_id = $1", &[Value::Uuid(user.0)])?;
    Ok(transaction.execute("DELETE FROM second_factors WHERE user_id = $1", &[Value::Uuid(user.0)])? > 0)
}

/// Removes a factor that no code has confirmed yet: somebody else may have begun it, who knew the old password.
pub(super) fn void_begun(transaction: &mut dyn Transaction, user: UserId) -> Result<(), StoreError> {
    let sql = "DELETE FROM second_factors WHERE user_id = $1 AND enabled_at IS NULL";
    transaction.execute(sql, &[Value::Uuid(user.0)])?;
    Ok(())
}

/// Locks the user's row, and checks what is shown. Everything but `Done` is for the caller to return: a code that is wrong
/// has been counted then, which the transaction has to keep, and nothing else is to change.
pub(super) fn confirm(
    transaction: &mut dyn Transaction,
    user: UserId,
    shown: &Shown<'_>,
    by: &By,
    clock: &Clock,
) -> Result<Confirmed<()>, StoreError> {
    if !lock(transaction, user, shown)? {
        return Ok(Confirmed::UserChanged);
    }
    let Some(found) = find(transaction, user)?.filter(|found| found.is_enabled) else {
        return Ok(Confirmed::Done(()));
    };
    let Some(code) = shown.code else { return Ok(Confirmed::Refused(CodeFault::Missing)) };
    let now = transaction.now(clock)?;
    let fault = take(transaction, user, &found, code, shown.key, by, now)?;
    Ok(fault.map_or(Confirmed::Done(()), Confirmed::Refused))
}

/// Locks the user's row. False: they are gone or inactive, or have another password.
pub(super) fn lock(transaction: &mut dyn Transaction, user: UserId, shown: &Shown<'_>) -> Result<bool, StoreError> {
    let found = transaction.query(
        "SELECT id FROM users WHERE id = $1 AND is_active AND password_hash = $2 FOR UPDATE",
        &[Value::Uuid(user.0), Value::Text(shown.password.as_str().to_string())],
    )?;
    Ok(!found.is_empty())
}

/// Uses the code up, if it is good. Otherwise counts it, if it is wrong, and says why it is not.
pub(super) fn take(
    transaction: &mut dyn Transaction,
    user: UserId,
    found: &FactorRow,
    code: &Code,
    key: &DataKey,
    by: &By,
    now: Timestamp,
) -> Result<Option<CodeFault>, StoreError> {
    // Recovery codes cannot be guessed, so they do not rest: somebody who knows the password cannot lock the user out.
    if let Code::Recovery(hash) = code {
        let used = transaction.execute(
            "DELETE FROM recovery_codes WHERE user_id = $1 AND hash = $2",
            &[Value::Uuid(user.0), Value::Bytes(hash.as_bytes().to_vec())],
        )?;
        if used > 0 {
            let sql = "SELECT COUNT(*) FROM recovery_codes WHERE user_id = $1";
            let left = first(transaction.query(sql, &[Value::Uuid(user.0)])?).map_or(Ok(0), |mut row| row.int(0))?;
            write(transaction, user, &found.factor.after_recovery())?;
            record(transaction, &Event::new(Kind::RecoveryCodeUsed, user, by, now).with("left", left))?;
            return Ok(None);
        }
    }
    if let Some(left) = found.factor.rest(now) {
        return Ok(Some(CodeFault::Resting(left)));
    }
    if let Code::OneTime(digits) = code {
        let secret = match key.open(&place(user), &found.secret) {
            Err(Error::NotConfigured(what)) => {
                warn!("a second factor is on, and its codes cannot be judged: {what}");
                return Ok(Some(CodeFault::NotConfigured(what)));
            }
            opened => TotpSecret::from_stored(opened.map_err(fault)?),
        };
        if let Some(factor) = found.factor.after_code(&secret, digits, now) {
            write(transaction, user, &factor)?;
            return Ok(None);
        }
    }
    let factor = found.factor.after_wrong(now);
    write(transaction, user, &factor)?;
    let Some(until) = factor.rests_until.filter(|_| factor.rest(now).is_some()) else {
        return Ok(Some(CodeFault::Wrong));
    };
    record(transaction, &Event::new(Kind::TotpFailed, user, by, now).with(RESTS_UNTIL, until.to_string()))?;
    Ok(Some(CodeFault::LastWrong))
}

/// A secret that cannot be opened is a matter for the operator.
fn fault(error: Error) -> StoreError {
    match error {
        Error::Internal(cause) => StoreError::Internal(cause),
        other => StoreError::Internal(format!("opening the secret of a second factor: {other:?}")),
    }
}
