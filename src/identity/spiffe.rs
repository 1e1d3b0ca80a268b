//! `spiffe`: the JWT-SVID of a SPIFFE Workload API, from SPIRE or another implementation.
//!
//! Detected by `SPIFFE_ENDPOINT_SOCKET`, which names the agent's socket (`unix:///run/spire/agent.sock`, or
//! `tcp://127.0.0.1:PORT`). No configuration is needed, because the agent identifies the calling workload itself:
//!
//! ```toml
//! [identity]
//! source    = "spiffe"
//! endpoint  = "unix:///run/spire/agent.sock"     # omit: the variable
//! spiffe_id = "spiffe://example.org/agent"       # omit: the only identity of the workload
//! ```
//!
//! A workload with several identities must name one: an agent lists them in an order that means nothing.
//!
//! It issues tokens for any audience. An agent may return the same SVID for half of its lifetime. A JWT-SVID guarantees only
//! `sub`, `aud` and `exp`: a server that finds the key by `iss` needs SPIRE's `jwt_issuer` and its OIDC discovery provider.
//! The workload's X.509-SVID is its client certificate for mutual TLS.
//!
//! The API has no TLS, so a TCP endpoint must be on this machine. An agent does not know a new registration at once, so
//! "permission denied" is retried for a limited time.
//!
//! Source: SPIFFE, "Workload Endpoint" and "Workload API"; SPIRE documentation, "Registering workloads".

use std::collections::BTreeSet;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use secrecy::SecretString;
use spiffe::transport::Endpoint;
use spiffe::{JwtSvid, SpiffeId, WorkloadApiClient, WorkloadApiError, X509Svid};

use super::{Ambient, Built, Defect, Descriptor, Error, Finding, Given, IdentitySource, Kind, Setting, Tier};
use crate::oauth::Audience;
use crate::outbound::{Again, Certificate, Patience};
use crate::platform::Platform;
use crate::token::SubjectToken;
use failure::Failure;

mod failure;

pub(super) const SOURCE: Descriptor = Descriptor {
    name: "spiffe",
    tier: Tier::WorkloadApi,
    about: "a workload with a SPIFFE Workload API (SPIRE)",
    evidence: "`SPIFFE_ENDPOINT_SOCKET`, or the configured `endpoint`",
    token: "any audience; its X.509-SVID for mutual TLS",
    settings: &[ENDPOINT, SPIFFE_ID],
    variables: &[SOCKET],
    trust: &TRUST,
    detect,
    from_config,
    probe: None,
};

/// The claims that a trust policy pins.
const TRUST: Platform = Platform {
    name: "spiffe",
    note: "the ID says it all",
    stable_subject: |sub| sub.starts_with("spiffe://").then_some(sub),
    warnings: &[],
    ..Platform::PLAIN
};

const ENDPOINT: Setting =
    Setting::optional("endpoint", Kind::Text, "Where the Workload API is. Omit: SPIFFE_ENDPOINT_SOCKET.")
        .checked(|text| endpoint(text).map(drop));
const SPIFFE_ID: Setting =
    Setting::optional("spiffe_id", Kind::Text, "Which of the workload's identities. Omit: its only one.")
        .checked(|text| spiffe_id(text).map(drop));

const SOCKET: &str = "SPIFFE_ENDPOINT_SOCKET";
/// The time limit of one try. The agent is local; if it is slower, it waits for its server, and a new try does not lose time.
const PER_TRY: Duration = Duration::from_secs(5);
/// Registrations reach an agent within seconds.
const PATIENCE: Patience = Patience { tries: 8, delay: Duration::from_millis(500), total: Duration::from_secs(30) };
/// Larger than any identity token.
const CAP: usize = 64 * 1024;

const SPELLING: &str = "it must be unix:///absolute/path, or tcp://127.0.0.1:PORT";

struct Workload {
    endpoint: Endpoint,
    spiffe_id: Option<SpiffeId>,
    ambient: Ambient,
}

fn detect(ambient: &Ambient) -> Finding {
    let Some(text) = ambient.env.get(SOCKET) else { return Finding::Absent { looked_for: SOCKET } };
    let mend = format!("mend {SOCKET}: {SPELLING}; or unset it, if this is no workload of SPIFFE");
    let endpoint = endpoint(text).map_err(|what| Defect::new(format!("{SOCKET} {what}"), mend));
    Finding::of(SOCKET, &[], endpoint.map(|endpoint| Workload::at(endpoint, None, ambient)))
}

fn from_config(given: &Given<'_>, ambient: &Ambient) -> Built {
    let defect = |what: String| Defect::new(what, format!("set {SOCKET}, or `endpoint` in [identity]: {SPELLING}"));
    let (key, text) = match (given.text(&ENDPOINT), ambient.env.get(SOCKET)) {
        (Some(text), _) => ("`endpoint`", text),
        (None, Some(text)) => (SOCKET, text),
        (None, None) => return Err(defect(format!("{SOCKET} is not set"))),
    };
    let endpoint = endpoint(text).map_err(|what| defect(format!("{key} {what}")))?;
    let spiffe_id = given.text(&SPIFFE_ID).map(spiffe_id).transpose();
    let spiffe_id = spiffe_id.map_err(|what| defect(format!("`spiffe_id` {what}")))?;
    Ok(Workload::at(endpoint, spiffe_id, ambient))
}

fn endpoint(text: &str) -> Result<Endpoint, String> {
    match Endpoint::parse(text) {
        Ok(Endpoint::Tcp { host, .. }) if !host.is_loopback() => {
            Err("is on another machine, and the Workload API has no TLS: everybody between could read the identity"
                .into())
        }
        Ok(endpoint) => Ok(endpoint),
        Err(error) => Err(format!("is no address of a Workload API ({error}); {SPELLING}")),
    }
}

fn spiffe_id(text: &str) -> Result<SpiffeId, String> {
    SpiffeId::from_str(text)
        .map_err(|error| format!("is no SPIFFE ID ({error}); it looks like spiffe://example.org/agent"))
}

#[async_trait]
impl IdentitySource for Workload {
    async fn subject_token(&self, audience: &Audience) -> Result<SubjectToken, Error> {
        let (audience, id) = (audience.as_str(), self.spiffe_id.as_ref());
        let text = match id {
            Some(_) => {
                let fetch = |client: WorkloadApiClient| async move { client.fetch_jwt_token([audience], id).await };
                self.ask(fetch).await?
            }
            None => {
                let fetch =
                    |client: WorkloadApiClient| async move { client.fetch_all_jwt_svids([audience], None).await };
                self.only(self.ask(fetch).await?, JwtSvid::spiffe_id)?.token().to_owned()
            }
        };
        let text = SecretString::from(text);
        let subject =
            SubjectToken::parse(text).map_err(|error| self.malformed(&format!("a JWT-SVID that is {error}")))?;
        if subject.expose().len() > CAP {
            return Err(self.malformed("a JWT-SVID of more than 64 KiB"));
        }
        let sub = subject.claims.sub.as_deref().and_then(|sub| SpiffeId::from_str(sub).ok());
        match (sub, id) {
            (None, _) => return Err(self.malformed("a JWT-SVID whose `sub` is no SPIFFE ID")),
            (Some(sub), Some(wanted)) if sub != *wanted => {
                return Err(self.malformed("a JWT-SVID of another identity than `spiffe_id`"));
            }
            _ => {}
        }
        if subject.claims.iss.is_none() {
            debug!("the JWT-SVID names no issuer: a server that finds its key by `iss` will refuse it");
        }
        Ok(subject)
    }

    fn row(&self) -> Option<&'static Descriptor> {
        Some(&SOURCE)
    }

    fn mints_anew(&self) -> bool {
        false
    }

    /// SPIRE's agent gives the same SVID for an audience until half its life is over.
    fn repeats(&self) -> bool {
        true
    }

    async fn certificate(&self) -> Result<Option<Certificate>, Error> {
        let fetch = |client: WorkloadApiClient| async move { client.fetch_all_x509_svids().await };
        let mut svids = self.ask(fetch).await?;
        svids.retain(|svid| self.spiffe_id.as_ref().is_none_or(|id| id == svid.spiffe_id()));
        let svid = self.only(svids, X509Svid::spiffe_id)?;
        let chain = svid.cert_chain().iter().map(|one| CertificateDer::from(one.as_bytes().to_vec())).collect();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(svid.private_key().as_bytes().to_vec()));
        let certificate = Certificate::from_der(chain, key);
        certificate.map(Some).map_err(|what| self.malformed(&format!("an X.509-SVID that cannot be used: {what}")))
    }
}

impl Workload {
    fn at(endpoint: Endpoint, spiffe_id: Option<SpiffeId>, ambient: &Ambient) -> Arc<dyn IdentitySource> {
        Arc::new(Self { endpoint, spiffe_id, ambient: ambient.clone() })
    }

    /// The SVID of the workload's only identity. Fails if there are several identities, and names them.
    fn only<S>(&self, svids: Vec<S>, id: impl Fn(&S) -> &SpiffeId) -> Result<S, Error> {
        let ids: BTreeSet<String> = svids.iter().map(|svid| id(svid).to_string()).collect();
        if ids.len() > 1 {
            return Err(self.several(&ids));
        }
        svids.into_iter().next().ok_or_else(|| self.not_registered())
    }

    /// Calls the Workload API over a new connection, with retries within [`PATIENCE`].
    async fn ask<T, F>(&self, fetch: impl Fn(WorkloadApiClient) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, WorkloadApiError>>,
    {
        let work = |left: Duration| {
            let (limit, fetch) = (left.min(PER_TRY), &fetch);
            async move {
                let whole = async { fetch(WorkloadApiClient::connect(self.endpoint.clone()).await?).await };
                let outcome = tokio::time::timeout(limit, whole).await;
                outcome.map_err(|_| Failure::Silent(limit))?.map_err(Failure::Said)
            }
        };
        let again = |outcome: &Result<T, Failure>| match outcome {
            Err(failure) if failure.may_pass() => Again::Later,
            _ => Again::No,
        };
        self.ambient.outbound.patiently(PATIENCE, work, again).await.map_err(|failure| self.error(&failure))
    }
}
