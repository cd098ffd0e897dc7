//! Serves one connection: TLS if it is spoken, then the version of HTTP that the client asks for.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use log::debug;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::http::connection::table::ConnectionEntry;
use crate::http::connection::{http1, http2};
use crate::http::front::{Front, Purpose, in_time};
use crate::http::tls::HTTP_2;

/// What a listener serves.
#[derive(Clone)]
pub(crate) enum ListenerKind {
    /// The API, without TLS.
    Http,
    /// The API, with TLS.
    Https(TlsAcceptor),
    /// Redirects to HTTPS on this port.
    Redirect { to: u16 },
}

/// Serves a connection until either side ends it, a time runs out, or the server stops.
pub(crate) async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    front: Arc<Front>,
    entry: &Arc<ConnectionEntry>,
    kind: ListenerKind,
    stop: watch::Receiver<bool>,
) {
    if let Err(error) = stream.set_nodelay(true) {
        debug!("{peer}: {error}");
    }
    match kind {
        ListenerKind::Http => {
            let purpose = Purpose::Api { tls: false };
            let turned = http1::serve(stream, peer, &front, entry, purpose, stop.clone()).await;
            // RFC 9113 §3.3: HTTP/2 with prior knowledge.
            if let Some((stream, read)) = turned {
                let stream = Begun { read, stream };
                Box::pin(http2::serve(stream, peer, front, entry, purpose, stop)).await;
            }
        }
        ListenerKind::Redirect { to } => {
            drop(http1::serve(stream, peer, &front, entry, Purpose::Redirect { to }, stop).await)
        }
        // Boxed: its state is large, and connections without TLS should not have to hold it.
        ListenerKind::Https(acceptor) => Box::pin(serve_https(stream, peer, front, entry, acceptor, stop)).await,
    }
}

async fn serve_https(
    stream: TcpStream,
    peer: SocketAddr,
    front: Arc<Front>,
    entry: &Arc<ConnectionEntry>,
    acceptor: TlsAcceptor,
    mut stop: watch::Receiver<bool>,
) {
    match in_time(front.limits.handshake, &mut stop, shake_hands(stream, &acceptor)).await {
        Some(Ok(Greeting::Tls(stream))) if stream.get_ref().1.alpn_protocol() == Some(HTTP_2) => {
            http2::serve(stream, peer, front, entry, Purpose::Api { tls: true }, stop).await;
        }
        Some(Ok(Greeting::Tls(stream))) => {
            drop(http1::serve(stream, peer, &front, entry, Purpose::Api { tls: true }, stop).await);
        }
        Some(Ok(Greeting::NoTls(stream))) => {
            drop(http1::serve(stream, peer, &front, entry, Purpose::WrongScheme, stop).await);
        }
        Some(Err(error)) => debug!("{peer}: TLS: {error}"),
        None => debug!("{peer}: cut, the TLS handshake was not done in time"),
    }
}

/// What a client sends first.
enum Greeting {
    Tls(Box<TlsStream<TcpStream>>),
    /// Something else; nothing has been read.
    NoTls(TcpStream),
}

async fn shake_hands(stream: TcpStream, acceptor: &TlsAcceptor) -> io::Result<Greeting> {
    /// RFC 8446 §5.1: every TLS client begins with a record of this type.
    const HANDSHAKE: u8 = 22;
    let mut first = [HANDSHAKE];
    stream.peek(&mut first).await?;
    if first != [HANDSHAKE] {
        return Ok(Greeting::NoTls(stream));
    }
    Ok(Greeting::Tls(Box::new(acceptor.accept(stream).await?)))
}

/// A stream of which some bytes have been read already.
struct Begun<S> {
    read: Bytes,
    stream: S,
}

impl<S: AsyncRead + Unpin> AsyncRead for Begun<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.read.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        let count = self.read.len().min(buffer.remaining());
        buffer.put_slice(&self.read.split_to(count));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Begun<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
