//! The threads that deliver: one looks for what is due whenever something is committed, becomes due or is done, and starts
//! one for each endpoint whose turn it is, as far as there are slots.
//!
//! A turn belongs to one instance, for a limited time that each recorded try extends. So an endpoint gets one delivery at a
//! time, and what an instance had that is dead goes to another. A try is recorded after it was made: if an instance dies in
//! between, it is made again.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use log::{info, warn};
use uuid::Uuid;

use crate::base::clock::Clock;
use crate::base::error::StoreError;
use crate::outbox::delivery::Channel;
use crate::outbox::shared::{Shared, Slot};
use crate::outbox::slots::Use;
use crate::outbox::store::{OutboxStore, Then, Turn, Wanted};
use crate::outbox::turns::{deliver_mail, deliver_turn};

/// How deliveries are sent. What has no channel stays in the outbox.
#[derive(Clone, Default)]
pub struct Channels {
    pub webhooks: Option<Arc<dyn Channel>>,
    pub mail: Option<Arc<dyn Channel>>,
}

/// The deliverer of a running server.
pub struct Deliverer {
    shared: Arc<Shared>,
    dispatcher: JoinHandle<()>,
}

/// Something may have been missed: the call of an instance that died, or a turn that ran out.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
const BETWEEN_LOOKS: Duration = Duration::from_millis(10);
/// While the store is away.
const STORE_PAUSE: Duration = Duration::from_secs(1);
/// How soon a clock is seen that a test has advanced.
const TEST_CLOCK: Duration = Duration::from_millis(20);
/// How long tries under way may take when the server stops.
const STOPPING: Duration = Duration::from_secs(5);
/// How many mails are taken at once.
const MAILS: usize = 10;

impl Deliverer {
    /// `at_once`: how many deliveries are made at the same time.
    pub fn start(
        store: Arc<dyn OutboxStore>,
        channels: Channels,
        at_once: usize,
        clock: Clock,
    ) -> Result<Deliverer, String> {
        let shared = Arc::new(Shared::new(store, at_once));
        shared.outlet.serve(true);
        let dispatcher = Dispatcher {
            shared: shared.clone(),
            channels,
            clock,
            holder: Uuid::now_v7(),
            after: [Uuid::nil(); 2],
            is_failing: false,
            called: None,
        };
        let dispatcher = std::thread::Builder::new()
            .name("deliver".to_string())
            .spawn(move || dispatcher.run())
            .map_err(|error| format!("the thread that delivers cannot be started: {error}"))?;
        Ok(Deliverer { shared, dispatcher })
    }

    /// Starts nothing more, and waits for tries under way, though not for long. Mails whose try is given up are due again.
    pub fn stop(self) {
        self.shared.stop();
        self.shared.outlet.serve(false);
        self.shared.outlet.wake();
        let deadline = Instant::now() + STOPPING;
        let is_busy = || !self.dispatcher.is_finished() || self.shared.used() > 0;
        while is_busy() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        let held = self.shared.held();
        if !held.is_empty()
            && let Err(error) = self.shared.store.return_mail(&held)
        {
            warn!("{} mails are sent a minute later: {error}", held.len());
        }
    }
}

/// The thread that looks for what is due.
struct Dispatcher {
    shared: Arc<Shared>,
    channels: Channels,
    clock: Clock,
    holder: Uuid,
    /// After which endpoints it looks: those whose last try timed out, and the others. So they take turns.
    after: [Uuid; 2],
    is_failing: bool,
    /// When it last called other instances.
    called: Option<Instant>,
}

impl Dispatcher {
    fn run(mut self) {
        while !self.shared.is_stopping() {
            let started = Instant::now();
            let looked = catch_unwind(AssertUnwindSafe(|| self.look()));
            let looked = looked.unwrap_or_else(|_| Err(StoreError::Internal("it panicked".to_string())));
            let wait = match looked {
                Ok(wait) => {
                    if self.is_failing {
                        info!("deliveries are looked for again");
                    }
                    self.is_failing = false;
                    wait
                }
                Err(error) => {
                    if !self.is_failing {
                        warn!("cannot look for deliveries, trying again every second: {error}");
                    }
                    self.is_failing = true;
                    STORE_PAUSE
                }
            };
            let took = started.elapsed();
            self.wait(wait);
            // However often it is woken, and however many endpoints there are to look at.
            let rest = (took * 4).clamp(BETWEEN_LOOKS, STORE_PAUSE);
            std::thread::sleep(rest.saturating_sub(started.elapsed()));
        }
    }

    /// Waits to be woken. A clock that a test advances wakes as well.
    fn wait(&self, at_most: Duration) {
        if self.is_failing {
            // Whatever wakes it meanwhile, the store is not asked more often.
            std::thread::sleep(at_most);
            return;
        }
        if self.clock.is_the_systems() {
            self.shared.outlet.wait(at_most);
            return;
        }
        let (end, before) = (Instant::now() + at_most, self.clock.advanced());
        while Instant::now() < end && self.clock.advanced() == before {
            if self.shared.outlet.wait(TEST_CLOCK.min(at_most)) {
                break;
            }
        }
    }

    /// Starts what is due, as far as there are slots. Returns when to look again.
    fn look(&mut self) -> Result<Duration, StoreError> {
        self.start_mail()?;
        let wait = self.start_turns()?;
        if self.shared.free(Use::Endpoint { slow: false }) == 0 {
            self.call_others()?;
        }
        Ok(wait)
    }

    fn start_mail(&self) -> Result<(), StoreError> {
        let Some(channel) = &self.channels.mail else { return Ok(()) };
        while self.shared.free(Use::Mail) > 0 && !self.shared.is_stopping() {
            let mails = self.shared.store.take_mail(MAILS)?;
            if mails.is_empty() {
                break;
            }
            self.shared.hold(&mails);
            let (slot, channel) = (Slot::take(&self.shared, Use::Mail), channel.clone());
            let untouched = mails.clone();
            if !spawn("mail", move || deliver_mail(&slot.shared, &*channel, mails)) {
                self.shared.let_go(&untouched.iter().map(|due| due.place).collect::<Vec<_>>());
                self.shared.store.return_mail(&untouched)?;
                break;
            }
        }
        Ok(())
    }

    fn start_turns(&mut self) -> Result<Duration, StoreError> {
        let most = [false, true].map(|slow| self.shared.free(Use::Endpoint { slow }));
        let wanted: Vec<Wanted> = if self.channels.webhooks.is_none() {
            Vec::new()
        } else {
            let kinds = [false, true].into_iter().zip(most).zip(self.after);
            let kinds = kinds.filter(|((_, most), _)| *most > 0);
            kinds.map(|((is_slow, most), after)| Wanted { after, most, is_slow }).collect()
        };
        let found = self.shared.store.due_endpoints(self.holder, &wanted)?;
        let mut again = false;
        for (wanted, turns) in wanted.iter().zip(found.endpoints) {
            let after = &mut self.after[usize::from(wanted.is_slow)];
            if turns.len() < wanted.most {
                // To the end of the list, so from its beginning now, unless all of it was seen.
                again |= !after.is_nil();
                *after = Uuid::nil();
            } else if let Some(last) = turns.last() {
                *after = last.endpoint;
                again = true;
            }
            for turn in turns {
                self.start_turn(turn)?;
            }
        }
        let are_free = self.shared.free(Use::Endpoint { slow: false }) > 0;
        if again && are_free {
            return Ok(Duration::ZERO);
        }
        Ok(found.next_in.map_or(LOOK_AGAIN, |next| next.min(LOOK_AGAIN)))
    }

    fn start_turn(&self, turn: Turn) -> Result<(), StoreError> {
        let what = Use::Endpoint { slow: turn.is_slow };
        let Some(channel) = &self.channels.webhooks else { return Ok(()) };
        if self.shared.is_stopping() || self.shared.free(what) == 0 || !self.shared.store.take_turn(&turn)? {
            return Ok(());
        }
        let (slot, channel, untouched) = (Slot::take(&self.shared, what), channel.clone(), turn.clone());
        if !spawn("webhook", move || deliver_turn(&slot.shared, &*channel, &turn)) {
            self.shared.store.record_tries(&untouched, &[], Then::End)?;
        }
        Ok(())
    }

    /// Others may have slots. Not more often than once a second.
    fn call_others(&mut self) -> Result<(), StoreError> {
        if self.called.is_none_or(|at| at.elapsed() >= STORE_PAUSE) {
            self.called = Some(Instant::now());
            self.shared.store.call_others()?;
        }
        Ok(())
    }
}

/// False: the system has no thread. Then the next look tries again.
fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> bool {
    let spawned = std::thread::Builder::new().name(name.to_string()).spawn(work);
    if let Err(error) = &spawned {
        warn!("something is delivered later, no thread can be started: {error}");
    }
    spawned.is_ok()
}
