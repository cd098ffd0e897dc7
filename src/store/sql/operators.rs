//! The lock that keeps an operator: everything that could take one away takes it, after the lock of the user's row.

use crate::accounts::operators::needs_another;
use crate::accounts::user::User;
use crate::audit::event::By;
use crate::base::error::StoreError;
use crate::store::driver::{Transaction, Value};

const LOCK_OPERATORS: &str = "SELECT name FROM locks WHERE name = 'operators' FOR UPDATE";

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
