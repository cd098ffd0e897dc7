//! The certificate authorities that the system trusts, for servers that Keyward calls.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;

/// How long they are remembered. Packages of the system renew them now and then.
const KEPT: Duration = Duration::from_secs(60 * 60);

/// They are read when they are first asked for, and again when they have grown old.
#[derive(Default)]
pub struct Roots {
    read: Mutex<Option<(Instant, RootCertificates)>>,
}

pub type RootCertificates = Arc<Vec<CertificateDer<'static>>>;

impl Roots {
    /// The system's authorities, or those that `SSL_CERT_FILE` and `SSL_CERT_DIR` name, as with OpenSSL. If they cannot be
    /// read, those that were read before. Without any, no server is trusted.
    pub fn current(&self) -> RootCertificates {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let before = match &*read {
            Some((at, certificates)) if at.elapsed() < KEPT => return certificates.clone(),
            Some((_, certificates)) => certificates.clone(),
            None => RootCertificates::default(),
        };
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            log::warn!("certificate authorities of the system: {error}");
        }
        let certificates = if found.certs.is_empty() { before } else { Arc::new(found.certs) };
        if certificates.is_empty() {
            log::warn!(
                "there are no certificate authorities on this system, so no server that Keyward calls is trusted"
            );
        }
        *read = Some((Instant::now(), certificates.clone()));
        certificates
    }
}
