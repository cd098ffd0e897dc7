//! Whether there is a pooler between us and PostgreSQL, such as PgBouncer.
//!
//! A client is told the number of its server process when it connects. A pooler tells of one of its own making, as it
//! may use another server for each transaction: then nothing of a session can be counted on. The library keeps the number
//! to itself, but says it to whoever is to cancel something.

use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::Client;
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};

/// The server process of which the client was told. `None` is told of by nobody.
pub async fn announced_process(client: &Client) -> Option<i32> {
    let mut listener = Listener { said: Vec::new() };
    client.cancel_token().cancel_query_raw(&mut listener, AsItIs).await.ok()?;
    // A request to cancel ends with the process and its secret, of four bytes each.
    let (_, end) = listener.said.split_last_chunk::<8>()?;
    end.first_chunk().map(|process| i32::from_be_bytes(*process))
}

/// A server that agrees to TLS, to which nothing is encrypted.
struct Listener {
    said: Vec<u8>,
}

impl AsyncRead for Listener {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        buffer.put_slice(&b"S"[..buffer.remaining().min(1)]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Listener {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.said.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl TlsStream for &mut Listener {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

struct AsItIs;

impl<'a> TlsConnect<&'a mut Listener> for AsItIs {
    type Stream = &'a mut Listener;
    type Error = io::Error;
    type Future = Ready<io::Result<&'a mut Listener>>;

    fn connect(self, stream: &'a mut Listener) -> Self::Future {
        ready(Ok(stream))
    }
}
