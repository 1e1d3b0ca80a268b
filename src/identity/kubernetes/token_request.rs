//! `token_request = true`: the API server issues a token of the pod's own service account, for any audience.
//!
//! The service account needs the right to request tokens for itself only:
//!
//! ```sh
//! kubectl -n NAMESPACE create role safeconduct-token --verb=create --resource=serviceaccounts/token --resource-name=ACCOUNT
//! kubectl -n NAMESPACE create rolebinding safeconduct-token --role=safeconduct-token --serviceaccount=NAMESPACE:ACCOUNT
//! ```
//!
//! The pod's default token authorises the request to the API server. The server's certificate must be signed by the cluster's
//! CA, which is next to that token; no other root is trusted. `sub` of that token names the account. Token and CA are read
//! again each time, because the kubelet replaces both.
//!
//! Source: Kubernetes API reference, "TokenRequest" (authentication.k8s.io/v1); "Accessing the Kubernetes API from a Pod".

use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::json;
use zeroize::Zeroizing;

use super::{CAP, FOR_THE_API_SERVER, SOURCE};
use crate::identity::{Ambient, Defect, Descriptor, Error, IdentitySource};
use crate::oauth::Audience;
use crate::outbound::{self, Answer, Ask, Body, NamedBy, Outbound, Patience};
use crate::token::{Digest, SubjectToken};

const HOST: &str = "KUBERNETES_SERVICE_HOST";
const PORT: &str = "KUBERNETES_SERVICE_PORT";
const CA: &str = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt";

/// An upgrade of the control plane makes the API server unavailable for seconds.
const PATIENCE: Patience = Patience { tries: 4, delay: Duration::from_millis(500), total: Duration::from_secs(30) };
const PER_TRY: Duration = Duration::from_secs(5);
/// The shortest lifetime that the API server grants. It is enough, because the token is used once, immediately.
const LIFE_SECONDS: u64 = 600;

const ONLY_IN_A_POD: &str = "`token_request` works inside a pod; elsewhere name a projected token with `token_file`";

pub(super) struct TokenRequest {
    ambient: Ambient,
    /// `https://HOST:PORT`.
    api: String,
    /// The HTTP client that trusts the cluster's CA, with the digest of that CA.
    trusting: Mutex<Option<(Digest, Outbound)>>,
}

/// The pod's service account, as its own token names it.
struct Account {
    namespace: String,
    name: String,
}

impl TokenRequest {
    pub(super) fn new(ambient: &Ambient) -> Result<Self, Defect> {
        let missing = |name: &str| Defect::new(format!("{name} is not set"), ONLY_IN_A_POD);
        let host = ambient.env.get(HOST).ok_or_else(|| missing(HOST))?;
        let port = ambient.env.get(PORT).ok_or_else(|| missing(PORT))?;
        let api =
            if host.contains(':') { format!("https://[{host}]:{port}") } else { format!("https://{host}:{port}") };
        Ok(Self { ambient: ambient.clone(), api, trusting: Mutex::default() })
    }

    /// The pod's default token. Send it only to the API server.
    async fn own_token(&self) -> Result<SubjectToken, Error> {
        let content = self.read(FOR_THE_API_SERVER).await?;
        let text = std::str::from_utf8(&content).map(str::trim).unwrap_or_default();
        SubjectToken::parse(SecretString::from(text.to_owned())).map_err(|error| {
            malformed(format!("{FOR_THE_API_SERVER} is {error}"), "the kubelet writes it: see its log")
        })
    }

    async fn read(&self, path: &str) -> Result<Zeroizing<Vec<u8>>, Error> {
        self.ambient.env.read_aside(Path::new(path), CAP).await.map_err(|error| {
            if let Some(busy) = Error::busy(SOURCE.name, Path::new(path), &error) {
                return busy;
            }
            let hint = match error.kind() {
                io::ErrorKind::NotFound => {
                    "the pod has `automountServiceAccountToken: false`: mount it, or name a projected token with `token_file`"
                        .to_owned()
                }
                io::ErrorKind::PermissionDenied => {
                    format!("let uid {} read it (`fsGroup` of the pod)", self.ambient.env.uid())
                }
                _ => "the kubelet writes it: see its log".to_owned(),
            };
            malformed(format!("{path} cannot be read: {error}"), &hint)
        })
    }

    /// The HTTP client that trusts only the cluster's CA. It is kept, with its connections, until that CA is replaced.
    async fn outbound(&self) -> Result<Outbound, Error> {
        let pem = self.read(CA).await?;
        let digest = Digest::of(&pem);
        let mut kept = self.trusting.lock().unwrap_or_else(PoisonError::into_inner);
        match &*kept {
            Some((same, outbound)) if *same == digest => Ok(outbound.clone()),
            _ => {
                let outbound = self.ambient.outbound.trusting(&pem);
                let outbound =
                    outbound.map_err(|error| malformed(format!("{CA}: {error}"), "the kubelet writes it"))?;
                *kept = Some((digest, outbound.clone()));
                Ok(outbound)
            }
        }
    }
}

#[async_trait]
impl IdentitySource for TokenRequest {
    async fn subject_token(&self, audience: &Audience) -> Result<SubjectToken, Error> {
        let own = self.own_token().await?;
        let account = Account::of(&own)?;
        let url =
            format!("{}/api/v1/namespaces/{}/serviceaccounts/{}/token", self.api, account.namespace, account.name);
        let wish = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": { "audiences": [audience.as_str()], "expirationSeconds": LIFE_SECONDS },
        });
        let mut bearer = HeaderValue::from_str(&format!("Bearer {}", own.expose())).map_err(|_| {
            malformed(format!("{FOR_THE_API_SERVER} cannot be a header value"), "see the kubelet's log")
        })?;
        bearer.set_sensitive(true);
        let ask = || {
            let bytes = Zeroizing::new(wish.to_string().into_bytes());
            let mut ask = Ask::post(&url, NamedBy::Us, Body { content_type: "application/json", bytes });
            ask.headers.push((AUTHORIZATION, bearer.clone()));
            ask.limit = PER_TRY;
            ask
        };
        let outbound = self.outbound().await?;
        match outbound.send_patiently(PATIENCE, ask, worth_another_try).await {
            Ok(answer) => read(&answer, &account),
            Err(error) => Err(unanswered(&error)),
        }
    }

    fn row(&self) -> Option<&'static Descriptor> {
        Some(&SOURCE)
    }

    fn mints_anew(&self) -> bool {
        true
    }
}

impl Account {
    /// Reads `system:serviceaccount:NAMESPACE:NAME`. Both become parts of a URL's path, so they must be DNS names (RFC 1123).
    fn of(token: &SubjectToken) -> Result<Self, Error> {
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.';
        let is_name = |text: &str| text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.bytes().all(fits);
        let sub = token.claims.sub.as_deref().and_then(|sub| sub.strip_prefix("system:serviceaccount:"));
        match sub.and_then(|rest| rest.split_once(':')) {
            Some((namespace, name)) if is_name(namespace) && is_name(name) => {
                Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() })
            }
            _ => Err(malformed(
                format!("{FOR_THE_API_SERVER} names no service account (`sub`)"),
                "only a pod's own token does: what is mounted there is something else",
            )),
        }
    }
}

fn worth_another_try(outcome: &Result<Answer, outbound::Error>) -> bool {
    match outcome {
        Ok(answer) => matches!(answer.status, 429 | 500..),
        Err(error) => error.is_temporary(),
    }
}

fn unanswered(error: &outbound::Error) -> Error {
    let what = format!("the API server {error}");
    match error {
        error if error.is_temporary() => Error::Unreachable {
            source_name: SOURCE.name,
            what,
            hint: Some(format!("{HOST} and {PORT} say where it is; does a network policy let this pod reach it?")),
        },
        outbound::Error::Certificate { .. } => malformed(
            what,
            &format!("only the CA in {CA} is trusted: something else than the cluster's API server answers"),
        ),
        error => malformed(what, &error.hint().unwrap_or_else(|| NOT_THE_API_SERVER.to_owned())),
    }
}

const NOT_THE_API_SERVER: &str = "something answers in the API server's place: a proxy, a gateway";

fn read(answer: &Answer, account: &Account) -> Result<SubjectToken, Error> {
    #[derive(Deserialize)]
    struct Wire {
        status: Minted,
    }
    #[derive(Deserialize)]
    struct Minted {
        token: SecretString,
    }
    if !matches!(answer.status, 200 | 201) {
        return Err(refused(answer, account));
    }
    let wire: Wire = answer.json().map_err(|what| malformed(format!("the API server: {what}"), NOT_THE_API_SERVER))?;
    SubjectToken::parse(wire.status.token)
        .map_err(|error| malformed(format!("the API server's token is {error}"), NOT_THE_API_SERVER))
}

const LIMITED: &str = "the API server limits what it serves to this account (API Priority and Fairness): have the cluster's operator \
    give it more (a FlowSchema), or name a projected token with `token_file`, which asks nobody";

fn refused(answer: &Answer, Account { namespace, name }: &Account) -> Error {
    let status = answer.status;
    let (what, hint) = match status {
        401 => (
            "does not accept the pod's own token".to_owned(),
            "the pod or its service account was deleted or replaced: start the pod anew".to_owned(),
        ),
        403 => (
            format!("does not let {namespace}/{name} request tokens for itself"),
            format!(
                "let it: `kubectl -n {namespace} create role safeconduct-token --verb=create --resource=serviceaccounts/token \
                --resource-name={name}`, then `kubectl -n {namespace} create rolebinding safeconduct-token \
                --role=safeconduct-token --serviceaccount={namespace}:{name}`"
            ),
        ),
        404 => (
            format!("knows no service account {namespace}/{name}"),
            "it was deleted under the running pod; or what answers is no API server".to_owned(),
        ),
        429 | 500.. => {
            return Error::Busy {
                source_name: SOURCE.name,
                what: format!("the API server answers status {status}"),
                hint: (status == 429).then(|| LIMITED.to_owned()),
                retry_after: answer.retry_after(),
            };
        }
        _ => ("refuses the request".to_owned(), "the cluster's audit log says why".to_owned()),
    };
    Error::Rejected { source_name: SOURCE.name, what: format!("the API server {what} (status {status})"), hint }
}

fn malformed(what: String, hint: &str) -> Error {
    Error::Malformed { source_name: SOURCE.name, what, hint: hint.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::clock::Clock;
    use crate::env::Env;

    fn pod(host: &str) -> (tempfile::TempDir, Ambient) {
        let root = tempfile::tempdir().expect("a directory");
        std::fs::create_dir_all(root.path().join("var/run/secrets/kubernetes.io/serviceaccount")).expect("made");
        let env = Env::from_vars([(HOST.to_owned(), host.to_owned()), (PORT.to_owned(), "443".to_owned())]);
        let env = env.with_root(root.path().to_owned());
        let outbound = Outbound::new(outbound::Config::default());
        (root, Ambient { env, outbound, clock: Clock::virtual_at(SystemTime::UNIX_EPOCH) })
    }

    #[tokio::test(start_paused = true)]
    async fn a_replaced_ca_is_trusted_at_once_and_the_old_one_no_more() {
        let (root, ambient) = pod("10.0.0.1");
        let request = TokenRequest::new(&ambient).expect("a pod");
        let trusted = || request.trusting.lock().expect("not poisoned").as_ref().map(|(digest, _)| *digest);
        for name in ["old", "new"] {
            let ca = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a sound name").cert.pem();
            std::fs::write(root.path().join(&CA[1..]), &ca).expect("written");
            request.outbound().await.expect("a CA");
            assert_eq!(trusted(), Some(Digest::of(ca.as_bytes())), "{name}");
        }
        std::fs::write(root.path().join(&CA[1..]), "-----BEGIN CERTIFICATE-----\n!\n").expect("written");
        let error = request.outbound().await.map(|_| ()).expect_err("no CA");
        assert!(error.to_string().contains("ca.crt"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_ipv6_service_address_is_bracketed() {
        let (_root, ambient) = pod("fd00::1");
        assert_eq!(TokenRequest::new(&ambient).expect("a pod").api, "https://[fd00::1]:443");
    }
}
