//! A bounded pool of threads with a bounded queue: what is too much is refused at once, never piled up.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

pub type Job = Box<dyn FnOnce() + Send>;

/// The queue is full, or the pool is closing; the job was not taken.
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
}

struct State {
    jobs: VecDeque<Job>,
    /// Threads without a job. To wake one is a system call, also when there is none.
    idle: usize,
    closing: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Jobs run outside the lock: a panic cannot have left the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        loop {
            let job = {
                let mut state = self.lock();
                loop {
                    if let Some(job) = state.jobs.pop_front() {
                        break job;
                    }
                    if state.closing {
                        return;
                    }
                    state.idle += 1;
                    state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
                    state.idle -= 1;
                }
            };
            // The panic hook has logged it; whoever waits for the job sees that its answer was dropped.
            let _ = catch_unwind(AssertUnwindSafe(job));
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
        let state = Mutex::new(State { jobs: VecDeque::new(), idle: 0, closing: false });
        let queue = Arc::new(Queue { state, arrived: Condvar::new(), capacity });
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

    pub fn submit(&self, job: Job) -> Result<(), Full> {
        let mut state = self.queue.lock();
        if state.closing || state.jobs.len() >= self.queue.capacity {
            return Err(Full);
        }
        state.jobs.push_back(job);
        let wake = state.idle > 0;
        drop(state);
        if wake {
            self.queue.arrived.notify_one();
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_full_queue_refuses_and_a_panicking_job_costs_no_thread() {
        let pool = Pool::new("test", 1, 1);
        let (started, has_started) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        pool.submit(Box::new(move || {
            started.send(()).unwrap();
            released.recv().unwrap();
            panic!("on purpose");
        }))
        .unwrap();
        has_started.recv().unwrap();
        let (ran, has_run) = mpsc::channel();
        pool.submit(Box::new(move || ran.send(()).unwrap())).unwrap();
        assert!(pool.submit(Box::new(|| {})).is_err());
        release.send(()).unwrap();
        has_run.recv().unwrap();
    }
}
