//! How rows are read as keys, and a rate limit is written.

use std::time::Duration;

use crate::base::error::StoreError;
use crate::base::id::{KeyId, UserId};
use crate::base::metadata::Metadata;
use crate::keys::allowed_ips::AllowedIps;
use crate::keys::grants::Grants;
use crate::keys::key::{ApiKey, KeyHash, KnownKey, LONGEST_WINDOW, MOST_IN_A_WINDOW};
use crate::keys::scopes::Scopes;
use crate::memory::limiter::Rate;
use crate::store::driver::{Row, Value, unexpected};

/// The columns that [`api_key`] reads, of `api_keys LEFT JOIN key_last_use`.
macro_rules! key_columns {
    () => {
        "id, user_id, name, hint, is_active, expires_at, created_at, revoked_at, replaced_by, scopes, rate_limit, \
         rate_window, key_last_use.at, \
         (SELECT last_allowed_at FROM key_hours WHERE key_hours.key_id = api_keys.id \
          AND last_allowed_at IS NOT NULL ORDER BY hour DESC LIMIT 1), external_id, metadata, allowed_ips"
    };
}
pub(super) use key_columns;

/// The first column after [`key_columns`].
pub(crate) const FURTHER: usize = 17;

pub(crate) fn api_key(mut row: Row) -> Result<ApiKey, StoreError> {
    Ok(ApiKey {
        id: KeyId(row.uuid(0)?),
        owner: UserId(row.uuid(1)?),
        name: row.text(2)?,
        hint: row.text(3)?,
        is_active: row.bool(4)?,
        expires_at: row.optional_timestamp(5)?,
        created_at: row.timestamp(6)?,
        revoked_at: row.optional_timestamp(7)?,
        replaced_by: row.optional_uuid(8)?.map(KeyId),
        scopes: Scopes::from_stored(row.text(9)?),
        rate_limit: rate_limit(&mut row, 10)?,
        // In hours whose counts are deleted, and in those whose counts are kept.
        last_used_at: row.optional_timestamp(12)?.max(row.optional_timestamp(13)?),
        external_id: row.optional_text(14)?,
        metadata: metadata(&mut row, 15)?,
        allowed_ips: allowed_ips(&mut row, 16)?,
    })
}

pub(crate) fn metadata(row: &mut Row, column: usize) -> Result<Option<Metadata>, StoreError> {
    let text = row.optional_text(column)?;
    text.map(|text| Metadata::from_stored(text).ok_or_else(|| unexpected(column))).transpose()
}

pub(crate) fn metadata_value(metadata: Option<&Metadata>) -> Value {
    Value::or_null(metadata, |metadata| Value::Text(metadata.as_str().to_string()))
}

fn allowed_ips(row: &mut Row, column: usize) -> Result<Option<AllowedIps>, StoreError> {
    let text = row.optional_text(column)?;
    text.map(|text| AllowedIps::from_stored(&text).ok_or_else(|| unexpected(column))).transpose()
}

/// Columns from this one on: rate_limit, rate_window.
fn rate_limit(row: &mut Row, column: usize) -> Result<Option<Rate>, StoreError> {
    let (Some(limit), Some(window)) = (row.optional_int(column)?, row.optional_int(column + 1)?) else {
        return Ok(None);
    };
    let limit = u32::try_from(limit).ok().filter(|limit| (1..=MOST_IN_A_WINDOW).contains(limit));
    let window = u64::try_from(window).ok().map(Duration::from_secs);
    let window = window.filter(|window| !window.is_zero() && *window <= LONGEST_WINDOW);
    limit.zip(window).map(|(limit, window)| Some(Rate { limit, window })).ok_or_else(|| unexpected(column))
}

/// Values of rate_limit and rate_window.
pub(crate) fn rate_values(rate: Option<Rate>) -> [Value; 2] {
    [
        Value::or_null(rate, |rate| Value::Int(i64::from(rate.limit))),
        Value::or_null(rate, |rate| Value::Int(rate.window.as_secs() as i64)),
    ]
}

/// The statement whose rows [`known_key`] reads, up to its condition.
macro_rules! known_keys {
    () => {
        "SELECT api_keys.hash, api_keys.id, users.id, users.email, api_keys.is_active, users.is_active, \
         api_keys.expires_at, api_keys.name, api_keys.scopes, api_keys.rate_limit, api_keys.rate_window, \
         api_keys.created_at, api_keys.revoked_at, users.scopes, users.email_verified, api_keys.external_id, \
         api_keys.metadata, api_keys.allowed_ips, users.needs_verified_email FROM api_keys \
         JOIN users ON users.id = api_keys.user_id AND users.deleted_at IS NULL WHERE "
    };
}
pub(super) use known_keys;

pub(crate) fn known_key(mut row: Row) -> Result<(KeyHash, KnownKey), StoreError> {
    let hash = KeyHash::from_stored(row.bytes(0)?).ok_or_else(|| unexpected(0))?;
    let grants = Grants::from_stored(row.text(13)?);
    let email_verified = row.bool(14)?;
    let key = KnownKey {
        id: KeyId(row.uuid(1)?),
        owner: UserId(row.uuid(2)?),
        email: row.text(3)?.into(),
        is_active: row.bool(4)?,
        owner_is_active: row.bool(5)?,
        expires_at: row.optional_timestamp(6)?,
        name: row.text(7)?,
        scopes: grants.of(&Scopes::from_stored(row.text(8)?)),
        rate_limit: rate_limit(&mut row, 9)?,
        created_at: row.timestamp(11)?,
        is_revoked: row.optional_timestamp(12)?.is_some(),
        email_verified,
        owner_awaits_verification: row.bool(18)? && !email_verified,
        external_id: row.optional_text(15)?,
        metadata: metadata(&mut row, 16)?,
        allowed_ips: allowed_ips(&mut row, 17)?,
    };
    Ok((hash, key))
}
