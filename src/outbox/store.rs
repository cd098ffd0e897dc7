//! What the outbox needs of a database. Deliveries are written by the other stores, with the events of their changes.
//!
//! Every method is one transaction: done as a whole when it returns `Ok`, not at all or unknown when it returns an
//! error.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::base::clock::Timestamp;
use crate::base::error::StoreError;
use crate::base::id::UserId;
use crate::outbox::delivery::{Delivery, Outcome};
use crate::outbox::outlet::Outlet;

/// An endpoint to which nobody else delivers for now.
#[derive(Clone, Debug)]
pub struct Turn {
    pub endpoint: Uuid,
    /// Who delivers: one id for each process.
    pub holder: Uuid,
    /// The user whose endpoint it is; `None` for one of operators.
    pub reader: Option<UserId>,
    /// Its last try timed out, or nearly.
    pub is_slow: bool,
}

/// Something that is due, and its place in the order.
#[derive(Clone, Debug)]
pub struct Due {
    pub place: i64,
    /// Until when nobody else delivers it; of a mail.
    pub until: Option<Timestamp>,
    pub delivery: Delivery,
}

/// A delivery that was tried.
#[derive(Clone, Debug)]
pub struct Tried {
    pub due: Due,
    pub outcome: Outcome,
    /// It timed out, or took so long that it could keep others from their turn.
    pub is_slow: bool,
}

/// What becomes of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// More is delivered in it.
    GoOn,
    /// Anybody may take the next.
    End,
    /// Nobody takes one for a while: deliveries may not go there now.
    Rest,
}

/// How many endpoints are looked for, and after which ones.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    pub after: Uuid,
    pub most: usize,
    /// Those whose last try was slow, or the others.
    pub is_slow: bool,
}

/// What a look has found.
#[derive(Debug, Default)]
pub struct Found {
    /// A list for each [`Wanted`], in the order of their ids.
    pub endpoints: Vec<Vec<Turn>>,
    /// In how long the next delivery is due that is not due yet.
    pub next_in: Option<Duration>,
}

pub trait OutboxStore: Send + Sync {
    /// To whom its transactions deliver, and who is woken for it.
    fn outlet(&self) -> Arc<Outlet>;

    /// Endpoints for which something is due and to which nobody delivers. They are not taken yet.
    fn due_endpoints(&self, holder: Uuid, wanted: &[Wanted]) -> Result<Found, StoreError>;

    /// Takes a turn. False: somebody else has it.
    fn take_turn(&self, turn: &Turn) -> Result<bool, StoreError>;

    /// What is due for the endpoint: what is tried for the first time before what is tried again, each in its order. A part,
    /// if it is much.
    fn due_for(&self, turn: &Turn) -> Result<Vec<Due>, StoreError>;

    /// Records tries of a turn, in their order, and keeps the turn, or ends it. If the endpoint is given up, disables it and
    /// records an event. False: the turn had run out, and nothing was recorded.
    fn record_tries(&self, turn: &Turn, tried: &[Tried], then: Then) -> Result<bool, StoreError>;

    /// Takes up to `most` mails that are due.
    fn take_mail(&self, most: usize) -> Result<Vec<Due>, StoreError>;

    /// Records the try of a mail, unless somebody else has taken it meanwhile.
    fn record_mail(&self, tried: &Tried) -> Result<(), StoreError>;

    /// Gives back mails that were taken and not tried.
    fn return_mail(&self, mails: &[Due]) -> Result<(), StoreError>;

    /// Wakes the deliverers of other instances.
    fn call_others(&self) -> Result<(), StoreError>;

    /// Deletes a part of the deliveries from before `before`. False: there were none.
    fn prune_deliveries(&self, before: Timestamp) -> Result<bool, StoreError>;

    /// Goes from endpoint to endpoint, from `from` on, and deletes a part of the deliveries that have ended beyond the newest
    /// `most` of an endpoint. Returns the endpoint to continue with. `None`: all have been seen, or the next is busy.
    fn trim_deliveries(&self, from: Uuid, most: i64) -> Result<Option<Uuid>, StoreError>;
}
