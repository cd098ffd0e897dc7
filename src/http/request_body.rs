//! Reading the body of a request, within its limits of size, time and memory.

use std::fmt::Display;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hyper::body::Body;

use crate::base::error::Error;
use crate::http::client_memory::{A_BODY, Claim, ClientMemory};

/// A request's body while it arrives, over either version of HTTP.
pub(crate) trait RequestBody: Body<Data = Bytes, Error: Display> + Unpin {}

impl<B: Body<Data = Bytes, Error: Display> + Unpin> RequestBody for B {}

/// Reads at most `most` bytes within `limit`. The claim is for memory beyond what the request's own claim covers.
pub(crate) async fn read_body(
    memory: &Arc<ClientMemory>,
    body: &mut impl RequestBody,
    most: usize,
    limit: Duration,
) -> Result<(Bytes, Option<Claim>), Error> {
    let (mut whole, mut claim) = (BytesMut::new(), None);
    receive(body, most, limit, |data| {
        whole.extend_from_slice(data);
        let more = whole.capacity().saturating_sub(A_BODY);
        if more > 0 && !claim.get_or_insert_with(|| memory.claim(0)).try_grow(more) {
            return Err(Error::Unavailable("too much is held for clients".to_string()));
        }
        Ok(())
    })
    .await?;
    Ok((whole.freeze(), claim))
}

/// Passes on a body as it arrives, within the same limits.
pub(crate) async fn receive(
    body: &mut impl RequestBody,
    most: usize,
    limit: Duration,
    mut take: impl FnMut(&[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    if body.size_hint().lower() > most as u64 {
        return Err(Error::TooLarge(most));
    }
    let read = async {
        let mut received = 0;
        while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await {
            let frame = frame.map_err(|error| Error::Malformed(format!("Request body cannot be read: {error}")))?;
            // Trailers are ignored.
            let Ok(data) = frame.into_data() else { continue };
            received += data.len();
            if received > most {
                return Err(Error::TooLarge(most));
            }
            take(&data)?;
        }
        Ok(())
    };
    tokio::time::timeout(limit, read).await.unwrap_or(Err(Error::TooSlow))
}
