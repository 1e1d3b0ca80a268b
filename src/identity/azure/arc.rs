//! A machine connected by Azure Arc. The agent requires proof that we can read a file which only its group may read.
//!
//! The first answer is 401 and names the file; the second request carries the file's content. Any process may listen on
//! loopback instead of the agent. So the file must be directly in the agent's directory, have its suffix and be small.
//! Otherwise a false agent could read any of our files.
//!
//! Source: Microsoft, "Authenticate against Azure resources with Azure Arc-enabled servers".

use std::io;
use std::path::{Path, PathBuf};

use reqwest::header::{AUTHORIZATION, HeaderValue, WWW_AUTHENTICATE};
use secrecy::SecretString;
use url::{Host, Url};

use super::asking::{self, METADATA};
use super::{Azure, ENDPOINT, Error, Incomplete, SOURCE, malformed};
use crate::outbound::Answer;
use zeroize::Zeroizing;

/// The agent's program. It exists only on a machine that Arc connects.
pub(super) const AGENT: &str = "/opt/azcmagent/bin/himds";
const TOKENS: &str = "/var/opt/azcmagent/tokens";
const CAP: u64 = 4096;
const VERSION: &str = "2020-06-01";

/// The agent's default endpoint.
pub(super) fn endpoint() -> Url {
    Url::parse("http://localhost:40342/metadata/identity/oauth2/token").expect("a constant that is a URL")
}

/// Checks that the endpoint is on this machine.
pub(super) fn checked(endpoint: Url) -> Result<Url, Incomplete> {
    let is_here = match endpoint.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    };
    if is_here {
        Ok(endpoint)
    } else {
        Err(Incomplete::of(ENDPOINT, "it is not on this machine, where the Arc agent listens"))
    }
}

impl Azure {
    pub(super) async fn of_arc(&self, endpoint: &Url, resource: &str) -> Result<SecretString, Error> {
        let pairs = [("api-version", VERSION), ("resource", resource)];
        let outbound = &self.ambient.outbound;
        let challenge = self.heard(outbound, || asking::get(endpoint, &pairs, &[METADATA])).await?;
        if challenge.status != 401 {
            // The real agent never gives a token without the challenge.
            return match challenge.status {
                200 => Err(malformed(
                    "the Arc agent gives a token without its challenge".to_owned(),
                    asking::SOMETHING_ELSE,
                )),
                _ => Err(self.refused(&challenge)),
            };
        }
        let file = named_file(&challenge)?;
        let content = self.ambient.env.read_aside(&file, CAP).await.map_err(|error| self.unreadable(&file, &error))?;
        let value = std::str::from_utf8(&content).map(|text| Zeroizing::new(format!("Basic {}", text.trim_end())));
        let value = value.ok().and_then(|text| HeaderValue::from_str(&text).ok());
        let mut value = value.ok_or_else(|| {
            malformed(format!("{} holds what cannot be sent", file.display()), "the Arc agent writes it: see its log")
        })?;
        value.set_sensitive(true);
        let answer =
            self.answered(outbound, || asking::get(endpoint, &pairs, &[METADATA, (AUTHORIZATION, value.clone())]));
        asking::token(&answer.await?, self.host.who())
    }

    fn unreadable(&self, file: &Path, error: &io::Error) -> Error {
        if let Some(busy) = Error::busy(SOURCE.name, file, error) {
            return busy;
        }
        let hint = match error.kind() {
            io::ErrorKind::PermissionDenied => format!(
                "add the user of uid {} to the group `himds`: its members may have tokens of this machine",
                self.ambient.env.uid()
            ),
            _ => "the Arc agent writes it for each request: see its log (`azcmagent logs`)".to_owned(),
        };
        Error::Rejected {
            source_name: SOURCE.name,
            what: format!("the Arc agent's {} cannot be read: {error}", file.display()),
            hint,
        }
    }
}

/// The file that the challenge names. Fails if we must not read it.
fn named_file(challenge: &Answer) -> Result<PathBuf, Error> {
    let value = challenge.headers.get(WWW_AUTHENTICATE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let realm = value.split_once('=').filter(|(scheme, _)| scheme.trim().eq_ignore_ascii_case("basic realm"));
    let (_, path) =
        realm.ok_or_else(|| malformed("the Arc agent's challenge names no file".to_owned(), asking::SOMETHING_ELSE))?;
    let name = path.trim().trim_matches('"').strip_prefix(TOKENS).and_then(|rest| rest.strip_prefix('/'));
    let is_key = |name: &&str| !name.contains('/') && name.len() > 4 && name.ends_with(".key") && !name.contains('\0');
    let name = name.filter(is_key).ok_or_else(|| {
        // Do not log the path: the other side chose it.
        malformed(
            format!("the Arc agent's challenge names a file that is no `.key` directly in {TOKENS}"),
            "no agent of Azure does that: find out which process listens there",
        )
    })?;
    Ok(Path::new(TOKENS).join(name))
}
