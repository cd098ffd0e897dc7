//! The statements of the figures of the whole installation.

use std::collections::BTreeMap;

use super::SqlStore;
use crate::base::clock::Timestamp;
use crate::base::error::StoreError;
use crate::base::period::HOUR;
use crate::keys::usage::Outcome;
use crate::statistics::figures::{Activity, Inventory};
use crate::statistics::store::StatisticsStore;
use crate::store::driver::{Column, Driver, Row, Transaction, Value, first, unexpected};

/// As a column: hours since the epoch.
pub(crate) fn hour(time: Timestamp) -> Value {
    Value::Int(time.millis().div_euclid(HOUR.as_millis() as i64))
}

/// The start of an hour, from a column.
pub(crate) fn start_of(hour: i64) -> Result<Timestamp, StoreError> {
    hour.checked_mul(HOUR.as_millis() as i64).and_then(Timestamp::from_millis).ok_or_else(|| unexpected(0))
}

/// Of what a figure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Counted {
    Login,
    FailedLogin,
    Use(Outcome),
}

impl Counted {
    fn name(self) -> &'static str {
        match self {
            Counted::Login => "login",
            Counted::FailedLogin => "login_failed",
            Counted::Use(Outcome::Allowed) => "allowed",
            Counted::Use(Outcome::Disabled) => "disabled",
            Counted::Use(Outcome::Expired) => "expired",
            Counted::Use(Outcome::InsufficientScope) => "insufficient_scope",
            Counted::Use(Outcome::RateLimited) => "rate_limited",
            Counted::Use(Outcome::ForbiddenAddress) => "forbidden_address",
        }
    }

    fn of(name: &str) -> Option<Counted> {
        let uses = Outcome::ALL.into_iter().map(Counted::Use);
        [Counted::Login, Counted::FailedLogin].into_iter().chain(uses).find(|counted| counted.name() == name)
    }
}

/// Counts that are to be added, by hour.
pub(crate) type Figures = BTreeMap<(Timestamp, Counted), u64>;

/// Adds to the figures, as the last thing in a transaction: every instance writes the same few rows.
pub(crate) fn add(transaction: &mut dyn Transaction, figures: &Figures) -> Result<(), StoreError> {
    let row = |((at, counted), count): (&(Timestamp, Counted), &u64)| {
        let count = Value::Int(i64::try_from(*count).unwrap_or(i64::MAX));
        vec![hour(*at), Value::Text(counted.name().to_string()), count]
    };
    // All instances write in the same order, so that no two of them deadlock.
    transaction.execute_with_rows(
        "INSERT INTO figures (hour, counted, count) ROWS \
         ON CONFLICT (hour, counted) DO UPDATE SET count = figures.count + excluded.count",
        &[Column::Int, Column::Text, Column::Int],
        &mut figures.iter().filter(|(_, count)| **count > 0).map(row),
    )
}

pub(crate) const COUNT_USERS: &str =
    "SELECT kind, is_active, COUNT(*) FROM users WHERE deleted_at IS NULL GROUP BY kind, is_active";

pub(crate) const COUNT_SESSIONS: &str = "SELECT COUNT(*) FROM sessions \
    JOIN users ON users.id = sessions.user_id AND users.session_epoch = sessions.epoch \
    WHERE sessions.ended_at IS NULL AND sessions.expires_at > $1 AND users.is_active";

pub(crate) const COUNT_KEYS: &str = "SELECT COUNT(*), COALESCE(SUM(CASE WHEN ends_at <= $2 THEN 1 ELSE 0 END), 0) \
    FROM api_keys JOIN users ON users.id = api_keys.user_id \
    WHERE ends_at > $1 AND api_keys.is_active AND users.is_active";

fn count(row: &mut Row, column: usize) -> Result<u64, StoreError> {
    Ok(u64::try_from(row.int(column)?).unwrap_or(0))
}

impl<D: Driver> StatisticsStore for SqlStore<D> {
    fn inventory(&self, now: Timestamp, soon: Timestamp) -> Result<Inventory, StoreError> {
        let mut inventory = Inventory::default();
        for mut row in self.driver.query(COUNT_USERS, &[])? {
            let (kind, is_active, users) = (row.text(0)?, row.bool(1)?, count(&mut row, 2)?);
            match (kind.as_str(), is_active) {
                ("service", _) => inventory.services += users,
                (_, true) => inventory.active_users += users,
                (_, false) => inventory.inactive_users += users,
            }
        }
        if let Some(mut row) = first(self.driver.query(COUNT_SESSIONS, &[Value::Timestamp(now)])?) {
            inventory.sessions = count(&mut row, 0)?;
        }
        let times = [Value::Timestamp(now), Value::Timestamp(soon)];
        if let Some(mut row) = first(self.driver.query(COUNT_KEYS, &times)?) {
            inventory.usable_keys = count(&mut row, 0)?;
            inventory.expiring_keys = count(&mut row, 1)?;
        }
        Ok(inventory)
    }

    fn activity(&self, from: Timestamp, to: Timestamp) -> Result<Vec<Activity>, StoreError> {
        let rows = self.driver.query(
            "SELECT hour, counted, count FROM figures WHERE hour >= $1 AND hour <= $2 ORDER BY hour",
            &[hour(from), hour(to)],
        )?;
        let mut hours: Vec<Activity> = Vec::new();
        for mut row in rows {
            let start = start_of(row.int(0)?)?;
            let (counted, count) = (Counted::of(&row.text(1)?), count(&mut row, 2)?);
            if hours.last().is_none_or(|hour| hour.start != start) {
                hours.push(Activity::none(start));
            }
            let Some(hour) = hours.last_mut() else { continue };
            match counted {
                Some(Counted::Login) => hour.logins = count,
                Some(Counted::FailedLogin) => hour.failed_logins = count,
                Some(Counted::Use(outcome)) => hour.uses.add(outcome, count),
                // Of a later version.
                None => {}
            }
        }
        Ok(hours)
    }

    fn record_logins(&self, logins: &[(Timestamp, u64)]) -> Result<(), StoreError> {
        let figures = logins.iter().map(|(hour, count)| ((*hour, Counted::Login), *count)).collect();
        self.driver.transaction(|transaction| add(transaction, &figures))
    }

    fn prune_activity(&self, before: Timestamp) -> Result<bool, StoreError> {
        self.driver.transaction(|transaction| {
            let rows = transaction.query(
                "SELECT hour, counted FROM figures WHERE hour < $1 ORDER BY hour, counted LIMIT 1000",
                &[hour(before)],
            )?;
            let old = rows.into_iter().map(|mut row| Ok(vec![Value::Int(row.int(0)?), Value::Text(row.text(1)?)]));
            let old = old.collect::<Result<Vec<_>, StoreError>>()?;
            let any = !old.is_empty();
            transaction.execute_with_rows(
                "DELETE FROM figures WHERE (hour, counted) IN (ROWS)",
                &[Column::Int, Column::Text],
                &mut old.into_iter(),
            )?;
            Ok(any)
        })
    }
}
