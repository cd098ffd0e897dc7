//! The command line: the server, and what an operator does beside it. Exit codes: 0 done, 1 failed, 2 misused.

use std::ffi::OsString;
use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use pico_args::Arguments;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use serde_json::json;

use crate::accounts::email::Email;
use crate::accounts::passwords::{NewPassword, PasswordRules};
use crate::accounts::user::{User, UserRef, parse_name};
use crate::app::App;
use crate::audit::event::{Actor, Event, Filter, Kind, Subject};
use crate::base::clock::{Clock, Timestamp};
use crate::base::error::{Error, StoreError};
use crate::base::id::KeyId;
use crate::base::logging::{self, printable};
use crate::base::tls_verifier::Verifier;
use crate::config::{self, Config};
use crate::keys::key::ApiKey;
use crate::run::database;
use crate::run::signals::{End, Signals};
use crate::run::{self, Keyward};
use crate::store::postgres::Patience;

const USAGE: &str = "\
Keyward: users, sessions and API keys for your services.

Usage: keyward [COMMAND] [OPTIONS]

Commands:
  serve                     Answer requests (this is what keyward does without a command)
  migrate [--check]         Bring the database up to date; with --check, only report what is missing
  user list                 All users
  user show USER            One user; USER is an e-mail or an id
  user create EMAIL [--name NAME]
                            Make a user; the password is asked for, or read from standard input
  user activate USER        Let a user log in and his keys speak again
  user deactivate USER      End a user's sessions and silence his keys, at once
  user set-password USER    Set a password and end the user's sessions
  user delete USER          Delete a user with his sessions and keys
  key list [--user USER]    All keys, or one user's; never the keys themselves
  key revoke ID             Revoke a key
  events [--user USER] [--type TYPE] [--since TIME]
                            What happened to accounts, sessions and keys, oldest first; TIME is RFC 3339
  healthcheck               Exit with 0 if the server of these settings answers, else with 1

Options:
  --json                    Machine-readable output of user, key and events commands
  -h, --help                This text
  -V, --version             The version

Settings, from the environment or from .env in the working directory [default]:
";

/// Why a command did not do what it was told.
enum Failure {
    /// The command line makes no sense.
    Usage(String),
    /// One line for the operator.
    Failed(String),
    /// The log has told it.
    Logged,
    /// Nobody reads our output any more.
    OutputClosed,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Failed(match error {
            Error::Unavailable(cause) | Error::Internal(cause) => cause,
            Error::NotFound(what) => what.into_owned(),
            Error::Forbidden(what) => what.to_string(),
            Error::Conflict(what) => what.into_owned(),
            other => format!("{other:?}"),
        })
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        Failure::Failed(error.to_string())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::OutputClosed,
            _ => Failure::Failed(error.to_string()),
        }
    }
}

impl From<pico_args::Error> for Failure {
    fn from(error: pico_args::Error) -> Failure {
        Failure::Usage(error.to_string())
    }
}

/// Runs the command that the arguments name (without the program's own name).
pub fn run(arguments: Vec<OsString>) -> ExitCode {
    match dispatch(Arguments::from_vec(arguments)) {
        Ok(()) | Err(Failure::OutputClosed) => ExitCode::SUCCESS,
        // Standard error may be closed as well; the exit code says it all the same.
        Err(Failure::Failed(line)) => {
            let _ = writeln!(io::stderr(), "keyward: {}", printable(&line));
            ExitCode::from(1)
        }
        Err(Failure::Logged) => ExitCode::from(1),
        Err(Failure::Usage(line)) => {
            let _ = writeln!(io::stderr(), "keyward: {}; see keyward --help", printable(&line));
            ExitCode::from(2)
        }
    }
}

fn dispatch(mut arguments: Arguments) -> Result<(), Failure> {
    if arguments.contains(["-h", "--help"]) {
        return Ok(write!(io::stdout(), "{USAGE}{}", config::help())?);
    }
    if arguments.contains(["-V", "--version"]) {
        return Ok(writeln!(io::stdout(), "keyward {}", env!("CARGO_PKG_VERSION"))?);
    }
    let command = arguments.subcommand()?;
    match command.as_deref() {
        None | Some("serve") => serve(arguments),
        Some("migrate") => migrate(arguments),
        Some("user") => user(arguments),
        Some("key") => key(arguments),
        Some("events") => events(arguments),
        Some("healthcheck") => healthcheck(arguments),
        Some(other) => Err(Failure::Usage(format!("there is no command {other:?}"))),
    }
}

/// Refuses what no command has read.
fn finish(arguments: Arguments) -> Result<(), Failure> {
    match arguments.finish().first() {
        None => Ok(()),
        Some(unknown) => Err(Failure::Usage(format!("unknown argument {unknown:?}"))),
    }
}

fn settings() -> Result<Config, Failure> {
    Config::load().map_err(|error| Failure::Failed(error.to_string()))
}

fn serve(arguments: Arguments) -> Result<(), Failure> {
    finish(arguments)?;
    let config = settings()?;
    logging::start(&config.log);
    let outcome = Signals::register().and_then(|signals| {
        let mut keyward = Keyward::start(&config, Clock::default())?;
        let lost = keyward.lost();
        let end = signals.wait(|| keyward.reload(), lost);
        keyward.stop();
        logging::finish();
        Ok(end)
    });
    log::logger().flush();
    match outcome.map_err(Failure::Failed)? {
        End::Asked => Ok(()),
        End::Lost => Err(Failure::Logged),
    }
}

fn migrate(mut arguments: Arguments) -> Result<(), Failure> {
    let check = arguments.contains("--check");
    finish(arguments)?;
    let database = settings()?.store.database().map_err(Failure::Failed)?;
    logging::start_plain();
    let (pending, word) = if check {
        (database::pending(&database)?, "missing")
    } else {
        (database::open(&database, &Clock::default(), Arc::default(), Patience::Endless)?.1, "applied")
    };
    for migration in &pending.migrations {
        writeln!(io::stdout(), "{word}: {migration}")?;
    }
    if pending.migrations.is_empty() {
        writeln!(io::stdout(), "the database is up to date")?;
    } else if check {
        return Err(Failure::Failed(
            "the database is not up to date; keyward migrate applies what is missing".to_string(),
        ));
    }
    Ok(())
}

/// A running server looks for changes ten times a second (SQLite) or is told (PostgreSQL). When a command that ends
/// something returns, it has ended.
const HEARD_WITHIN: Duration = Duration::from_millis(250);

/// The services for a command of an operator.
fn open_app() -> Result<App, Failure> {
    let config = settings()?;
    logging::start_plain();
    run::open_operator_app(&config).map_err(Failure::Failed)
}

fn find_user(app: &App, user: &UserRef) -> Result<User, Failure> {
    app.users.find(user)?.ok_or_else(|| Failure::Failed("there is no such user".to_string()))
}

fn user(mut arguments: Arguments) -> Result<(), Failure> {
    let json = arguments.contains("--json");
    let action = arguments.subcommand()?;
    let named = |arguments: &mut Arguments| -> Result<UserRef, Failure> {
        let text: String = arguments
            .free_from_str()
            .map_err(|_| Failure::Usage("which user? An e-mail or an id is missing".to_string()))?;
        user_ref(&text)
    };
    match action.as_deref() {
        Some("list") => {
            finish(arguments)?;
            let app = open_app()?;
            let mut rows = Rows::start(json, USER_HEADER)?;
            let mut after = None;
            loop {
                let users = app.users.list(after, PAGE)?;
                for user in &users {
                    rows.write(&user_line(user), &user_json(user))?;
                }
                after = users.last().map(|user| user.id);
                if after.is_none() {
                    return rows.end();
                }
            }
        }
        Some("show") => {
            let name = named(&mut arguments)?;
            finish(arguments)?;
            let app = open_app()?;
            show_user(json, &find_user(&app, &name)?)
        }
        Some("create") => {
            let name: Option<String> = arguments.opt_value_from_str("--name")?;
            let email: String =
                arguments.free_from_str().map_err(|_| Failure::Usage("the e-mail is missing".to_string()))?;
            finish(arguments)?;
            let email = Email::parse(&email).map_err(|rule| Failure::Usage(format!("the e-mail {rule}")))?;
            let name = name.map(|name| parse_name(&name)).transpose();
            let name = name.map_err(|rule| Failure::Usage(format!("the name {rule}")))?;
            let app = open_app()?;
            let created = app.users.create(email, name, read_password(&app.password_rules)?)?;
            show_user(json, &created.ok_or_else(|| Failure::Failed("User already exists".to_string()))?)
        }
        Some(action @ ("activate" | "deactivate" | "set-password" | "delete")) => {
            let action = action.to_string();
            let name = named(&mut arguments)?;
            finish(arguments)?;
            let app = open_app()?;
            let mut user = find_user(&app, &name)?;
            let done = match action.as_str() {
                "set-password" => app.users.set_password(user.id, read_password(&app.password_rules)?)?,
                "delete" => app.users.delete(user.id)?,
                _ => {
                    user.is_active = action == "activate";
                    app.users.set_active(user.id, user.is_active)?
                }
            };
            if !done {
                return Err(Failure::Failed("there is no such user".to_string()));
            }
            std::thread::sleep(HEARD_WITHIN);
            if action == "delete" {
                let (line, object) = (format!("deleted {}", user.email), json!({ "deleted": user.id }));
                return Ok(writeln!(io::stdout(), "{}", if json { object.to_string() } else { line })?);
            }
            show_user(json, &user)
        }
        Some(other) => Err(Failure::Usage(format!("there is no command \"user {other}\""))),
        None => Err(Failure::Usage("user needs a command: list, show, create, …".to_string())),
    }
}

fn key(mut arguments: Arguments) -> Result<(), Failure> {
    let json = arguments.contains("--json");
    let action = arguments.subcommand()?;
    match action.as_deref() {
        Some("list") => {
            let owner: Option<String> = arguments.opt_value_from_str("--user")?;
            finish(arguments)?;
            let owner = owner.map(|text| user_ref(&text)).transpose()?;
            let app = open_app()?;
            let owner = owner.map(|owner| find_user(&app, &owner)).transpose()?.map(|user| user.id);
            let mut rows = Rows::start(json, KEY_HEADER)?;
            let mut after = None;
            loop {
                let mut keys = app.keys.list(owner, after.as_ref(), PAGE)?;
                for key in &keys {
                    rows.write(&key_line(key), &key_json(key))?;
                }
                after = keys.pop();
                if after.is_none() {
                    return rows.end();
                }
            }
        }
        Some("revoke") => {
            let id: String =
                arguments.free_from_str().map_err(|_| Failure::Usage("the key's id is missing".to_string()))?;
            finish(arguments)?;
            let id = KeyId::parse(&id)
                .ok_or_else(|| Failure::Usage("a key's id is a UUID; key list shows it".to_string()))?;
            if !open_app()?.keys.revoke_any(id)? {
                return Err(Failure::Failed("there is no such key".to_string()));
            }
            std::thread::sleep(HEARD_WITHIN);
            let (line, object) = (format!("revoked {id}"), json!({ "revoked": id }));
            Ok(writeln!(io::stdout(), "{}", if json { object.to_string() } else { line })?)
        }
        Some(other) => Err(Failure::Usage(format!("there is no command \"key {other}\""))),
        None => Err(Failure::Usage("key needs a command: list or revoke".to_string())),
    }
}

fn events(mut arguments: Arguments) -> Result<(), Failure> {
    let json = arguments.contains("--json");
    let user: Option<String> = arguments.opt_value_from_str("--user")?;
    let kind: Option<String> = arguments.opt_value_from_str("--type")?;
    let since: Option<String> = arguments.opt_value_from_str("--since")?;
    finish(arguments)?;
    let user = user.map(|text| user_ref(&text)).transpose()?;
    let kind = kind.map(|text| {
        let types = || Kind::ALL.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join(", ");
        Kind::parse(&text).ok_or_else(|| Failure::Usage(format!("{text:?} is none of the types {}", types())))
    });
    let since = since.map(|text| {
        let fault = "is no RFC 3339 date and time with an offset, such as 2030-01-31T12:00:00Z";
        Timestamp::parse(&text).ok_or_else(|| Failure::Usage(format!("{text:?} {fault}")))
    });
    let (kind, since) = (kind.transpose()?, since.transpose()?);
    let app = open_app()?;
    let user = match user {
        // Events outlive their user.
        Some(UserRef::Id(id)) => Some(id),
        Some(email) => Some(find_user(&app, &email)?.id),
        None => None,
    };
    let filter = Filter { user, kind, since };
    let mut rows = Rows::start(json, EVENT_HEADER)?;
    let mut page: Vec<Event> = Vec::new();
    loop {
        page = app.events.list(&filter, page.last(), PAGE)?;
        for event in &page {
            rows.write(&event_line(event), &json!(event))?;
        }
        if page.is_empty() {
            return rows.end();
        }
    }
}

fn user_ref(text: &str) -> Result<UserRef, Failure> {
    UserRef::parse(text).ok_or_else(|| Failure::Usage(format!("{text:?} is neither an e-mail nor an id")))
}

/// Rows that are fetched at once.
const PAGE: i64 = 1000;

/// A list as it comes: a table for people, or a JSON array.
struct Rows {
    output: io::BufWriter<io::Stdout>,
    json: bool,
    any: bool,
}

impl Rows {
    fn start(json: bool, header: &str) -> Result<Rows, Failure> {
        let mut output = io::BufWriter::new(io::stdout());
        if json {
            write!(output, "[")?
        } else {
            writeln!(output, "{header}")?
        }
        Ok(Rows { output, json, any: false })
    }

    fn write(&mut self, line: &str, object: &serde_json::Value) -> Result<(), Failure> {
        if self.json {
            write!(self.output, "{}\n  {object}", if self.any { "," } else { "" })?;
        } else {
            writeln!(self.output, "{line}")?;
        }
        self.any = true;
        Ok(())
    }

    fn end(mut self) -> Result<(), Failure> {
        if self.json {
            writeln!(self.output, "{}]", if self.any { "\n" } else { "" })?;
        }
        Ok(self.output.flush()?)
    }
}

// What can be long comes last; what a person wrote is escaped, or it could play tricks with the terminal.
const USER_HEADER: &str =
    "ID                                    ACTIVE  CREATED                   EMAIL                           NAME";

fn user_line(user: &User) -> String {
    let name = user.name.as_deref().unwrap_or("-").escape_debug().to_string();
    let active = if user.is_active { "yes" } else { "no" };
    format!("{:36}  {active:6}  {:24}  {:30}  {name}", user.id.to_string(), user.created_at.to_string(), user.email)
}

fn user_json(user: &User) -> serde_json::Value {
    json!({
        "id": user.id,
        "email": user.email,
        "name": user.name,
        "isActive": user.is_active,
        "createdAt": user.created_at,
    })
}

fn show_user(json: bool, user: &User) -> Result<(), Failure> {
    if json {
        return Ok(writeln!(io::stdout(), "{}", user_json(user))?);
    }
    Ok(writeln!(io::stdout(), "{USER_HEADER}\n{}", user_line(user))?)
}

const KEY_HEADER: &str = "ID                                    ACTIVE  EXPIRES                   LAST USED                 HINT           OWNER                                 NAME";

fn key_line(key: &ApiKey) -> String {
    let or_dash = |time: Option<Timestamp>| time.map_or("-".to_string(), |time| time.to_string());
    format!(
        "{:36}  {:6}  {:24}  {:24}  {:13}  {:36}  {}",
        key.id.to_string(),
        if key.is_active { "yes" } else { "no" },
        or_dash(key.expires_at),
        or_dash(key.last_used_at),
        key.hint,
        key.owner.to_string(),
        key.name.escape_debug()
    )
}

fn key_json(key: &ApiKey) -> serde_json::Value {
    json!({
        "id": key.id,
        "userId": key.owner,
        "name": key.name,
        "hint": key.hint,
        "isActive": key.is_active,
        "expiresAt": key.expires_at,
        "lastUsedAt": key.last_used_at,
        "createdAt": key.created_at,
        "revokedAt": key.revoked_at,
    })
}

const EVENT_HEADER: &str = "TIME                      TYPE                    COUNT  USER                                  ACTOR                                         SUBJECT                                       IP               REQUEST                               DETAILS";

fn event_line(event: &Event) -> String {
    let actor = match event.actor {
        Actor::Anonymous => "anonymous".to_string(),
        Actor::User { session_id } => format!("session {session_id}"),
        Actor::Key { key_id } => format!("key {key_id}"),
        Actor::Operator => "operator".to_string(),
    };
    let subject = event.subject.map(|subject| match subject {
        Subject::User(id) => format!("user {id}"),
        Subject::Session(id) => format!("session {id}"),
        Subject::Key(id) => format!("key {id}"),
    });
    let or_dash = |text: Option<String>| text.unwrap_or("-".to_string());
    format!(
        "{:24}  {:22}  {:5}  {:36}  {actor:44}  {:44}  {:15}  {:36}  {}",
        event.at.to_string(),
        event.kind.as_str(),
        event.count,
        or_dash(event.user.map(|id| id.to_string())),
        or_dash(subject),
        or_dash(event.ip.map(|ip| ip.to_string())),
        or_dash(event.request_id.clone()),
        serde_json::Value::Object(event.details.clone()),
    )
}

/// Asks at a terminal, without echo; otherwise reads the first line of standard input. Never an argument: those are
/// seen by everyone on the machine.
fn read_password(rules: &PasswordRules) -> Result<NewPassword, Failure> {
    let stdin = io::stdin();
    let mut line = String::new();
    if stdin.is_terminal() {
        use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
        let usual = tcgetattr(&stdin).map_err(io::Error::from)?;
        let mut silent = usual.clone();
        silent.local_modes -= LocalModes::ECHO;
        write!(io::stderr(), "Password: ")?;
        tcsetattr(&stdin, OptionalActions::Flush, &silent).map_err(io::Error::from)?;
        let read = stdin.lock().read_line(&mut line);
        tcsetattr(&stdin, OptionalActions::Flush, &usual).map_err(io::Error::from)?;
        writeln!(io::stderr())?;
        read?;
    } else {
        stdin.lock().read_line(&mut line)?;
    }
    let password = line.trim_end_matches(['\n', '\r']);
    rules.judge(password).map_err(|rule| Failure::Failed(format!("the password {rule}")))
}

fn healthcheck(arguments: Arguments) -> Result<(), Failure> {
    finish(arguments)?;
    let config = settings()?;
    let host = match config.http.hosts[0] {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        host => host,
    };
    let address = SocketAddr::new(host, config.http.port);
    let asked = match config.http.tls_files() {
        Some(_) => connect(address).and_then(|stream| ask_health(begin_tls(stream, host)?, address)),
        None => connect(address).and_then(|stream| ask_health(stream, address)),
    };
    let status = asked.map_err(|error| Failure::Failed(format!("{address} does not answer: {error}")))?;
    if status.starts_with("HTTP/1.1 200 ") {
        return Ok(());
    }
    Err(Failure::Failed(format!("{address} answers {:?}", status.lines().next().unwrap_or_default())))
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    const PATIENCE: Duration = Duration::from_secs(3);
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Whoever is there: the certificate is of a name, not of the address that is asked, and no secret is sent.
fn begin_tls(stream: TcpStream, host: IpAddr) -> io::Result<impl Read + Write> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let anyone = Verifier { trusted: Vec::new(), chain: None, name: false, provider: provider.clone() };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(anyone))
        .with_no_client_auth();
    let session = ClientConnection::new(Arc::new(config), ServerName::from(host)).map_err(io::Error::other)?;
    Ok(StreamOwned::new(session, stream))
}

fn ask_health(mut stream: impl Read + Write, address: SocketAddr) -> io::Result<String> {
    write!(stream, "GET /health HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(4096).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
