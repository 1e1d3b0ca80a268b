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

/// AWS partitions: the prefix of their regions, the suffix of their host names, and that of dual-stack host names.
const PARTITIONS: &[(&str, &str, Option<&str>)] = &[
    ("cn-", "amazonaws.com.cn", Some("api.amazonwebservices.com.cn")),
    ("eusc-", "amazonaws.eu", Some("api.amazonwebservices.eu")),
    ("us-iso-", "c2s.ic.gov", None),
    ("us-isob-", "sc2s.sgov.gov", None),
    ("eu-isoe-", "cloud.adc-e.uk", None),
    ("us-isof-", "csp.hci.ic.gov", None),
];
const DEFAULT_EXCHANGE: &str = "amazonaws.com";
const DUAL_STACK: &str = "api.aws";

/// Which of a region's STS endpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Variant {
    /// With validated cryptography (FIPS 140).
    pub(crate) fips: bool,
    /// With IPv6 beside IPv4.
    pub(crate) dual_stack: bool,
}

/// The STS endpoint of a region.
pub(crate) fn endpoint(region: &str) -> String {
    format!("https://sts.{region}.{}", suffixes(region).0)
}

/// This variant of a region's STS endpoint, if the partition has it. GovCloud's usual one is the one for FIPS
/// (AWS General Reference, "AWS Security Token Service endpoints").
pub(crate) fn endpoint_of(region: &str, variant: Variant) -> Option<String> {
    let (usual, dual_stack) = suffixes(region);
    let suffix = if variant.dual_stack { dual_stack? } else { usual };
    let is_separate = variant.fips && (variant.dual_stack || !region.starts_with("us-gov-"));
    Some(format!("https://{}.{region}.{suffix}", if is_separate { "sts-fips" } else { "sts" }))
}

fn suffixes(region: &str) -> (&'static str, Option<&'static str>) {
    let partition = PARTITIONS.iter().find(|(start, ..)| region.starts_with(start));
    partition.map_or((DEFAULT_EXCHANGE, Some(DUAL_STACK)), |(_, usual, dual_stack)| (usual, *dual_stack))
}

/// Does the STS of some partition accept web identity tokens with this audience?
pub(crate) fn is_audience(text: &str) -> bool {
    let mut suffixes = PARTITIONS.iter().map(|(_, suffix, _)| *suffix).chain([DEFAULT_EXCHANGE]);
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
    let dual_stack = PARTITIONS.iter().filter_map(|(.., suffix)| *suffix).chain([DUAL_STACK]);
    let suffixes = PARTITIONS.iter().map(|(_, suffix, _)| *suffix).chain([DEFAULT_EXCHANGE]).chain(dual_stack);
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
    fn the_endpoints_for_fips_and_dual_stack_are_the_partitions() {
        let of = |region, fips, dual_stack| endpoint_of(region, Variant { fips, dual_stack });
        for (region, fips, dual_stack, host) in [
            ("us-east-1", true, false, "sts-fips.us-east-1.amazonaws.com"),
            ("us-east-1", true, true, "sts-fips.us-east-1.api.aws"),
            ("us-gov-west-1", true, false, "sts.us-gov-west-1.amazonaws.com"),
            ("us-gov-west-1", true, true, "sts-fips.us-gov-west-1.api.aws"),
            ("cn-north-1", false, true, "sts.cn-north-1.api.amazonwebservices.com.cn"),
            ("eusc-de-east-1", false, true, "sts.eusc-de-east-1.api.amazonwebservices.eu"),
            ("eu-central-1", false, false, "sts.eu-central-1.amazonaws.com"),
        ] {
            assert_eq!(of(region, fips, dual_stack), Some(format!("https://{host}")));
            assert!(may_be_endpoint(&format!("https://{host}")), "{host}");
        }
        assert_eq!(of("us-iso-east-1", false, true), None);
    }

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
