//! Clients of a server with TLS: certificates made on the spot, and connections on which a test sees every byte.

use std::fs;
use std::io::{self, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use keyward::config::Config;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::http_client::{Answer, PATIENCE, connect, read_answer};
use crate::service::{Backend, Service, TempDir};

/// A certificate for localhost that signs itself, and its key.
#[derive(Clone)]
pub struct Pair {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Pair {
    fn at(folder: &Path, name: &str) -> Pair {
        Pair { certificate: folder.join(format!("{name}.pem")), key: folder.join(format!("{name}.key")) }
    }

    /// Makes both in a folder. The key is one for P-256.
    #[track_caller]
    pub fn make(folder: &Path, name: &str) -> Pair {
        let mut parameters = CertificateParams::new(["localhost".to_string(), "127.0.0.1".to_string()]).unwrap();
        parameters.distinguished_name.push(DnType::CommonName, "localhost");
        parameters.is_ca = IsCa::ExplicitNoCa;
        let key = KeyPair::generate().unwrap();
        let pair = Pair::at(folder, name);
        fs::write(&pair.certificate, parameters.self_signed(&key).unwrap().pem()).unwrap();
        fs::write(&pair.key, key.serialize_pem()).unwrap();
        pair
    }

    /// The same, but by an authority of its own, whose certificate is in the file that is returned too.
    #[track_caller]
    pub fn make_issued(folder: &Path, name: &str) -> (Pair, PathBuf) {
        let mut authority = CertificateParams::default();
        authority.distinguished_name.push(DnType::CommonName, format!("authority of {name}"));
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority_key = KeyPair::generate().unwrap();
        let file = folder.join(format!("{name}-authority.pem"));
        fs::write(&file, authority.self_signed(&authority_key).unwrap().pem()).unwrap();
        let parameters = CertificateParams::new(["localhost".to_string(), "127.0.0.1".to_string()]).unwrap();
        let key = KeyPair::generate().unwrap();
        let pair = Pair::at(folder, name);
        let issuer = Issuer::new(authority, &authority_key);
        fs::write(&pair.certificate, parameters.signed_by(&key, &issuer).unwrap().pem()).unwrap();
        fs::write(&pair.key, key.serialize_pem()).unwrap();
        (pair, file)
    }

    /// The same by `openssl`, with these of its options.
    #[track_caller]
    pub fn make_with(folder: &Path, name: &str, options: &[&str]) -> Pair {
        let pair = Pair::at(folder, name);
        let mut command = openssl(&["req", "-x509", "-nodes", "-subj", "/CN=localhost"]);
        command.args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]);
        command.args(["-addext", "basicConstraints=critical,CA:FALSE"]).args(options);
        succeeded(command.arg("-out").arg(&pair.certificate).arg("-keyout").arg(&pair.key));
        pair
    }

    #[track_caller]
    pub fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(&self.certificate).unwrap()
    }

    /// Puts this pair's content where another's is, one file after the other.
    #[track_caller]
    pub fn overwrite(&self, other: &Pair) {
        fs::copy(&self.key, &other.key).unwrap();
        fs::copy(&self.certificate, &other.certificate).unwrap();
    }
}

pub fn openssl(arguments: &[&str]) -> Command {
    let mut command = Command::new("openssl");
    command.args(arguments);
    command
}

#[track_caller]
pub fn succeeded(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// A service with TLS.
pub struct Secure {
    pub service: Service,
    pub pair: Pair,
    /// Where the pair is. Tests put others beside it.
    pub folder: TempDir,
}

/// How often the server of a test looks for new files.
const LOOK_EVERY: Duration = Duration::from_millis(20);

impl Secure {
    pub fn start(settings: &[(&str, &str)], adjust: impl FnOnce(&mut Config)) -> Secure {
        let folder = TempDir::fresh();
        let pair = Pair::make(folder.path(), "server");
        Secure::start_with(folder, pair, settings, adjust)
    }

    pub fn start_with(
        folder: TempDir,
        pair: Pair,
        settings: &[(&str, &str)],
        adjust: impl FnOnce(&mut Config),
    ) -> Secure {
        let (certificate, key) = (pair.certificate.to_str().unwrap(), pair.key.to_str().unwrap());
        let settings = [&[("TLS_CERT", certificate), ("TLS_KEY", key)], settings].concat();
        let service = Service::start_with(Backend::Sqlite, &settings, |config| {
            config.http.limits.certificate_check = LOOK_EVERY;
            adjust(config);
        });
        Secure { service, pair, folder }
    }

    pub fn address(&self) -> SocketAddr {
        self.service.address()
    }

    #[track_caller]
    pub fn connect(&self, protocols: &[&str]) -> TlsWire {
        TlsWire::try_open(self.address(), &self.pair.der(), protocols).unwrap()
    }

    /// `curl` with these arguments and a path at the end; what it prints.
    #[track_caller]
    pub fn curl(&self, arguments: &[&str], path: &str) -> String {
        let mut command = Command::new("curl");
        command.args(["-sS", "--max-time", "30", "--cacert"]).arg(&self.pair.certificate).args(arguments);
        let output = succeeded(command.arg(format!("https://localhost:{}{path}", self.address().port())));
        String::from_utf8(output.stdout).unwrap()
    }
}

/// One connection with TLS.
pub struct TlsWire(pub BufReader<StreamOwned<ClientConnection, TcpStream>>);

impl TlsWire {
    /// Completes the handshake, trusting this certificate alone.
    pub fn try_open(address: SocketAddr, trusted: &CertificateDer<'_>, protocols: &[&str]) -> io::Result<TlsWire> {
        let mut roots = RootCertStore::empty();
        roots.add(trusted.clone().into_owned()).map_err(io::Error::other)?;
        let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
        let session = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(session, connect(address)?);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(TlsWire(BufReader::new(stream)))
    }

    pub fn protocol(&self) -> Option<&str> {
        self.0.get_ref().conn.alpn_protocol().map(|name| str::from_utf8(name).unwrap())
    }

    /// The server's certificate.
    pub fn certificate(&self) -> CertificateDer<'static> {
        self.0.get_ref().conn.peer_certificates().unwrap()[0].clone().into_owned()
    }

    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut TlsWire {
        self.try_send(bytes).unwrap();
        self
    }

    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        let stream = self.0.get_mut();
        stream.write_all(bytes.as_ref())?;
        stream.flush()
    }

    #[track_caller]
    pub fn answer(&mut self) -> Answer {
        read_answer(&mut self.0, false).unwrap_or_else(|error| panic!("no answer: {error}"))
    }

    /// What arrives until the server closes, with or without a goodbye.
    #[track_caller]
    pub fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                panic!("not closed after {PATIENCE:?}: {error}")
            }
            _ => rest,
        }
    }
}
