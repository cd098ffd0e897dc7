//! The log: what is written, in which form, and the thread that writes the lines of all others to standard error.

use std::borrow::Cow;
use std::cell::Cell;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::Thread;
use std::time::Duration;

use chrono::Utc;
use log::kv::{Key, Value, VisitSource};
use log::{Level, LevelFilter, Log, Metadata, Record};
use serde::Serialize;

use crate::base::sharded::{Sharded, lock};

/// The settings of the log.
#[derive(Clone, Debug, Default)]
pub struct LogSettings {
    /// In the language of `RUST_LOG`.
    pub filter: String,
    pub format: LogFormat,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One line, fields as `name=value`.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    pub(crate) fn parse(text: &str) -> Option<LogFormat> {
        match text {
            "text" => Some(LogFormat::Text),
            "json" => Some(LogFormat::Json),
            _ => None,
        }
    }
}

/// Bytes of waiting lines for each thread. Further lines are dropped and counted: a reader of the log that hangs must
/// not stop the service.
const WAITING: usize = 1024 * 1024;
/// How long lines are gathered before they are written: one write for each line would cost more than the request
/// itself.
const GATHERING: Duration = Duration::from_millis(5);

/// Starts the log. Lines go to standard error.
pub(crate) fn start(settings: &LogSettings) {
    let filter = env_logger::Builder::new().parse_filters(&settings.filter).build();
    let level = filter.filter();
    let lines = Arc::new(Lines::default());
    let writer = {
        let lines = lines.clone();
        std::thread::Builder::new().name("log".to_string()).spawn(move || write_lines(&lines))
    };
    if let Ok(writer) = writer
        && log::set_boxed_logger(Box::new(Logger {
            filter,
            format: settings.format,
            lines,
            writer: writer.thread().clone(),
        }))
        .is_ok()
    {
        log::set_max_level(level);
    }
    std::panic::set_hook(Box::new(|panic| log::error!("{panic}")));
}

/// Errors and warnings to standard error, at once and without decoration: for commands that end by themselves.
pub(crate) fn start_plain() {
    struct Plain;
    impl Log for Plain {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            metadata.level() <= Level::Warn
        }
        fn log(&self, record: &Record<'_>) {
            if self.enabled(record.metadata()) {
                let _ = writeln!(std::io::stderr(), "keyward: {}", printable(&record.args().to_string()));
            }
        }
        fn flush(&self) {}
    }
    if log::set_logger(&Plain).is_ok() {
        log::set_max_level(LevelFilter::Warn);
    }
}

/// Escapes control characters, so that a file's name or another program's message stays one line and cannot control the
/// terminal.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut line = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match character {
            '\n' | '\r' => line.push(' '),
            control if control.is_control() => line.extend(control.escape_default()),
            character => line.push(character),
        }
    }
    Cow::Owned(line)
}

/// The target of the last line.
const LAST: &str = "keyward::end";
/// After this, only the last line is written.
static ENDED: AtomicBool = AtomicBool::new(false);

/// Writes all waiting lines, then the last one. What other threads log afterwards is dropped.
pub(crate) fn finish() {
    ENDED.store(true, Ordering::SeqCst);
    log::logger().flush();
    log::info!(target: LAST, "stopped");
    log::logger().flush();
}

struct Logger {
    filter: env_logger::Logger,
    format: LogFormat,
    lines: Arc<Lines>,
    writer: Thread,
}

/// Lines that wait to be written.
#[derive(Default)]
struct Lines {
    /// In order for each thread. Lines of different threads may change places within a few milliseconds.
    waiting: Sharded<Vec<u8>>,
    /// Whether the writer has been woken.
    told: AtomicBool,
    dropped: AtomicU64,
    /// Answered once everything that waits now is written.
    flushes: Mutex<Vec<SyncSender<()>>>,
}

/// Below the level info, libraries log the data that they handle: the database driver, for example, logs every
/// parameter of a statement.
fn may_be_logged(metadata: &Metadata<'_>) -> bool {
    let ours = metadata.target() == "access" || metadata.target().split("::").next() == Some("keyward");
    ours || metadata.level() <= Level::Info
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        may_be_logged(metadata) && self.filter.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !may_be_logged(record.metadata()) || !self.filter.matches(record) {
            return;
        }
        if ENDED.load(Ordering::Relaxed) && record.target() != LAST {
            return;
        }
        thread_local! {
            static LINE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
        }
        // Outside the lock, because formatting a value may itself log something.
        let mut line = LINE.take();
        line.clear();
        match self.format {
            LogFormat::Text => text_line(&mut line, record),
            LogFormat::Json => json_line(&mut line, record),
        }
        {
            let mut waiting = self.lines.waiting.mine();
            if waiting.len() + line.len() <= WAITING {
                waiting.extend_from_slice(&line);
            } else {
                self.lines.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
        LINE.set(line);
        // Read before it is written: a write would slow down all threads, which share it.
        if !self.lines.told.load(Ordering::SeqCst) && !self.lines.told.swap(true, Ordering::SeqCst) {
            self.writer.unpark();
        }
    }

    fn flush(&self) {
        let (written, is_written) = sync_channel(1);
        lock(&self.lines.flushes).push(written);
        self.lines.told.store(true, Ordering::SeqCst);
        self.writer.unpark();
        // Standard error may be a pipe that nobody reads.
        let _ = is_written.recv_timeout(Duration::from_secs(1));
    }
}

fn write_lines(lines: &Lines) {
    let mut output = std::io::stderr();
    let mut taken = Vec::new();
    loop {
        while !lines.told.load(Ordering::SeqCst) {
            std::thread::park();
        }
        if lock(&lines.flushes).is_empty() {
            std::thread::park_timeout(GATHERING);
        }
        // Before the lines are taken: a line that comes later wakes the writer again.
        lines.told.store(false, Ordering::SeqCst);
        let flushes = std::mem::take(&mut *lock(&lines.flushes));
        for waiting in lines.waiting.all() {
            std::mem::swap(&mut *lock(waiting), &mut taken);
            // If standard error fails, there is nowhere else to report it.
            let _ = output.write_all(&taken);
            taken.clear();
        }
        let dropped = lines.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            let _ = writeln!(output, "{dropped} log lines were dropped: standard error takes them too slowly");
        }
        for flush in flushes {
            let _ = flush.send(());
        }
    }
}

/// RFC 3339 in UTC, with milliseconds.
fn write_now(line: &mut Vec<u8>) {
    thread_local! {
        /// The text of the current second, without its fraction.
        static SECOND: Cell<(i64, [u8; 19])> = const { Cell::new((i64::MIN, [0; 19])) };
    }
    let now = Utc::now();
    let (mut second, mut text) = SECOND.get();
    if second != now.timestamp() {
        second = now.timestamp();
        let _ = write!(&mut text[..], "{}", now.format("%Y-%m-%dT%H:%M:%S"));
        SECOND.set((second, text));
    }
    line.extend_from_slice(&text);
    let _ = write!(line, ".{:03}Z", now.timestamp_subsec_millis());
}

fn text_line(line: &mut Vec<u8>, record: &Record<'_>) {
    struct Fields<'a>(&'a mut Vec<u8>);
    impl<'kvs> VisitSource<'kvs> for Fields<'_> {
        fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), log::kv::Error> {
            let _ = write!(self.0, " {key}={value}");
            Ok(())
        }
    }
    write_now(line);
    let _ = write!(line, " {:5} {}", record.level(), record.target());
    let message = record.args();
    if message.as_str() != Some("") {
        let _ = write!(line, ": {}", printable(&message.to_string()));
    }
    let _ = record.key_values().visit(&mut Fields(line));
    line.push(b'\n');
}

fn json_line(line: &mut Vec<u8>, record: &Record<'_>) {
    struct Fields<'a>(&'a mut Vec<u8>);
    impl<'kvs> VisitSource<'kvs> for Fields<'_> {
        fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), log::kv::Error> {
            match (value.to_u64(), value.to_f64()) {
                (Some(number), _) => write_field(self.0, key.as_str(), &number),
                (None, Some(number)) => write_field(self.0, key.as_str(), &number),
                (None, None) => match value.to_borrowed_str() {
                    Some(text) => write_field(self.0, key.as_str(), text),
                    None => write_field(self.0, key.as_str(), &value.to_string()),
                },
            }
            Ok(())
        }
    }
    line.extend_from_slice(b"{\"time\":\"");
    write_now(line);
    line.push(b'"');
    write_field(line, "level", record.level().as_str());
    write_field(line, "target", record.target());
    let message = record.args();
    if message.as_str() != Some("") {
        write_field(line, "message", &message.to_string());
    }
    let _ = record.key_values().visit(&mut Fields(line));
    line.extend_from_slice(b"}\n");
}

/// `,"name":value`
fn write_field<T: Serialize + ?Sized>(line: &mut Vec<u8>, name: &str, value: &T) {
    line.push(b',');
    // Writing these types to memory cannot fail.
    let _ = serde_json::to_writer(&mut *line, name);
    line.push(b':');
    let _ = serde_json::to_writer(&mut *line, value);
}
