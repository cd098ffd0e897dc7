//! What an endpoint is sent of an event.

use std::time::Duration;

use serde::Serialize;

use crate::audit::event::{Event, Kind, RESTS_UNTIL};
use crate::base::clock::Timestamp;
use crate::base::error::StoreError;
use crate::base::id::UserId;

const MINUTE: Duration = Duration::from_secs(60);
/// By then all instances have written what they counted.
const WRITTEN: Duration = Duration::from_secs(5);

#[derive(Serialize)]
struct Body {
    #[serde(rename = "type")]
    kind: Kind,
    timestamp: Timestamp,
    data: Event,
}

/// The body of a webhook: the event as the audit trail shows it. `reader`: the user whose endpoint it is; `None` for one of
/// operators, who see everything.
pub(crate) fn body(event: Event, reader: Option<UserId>) -> Result<String, StoreError> {
    let (kind, timestamp) = (event.kind, event.at);
    let data = match reader {
        Some(reader) => event.seen_by(reader),
        None => event,
    };
    serde_json::to_string(&Body { kind, timestamp, data })
        .map_err(|error| StoreError::Internal(format!("the body of a delivery: {error}")))
}

/// Whether events of this kind are told only where it is named: they happen often, and somebody else causes them.
pub(crate) fn must_be_named(kind: Kind) -> bool {
    matches!(kind, Kind::LoginFailed | Kind::PasswordFailed | Kind::TotpFailed)
}

/// When an event that is counted for a minute is told, which is then complete. `None`: it is told at once.
pub(crate) fn gathered_until(event: &Event) -> Option<Timestamp> {
    let is_gathered = must_be_named(event.kind) && !event.details.contains_key(RESTS_UNTIL);
    is_gathered.then(|| event.at.start_of(MINUTE).plus(MINUTE + WRITTEN))
}
