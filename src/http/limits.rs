//! How much and how long a client may take, and what else is no setting of the operator's.

use std::time::Duration;

/// How much and how long a client may take, and other times of the front. Tests shorten them.
#[derive(Clone, Debug)]
pub struct Limits {
    /// From accept to the end of the TLS handshake.
    pub handshake: Duration,
    /// Request line and headers, in bytes.
    pub head_bytes: usize,
    /// From the first byte of a head (for the first one: from accept) to its last.
    pub head: Duration,
    /// From the head to the last byte of the body.
    pub body: Duration,
    /// A kept connection without a request.
    pub idle: Duration,
    /// An answer of which the client takes nothing.
    pub unread_answer: Duration,
    /// From queueing to the handler's answer.
    pub handler: Duration,
    /// What is under way when the server stops.
    pub stopping: Duration,
    /// How often the files of the certificate are checked for a change.
    pub certificate_check: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            handshake: Duration::from_secs(5),
            head_bytes: 16 * 1024,
            head: Duration::from_secs(5),
            body: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            unread_answer: Duration::from_secs(30),
            // With room for the answer to be there within 5 s.
            handler: Duration::from_millis(4900),
            stopping: Duration::from_secs(10),
            certificate_check: Duration::from_secs(3),
        }
    }
}
