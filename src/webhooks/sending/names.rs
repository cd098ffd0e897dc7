//! Resolves names, by the system's resolver, which blocks and takes as long as it likes.
//!
//! So it is called on a bounded number of threads, and who asks waits no longer than they want to. A name that is being
//! resolved is not asked for a second time: one that hangs costs one thread, however often it is wanted.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use crate::base::pool::Pool;
use crate::base::sharded::lock;

/// How many names are resolved at once.
const THREADS: usize = 16;
/// How many names may wait for a thread.
const WAITING: usize = 256;

/// Asks the system, or in tests somebody else.
pub(super) type Lookup = dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync;

pub(super) struct Names {
    lookup: Arc<Lookup>,
    /// Started when the first name is wanted: addresses need none.
    pool: OnceLock<Pool>,
    under_way: Arc<Mutex<HashMap<String, Arc<Answer>>>>,
}

/// What was found, once it is there.
#[derive(Default)]
struct Answer {
    found: Mutex<Found>,
    is_there: Condvar,
}

#[derive(Default)]
struct Found {
    addresses: Option<Result<Vec<IpAddr>, Unresolved>>,
    /// Until when somebody waits for it.
    wanted_until: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unresolved {
    /// The name does not exist, or the resolver has no answer.
    Unknown,
    TimedOut,
    /// Too many names are waiting.
    Busy,
}

impl Names {
    pub(super) fn of_the_system() -> Names {
        Names::by(Arc::new(|name| Ok((name, 0).to_socket_addrs()?.map(|address| address.ip()).collect())))
    }

    pub(super) fn by(lookup: Arc<Lookup>) -> Names {
        Names { lookup, pool: OnceLock::new(), under_way: Arc::default() }
    }

    /// All addresses of a name, in the order of the resolver.
    pub(super) fn resolve(&self, name: &str, until: Instant) -> Result<Vec<IpAddr>, Unresolved> {
        let (answer, is_new) = {
            let mut under_way = lock(&self.under_way);
            let is_new = !under_way.contains_key(name);
            let answer = under_way.entry(name.to_string()).or_default().clone();
            let mut found = lock(&answer.found);
            found.wanted_until = found.wanted_until.max(Some(until));
            drop(found);
            (answer, is_new)
        };
        if is_new {
            let under_way = self.under_way.clone();
            let end =
                End { name: name.to_string(), addresses: Err(Unresolved::Busy), answer: answer.clone(), under_way };
            let lookup = self.lookup.clone();
            let pool = self.pool.get_or_init(|| Pool::new("names", THREADS, WAITING));
            // A job that was refused is dropped here, and that ends it for all who wait.
            if pool.submit(None, Box::new(move || end.find(&*lookup))).is_err() {
                return Err(Unresolved::Busy);
            }
        }
        let mut found = lock(&answer.found);
        loop {
            if let Some(addresses) = &found.addresses {
                return addresses.clone();
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Unresolved::TimedOut);
            }
            found = answer.is_there.wait_timeout(found, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Ends the resolving of a name when it is dropped, also by a panic.
struct End {
    name: String,
    addresses: Result<Vec<IpAddr>, Unresolved>,
    answer: Arc<Answer>,
    under_way: Arc<Mutex<HashMap<String, Arc<Answer>>>>,
}

impl End {
    fn find(mut self, lookup: &Lookup) {
        if !self.is_wanted() {
            return;
        }
        self.addresses = match lookup(&self.name) {
            Ok(addresses) if !addresses.is_empty() => Ok(addresses),
            _ => Err(Unresolved::Unknown),
        };
    }

    /// False: the threads were busy until nobody waited for it any more, and nobody can begin to.
    fn is_wanted(&self) -> bool {
        let mut under_way = lock(&self.under_way);
        let is_wanted = lock(&self.answer.found).wanted_until >= Some(Instant::now());
        if !is_wanted {
            under_way.remove(&self.name);
        }
        is_wanted
    }
}

impl Drop for End {
    fn drop(&mut self) {
        // Who asks after this answer asks anew.
        let mut under_way = lock(&self.under_way);
        if under_way.get(&self.name).is_some_and(|answer| Arc::ptr_eq(answer, &self.answer)) {
            under_way.remove(&self.name);
        }
        lock(&self.answer.found).addresses = Some(std::mem::replace(&mut self.addresses, Err(Unresolved::Busy)));
        self.answer.is_there.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::*;

    const HERE: [IpAddr; 1] = [IpAddr::V4(std::net::Ipv4Addr::LOCALHOST)];

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    /// Names that begin with `slow` hang until the sender is dropped.
    fn hanging() -> (Names, Arc<AtomicUsize>, mpsc::Sender<()>) {
        let (release, released) = mpsc::channel();
        let (released, asked) = (Mutex::new(released), Arc::new(AtomicUsize::new(0)));
        let count = asked.clone();
        let lookup = move |name: &str| {
            count.fetch_add(1, Ordering::SeqCst);
            if name.starts_with("slow") {
                let _: Result<(), _> = lock(&released).recv();
            }
            if name == "unknown" { Err(io::ErrorKind::NotFound.into()) } else { Ok(HERE.to_vec()) }
        };
        (Names::by(Arc::new(lookup)), asked, release)
    }

    fn wait_for(condition: impl Fn() -> bool) {
        while !condition() {
            thread::yield_now();
        }
    }

    #[test]
    fn a_name_that_hangs_holds_up_no_other_and_is_asked_for_once() {
        let (names, asked, release) = hanging();
        thread::scope(|scope| {
            let first = scope.spawn(|| names.resolve("slow", soon()));
            wait_for(|| asked.load(Ordering::SeqCst) == 1);
            for _ in 0..100 {
                assert_eq!(names.resolve("slow", Instant::now()), Err(Unresolved::TimedOut));
            }
            assert_eq!(names.resolve("a", soon()), Ok(HERE.to_vec()));
            assert_eq!(names.resolve("unknown", soon()), Err(Unresolved::Unknown));
            assert_eq!(asked.load(Ordering::SeqCst), 3);
            drop(release);
            assert_eq!(first.join().unwrap(), Ok(HERE.to_vec()));
        });
    }

    #[test]
    fn many_that_hang_are_bounded_and_those_that_nobody_waits_for_are_passed_over() {
        let (names, asked, release) = hanging();
        let names = &names;
        thread::scope(|scope| {
            for number in 0..THREADS {
                scope.spawn(move || names.resolve(&format!("slow{number}"), soon()));
            }
            wait_for(|| asked.load(Ordering::SeqCst) == THREADS);
            for number in 0..WAITING {
                assert_eq!(names.resolve(&format!("late{number}"), Instant::now()), Err(Unresolved::TimedOut));
            }
            assert_eq!(names.resolve("a", soon()), Err(Unresolved::Busy));
            drop(release);
            wait_for(|| lock(&names.under_way).is_empty());
            assert_eq!(names.resolve("a", soon()), Ok(HERE.to_vec()));
            assert_eq!(asked.load(Ordering::SeqCst), THREADS + 1);
        });
    }

    #[test]
    fn a_name_is_asked_for_anew_each_time() {
        let (names, asked, _release) = hanging();
        for _ in 0..3 {
            assert_eq!(names.resolve("a", soon()), Ok(HERE.to_vec()));
        }
        assert_eq!(asked.load(Ordering::SeqCst), 3);
    }
}
