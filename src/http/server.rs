//! The server: listens, accepts no more connections than it can serve, and stops without dropping requests under way.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use log::{debug, info, warn};
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::app::App;
use crate::base::pool::cores;
use crate::http::connection::serve::{self, ListenerKind};
use crate::http::connection::table::ConnectionTable;
use crate::http::front::Front;
use crate::http::lanes::Lanes;
use crate::http::route::Route;
use crate::http::router::Router;
use crate::http::settings::HttpSettings;
use crate::http::tls::Tls;

/// A server that runs. Dropping it without [`Server::stop`] cuts its connections.
pub struct Server {
    runtime: Runtime,
    front: Arc<Front>,
    tls: Option<Tls>,
    addresses: Vec<SocketAddr>,
    redirects: Vec<SocketAddr>,
    stop: watch::Sender<bool>,
    table: Arc<ConnectionTable>,
}

/// The most connections that wait in the kernel to be accepted; it may allow fewer.
const BACKLOG: u32 = 4096;

impl Server {
    /// Listens on every address of the settings; the server answers when this returns. The error is one line for the
    /// operator.
    pub fn start(
        app: Arc<App>,
        routes: &'static [Route],
        tls: Option<Tls>,
        settings: &HttpSettings,
    ) -> Result<Server, String> {
        let max_connections = affordable_connections(settings.max_connections);
        let cores = cores();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(cores)
            .thread_name("io")
            .enable_all()
            .build()
            .map_err(|error| format!("the I/O threads cannot be started: {error}"))?;
        outlive_file_limit(&runtime);
        let front = Arc::new(Front {
            app,
            router: Router::new(routes)?,
            lanes: Lanes::new(cores),
            cors: settings.cors.clone(),
            proxies: settings.proxies.clone(),
            limits: settings.limits.clone(),
            stopping: AtomicBool::new(false),
        });
        let (listeners, redirecting) = {
            let _context = runtime.enter();
            let listeners = listen(settings, settings.port, "PORT")?;
            let redirecting =
                settings.redirect_port.map(|port| listen(settings, port, "HTTP_REDIRECT_PORT")).transpose()?;
            (listeners, redirecting.unwrap_or_default())
        };
        let (addresses, redirects) = (addresses(&listeners), addresses(&redirecting));
        let api = tls.as_ref().map_or(ListenerKind::Http, |tls| ListenerKind::Https(tls.acceptor.clone()));
        let redirect = ListenerKind::Redirect { to: addresses.first().map_or(settings.port, SocketAddr::port) };
        let listeners = listeners.into_iter().map(|listener| (listener, api.clone()));
        let listeners = listeners.chain(redirecting.into_iter().map(|listener| (listener, redirect.clone()))).collect();
        let table =
            ConnectionTable::new(max_connections, settings.max_connections_per_address, settings.proxies.clone());
        let table = Arc::new(table);
        let (stop, stopping) = watch::channel(false);
        runtime.spawn(accept(listeners, front.clone(), table.clone(), stopping));
        Ok(Server { runtime, front, tls, addresses, redirects, stop, table })
    }

    /// Where it listens. If the port in the settings is 0, these have the port that was assigned.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Where it redirects plain HTTP to HTTPS.
    pub(crate) fn redirects(&self) -> &[SocketAddr] {
        &self.redirects
    }

    /// The scheme of the API's addresses.
    pub(crate) fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// Reads the certificate's files again.
    pub(crate) fn reload(&self) {
        match &self.tls {
            Some(tls) => tls.reload(),
            None => info!("there is no certificate to be read anew"),
        }
    }

    /// Stops accepting, lets requests under way finish within their limit, and ends the threads.
    pub(crate) fn stop(self) {
        self.front.stopping.store(true, Ordering::SeqCst);
        self.stop.send_replace(true);
        let limit = self.front.limits.stopping;
        let finished =
            self.runtime.block_on(async { tokio::time::timeout(limit, self.table.all_free()).await.is_ok() });
        if !finished {
            warn!("connections still busy after {} s are cut", limit.as_secs());
        }
        self.runtime.shutdown_timeout(Duration::from_secs(1));
    }
}

/// File descriptors for everything but clients: PostgreSQL needs four for each of its connections, SQLite two.
const OTHER_DESCRIPTORS: u64 = 128;

/// As many connections as are wanted, or as there are file descriptors for: the store and the log must never lack one
/// because clients have them all. Many systems have a soft limit of 1024, which is raised to the hard one.
fn affordable_connections(wanted: usize) -> u32 {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        warn!("the limit of open files cannot be raised: {error}");
        limit = getrlimit(Resource::Nofile);
    }
    let wanted = wanted as u64;
    let Some(limit) = limit.current else { return wanted as u32 };
    let affordable = limit - OTHER_DESCRIPTORS.min(limit / 2);
    if affordable < wanted {
        warn!(
            "MAX_CONNECTIONS is {wanted}, but the limit of open files ({limit}) has room for {affordable} connections"
        );
    }
    wanted.min(affordable) as u32
}

/// Makes a write beyond the limit on file sizes fail. By default the signal SIGXFSZ ends the process; once it has a
/// handler, it never does.
fn outlive_file_limit(runtime: &Runtime) {
    let _context = runtime.enter();
    if let Err(error) = signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw())) {
        warn!("a limit on the size of files would end the process: {error}");
    }
}

fn addresses(listeners: &[TcpListener]) -> Vec<SocketAddr> {
    listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
}

/// Listens on all hosts at this port. `setting` is the name of the setting that has the port.
fn listen(settings: &HttpSettings, mut port: u16, name: &str) -> Result<Vec<TcpListener>, String> {
    let mut listeners = Vec::new();
    for &host in &settings.hosts {
        let address = SocketAddr::new(host, port);
        // If IPv4 addresses are listed, `::` must not take them as well.
        let only_v6 = host.is_ipv6() && settings.hosts.iter().any(IpAddr::is_ipv4);
        match bind(address, only_v6) {
            Ok(listener) => {
                // With port 0, all addresses share the port that the first one was assigned.
                port = listener.local_addr().map_or(port, |address| address.port());
                listeners.push(listener);
            }
            // The machine has no IPv6. A port that is in use is an error: clients would reach another program.
            Err(error) if !settings.hosts_given && host.is_ipv6() && error.kind() != ErrorKind::AddrInUse => {
                debug!("not listening on {address}: {error}");
            }
            Err(error) => return Err(format!("cannot listen on {address}: {error}; HOST and {name} say where")),
        }
    }
    Ok(listeners)
}

fn bind(address: SocketAddr, only_v6: bool) -> std::io::Result<TcpListener> {
    let socket = match address.ip() {
        IpAddr::V4(_) => TcpSocket::new_v4()?,
        IpAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    if only_v6 {
        rustix::net::sockopt::set_ipv6_v6only(&socket, true)?;
    }
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// The next connection on any of them.
async fn accept_any(
    listeners: &[(TcpListener, ListenerKind)],
) -> std::io::Result<(TcpStream, SocketAddr, ListenerKind)> {
    std::future::poll_fn(|cx| {
        for (listener, kind) in listeners {
            if let Poll::Ready(accepted) = listener.poll_accept(cx) {
                return Poll::Ready(accepted.map(|(stream, peer)| (stream, peer, kind.clone())));
            }
        }
        Poll::Pending
    })
    .await
}

async fn accept(
    listeners: Vec<(TcpListener, ListenerKind)>,
    front: Arc<Front>,
    table: Arc<ConnectionTable>,
    mut stopping: watch::Receiver<bool>,
) {
    let stop = stopping.clone();
    let mut refused = Refused::default();
    tokio::select! {
        _ = stopping.wait_for(|stop| *stop) => {}
        () = table.keep_the_account() => {}
        () = async {
            loop {
                match accept_any(&listeners).await {
                    Ok((stream, peer, kind)) => {
                        // While one waits for a slot, the next ones wait in the kernel.
                        let Some(slot) = table.take(peer.ip(), &front.limits).await else {
                            refused.note(peer.ip());
                            continue;
                        };
                        let (front, stop) = (front.clone(), stop.clone());
                        tokio::spawn(async move {
                            serve::serve(stream, peer, front, &slot.entry, kind, stop).await;
                        });
                    }
                    Err(error) => {
                        // Usually there are no file descriptors left; that passes when connections close.
                        warn!("a connection could not be accepted: {error}");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            }
        } => {}
    }
}

/// Logs refused connections, but not each one.
#[derive(Default)]
struct Refused {
    told: Option<Instant>,
    since: u64,
}

impl Refused {
    fn note(&mut self, peer: IpAddr) {
        const EVERY: Duration = Duration::from_secs(60);
        self.since += 1;
        if self.told.is_none_or(|told| told.elapsed() >= EVERY) {
            let count = self.since;
            warn!(
                "{peer} has as many connections as one address may have: {count} refused since the last such line; if a \
                 proxy is there, name it in TRUSTED_PROXIES, otherwise see MAX_CONNECTIONS_PER_ADDRESS"
            );
            (self.told, self.since) = (Some(Instant::now()), 0);
        }
    }
}
