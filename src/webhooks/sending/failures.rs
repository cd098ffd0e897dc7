//! What a try that failed is said to have failed by. Written for the endpoint's owner: no library's text, no address.

use std::io;

use rustls::CertificateError;

use crate::webhooks::sending::judging::Refusal;

/// Why there was no answer, and whether the time was over.
pub(super) fn explain(error: &ureq::Error) -> (&'static str, bool) {
    const LATE: &str = "there was no answer within 10 seconds";
    let reason = match error {
        ureq::Error::Timeout(_) => return (LATE, true),
        ureq::Error::Io(error) if error.kind() == io::ErrorKind::TimedOut => return (LATE, true),
        ureq::Error::Other(error) => match error.downcast_ref() {
            Some(Refusal::NotInTime) => return ("the name could not be resolved within 10 seconds", true),
            Some(Refusal::Busy) => "too many names are being resolved",
            Some(Refusal::Address) => "the name does not exist, or has an address that is not allowed",
            Some(Refusal::Url) => "the URL is not allowed",
            None => "the request could not be sent",
        },
        ureq::Error::Io(error) => match error.get_ref().and_then(|error| error.downcast_ref()) {
            Some(error) => explain_tls(error),
            None => explain_io(error.kind()),
        },
        ureq::Error::Rustls(error) => explain_tls(error),
        ureq::Error::LargeResponseHeader(..) => "the answer's head was too large",
        ureq::Error::Protocol(_) => "the answer was not HTTP/1.1",
        _ => "the request could not be sent",
    };
    (reason, false)
}

fn explain_io(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::ConnectionRefused => "the connection was refused",
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof => "the connection was closed before there was an answer",
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => "there is no way to its address",
        _ => "the connection failed",
    }
}

fn explain_tls(error: &rustls::Error) -> &'static str {
    let rustls::Error::InvalidCertificate(error) = error else { return "TLS failed" };
    match error {
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => "its certificate is not valid at this time",
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "its certificate is for another name"
        }
        _ => "its certificate is not trusted",
    }
}
