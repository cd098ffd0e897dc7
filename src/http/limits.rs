//! How much and how long a client may take, and other constants that only tests change.

use std::time::Duration;

/// How much and how long a client may take, and other times of the front. Tests shorten them.
#[derive(Clone, Debug)]
pub struct Limits {
    /// From accepting a connection to the end of its TLS handshake.
    pub handshake: Duration,
    /// Request line and headers, in bytes.
    pub head_bytes: usize,
    /// From the first byte of a head (for the first one: from accept) to its last.
    pub head: Duration,
    /// From the head to the last byte of the body.
    pub body: Duration,
    /// How long a connection may stay open without a request.
    pub idle: Duration,
    /// How long a client may take nothing of an answer.
    pub unread_answer: Duration,
    /// From queueing to the handler's answer.
    pub handler: Duration,
    /// How long requests may finish when the server stops.
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
            // Leaves time for the answer to arrive within 5 s.
            handler: Duration::from_millis(4900),
            stopping: Duration::from_secs(10),
            certificate_check: Duration::from_secs(3),
        }
    }
}
