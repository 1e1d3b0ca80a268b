//! What the alerts of TLS are about.

use rustls::AlertDescription;

/// The alerts that a server sends about a client certificate, or about a missing one (RFC 8446 section 6.2). `DecryptError` is
/// among them: it is sent when a CA of the expected name has signed with another key.
pub(super) fn is_about_our_certificate(alert: AlertDescription) -> bool {
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

pub(super) const OLD: &str = "it speaks neither TLS 1.2 nor TLS 1.3";
pub(super) const NO_HTTP: &str = "it speaks no HTTP/1.1 over TLS";

/// What is missing, if a server says with this alert that no handshake with us can succeed (RFC 8446 section 6.2). The other
/// alerts are about this one handshake.
pub(super) fn not_in_common(alert: AlertDescription) -> Option<&'static str> {
    match alert {
        AlertDescription::ProtocolVersion => Some(OLD),
        AlertDescription::HandshakeFailure | AlertDescription::InsufficientSecurity => {
            Some("it accepts none of the algorithms offered")
        }
        AlertDescription::NoApplicationProtocol => Some(NO_HTTP),
        AlertDescription::UnrecognisedName => Some("it does not know this host name"),
        _ => None,
    }
}
