//! Names are looked up by the system, and only here.

use std::io;
use std::net::{IpAddr, SocketAddr};

use super::{CONNECT_LIMIT, Outbound, address};

/// The addresses that the system gives for a name.
pub(super) async fn look_up(name: &str) -> io::Result<impl Iterator<Item = SocketAddr>> {
    tokio::net::lookup_host((name, 0)).await
}

impl Outbound {
    /// Does the system resolve the name of a platform's endpoint to the one address that is dialled here for it? Only then may
    /// another client, which lets the system resolve the name, be used for that endpoint.
    pub(crate) async fn agrees_with_the_system(&self, host: &str) -> bool {
        let literal = host.parse().ok();
        let Some(dialled) = literal.or_else(|| address::fixed(host)) else { return false };
        let found = tokio::time::timeout(self.left(CONNECT_LIMIT), look_up(host)).await;
        found.is_ok_and(|found| found.is_ok_and(|found| leads_only_to(dialled, found)))
    }
}

fn leads_only_to(dialled: IpAddr, mut found: impl Iterator<Item = SocketAddr>) -> bool {
    let first = found.next();
    first.is_some_and(|first| first.ip() == dialled) && found.all(|other| other.ip() == dialled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_leads_anywhere_else_as_well_does_not_agree() {
        let place = |text: &str| SocketAddr::new(text.parse().expect("an address"), 0);
        let (metadata, other) = (place("169.254.169.254"), place("10.0.0.7"));
        let agrees = |found: &[SocketAddr]| leads_only_to(metadata.ip(), found.iter().copied());
        assert!(agrees(&[metadata]));
        assert!(agrees(&[metadata, metadata]), "once for each kind of socket");
        assert!(!agrees(&[]));
        assert!(!agrees(&[other]));
        assert!(!agrees(&[metadata, other]));
        assert!(!agrees(&[other, metadata]));
    }

    #[tokio::test]
    async fn a_name_of_no_platform_never_agrees() {
        let outbound = Outbound::new(crate::outbound::Config::default());
        assert!(outbound.agrees_with_the_system("127.0.0.1").await);
        assert!(!outbound.agrees_with_the_system("metadata.example").await);
    }
}
