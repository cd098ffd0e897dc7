//! Who is an operator, and the lock that keeps one: everything that could take one away takes it, after the lock of the
//! user's row.

use super::sessions;
use crate::accounts::operators::needs_another;
use crate::accounts::user::User;
use crate::audit::event::{Actor, By, Credential};
use crate::base::error::StoreError;
use crate::store::driver::{Transaction, Value};

const LOCK_OPERATORS: &str = "SELECT name FROM locks WHERE name = 'operators' FOR UPDATE";

/// Finds an operator, and locks their row.
const LOCK_OPERATOR: &str = "SELECT id FROM users WHERE id = $1 AND kind = 'user' AND is_active \
    AND REPLACE(' ' || scopes || ' ', ' keyward:admin ', '') <> ' ' || scopes || ' ' FOR UPDATE";

const LOCK_KEY: &str = "SELECT id FROM api_keys WHERE id = $1 AND user_id = $2 AND is_active AND revoked_at IS NULL \
    AND REPLACE(' ' || scopes || ' ', ' keyward:admin ', '') <> ' ' || scopes || ' ' FOR UPDATE";

/// Locks the row of the operator who asks until the transaction ends. False: since the guard judged, they have lost their
/// grant or have been deactivated, or their session or key has ended. Somebody on the command line can lose nothing.
pub(super) fn lock_asking(transaction: &mut dyn Transaction, by: &By) -> Result<bool, StoreError> {
    let Actor::UserAsOperator { user_id, by } = by.actor else { return Ok(true) };
    if transaction.query(LOCK_OPERATOR, &[Value::Uuid(user_id.0)])?.is_empty() {
        return Ok(false);
    }
    match by {
        Some(Credential::Session { session_id }) => sessions::has_not_ended(transaction, session_id, user_id),
        Some(Credential::Key { key_id }) => {
            let key = [Value::Uuid(key_id.0), Value::Uuid(user_id.0)];
            Ok(!transaction.query(LOCK_KEY, &key)?.is_empty())
        }
        None => Ok(true),
    }
}

/// What [`crate::accounts::operators::is_operator`] says. The index `users_operators` is written alike.
const ANOTHER_OPERATOR: &str = "SELECT id FROM users WHERE kind = 'user' AND is_active \
    AND REPLACE(' ' || scopes || ' ', ' keyward:admin ', '') <> ' ' || scopes || ' ' AND id <> $1 \
    ORDER BY id LIMIT 1";

/// Whether `old`, whose row is locked, may become `new` or be deleted: an operator must stay. If so, none of the others
/// can go before the transaction ends.
pub(crate) fn leaves_an_operator(
    transaction: &mut dyn Transaction,
    old: &User,
    new: Option<&User>,
    by: &By,
) -> Result<bool, StoreError> {
    if !needs_another(old, new, by) {
        return Ok(true);
    }
    transaction.query(LOCK_OPERATORS, &[])?;
    Ok(!transaction.query(ANOTHER_OPERATOR, &[Value::Uuid(old.id.0)])?.is_empty())
}
