//! Something that is to be delivered, and what became of a try.

use uuid::Uuid;

use crate::base::clock::Timestamp;
use crate::base::id::{DeliveryId, EventId};

/// By which way something is delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChannelKind {
    /// To an endpoint: the receiver is a webhook.
    Webhook,
    /// To a person: the receiver is an account. What it says, and any token in it, is made when it is sent.
    Mail,
}

/// Something that is to be delivered to one receiver.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub id: DeliveryId,
    pub channel: ChannelKind,
    /// The webhook's id, or the account's.
    pub receiver: Uuid,
    /// The type of the event, or the kind of mail.
    pub kind: String,
    /// The event that a webhook is told of, which is also its `webhook-id`. `None`: it is no event, as a test.
    pub event: Option<EventId>,
    /// The body of a webhook.
    pub body: Option<String>,
    /// How often it happened: of notices that are gathered in one mail.
    pub count: u64,
    pub created_at: Timestamp,
    /// How often it was tried before.
    pub tries: u32,
}

/// What became of one try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Delivered(Answer),
    /// It is tried again later.
    Failed {
        answer: Answer,
        reason: String,
        timed_out: bool,
    },
    /// The receiver does not want it: an endpoint nothing more, ever (410), a mail server this mail (5xx).
    Gone(Answer),
    /// There is nobody any more to whom it could be sent, or it has lost its sense.
    Dropped,
    /// It may not be sent now, for example because the owner is inactive: it waits, and this is no try.
    Paused,
}

/// What the receiver said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The status of HTTP or of SMTP.
    pub status: Option<u16>,
    /// The beginning of it, at most 1 KiB.
    pub text: Option<String>,
}

/// A way by which things are delivered.
pub trait Channel: Send + Sync {
    /// Tries once, in bounded time. Several threads may deliver to different receivers at the same time.
    fn deliver(&self, delivery: &Delivery) -> Outcome;
}
