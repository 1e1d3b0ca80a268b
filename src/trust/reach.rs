//! Can a cloud fetch the keys of this issuer? The clouds do so from the Internet.

use std::net::IpAddr;

use crate::address::{self, Kind};

/// Ends of names that only a cluster, a network or a machine knows (RFC 6761, RFC 6762, RFC 8375, Kubernetes).
const LOCAL: [&str; 10] =
    [".svc", ".local", ".localhost", ".internal", ".intranet", ".corp", ".lan", ".home.arpa", ".test", ".invalid"];

/// Why nobody outside can fetch the keys of this issuer, judged by its name alone.
pub(super) fn hidden(issuer: &str) -> Option<&'static str> {
    let Some(rest) = issuer.strip_prefix("https://") else { return Some("it is no https URL") };
    let host = host(rest).to_ascii_lowercase();
    let host = host.trim_end_matches('.');
    if let Ok(address) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
        return (!is_public(address)).then_some("its address is not a public one");
    }
    let is_local = !host.contains('.') || LOCAL.iter().any(|end| host.ends_with(end));
    is_local.then_some("its name is known inside alone")
}

/// Is the issuer on this machine or in a private network, by its address?
pub(super) fn is_beside_us(issuer: &str) -> bool {
    let rest = without_scheme(issuer);
    let address = host(rest).trim_matches(['[', ']']).parse::<IpAddr>();
    address.is_ok_and(|address| !is_public(address)) || host(rest) == "localhost"
}

/// The issuer without its scheme: AWS writes it so.
pub(super) fn without_scheme(issuer: &str) -> &str {
    issuer.split_once("://").map_or(issuer, |(_, rest)| rest)
}

/// The host of a URL without its scheme.
fn host(rest: &str) -> &str {
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    match authority.find(']') {
        Some(end) => &authority[..=end],
        None => authority.split(':').next().unwrap_or_default(),
    }
}

fn is_public(address: IpAddr) -> bool {
    address::kind(address) == Kind::Public
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_a_cluster_a_network_or_a_machine_knows_is_hidden() {
        for inside in [
            "https://kubernetes.default.svc.cluster.local",
            "https://kubernetes.default.svc",
            "https://kubernetes/realms/x",
            "https://10.96.0.1:443/",
            "https://[fd00::1]:6443",
            "https://127.0.0.1:8443",
            "https://[::ffff:192.168.0.1]/",
            "https://100.64.1.2",
            "https://[64:ff9b::a00:1]/",
            "https://168.63.129.16",
            "https://spire.corp.internal/a",
            "http://oidc.example.com",
            "",
        ] {
            assert!(hidden(inside).is_some(), "{inside}");
        }
        for outside in [
            "https://token.actions.githubusercontent.com",
            "https://oidc.eks.eu-central-1.amazonaws.com/id/ABC",
            "https://container.googleapis.com/v1/projects/p/locations/l/clusters/c",
            "https://8.8.8.8/",
            "https://sts.windows.net/tenant/",
        ] {
            assert_eq!(hidden(outside), None, "{outside}");
        }
    }
}
