//! Why a request has no answer. There is one variant for each remedy. No message contains a body, a header field or a query.

use std::time::Duration;

use rustls::{CertificateError, PeerIncompatible};

use super::alert::{NO_HTTP, OLD, is_about_our_certificate, not_in_common};
use super::failure::{Failure, innermost, may_resolve_later};
use crate::address::Kind;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The address is no URL.
    #[error("not a URL")]
    NotAUrl,
    /// Plain http would show the credential to the network.
    #[error("{host}: plain http is refused; only https is spoken")]
    Insecure {
        /// Where to.
        host: String,
    },
    /// Plain http on loopback, which is refused unless it is switched on for development.
    #[error("{host}: plain http on loopback is refused")]
    InsecureLoopback {
        /// Where to.
        host: String,
    },
    /// The host has an address that the egress rules forbid, such as one in a private network.
    #[error("{host} is refused: it is {kind}")]
    Forbidden {
        /// Where to.
        host: String,
        /// What it resolves to.
        kind: Kind,
    },
    /// The host is not on the operator's list.
    #[error("{host} is not in [egress] allow")]
    NotAllowed {
        /// Where to.
        host: String,
    },
    /// A redirect. A credential must not follow one, so none is followed.
    #[error("{host} answers with a redirect (status {status}), which is not followed")]
    Redirect {
        /// From where.
        host: String,
        /// 3xx.
        status: u16,
    },
    /// A body of more than 64 KiB.
    #[error("{host} sends more than 64 KiB")]
    TooLarge {
        /// Who.
        host: String,
    },
    /// Its certificate does not prove that it is this host.
    #[error("{host}: {fault}")]
    Certificate {
        /// Who.
        host: String,
        /// Which check failed.
        fault: CertificateFault,
    },
    /// No answer in time: the server is slow, the network is lost, or a firewall drops packets.
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
    /// The name has no address, as far as the system can tell.
    #[error("{host} cannot be reached: its name does not resolve ({what})")]
    NoName {
        /// Where to.
        host: String,
        /// The words of the system.
        what: String,
    },
    /// The host refuses the connection.
    #[error("{host} cannot be reached: nobody listens on its port {port}")]
    NobodyListens {
        /// Where to.
        host: String,
        /// Which port.
        port: u16,
    },
    /// No connection for another reason.
    #[error("{host} cannot be reached: {what}")]
    Unreachable {
        /// Who.
        host: String,
        /// As the system says it.
        what: String,
    },
    /// The connection broke.
    #[error("{host} breaks off: {what}")]
    Broken {
        /// Who.
        host: String,
        /// How.
        what: String,
    },
    /// A connection kept from an earlier request broke before the first byte of the answer, and the request must not be
    /// repeated as it is.
    #[error("{what}")]
    Stale {
        /// Who.
        host: String,
        /// As [`Error::Broken`] says it.
        what: String,
    },
    /// The body of the request broke off while it was sent.
    #[error("{what}")]
    OwnBody {
        /// In these words.
        what: String,
    },
    /// It answers, and what it says is no HTTP, or no TLS, or contradicts itself.
    #[error("{host} gives no valid answer: {what}")]
    Malformed {
        /// Who.
        host: String,
        /// What is wrong.
        what: String,
    },
    /// A header of more than 64 KiB or 100 fields.
    #[error("{host} answers with a header of more than 64 KiB or 100 fields")]
    HeadTooLarge {
        /// Who.
        host: String,
    },
    /// More framing around a small body than any server needs: chunk sizes of many digits, extensions, trailers.
    #[error("{host} sends an answer with far more framing than content")]
    Framing {
        /// Who.
        host: String,
    },
    /// More interim answers (1xx) than any server needs.
    #[error("{host} sends more than 8 interim answers (status 1xx)")]
    Interim {
        /// Who.
        host: String,
    },
    /// The forward proxy makes no tunnel to the host: it cannot be reached, it refuses, or it is silent.
    #[error("{host} cannot be reached through the forward proxy {proxy}: {what}")]
    ThroughProxy {
        /// Where to.
        host: String,
        /// Host and port of the proxy, without user and password.
        proxy: String,
        /// As the connection says it.
        what: String,
    },
    /// The two sides have no version of TLS, no algorithm or no protocol over it in common.
    #[error("{host}: no TLS that both sides accept: {what}")]
    NoCommonTls {
        /// Who.
        host: String,
        /// What is missing.
        what: String,
    },
    /// The server does not accept our client certificate.
    #[error("{host} refuses our certificate (TLS alert {alert})")]
    OurCertificate {
        /// Who.
        host: String,
        /// RFC 8446 section 6.2.
        alert: String,
    },
    /// The client certificate that a token is bound to is not here any more.
    #[error("the certificate for {host} is not here any more")]
    NoCertificate {
        /// Where to.
        host: String,
    },
    /// No trusted roots could be loaded.
    #[error("TLS cannot be set up: {what}")]
    Roots {
        /// What is missing.
        what: String,
    },
}

impl Error {
    /// May the same request succeed a little later?
    pub fn is_temporary(&self) -> bool {
        matches!(
            self,
            Self::Timeout { .. }
                | Self::NoTimeLeft { .. }
                | Self::Unreachable { .. }
                | Self::NoName { .. }
                | Self::NobodyListens { .. }
                | Self::Broken { .. }
                | Self::Stale { .. }
                | Self::OwnBody { .. }
                | Self::ThroughProxy { .. }
                | Self::NoCertificate { .. }
        )
    }

    /// Is there no such host or port? Whoever waits is told soon: most often the name is misspelled.
    pub(crate) fn is_absence(&self) -> bool {
        matches!(self, Self::NoName { .. } | Self::NobodyListens { .. })
    }

    /// What to do about it, if anything can be done.
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
                // Whoever named it may want just that, so no switch is a cure.
                Some("whoever names it must name a public address; this machine counts only where our own configuration names it (`url`, `issuer`, `token_endpoint`)".to_owned())
            }
            Self::Certificate { fault, .. } => Some(fault.hint().to_owned()),
            Self::Redirect { .. } => Some("configure the final URL".to_owned()),
            Self::NoName { host, .. } => {
                Some(format!("check the spelling of {host}, and whether this machine's DNS knows it"))
            }
            Self::NobodyListens { host, port } => {
                Some(format!("check the host and the port ({host}, {port}); a server that is starting needs a moment"))
            }
            Self::Roots { .. } => Some(
                "the roots come from SSL_CERT_FILE and SSL_CERT_DIR, else from the system; `ca_file` in [egress] adds to them"
                    .to_owned(),
            ),
            Self::ThroughProxy { host, proxy, .. } => Some(format!(
                "{proxy} comes from `proxy` in [egress], else from HTTPS_PROXY or ALL_PROXY: correct it (a user and password go into its URL), or name {host} in NO_PROXY if it can be reached directly"
            )),
            Self::NoCommonTls { .. } => Some(
                "the operator of that server must switch on TLS 1.2 or 1.3 with current algorithms, and HTTP/1.1 over it; an old proxy on the way can be the cause too"
                    .to_owned(),
            ),
            Self::Malformed { .. } | Self::HeadTooLarge { .. } | Self::Framing { .. } | Self::Interim { .. } => Some(
                "check the host and the port, and any proxy on the way; if they are right, the operator of that server must correct its answers"
                    .to_owned(),
            ),
            Self::OurCertificate { .. } => Some(
                "renew it, or have the operator of that server trust the CA that issued it (RFC 8705 section 2)"
                    .to_owned(),
            ),
            _ => None,
        }
    }

    /// Did a kept connection break before the first byte of the answer? Then a new request, with a new assertion, is fine.
    pub(crate) fn is_stale(&self) -> bool {
        matches!(self, Self::Stale { .. })
    }

    /// The error of the platforms' client. What it wraps is a [`Failure`] of our resolver, an error of TLS, or the system's.
    pub(super) fn from_reqwest(host: &str, error: &reqwest::Error) -> Self {
        if let Some(typed) = Self::typed(host, error) {
            return typed;
        }
        let (host, what) = (host.to_owned(), last_words(error));
        if error.is_timeout() {
            Self::Timeout { host, limit: super::CONNECT_LIMIT }
        } else if error.is_connect() {
            Self::Unreachable { host, what }
        } else {
            Self::Broken { host, what }
        }
    }

    /// The first error in the chain that says by its type what happened.
    pub(super) fn typed(host: &str, error: &(dyn std::error::Error + 'static)) -> Option<Self> {
        chain(error).map(innermost).find_map(|one| {
            let failure = one.downcast_ref().map(|failure| Self::from_failure(host.to_owned(), failure));
            failure.or_else(|| one.downcast_ref().map(|tls| Self::from_tls(host.to_owned(), tls)))
        })
    }

    pub(super) fn from_failure(host: String, failure: &Failure) -> Self {
        match failure {
            Failure::Forbidden(kind) => Self::Forbidden { host, kind: *kind },
            Failure::Tls(error) => Self::from_tls(host, error),
            Failure::Timeout => Self::Timeout { host, limit: super::CONNECT_LIMIT },
            Failure::Resolve(error) if may_resolve_later(error) => {
                Self::Unreachable { host, what: failure.to_string() }
            }
            Failure::Resolve(error) => {
                let what = error.to_string();
                let what = what.rsplit(": ").next().unwrap_or_default().to_owned();
                Self::NoName { host, what }
            }
            Failure::NoAddress => Self::NoName { host, what: "it has no address".to_owned() },
            Failure::NobodyListens(port) => Self::NobodyListens { host, port: *port },
            Failure::Connect(_) | Failure::Handshake(_) | Failure::Name | Failure::ToProxy(_) | Failure::Tunnel(_) => {
                Self::Unreachable { host, what: failure.to_string() }
            }
        }
    }

    fn from_tls(host: String, error: &rustls::Error) -> Self {
        match error {
            rustls::Error::AlertReceived(alert) if is_about_our_certificate(*alert) => {
                Self::OurCertificate { host, alert: format!("{alert:?}") }
            }
            rustls::Error::InvalidCertificate(reason) => Self::Certificate { host, fault: reason.into() },
            rustls::Error::AlertReceived(alert) if let Some(what) = not_in_common(*alert) => {
                Self::NoCommonTls { host, what: format!("{what} (TLS alert {alert:?})") }
            }
            rustls::Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13) => {
                Self::NoCommonTls { host, what: OLD.to_owned() }
            }
            rustls::Error::PeerIncompatible(reason) => {
                Self::NoCommonTls { host, what: format!("{reason:?}").chars().take(90).collect() }
            }
            rustls::Error::NoApplicationProtocol => Self::NoCommonTls { host, what: NO_HTTP.to_owned() },
            rustls::Error::InvalidMessage(_) | rustls::Error::PeerMisbehaved(_) => {
                Self::Malformed { host, what: format!("TLS: {error}") }
            }
            _ => Self::Broken { host, what: format!("TLS: {error}") },
        }
    }
}

/// What is wrong with the other side's certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateFault {
    /// Signed by a CA that is not trusted, or by one of the same name with another key.
    #[error("its certificate is signed by an unknown CA")]
    UnknownCa,
    /// Its time is over.
    #[error("its certificate has expired")]
    Expired,
    /// Its time is still to come.
    #[error("its certificate is not valid yet by this machine's clock")]
    NotValidYet,
    /// It is for another host.
    #[error("its certificate is for another host name")]
    OtherName,
    /// It is not the one that the platform named.
    #[error("its certificate is not the one with the thumbprint that the platform gives")]
    OtherThumbprint,
    /// Something rarer, in the words of the TLS library.
    #[error("its certificate is not valid ({0})")]
    Other(String),
}

impl From<&CertificateError> for CertificateFault {
    fn from(reason: &CertificateError) -> Self {
        match reason {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::UnknownCa,
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Self::NotValidYet,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => Self::OtherName,
            CertificateError::ApplicationVerificationFailure => Self::OtherThumbprint,
            other => Self::Other(format!("{other:?}").chars().take(90).collect()),
        }
    }
}

impl CertificateFault {
    fn hint(&self) -> &'static str {
        match self {
            Self::UnknownCa => "if it is your own CA, give it as `ca_file` in [egress]",
            Self::Expired => "its operator must renew it; check this machine's clock too",
            Self::OtherThumbprint => "it was renewed, or something else answers there: start the workload anew",
            Self::NotValidYet => {
                "check this machine's clock, which may be behind; if it is right, the operator of that server must install a certificate that is valid now"
            }
            Self::OtherName | Self::Other(_) => "the operator of that server must install a certificate for this name",
        }
    }
}

/// An error and its sources.
fn chain<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |one| one.source())
}

/// The message of the last source: the system's own words ("Connection refused"). The error itself may name the URL with
/// its query, so its message is never used.
fn last_words(error: &(dyn std::error::Error + 'static)) -> String {
    chain(error).skip(1).last().map_or_else(|| "no reason given".to_owned(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(error: rustls::Error) -> Error {
        Error::from_tls("as.example.com".to_owned(), &error)
    }

    #[test]
    fn a_server_that_speaks_no_tls_of_ours_is_refused_for_good_and_its_operator_is_told() {
        use rustls::AlertDescription as Alert;
        let alerts = [
            Alert::ProtocolVersion,
            Alert::HandshakeFailure,
            Alert::InsufficientSecurity,
            Alert::NoApplicationProtocol,
            Alert::UnrecognisedName,
        ];
        let incompatible = PeerIncompatible::ServerDoesNotSupportTls12Or13;
        let alerts = alerts.map(rustls::Error::AlertReceived).into_iter();
        for error in alerts.chain([incompatible.into(), rustls::Error::NoApplicationProtocol]) {
            let error = of(error);
            assert!(matches!(error, Error::NoCommonTls { .. }) && !error.is_temporary(), "{error:?}");
            assert!(error.hint().is_some_and(|hint| hint.contains("operator")), "{error}");
        }
        assert!(of(incompatible_old()).to_string().contains("neither TLS 1.2 nor TLS 1.3"));
        for passing in [Alert::InternalError, Alert::UserCanceled, Alert::CloseNotify] {
            assert!(of(rustls::Error::AlertReceived(passing)).is_temporary(), "{passing:?}");
        }
    }

    fn incompatible_old() -> rustls::Error {
        PeerIncompatible::ServerDoesNotSupportTls12Or13.into()
    }

    #[test]
    fn a_certificate_whose_time_does_not_fit_names_this_machines_clock() {
        for reason in [CertificateError::NotValidYet, CertificateError::Expired] {
            let error = of(reason.into());
            assert!(error.hint().is_some_and(|hint| hint.contains("clock")), "{error}");
            assert!(!error.is_temporary());
        }
    }
}
