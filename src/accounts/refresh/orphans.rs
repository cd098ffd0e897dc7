//! Orphans: generations of a session whose tokens are refused, though the session has been at them.

/// How many ranges of orphans are kept.
const RANGES: usize = 8;

/// Generations whose answer the client never received. Nobody holds their tokens, or a thief does, so they are refused.
///
/// They are kept as a few ranges for as long as the session lives. If there are more, the two oldest ranges are joined
/// together with the generations between them, whose tokens were left many moves ago.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Orphans(Box<[(i64, i64)]>);

impl Orphans {
    /// From ranges with their first and last generations, in ascending order.
    pub(crate) fn from_stored(ranges: Vec<(i64, i64)>) -> Orphans {
        Orphans(ranges.into())
    }

    pub(crate) fn ranges(&self) -> &[(i64, i64)] {
        &self.0
    }

    pub(crate) fn contains(&self, generation: i64) -> bool {
        self.0.iter().any(|(first, last)| (*first..=*last).contains(&generation))
    }

    /// Adds a generation that is newer than all of them.
    pub(crate) fn with(&self, generation: i64) -> Orphans {
        let mut ranges = self.0.to_vec();
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == generation => *last = generation,
            _ => ranges.push((generation, generation)),
        }
        if ranges.len() > RANGES {
            let (first, _) = ranges.remove(0);
            ranges[0].0 = first;
        }
        Orphans(ranges.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn orphans(generations: impl IntoIterator<Item = i64>) -> Orphans {
        generations.into_iter().fold(Orphans::default(), |orphans, generation| orphans.with(generation))
    }

    #[test]
    fn neighbours_are_one_range() {
        let orphans = orphans([2, 3, 4, 7, 8, 10]);
        assert_eq!(orphans.ranges(), [(2, 4), (7, 8), (10, 10)]);
        let contained: Vec<i64> = (0..12).filter(|generation| orphans.contains(*generation)).collect();
        assert_eq!(contained, [2, 3, 4, 7, 8, 10]);
    }

    #[test]
    fn of_many_ranges_the_oldest_are_joined_and_the_latest_stay_apart() {
        let orphans = orphans((1..=20).map(|number| 2 * number));
        assert_eq!(orphans.ranges().len(), RANGES);
        let ranges = orphans.ranges();
        assert_eq!((ranges[0], ranges[1], ranges[7]), ((2, 26), (28, 28), (40, 40)));
    }
}
