//! The access log: one line a request, safe to read whatever the request held.

use std::cell::Cell;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::net::IpAddr;
use std::time::Instant;

use http::HeaderValue;
use log::Level;

use crate::guard::principal::Principal;

/// One answered request.
pub(crate) struct Access<'a> {
    pub method: &'a str,
    /// Without its query.
    pub path: &'a str,
    pub status: u16,
    pub started: Instant,
    pub request_id: &'a str,
    pub client: IpAddr,
    pub principal: &'a Principal,
}

/// Writes the access line of a request.
pub(crate) fn access(access: &Access<'_>) {
    if !log::log_enabled!(target: "access", Level::Info) {
        return;
    }
    let duration_ms = access.started.elapsed().as_micros() as f64 / 1000.0;
    log::info!(
        target: "access",
        method = loggable_method(access.method),
        path:% = LoggablePath(access.path),
        status = access.status,
        duration_ms = duration_ms,
        request_id = access.request_id,
        client:% = access.client,
        principal:% = LoggablePrincipal(access.principal);
        ""
    );
}

/// Makes a method safe to log: it may be any token, even a key. Keys are longer than every registered method.
fn loggable_method(method: &str) -> &str {
    const LONGEST: usize = "UPDATEREDIRECTREF".len();
    if method.len() <= LONGEST { method } else { "…" }
}

struct LoggablePrincipal<'a>(&'a Principal);

impl fmt::Display for LoggablePrincipal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Principal::Anonymous => f.write_str("-"),
            Principal::User(user) => write!(f, "user:{}", user.id),
            Principal::Service(service) => write!(f, "key:{}", service.key.id),
        }
    }
}

/// Makes a path safe to log. Keys and tokens are longer than any segment of our paths, so long segments are cut;
/// everything but plain ASCII is escaped.
struct LoggablePath<'a>(&'a str);

impl fmt::Display for LoggablePath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LONGEST_SEGMENT: usize = 40;
        for (index, segment) in self.0.split('/').enumerate() {
            if index > 0 {
                f.write_str("/")?;
            }
            if index > 16 {
                return f.write_str("…");
            }
            let cut = segment.len() > LONGEST_SEGMENT;
            let bytes = &segment.as_bytes()[..if cut { 8 } else { segment.len() }];
            match std::str::from_utf8(bytes) {
                Ok(text) if text.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'\'' | b'\\')) => {
                    f.write_str(text)?;
                }
                _ => write!(f, "{}", bytes.escape_ascii())?,
            }
            if cut {
                f.write_str("…")?;
            }
        }
        Ok(())
    }
}

/// An id for a request that has none: unique among all threads of all instances. It is no secret.
pub fn new_request_id() -> HeaderValue {
    thread_local! {
        static NEXT: Cell<(u64, u32)> = Cell::new((RandomState::new().build_hasher().finish(), 0));
    }
    let (thread, count) = NEXT.get();
    NEXT.set((thread, count.wrapping_add(1)));
    let mut id = [0; 24];
    let bytes = ((u128::from(thread) << 32) | u128::from(count)).to_be_bytes();
    let written = hex::encode_to_slice(&bytes[4..], &mut id);
    written.ok().and_then(|()| HeaderValue::from_bytes(&id).ok()).unwrap_or(HeaderValue::from_static("unknown"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_or_token_in_a_path_is_not_logged() {
        let key = format!("/keys/sk_{}", "5e".repeat(32));
        assert_eq!(LoggablePath(&key).to_string(), "/keys/sk_5e5e5…");
        let id = "/keys/0192f0c1-0000-7000-8000-000000000000";
        assert_eq!(LoggablePath(id).to_string(), id);
    }

    #[test]
    fn a_key_or_token_in_the_place_of_the_method_is_not_logged() {
        assert_eq!(loggable_method(&format!("sk_{}", "5e".repeat(32))), "…");
        assert_eq!(loggable_method("DELETE"), "DELETE");
    }

    #[test]
    fn a_path_cannot_forge_a_line() {
        assert_eq!(LoggablePath("/a\u{2028}b").to_string(), "/a\\xe2\\x80\\xa8b");
    }
}
