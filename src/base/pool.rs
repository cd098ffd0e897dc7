//! A pool of threads with a bounded queue, shared fairly: a full queue refuses a job at once, and an owner with many
//! jobs delays only their own.
//!
//! Owners with waiting jobs take turns. An owner may run at most as many jobs as there are free threads, and may queue
//! at most as many as there are free places (dynamic thresholds, Choudhury and Hahne 1998). So one owner alone can have
//! half of all, and less when others come.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::base::id::UserId;

pub(crate) type Job = Box<dyn FnOnce() + Send>;

/// For whom a job is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Owner {
    /// A user, whichever credential they used.
    User(UserId),
    /// Somebody without a credential, by their network (see [`crate::base::network::client_network`]).
    Client(IpAddr),
}

/// The job was refused: the queue is full, the owner has used their share, or the pool is closing.
#[derive(Debug)]
pub(crate) struct Full;

/// When it is dropped, its threads finish the queued jobs and end. Dropping does not wait for them: one may hang in a
/// store that does not answer.
pub(crate) struct Pool {
    queue: Arc<Queue>,
}

struct Queue {
    state: Mutex<State>,
    arrived: Condvar,
    capacity: usize,
    threads: usize,
}

/// Jobs of the owner `None` are not limited to a share.
#[derive(Default)]
struct State {
    waiting: HashMap<Option<Owner>, VecDeque<Job>>,
    /// The owners of waiting jobs; the first has the next turn.
    turns: VecDeque<Option<Owner>>,
    /// The number of waiting jobs.
    jobs: usize,
    /// How many jobs of each owner are running.
    at_work: HashMap<Option<Owner>, usize>,
    busy: usize,
    /// Sleeping threads. Waking costs a system call even if none sleeps.
    idle: usize,
    closing: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Jobs run outside the lock, so a panic cannot leave the state half changed.
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
            // A job that finished may have made room for more than one.
            let wake = state.idle > 0 && self.turn(&state).is_some();
            drop(state);
            if wake {
                self.arrived.notify_one();
            }
            // The panic hook has logged it; the caller notices that the answer was dropped.
            let _ = catch_unwind(AssertUnwindSafe(job));
            state = self.lock();
            state.finish(owner);
        }
    }

    /// The position in `turns` of the first owner who may run another job.
    fn turn(&self, state: &State) -> Option<usize> {
        let free = self.threads - state.busy;
        let may = |owner: &Option<Owner>| owner.is_none() || state.at_work.get(owner).is_none_or(|own| *own < free);
        // Each owner that is passed over has a running job, so at most as many are passed over as there are threads.
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
    /// `capacity`: how many jobs may wait.
    pub(crate) fn new(name: &str, threads: usize, capacity: usize) -> Pool {
        Pool::start(name, threads, capacity, || {})
    }

    /// A pool whose threads have a low priority.
    pub(crate) fn yielding(name: &str, threads: usize, capacity: usize) -> Pool {
        Pool::start(name, threads, capacity, || {
            // On Linux each thread has its own priority. If it cannot be lowered, the thread works at the usual one.
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

    /// `None`: the job's owner has passed the shares of another pool already.
    pub(crate) fn submit(&self, owner: Option<Owner>, job: Job) -> Result<(), Full> {
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
