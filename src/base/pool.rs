//! A bounded pool of threads with a bounded queue: what is too much is refused at once, never piled up, and whoever asks
//! for too much waits behind themselves.
//!
//! Owners with waiting jobs take turns. An owner may have as many threads at work as are free then, and as many jobs
//! waiting as places are (dynamic thresholds, Choudhury and Hahne 1998): alone half of all, and less as others come.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::base::id::UserId;

pub type Job = Box<dyn FnOnce() + Send>;

/// Who has a share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Owner {
    /// By whatever credential.
    User(UserId),
    /// Nobody known, from this client_network.
    Client(IpAddr),
}

/// There is no place for the job in the queue, or none for its owner, or the pool is closing; it was not taken.
#[derive(Debug)]
pub struct Full;

/// When it is dropped its threads finish what is queued and end; nobody waits for them, as one may hang in a store
/// that is away.
pub struct Pool {
    queue: Arc<Queue>,
}

struct Queue {
    state: Mutex<State>,
    arrived: Condvar,
    capacity: usize,
    threads: usize,
}

/// Jobs of `None` have no share to keep to.
#[derive(Default)]
struct State {
    waiting: HashMap<Option<Owner>, VecDeque<Job>>,
    /// Those who wait, by whose turn it is.
    turns: VecDeque<Option<Owner>>,
    /// All that wait.
    jobs: usize,
    /// Whose jobs threads are at, and how many.
    at_work: HashMap<Option<Owner>, usize>,
    busy: usize,
    /// Threads that sleep. To wake one is a system call, also when there is none.
    idle: usize,
    closing: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Jobs run outside the lock: a panic cannot have left the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut state = self.lock();
        loop {
            let Some((owner, job)) = self.next(&mut state) else {
                if state.closing {
                    return;
                }
                state.idle += 1;
                state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
                continue;
            };
            // Whoever has finished before may have left room for more than one.
            let wake = state.idle > 0 && self.turn(&state).is_some();
            drop(state);
            if wake {
                self.arrived.notify_one();
            }
            // The panic hook has logged it; whoever waits for the job sees that its answer was dropped.
            let _ = catch_unwind(AssertUnwindSafe(job));
            state = self.lock();
            state.finish(owner);
        }
    }

    /// The place in `turns` of the first who may have another job done.
    fn turn(&self, state: &State) -> Option<usize> {
        let free = self.threads - state.busy;
        let may = |owner: &Option<Owner>| owner.is_none() || state.at_work.get(owner).is_none_or(|own| *own < free);
        // Those who may not are at work: there are no more of them than threads.
        state.turns.iter().position(|owner| state.closing || may(owner))
    }

    fn next(&self, state: &mut State) -> Option<(Option<Owner>, Job)> {
        let owner = state.turns.remove(self.turn(state)?)?;
        let own = state.waiting.get_mut(&owner)?;
        let job = own.pop_front()?;
        if own.is_empty() {
            state.waiting.remove(&owner);
        } else {
            state.turns.push_back(owner);
        }
        state.jobs -= 1;
        state.busy += 1;
        *state.at_work.entry(owner).or_default() += 1;
        Some((owner, job))
    }
}

impl State {
    fn finish(&mut self, owner: Option<Owner>) {
        self.busy -= 1;
        if let Some(own) = self.at_work.get_mut(&owner) {
            *own -= 1;
            if *own == 0 {
                self.at_work.remove(&owner);
            }
        }
    }
}

impl Pool {
    /// `capacity`: how many jobs may wait beside those that run.
    pub fn new(name: &str, threads: usize, capacity: usize) -> Pool {
        Pool::start(name, threads, capacity, || {})
    }

    /// A pool whose threads yield the processor to all others.
    pub fn yielding(name: &str, threads: usize, capacity: usize) -> Pool {
        Pool::start(name, threads, capacity, || {
            // On Linux the priority is the thread's own. Where it cannot be lowered, the work is done all the same.
            if cfg!(target_os = "linux") {
                let _ = rustix::process::setpriority_process(None, 5);
            }
        })
    }

    fn start(name: &str, threads: usize, capacity: usize, prepare: fn()) -> Pool {
        let state = Mutex::new(State::default());
        let queue = Arc::new(Queue { state, arrived: Condvar::new(), capacity, threads });
        for number in 0..threads {
            let queue = queue.clone();
            std::thread::Builder::new()
                .name(format!("{name}-{number}"))
                .spawn(move || {
                    prepare();
                    queue.work();
                })
                .expect("a thread can be started");
        }
        Pool { queue }
    }

    /// `owner`: who is to wait if it is too much; `None`: somebody who was let in by shares already.
    pub fn submit(&self, owner: Option<Owner>, job: Job) -> Result<(), Full> {
        let Queue { arrived, capacity, .. } = &*self.queue;
        let mut state = self.queue.lock();
        let free = capacity - state.jobs;
        let own = state.waiting.get(&owner).map_or(0, VecDeque::len);
        if state.closing || free == 0 || (owner.is_some() && own >= free) {
            return Err(Full);
        }
        state.waiting.entry(owner).or_default().push_back(job);
        if own == 0 {
            state.turns.push_back(owner);
        }
        state.jobs += 1;
        let wake = state.idle > 0 && self.queue.turn(&state).is_some();
        drop(state);
        if wake {
            arrived.notify_one();
        }
        Ok(())
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.queue.lock().closing = true;
        self.queue.arrived.notify_all();
    }
}

/// How many threads can run at once on this machine.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn user() -> Option<Owner> {
        Some(Owner::User(UserId::new()))
    }

    /// Jobs that say that they have begun, and end when they are told to.
    struct Jobs {
        begun: (mpsc::Sender<&'static str>, mpsc::Receiver<&'static str>),
        release: Arc<(Mutex<bool>, Condvar)>,
    }

    impl Jobs {
        fn new() -> Jobs {
            Jobs { begun: mpsc::channel(), release: Arc::default() }
        }

        fn one(&self, name: &'static str) -> Job {
            let (begun, release) = (self.begun.0.clone(), self.release.clone());
            Box::new(move || {
                begun.send(name).unwrap();
                let released = release.0.lock().unwrap();
                drop(release.1.wait_while(released, |released| !*released).unwrap());
            })
        }

        fn begin(&self, count: usize) -> Vec<&'static str> {
            (0..count).map(|_| self.begun.1.recv().unwrap()).collect()
        }

        fn release(&self) {
            *self.release.0.lock().unwrap() = true;
            self.release.1.notify_all();
        }
    }

    #[test]
    fn one_whose_jobs_hang_has_half_of_the_threads_and_of_the_places_and_others_go_on() {
        let pool = Pool::new("test", 4, 8);
        let (ann, bob, eve) = (user(), user(), user());
        let jobs = Jobs::new();
        // Two are at work, four wait.
        for _ in 0..2 {
            pool.submit(ann, jobs.one("ann")).unwrap();
            assert_eq!(jobs.begin(1), ["ann"]);
        }
        for taken in [true, true, true, true, false, false] {
            assert_eq!(pool.submit(ann, jobs.one("ann")).is_ok(), taken);
        }
        pool.submit(bob, jobs.one("bob")).unwrap();
        assert_eq!(jobs.begin(1), ["bob"]);
        // Of the last thread, everyone has the same.
        pool.submit(bob, jobs.one("bob")).unwrap();
        pool.submit(eve, jobs.one("eve")).unwrap();
        assert_eq!(jobs.begin(1), ["eve"]);
        jobs.release();
        let mut rest = jobs.begin(5);
        rest.sort_unstable();
        assert_eq!(rest, ["ann", "ann", "ann", "ann", "bob"]);
    }

    #[test]
    fn owners_take_turns() {
        let pool = Pool::new("test", 1, 20);
        let jobs = Jobs::new();
        pool.submit(user(), jobs.one("first")).unwrap();
        assert_eq!(jobs.begin(1), ["first"]);
        for (owner, name, count) in [(user(), "ann", 3), (user(), "bob", 2), (user(), "eve", 1)] {
            (0..count).for_each(|_| pool.submit(owner, jobs.one(name)).unwrap());
        }
        jobs.release();
        assert_eq!(jobs.begin(6), ["ann", "bob", "eve", "ann", "bob", "ann"]);
    }

    #[test]
    fn a_full_queue_refuses_and_a_panicking_job_costs_no_thread() {
        let pool = Pool::new("test", 1, 1);
        let (started, has_started) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        pool.submit(
            None,
            Box::new(move || {
                started.send(()).unwrap();
                released.recv().unwrap();
                panic!("on purpose");
            }),
        )
        .unwrap();
        has_started.recv().unwrap();
        let (ran, has_run) = mpsc::channel();
        pool.submit(None, Box::new(move || ran.send(()).unwrap())).unwrap();
        assert!(pool.submit(None, Box::new(|| {})).is_err());
        release.send(()).unwrap();
        has_run.recv().unwrap();
    }
}
