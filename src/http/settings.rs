//! The settings of this room.

use std::net::IpAddr;
use std::path::PathBuf;

use crate::http::client_address::Proxies;
use crate::http::cors::Cors;
use crate::http::limits::Limits;
use crate::http::tls::TlsFiles;

#[derive(Clone, Debug, Default)]
pub struct HttpSettings {
    /// Addresses to listen on; at least one.
    pub hosts: Vec<IpAddr>,
    /// Whether the operator has named them. If not, IPv6 is left out on a machine without it.
    pub hosts_given: bool,
    pub port: u16,
    /// Certificate and key in PEM. Both are set (HTTPS), or neither (plain HTTP).
    pub tls_cert: Option<PathBuf>,
    pub tls_key: Option<PathBuf>,
    /// The port that redirects plain HTTP to HTTPS.
    pub redirect_port: Option<u16>,
    pub proxies: Proxies,
    pub cors: Cors,
    pub max_connections: usize,
    /// `None`: a quarter of all.
    pub max_connections_per_address: Option<usize>,
    /// No setting of the operator's: tests change it.
    pub limits: Limits,
}

impl HttpSettings {
    /// `None`: plain HTTP.
    pub fn tls_files(&self) -> Option<TlsFiles> {
        let (certificate, key) = self.tls_cert.clone().zip(self.tls_key.clone())?;
        Some(TlsFiles { certificate, key, look_every: self.limits.certificate_check })
    }
}
