//! Whether there is a pooler between us and PostgreSQL, such as PgBouncer.
//!
//! On connecting, a client is told the number of its server process. A pooler makes up a number of its own, because it
//! may use another server process for each transaction, so nothing that belongs to a session can be relied on. The
//! library keeps the number to itself and reveals it only in a request to cancel, so we have it write one and read the
//! number from that.

use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::Client;
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};

/// The number of the server process that the client was told. `None`: none was.
pub(crate) async fn announced_process(client: &Client) -> Option<i32> {
    let mut recorder = Recorder { written: Vec::new() };
    client.cancel_token().cancel_query_raw(&mut recorder, AsItIs).await.ok()?;
    // A request to cancel ends with the number of the process and its secret, four bytes each.
    let (_, end) = recorder.written.split_last_chunk::<8>()?;
    end.first_chunk().map(|process| i32::from_be_bytes(*process))
}

/// Stands in for the server: agrees to TLS, and keeps what is written to it, unencrypted.
struct Recorder {
    written: Vec<u8>,
}

impl AsyncRead for Recorder {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        buffer.put_slice(&b"S"[..buffer.remaining().min(1)]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Recorder {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.written.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl TlsStream for &mut Recorder {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

struct AsItIs;

impl<'a> TlsConnect<&'a mut Recorder> for AsItIs {
    type Stream = &'a mut Recorder;
    type Error = io::Error;
    type Future = Ready<io::Result<&'a mut Recorder>>;

    fn connect(self, stream: &'a mut Recorder) -> Self::Future {
        ready(Ok(stream))
    }
}
