//! Kinds of addresses. A document of another party may name only hosts with public addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The kind of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Kind {
    /// The Internet.
    #[error("a public address")]
    Public,
    /// This machine.
    #[error("a loopback address")]
    Loopback,
    /// RFC 1918, ULA (RFC 4193), CGNAT (RFC 6598) and their translations.
    #[error("a private address")]
    Private,
    /// Link-local, or the metadata service of a cloud.
    #[error("a link-local address")]
    LinkLocal,
    /// Multicast, broadcast, documentation, unspecified: no server can have it.
    #[error("an address that is no host's")]
    Unusable,
    /// Not in `[egress] allow`.
    #[error("not in [egress] allow")]
    Unlisted,
}

/// An address range such as `10.1.0.0/16`, or a single address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Network {
    base: IpAddr,
    bits: u8,
}

impl Network {
    /// Parses `address` or `address/bits`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (base, bits) = match text.split_once('/') {
            Some((base, bits)) => (base.parse().ok()?, Some(bits.parse().ok()?)),
            None => (text.trim_matches(['[', ']']).parse().ok()?, None),
        };
        let most = if matches!(base, IpAddr::V4(_)) { 32 } else { 128 };
        let bits = bits.unwrap_or(most);
        (bits <= most).then_some(Self { base, bits })
    }

    /// Is the address in the range?
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        match (self.base, address) {
            (IpAddr::V4(base), IpAddr::V4(address)) => {
                let shift = 32 - u32::from(self.bits);
                u32::from(base).checked_shr(shift) == u32::from(address).checked_shr(shift)
            }
            (IpAddr::V6(base), IpAddr::V6(address)) => {
                let shift = 128 - u32::from(self.bits);
                u128::from(base).checked_shr(shift) == u128::from(address).checked_shr(shift)
            }
            _ => false,
        }
    }
}

/// The name of Google's metadata service. Its address never changes, so it is not looked up.
const GOOGLE_METADATA: &str = "metadata.google.internal";

/// The address of a platform's endpoint that is called by a name.
pub(crate) fn fixed(name: &str) -> Option<IpAddr> {
    match name {
        GOOGLE_METADATA => Some(IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254))),
        "localhost" => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        _ => None,
    }
}

/// Is this host on this machine or its link, so that plain http does not leave them?
pub(crate) fn is_beside_us(host: &str, address: Option<IpAddr>) -> bool {
    let address = address.or_else(|| fixed(host));
    address.is_some_and(|address| matches!(kind(address), Kind::LinkLocal | Kind::Loopback))
}

/// The kind of an address. An IPv6 address that contains an IPv4 address has the kind of that one.
pub(crate) fn kind(address: IpAddr) -> Kind {
    match address {
        IpAddr::V4(address) => kind_v4(address),
        IpAddr::V6(address) => kind_v6(address),
    }
}

/// Metadata services outside of 169.254.0.0/16: Azure's wire server, Alibaba Cloud.
const METADATA_V4: [Ipv4Addr; 2] = [Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(100, 100, 100, 200)];
/// Metadata services on IPv6 outside of fe80::/10: AWS, Google Cloud, Oracle Cloud.
const METADATA_V6: [Ipv6Addr; 3] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe),
];

fn kind_v4(address: Ipv4Addr) -> Kind {
    let [a, b, c, _] = address.octets();
    match (a, b, c) {
        (127, ..) => Kind::Loopback,
        (169, 254, _) => Kind::LinkLocal,
        _ if METADATA_V4.contains(&address) => Kind::LinkLocal,
        (10, ..) | (192, 168, _) => Kind::Private,
        (172, 16..=31, _) => Kind::Private,
        // CGNAT (RFC 6598), where some clouds put their metadata and DNS.
        (100, 64..=127, _) => Kind::Private,
        // Benchmarking (RFC 2544).
        (198, 18..=19, _) => Kind::Private,
        (0, ..) | (224..=255, ..) => Kind::Unusable,
        // Protocol assignments and documentation (RFC 6890, RFC 5737).
        (192, 0, 0 | 2) | (198, 51, 100) | (203, 0, 113) => Kind::Unusable,
        // The withdrawn relays of 6to4 (RFC 7526).
        (192, 88, 99) => Kind::Unusable,
        _ => Kind::Public,
    }
}

fn kind_v6(address: Ipv6Addr) -> Kind {
    let segments = address.segments();
    if address.is_loopback() {
        return Kind::Loopback;
    }
    if let Some(carried) = carried_v4(address) {
        return kind_v4(carried);
    }
    match segments[0] {
        0xfe80..=0xfebf => Kind::LinkLocal,
        _ if METADATA_V6.contains(&address) => Kind::LinkLocal,
        // AWS keeps the whole network for such services.
        0xfd00 if segments[1] == 0x0ec2 => Kind::LinkLocal,
        0xfc00..=0xfdff | 0xfec0..=0xfeff => Kind::Private,
        0xff00..=0xffff | 0 => Kind::Unusable,
        0x0064 if segments[1] == 0xff9b => Kind::Private,
        // Protocol assignments with Teredo and ORCHID (RFC 2928, RFC 4380, RFC 7343), documentation (RFC 3849, RFC 9637).
        0x2001 if segments[1] < 0x0200 || segments[1] == 0x0db8 => Kind::Unusable,
        0x3fff if segments[1] < 0x1000 => Kind::Unusable,
        0x2000..=0x3fff => Kind::Public,
        _ => Kind::Unusable,
    }
}

/// The IPv4 address in an IPv6 address: mapped, NAT64 (RFC 6052), 6to4 (RFC 3056).
fn carried_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let segments = address.segments();
    let join = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match segments {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(join(high, low)),
        [0x2002, high, low, ..] => Some(join(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_internet_is_public() {
        let cases = [
            ("8.8.8.8", Kind::Public),
            ("2606:4700::1111", Kind::Public),
            ("127.0.0.53", Kind::Loopback),
            ("::1", Kind::Loopback),
            ("10.0.0.1", Kind::Private),
            ("172.31.255.255", Kind::Private),
            ("172.32.0.1", Kind::Public),
            ("192.168.1.1", Kind::Private),
            ("100.100.100.201", Kind::Private),
            ("100.100.100.200", Kind::LinkLocal),
            ("168.63.129.16", Kind::LinkLocal),
            ("168.63.129.17", Kind::Public),
            ("::ffff:168.63.129.16", Kind::LinkLocal),
            ("64:ff9b::6464:64c8", Kind::LinkLocal),
            ("2002:a83f:8110::", Kind::LinkLocal),
            ("fd20:ce::254", Kind::LinkLocal),
            ("fd00:c1::a9fe:a9fe", Kind::LinkLocal),
            ("192.88.99.1", Kind::Unusable),
            ("2001::1", Kind::Unusable),
            ("2001:0:a00:1::", Kind::Unusable),
            ("2001:20::1", Kind::Unusable),
            ("2001:200::1", Kind::Public),
            ("3fff:fff::1", Kind::Unusable),
            ("3fff:1000::1", Kind::Public),
            ("169.254.169.254", Kind::LinkLocal),
            ("fe80::1", Kind::LinkLocal),
            ("fd00:ec2::254", Kind::LinkLocal),
            ("fd12::1", Kind::Private),
            ("::ffff:10.0.0.1", Kind::Private),
            ("::ffff:169.254.169.254", Kind::LinkLocal),
            ("64:ff9b::a00:1", Kind::Private),
            ("64:ff9b::808:808", Kind::Public),
            ("64:ff9b:1::a00:1", Kind::Private),
            ("2002:7f00:1::", Kind::Loopback),
            ("0.0.0.0", Kind::Unusable),
            ("::", Kind::Unusable),
            ("255.255.255.255", Kind::Unusable),
            ("224.0.0.1", Kind::Unusable),
            ("192.0.2.1", Kind::Unusable),
            ("2001:db8::1", Kind::Unusable),
        ];
        for (text, wanted) in cases {
            assert_eq!(kind(text.parse().expect("an address")), wanted, "{text}");
        }
    }

    #[test]
    fn a_network_holds_its_addresses() {
        let network = Network::parse("10.1.0.0/16").expect("a network");
        assert!(network.contains("10.1.255.1".parse().expect("an address")));
        assert!(!network.contains("10.2.0.1".parse().expect("an address")));
        assert!(Network::parse("0.0.0.0/0").expect("all").contains("8.8.8.8".parse().expect("an address")));
        assert!(Network::parse("fd00::/8").expect("ULA").contains("fd12::1".parse().expect("an address")));
        assert_eq!(Network::parse("10.0.0.0/33"), None);
        assert_eq!(Network::parse("login.example.com"), None);
    }
}
