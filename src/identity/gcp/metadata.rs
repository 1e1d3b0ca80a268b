//! The metadata server of Google Cloud: identity tokens of the instance's service accounts.
//!
//! `GET /computeMetadata/v1/instance/service-accounts/{default|email}/identity?audience=…&format=full` returns a bare JWT of
//! `https://accounts.google.com`, valid for an hour. Every request carries `Metadata-Flavor: Google`. Only the answer of the
//! root path must carry it too, because GKE's server leaves it out elsewhere.
//!
//! Source: Google Cloud, "About VM metadata"; "Verifying the identity of instances".

use std::time::Duration;

use reqwest::header::{HeaderName, HeaderValue};
use secrecy::SecretString;
use serde::Deserialize;
use url::Url;

use super::{SOURCE, in_a_pod, malformed};
use crate::identity::{Ambient, Defect, Error};
use crate::oauth::Audience;
use crate::outbound::{self, Answer, Ask, NamedBy, Outbound, Patience};
use crate::token::{AccessToken, SubjectToken};

/// `outbound` connects to its fixed address without a DNS lookup.
pub(super) const NAME: &str = "metadata.google.internal";
const USUAL: &str = "http://metadata.google.internal";
/// The variables of the client libraries. The second is the old name.
pub(super) const HOST: [&str; 2] = ["GCE_METADATA_HOST", "GCE_METADATA_ROOT"];
const FLAVOR: HeaderName = HeaderName::from_static("metadata-flavor");

/// GKE's server refuses connections in the first seconds of a pod. Users report up to ten seconds.
const PATIENCE: Patience = Patience { tries: 9, delay: Duration::from_millis(300), total: Duration::from_secs(30) };
const PER_TRY: Duration = Duration::from_secs(5);

pub(super) const NOT_METADATA: &str =
    "something answers in the metadata server's place: a proxy, a gateway; GCE_METADATA_HOST names it";
const ON_GKE: &str = "on GKE only a Kubernetes service account with a Google one has identity tokens (annotate it with \
    iam.gke.io/gcp-service-account and grant it roles/iam.workloadIdentityUser there); without one mount a projected token \
    and name it: `source = \"kubernetes\"` with `token_file` or `token_request = true`";

pub(super) struct Metadata {
    base: String,
    ambient: Ambient,
}

impl Metadata {
    /// The server at the address in the environment. Fails unless that address is local, because the server decides who we
    /// are.
    pub(super) fn from_env(ambient: &Ambient) -> Result<Self, Defect> {
        let named = HOST.iter().find_map(|name| Some((*name, ambient.env.get(name)?)));
        let Some((name, host)) = named else { return Ok(Self::at_its_address(ambient)) };
        let base = format!("http://{host}");
        let plain = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".:-[]".contains(&byte));
        let beside = Url::parse(&base).is_ok_and(|url| outbound::is_beside_us(&url));
        if plain && beside {
            return Ok(Self { base, ambient: ambient.clone() });
        }
        Err(Defect::new(
            format!("{name} is not the address of a metadata server"),
            format!(
                "{name} may be a link-local or loopback address, with a port, or metadata.google.internal: unset it"
            ),
        ))
    }

    /// The server for the probe. Ignores a wrong variable, which the source reports when it is configured.
    pub(super) fn somewhere(ambient: &Ambient) -> Self {
        Self::from_env(ambient).unwrap_or_else(|_| Self::at_its_address(ambient))
    }

    /// The server at its fixed address.
    fn at_its_address(ambient: &Ambient) -> Self {
        Self { base: USUAL.to_owned(), ambient: ambient.clone() }
    }

    pub(super) fn outbound(&self) -> &Outbound {
        &self.ambient.outbound
    }

    /// The current time in seconds since 1970.
    pub(super) fn unix_now(&self) -> i64 {
        self.ambient.clock.unix()
    }

    /// Gets the identity token of an account. `None` is the instance's own.
    pub(super) async fn identity_token(
        &self,
        account: Option<&str>,
        audience: &Audience,
    ) -> Result<SubjectToken, Error> {
        let path = format!("{}/identity", account.unwrap_or("default"));
        let answer = self.ask(&path, &[("audience", audience.as_str()), ("format", "full")]).await?;
        if answer.status != 200 {
            return Err(self.refused(answer.status, account, "identity token"));
        }
        // Servers declare text or HTML, so only the content decides.
        let text = std::str::from_utf8(&answer.body).unwrap_or_default().trim();
        SubjectToken::parse(SecretString::from(text.to_owned()))
            .map_err(|error| malformed(format!("the metadata server's answer is {error}"), NOT_METADATA))
    }

    /// Is it at its fixed address, not at that of a variable?
    pub(super) fn is_at_its_address(&self) -> bool {
        self.base == USUAL
    }

    /// Fails unless Google's metadata server answers: its root path with `Metadata-Flavor`.
    pub(super) async fn must_be_google(&self) -> Result<(), Error> {
        let answer = self.send(&format!("{}/", self.base)).await?;
        match answer.status {
            200 if is_google(&answer) => Ok(()),
            status @ (429 | 500..) => Err(self.refused(status, None, "answer")),
            status => {
                let what = format!("what answers (status {status}) is not Google's metadata server");
                Err(malformed(what, NOT_METADATA))
            }
        }
    }

    /// Gets an access token of the instance's own account by our own request (see `access_token.rs`).
    pub(super) async fn access_token_by_hand(&self) -> Result<AccessToken, Error> {
        #[derive(Deserialize)]
        struct Wire {
            access_token: String,
        }
        let answer = self.ask("default/token", &[]).await?;
        if answer.status != 200 {
            return Err(self.refused(answer.status, None, "access token"));
        }
        let wire: Wire =
            answer.json().map_err(|what| malformed(format!("the metadata server: {what}"), NOT_METADATA))?;
        AccessToken::parse(wire.access_token)
            .map_err(|error| malformed(format!("the metadata server: {error}"), NOT_METADATA))
    }

    async fn ask(&self, path: &str, query: &[(&str, &str)]) -> Result<Answer, Error> {
        let url = format!("{}/computeMetadata/v1/instance/service-accounts/{path}", self.base);
        let mut url =
            Url::parse(&url).map_err(|_| malformed("the metadata server has no URL".to_owned(), NOT_METADATA))?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        self.send(url.as_str()).await
    }

    async fn send(&self, url: &str) -> Result<Answer, Error> {
        let ask = || flavored(url);
        match self.ambient.outbound.send_patiently(PATIENCE, ask, worth_another_try).await {
            Ok(answer) => Ok(answer),
            Err(error) if error.is_temporary() => Err(Error::Unreachable {
                source_name: SOURCE.name,
                what: format!("the metadata server: {error}"),
                hint: Some(
                    "is this Google Cloud, and does a firewall or network policy let this workload reach it?"
                        .to_owned(),
                ),
            }),
            Err(error) => {
                let hint = error.hint().unwrap_or_else(|| NOT_METADATA.to_owned());
                Err(malformed(format!("the metadata server: {error}"), &hint))
            }
        }
    }

    fn refused(&self, status: u16, account: Option<&str>, wanted: &str) -> Error {
        let what = format!("the metadata server gives no {wanted} (status {status})");
        let on_gke = in_a_pod(&self.ambient.env);
        let hint = match (status, account) {
            (404 | 500 | 403, None) if on_gke => ON_GKE.to_owned(),
            (404, Some(email)) => format!(
                "the instance has no service account {email}: attach it, or have its own account act as that one: \
                    `impersonate = true`"
            ),
            (404, None) => {
                "the instance has no service account, or gives no identity tokens (Cloud Build): attach one, or \
                name one with `service_account` and set `impersonate = true`"
                    .to_owned()
            }
            (403, _) => {
                "the service account may not do that: on GKE grant roles/iam.workloadIdentityUser, elsewhere see the \
                project's audit log"
                    .to_owned()
            }
            (429 | 500.., _) => String::new(),
            _ => "see the project's audit log".to_owned(),
        };
        if matches!(status, 429 | 500..) {
            let hint = Some(hint).filter(|hint| !hint.is_empty());
            return Error::Unreachable { source_name: SOURCE.name, what, hint };
        }
        Error::Rejected { source_name: SOURCE.name, what, hint }
    }
}

/// The request that identifies Google's server: the root path.
pub(super) fn ping(ambient: &Ambient) -> Ask {
    flavored(&format!("{}/", Metadata::somewhere(ambient).base))
}

pub(super) fn is_google(answer: &Answer) -> bool {
    answer.headers.get(FLAVOR).is_some_and(|value| value == "Google")
}

fn flavored(url: &str) -> Ask {
    let mut ask = Ask::get(url, NamedBy::Platform);
    ask.headers.push((FLAVOR, HeaderValue::from_static("Google")));
    ask.limit = PER_TRY;
    ask
}

fn worth_another_try(outcome: &Result<Answer, outbound::Error>) -> bool {
    match outcome {
        Ok(answer) => matches!(answer.status, 429 | 500..),
        Err(error) => error.is_temporary(),
    }
}
