//! The credentials endpoint of a container: EKS Pod Identity, ECS, Fargate.
//!
//! `AWS_CONTAINER_CREDENTIALS_RELATIVE_URI` is a path on 169.254.170.2 and wins over `AWS_CONTAINER_CREDENTIALS_FULL_URI`.
//! The full URI may be https to any host, or plain http to loopback and the two fixed addresses. The `Authorization` header
//! comes from the file in `AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE`, which is read again for each request and trimmed, else
//! from `AWS_CONTAINER_AUTHORIZATION_TOKEN`.
//!
//! Source: AWS SDKs and Tools reference guide, "Container credential provider".

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderValue};
use secrecy::SecretString;
use url::{Host, Url};
use zeroize::Zeroizing;

use super::{Credentials, Error, SOURCE, keys, malformed};
use crate::env::Env;
use crate::identity::{Ambient, Defect};
use crate::oauth::names_this_machine;
use crate::outbound::{Ask, NamedBy, Patience};
use crate::token::expose;

pub(super) const RELATIVE: &str = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI";
pub(super) const FULL: &str = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
pub(super) const TOKEN_FILE: &str = "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE";
pub(super) const TOKEN: &str = "AWS_CONTAINER_AUTHORIZATION_TOKEN";

const ECS: &str = "http://169.254.170.2";
const ECS_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 170, 2));
const EKS_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 170, 23));
const EKS_ADDRESS_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23));

/// The agent runs on the node and may still be starting.
const PATIENCE: Patience = Patience { tries: 4, delay: Duration::from_millis(250), total: Duration::from_secs(15) };
const PER_TRY: Duration = Duration::from_secs(5);
const CAP: u64 = 64 * 1024;

const WHO: &str = "the credentials endpoint of the container";
const ASSOCIATE: &str = "the pod's service account needs a Pod Identity association, or the task a role; the role's trust policy must name that service";
const SILENT: &str =
    "EKS: is the Pod Identity agent running on this node? a network policy or mesh must let this pod reach it";

pub(super) struct Container {
    url: Url,
    ambient: Ambient,
}

impl Container {
    pub(super) fn new(ambient: &Ambient) -> Result<Self, Defect> {
        let env = &ambient.env;
        let set = |what: String| Defect::new(what, "the platform sets it: do not set it yourself");
        let url = match (env.get(RELATIVE), env.get(FULL)) {
            (Some(path), _) => Url::parse(&format!("{ECS}{path}"))
                .ok()
                .filter(|url| path.starts_with('/') && url.host_str() == Some("169.254.170.2") && url.port().is_none())
                .ok_or_else(|| set(format!("{RELATIVE} is no path")))?,
            (None, Some(text)) => {
                let url = Url::parse(text).map_err(|_| set(format!("{FULL} is not a URL")))?;
                may_be_asked(&url).map_err(|why| set(format!("{FULL} {why}")))?;
                url
            }
            (None, None) => return Err(Defect::new(format!("neither {RELATIVE} nor {FULL} is set"), ASSOCIATE)),
        };
        Ok(Self { url, ambient: ambient.clone() })
    }

    pub(super) async fn credentials(&self) -> Result<Credentials, Error> {
        let authorization = self.authorization().await?;
        let ask = || {
            let mut ask = Ask::get(self.url.as_str(), NamedBy::Platform);
            ask.headers.extend(authorization.clone().map(|value| (AUTHORIZATION, value)));
            ask.limit = PER_TRY;
            ask
        };
        let answer = self.ambient.outbound.send_patiently(PATIENCE, ask, keys::worth_another_try).await;
        let answer = answer.map_err(|error| keys::unanswered(WHO, &error, SILENT))?;
        match answer.status {
            200 => keys::read(&answer, WHO),
            status => Err(keys::refused(WHO, status, ASSOCIATE)),
        }
    }

    /// The value of `Authorization`, unchanged: the platform includes the scheme.
    async fn authorization(&self) -> Result<Option<HeaderValue>, Error> {
        let env = &self.ambient.env;
        let (name, text) = match (env.get(TOKEN_FILE), env.secret(TOKEN)) {
            (Some(path), _) => {
                let path = Path::new(path);
                let content = env.read_aside(path, CAP).await.map_err(|error| {
                    Error::busy(SOURCE.name, path, &error).unwrap_or_else(|| {
                        malformed(
                            &format!("the file in {TOKEN_FILE} cannot be read: {error}"),
                            &format!("the kubelet writes it: mount it whole, and let uid {} read it", env.uid()),
                        )
                    })
                })?;
                // A line feed would be invalid in a header.
                let text = Zeroizing::new(String::from_utf8_lossy(content.trim_ascii()).into_owned());
                (TOKEN_FILE, SecretString::from(text.as_str()))
            }
            (None, Some(text)) => (TOKEN, text),
            (None, None) => return Ok(None),
        };
        let value = HeaderValue::from_str(expose(&text)).ok().filter(|value| !value.is_empty());
        let mut value = value.ok_or_else(|| {
            malformed(
                &format!("what {name} gives cannot be a header value"),
                "the platform sets it: do not set it yourself",
            )
        })?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

/// Is the endpoint of the full URI on this machine?
pub(super) fn is_on_loopback(env: &Env) -> bool {
    let url = env.get(FULL).and_then(|text| Url::parse(text).ok());
    url.and_then(|url| url.host_str().map(names_this_machine)).unwrap_or_default()
}

/// Checks the URL. Plain http shows the credentials to the network, so it is allowed only for local addresses.
fn may_be_asked(url: &Url) -> Result<(), &'static str> {
    let address = match url.host() {
        Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
        Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
        _ => None,
    };
    let beside =
        |address: IpAddr| address.is_loopback() || [ECS_ADDRESS, EKS_ADDRESS, EKS_ADDRESS_V6].contains(&address);
    match url.scheme() {
        "https" => Ok(()),
        "http" if address.is_some_and(beside) || url.host_str() == Some("localhost") => Ok(()),
        "http" => Err("is plain http to another host than loopback, 169.254.170.2, 169.254.170.23 and fd00:ec2::23"),
        _ => Err("is neither http nor https"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::clock::Clock;
    use crate::outbound::{self, Outbound};

    fn url(vars: &[(&str, &str)]) -> Result<String, String> {
        let env = Env::from_vars(vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let outbound = Outbound::new(outbound::Config::default());
        let ambient = Ambient { env, outbound, clock: Clock::virtual_at(SystemTime::UNIX_EPOCH) };
        Container::new(&ambient).map(|container| container.url.to_string()).map_err(|defect| defect.what)
    }

    #[tokio::test(start_paused = true)]
    async fn the_path_of_a_task_is_on_the_fixed_address_and_wins() {
        let both = [(RELATIVE, "/v2/credentials/1"), (FULL, "http://127.0.0.1:1/x")];
        assert_eq!(url(&both).as_deref(), Ok("http://169.254.170.2/v2/credentials/1"));
        for bad in ["v2", "@evil.example/", ":8080/x", ".evil.example/"] {
            assert!(url(&[(RELATIVE, bad)]).is_err(), "{bad}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn plain_http_goes_beside_the_workload_alone() {
        for good in [
            "http://169.254.170.23/v1/credentials",
            "http://[fd00:ec2::23]/v1/credentials",
            "http://localhost:1338/x",
            "https://credentials.example.com/x",
        ] {
            assert!(url(&[(FULL, good)]).is_ok(), "{good}");
        }
        for bad in [
            "http://169.254.169.254/latest",
            "http://10.0.0.1/",
            "http://credentials.example.com/",
            "http://localhost.example.com/",
            "ftp://127.0.0.1/",
            "x",
        ] {
            assert!(url(&[(FULL, bad)]).is_err(), "{bad}");
        }
    }
}
