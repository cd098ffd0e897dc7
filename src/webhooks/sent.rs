//! What was and is to be sent to an endpoint, as its owner sees it.

use serde::{Serialize, Serializer};

use crate::base::clock::Timestamp;
use crate::base::id::{DeliveryId, EventId};

/// A delivery to an endpoint.
#[derive(Clone, Debug)]
pub struct SentDelivery {
    pub id: DeliveryId,
    /// `None`: it is a test.
    pub event: Option<EventId>,
    /// The type of the event.
    pub kind: String,
    /// JSON. `None`: it is not known yet, or no longer.
    pub body: Option<String>,
    pub created_at: Timestamp,
    pub state: DeliveryState,
    /// How often it was tried.
    pub tries: u32,
    pub last_tried_at: Option<Timestamp>,
    pub next_try_at: Option<Timestamp>,
    /// What came back from the last try.
    pub status: Option<u16>,
    pub answer: Option<String>,
    /// Why the last try failed.
    pub reason: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryState {
    Pending,
    Delivered,
    /// It is not tried again.
    Failed,
}

impl Serialize for DeliveryState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match self {
            DeliveryState::Pending => "pending",
            DeliveryState::Delivered => "delivered",
            DeliveryState::Failed => "failed",
        })
    }
}
