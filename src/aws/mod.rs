//! What AWS is asked: the two calls of its Security Token Service that turn one proof of a workload into another.
//!
//! `AssumeRoleWithWebIdentity` makes a role's credentials of a JWT; `GetWebIdentityToken` makes a JWT, for any audience, of
//! a role's credentials. Both go to the STS of one region: the second is not to be had at the global endpoint. The calls are
//! the SDK's own (`sts.rs`), over our client (`smithy.rs`); its chains of credentials are not used.
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

/// The audience under which STS takes a web identity, unless its provider is registered with another.
pub(crate) const AUDIENCE: &str = "sts.amazonaws.com";

/// Where a region's STS is: the suffix of its partition's names.
const PARTITIONS: &[(&str, &str)] = &[
    ("cn-", "amazonaws.com.cn"),
    ("eusc-", "amazonaws.eu"),
    ("us-iso-", "c2s.ic.gov"),
    ("us-isob-", "sc2s.sgov.gov"),
    ("eu-isoe-", "cloud.adc-e.uk"),
    ("us-isof-", "csp.hci.ic.gov"),
];
const USUAL: &str = "amazonaws.com";

/// The region's own STS.
pub(crate) fn endpoint(region: &str) -> String {
    let suffix = PARTITIONS.iter().find(|(start, _)| region.starts_with(start)).map_or(USUAL, |(_, suffix)| suffix);
    format!("https://sts.{region}.{suffix}")
}

/// Is it an audience under which a partition's STS takes web identities?
pub(crate) fn is_audience(text: &str) -> bool {
    let mut suffixes = PARTITIONS.iter().map(|(_, suffix)| *suffix).chain([USUAL]);
    text.strip_prefix("sts.").is_some_and(|rest| suffixes.any(|suffix| rest == suffix))
}

/// Is it the name of a region, which becomes a part of a host? The global pseudo-regions are none.
pub(crate) fn is_region(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    text.contains('-') && text.len() <= 32 && text.bytes().all(fits) && !text.ends_with("global")
}

/// May this stand in the place of the region's STS? It gets the identity: an https host of AWS (a VPC endpoint), or one of
/// this machine in tests.
pub(crate) fn may_be_endpoint(text: &str) -> bool {
    let Ok(url) = url::Url::parse(text) else { return false };
    let host = url.host_str().unwrap_or_default();
    let suffixes = PARTITIONS.iter().map(|(_, suffix)| *suffix).chain([USUAL, "api.aws"]);
    let of_aws =
        || suffixes.map(|suffix| format!(".{suffix}")).any(|suffix| host.strip_suffix(&suffix).is_some_and(is_sts));
    let bare = url.username().is_empty() && url.password().is_none() && url.query().is_none();
    let loopback = names_this_machine(host);
    bare && (loopback || (url.scheme() == "https" && of_aws()))
}

/// The labels before AWS's own suffix, where customers name buckets, gateways and balancers too: none of those is STS.
fn is_sts(labels: &str) -> bool {
    match labels.split('.').collect::<Vec<_>>().as_slice() {
        ["sts" | "sts-fips", region] | [_, "sts" | "sts-fips", region, "vpce"] => is_region(region),
        _ => false,
    }
}

/// What is left of credentials; `None` where nobody says.
pub(crate) fn rest(credentials: &Credentials, wall: SystemTime) -> Option<Duration> {
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
