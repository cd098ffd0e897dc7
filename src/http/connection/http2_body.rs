//! The body of a request over HTTP/2, between the connection, which delivers it, and the task of its stream, which reads it.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use h2::{FlowControl, RecvStream};
use hyper::body::{Body, Frame, SizeHint};

use crate::base::sharded::lock;
use crate::http::client_memory::{A_BODY, Claim, ClientMemory};
use crate::http::connection::state::LINGER_BYTES;

/// The body of a request, between the connection, which delivers it, and the stream's task, which reads it.
#[derive(Default)]
pub(crate) struct Inbox {
    pub parts: VecDeque<Bytes>,
    pub end: Option<Result<(), h2::Error>>,
    /// The claim for memory beyond what the request's own claim covers.
    pub claim: Option<Claim>,
    /// Nobody reads the body any more. What still arrives is discarded for a while: breaking off at once would be
    /// allowed (RFC 9113 §8.1), but some clients would then ignore their answer.
    pub unwanted: bool,
    pub discarded: usize,
    pub reader: Option<Waker>,
}

/// The connection's side of a body. It takes from h2 whatever has arrived before it looks for more: h2 keeps some of
/// it, trailers above all, outside any window until somebody asks.
pub(crate) struct Delivery {
    pub stream: RecvStream,
    pub inbox: Arc<Mutex<Inbox>>,
    pub memory: Arc<ClientMemory>,
}

impl Delivery {
    /// Passes on what has arrived. Ready when the body has ended or its reader is gone.
    pub(crate) fn deliver(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if Arc::strong_count(&self.inbox) == 1 {
            return Poll::Ready(());
        }
        loop {
            let data = match self.stream.poll_data(cx) {
                Poll::Ready(data) => data,
                Poll::Pending => return Poll::Pending,
            };
            let end = match data {
                Some(Ok(data)) => {
                    self.put(data);
                    continue;
                }
                Some(Err(error)) => Err(error),
                // Trailers are ignored.
                None => ready!(self.stream.poll_trailers(cx)).map(drop),
            };
            let mut inbox = lock(&self.inbox);
            inbox.end = Some(end);
            inbox.wake();
            return Poll::Ready(());
        }
    }

    pub(crate) fn put(&mut self, data: Bytes) {
        let mut inbox = lock(&self.inbox);
        if inbox.unwanted {
            inbox.discarded += data.len();
            if inbox.discarded <= LINGER_BYTES {
                let _ = self.stream.flow_control().release_capacity(data.len());
            }
        } else {
            inbox.parts.push_back(data);
            let more = inbox.parts.iter().map(Bytes::len).sum::<usize>().saturating_sub(A_BODY);
            if more > 0 {
                inbox.claim.get_or_insert_with(|| self.memory.claim(0)).resize(more);
            }
        }
        inbox.wake();
    }
}

impl Inbox {
    pub(crate) fn wake(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

/// The reader's side of a body.
pub(crate) struct StreamBody {
    pub inbox: Arc<Mutex<Inbox>>,
    pub flow: FlowControl,
    /// The announced length, or 0. h2 refuses a body of another length.
    pub length: u64,
}

impl StreamBody {
    /// Discards what has arrived and what is still to come.
    pub(crate) fn is_unwanted(&mut self) {
        let mut inbox = lock(&self.inbox);
        inbox.unwanted = true;
        inbox.claim = None;
        for part in std::mem::take(&mut inbox.parts) {
            let _ = self.flow.release_capacity(part.len());
        }
    }

    /// Returns when all has been discarded, or as much as is reasonable.
    pub(crate) async fn ends(&self) {
        std::future::poll_fn(|cx| {
            let mut inbox = lock(&self.inbox);
            if inbox.end.is_some() || inbox.discarded > LINGER_BYTES {
                return Poll::Ready(());
            }
            inbox.reader = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

impl Body for StreamBody {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let mut inbox = lock(&self.inbox);
        let Some(data) = inbox.parts.pop_front() else {
            if let Some(end) = &mut inbox.end {
                return Poll::Ready(std::mem::replace(end, Ok(())).err().map(Err));
            }
            inbox.reader = Some(cx.waker().clone());
            return Poll::Pending;
        };
        drop(inbox);
        // Lets the client send as much again.
        let _ = self.flow.release_capacity(data.len());
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        let inbox = lock(&self.inbox);
        inbox.parts.is_empty() && matches!(inbox.end, Some(Ok(())))
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = SizeHint::new();
        hint.set_lower(self.length);
        hint
    }
}
