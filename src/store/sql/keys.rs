//! The statements of keys.

use std::cmp::Reverse;

use log::warn;
use uuid::Uuid;

use super::events::record;
use super::key_rows::{FURTHER, api_key, key_columns, known_key, known_keys, metadata_value, rate_values};
use super::statistics::hour;
use super::user_rows::max_keys;
use super::{SqlStore, delete_found, sessions};
use crate::audit::event::{Actor, By, Event, Kind, Subject};
use crate::base::clock::Timestamp;
use crate::base::error::StoreError;
use crate::base::id::{KeyId, UserId};
use crate::keys::expiry::next_step;
use crate::keys::grants::Grants;
use crate::keys::key::{ApiKey, KeyChange, KeyDraft, KeyHash, KeyRefusal, KnownKey, most_ended};
use crate::keys::listing::{KeyFilter, KeyPage};
use crate::keys::rules::{self, KeyOwner, Replacement};
use crate::keys::store::KeyStore;
use crate::store::driver::{Driver, Row, Transaction, Value, first, unexpected};

fn insert_key(transaction: &mut dyn Transaction, key: &ApiKey, hash: &KeyHash) -> Result<(), StoreError> {
    let [limit, window] = rate_values(key.rate_limit);
    transaction.execute(
        "INSERT INTO api_keys (id, user_id, hash, hint, name, is_active, expires_at, created_at, scopes, rate_limit, \
         rate_window, external_id, metadata, allowed_ips, notice_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
        &[
            Value::Uuid(key.id.0),
            Value::Uuid(key.owner.0),
            Value::Bytes(hash.as_bytes().to_vec()),
            Value::Text(key.hint.clone()),
            Value::Text(key.name.clone()),
            Value::Bool(key.is_active),
            Value::or_null(key.expires_at, Value::Timestamp),
            Value::Timestamp(key.created_at),
            Value::Text(key.scopes.as_str().to_string()),
            limit,
            window,
            Value::or_null(key.external_id.clone(), Value::Text),
            metadata_value(key.metadata.as_ref()),
            Value::or_null(key.allowed_ips.as_ref(), |allowed| Value::Text(allowed.to_string())),
            Value::or_null(next_step(key.expires_at, key.created_at), Value::Timestamp),
        ],
    )?;
    Ok(())
}

/// Locks the owner's row, so that counts of their keys hold until the transaction ends. `most`: how many keys a user may
/// have, if nothing else was said of this one. `None`: no such active user, or their session that asks has ended since the
/// guard judged. A new password ends sessions: who knew the old one must not get a key because they asked at that moment.
fn lock_owner(
    transaction: &mut dyn Transaction,
    owner: UserId,
    most: u32,
    by: &By,
) -> Result<Option<KeyOwner>, StoreError> {
    let user = [Value::Uuid(owner.0)];
    if transaction.execute("UPDATE users SET is_active = is_active WHERE id = $1 AND is_active", &user)? == 0 {
        return Ok(None);
    }
    if let Actor::User { session_id } = by.actor
        && !sessions::has_not_ended(transaction, session_id, owner)?
    {
        return Ok(None);
    }
    let rows = transaction.query("SELECT scopes, max_keys FROM users WHERE id = $1", &user)?;
    let owner = |mut row: Row| -> Result<KeyOwner, StoreError> {
        let scopes = Grants::from_stored(row.text(0)?);
        Ok(KeyOwner { scopes, most: max_keys(&mut row, 1)?.unwrap_or(most) })
    };
    first(rows).map(owner).transpose()
}

/// Reads a key of the owner's and locks it until the transaction ends.
fn lock_key(transaction: &mut dyn Transaction, owner: UserId, id: KeyId) -> Result<Option<ApiKey>, StoreError> {
    let parameters = [Value::Uuid(id.0), Value::Uuid(owner.0)];
    if transaction.execute("UPDATE api_keys SET name = name WHERE id = $1 AND user_id = $2", &parameters)? == 0 {
        return Ok(None);
    }
    let rows = transaction.query(
        concat!(
            "SELECT ",
            key_columns!(),
            " FROM api_keys LEFT JOIN key_last_use ON key_last_use.key_id = api_keys.id WHERE id = $1 AND user_id = $2"
        ),
        &parameters,
    )?;
    first(rows).map(api_key).transpose()
}

// The orders, here and below, make the database follow an index. Without them it may read the table, in the hope of
// finding enough rows soon.
const COUNT_USABLE: &str = "SELECT COUNT(*) FROM (SELECT 1 FROM api_keys \
    WHERE user_id = $1 AND ends_at > $2 ORDER BY ends_at DESC LIMIT $3) AS usable";

const COUNT_REPLACED: &str = "SELECT COUNT(*) FROM (SELECT 1 FROM api_keys \
    WHERE user_id = $1 AND ends_at > $2 AND replaced_by IS NOT NULL ORDER BY ends_at DESC LIMIT $3) AS replaced";

/// How many of the owner's keys the statement `count` finds, counted up to `most`.
fn count_keys(
    transaction: &mut dyn Transaction,
    count: &'static str,
    owner: UserId,
    most: u32,
    now: Timestamp,
) -> Result<u64, StoreError> {
    let parameters = [Value::Uuid(owner.0), Value::Timestamp(now), Value::Int(i64::from(most))];
    let found = first(transaction.query(count, &parameters)?).map_or(Ok(0), |mut row| row.int(0))?;
    u64::try_from(found).map_err(|_| unexpected(0))
}

/// Deletes up to a thousand of the owner's ended keys beyond those that are kept, the first to end first. The owner's
/// row must be locked. Earlier versions had no bound, so their databases may have many.
fn delete_excess(
    transaction: &mut dyn Transaction,
    owner: UserId,
    most: u32,
    now: Timestamp,
) -> Result<bool, StoreError> {
    // With the owner's row locked, none of these keys can become usable again.
    delete_found(
        transaction,
        "SELECT id FROM api_keys WHERE user_id = $1 AND ends_at <= $2 \
         ORDER BY ends_at DESC, id DESC LIMIT 1000 OFFSET $3",
        &[Value::Uuid(owner.0), Value::Timestamp(now), Value::Int(most_ended(most))],
        DELETE_KEYS,
    )
}

const DELETE_KEYS: &str = "DELETE FROM api_keys WHERE id IN (ROWS)";

impl<D: Driver> KeyStore for SqlStore<D> {
    fn create_key(
        &self,
        key: &ApiKey,
        hash: &KeyHash,
        most: u32,
        by: &By,
    ) -> Result<Result<(), KeyRefusal>, StoreError> {
        // Nobody has looked up this key before, so there is nothing to notify of.
        self.driver.transaction(|transaction| {
            let Some(owner) = lock_owner(transaction, key.owner, most, by)? else { return Ok(Err(KeyRefusal::Gone)) };
            let usable = || count_keys(transaction, COUNT_USABLE, key.owner, owner.most, key.created_at);
            if let Err(refusal) = rules::create(&owner, &key.scopes, usable)? {
                return Ok(Err(refusal));
            }
            insert_key(transaction, key, hash)?;
            delete_excess(transaction, key.owner, owner.most, key.created_at)?;
            let created = Event::new(Kind::KeyCreated, key.owner, by, key.created_at);
            record(transaction, &created.on(Subject::Key(key.id)))?;
            Ok(Ok(()))
        })
    }

    fn update_key(
        &self,
        owner: UserId,
        id: KeyId,
        change: &KeyChange,
        by: &By,
        now: Timestamp,
        most: u32,
    ) -> Result<Result<(), KeyRefusal>, StoreError> {
        self.change(id.0, Result::is_ok, |transaction| {
            let Some(rights) = lock_owner(transaction, owner, most, by)? else { return Ok(Err(KeyRefusal::Gone)) };
            let Some(old) = lock_key(transaction, owner, id)? else { return Ok(Err(KeyRefusal::Gone)) };
            let usable = || count_keys(transaction, COUNT_USABLE, owner, rights.most, now);
            let new = match rules::change(&old, change, now, &rights, usable)? {
                Ok(new) => new,
                Err(refusal) => return Ok(Err(refusal)),
            };
            let [limit, window] = rate_values(new.rate_limit);
            transaction.execute(
                "UPDATE api_keys SET name = $2, is_active = $3, expires_at = $4, scopes = $5, rate_limit = $6, \
                 rate_window = $7, external_id = $8, metadata = $9, allowed_ips = $10, \
                 notice_at = CASE WHEN $11 THEN $12 ELSE notice_at END WHERE id = $1",
                &[
                    Value::Uuid(id.0),
                    Value::Text(new.name),
                    Value::Bool(new.is_active),
                    Value::or_null(new.expires_at, Value::Timestamp),
                    Value::Text(new.scopes.as_str().to_string()),
                    limit,
                    window,
                    Value::or_null(new.external_id, Value::Text),
                    metadata_value(new.metadata.as_ref()),
                    Value::or_null(new.allowed_ips, |allowed| Value::Text(allowed.to_string())),
                    // A step whose minute has come is not lost by a change of something else.
                    Value::Bool(new.expires_at != old.expires_at),
                    Value::or_null(next_step(new.expires_at, now), Value::Timestamp),
                ],
            )?;
            if let Some(event) = rules::change_event(change, id, owner, by, now) {
                record(transaction, &event)?;
            }
            Ok(Ok(()))
        })
    }

    fn rotate_key(
        &self,
        owner: UserId,
        id: KeyId,
        draft: &KeyDraft,
        grace_end: Timestamp,
        most: u32,
        by: &By,
    ) -> Result<Result<Replacement, KeyRefusal>, StoreError> {
        let now = draft.created_at;
        self.change(id.0, Result::is_ok, |transaction| {
            let Some(rights) = lock_owner(transaction, owner, most, by)? else { return Ok(Err(KeyRefusal::Gone)) };
            let Some(old) = lock_key(transaction, owner, id)? else { return Ok(Err(KeyRefusal::Gone)) };
            let in_grace = || count_keys(transaction, COUNT_REPLACED, owner, rights.most, now);
            let made = match rules::rotate(&old, draft, grace_end, &rights, in_grace)? {
                Ok(made) => made,
                Err(refusal) => return Ok(Err(refusal)),
            };
            insert_key(transaction, &made.key, &draft.hash)?;
            transaction.execute(
                "UPDATE api_keys SET replaced_by = $2, expires_at = $3, notice_at = NULL WHERE id = $1",
                &[Value::Uuid(id.0), Value::Uuid(made.key.id.0), Value::Timestamp(made.old_expires_at)],
            )?;
            delete_excess(transaction, owner, rights.most, now)?;
            let rotated = Event::new(Kind::KeyRotated, owner, by, now).on(Subject::Key(id));
            record(transaction, &rotated.with("replacedBy", made.key.id.to_string()))?;
            Ok(Ok(made))
        })
    }

    fn key_of(&self, owner: UserId, id: KeyId, since: Timestamp) -> Result<Option<(ApiKey, u64)>, StoreError> {
        let found = self.counted(vec![Value::Uuid(id.0)], since)?;
        Ok(found.into_iter().find(|(key, _)| key.owner == owner))
    }

    fn keys_of(
        &self,
        owner: UserId,
        since: Timestamp,
        now: Timestamp,
        limit: i64,
    ) -> Result<Vec<(ApiKey, u64)>, StoreError> {
        let rows = self.driver.query(
            "SELECT id, ends_at FROM api_keys WHERE user_id = $1 ORDER BY created_at DESC, id DESC LIMIT $2",
            &[Value::Uuid(owner.0), Value::Int(limit)],
        )?;
        let newest = rows.into_iter().map(|mut row| Ok((KeyId(row.uuid(0)?), row.timestamp(1)? > now)));
        let newest = newest.collect::<Result<Vec<_>, StoreError>>()?;
        let usable = || {
            let rows = self.driver.query(
                // All usable keys: an owner has only as many as they may have, and those in their grace.
                "WITH usable AS MATERIALIZED (SELECT id, created_at FROM api_keys \
                 WHERE user_id = $1 AND ends_at > $2 ORDER BY ends_at DESC LIMIT $4) \
                 SELECT id FROM usable ORDER BY created_at DESC, id DESC LIMIT $3",
                &[Value::Uuid(owner.0), Value::Timestamp(now), Value::Int(limit), Value::Int(i64::MAX)],
            )?;
            rows.into_iter().map(|mut row| row.uuid(0).map(KeyId)).collect::<Result<_, StoreError>>()
        };
        let listed = rules::listed(&newest, usize::try_from(limit).unwrap_or(usize::MAX), usable)?;
        self.counted(listed.into_iter().map(|id| Value::Uuid(id.0)).collect(), since)
    }

    fn page_of_keys(
        &self,
        filter: &KeyFilter,
        after: Option<KeyId>,
        limit: usize,
        since: Timestamp,
        now: Timestamp,
    ) -> Result<Option<KeyPage>, StoreError> {
        self.read_page(filter, after, limit, since, now)
    }

    fn keys(&self, owner: Option<UserId>, after: Option<&ApiKey>, limit: i64) -> Result<Vec<ApiKey>, StoreError> {
        let id = Value::Uuid(after.map_or(Uuid::nil(), |key| key.id.0));
        // Two statements: one for both cases would search all keys for the few of one user.
        let rows = match owner {
            None => self.driver.query(
                concat!(
                    "SELECT ",
                    key_columns!(),
                    " FROM api_keys LEFT JOIN key_last_use ON key_last_use.key_id = api_keys.id \
                     WHERE id > $1 AND (SELECT deleted_at FROM users WHERE users.id = api_keys.user_id) IS NULL \
                     ORDER BY id LIMIT $2"
                ),
                &[id, Value::Int(limit)],
            ),
            Some(owner) => self.driver.query(
                concat!(
                    "SELECT ",
                    key_columns!(),
                    " FROM api_keys LEFT JOIN key_last_use ON key_last_use.key_id = api_keys.id \
                     WHERE user_id = $1 AND (created_at, id) > ($2, $3) ORDER BY created_at, id LIMIT $4"
                ),
                &[
                    Value::Uuid(owner.0),
                    Value::Timestamp(after.map_or(Timestamp::FIRST, |key| key.created_at)),
                    id,
                    Value::Int(limit),
                ],
            ),
        };
        rows?.into_iter().map(api_key).collect()
    }

    fn keys_by_hash(&self, hashes: &[KeyHash]) -> Result<Vec<(KeyHash, KnownKey)>, StoreError> {
        let rows = self.driver.query(
            concat!(known_keys!(), "api_keys.hash = ANY($1)"),
            &[Value::List(hashes.iter().map(|hash| Value::Bytes(hash.as_bytes().to_vec())).collect())],
        )?;
        rows.into_iter().map(known_key).collect()
    }

    fn keys_by_id(&self, ids: &[KeyId]) -> Result<Vec<(KeyId, KnownKey)>, StoreError> {
        let rows = self.driver.query(
            concat!(known_keys!(), "api_keys.id = ANY($1)"),
            &[Value::List(ids.iter().map(|id| Value::Uuid(id.0)).collect())],
        )?;
        rows.into_iter().map(|row| known_key(row).map(|(_, key)| (key.id, key))).collect()
    }

    fn revoke_key(
        &self,
        id: KeyId,
        owner: Option<UserId>,
        by: &By,
        now: Timestamp,
        most: u32,
    ) -> Result<bool, StoreError> {
        let changed = |(_, ended): &(bool, Option<UserId>)| ended.is_some();
        let (found, ended) = self.change(id.0, changed, |transaction| {
            let rows = transaction.query(
                "SELECT user_id FROM api_keys WHERE id = $1 AND (user_id = $2 OR $2 IS NULL)",
                &[Value::Uuid(id.0), Value::or_null(owner, |owner| Value::Uuid(owner.0))],
            )?;
            let Some(mut row) = first(rows) else { return Ok((false, None)) };
            let owner = UserId(row.uuid(0)?);
            let revoked = transaction.execute(
                "UPDATE api_keys SET is_active = $3, revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL",
                &[Value::Uuid(id.0), Value::Timestamp(now), Value::Bool(false)],
            )?;
            if revoked == 0 {
                return Ok((true, None));
            }
            record(transaction, &Event::new(Kind::KeyRevoked, owner, by, now).on(Subject::Key(id)))?;
            Ok((true, Some(owner)))
        })?;
        // In a transaction of its own, so that revoking waits for nothing else.
        if let Some(owner) = ended
            && let Err(error) = self.trim(owner, most, now)
        {
            warn!("keys that ended long ago are not deleted yet: {error}");
        }
        Ok(found)
    }

    fn tell_of_expiry(&self, now: Timestamp) -> Result<bool, StoreError> {
        self.tell_of_due_keys(now)
    }

    fn prune_keys(&self, before: Timestamp) -> Result<bool, StoreError> {
        self.driver.transaction(|transaction| {
            // A key that is locked is being changed, and may become usable again.
            let find =
                "SELECT id FROM api_keys WHERE ends_at < $1 ORDER BY ends_at, id LIMIT 1000 FOR UPDATE SKIP LOCKED";
            delete_found(transaction, find, &[Value::Timestamp(before)], DELETE_KEYS)
        })
    }

    fn trim_keys(&self, from: UserId, most: u32, now: Timestamp) -> Result<Option<UserId>, StoreError> {
        let next = |sql, parameters: &[Value]| -> Result<Option<UserId>, StoreError> {
            first(self.driver.query(sql, parameters)?).map(|mut row| row.uuid(0).map(UserId)).transpose()
        };
        // Counts keys from the first one of `from` on. The user of the key that exceeds the bound may have too many;
        // the users before have not.
        let suspect = next(
            "SELECT user_id FROM api_keys WHERE user_id >= $1 ORDER BY user_id, ends_at, id LIMIT 1 OFFSET $2",
            &[Value::Uuid(from.0), Value::Int(most_ended(most))],
        )?;
        match suspect {
            Some(suspect) if suspect == from && !self.trim(from, most, now)? => next(
                "SELECT user_id FROM api_keys WHERE user_id > $1 ORDER BY user_id, ends_at, id LIMIT 1",
                &[Value::Uuid(from.0)],
            ),
            next => Ok(next),
        }
    }
}

impl<D: Driver> SqlStore<D> {
    /// The stored keys among `ids`, newest first, each with how often it was allowed from `since` on.
    pub(super) fn counted(&self, ids: Vec<Value>, since: Timestamp) -> Result<Vec<(ApiKey, u64)>, StoreError> {
        // An empty list has no type to be sent as.
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let rows = self.driver.query(
            concat!(
                "SELECT ",
                key_columns!(),
                ", (SELECT CAST(SUM(allowed) AS BIGINT) FROM key_hours \
                 WHERE key_hours.key_id = api_keys.id AND hour >= $2) \
                 FROM api_keys LEFT JOIN key_last_use ON key_last_use.key_id = api_keys.id WHERE id = ANY($1)"
            ),
            &[Value::List(ids), hour(since)],
        )?;
        let counted = |mut row: Row| {
            let count = row.optional_int(FURTHER)?.unwrap_or(0);
            Ok((api_key(row)?, u64::try_from(count).unwrap_or(0)))
        };
        let mut keys = rows.into_iter().map(counted).collect::<Result<Vec<_>, StoreError>>()?;
        keys.sort_unstable_by_key(|(key, _)| Reverse((key.created_at, key.id)));
        Ok(keys)
    }

    /// Deletes some of the owner's ended keys beyond those that are kept. False: there were none.
    fn trim(&self, owner: UserId, most: u32, now: Timestamp) -> Result<bool, StoreError> {
        let excess = self.driver.query(
            "SELECT id FROM api_keys WHERE user_id = $1 AND ends_at <= $2 \
             ORDER BY ends_at DESC, id DESC LIMIT 1 OFFSET $3",
            &[Value::Uuid(owner.0), Value::Timestamp(now), Value::Int(most_ended(most))],
        )?;
        if excess.is_empty() {
            return Ok(false);
        }
        self.driver.transaction(|transaction| {
            // The owner's row is always locked before their keys, so that transactions do not wait for each other in a
            // circle.
            transaction.execute("UPDATE users SET is_active = is_active WHERE id = $1", &[Value::Uuid(owner.0)])?;
            delete_excess(transaction, owner, most, now)
        })
    }
}
