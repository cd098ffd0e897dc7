//! `keyward healthcheck`: whether the server with these settings answers; for containers.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use pico_args::Arguments;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::base::tls_verifier::Verifier;
use crate::cli::arguments::finish;
use crate::cli::failure::Failure;
use crate::cli::operator::settings;

/// For connecting, for each read and for each write.
const TIMEOUT: Duration = Duration::from_secs(3);

pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    finish(arguments)?;
    let config = settings()?;
    let host = match config.http.hosts[0] {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        host => host,
    };
    let address = SocketAddr::new(host, config.http.port);
    let answer = match config.http.tls_files() {
        Some(_) => connect(address).and_then(|stream| ask_health(begin_tls(stream, host)?, address)),
        None => connect(address).and_then(|stream| ask_health(stream, address)),
    };
    let answer = answer.map_err(|error| Failure::Failed(format!("{address} does not answer: {error}")))?;
    if answer.starts_with("HTTP/1.1 200 ") {
        return Ok(());
    }
    Err(Failure::Failed(format!("{address} answers {:?}", answer.lines().next().unwrap_or_default())))
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    Ok(stream)
}

/// Accepts any certificate: it names a host, while we connect to an address, and we send no secret.
fn begin_tls(stream: TcpStream, host: IpAddr) -> io::Result<impl Read + Write> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let any = Verifier { trusted: Vec::new(), chain: None, name: false, provider: provider.clone() };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(any))
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
