//! The egress rules: which URLs, names and addresses a request may reach.
//!
//! A URL is checked before anything is dialled ([`admit`]), a name when it is resolved ([`Rules::resolve`]). Only addresses
//! that the rules allow are returned to the dialler, so the address that was checked is the address that is dialled.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

use super::failure::Failure;
use super::{Config, Error, NamedBy, name};
use crate::address::{self, Kind, Network};
use crate::oauth::host_of;

/// Checks the scheme, and the address if the host is one. Names are checked when they are resolved.
pub(super) fn admit(config: &Config, url: &Url, named_by: NamedBy) -> Result<(), Error> {
    let host = host_of(url);
    let forbidden = |kind| Error::Forbidden { host: host.to_owned(), kind };
    let address = literal(url);
    let loopback = host == "localhost" || address.is_some_and(|address| address.is_loopback());
    match url.scheme() {
        "https" => {}
        "http" if named_by == NamedBy::Platform && address::is_beside_us(host, address) => {}
        "http" if loopback && config.insecure_loopback => {}
        "http" if loopback && named_by == NamedBy::Them => return Err(forbidden(Kind::Loopback)),
        "http" if loopback => return Err(Error::InsecureLoopback { host: host.to_owned() }),
        _ => return Err(Error::Insecure { host: host.to_owned() }),
    }
    // A host that the operator has named may be a name, whatever it resolves to.
    if address.is_none() && named_by != NamedBy::Them {
        return Ok(());
    }
    let rules = Rules::new(config, named_by);
    match address {
        Some(address) => rules.admit(address).map_err(forbidden),
        None if !rules.may_resolve(host) => Err(Error::NotAllowed { host: host.to_owned() }),
        None => Ok(()),
    }
}

/// Is this an endpoint on this machine or its link, where plain http is fine for a platform?
pub(crate) fn is_beside_us(url: &Url) -> bool {
    url.scheme() == "http" && address::is_beside_us(host_of(url), literal(url))
}

/// The address that the host of a URL is, if it is no name.
pub(super) fn literal(url: &Url) -> Option<IpAddr> {
    match url.host()? {
        Host::Ipv4(address) => Some(IpAddr::V4(address)),
        Host::Ipv6(address) => Some(IpAddr::V6(address)),
        Host::Domain(_) => None,
    }
}

/// Which addresses a request may reach.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    named_by: NamedBy,
    loopback: bool,
    allow: Option<Vec<Network>>,
}

impl Rules {
    pub(super) fn new(config: &Config, named_by: NamedBy) -> Self {
        Self { named_by, loopback: config.insecure_loopback, allow: config.allow.clone() }
    }

    fn admit(&self, address: IpAddr) -> Result<(), Kind> {
        let kind = address::kind(address);
        match (self.named_by, kind) {
            (NamedBy::Platform, Kind::LinkLocal | Kind::Loopback) => Ok(()),
            // No configuration makes a metadata service an authorization server.
            (_, Kind::LinkLocal | Kind::Unusable) => Err(kind),
            (_, Kind::Loopback) if self.loopback => Ok(()),
            (NamedBy::Us | NamedBy::Platform, _) => Ok(()),
            (NamedBy::Them, _) => match &self.allow {
                Some(allow) if allow.iter().any(|network| network.contains(address)) => Ok(()),
                Some(_) => Err(Kind::Unlisted),
                None if kind == Kind::Public => Ok(()),
                None => Err(kind),
            },
        }
    }

    /// Under an allow list, a name that is not on it may still resolve to an address in a listed network. If the list is
    /// empty, no name can.
    fn may_resolve(&self, host: &str) -> bool {
        (self.loopback && host == "localhost") || self.allow.as_ref().is_none_or(|allow| !allow.is_empty())
    }

    /// The addresses of a host that the rules allow, with this port. It fails if there are some and none is allowed.
    pub(super) async fn resolve(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, Failure> {
        if let Ok(address) = host.parse() {
            return self.allowed([SocketAddr::new(address, port)].into_iter());
        }
        if let Some(address) = address::fixed(host).filter(|_| self.named_by == NamedBy::Platform) {
            let mut found = vec![SocketAddr::new(address, port)];
            // `localhost` is 127.0.0.1, or [::1] on a machine with IPv6 alone.
            found.extend(address.is_loopback().then(|| SocketAddr::new(Ipv6Addr::LOCALHOST.into(), port)));
            return Ok(found);
        }
        let found = name::look_up(host).await.map_err(Failure::Resolve)?;
        self.allowed(found.map(|address| SocketAddr::new(address.ip(), port)))
    }

    fn allowed(&self, found: impl Iterator<Item = SocketAddr>) -> Result<Vec<SocketAddr>, Failure> {
        let mut refused = None;
        let mut allowed = Vec::new();
        for address in found {
            match self.admit(address.ip()) {
                Ok(()) => allowed.push(address),
                Err(kind) => refused = Some(kind),
            }
        }
        match (allowed.is_empty(), refused) {
            (true, Some(kind)) => Err(Failure::Forbidden(kind)),
            (true, None) => Err(Failure::NoAddress),
            _ => Ok(allowed),
        }
    }
}

impl Resolve for Rules {
    fn resolve(&self, name: Name) -> Resolving {
        let rules = self.clone();
        Box::pin(async move {
            let allowed = Self::resolve(&rules, name.as_str(), 0).await?;
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(addresses: &[&str]) -> impl Iterator<Item = SocketAddr> {
        let parse = |text: &&str| SocketAddr::new(text.parse().expect("an address"), 443);
        addresses.iter().map(parse).collect::<Vec<_>>().into_iter()
    }

    #[test]
    fn of_the_addresses_of_a_name_only_the_allowed_ones_are_dialled() {
        let rules = Rules::new(&Config::default(), NamedBy::Them);
        let allowed = rules.allowed(found(&["10.0.0.1", "8.8.8.8", "169.254.169.254", "2606:4700::1111"]));
        assert_eq!(allowed.expect("two are public"), found(&["8.8.8.8", "2606:4700::1111"]).collect::<Vec<_>>());
        assert!(matches!(rules.allowed(found(&["10.0.0.1"])), Err(Failure::Forbidden(Kind::Private))));
        assert!(matches!(rules.allowed(found(&[])), Err(Failure::NoAddress)));
    }

    #[tokio::test]
    async fn a_platform_on_localhost_is_found_on_a_machine_with_ipv6_alone() {
        let rules = Rules::new(&Config::default(), NamedBy::Platform);
        let places = rules.resolve("localhost", 8080).await.expect("beside us");
        assert_eq!(places.iter().map(ToString::to_string).collect::<Vec<_>>(), ["127.0.0.1:8080", "[::1]:8080"]);
    }

    #[tokio::test]
    async fn an_address_in_the_place_of_a_name_is_checked_like_one() {
        let rules = Rules::new(&Config::default(), NamedBy::Them);
        for host in ["10.0.0.1", "::1", "169.254.169.254"] {
            assert!(matches!(rules.resolve(host, 443).await, Err(Failure::Forbidden(_))), "{host}");
        }
        let place: SocketAddr = "8.8.8.8:8443".parse().expect("an address");
        assert_eq!(rules.resolve("8.8.8.8", 8443).await.expect("public"), [place]);
    }
}
