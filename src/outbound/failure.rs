//! Why a connection fails, by step.

use std::io;

use super::CONNECT_LIMIT;
use super::tunnel::Refusal;
use crate::address::Kind;

/// Why there is no connection, by step.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The system's resolver says so.
    #[error("{0}")]
    Resolve(io::Error),
    /// The name resolves, to nothing.
    #[error("its name has no address")]
    NoAddress,
    /// The egress rules allow none of its addresses.
    #[error("it resolves to {0}")]
    Forbidden(Kind),
    /// Every address refuses a connection to this port.
    #[error("nobody listens on its port {0}")]
    NobodyListens(u16),
    /// No address takes a connection.
    #[error("{0}")]
    Connect(io::Error),
    /// One side refuses the other in the handshake.
    #[error("TLS: {0}")]
    Tls(rustls::Error),
    /// The connection breaks during the handshake.
    #[error("{0}")]
    Handshake(io::Error),
    /// TLS cannot prove a host of this name.
    #[error("its name cannot be in a certificate")]
    Name,
    /// The forward proxy itself cannot be reached.
    #[error("{0}")]
    ToProxy(Box<Self>),
    /// The forward proxy makes no tunnel.
    #[error("{0}")]
    Tunnel(Refusal),
    /// The steps together took too long.
    #[error("no connection within {} s", CONNECT_LIMIT.as_secs())]
    Timeout,
}

impl Failure {
    pub(super) fn of_handshake(error: io::Error) -> Self {
        match innermost(&error).downcast_ref::<rustls::Error>() {
            Some(tls) => Self::Tls(tls.clone()),
            None => Self::Handshake(error),
        }
    }
}

/// May this look-up succeed later, although the name is right? The standard library has the resolver's code (EAI_AGAIN) only as text: as
/// glibc and as musl say it. This program never sets a locale.
pub(super) fn may_resolve_later(error: &io::Error) -> bool {
    const AGAIN: [&str; 2] = ["Temporary failure in name resolution", "Try again"];
    // The first is ours: no thread, or one that broke off.
    error.kind() == io::ErrorKind::Other || AGAIN.iter().any(|words| error.to_string().ends_with(words))
}

/// The error that an I/O error wraps, however deep. The `source` of an I/O error leaves that one out.
pub(super) fn innermost<'a>(mut error: &'a (dyn std::error::Error + 'static)) -> &'a (dyn std::error::Error + 'static) {
    while let Some(inner) = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        error = inner;
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_server_that_is_away_is_not_a_name_that_is_not_there() {
        // As the standard library says them, by glibc and by musl.
        let of_resolver = |said| {
            let text = format!("failed to lookup address information: {said}");
            may_resolve_later(&io::Error::new(io::ErrorKind::NotFound, text))
        };
        assert!(of_resolver("Temporary failure in name resolution") && of_resolver("Try again"));
        assert!(!of_resolver("Name or service not known") && !of_resolver("Name does not resolve"));
        assert!(may_resolve_later(&io::Error::other("the lookup broke off")));
    }
}
