//! The pages of lists of keys.
//!
//! Each list follows an index, so that its last page costs what its first does. Only one of several filters can choose
//! the index. The others are looked at key by key, up to [`LOOKED_AT`] keys a page.

use std::collections::HashMap;

use uuid::Uuid;

use super::SqlStore;
use crate::base::clock::Timestamp;
use crate::base::error::StoreError;
use crate::base::id::KeyId;
use crate::keys::listing::{Candidate, KeyFilter, KeyPage, KeyStatus};
use crate::store::driver::{Driver, Row, Value, first};

/// How many keys one page looks at, at most. If few of them are in the list, the page is short, and the list goes on.
const LOOKED_AT: usize = 5000;

/// Candidates of a page, in the order of an index.
macro_rules! candidates {
    ($found:literal) => {
        concat!(
            "SELECT id, created_at, name, external_id, is_active, expires_at, revoked_at, \
             (SELECT deleted_at FROM users WHERE users.id = api_keys.user_id) FROM api_keys WHERE ",
            $found
        )
    };
}

// The conditions on what is null are those of the indexes, word for word.

const OWNED: &str =
    candidates!("user_id = $1 AND (created_at, id) < ($2, $3) ORDER BY created_at DESC, id DESC LIMIT $4");

const OWNED_BY_EXTERNAL_ID: &str = candidates!(
    "user_id = $1 AND external_id = $5 AND (created_at, id) < ($2, $3) ORDER BY created_at DESC, id DESC LIMIT $4"
);

const OWNED_BY_NAME: &str =
    candidates!("user_id = $1 AND (name, id) > ($2, $3) AND name < $5 ORDER BY name, id LIMIT $4");

const OWNED_REVOKED: &str = candidates!(
    "user_id = $1 AND revoked_at IS NOT NULL AND (created_at, id) < ($2, $3) ORDER BY created_at DESC, id DESC LIMIT $4"
);

const OWNED_PAUSED: &str = candidates!(
    "user_id = $1 AND revoked_at IS NULL AND NOT is_active AND (created_at, id) < ($2, $3) \
     ORDER BY created_at DESC, id DESC LIMIT $4"
);

/// Those that expire at some time.
const OWNED_EXPIRING: &str = candidates!(
    "user_id = $1 AND revoked_at IS NULL AND expires_at IS NOT NULL AND (created_at, id) < ($2, $3) \
     ORDER BY created_at DESC, id DESC LIMIT $4"
);

const ALL: &str = candidates!("id < $1 ORDER BY id DESC LIMIT $2");

const ALL_BY_EXTERNAL_ID: &str = candidates!("external_id = $3 AND id < $1 ORDER BY id DESC LIMIT $2");

const ALL_BY_NAME: &str = candidates!("(name, id) > ($1, $2) AND name < $4 ORDER BY name, id LIMIT $3");

const ALL_REVOKED: &str = candidates!("revoked_at IS NOT NULL AND id < $1 ORDER BY id DESC LIMIT $2");

const ALL_PAUSED: &str = candidates!("revoked_at IS NULL AND NOT is_active AND id < $1 ORDER BY id DESC LIMIT $2");

const ALL_EXPIRING: &str =
    candidates!("revoked_at IS NULL AND expires_at IS NOT NULL AND id < $1 ORDER BY id DESC LIMIT $2");

/// A place in a list: that of a key, or the beginning.
struct Place {
    created_at: Timestamp,
    name: String,
    id: Uuid,
}

impl Place {
    /// Lists by name go up, others from the newest key on.
    fn beginning(filter: &KeyFilter) -> Place {
        match order_by_name(filter) {
            Some(prefix) => Place { created_at: Timestamp::FIRST, name: prefix.to_string(), id: Uuid::nil() },
            None => Place { created_at: Timestamp::LAST, name: String::new(), id: Uuid::max() },
        }
    }
}

/// How the names begin, if that chooses the index. An external id chooses before it: few keys have the same.
fn order_by_name(filter: &KeyFilter) -> Option<&str> {
    filter.name.as_deref().filter(|_| filter.external_id.is_none())
}

/// The statement that reads up to `limit` candidates after a place, and its parameters.
fn candidates_after(filter: &KeyFilter, place: &Place, limit: usize) -> (&'static str, Vec<Value>) {
    let by_name = order_by_name(filter);
    let sql = match (filter.owner.is_some(), &filter.external_id, by_name, filter.status) {
        (true, Some(_), ..) => OWNED_BY_EXTERNAL_ID,
        (true, None, Some(_), _) => OWNED_BY_NAME,
        (true, None, None, Some(KeyStatus::Revoked)) => OWNED_REVOKED,
        (true, None, None, Some(KeyStatus::Paused)) => OWNED_PAUSED,
        (true, None, None, Some(KeyStatus::Expired)) => OWNED_EXPIRING,
        (true, None, None, Some(KeyStatus::Usable) | None) => OWNED,
        (false, Some(_), ..) => ALL_BY_EXTERNAL_ID,
        (false, None, Some(_), _) => ALL_BY_NAME,
        (false, None, None, Some(KeyStatus::Revoked)) => ALL_REVOKED,
        (false, None, None, Some(KeyStatus::Paused)) => ALL_PAUSED,
        (false, None, None, Some(KeyStatus::Expired)) => ALL_EXPIRING,
        (false, None, None, Some(KeyStatus::Usable) | None) => ALL,
    };
    let mut parameters = Vec::with_capacity(5);
    parameters.extend(filter.owner.map(|owner| Value::Uuid(owner.0)));
    match (by_name, filter.owner) {
        (Some(_), _) => parameters.push(Value::Text(place.name.clone())),
        (None, Some(_)) => parameters.push(Value::Timestamp(place.created_at)),
        (None, None) => {}
    }
    parameters.extend([Value::Uuid(place.id), Value::Int(i64::try_from(limit).unwrap_or(i64::MAX))]);
    parameters.extend(filter.external_id.clone().map(Value::Text));
    parameters.extend(by_name.map(|prefix| Value::Text(after_names(prefix))));
    (sql, parameters)
}

/// Comes after every name that begins with this: names have at most 255 characters.
fn after_names(prefix: &str) -> String {
    let mut last = prefix.to_string();
    last.extend(std::iter::repeat_n(char::MAX, 256));
    last
}

fn candidate(mut row: Row) -> Result<Candidate, StoreError> {
    Ok(Candidate {
        id: KeyId(row.uuid(0)?),
        created_at: row.timestamp(1)?,
        name: row.text(2)?,
        external_id: row.optional_text(3)?,
        is_active: row.bool(4)?,
        expires_at: row.optional_timestamp(5)?,
        revoked_at: row.optional_timestamp(6)?,
        owner_is_deleted: row.optional_timestamp(7)?.is_some(),
    })
}

impl<D: Driver> SqlStore<D> {
    /// [`crate::keys::store::KeyStore::page_of_keys`]
    pub(super) fn read_page(
        &self,
        filter: &KeyFilter,
        after: Option<KeyId>,
        limit: usize,
        since: Timestamp,
        now: Timestamp,
    ) -> Result<Option<KeyPage>, StoreError> {
        let place = match after {
            None => Place::beginning(filter),
            Some(id) => match self.place_of(filter, id)? {
                Some(place) => place,
                None => return Ok(None),
            },
        };
        let (ids, next) = self.search(filter, place, limit, now)?;
        let mut keys = self.counted(ids.iter().map(|id| Value::Uuid(id.0)).collect(), since)?;
        let places: HashMap<KeyId, usize> = ids.iter().enumerate().map(|(place, id)| (*id, place)).collect();
        keys.sort_unstable_by_key(|(key, _)| places.get(&key.id).copied());
        Ok(Some(KeyPage { keys, next }))
    }

    /// Up to `limit` keys of the list after a place, and the key after which it may go on.
    fn search(
        &self,
        filter: &KeyFilter,
        mut place: Place,
        limit: usize,
        now: Timestamp,
    ) -> Result<(Vec<KeyId>, Option<KeyId>), StoreError> {
        let mut found = Vec::with_capacity(limit);
        let mut looked_at = 0;
        // One more than asked for shows whether the list goes on. Usually all are in it.
        let mut step = limit + 1;
        loop {
            let (sql, parameters) = candidates_after(filter, &place, step);
            let rows = self.driver.query(sql, &parameters)?;
            let is_end = rows.len() < step;
            looked_at += rows.len();
            for row in rows {
                let key = candidate(row)?;
                if filter.takes(&key, now) {
                    if found.len() == limit {
                        let last = found.last().copied();
                        return Ok((found, last));
                    }
                    found.push(key.id);
                }
                place = Place { created_at: key.created_at, name: key.name, id: key.id.0 };
            }
            if is_end {
                return Ok((found, None));
            }
            if looked_at >= LOOKED_AT {
                return Ok((found, Some(KeyId(place.id))));
            }
            step = (step * 4).min(LOOKED_AT - looked_at);
        }
    }

    /// The place of a key. `None`: it is no key of the owner's, or its name is none of the list's.
    fn place_of(&self, filter: &KeyFilter, id: KeyId) -> Result<Option<Place>, StoreError> {
        let rows = self.driver.query(
            "SELECT created_at, name FROM api_keys WHERE id = $1 AND (user_id = $2 OR $2 IS NULL)",
            &[Value::Uuid(id.0), Value::or_null(filter.owner, |owner| Value::Uuid(owner.0))],
        )?;
        let Some(mut row) = first(rows) else { return Ok(None) };
        let place = Place { created_at: row.timestamp(0)?, name: row.text(1)?, id: id.0 };
        Ok(Some(place).filter(|place| order_by_name(filter).is_none_or(|prefix| place.name.starts_with(prefix))))
    }
}
