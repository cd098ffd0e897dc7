//! How rows are read as endpoints, and whose rows a statement finds.

use crate::base::error::StoreError;
use crate::base::id::{UserId, WebhookId};
use crate::store::driver::{Row, Value, unexpected};
use crate::webhooks::types::Types;
use crate::webhooks::url::WebhookUrl;
use crate::webhooks::webhook::{DisabledReason, Holder, SealedSecrets, Webhook};

/// The columns that [`webhook`] reads.
macro_rules! webhook_columns {
    () => {
        "webhooks.id, webhooks.user_id, is_operators, url, types, description, webhooks.is_active, disabled_at, \
         disabled_reason, previous_until, webhooks.created_at"
    };
}
pub(super) use webhook_columns;

/// The first column after [`webhook_columns`].
pub(super) const FURTHER: usize = 11;

/// Whether the owner is active; of an operators' endpoint, whether its maker is an operator. What
/// [`crate::accounts::operators::is_operator`] says. For statements that join `webhooks` and `users`.
macro_rules! owner_may {
    () => {
        "users.is_active AND (NOT webhooks.is_operators OR users.kind = 'user' \
         AND REPLACE(' ' || users.scopes || ' ', ' keyward:admin ', '') <> ' ' || users.scopes || ' ')"
    };
}
pub(super) use owner_may;

/// Whether an endpoint is a holder's: `$1` is the user, or null for the operators.
macro_rules! held {
    () => {
        "(user_id = $1 AND NOT is_operators OR $1 IS NULL AND is_operators) AND deleted_at IS NULL"
    };
}
pub(super) use held;

/// For [`held`].
pub(super) fn holder_value(holder: Holder) -> Value {
    match holder {
        Holder::User(user) => Value::Uuid(user.0),
        Holder::Operators => Value::Null,
    }
}

pub(super) fn webhook(row: &mut Row) -> Result<Webhook, StoreError> {
    let reason = row.optional_text(8)?.map(|reason| DisabledReason::parse(&reason).ok_or_else(|| unexpected(8)));
    Ok(Webhook {
        id: WebhookId(row.uuid(0)?),
        owner: UserId(row.uuid(1)?),
        is_operators: row.bool(2)?,
        url: WebhookUrl::from_stored(row.text(3)?),
        types: row
            .optional_text(4)?
            .map(|types| Types::from_stored(&types).ok_or_else(|| unexpected(4)))
            .transpose()?,
        description: row.optional_text(5)?,
        is_active: row.bool(6)?,
        disabled: row.optional_timestamp(7)?.zip(reason.transpose()?),
        previous_secret_until: row.optional_timestamp(9)?,
        created_at: row.timestamp(10)?,
    })
}

/// Reads `secret, previous_secret`, of which the first is this column.
pub(super) fn secrets(row: &mut Row, column: usize, webhook: &Webhook) -> Result<SealedSecrets, StoreError> {
    let current = row.bytes(column)?;
    let previous = row.optional_bytes(column + 1)?.zip(webhook.previous_secret_until);
    Ok(SealedSecrets { current, previous })
}
