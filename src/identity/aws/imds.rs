//! The instance metadata service of EC2, version 2 only: it wants a session token before any other request.
//!
//! `AWS_EC2_METADATA_DISABLED=true` disables it. `AWS_EC2_METADATA_SERVICE_ENDPOINT` names another link-local or loopback
//! address. `AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE=IPv6` selects the IPv6 address. Answers travel one network hop by default:
//! for containers the instance needs a hop limit of 2.
//!
//! Source: Amazon EC2 user guide, "Use the Instance Metadata Service to access instance metadata". The DMI vendor
//! `Amazon EC2` is observed, not documented.

use std::net::IpAddr;
use std::time::Duration;

use reqwest::Method;
use reqwest::header::{HeaderName, HeaderValue};
use url::{Host, Url};

use super::{Credentials, Error, keys, malformed};
use crate::aws;
use crate::identity::{Ambient, Defect, Dmi, Probe};
use crate::outbound::{Answer, Ask, NamedBy, Patience};

const DISABLED: &str = "AWS_EC2_METADATA_DISABLED";
pub(super) const ENDPOINT: &str = "AWS_EC2_METADATA_SERVICE_ENDPOINT";
const MODE: &str = "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE";
const V4: &str = "http://169.254.169.254";
const V6: &str = "http://[fd00:ec2::254]";

const TTL: HeaderName = HeaderName::from_static("x-aws-ec2-metadata-token-ttl-seconds");
const TOKEN: HeaderName = HeaderName::from_static("x-aws-ec2-metadata-token");
/// Enough for the three requests that follow.
const TTL_SECONDS: HeaderValue = HeaderValue::from_static("60");

/// The service is local and limits the request rate.
const PATIENCE: Patience = Patience { tries: 3, delay: Duration::from_millis(250), total: Duration::from_secs(8) };
const PER_TRY: Duration = Duration::from_secs(2);

const WHO: &str = "the metadata service of the machine";
const SILENT: &str = "is this an EC2 instance, and its metadata service on? in a container the hop limit must be 2 \
    (`aws ec2 modify-instance-metadata-options --http-put-response-hop-limit 2`)";
const PROFILE: &str = "attach an instance profile with a role to the machine";

/// The host probe for EC2.
pub(super) const PROBE: Probe = Probe {
    dmi: |Dmi { vendor, .. }| vendor == "Amazon EC2",
    ask: |ambient| session(&Imds::new(ambient).map_or_else(|_| V4.to_owned(), |imds| imds.base)),
    is_it: |answer| answer.status == 200 && answer.headers.contains_key(TTL),
    source,
};

fn source(ambient: &Ambient) -> std::sync::Arc<dyn crate::identity::IdentitySource> {
    let imds = Imds::new(ambient).unwrap_or_else(|_| Imds { base: V4.to_owned(), ambient: ambient.clone() });
    super::of_machine(imds, ambient)
}

pub(super) struct Imds {
    base: String,
    ambient: Ambient,
}

impl Imds {
    pub(super) fn new(ambient: &Ambient) -> Result<Self, Defect> {
        let env = &ambient.env;
        if env.get(DISABLED).is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return Err(Defect::new(
                format!("{DISABLED}=true switches the machine's identity off"),
                "take the variable out, if the machine's role is meant",
            ));
        }
        let base = match (env.get(ENDPOINT), env.get(MODE)) {
            (Some(text), _) if is_beside(text) => text.trim_end_matches('/').to_owned(),
            (Some(_), _) => {
                return Err(Defect::new(
                    format!("{ENDPOINT} is no http address on the machine or its link"),
                    "name an address such as http://169.254.169.254, or take the variable out",
                ));
            }
            (None, Some(mode)) if mode.eq_ignore_ascii_case("ipv6") => V6.to_owned(),
            _ => V4.to_owned(),
        };
        Ok(Self { base, ambient: ambient.clone() })
    }

    /// The keys of the machine's role.
    pub(super) async fn credentials(&self) -> Result<Credentials, Error> {
        const ROLES: &str = "/latest/meta-data/iam/security-credentials/";
        let session = self.session().await?;
        let role = self.word(&session, ROLES, PROFILE).await?;
        let answer = self.read(&session, &format!("{ROLES}{role}"), PROFILE).await?;
        keys::read(&answer, WHO)
    }

    /// The machine's region.
    pub(super) async fn region(&self) -> Result<String, Error> {
        const HERE: &str = "set `region` in [identity], or AWS_REGION";
        let session = self.session().await?;
        let region = self.word(&session, "/latest/meta-data/placement/region", HERE).await?;
        if aws::is_region(&region) { Ok(region) } else { Err(malformed(&format!("{WHO} names no region"), HERE)) }
    }

    async fn session(&self) -> Result<HeaderValue, Error> {
        let answer =
            self.ambient.outbound.send_patiently(PATIENCE, || session(&self.base), keys::worth_another_try).await;
        let answer = answer.map_err(|error| keys::unanswered(WHO, &error, SILENT))?;
        if answer.status != 200 {
            let off = "the machine's metadata service is switched off, or a firewall stands before it: let this process reach it";
            return Err(keys::refused(WHO, answer.status, off));
        }
        let token = HeaderValue::from_bytes(answer.body.trim_ascii()).ok();
        let mut token = token
            .filter(|token| !token.is_empty() && answer.headers.contains_key(TTL))
            .ok_or_else(|| malformed(&format!("{WHO} gives no session token"), SILENT))?;
        token.set_sensitive(true);
        Ok(token)
    }

    async fn read(&self, session: &HeaderValue, path: &str, hint: &str) -> Result<Answer, Error> {
        let url = format!("{}{path}", self.base);
        let ask = || {
            let mut ask = Ask::get(&url, NamedBy::Platform);
            ask.headers.push((TOKEN, session.clone()));
            ask.limit = PER_TRY;
            ask
        };
        let answer = self.ambient.outbound.send_patiently(PATIENCE, ask, keys::worth_another_try).await;
        match answer.map_err(|error| keys::unanswered(WHO, &error, SILENT))? {
            answer if answer.status == 200 => Ok(answer),
            answer => Err(keys::refused(WHO, answer.status, hint)),
        }
    }

    /// Reads one word. It becomes part of a URL, so its characters are checked.
    async fn word(&self, session: &HeaderValue, path: &str, hint: &str) -> Result<String, Error> {
        let answer = self.read(session, path, hint).await?;
        let text = std::str::from_utf8(&answer.body).map(str::trim).unwrap_or_default();
        // Role names have letters, digits and these characters (IAM API reference, "RoleName").
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"+=,.@_-".contains(&byte);
        if text.is_empty() || text.len() > 128 || !text.bytes().all(fits) || text.starts_with('.') {
            return Err(malformed(&format!("{WHO} does not give one word where it should"), hint));
        }
        Ok(text.to_owned())
    }
}

/// The request for a session token.
fn session(base: &str) -> Ask {
    let mut ask = Ask::get(&format!("{base}/latest/api/token"), NamedBy::Platform);
    ask.method = Method::PUT;
    ask.headers.push((TTL, TTL_SECONDS));
    ask.limit = PER_TRY;
    ask
}

fn is_beside(text: &str) -> bool {
    let Ok(url) = Url::parse(text) else { return false };
    let address = match url.host() {
        Some(Host::Ipv4(address)) => IpAddr::V4(address),
        Some(Host::Ipv6(address)) => IpAddr::V6(address),
        _ => return false,
    };
    let link_local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local() || address.segments()[..2] == [0xfd00, 0x0ec2],
    };
    url.scheme() == "http" && url.query().is_none() && (address.is_loopback() || link_local)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_address_is_on_the_machine_or_its_link() {
        for good in ["http://169.254.169.254", "http://[fd00:ec2::254]/", "http://127.0.0.1:1338", "http://[::1]:1/"] {
            assert!(is_beside(good), "{good}");
        }
        for bad in
            ["https://169.254.169.254", "http://10.0.0.1", "http://metadata.example.com", "http://localhost", "x"]
        {
            assert!(!is_beside(bad), "{bad}");
        }
    }

    #[test]
    fn the_firmware_and_the_marker_name_the_cloud() {
        let dmi = |vendor: &str| Dmi { vendor: vendor.to_owned(), ..Dmi::default() };
        assert!((PROBE.dmi)(&dmi("Amazon EC2")) && !(PROBE.dmi)(&dmi("Google")));
        let mut answer = Answer { status: 200, headers: Default::default(), body: Default::default() };
        assert!(!(PROBE.is_it)(&answer), "any server answers 200");
        answer.headers.insert(TTL, TTL_SECONDS);
        assert!((PROBE.is_it)(&answer));
    }
}
