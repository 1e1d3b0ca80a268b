//! The AWS Security Token Service (STS) and its two calls that exchange one proof of a workload for another.
//!
//! `AssumeRoleWithWebIdentity` exchanges a JWT for a role's credentials. `GetWebIdentityToken` exchanges a role's credentials
//! for a JWT with any audience. Both go to the STS of one region, because the global endpoint does not have the second. The
//! SDK makes the calls (`sts.rs`) over our HTTP client (`smithy.rs`); its credential chains are not used.
//!
//! Source: AWS Security Token Service API Reference; IAM User Guide, "Outbound identity federation".

use std::time::{Duration, SystemTime};

use crate::oauth::names_this_machine;

mod caller_identity;
mod error;
mod smithy;
mod sts;

pub(crate) use aws_credential_types::Credentials;
pub(crate) use caller_identity::{GOOGLE_FIELD, caller_identity};
pub(crate) use error::{Error, NOT_STS};
pub(crate) use sts::{Algorithm, Assumed, Sts};

/// The audience of web identity tokens for STS, unless the identity provider is registered with another.
pub(crate) const AUDIENCE: &str = "sts.amazonaws.com";

/// AWS partitions: the prefix of their regions and the suffix of their host names.
const PARTITIONS: &[(&str, &str)] = &[
    ("cn-", "amazonaws.com.cn"),
    ("eusc-", "amazonaws.eu"),
    ("us-iso-", "c2s.ic.gov"),
    ("us-isob-", "sc2s.sgov.gov"),
    ("eu-isoe-", "cloud.adc-e.uk"),
    ("us-isof-", "csp.hci.ic.gov"),
];
const DEFAULT_EXCHANGE: &str = "amazonaws.com";

/// The STS endpoint of a region.
pub(crate) fn endpoint(region: &str) -> String {
    let suffix =
        PARTITIONS.iter().find(|(start, _)| region.starts_with(start)).map_or(DEFAULT_EXCHANGE, |(_, suffix)| suffix);
    format!("https://sts.{region}.{suffix}")
}

/// Does the STS of some partition accept web identity tokens with this audience?
pub(crate) fn is_audience(text: &str) -> bool {
    let mut suffixes = PARTITIONS.iter().map(|(_, suffix)| *suffix).chain([DEFAULT_EXCHANGE]);
    text.strip_prefix("sts.").is_some_and(|rest| suffixes.any(|suffix| rest == suffix))
}

/// Is it the name of a region? The name becomes part of a host. The global pseudo-regions do not count.
pub(crate) fn is_region(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    text.contains('-') && text.len() <= 32 && text.bytes().all(fits) && !text.ends_with("global")
}

/// May this endpoint replace the region's STS? It receives the identity, so it must be an https host of AWS (a VPC
/// endpoint), or a loopback address in tests.
pub(crate) fn may_be_endpoint(text: &str) -> bool {
    let Ok(url) = url::Url::parse(text) else { return false };
    let host = url.host_str().unwrap_or_default();
    let suffixes = PARTITIONS.iter().map(|(_, suffix)| *suffix).chain([DEFAULT_EXCHANGE, "api.aws"]);
    let of_aws =
        || suffixes.map(|suffix| format!(".{suffix}")).any(|suffix| host.strip_suffix(&suffix).is_some_and(is_sts));
    let bare = url.username().is_empty() && url.password().is_none() && url.query().is_none();
    let loopback = names_this_machine(host);
    bare && (loopback || (url.scheme() == "https" && of_aws()))
}

/// Do these labels, before AWS's own suffix, name STS? Customers' buckets, gateways and load balancers have the same suffix.
fn is_sts(labels: &str) -> bool {
    match labels.split('.').collect::<Vec<_>>().as_slice() {
        ["sts" | "sts-fips", region] | [_, "sts" | "sts-fips", region, "vpce"] => is_region(region),
        _ => false,
    }
}

/// The time until the credentials expire. `None` if they have no expiry.
pub(crate) fn remaining(credentials: &Credentials, wall: SystemTime) -> Option<Duration> {
    credentials.expiry().map(|expiry| expiry.duration_since(wall).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_partition_has_its_own_names() {
        for (region, host) in [
            ("eu-central-1", "https://sts.eu-central-1.amazonaws.com"),
            ("us-gov-west-1", "https://sts.us-gov-west-1.amazonaws.com"),
            ("cn-north-1", "https://sts.cn-north-1.amazonaws.com.cn"),
            ("eusc-de-east-1", "https://sts.eusc-de-east-1.amazonaws.eu"),
            ("us-isob-east-1", "https://sts.us-isob-east-1.sc2s.sgov.gov"),
        ] {
            assert_eq!(endpoint(region), host);
        }
        assert!(is_audience(AUDIENCE) && is_audience("sts.amazonaws.com.cn"));
        assert!(!is_audience("https://kubernetes.default.svc") && !is_audience("sts.amazonaws.com.evil.example"));
    }

    #[test]
    fn a_region_is_a_word_and_never_global() {
        assert!(is_region("ap-southeast-2") && is_region("us-gov-west-1"));
        for bad in ["", "aws-global", "aws-cn-global", "eu", "eu-central-1.evil.example", "eu-central-1/", "EU-WEST-1"]
        {
            assert!(!is_region(bad), "{bad}");
        }
    }

    #[test]
    fn only_aws_itself_or_this_machine_stands_for_sts() {
        for good in [
            "https://vpce-1a2b.sts.eu-central-1.vpce.amazonaws.com",
            "https://sts.eu-central-1.api.aws",
            "https://sts.cn-north-1.amazonaws.com.cn",
            "http://127.0.0.1:4566",
            "http://[::1]:4566/",
        ] {
            assert!(may_be_endpoint(good), "{good}");
        }
        for bad in [
            "http://sts.eu-central-1.amazonaws.com",
            "https://amazonaws.com.evil.example",
            "https://evilamazonaws.com",
            "https://sts.s3.amazonaws.com",
            "https://sts.eu-central-1.s3.amazonaws.com",
            "https://a1b2c3.execute-api.eu-central-1.amazonaws.com",
            "https://sts-1234.eu-central-1.elb.amazonaws.com",
            "https://user@sts.eu-central-1.amazonaws.com",
            "https://sts.eu-central-1.amazonaws.com?x=1",
            "http://10.0.0.1",
            "sts",
        ] {
            assert!(!may_be_endpoint(bad), "{bad}");
        }
    }
}
