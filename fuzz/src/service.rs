//! The real server on a free port of this machine, in this process, and what every answer of it has to be like.

use std::io::{self, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use keyward::app::App;
use keyward::base::tls_verifier::Verifier;
use keyward::config::Config;
use keyward::http::server::Server;
use keyward::http::tls::Tls;
use keyward_harness::http_client::{self, Answer, read_answer};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use serde_json::Value;

use crate::account::{self, Account};

/// A server, an account on it, and a connection that is kept as long as the server keeps it.
pub struct Service {
    pub app: Arc<App>,
    pub account: Account,
    address: SocketAddr,
    connection: Option<BufReader<TcpStream>>,
    /// Serves until the process ends.
    _server: Server,
    tls: Arc<ClientConfig>,
}

impl Service {
    pub fn start() -> Service {
        Service::start_with(&account::config())
    }

    pub fn start_with_tls() -> Service {
        let pem = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/seeds/certificate/ec")).to_path_buf();
        let mut config = account::config();
        (config.http.tls_cert, config.http.tls_key) = (Some(pem.clone()), Some(pem));
        config.http.limits.certificate_check = Duration::from_secs(3600);
        Service::start_with(&config)
    }

    fn start_with(config: &Config) -> Service {
        // A connection that the other side has closed ends no process, as Rust's programs start; libFuzzer's do not.
        // SAFETY: no handler is installed, and none is replaced.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
        let app = Arc::new(account::open(config));
        let tls = config.http.tls_files().as_ref().map(|files| Tls::start(files).expect("a good certificate"));
        let server = Server::start(app.clone(), &keyward::api::routes::ROUTES, tls, &config.http)
            .expect("a server that listens");
        let account = Account::new(&app);
        let address = server.addresses()[0];
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        // Any certificate will do: the server is our own.
        let anyone = Verifier { trusted: Vec::new(), chain: None, name: false, provider: provider.clone() };
        let mut tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions of TLS")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(anyone))
            .with_no_client_auth();
        tls.alpn_protocols = vec![keyward::http::tls::HTTP_2.to_vec()];
        Service { app, account, address, connection: None, _server: server, tls: Arc::new(tls) }
    }

    /// Whether anything but reading was granted since this was asked last.
    pub fn has_changed(&self) -> bool {
        account::take_changed()
    }

    /// A connection that speaks HTTP/2.
    pub fn connect_tls(&self) -> StreamOwned<ClientConnection, TcpStream> {
        let name = ServerName::try_from("keyward.example").expect("a name");
        let client = ClientConnection::new(self.tls.clone(), name).expect("a client");
        StreamOwned::new(client, self.connect())
    }

    /// So that what one input has changed does not show in what the next one does.
    pub fn renew_account(&mut self) {
        self.account = Account::new(&self.app);
    }

    /// Sends one whole request. Fails when it is not answered.
    pub fn send(&mut self, request: &[u8]) -> Answer {
        let is_head = request.starts_with(b"HEAD ");
        // A kept connection may have been closed since.
        let kept = self.connection.take();
        let answered = kept.and_then(|connection| exchange(connection, request, is_head).ok());
        let (answer, connection) = answered.unwrap_or_else(|| {
            let fresh = BufReader::new(self.connect());
            exchange(fresh, request, is_head).expect("an answer")
        });
        if answer.header("connection") != Some("close") {
            self.connection = Some(connection);
        }
        answer
    }

    /// Sends these bytes on a connection of their own and gives everything that comes back. What the client does not wait
    /// for may go unanswered.
    pub fn send_all(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = self.connect();
        // The server may close before it has read them all.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answers = Vec::new();
        match stream.read_to_end(&mut answers) {
            Err(error) if error.kind() != io::ErrorKind::ConnectionReset => panic!("{error}"),
            _ => answers,
        }
    }

    fn connect(&self) -> TcpStream {
        http_client::connect(self.address).expect("a server that accepts")
    }
}

fn exchange(
    mut connection: BufReader<TcpStream>,
    request: &[u8],
    is_head: bool,
) -> io::Result<(Answer, BufReader<TcpStream>)> {
    connection.get_mut().write_all(request)?;
    let answer = read_answer(&mut connection, is_head)?;
    Ok((answer, connection))
}

/// The contract's shape of an error.
#[track_caller]
pub fn assert_error_shape(status: u16, body: &[u8]) {
    let shown = String::from_utf8_lossy(body);
    let value: Value = serde_json::from_slice(body).unwrap_or_else(|_| panic!("{status} without JSON: {shown}"));
    assert_eq!(value["statusCode"], status, "{shown}");
    let phrase = http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    assert_eq!(value["error"].as_str(), phrase, "{shown}");
    let is_message = match &value["message"] {
        Value::String(text) => !text.is_empty(),
        Value::Array(rules) => !rules.is_empty() && rules.iter().all(|rule| rule.is_string()),
        _ => false,
    };
    assert!(is_message, "{shown}");
    assert_eq!(value.as_object().map(|fields| fields.len()), Some(3), "{shown}");
}
