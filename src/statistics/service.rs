//! Gathering the figures, and telling them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::base::clock::{Clock, Timestamp};
use crate::base::error::Error;
use crate::base::period::{DAY, HOUR, Period};
use crate::base::sharded::lock;
use crate::statistics::figures::{Activity, Inventory};
use crate::statistics::store::StatisticsStore;

/// Keys that expire within this time expire soon.
const SOON: Duration = Duration::from_secs(7 * DAY.as_secs());

/// Counting reads everything there is, so a count is told again for this long, however many ask.
const REMEMBERED: Duration = Duration::from_secs(60);

/// At most this many hours of logins wait to be written.
const KEPT: usize = 1000;

pub struct Statistics {
    store: Arc<dyn StatisticsStore>,
    /// The last count. Its lock is held while somebody counts, so that one does so at a time.
    counted: Mutex<Option<(Timestamp, Inventory)>>,
    /// Logins that are not written yet, by the hour.
    logins: Mutex<BTreeMap<Timestamp, u64>>,
    /// How long figures of hours are kept.
    retention: Duration,
    clock: Clock,
}

impl Statistics {
    pub(crate) fn new(store: Arc<dyn StatisticsStore>, retention: Duration, clock: Clock) -> Statistics {
        Statistics { store, counted: Mutex::default(), logins: Mutex::default(), retention, clock }
    }

    /// Counts a successful login; [`Statistics::flush`] writes it.
    pub(crate) fn note_login(&self) {
        self.add(self.clock.now().start_of(HOUR), 1);
    }

    fn add(&self, hour: Timestamp, count: u64) {
        let mut logins = lock(&self.logins);
        if logins.len() < KEPT || logins.contains_key(&hour) {
            let known = logins.entry(hour).or_default();
            *known = known.saturating_add(count);
        }
    }

    /// Writes the counted logins. If that fails, they are kept for the next time.
    pub fn flush(&self) -> Result<(), Error> {
        let taken = std::mem::take(&mut *lock(&self.logins));
        if taken.is_empty() {
            return Ok(());
        }
        let logins: Vec<(Timestamp, u64)> = taken.into_iter().collect();
        let outcome = self.store.record_logins(&logins);
        if outcome.is_err() {
            logins.into_iter().for_each(|(hour, count)| self.add(hour, count));
        }
        Ok(outcome?)
    }

    /// What there is, and when it was counted: now, or up to a minute ago.
    pub fn inventory(&self) -> Result<(Timestamp, Inventory), Error> {
        let mut counted = lock(&self.counted);
        let now = self.clock.now();
        match *counted {
            Some((at, inventory)) if at <= now && now < at.plus(REMEMBERED) => Ok((at, inventory)),
            _ => {
                let inventory = self.store.inventory(now, now.plus(SOON))?;
                *counted = Some((now, inventory));
                Ok((now, inventory))
            }
        }
    }

    /// What everyone did in each step of the period, in order, without gaps. What happened in the last second may be
    /// missing.
    pub fn activity(&self, period: &Period) -> Result<Vec<Activity>, Error> {
        let mut series = period.points(Activity::none);
        for hour in self.store.activity(period.start(), period.to)? {
            if let Some(point) = period.point_of(&mut series, hour.start) {
                point.add(&hour);
            }
        }
        Ok(series)
    }

    /// Deletes a part of the figures that are older than the retention. False: there were none.
    pub fn prune(&self) -> Result<bool, Error> {
        Ok(self.store.prune_activity(self.clock.now().minus(self.retention))?)
    }
}
