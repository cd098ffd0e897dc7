//! A real mail server (aiosmtpd) that records what it gets, and refuses, hangs or drops the connection as a test says.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use serde_json::{Value, json};

use crate::http_client::PATIENCE;
use crate::tls_client::Pair;
use crate::tools::{Tool, installed};

/// How clients reach it.
pub enum Way<'a> {
    Plain,
    StartTls(&'a Pair),
    Implicit(&'a Pair),
}

pub struct MailServer {
    process: Child,
    orders: ChildStdin,
    told: Receiver<Value>,
    pub port: u16,
}

/// A mail that was taken.
#[derive(Debug)]
pub struct Mail {
    /// As it came over the wire.
    pub source: String,
    pub recipients: Vec<String>,
    pub options: Vec<String>,
    pub tls: bool,
    pub login: Option<String>,
}

impl Mail {
    /// A field of the head, unfolded.
    #[track_caller]
    pub fn header(&self, name: &str) -> String {
        let head = self.source.split("\r\n\r\n").next().unwrap().replace("\r\n ", " ");
        let field = head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
        field.unwrap_or_else(|| panic!("no {name} in {head}")).to_string()
    }

    /// The plain text, decoded.
    #[track_caller]
    pub fn text(&self) -> String {
        self.part("text/plain")
    }

    /// The HTML, decoded.
    #[track_caller]
    pub fn html(&self) -> String {
        self.part("text/html")
    }

    #[track_caller]
    fn part(&self, kind: &str) -> String {
        let (_, part) = self.source.split_once(&format!("Content-Type: {kind}; charset=utf-8\r\n")).unwrap();
        let (head, body) = part.split_once("\r\n\r\n").unwrap();
        let body = body.split("\r\n--").next().unwrap();
        match head.strip_prefix("Content-Transfer-Encoding: ").unwrap() {
            "quoted-printable" => unquote(body),
            "7bit" => body.replace("\r\n", "\n"),
            other => panic!("{other} in {}", self.source),
        }
    }

    /// The one link in the text.
    #[track_caller]
    pub fn link(&self) -> String {
        let text = self.text();
        let links: Vec<&str> = text.lines().filter(|line| line.starts_with("http")).collect();
        assert_eq!(links.len(), 1, "{text}");
        links[0].to_string()
    }
}

fn unquote(text: &str) -> String {
    let joined = text.replace("=\r\n", "").replace("\r\n", "\n");
    let (mut bytes, mut rest) = (Vec::new(), joined.as_bytes());
    while let [first, behind @ ..] = rest {
        if *first == b'=' {
            let digits = std::str::from_utf8(&behind[..2]).unwrap();
            bytes.push(u8::from_str_radix(digits, 16).unwrap());
            rest = &behind[2..];
        } else {
            bytes.push(*first);
            rest = behind;
        }
    }
    String::from_utf8(bytes).unwrap()
}

/// Where `.ci/install` puts Python's packages.
pub(crate) fn packages() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/python")
}

impl MailServer {
    /// `None`: aiosmtpd is not installed, and the test counts as skipped.
    #[track_caller]
    pub fn start() -> Option<MailServer> {
        MailServer::start_with(Way::Plain, None, true)
    }

    /// `login`: the user and the password without which it takes nothing. `utf8`: whether it offers SMTPUTF8.
    #[track_caller]
    pub fn start_with(way: Way<'_>, login: Option<(&str, &str)>, utf8: bool) -> Option<MailServer> {
        if !installed(&[Tool::Aiosmtpd]) {
            return None;
        }
        let (tls, pair) = match way {
            Way::Plain => ("none", None),
            Way::StartTls(pair) => ("starttls", Some(pair)),
            Way::Implicit(pair) => ("implicit", Some(pair)),
        };
        let options = json!({
            "tls": tls,
            "certificate": pair.map(|pair| &pair.certificate),
            "key": pair.map(|pair| &pair.key),
            "login": login,
            "utf8": utf8,
        });
        let mut command = Command::new("python3");
        command.args(["-W", "ignore", "-c", include_str!("mail_server.py"), &options.to_string()]);
        command.env("PYTHONPATH", packages()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = command.spawn().unwrap();
        let (orders, output) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        let (sender, told) = channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(serde_json::from_str(&line).unwrap()).is_err() {
                    break;
                }
            }
        });
        let mut server = MailServer { process, orders, told, port: 0 };
        server.port = u16::try_from(server.wait_for("port")["port"].as_u64().unwrap()).unwrap();
        Some(server)
    }

    /// For `SMTP_URL`, without TLS.
    pub fn url(&self) -> String {
        format!("smtp://127.0.0.1:{}?tls=none", self.port)
    }

    /// From now on, at this step (`connect`, `EHLO`, `MAIL`, `RCPT`, `DATA`): an answer such as `550 no`, `once 451 later`,
    /// `hang`, `drip` (a byte a second) or `drop`; nothing: as usual.
    pub fn at(&mut self, step: &str, what: &str) {
        writeln!(self.orders, "{step} {what}").unwrap();
        self.wait_for("set");
    }

    /// Waits for the next mail.
    #[track_caller]
    pub fn mail(&self) -> Mail {
        let told = self.wait_for("mail");
        let texts =
            |name: &str| told[name].as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_string()).collect();
        Mail {
            source: told["mail"].as_str().unwrap().to_string(),
            recipients: texts("recipients"),
            options: texts("options"),
            tls: told["tls"].as_bool().unwrap(),
            login: told["login"].as_str().map(str::to_string),
        }
    }

    /// Waits until a client is at this step.
    #[track_caller]
    pub fn wait_for_step(&self, step: &str) {
        while self.wait_for("step")["step"] != step {}
    }

    /// Passes over everything else.
    #[track_caller]
    fn wait_for(&self, what: &str) -> Value {
        loop {
            let Ok(told) = self.told.recv_timeout(PATIENCE) else { panic!("the mail server tells no {what}") };
            if told.get(what).is_some() {
                return told;
            }
        }
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
