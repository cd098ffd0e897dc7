//! A TCP relay between a server and what it depends on, for tests that take the link away.
//!
//! A cut link fails at once, as when the other side is down; a frozen one is silent, as when a cable is
//! pulled or the other side hangs. It also tells how many connections came, and whether certain words did.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread::{self, JoinHandle};

use crate::http_client::PATIENCE;
use crate::service::within;

/// Listens on a port of its own until it is dropped, and carries bytes both ways.
pub struct Relay {
    address: SocketAddr,
    link: Arc<Link>,
    /// The thread that owns the listener; `None` while the link is cut.
    acceptor: Mutex<Option<JoinHandle<()>>>,
}

impl Relay {
    pub fn to(target: SocketAddr) -> Relay {
        Relay::marking(target, None)
    }

    /// Tells the connections on which the client says `words` from the others: [`Relay::freeze_marked`] holds them alone.
    pub fn to_marking(target: SocketAddr, words: &'static str) -> Relay {
        Relay::marking(target, Some(words.as_bytes()))
    }

    fn marking(target: SocketAddr, words: Option<&'static [u8]>) -> Relay {
        let listener = listen();
        let address = listener.local_addr().expect("a listener has an address");
        let link = Arc::new(Link {
            words,
            connections: AtomicUsize::new(0),
            heard: AtomicBool::new(false),
            state: Mutex::new(State { target, generation: 0, frozen: Frozen::Nothing, streams: Vec::new() }),
            changed: Condvar::new(),
        });
        let acceptor = Mutex::new(Some(link.accept_from(listener)));
        Relay { address, link, acceptor }
    }

    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// How many connections were made so far.
    pub fn connections(&self) -> usize {
        self.link.connections.load(Ordering::SeqCst)
    }

    /// Whether a client has said the marking words on any connection.
    pub fn heard_words(&self) -> bool {
        self.link.heard.load(Ordering::SeqCst)
    }

    /// Closes every connection; new ones are refused. Ends a freeze.
    pub fn cut(&self) {
        let acceptor = self.acceptor.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.link.end_generation();
        // A connection wakes the acceptor, which finds its generation over and closes the listener.
        if let Some(acceptor) = acceptor
            && TcpStream::connect(self.address).is_ok()
        {
            let _ = acceptor.join();
        }
    }

    /// Ends a cut: the same address takes connections again.
    pub fn restore(&self) {
        let mut acceptor = self.acceptor.lock().unwrap_or_else(PoisonError::into_inner);
        if acceptor.is_none() {
            // Somebody who tries again and again to connect may hold the port for a moment.
            let mut listener = None;
            within(PATIENCE, "the relay's port is free", || {
                listener = TcpListener::bind(self.address).ok();
                listener.is_some()
            });
            *acceptor = listener.map(|listener| self.link.accept_from(listener));
        }
    }

    /// Closes every connection, and carries new ones to another target.
    pub fn redirect(&self, target: SocketAddr) {
        self.cut();
        self.link.state.lock().unwrap().target = target;
        self.restore();
    }

    /// Holds back every byte that arrives from now on, and the end of a stream too. Connections stay open
    /// and new ones are taken, but do not reach the target.
    pub fn freeze(&self) {
        self.link.set_frozen(Frozen::Everything);
    }

    /// Freezes the connections on which the marking words were said, and each one as they are said on it.
    pub fn freeze_marked(&self) {
        self.link.set_frozen(Frozen::Marked);
    }

    /// Ends a freeze: everything held back goes on its way.
    pub fn thaw(&self) {
        self.link.set_frozen(Frozen::Nothing);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.cut();
    }
}

/// A port that nobody listens on, for a program that has to be told one. Another process may take it first: then the test
/// starts the program again with another port.
pub fn free_port() -> u16 {
    listen().local_addr().expect("a listener has an address").port()
}

/// Picks a port below those that systems hand out by themselves: during a cut nobody holds the port, and a
/// parallel test that asks for any port must not be given this one.
pub fn listen() -> TcpListener {
    let random = || RandomState::new().hash_one(()) % 12_000;
    (0..1000)
        .filter_map(|_| u16::try_from(20_000 + random()).ok())
        .find_map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok())
        .expect("a free port between 20000 and 32000")
}

struct Link {
    words: Option<&'static [u8]>,
    connections: AtomicUsize,
    heard: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    target: SocketAddr,
    /// Moves on with each cut; threads and connections of a past generation end.
    generation: u64,
    frozen: Frozen,
    /// Every open stream, to be closed by a cut.
    streams: Vec<Weak<TcpStream>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Frozen {
    Nothing,
    Marked,
    Everything,
}

/// One connection through the relay.
struct Passage {
    generation: u64,
    marked: AtomicBool,
}

impl Link {
    fn accept_from(self: &Arc<Link>, listener: TcpListener) -> JoinHandle<()> {
        let generation = self.state.lock().unwrap().generation;
        let link = Arc::clone(self);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Some(client) = link.adopt(client, generation) else {
                    return;
                };
                let link = Arc::clone(&link);
                thread::spawn(move || link.carry(client, generation));
            }
        })
    }

    /// Takes the stream among those that a cut closes; `None` when the generation is over.
    fn adopt(&self, stream: TcpStream, generation: u64) -> Option<Arc<TcpStream>> {
        let _ = stream.set_nodelay(true);
        let stream = Arc::new(stream);
        let mut state = self.state.lock().unwrap();
        state.streams.retain(|known| known.strong_count() > 0);
        state.streams.push(Arc::downgrade(&stream));
        (state.generation == generation).then_some(stream)
    }

    fn carry(self: Arc<Link>, client: Arc<TcpStream>, generation: u64) {
        self.connections.fetch_add(1, Ordering::SeqCst);
        let passage = Passage { generation, marked: AtomicBool::new(false) };
        if !self.wait_for_thaw(&passage) {
            return;
        }
        let target = self.state.lock().unwrap().target;
        let server = TcpStream::connect(target).ok();
        let Some(server) = server.and_then(|server| self.adopt(server, generation)) else {
            return;
        };
        thread::scope(|scope| {
            scope.spawn(|| self.pump(&client, &server, &passage, self.words));
            self.pump(&server, &client, &passage, None);
        });
    }

    /// `words` mark the passage when they come this way.
    fn pump(&self, mut from: &TcpStream, mut to: &TcpStream, passage: &Passage, words: Option<&[u8]>) {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let read = from.read(&mut buffer);
            if let (Ok(count), Some(words)) = (&read, words)
                && buffer[..*count].windows(words.len()).any(|window| window == words)
            {
                passage.marked.store(true, Ordering::SeqCst);
                self.heard.store(true, Ordering::SeqCst);
            }
            if !self.wait_for_thaw(passage) {
                return;
            }
            match read {
                Ok(0) => {
                    // The other direction may still have something to say.
                    let _ = to.shutdown(Shutdown::Write);
                    return;
                }
                Ok(count) if to.write_all(&buffer[..count]).is_ok() => {}
                Ok(_) | Err(_) => {
                    let _ = from.shutdown(Shutdown::Both);
                    let _ = to.shutdown(Shutdown::Both);
                    return;
                }
            }
        }
    }

    /// Returns whether the generation goes on.
    fn wait_for_thaw(&self, passage: &Passage) -> bool {
        let state = self.state.lock().unwrap();
        let held = |state: &mut State| {
            let frozen = match state.frozen {
                Frozen::Nothing => false,
                Frozen::Marked => passage.marked.load(Ordering::SeqCst),
                Frozen::Everything => true,
            };
            frozen && state.generation == passage.generation
        };
        self.changed.wait_while(state, held).unwrap().generation == passage.generation
    }

    fn set_frozen(&self, frozen: Frozen) {
        self.state.lock().unwrap().frozen = frozen;
        self.changed.notify_all();
    }

    fn end_generation(&self) {
        let mut state = self.state.lock().unwrap();
        state.generation += 1;
        state.frozen = Frozen::Nothing;
        for stream in state.streams.drain(..).filter_map(|stream| stream.upgrade()) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        self.changed.notify_all();
    }
}
