//! The log: what is written, in which form, and by whom. Requests hand a finished line to a queue; one thread writes.

use std::collections::hash_map::RandomState;
use std::fmt::Write as _;
use std::hash::{BuildHasher, Hasher};
use std::io::Write as _;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use chrono::{SecondsFormat, Utc};
use http::HeaderValue;
use log::kv::{Key, Value, VisitSource};
use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::principal::Principal;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One line, fields as `name=value`.
    Text,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    pub fn parse(text: &str) -> Option<LogFormat> {
        match text {
            "text" => Some(LogFormat::Text),
            "json" => Some(LogFormat::Json),
            _ => None,
        }
    }
}

/// Lines that may wait to be written. What comes on top is dropped and counted: a log that nobody reads must not
/// stop the service.
const QUEUE: usize = 16 * 1024;

/// Starts the log. Lines go to standard error; `filter` is in `RUST_LOG`'s language.
pub fn start(filter: &str, format: LogFormat) {
    let filter = env_logger::Builder::new().parse_filters(filter).build();
    let level = filter.filter();
    let (queue, lines) = sync_channel(QUEUE);
    let writer = std::thread::Builder::new().name("log".to_string()).spawn(move || write_lines(lines));
    if writer.is_ok() && log::set_boxed_logger(Box::new(Logger { filter, format, queue })).is_ok() {
        log::set_max_level(level);
    }
    std::panic::set_hook(Box::new(|panic| log::error!("{panic}")));
}

/// Errors and warnings to standard error, at once and without decoration: for commands that end by themselves.
pub fn start_plain() {
    struct Plain;
    impl Log for Plain {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            metadata.level() <= Level::Warn
        }
        fn log(&self, record: &Record<'_>) {
            if self.enabled(record.metadata()) {
                let _ = writeln!(std::io::stderr(), "keyward: {}", record.args());
            }
        }
        fn flush(&self) {}
    }
    if log::set_logger(&Plain).is_ok() {
        log::set_max_level(LevelFilter::Warn);
    }
}

struct Logger {
    filter: env_logger::Logger,
    format: LogFormat,
    queue: SyncSender<Message>,
}

enum Message {
    Line(String),
    /// Answered when everything before it is written.
    Flush(SyncSender<()>),
}

/// Below info, libraries log what goes through them: the database's driver, for one, every parameter of a statement.
fn may_be_logged(metadata: &Metadata<'_>) -> bool {
    let ours = metadata.target() == "access" || metadata.target().split("::").next() == Some("keyward");
    ours || metadata.level() <= Level::Info
}

static DROPPED: AtomicU64 = AtomicU64::new(0);

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        may_be_logged(metadata) && self.filter.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !may_be_logged(record.metadata()) || !self.filter.matches(record) {
            return;
        }
        let line = match self.format {
            LogFormat::Text => text_line(record),
            LogFormat::Json => json_line(record),
        };
        if let Err(TrySendError::Full(_)) = self.queue.try_send(Message::Line(line)) {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn flush(&self) {
        let (written, is_written) = sync_channel(1);
        if self.queue.try_send(Message::Flush(written)).is_ok() {
            // Standard error may be a pipe that nobody reads any more.
            let _ = is_written.recv_timeout(Duration::from_secs(1));
        }
    }
}

fn write_lines(messages: Receiver<Message>) {
    let mut output = std::io::BufWriter::with_capacity(64 * 1024, std::io::stderr());
    // Whether standard error takes what is written is beyond us: there is nowhere else to tell.
    while let Ok(first) = messages.recv() {
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Line(line) => {
                    let _ = output.write_all(line.as_bytes());
                }
                Message::Flush(written) => {
                    let _ = output.flush();
                    let _ = written.send(());
                }
            }
            next = messages.try_recv().ok();
        }
        let dropped = DROPPED.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            let _ = writeln!(output, "{dropped} log lines were dropped: standard error takes them too slowly");
        }
        let _ = output.flush();
    }
}

fn now() -> String {
    Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true)
}

fn text_line(record: &Record<'_>) -> String {
    struct Fields<'a>(&'a mut String);
    impl<'kvs> VisitSource<'kvs> for Fields<'_> {
        fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), log::kv::Error> {
            let _ = write!(self.0, " {key}={value}");
            Ok(())
        }
    }
    let mut line = String::with_capacity(256);
    let _ = write!(line, "{} {:5} {}", now(), record.level(), record.target());
    let message = record.args().to_string();
    if !message.is_empty() {
        // One event is one line, whatever is in it.
        let _ = write!(line, ": {}", message.replace(['\n', '\r'], " "));
    }
    let _ = record.key_values().visit(&mut Fields(&mut line));
    line.push('\n');
    line
}

fn json_line(record: &Record<'_>) -> String {
    struct Fields<'a>(&'a mut serde_json::Map<String, serde_json::Value>);
    impl<'kvs> VisitSource<'kvs> for Fields<'_> {
        fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), log::kv::Error> {
            let value = match (value.to_u64(), value.to_f64()) {
                (Some(number), _) => number.into(),
                (None, Some(number)) => number.into(),
                (None, None) => value.to_string().into(),
            };
            self.0.insert(key.to_string(), value);
            Ok(())
        }
    }
    let mut fields = serde_json::Map::new();
    fields.insert("time".to_string(), now().into());
    fields.insert("level".to_string(), record.level().as_str().into());
    fields.insert("target".to_string(), record.target().into());
    let message = record.args().to_string();
    if !message.is_empty() {
        fields.insert("message".to_string(), message.into());
    }
    let _ = record.key_values().visit(&mut Fields(&mut fields));
    let mut line = serde_json::Value::Object(fields).to_string();
    line.push('\n');
    line
}

/// One answered request.
pub struct Access<'a> {
    pub method: &'a str,
    /// Without its query.
    pub path: &'a str,
    pub status: u16,
    pub duration: Duration,
    pub request_id: &'a str,
    pub principal: &'a Principal,
}

/// Writes the access line of a request.
pub fn access(access: &Access<'_>) {
    if !log::log_enabled!(target: "access", Level::Info) {
        return;
    }
    let path = loggable_path(access.path);
    let duration_ms = access.duration.as_micros() as f64 / 1000.0;
    let principal = match access.principal {
        Principal::Anonymous => "-".to_string(),
        Principal::User(user) => format!("user:{}", user.id),
        Principal::Service(service) => format!("key:{}", service.key),
    };
    log::info!(
        target: "access",
        method = access.method,
        path = path.as_str(),
        status = access.status,
        duration_ms = duration_ms,
        request_id = access.request_id,
        principal = principal.as_str();
        ""
    );
}

/// A path that is safe to log. A key or a token that someone put into a path is longer than any segment of ours, so
/// long segments are cut; what is not plain ASCII is escaped.
fn loggable_path(path: &str) -> String {
    const LONGEST_SEGMENT: usize = 40;
    let mut shown = String::with_capacity(path.len().min(256));
    for (index, segment) in path.split('/').enumerate() {
        if index > 0 {
            shown.push('/');
        }
        if index > 16 {
            shown.push('…');
            break;
        }
        let cut = segment.len() > LONGEST_SEGMENT;
        let bytes = &segment.as_bytes()[..if cut { 8 } else { segment.len() }];
        let _ = write!(shown, "{}", bytes.escape_ascii());
        if cut {
            shown.push('…');
        }
    }
    shown
}

/// An id for a request that brought none: unique among all instances, and no secret.
pub fn new_request_id() -> HeaderValue {
    static INSTANCE: LazyLock<u64> = LazyLock::new(|| RandomState::new().build_hasher().finish());
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    HeaderValue::try_from(format!("{:016x}{count:08x}", *INSTANCE)).unwrap_or(HeaderValue::from_static("unknown"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_or_token_in_a_path_is_not_logged() {
        let key = format!("/keys/sk_{}", "5e".repeat(32));
        assert_eq!(loggable_path(&key), "/keys/sk_5e5e5…");
        let id = "/keys/0192f0c1-0000-7000-8000-000000000000";
        assert_eq!(loggable_path(id), id);
    }

    #[test]
    fn a_path_cannot_forge_a_line() {
        assert_eq!(loggable_path("/a\u{2028}b"), "/a\\xe2\\x80\\xa8b");
    }
}
