//! Series: what happened in a period, in steps of an hour or a day.

use std::time::Duration;

use crate::base::clock::Timestamp;

pub const HOUR: Duration = Duration::from_secs(60 * 60);
pub const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A period of time that is shown in steps of an hour or a day.
#[derive(Clone, Copy, Debug)]
pub struct Period {
    pub from: Timestamp,
    pub to: Timestamp,
    pub step: Duration,
}

impl Period {
    /// The start of the first step.
    pub(crate) fn start(&self) -> Timestamp {
        self.from.start_of(self.step)
    }

    /// A point for each step, without gaps.
    pub(crate) fn points<T>(&self, point: impl Fn(Timestamp) -> T) -> Vec<T> {
        let mut points = Vec::new();
        let mut start = self.start();
        while start < self.to {
            points.push(point(start));
            start = start.plus(self.step);
        }
        points
    }

    /// The point to which this hour belongs; `None`: it is outside of the period.
    pub(crate) fn point_of<'a, T>(&self, points: &'a mut [T], hour: Timestamp) -> Option<&'a mut T> {
        if hour < self.start() || hour >= self.to {
            return None;
        }
        let steps = (hour.millis() - self.start().millis()) / self.step.as_millis() as i64;
        usize::try_from(steps).ok().and_then(|index| points.get_mut(index))
    }
}
