//! Figures as medians of rounds, in tables for people.

use std::time::Duration;

use crate::load::Seen;

/// One run of one scenario.
pub struct Measured {
    pub seen: Seen,
    /// What the server used meanwhile.
    pub server_cpu: Duration,
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => values[count / 2],
        count => (values[count / 2 - 1] + values[count / 2]) / 2.0,
    }
}

/// The median, over all rounds, of what `figure` says of the two runs of a round.
pub fn ratio<T>(runs: &[T], base: &[T], figure: impl Fn(&T) -> f64) -> f64 {
    median(runs.iter().zip(base).map(|(run, base)| figure(run) / figure(base)).collect())
}

pub fn milliseconds(runs: &[Measured], percent: f64) -> f64 {
    median(runs.iter().map(|run| run.seen.percentile(percent).as_secs_f64() * 1e3).collect())
}

fn microseconds_each(runs: &[Measured], cpu: impl Fn(&Measured) -> Duration) -> f64 {
    median(runs.iter().map(|run| cpu(run).as_secs_f64() * 1e6 / run.seen.count() as f64).collect())
}

pub fn title(text: &str) {
    println!("\n{text}\n");
}

/// A line for each scenario; ratios are to the first one's.
pub fn table(rows: &[(&str, Vec<Measured>)]) {
    println!(
        "  {:<44} {:>9} {:>6}  {:>7} {:>7} {:>7}  {:>9} {:>9}",
        "", "requests", "ratio", "p50", "p99", "p99.9", "server", "generator"
    );
    println!(
        "  {:<44} {:>9} {:>6}  {:>7} {:>7} {:>7}  {:>9} {:>9}",
        "", "a second", "", "ms", "ms", "ms", "CPU µs", "CPU µs"
    );
    for (name, runs) in rows {
        let base = &rows[0].1;
        println!(
            "  {name:<44} {:>9.0} {:>6.2}  {:>7.2} {:>7.2} {:>7.2}  {:>9.1} {:>9.1}",
            median(runs.iter().map(|run| run.seen.per_second()).collect()),
            ratio(runs, base, |run| run.seen.per_second()),
            milliseconds(runs, 50.0),
            milliseconds(runs, 99.0),
            milliseconds(runs, 99.9),
            microseconds_each(runs, |run| run.server_cpu),
            microseconds_each(runs, |run| run.seen.cpu),
        );
    }
}
