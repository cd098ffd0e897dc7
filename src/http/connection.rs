//! One connection, from its acceptance: TLS where it is spoken, then the version of HTTP that the client asks for.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use log::debug;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::exchange::Purpose;
use super::places::Seat;
use super::server::Front;
use super::tls::HTTP_2;
use super::{http1, http2};

/// What a listener is there for.
#[derive(Clone)]
pub enum Door {
    /// The API, without TLS.
    Http,
    /// The API, with TLS.
    Https(TlsAcceptor),
    /// Sends everyone to HTTPS, which is on this port.
    Redirect { to: u16 },
}

/// Serves a connection until either side ends it, a time runs out, or the server stops.
pub async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    front: Arc<Front>,
    seat: &Arc<Seat>,
    door: Door,
    stop: watch::Receiver<bool>,
) {
    if let Err(error) = stream.set_nodelay(true) {
        debug!("{peer}: {error}");
    }
    match door {
        Door::Http => http1::serve(stream, peer, &front, seat, Purpose::Api { tls: false }, stop).await,
        Door::Redirect { to } => http1::serve(stream, peer, &front, seat, Purpose::Redirect { to }, stop).await,
        // Its state is large, and connections without TLS are not to pay for it.
        Door::Https(acceptor) => Box::pin(serve_https(stream, peer, front, seat, acceptor, stop)).await,
    }
}

async fn serve_https(
    stream: TcpStream,
    peer: SocketAddr,
    front: Arc<Front>,
    seat: &Arc<Seat>,
    acceptor: TlsAcceptor,
    mut stop: watch::Receiver<bool>,
) {
    match in_time(front.limits.handshake, &mut stop, shake_hands(stream, &acceptor)).await {
        Some(Ok(Greeting::Tls(stream))) if stream.get_ref().1.alpn_protocol() == Some(HTTP_2) => {
            http2::serve(stream, peer, front, seat, stop).await;
        }
        Some(Ok(Greeting::Tls(stream))) => {
            http1::serve(stream, peer, &front, seat, Purpose::Api { tls: true }, stop).await
        }
        Some(Ok(Greeting::NoTls(stream))) => http1::serve(stream, peer, &front, seat, Purpose::WrongScheme, stop).await,
        Some(Err(error)) => debug!("{peer}: TLS: {error}"),
        None => debug!("{peer}: cut, the TLS handshake was not done in time"),
    }
}

/// What a client begins with.
enum Greeting {
    Tls(Box<TlsStream<TcpStream>>),
    /// Something else, of which nothing has been read.
    NoTls(TcpStream),
}

async fn shake_hands(stream: TcpStream, acceptor: &TlsAcceptor) -> io::Result<Greeting> {
    /// RFC 8446 §5.1: with a record of this type every client begins.
    const HANDSHAKE: u8 = 22;
    let mut first = [HANDSHAKE];
    stream.peek(&mut first).await?;
    if first != [HANDSHAKE] {
        return Ok(Greeting::NoTls(stream));
    }
    Ok(Greeting::Tls(Box::new(acceptor.accept(stream).await?)))
}

/// What comes of it, unless the time runs out or the server stops before.
pub async fn in_time<F: Future>(limit: Duration, stop: &mut watch::Receiver<bool>, work: F) -> Option<F::Output> {
    tokio::select! {
        done = tokio::time::timeout(limit, work) => done.ok(),
        _ = stop.wait_for(|stop| *stop) => None,
    }
}
