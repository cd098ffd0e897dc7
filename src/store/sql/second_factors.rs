//! The statements of second factors: setting one up and removing it. What its codes do is in [`super::codes`].

use super::codes::{confirm, find, lock, remove, take};
use super::events::record;
use super::user_rows::locked_user;
use super::{SqlStore, sessions};
use crate::accounts::ending::ended_all;
use crate::accounts::second_factor::codes::{Code, CodeHash};
use crate::accounts::second_factor::decision::StoredFactor;
use crate::accounts::second_factor::shown::{Confirmed, Shown};
use crate::accounts::store::{FactorBegun, FactorEnabled, SecondFactorStore};
use crate::audit::event::{By, Event, Kind};
use crate::base::clock::Timestamp;
use crate::base::data_key::DataKey;
use crate::base::error::StoreError;
use crate::base::id::{SessionId, UserId};
use crate::store::driver::{Driver, Transaction, Value};

fn add_recovery_codes(transaction: &mut dyn Transaction, user: UserId, codes: &[CodeHash]) -> Result<(), StoreError> {
    for code in codes {
        transaction.execute(
            "INSERT INTO recovery_codes (user_id, hash) VALUES ($1, $2)",
            &[Value::Uuid(user.0), Value::Bytes(code.as_bytes().to_vec())],
        )?;
    }
    Ok(())
}

impl<D: Driver> SecondFactorStore for SqlStore<D> {
    fn begin_factor(
        &self,
        user: UserId,
        shown: &Shown<'_>,
        sealed: &[u8],
        now: Timestamp,
    ) -> Result<Confirmed<FactorBegun>, StoreError> {
        self.driver.transaction(|transaction| {
            if !lock(transaction, user, shown)? {
                return Ok(Confirmed::UserChanged);
            }
            if find(transaction, user)?.is_some_and(|found| found.is_enabled) {
                return Ok(Confirmed::Done(FactorBegun::IsOn));
            }
            remove(transaction, user)?;
            let StoredFactor { last_step, wrong, .. } = StoredFactor::NEW;
            transaction.execute(
                "INSERT INTO second_factors (user_id, secret, created_at, last_step, wrong) VALUES ($1, $2, $3, $4, $5)",
                &[
                    Value::Uuid(user.0),
                    Value::Bytes(sealed.to_vec()),
                    Value::Timestamp(now),
                    Value::Int(last_step),
                    Value::Int(wrong),
                ],
            )?;
            Ok(Confirmed::Done(FactorBegun::Done))
        })
    }

    fn enable_factor(
        &self,
        user: UserId,
        session: SessionId,
        code: &Code,
        key: &DataKey,
        recovery_codes: &[CodeHash],
        by: &By,
    ) -> Result<FactorEnabled, StoreError> {
        self.change(
            user.0,
            |enabled| *enabled == FactorEnabled::Done,
            |transaction| {
                if locked_user(transaction, user)?.is_none_or(|user| !user.is_active) {
                    return Ok(FactorEnabled::SessionEnded);
                }
                let Some(found) = find(transaction, user)? else { return Ok(FactorEnabled::NoneBegun) };
                if found.is_enabled {
                    return Ok(FactorEnabled::IsOn);
                }
                if !sessions::has_not_ended(transaction, session, user)? {
                    return Ok(FactorEnabled::SessionEnded);
                }
                let now = transaction.now(&self.clock)?;
                if let Some(fault) = take(transaction, user, &found, code, key, by, now)? {
                    return Ok(FactorEnabled::Refused(fault));
                }
                transaction.execute(
                    "UPDATE second_factors SET enabled_at = $2 WHERE user_id = $1",
                    &[Value::Uuid(user.0), Value::Timestamp(now)],
                )?;
                add_recovery_codes(transaction, user, recovery_codes)?;
                let ended = sessions::end_all(transaction, user, Some(session), now)?.unwrap_or_default().count;
                record(transaction, &ended_all(Kind::TotpEnabled, ended, user, by, now))?;
                Ok(FactorEnabled::Done)
            },
        )
    }

    fn disable_factor(&self, user: UserId, shown: &Shown<'_>, by: &By) -> Result<Confirmed<bool>, StoreError> {
        self.driver.transaction(|transaction| {
            match confirm(transaction, user, shown, by, &self.clock)? {
                Confirmed::Done(()) => {}
                Confirmed::UserChanged => return Ok(Confirmed::UserChanged),
                Confirmed::Refused(fault) => return Ok(Confirmed::Refused(fault)),
            }
            if find(transaction, user)?.is_none_or(|found| !found.is_enabled) {
                return Ok(Confirmed::Done(false));
            }
            remove(transaction, user)?;
            record(transaction, &Event::new(Kind::TotpDisabled, user, by, self.clock.now()))?;
            Ok(Confirmed::Done(true))
        })
    }

    fn remove_factor(&self, user: UserId, by: &By, now: Timestamp) -> Result<Option<bool>, StoreError> {
        self.driver.transaction(|transaction| {
            if locked_user(transaction, user)?.is_none() {
                return Ok(None);
            }
            let is_on = find(transaction, user)?.is_some_and(|found| found.is_enabled);
            remove(transaction, user)?;
            if is_on {
                record(transaction, &Event::new(Kind::TotpDisabled, user, by, now))?;
            }
            Ok(Some(is_on))
        })
    }
}
