//! One connection: hyper reads and writes HTTP/1.1 on it, this file keeps to the times that a client may take.

use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use log::debug;
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::exchange;
use super::server::Front;
use super::watch::{COARSENESS, Phase, Socket, Watch, coarse_now};

/// Serves a connection until either side ends it, a time runs out, or the server stops.
pub async fn serve(stream: TcpStream, peer: SocketAddr, front: Arc<Front>, mut stop: watch::Receiver<bool>) {
    if let Err(error) = stream.set_nodelay(true) {
        debug!("{peer}: {error}");
    }
    // Borrowed by the parts of the connection: counting references that all connections share is work for each request.
    let (front, watched) = (&*front, &Watch::new(&front.limits));
    let socket = Socket::new(stream, watched, &front.stopping);
    let service = service_fn(async |request: hyper::Request<Incoming>| {
        watched.enter(Phase::Busy);
        let response = exchange::answer(front, peer.ip(), request).await;
        watched.enter(Phase::Answering);
        Ok::<_, std::convert::Infallible>(response.map(Whole))
    });
    let mut connection = pin!(
        http1::Builder::new()
            .max_buf_size(front.limits.head_bytes)
            .max_header_size(front.limits.head_bytes)
            .serve_connection(socket, service)
    );
    let mut stopping = pin!(async move {
        // An error is a server that is gone, which is a stop as well.
        let _ = stop.wait_for(|stop| *stop).await;
    });
    let mut alarm = pin!(tokio::time::sleep_until(watched.deadline().into()));
    let mut listening = false;
    let mut told = false;
    // When the alarm rings, by the coarse clock; `None`: it does not know yet whom to wake.
    let mut rings: Option<Duration> = None;

    std::future::poll_fn(|cx| {
        // Polled once, it wakes this task when the server stops; to poll it takes a lock that all connections share.
        if (!listening || front.stopping.load(Ordering::SeqCst)) && !told && stopping.as_mut().poll(cx).is_ready() {
            told = true;
            connection.as_mut().graceful_shutdown();
        }
        listening = true;
        if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
            if let Err(error) = ended {
                debug!("{peer}: {error}");
            }
            return Poll::Ready(());
        }
        // The alarm is moved only when it must ring earlier; when it rings early, it is set anew. So a request on
        // a busy connection costs no timer.
        let due = watched.due();
        if rings.is_some_and(|rings| rings <= due && coarse_now() + COARSENESS < rings) {
            return Poll::Pending;
        }
        alarm.as_mut().reset(watched.deadline().into());
        rings = Some(due);
        while alarm.as_mut().poll(cx).is_ready() {
            let deadline = watched.deadline();
            if deadline <= Instant::now() {
                debug!("{peer}: cut, {}", watched.phase().overdue());
                return Poll::Ready(());
            }
            alarm.as_mut().reset(deadline.into());
            rings = Some(watched.due());
        }
        Poll::Pending
    })
    .await;
}

/// A body that is there as a whole.
struct Whole(Bytes);

impl Body for Whole {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::convert::Infallible>>> {
        let bytes = std::mem::take(&mut self.0);
        Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.len() as u64)
    }
}
