//! Where PostgreSQL is and how to reach it, with TLS by libpq's `sslmode`.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};

use super::search_path::SearchPath;
use crate::base::error::StoreError;
use crate::base::tls_verifier::Verifier;

/// `DB_SSLMODE`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsMode {
    Disable,
    #[default]
    Prefer,
    Require,
    VerifyFull,
}

impl TlsMode {
    pub(crate) const NAMES: &'static str = "disable, prefer, require or verify-full";

    pub(crate) fn parse(text: &str) -> Option<TlsMode> {
        match text {
            "disable" => Some(TlsMode::Disable),
            "prefer" => Some(TlsMode::Prefer),
            "require" => Some(TlsMode::Require),
            "verify-full" => Some(TlsMode::VerifyFull),
            _ => None,
        }
    }
}

/// Where PostgreSQL is and how to talk to it. Its `Debug` form leaves the password out.
#[derive(Clone, Debug)]
pub struct PostgresTarget {
    config: Config,
    tls: TlsMode,
    root_cert: Option<PathBuf>,
    /// That of the URL. `None`: the role's or the database's counts.
    search_path: Option<SearchPath>,
    /// The URL's `options` without it.
    options: Option<String>,
    /// `DATABASE_URL_DIRECT`: the same database without a pooler.
    direct: Option<Box<PostgresTarget>>,
}

/// One of the hosts that a target names.
#[derive(Debug)]
pub(super) struct Endpoint {
    /// Its name or socket. `None`: only an address is given.
    host: Option<Host>,
    address: Option<IpAddr>,
    port: u16,
}

impl PostgresTarget {
    /// From a URL; `sslmode` and `sslrootcert` in it override the other arguments. The error says what is wrong with
    /// the URL without repeating any of it.
    pub(crate) fn from_url(
        url: &str,
        mut tls: TlsMode,
        mut root_cert: Option<PathBuf>,
    ) -> Result<PostgresTarget, String> {
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err("does not begin with postgres:// or postgresql://".to_string());
        }
        // The library knows fewer modes than libpq, so it does not get to see these two parameters.
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let mut others = Vec::new();
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            match parameter.split_once('=') {
                Some(("sslmode", mode)) => {
                    tls =
                        TlsMode::parse(mode).ok_or(format!("has an unknown sslmode; accepted: {}", TlsMode::NAMES))?;
                }
                Some(("sslrootcert", path)) if path.contains('%') => {
                    return Err("has a percent-encoded sslrootcert; set DB_SSLROOTCERT instead".to_string());
                }
                Some(("sslrootcert", path)) => root_cert = Some(PathBuf::from(path)),
                _ => others.push(parameter),
            }
        }
        let config: Config = format!("{base}?{}", others.join("&"))
            .parse()
            .map_err(|_| "is not a PostgreSQL URL; accepted: postgres://user:password@host:port/name".to_string())?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err("names no host; accepted: postgres://user:password@host:port/name".to_string());
        }
        let (search_path, options) = SearchPath::of_options(config.get_options().unwrap_or_default())?;
        PostgresTarget { config, tls, root_cert, search_path, options, direct: None }.checked()
    }

    pub(crate) fn from_parts(
        host: &str,
        port: u16,
        user: Option<&str>,
        password: Option<&str>,
        name: Option<&str>,
        tls: TlsMode,
        root_cert: Option<PathBuf>,
    ) -> Result<PostgresTarget, String> {
        let mut config = Config::new();
        config.host(host).port(port);
        if let Some(user) = user {
            config.user(user);
        }
        if let Some(password) = password {
            config.password(password);
        }
        if let Some(name) = name {
            config.dbname(name);
        }
        PostgresTarget { config, tls, root_cert, search_path: None, options: None, direct: None }.checked()
    }

    fn checked(mut self) -> Result<PostgresTarget, String> {
        if self.tls == TlsMode::VerifyFull && self.root_cert.is_none() {
            return Err("is to be verified in full, but DB_SSLROOTCERT is not set; accepted: the path of a PEM file, \
                        such as /etc/ssl/certs/ca-certificates.crt"
                .to_string());
        }
        self.config.ssl_mode(match self.tls {
            _ if self.is_local() => SslMode::Disable,
            TlsMode::Disable => SslMode::Disable,
            TlsMode::Prefer => SslMode::Prefer,
            TlsMode::Require | TlsMode::VerifyFull => SslMode::Require,
        });
        if self.config.get_tcp_user_timeout().is_none() {
            self.config.tcp_user_timeout(Duration::from_secs(5));
        }
        // A vanished server is noticed in seconds, not in the two hours of the default.
        self.config.keepalives_idle(Duration::from_secs(5));
        self.config.keepalives_interval(Duration::from_secs(1));
        self.config.keepalives_retries(3);
        // We ask each host ourselves whether it accepts writes.
        self.config.target_session_attrs(TargetSessionAttrs::Any);
        if self.config.get_application_name().is_none() {
            self.config.application_name("keyward");
        }
        Ok(self)
    }

    /// The same database without a pooler before it. If only one of both names a schema, it counts for the other too.
    pub(crate) fn with_direct(self, mut direct: PostgresTarget) -> Result<PostgresTarget, String> {
        let search_path = self.search_path.or(direct.search_path.clone());
        if direct.search_path.is_some() && direct.search_path != search_path {
            return Err("has another search_path than DATABASE_URL".to_string());
        }
        direct.search_path = search_path.clone();
        Ok(PostgresTarget { search_path, direct: Some(Box::new(direct)), ..self })
    }

    pub(super) fn search_path(&self) -> Option<&SearchPath> {
        self.search_path.as_ref()
    }

    /// For what needs a session, such as LISTEN and migrations.
    pub(crate) fn direct(&self) -> &PostgresTarget {
        self.direct.as_deref().unwrap_or(self)
    }

    /// Whether all hosts are Unix sockets. As with libpq, there is no TLS over them.
    pub(crate) fn is_local(&self) -> bool {
        let is_socket = |host: &Host| matches!(host, Host::Unix(_));
        self.config.get_hostaddrs().is_empty() && self.config.get_hosts().iter().all(is_socket)
    }

    /// Whether a connection, also past the pooler, checks the server by the certificate authorities that are set.
    pub(crate) fn checks_server(&self) -> bool {
        self.authorities().is_some() || self.direct.as_ref().is_some_and(|direct| direct.checks_server())
    }

    fn authorities(&self) -> Option<&PathBuf> {
        match self.tls {
            TlsMode::Require | TlsMode::VerifyFull => self.root_cert.as_ref(),
            TlsMode::Disable | TlsMode::Prefer => None,
        }
    }

    pub(super) fn endpoints(&self) -> Vec<Endpoint> {
        let (hosts, addresses, ports) = (self.config.get_hosts(), self.config.get_hostaddrs(), self.config.get_ports());
        (0..hosts.len().max(addresses.len()))
            .map(|index| Endpoint {
                host: hosts.get(index).cloned(),
                address: addresses.get(index).copied(),
                port: ports.get(index).or(ports.first()).copied().unwrap_or(5432),
            })
            .collect()
    }

    /// The URL's `connect_timeout`, for each host.
    pub(super) fn connect_timeout(&self) -> Option<Duration> {
        self.config.get_connect_timeout().copied()
    }

    /// One configuration for each address of a host.
    pub(super) async fn resolve(&self, endpoint: &Endpoint) -> io::Result<Vec<Config>> {
        let name = match (&endpoint.host, endpoint.address) {
            (Some(Host::Tcp(name)), None) => name,
            _ => return Ok(vec![self.at(endpoint, endpoint.address)]),
        };
        let addresses = tokio::net::lookup_host((name.as_str(), endpoint.port)).await?;
        Ok(addresses.map(|address| self.at(endpoint, Some(address.ip()))).collect())
    }

    /// The configuration with this host only. The library cannot remove hosts, so the rest is copied.
    fn at(&self, endpoint: &Endpoint, address: Option<IpAddr>) -> Config {
        let from = &self.config;
        let mut config = Config::new();
        match &endpoint.host {
            Some(Host::Tcp(name)) => _ = config.host(name),
            Some(Host::Unix(path)) => _ = config.host_path(path),
            None => {}
        }
        if let Some(address) = address {
            config.hostaddr(address);
        }
        config.port(endpoint.port);
        from.get_user().map(|user| config.user(user));
        from.get_password().map(|password| config.password(password));
        from.get_dbname().map(|name| config.dbname(name));
        self.options.as_ref().map(|options| config.options(options));
        from.get_application_name().map(|name| config.application_name(name));
        from.get_tcp_user_timeout().map(|timeout| config.tcp_user_timeout(*timeout));
        config.ssl_mode(from.get_ssl_mode()).ssl_negotiation(from.get_ssl_negotiation());
        config.channel_binding(from.get_channel_binding());
        config.keepalives(from.get_keepalives()).keepalives_idle(from.get_keepalives_idle());
        from.get_keepalives_interval().map(|interval| config.keepalives_interval(interval));
        from.get_keepalives_retries().map(|retries| config.keepalives_retries(retries));
        config
    }

    pub(super) fn tls_config(&self) -> Result<ClientConfig, StoreError> {
        let failed = |error: String| StoreError::Internal(format!("TLS to PostgreSQL: {error}"));
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| failed(error.to_string()))?;
        let mut verifier =
            Verifier { trusted: Vec::new(), chain: None, name: self.tls == TlsMode::VerifyFull, provider };
        if let Some(path) = self.authorities() {
            let (trusted, roots) = read_roots(path).map_err(failed)?;
            let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), verifier.provider.clone())
                .build()
                .map_err(|error| failed(error.to_string()))?;
            verifier.trusted = trusted;
            verifier.chain = Some(chain);
        }
        Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth())
    }
}

fn read_roots(path: &PathBuf) -> Result<(Vec<CertificateDer<'static>>, RootCertStore), String> {
    let failed = |error: String| format!("DB_SSLROOTCERT: {}: {error}", path.display());
    let pem = fs::read(path).map_err(|error| failed(error.to_string()))?;
    let trusted = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        // The library's message would repeat a line, which may be part of a private key.
        .map_err(|_| failed("is not PEM".to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in &trusted {
        roots.add(certificate.clone()).map_err(|error| failed(error.to_string()))?;
    }
    if trusted.is_empty() { Err(failed("there is no certificate in it".to_string())) } else { Ok((trusted, roots)) }
}
