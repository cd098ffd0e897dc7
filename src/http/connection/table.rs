//! The table of connections: how many there are, how many of them one address has, which one ends for a newcomer, and
//! which ends when too much memory is held for all.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::base::network::client_network;
use crate::base::sharded::lock;
use crate::http::client_address::Proxies;
use crate::http::client_memory::{ClientMemory, MemoryAccount};
use crate::http::connection::state::ConnectionState;
use crate::http::limits::Limits;

/// A connection takes a slot when it is accepted and gives it back when it ends.
pub(crate) struct ConnectionTable {
    most: u32,
    /// How many slots one address may have; trusted proxies may have any number.
    share: usize,
    proxies: Proxies,
    free: Arc<Semaphore>,
    entries: Mutex<Entries>,
    account: Arc<MemoryAccount>,
}

/// A connection's slot; given back when this is dropped.
pub(crate) struct Slot {
    pub entry: Arc<ConnectionEntry>,
    /// The address whose share it counts against. `None`: a trusted proxy.
    address: Option<IpAddr>,
    number: usize,
    table: Arc<ConnectionTable>,
    _permit: OwnedSemaphorePermit,
}

/// What the table knows of a connection.
pub(crate) struct ConnectionEntry {
    pub state: ConnectionState,
    pub memory: Arc<ClientMemory>,
}

/// How many connections are searched for an idle one before a newcomer is refused: enough to find one that has been
/// idle for long, and few enough that clients who connect again and again do not keep the server busy.
const LOOKED_AT: usize = 256;
/// How soon to search again if no connection was idle, and how long an idle one may take to end.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
const GOES_WITHIN: Duration = Duration::from_secs(1);

/// Connections by number. Numbers are reused.
#[derive(Default)]
struct Entries {
    all: Vec<Option<Arc<ConnectionEntry>>>,
    vacant: Vec<usize>,
    by_address: HashMap<IpAddr, Vec<usize>>,
    /// Where the next search begins.
    next: usize,
}

impl ConnectionTable {
    /// `share`: how many one address may have; by default a quarter.
    pub(crate) fn new(most: u32, share: Option<usize>, proxies: Proxies) -> ConnectionTable {
        ConnectionTable {
            most,
            share: share.unwrap_or((most as usize).div_ceil(4)),
            proxies,
            free: Arc::new(Semaphore::new(most as usize)),
            entries: Mutex::default(),
            account: MemoryAccount::open(),
        }
    }

    /// Waits for a slot for a connection from this address. `None`: the address has used its share, and none of its
    /// connections that were searched is idle.
    pub(crate) async fn take(self: &Arc<ConnectionTable>, peer: IpAddr, limits: &Limits) -> Option<Slot> {
        let peer = peer.to_canonical();
        let address = (!self.proxies.trusts(peer)).then(|| client_network(peer));
        if let Some(address) = &address
            && !lock(&self.entries).make_room_in(address, self.share)
        {
            return None;
        }
        let permit = loop {
            if let Ok(permit) = self.free.clone().try_acquire_owned() {
                break permit;
            }
            let one_goes = lock(&self.entries).dismiss_an_idle_one();
            let patience = if one_goes { GOES_WITHIN } else { LOOK_AGAIN };
            match tokio::time::timeout(patience, self.free.clone().acquire_owned()).await {
                Ok(permit) => break permit.ok()?,
                Err(_) => continue,
            }
        };
        let entry = Arc::new(ConnectionEntry {
            state: ConnectionState::new(limits),
            memory: ClientMemory::new(self.account.clone()),
        });
        let number = lock(&self.entries).enter(address, entry.clone());
        Some(Slot { entry, address, number, table: self.clone(), _permit: permit })
    }

    /// Cuts connections while more memory is held for all than allowed: those with the oldest claims first.
    pub(crate) async fn keep_the_account(&self) {
        loop {
            self.account.overdrawn.notified().await;
            lock(&self.entries).cut_the_oldest(self.account.excess());
            // Gives them time to end.
            tokio::time::sleep(LOOK_AGAIN / 10).await;
        }
    }

    /// Returns when all slots are free.
    pub(crate) async fn all_free(&self) {
        let _ = self.free.acquire_many(self.most).await;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        lock(&self.table.entries).leave(self.address, self.number);
    }
}

impl Entries {
    fn enter(&mut self, address: Option<IpAddr>, entry: Arc<ConnectionEntry>) -> usize {
        let number = self.vacant.pop().unwrap_or(self.all.len());
        if number == self.all.len() {
            self.all.push(None);
        }
        self.all[number] = Some(entry);
        if let Some(address) = address {
            self.by_address.entry(address).or_default().push(number);
        }
        number
    }

    fn leave(&mut self, address: Option<IpAddr>, number: usize) {
        self.all[number] = None;
        self.vacant.push(number);
        if let Some(address) = address {
            self.leave_address(&address, number);
        }
    }

    fn leave_address(&mut self, address: &IpAddr, number: usize) {
        let Some(numbers) = self.by_address.get_mut(address) else { return };
        numbers.retain(|other| *other != number);
        if numbers.is_empty() {
            self.by_address.remove(address);
        }
    }

    /// Whether the address has room in its share, if necessary by ending one of its idle connections.
    fn make_room_in(&mut self, address: &IpAddr, share: usize) -> bool {
        let Some(numbers) = self.by_address.get(address).filter(|numbers| numbers.len() >= share) else { return true };
        let start = self.next % numbers.len();
        let looked_at = numbers[start..].iter().chain(&numbers[..start]).copied().take(LOOKED_AT);
        self.next = self.next.wrapping_add(LOOKED_AT);
        let Some(number) = self.longest_idle(looked_at) else { return false };
        self.dismiss(number);
        // It ends within moments. Until then it has a slot, but does not count against the address.
        self.leave_address(address, number);
        true
    }

    /// Whether there was one.
    fn dismiss_an_idle_one(&mut self) -> bool {
        let count = self.all.len();
        let start = self.next % count.max(1);
        self.next = self.next.wrapping_add(LOOKED_AT);
        // The first group in which there is one.
        for part in (0..count).step_by(LOOKED_AT) {
            let numbers = (part..count.min(part + LOOKED_AT)).map(|number| (start + number) % count);
            if let Some(number) = self.longest_idle(numbers) {
                self.dismiss(number);
                return true;
            }
        }
        false
    }

    fn cut_the_oldest(&self, excess: usize) {
        let mut worth: Vec<_> =
            self.all.iter().flatten().filter_map(|entry| entry.memory.worth().map(|worth| (worth, entry))).collect();
        worth.sort_unstable_by_key(|((oldest, _), _)| *oldest);
        let mut gained = 0;
        for ((_, bytes), entry) in worth {
            if gained >= excess {
                return;
            }
            gained += bytes;
            entry.state.cut();
        }
    }

    fn longest_idle(&self, numbers: impl Iterator<Item = usize>) -> Option<usize> {
        let idle = numbers.filter_map(|number| Some((self.all[number].as_ref()?.state.idle_until()?, number)));
        idle.min().map(|(_, number)| number)
    }

    fn dismiss(&self, number: usize) {
        if let Some(entry) = &self.all[number] {
            entry.state.dismiss();
        }
    }
}
