//! What can go wrong on the way out, by remedy. No body, header or query is ever part of a message.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use rustls::{AlertDescription, CertificateError};

use super::address::{Forbidden, Kind};

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A document named something that is no URL.
    #[error("not a URL")]
    NotAUrl,
    /// Plain http would show the credential to the network.
    #[error("{host}: plain http is refused; only https is spoken")]
    Insecure {
        /// Where to.
        host: String,
    },
    /// The same on loopback, which development may switch on.
    #[error("{host}: plain http on loopback is refused")]
    InsecureLoopback {
        /// Where to.
        host: String,
    },
    /// A stranger's document sends us into our own network.
    #[error("{host} is refused: it is {kind}")]
    Forbidden {
        /// Where to.
        host: String,
        /// What it resolves to.
        kind: Kind,
    },
    /// The operator's list does not hold it.
    #[error("{host} is not in [egress] allow")]
    NotAllowed {
        /// Where to.
        host: String,
    },
    /// A credential must not follow a redirect, so none is followed.
    #[error("{host} answers with a redirect (status {status}), which is not followed")]
    Redirect {
        /// From where.
        host: String,
        /// 3xx.
        status: u16,
    },
    /// More than 64 KiB.
    #[error("{host} sends more than 64 KiB")]
    TooLarge {
        /// Who.
        host: String,
    },
    /// Its certificate proves somebody else, or nothing.
    #[error("{host}: {what}")]
    Certificate {
        /// Who.
        host: String,
        /// Which check failed.
        what: String,
    },
    /// No answer in time: a slow server, a lost network, a silent firewall.
    #[error("{host} gives no answer within {:.1} s", limit.as_secs_f32())]
    Timeout {
        /// Who.
        host: String,
        /// The limit.
        limit: Duration,
    },
    /// The time of the command was over before this request was begun.
    #[error("no time is left to ask {host}")]
    NoTimeLeft {
        /// Who.
        host: String,
    },
    /// No connection: the name does not resolve, or nobody listens.
    #[error("{host} cannot be reached: {what}")]
    Unreachable {
        /// Who.
        host: String,
        /// As the system says it.
        what: String,
    },
    /// The connection broke or spoke no HTTP.
    #[error("{host} breaks off: {what}")]
    Broken {
        /// Who.
        host: String,
        /// How.
        what: String,
    },
    /// The forward proxy makes no way to it: nobody listens there, it refuses, or it is silent.
    #[error("{host} cannot be reached through the forward proxy {proxy}: {what}")]
    ThroughProxy {
        /// Where to.
        host: String,
        /// Host and port of the proxy, without user and password.
        proxy: String,
        /// As the connection says it.
        what: String,
    },
    /// It does not take the certificate that proves us.
    #[error("{host} refuses our certificate (TLS alert {alert})")]
    OurCertificate {
        /// Who.
        host: String,
        /// RFC 8446 section 6.2.
        alert: String,
    },
    /// The forward proxy cannot be used.
    #[error("the forward proxy: {what}")]
    Proxy {
        /// What is wrong.
        what: String,
    },
    /// No trusted roots could be loaded.
    #[error("TLS cannot be set up: {what}")]
    Roots {
        /// What is missing.
        what: String,
    },
}

impl Error {
    /// Would the same request have a chance a little later?
    pub fn is_temporary(&self) -> bool {
        matches!(
            self,
            Self::Timeout { .. }
                | Self::NoTimeLeft { .. }
                | Self::Unreachable { .. }
                | Self::Broken { .. }
                | Self::ThroughProxy { .. }
        )
    }

    /// The cure, where there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::InsecureLoopback { .. } => Some(
                "for development only: `--insecure-loopback`, or `insecure_loopback = true` in [egress]".to_owned(),
            ),
            Self::Insecure { .. } => Some("serve it over https".to_owned()),
            Self::Forbidden { host, kind: Kind::Unlisted } | Self::NotAllowed { host } => {
                Some(format!("add {host:?} to `allow` in [egress] if it is meant"))
            }
            Self::Forbidden { host, kind: Kind::Private } => {
                Some(format!("if {host} is really meant, name it: `allow = [{host:?}]` in [egress], or pin `issuer`"))
            }
            Self::Forbidden { kind: Kind::Loopback, .. } => {
                Some("for development only: `--insecure-loopback`".to_owned())
            }
            Self::Certificate { what, .. } if what.contains("unknown") => {
                Some("if it is your own CA, give it as `ca_file` in [egress]".to_owned())
            }
            Self::Certificate { what, .. } if what.contains("expired") => {
                Some("its operator must renew it; check this machine's clock too".to_owned())
            }
            Self::Certificate { what, .. } if what.contains("thumbprint") => {
                Some("it was renewed, or something else answers there: start the workload anew".to_owned())
            }
            Self::Certificate { .. } => {
                Some("the operator of that server must install a certificate for this name".to_owned())
            }
            Self::Redirect { .. } => Some("configure the final URL".to_owned()),
            Self::ThroughProxy { host, proxy, .. } => Some(format!(
                "{proxy} comes from `proxy` in [egress], else from HTTPS_PROXY: mend it (a user and password go into its URL), or name {host} in NO_PROXY if it can be reached directly"
            )),
            Self::OurCertificate { .. } => Some(
                "renew it, or have the operator of that server trust the CA that issued it (RFC 8705 section 2)"
                    .to_owned(),
            ),
            _ => None,
        }
    }

    pub(super) fn forbidden(host: &str, kind: Kind) -> Self {
        Self::Forbidden { host: host.to_owned(), kind }
    }

    /// Finds the cause in the client's error chain: our own resolver, TLS, or the system.
    pub(super) fn from_reqwest(host: &str, error: &reqwest::Error) -> Self {
        let host = host.to_owned();
        let mut cause = error.source();
        let mut last = None;
        while let Some(one) = cause {
            let inner = innermost(one);
            if let Some(Forbidden(kind)) = inner.downcast_ref() {
                return Self::Forbidden { host, kind: *kind };
            }
            if let Some(tls) = inner.downcast_ref() {
                return Self::from_tls(host, tls);
            }
            last = Some(one);
            cause = one.source();
        }
        // The innermost message is the system's own ("Connection refused"), without URL and query.
        let what = last.map_or_else(|| "no reason given".to_owned(), ToString::to_string);
        if error.is_timeout() {
            Self::Timeout { host, limit: super::CONNECT_LIMIT }
        } else if error.is_connect() {
            Self::Unreachable { host, what }
        } else {
            Self::Broken { host, what }
        }
    }

    fn from_tls(host: String, error: &rustls::Error) -> Self {
        if let rustls::Error::AlertReceived(alert) = error
            && is_about_our_certificate(*alert)
        {
            return Self::OurCertificate { host, alert: format!("{alert:?}") };
        }
        let rustls::Error::InvalidCertificate(reason) = error else {
            return Self::Broken { host, what: format!("TLS: {error}") };
        };
        let what = match reason {
            // A bad signature: a CA of the same name with another key.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "its certificate is signed by an unknown CA".to_owned()
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "its certificate has expired".to_owned()
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "its certificate is not valid yet".to_owned()
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "its certificate is for another host name".to_owned()
            }
            CertificateError::ApplicationVerificationFailure => {
                "its certificate is not the one with the thumbprint that the platform gives".to_owned()
            }
            other => format!("its certificate is not valid ({other:?})").chars().take(120).collect(),
        };
        Self::Certificate { host, what }
    }
}

/// These are for the certificate that the other side was shown, or was not (RFC 8446 section 6.2). A CA of the same name
/// with another key is a signature that cannot be verified.
fn is_about_our_certificate(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateRequired
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            | AlertDescription::DecryptError
    )
}

/// What I/O errors wrap, however deep: `source` of an I/O error passes over the error that it wraps.
fn innermost<'a>(mut error: &'a (dyn std::error::Error + 'static)) -> &'a (dyn std::error::Error + 'static) {
    while let Some(inner) = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        error = inner;
    }
    error
}
