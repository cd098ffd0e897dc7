//! Talking to the mail server: lettre writes and reads the commands; which of them a fault belongs to, and how long all of
//! them may take, is decided here.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lettre::Address;
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{SmtpConnection, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt};
use lettre::transport::smtp::extension::{ClientId, Extension, MailBodyParameter, MailParameter};
use lettre::transport::smtp::response::Response;

use crate::base::sharded::lock;
use crate::mail::smtp_url::{Protection, SmtpUrl};
use crate::outbox::delivery::Answer;

/// How long the server may take.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// For connecting to an address, and for each answer.
    step: Duration,
    /// For one mail, whatever the server does.
    whole: Duration,
}

const PATIENCE: Patience = Patience { step: Duration::from_secs(10), whole: Duration::from_secs(30) };
/// How long a connection is kept for the next mail, and how many. Servers end those that say nothing.
const IDLE: Duration = Duration::from_secs(15);
const KEPT: usize = 4;
/// How many threads may still hang at a server that was given up. Each ends when the server ends it, or says nothing for a
/// while, or sends too much.
const HANGING: usize = 16;
/// Of an answer, in bytes.
const LONGEST_ANSWER: usize = 1024;

/// Why a mail was not taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fault {
    pub status: Option<u16>,
    /// What happened, without anything that the server says.
    pub reason: String,
    /// What the server says. It often repeats the address.
    pub said: Option<String>,
    pub timed_out: bool,
    /// The server does not want this mail to this recipient, however often it is tried.
    pub is_final: bool,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)?;
        self.said.as_ref().map_or(Ok(()), |said| write!(f, ": {said}"))
    }
}

impl Fault {
    fn new(reason: impl Into<String>) -> Fault {
        Fault { reason: reason.into(), ..Fault::default() }
    }

    fn of(step: &str, error: &lettre::transport::smtp::Error) -> Fault {
        if error.is_timeout() || waited_too_long(error) {
            return Fault { timed_out: true, ..Fault::new(format!("{step}: the server does not answer")) };
        }
        let said = || std::error::Error::source(error).map(|source| shortened(&source.to_string()));
        match error.status().map(u16::from) {
            Some(status) => Fault {
                status: Some(status),
                said: said(),
                ..Fault::new(format!("{step}: the server answers {status}"))
            },
            None if error.is_response() => {
                Fault { said: said(), ..Fault::new(format!("{step}: the server's answer is none")) }
            }
            None => {
                // Without the library's words before it, which say what the step says.
                let cause = said().unwrap_or_else(|| shortened(&error.to_string()));
                Fault::new(format!("{step}: {cause}"))
            }
        }
    }

    /// For a step that is about this mail, not about us: a 5xx there is the last word, unless it asks us to log in (530).
    fn of_this_mail(step: &str, error: &lettre::transport::smtp::Error) -> Fault {
        let fault = Fault::of(step, error);
        Fault { is_final: error.is_permanent() && fault.status != Some(530), ..fault }
    }
}

fn waited_too_long(error: &lettre::transport::smtp::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<std::io::Error>() {
            return matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut);
        }
        source = error.source();
    }
    false
}

fn shortened(text: &str) -> String {
    let ends = text.char_indices().map(|(at, character)| at + character.len_utf8());
    let end = ends.take_while(|end| *end <= LONGEST_ANSWER).last().unwrap_or(0);
    text[..end].chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

/// A mail that is ready.
#[derive(Clone, Debug)]
pub(crate) struct Envelope {
    pub from: Address,
    pub to: Address,
    pub letter: Vec<u8>,
}

struct Idle {
    connection: SmtpConnection,
    since: Instant,
}

/// The mail server.
pub struct Smtp {
    url: SmtpUrl,
    patience: Patience,
    idle: Mutex<Vec<Idle>>,
    /// The threads whose server was given up.
    hanging: AtomicUsize,
}

impl fmt::Debug for Smtp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Smtp").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Smtp {
    pub(crate) fn new(url: SmtpUrl) -> Arc<Smtp> {
        Smtp::with(url, PATIENCE)
    }

    fn with(url: SmtpUrl, patience: Patience) -> Arc<Smtp> {
        Arc::new(Smtp { url, patience, idle: Mutex::default(), hanging: AtomicUsize::new(0) })
    }

    /// For messages.
    pub(crate) fn place(&self) -> String {
        let SmtpUrl { host, port, .. } = &self.url;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }

    /// Sends one mail, and takes no longer than [`Patience::whole`] for it: on a thread of its own, because a server that
    /// sends a byte now and then, or a name that is not resolved, is bounded by no timeout of a socket.
    pub(crate) fn send(self: &Arc<Self>, envelope: Envelope) -> Result<Answer, Fault> {
        if self.hanging.load(Ordering::SeqCst) >= HANGING {
            return Err(Fault { timed_out: true, ..Fault::new("the server does not answer") });
        }
        // Without a place in it: the thread learns whether somebody still waits.
        let (done, outcome) = sync_channel(0);
        let smtp = self.clone();
        let started = std::thread::Builder::new().name("smtp".to_string()).spawn(move || {
            if done.send(smtp.converse(&envelope)).is_err() {
                smtp.hanging.fetch_sub(1, Ordering::SeqCst);
            }
        });
        started.map_err(|error| Fault::new(format!("a thread cannot be started: {error}")))?;
        match outcome.recv_timeout(self.patience.whole) {
            Ok(outcome) => outcome,
            Err(RecvTimeoutError::Timeout) => {
                self.hanging.fetch_add(1, Ordering::SeqCst);
                Err(Fault { timed_out: true, ..Fault::new("the server is too slow") })
            }
            Err(RecvTimeoutError::Disconnected) => Err(Fault::new("the thread that talks to the server panicked")),
        }
    }

    fn converse(&self, envelope: &Envelope) -> Result<Answer, Fault> {
        let deadline = Instant::now() + self.patience.whole;
        let mut connection = self.connection()?;
        let response = hand_over(&mut connection, envelope, deadline, self.patience.step).inspect_err(|fault| {
            if !fault.timed_out {
                connection.abort();
            }
        })?;
        let text = shortened(&response.message().collect::<Vec<_>>().join(" "));
        let mut idle = lock(&self.idle);
        if idle.len() < KEPT {
            idle.push(Idle { connection, since: Instant::now() });
        }
        Ok(Answer { status: Some(u16::from(response.code())), text: Some(text) })
    }

    /// One that is kept and still answers, or a new one.
    fn connection(&self) -> Result<SmtpConnection, Fault> {
        loop {
            let Some(mut kept) = lock(&self.idle).pop() else { return self.connect() };
            let _ = kept.connection.set_timeout(Some(self.patience.step));
            if kept.since.elapsed() < IDLE && kept.connection.test_connected() {
                return Ok(kept.connection);
            }
        }
    }

    fn connect(&self) -> Result<SmtpConnection, Fault> {
        let SmtpUrl { host, port, protection, login } = &self.url;
        let hello = ClientId::default();
        let tls = match protection {
            Protection::None => None,
            Protection::Implicit | Protection::Required => Some(TlsParameters::builder(host.clone()).build()),
            Protection::Opportunistic => {
                let any = TlsParameters::builder(host.clone()).dangerous_accept_invalid_certs(true);
                Some(any.dangerous_accept_invalid_hostnames(true).build())
            }
        };
        let tls = tls.transpose().map_err(|error| Fault::of("TLS", &error))?;
        let at_once = tls.as_ref().filter(|_| *protection == Protection::Implicit);
        let mut connection =
            SmtpConnection::connect((host.as_str(), *port), Some(self.patience.step), &hello, at_once, None)
                .map_err(|error| Fault::of("connecting", &error))?;
        let upgrades = match protection {
            Protection::Required => true,
            Protection::Opportunistic => connection.can_starttls(),
            Protection::Implicit | Protection::None => false,
        };
        if let Some(tls) = tls.as_ref().filter(|_| upgrades) {
            connection.starttls(tls, &hello).map_err(|error| Fault::of("STARTTLS", &error))?;
        }
        if let Some((user, password)) = login {
            let credentials = Credentials::new(user.clone(), password.expose().to_string());
            connection.auth(DEFAULT_MECHANISMS, &credentials).map_err(|error| Fault::of("logging in", &error))?;
        }
        Ok(connection)
    }
}

fn hand_over(
    connection: &mut SmtpConnection,
    envelope: &Envelope,
    deadline: Instant,
    longest: Duration,
) -> Result<Response, Fault> {
    let Envelope { from, to, letter } = envelope;
    let mut parameters = Vec::new();
    let offers = |extension| connection.server_info().supports_feature(extension);
    if !to.user().is_ascii() {
        if !offers(Extension::SmtpUtfEight) {
            let reason = "the server takes no addresses with such letters (SMTPUTF8)";
            return Err(Fault { is_final: true, ..Fault::new(reason) });
        }
        parameters.push(MailParameter::SmtpUtfEight);
        if offers(Extension::EightBitMime) {
            parameters.push(MailParameter::Body(MailBodyParameter::EightBitMime));
        }
    }
    let mut step =
        |command: &mut dyn FnMut(&mut SmtpConnection) -> Result<Response, lettre::transport::smtp::Error>| {
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            // A socket that takes no timeout is closed, and the command says so.
            let _ = connection.set_timeout(Some(left.min(longest)));
            command(connection)
        };
    step(&mut |connection| connection.command(Mail::new(Some(from.clone()), parameters.clone())))
        .map_err(|error| Fault::of("MAIL FROM", &error))?;
    step(&mut |connection| connection.command(Rcpt::new(to.clone(), Vec::new())))
        .map_err(|error| Fault::of_this_mail("RCPT TO", &error))?;
    step(&mut |connection| connection.command(Data)).map_err(|error| Fault::of_this_mail("DATA", &error))?;
    step(&mut |connection| connection.message(letter)).map_err(|error| Fault::of_this_mail("the mail", &error))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// Sends a mail to a server that does this with the connection.
    fn send_to(patience: Patience, server: fn(TcpStream)) -> (Arc<Smtp>, Result<Answer, Fault>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("smtp://{}?tls=none", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                server(stream.unwrap());
            }
        });
        let smtp = Smtp::with(SmtpUrl::parse(&url).unwrap(), patience);
        let [from, to] = ["a@example.com", "b@example.com"].map(|address| address.parse().unwrap());
        let sent = smtp.send(Envelope { from, to, letter: b"Subject: a\r\n\r\nb".to_vec() });
        (smtp, sent)
    }

    #[test]
    fn a_server_that_says_nothing_is_given_up_after_a_step_and_one_that_never_ends_after_the_whole() {
        let millis = Duration::from_millis;
        let patience = Patience { step: millis(100), whole: millis(2000) };
        let (smtp, sent) = send_to(patience, std::mem::forget);
        let fault = sent.unwrap_err();
        assert_eq!((fault.reason.as_str(), fault.timed_out), ("connecting: the server does not answer", true));
        assert_eq!(smtp.hanging.load(Ordering::SeqCst), 0);

        let patience = Patience { step: millis(1000), whole: millis(200) };
        let (smtp, sent) = send_to(patience, |mut stream| {
            while stream.write_all(b"2").is_ok() {
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let fault = sent.unwrap_err();
        assert_eq!((fault.reason.as_str(), fault.timed_out), ("the server is too slow", true));
        assert_eq!(smtp.hanging.load(Ordering::SeqCst), 1);
        smtp.hanging.store(HANGING, Ordering::SeqCst);
        let [from, to] = ["a@example.com", "b@example.com"].map(|address| address.parse().unwrap());
        let fault = smtp.send(Envelope { from, to, letter: Vec::new() }).unwrap_err();
        assert_eq!((fault.reason.as_str(), fault.timed_out), ("the server does not answer", true));
    }

    #[test]
    fn what_a_server_says_is_told_on_one_line_of_bounded_length() {
        let (_, sent) = send_to(PATIENCE, |mut stream| {
            let _ = stream.write_all(b"554 go\x07away\r\n");
            let _ = stream.read(&mut [0; 64]);
        });
        let fault = sent.unwrap_err();
        assert_eq!((fault.status, fault.is_final, fault.timed_out), (Some(554), false, false));
        assert_eq!(fault.reason, "connecting: the server answers 554");
        assert_eq!(fault.to_string(), "connecting: the server answers 554: go away");
        assert_eq!(shortened(&"ä".repeat(2000)), "ä".repeat(512));
    }
}
