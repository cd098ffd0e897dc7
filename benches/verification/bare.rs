//! What Keyward is measured against: hyper on tokio with nothing above it, answering every request with the same bytes
//! as Keyward does.

use std::convert::Infallible;
use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

/// Makes this program the bare server. Where it listens and what it answers is in its environment.
pub const ARGUMENT: &str = "--bare";

struct Whole(Bytes);

impl Body for Whole {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
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

pub fn serve() -> Result<(), Box<dyn Error>> {
    let port: u16 = std::env::var("PORT")?.parse()?;
    let answer = std::env::var("ANSWER")?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("the answer has no end of its head")?;
    let mut headers = Vec::new();
    for (name, value) in head.lines().skip(1).filter_map(|line| line.split_once(": ")) {
        // hyper writes these by itself.
        if !["date", "content-length", "connection"].contains(&name) {
            headers.push((HeaderName::try_from(name)?, HeaderValue::try_from(value)?));
        }
    }
    let answer: &'static (Vec<(HeaderName, HeaderValue)>, Bytes) =
        Box::leak(Box::new((headers, Bytes::copy_from_slice(body.as_bytes()))));
    let cores = std::thread::available_parallelism()?.get();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(cores).enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(async move {
                let service = service_fn(|_: hyper::Request<Incoming>| async {
                    let mut response = hyper::Response::new(Whole(answer.1.clone()));
                    for (name, value) in &answer.0 {
                        response.headers_mut().insert(name, value.clone());
                    }
                    Ok::<_, Infallible>(response)
                });
                let _ = http1::Builder::new().writev(false).serve_connection(TokioIo::new(stream), service).await;
            });
        }
    })
}
