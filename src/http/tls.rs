//! TLS for clients: versions, protocols, and the certificate, which is read again when its files change.

use std::fmt;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use log::{info, warn};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, InconsistentKeys, RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

use crate::base::clock::Timestamp;

/// The names of the protocols in the TLS handshake (RFC 7301, RFC 9113 §3.2).
pub const HTTP_2: &[u8] = b"h2";
const HTTP_1_1: &[u8] = b"http/1.1";

/// Larger than any chain of certificates.
const LARGEST_FILE: u64 = 1024 * 1024;
/// How long before it expires a certificate is warned about. Automatic renewal has replaced it by then.
const EXPIRES_SOON: Duration = Duration::from_secs(7 * 86400);
const COMPLAIN_EVERY: Duration = Duration::from_secs(86400);

/// Where the certificate is, and its key.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// How often they are checked for a change.
    pub look_every: Duration,
}

/// TLS for clients. A thread checks the files while this exists.
pub struct Tls {
    pub acceptor: TlsAcceptor,
    reload: Sender<()>,
}

impl Tls {
    /// The error is one line for the operator.
    pub fn start(files: &TlsFiles) -> Result<Tls, String> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let stamps = stamps(files);
        let current = Arc::new(Current(RwLock::new(load(files, &provider)?)));
        let mut config = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("TLS: {error}"))?
            .with_no_client_auth()
            .with_cert_resolver(current.clone());
        config.alpn_protocols = vec![HTTP_2.to_vec(), HTTP_1_1.to_vec()];
        let (reload, reloads) = channel();
        let renewal =
            Renewal { files: files.clone(), provider, current, tried: stamps, seen: stamps, valid_from: None };
        std::thread::Builder::new()
            .name("certificate".to_string())
            .spawn(move || renewal.run(&reloads))
            .map_err(|error| format!("the thread that looks after the certificate cannot be started: {error}"))?;
        Ok(Tls { acceptor: TlsAcceptor::from(Arc::new(config)), reload })
    }

    /// Reads the files again, even if they have not changed.
    pub(crate) fn reload(&self) {
        let _ = self.reload.send(());
    }
}

/// The certificate and key that new connections get.
struct Current(RwLock<Arc<CertifiedKey>>);

impl Current {
    fn get(&self) -> Arc<CertifiedKey> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Current")
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.get())
    }
}

/// What changes when a file is written or replaced, or when a link on its path changes. `None`: there is no file.
type Stamp = Option<(u64, u64, u64, [i64; 4])>;

/// The state of the certificate's file and of the key's file.
fn stamps(files: &TlsFiles) -> [Stamp; 2] {
    [&files.certificate, &files.key].map(|path| {
        let file = fs::metadata(path).ok()?;
        Some((file.dev(), file.ino(), file.len(), [file.mtime(), file.mtime_nsec(), file.ctime(), file.ctime_nsec()]))
    })
}

/// Reads files that have changed.
struct Renewal {
    files: TlsFiles,
    provider: Arc<CryptoProvider>,
    current: Arc<Current>,
    /// The files' state when they were last read, successfully or not.
    tried: [Stamp; 2],
    /// Their state at the last check.
    seen: [Stamp; 2],
    /// When to read the last files again, because they are not valid yet.
    valid_from: Option<UnixTime>,
}

impl Renewal {
    /// Runs until the other end of the channel is dropped.
    fn run(mut self, reloads: &Receiver<()>) {
        let mut complained: Option<Instant> = None;
        loop {
            if complained.is_none_or(|at| at.elapsed() >= COMPLAIN_EVERY) {
                self.complain_of_dates();
                complained = Some(Instant::now());
            }
            let asked = match reloads.recv_timeout(self.files.look_every) {
                Ok(()) => true,
                Err(RecvTimeoutError::Timeout) => false,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let now = stamps(&self.files);
            // Two equal checks in a row: nobody is writing the files now.
            let settled = now == std::mem::replace(&mut self.seen, now);
            let is_due = self.valid_from.is_some_and(|start| start <= UnixTime::now());
            if !asked && ((now == self.tried && !is_due) || !settled) {
                continue;
            }
            self.tried = now;
            self.valid_from = None;
            match load(&self.files, &self.provider) {
                Ok(read) => {
                    let path = self.files.certificate.display();
                    if let Some(fault) = self.fault_of(&read)
                        && self.fault_of(&self.current.get()).is_none()
                    {
                        self.valid_from = self.start_of(&read).filter(|start| *start > UnixTime::now());
                        warn!("the certificate in {path} {fault}; the certificate and key from before stay in use");
                        continue;
                    }
                    *self.current.0.write().unwrap_or_else(PoisonError::into_inner) = read;
                    info!("new connections get the certificate that is now in {path}");
                    complained = None;
                }
                Err(why) => warn!("{why}; the certificate and key from before stay in use"),
            }
        }
    }

    fn end_of(&self, pair: &CertifiedKey) -> Option<UnixTime> {
        pair.cert.first().and_then(|certificate| end_of(certificate, &self.provider))
    }

    fn start_of(&self, pair: &CertifiedKey) -> Option<UnixTime> {
        pair.cert.first().and_then(|certificate| start_of(certificate, &self.provider))
    }

    /// Why clients would refuse it now, if they would.
    fn fault_of(&self, pair: &CertifiedKey) -> Option<String> {
        let now = UnixTime::now();
        if let Some(end) = self.end_of(pair).filter(|end| *end <= now) {
            return Some(format!("has expired, at {}", shown(end)));
        }
        let start = self.start_of(pair).filter(|start| *start > now)?;
        Some(format!("is not valid before {}", shown(start)))
    }

    fn complain_of_dates(&self) {
        let current = self.current.get();
        let path = self.files.certificate.display();
        if let Some(fault) = self.fault_of(&current) {
            warn!("the certificate in {path} {fault}: clients refuse it");
        } else if let Some(end) = self.end_of(&current)
            && end.as_secs().saturating_sub(UnixTime::now().as_secs()) < EXPIRES_SOON.as_secs()
        {
            warn!("the certificate in {path} expires soon, at {}", shown(end));
        }
    }
}

fn shown(time: UnixTime) -> Timestamp {
    let time = Timestamp::from_millis(i64::try_from(time.as_secs()).unwrap_or(i64::MAX).saturating_mul(1000));
    time.unwrap_or(Timestamp::LAST)
}

/// When a certificate expires.
fn end_of(certificate: &CertificateDer<'_>, provider: &CryptoProvider) -> Option<UnixTime> {
    match verdict_at(u64::MAX, certificate, provider)? {
        CertificateError::ExpiredContext { not_after, .. } => Some(not_after),
        _ => None,
    }
}

/// When a certificate begins to be valid.
fn start_of(certificate: &CertificateDer<'_>, provider: &CryptoProvider) -> Option<UnixTime> {
    match verdict_at(0, certificate, provider)? {
        CertificateError::NotValidYetContext { not_before, .. } => Some(not_before),
        _ => None,
    }
}

/// Finds a date by verifying at an extreme time: dates are checked first, so verifying at the end of time reports the
/// end of the certificate, and at the beginning of time its beginning.
fn verdict_at(seconds: u64, certificate: &CertificateDer<'_>, provider: &CryptoProvider) -> Option<CertificateError> {
    let verdict = verify_server_cert_signed_by_trust_anchor(
        &ParsedCertificate::try_from(certificate).ok()?,
        &RootCertStore::empty(),
        &[],
        UnixTime::since_unix_epoch(Duration::from_secs(seconds)),
        provider.signature_verification_algorithms.all,
    );
    match verdict {
        Err(rustls::Error::InvalidCertificate(fault)) => Some(fault),
        _ => None,
    }
}

/// The chain and the key, if they belong together. The error is one line for the operator.
fn load(files: &TlsFiles, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, String> {
    let (chain_path, key_path) = (files.certificate.display(), files.key.display());
    let pem = read("TLS_CERT", &files.certificate)?;
    let chain = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        // The library's message repeats a line, which may be from a private key.
        .map_err(|_| format!("TLS_CERT: {chain_path} is not PEM; accepted: one or more certificates in PEM"))?;
    for (position, certificate) in chain.iter().enumerate() {
        ParsedCertificate::try_from(certificate)
            .map_err(|error| format!("TLS_CERT: certificate {} in {chain_path} is damaged: {error}", position + 1))?;
    }
    if chain.is_empty() {
        return Err(format!("TLS_CERT: there is no certificate in {chain_path}; accepted: one or more in PEM"));
    }
    let pem = read("TLS_KEY", &files.key)?;
    let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| {
        format!("TLS_KEY: there is no private key in {key_path}; accepted: PKCS#8, SEC1 or PKCS#1 in PEM, without a passphrase")
    })?;
    let key = provider.key_provider.load_private_key(key).map_err(|_| {
        format!("TLS_KEY: the key in {key_path} is damaged or of another kind; accepted: ECDSA, Ed25519, RSA of 2048 bits or more")
    })?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(Arc::new(certified)),
        Err(_) => Err(format!(
            "TLS_KEY: the key in {key_path} does not belong to the first certificate in {chain_path}, which must be the \
             server's own"
        )),
    }
}

fn read(setting: &str, path: &Path) -> Result<Vec<u8>, String> {
    let mut content = Vec::new();
    File::open(path).and_then(|file| file.take(LARGEST_FILE).read_to_end(&mut content)).map_err(|error| {
        format!("{setting}: {} cannot be read: {error}; accepted: the path of a PEM file", path.display())
    })?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_in_the_place_of_the_certificate_is_not_told() {
        let file = std::env::temp_dir().join(format!("keyward-damaged-{}.pem", std::process::id()));
        fs::write(&file, "-----BEGIN PRIVATE KEY-----hunter2").unwrap();
        let files = TlsFiles { certificate: file.clone(), key: file.clone(), look_every: EXPIRES_SOON };
        let fault = load(&files, &aws_lc_rs::default_provider()).unwrap_err();
        fs::remove_file(&file).unwrap();
        let expected = format!("TLS_CERT: {} is not PEM; accepted: one or more certificates in PEM", file.display());
        assert_eq!(fault, expected);
    }
}
