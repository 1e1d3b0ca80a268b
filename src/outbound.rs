//! The only HTTP client: TLS roots, egress rules, limits.
//!
//! https only; plain http for loopback under `insecure_loopback`. No redirect is followed. A body is read up
//! to 64 KiB and no request waits longer than its limit. A host that a stranger named must resolve to public
//! addresses; the address checked is the address dialled, because the check sits in the resolver itself. Through a
//! forward proxy nobody can check an address, so only hosts that the operator named go through it. A platform's own
//! endpoints beside the workload (metadata services) are spoken to in plain http, on their fixed addresses and loopback
//! alone, and never through a proxy. Some answer on a Unix socket instead, under the same limits. One crate brings a client of
//! its own, which is used after an answer that came through here (`identity/gcp/access_token.rs`).

use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, ClientBuilder, Method};
use url::{Host, Url};
use zeroize::Zeroizing;

use crate::jitter::Jitter;
use crate::oauth::host_of;
use crate::token::Digest;

mod address;
mod certificate;
mod error;
mod name;
mod patience;
mod pinned;
mod proxy;
mod roots;

pub(crate) use address::{Kind, Network};
pub(crate) use certificate::Certificate;
pub(crate) use error::Error;
pub(crate) use patience::Again;
pub(crate) use pinned::Thumbprint;
pub(crate) use proxy::Proxy;
pub(crate) use roots::is_pem_bundle;

/// No document of ours is larger: metadata, token answers and identity tokens are a few KiB.
const BODY_CAP: usize = 64 * 1024;
/// A TCP and TLS handshake that takes longer is as good as none.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// A process has one certificate, or a few while they are renewed.
const MUTUAL: usize = 8;
/// What a single request may take, unless its source says otherwise.
pub(crate) const REQUEST_LIMIT: Duration = Duration::from_secs(10);

/// The egress rules.
#[derive(Clone, Debug, Default)]
pub(crate) struct Config {
    /// Plain http and loopback addresses are fine: development.
    pub insecure_loopback: bool,
    /// Additional roots, as PEM.
    pub ca_pem: Option<Vec<u8>>,
    /// Only these (and the named hosts); `None` is every public host.
    pub allow: Option<Vec<Network>>,
    /// Hosts that the operator named: they may be private.
    pub named: BTreeSet<String>,
    /// The forward proxy, and what does not go through it.
    pub proxy: Option<Proxy>,
}

/// Who named the host of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamedBy {
    /// Our own environment or configuration: private addresses are fine.
    Us,
    /// Another party's document: public addresses only, unless the operator named the host too.
    Them,
    /// The platform we run on, of itself: an endpoint beside the workload, on link-local or loopback addresses and in
    /// plain http, or anywhere over https. Never through a proxy.
    Platform,
}

/// One request.
#[derive(Debug)]
pub struct Ask {
    /// The method.
    pub method: Method,
    /// The absolute URL.
    pub url: String,
    /// Header fields; the values of secrets are marked sensitive.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body, cleared from memory afterwards.
    pub body: Option<Body>,
    /// Who named the host.
    pub named_by: NamedBy,
    /// What the request may take in all.
    pub limit: Duration,
    /// What we prove ourselves with in the handshake.
    pub certificate: Option<Arc<Certificate>>,
    /// The Unix socket of the platform's API that is dialled in the place of the URL's host.
    pub socket: Option<PathBuf>,
}

/// A request body. It may hold an assertion and so has no readable `Debug`.
pub struct Body {
    /// The media type.
    pub content_type: &'static str,
    /// The bytes.
    pub bytes: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Body(..)")
    }
}

impl Ask {
    /// A GET for a JSON document.
    pub fn get(url: &str, named_by: NamedBy) -> Self {
        let accept = (reqwest::header::ACCEPT, HeaderValue::from_static("application/json"));
        Self {
            method: Method::GET,
            url: url.to_owned(),
            headers: vec![accept],
            body: None,
            named_by,
            limit: REQUEST_LIMIT,
            certificate: None,
            socket: None,
        }
    }

    /// A POST of a body.
    pub fn post(url: &str, named_by: NamedBy, body: Body) -> Self {
        Self { method: Method::POST, body: Some(body), ..Self::get(url, named_by) }
    }
}

/// What came back. A body may hold a token and so has no `Debug`.
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The header.
    pub headers: HeaderMap,
    /// The body, at most 64 KiB.
    pub body: Zeroizing<Vec<u8>>,
}

impl Answer {
    /// `Date` (RFC 9110 section 6.6.1) in seconds since 1970: what the other side takes for now.
    pub fn date(&self) -> Option<i64> {
        let date = self.headers.get(reqwest::header::DATE)?.to_str().ok()?;
        jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(date.trim()).ok().map(jiff::Timestamp::as_second)
    }

    /// `Retry-After` (RFC 9110 section 10.2.3), at most an hour. Its date form is measured against the answer's own
    /// `Date`, so that no clock of ours has a part in it; without one it says nothing.
    pub fn retry_after(&self) -> Option<Duration> {
        const CAP: Duration = Duration::from_secs(3_600);
        let text = |name| self.headers.get(name)?.to_str().ok().map(str::trim);
        let asked = text(reqwest::header::RETRY_AFTER)?;
        if let Ok(seconds) = asked.parse() {
            return Some(Duration::from_secs(seconds).min(CAP));
        }
        let date = |text: &str| jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok();
        let seconds = date(asked)?.as_second() - date(text(reqwest::header::DATE)?)?.as_second();
        Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)).min(CAP))
    }

    /// The body as a JSON object, when status and media type say that it is one.
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T, &'static str> {
        let media = self.headers.get(reqwest::header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let media = media.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        if media != "application/json" && !(media.starts_with("application/") && media.ends_with("+json")) {
            return Err("the answer is not application/json");
        }
        if std::str::from_utf8(&self.body).is_err() {
            return Err("the answer is not UTF-8");
        }
        serde_json::from_slice(&self.body).map_err(|_| "the answer is not the JSON object it should be")
    }
}

/// How long and how often a source is asked again.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Tries in all.
    pub tries: u32,
    /// First delay; it grows with full jitter.
    pub delay: Duration,
    /// All tries and delays together.
    pub total: Duration,
}

/// The client. Cheap to clone.
#[derive(Clone)]
pub struct Outbound(Arc<Inner>);

struct Inner {
    config: Config,
    // Built at first use: reading the system's roots takes longer than a daemon may take to be ready.
    tls: OnceLock<Result<rustls::ClientConfig, Error>>,
    clients: [OnceLock<Result<Client, Error>>; 4],
    /// Clients with a certificate, the newest last. Certificates are renewed, so the old ones go.
    mutual: Mutex<VecDeque<(Digest, Lane, Client)>>,
    jitter: Jitter,
    /// When the last request of the one command that this is for has to be over.
    deadline: Option<tokio::time::Instant>,
}

impl Outbound {
    /// A client under these rules. Nothing is read or dialled yet.
    pub(crate) fn new(config: Config) -> Self {
        Self::until(config, None)
    }

    /// The same, with the moment by which every request of a command has to be over.
    pub(crate) fn until(config: Config, deadline: Option<tokio::time::Instant>) -> Self {
        let (tls, clients, mutual) = (OnceLock::new(), Default::default(), Mutex::default());
        Self(Arc::new(Inner { config, tls, clients, mutual, jitter: Jitter::from_system(), deadline }))
    }

    /// The same rules for one party that has a CA of its own: of its connections only this bundle's certificates are
    /// trusted, so that nobody else's CA can stand in for it.
    pub(crate) fn trusting(&self, ca_pem: &[u8]) -> Result<Self, Error> {
        Ok(self.with_tls(roots::only(ca_pem)?))
    }

    /// The same rules for one party that its platform names by the thumbprint of its certificate.
    pub(crate) fn pinned(&self, thumbprint: Thumbprint) -> Result<Self, Error> {
        Ok(self.with_tls(pinned::tls(thumbprint)?))
    }

    fn with_tls(&self, tls: rustls::ClientConfig) -> Self {
        let (clients, mutual) = (Default::default(), Mutex::default());
        let tls = OnceLock::from(Ok(tls));
        // What has a CA of its own is beside us: no forward proxy lies between.
        let config = Config { proxy: None, ..self.0.config.clone() };
        let deadline = self.0.deadline;
        Self(Arc::new(Inner { config, tls, clients, mutual, jitter: Jitter::from_system(), deadline }))
    }

    fn left(&self, limit: Duration) -> Duration {
        let Some(deadline) = self.0.deadline else { return limit };
        limit.min(deadline.saturating_duration_since(tokio::time::Instant::now()))
    }

    /// Builds the clients now, so that the first request does not wait for it.
    pub fn warm(&self) {
        for lane in [Lane::Ours, Lane::Theirs] {
            let _ = self.client(lane, None);
        }
    }

    /// Sends one request and reads the whole answer.
    pub async fn send(&self, ask: Ask) -> Result<Answer, Error> {
        self.send_and_read(ask, Reading::Whole).await
    }

    /// Sends one request and leaves the body of the answer unread: where status and header say enough, and the body
    /// may be a stream that never ends.
    pub async fn send_for_head(&self, ask: Ask) -> Result<Answer, Error> {
        self.send_and_read(ask, Reading::Head).await
    }

    async fn send_and_read(&self, ask: Ask, reading: Reading) -> Result<Answer, Error> {
        let url = Url::parse(&ask.url).map_err(|_| Error::NotAUrl)?;
        if let Some(socket) = &ask.socket {
            let client = self.over(socket)?;
            let name = socket.display().to_string();
            return self.within(client, url, ask, &name, reading).await;
        }
        let host = host_of(&url);
        let named = ask.named_by == NamedBy::Them && self.0.config.named.contains(&host);
        let named_by = if named { NamedBy::Us } else { ask.named_by };
        self.admit(&url, &host, named_by)?;
        let lane = self.lane(&url, &host, named_by)?;
        let client = self.client(lane, ask.certificate.as_ref())?;
        let outcome = self.within(client, url, ask, &host, reading).await;
        match (lane, &self.0.config.proxy) {
            (Lane::Proxied, Some(proxy)) => outcome.map_err(|error| proxy.explain(error)),
            _ => outcome,
        }
    }

    /// The exchange, within its limit. `host` is what errors call the other side.
    #[expect(clippy::too_many_arguments, reason = "one request and its limits; ends with the connector")]
    async fn within(&self, client: Client, url: Url, ask: Ask, host: &str, reading: Reading) -> Result<Answer, Error> {
        let limit = self.left(ask.limit);
        if limit.is_zero() {
            return Err(Error::NoTimeLeft { host: host.to_owned() });
        }
        let outcome = tokio::time::timeout(limit, exchange(&client, url, ask, host, reading)).await;
        outcome.unwrap_or_else(|_| Err(Error::Timeout { host: host.to_owned(), limit }))
    }

    /// Sends a request again while `again` says so and the patience lasts.
    pub async fn send_patiently(
        &self,
        patience: Patience,
        ask: impl Fn() -> Ask,
        again: impl Fn(&Result<Answer, Error>) -> bool,
    ) -> Result<Answer, Error> {
        let work = |left| {
            let mut ask = ask();
            ask.limit = ask.limit.min(left);
            self.send(ask)
        };
        let again = |outcome: &Result<Answer, Error>| match outcome {
            _ if !again(outcome) => Again::No,
            Ok(answer) => answer.retry_after().map_or(Again::Later, Again::In),
            Err(_) => Again::Later,
        };
        self.patiently(patience, work, again).await
    }

    /// Checks scheme and literal address; names are checked by the resolver when they are dialled.
    fn admit(&self, url: &Url, host: &str, named_by: NamedBy) -> Result<(), Error> {
        let address = match url.host() {
            Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
            Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
            _ => None,
        };
        let config = &self.0.config;
        let loopback = host == "localhost" || address.is_some_and(|address| address.is_loopback());
        match url.scheme() {
            "https" => {}
            "http" if named_by == NamedBy::Platform && address::is_beside_us(host, address) => {}
            "http" if loopback && config.insecure_loopback => {}
            "http" if loopback => return Err(Error::InsecureLoopback { host: host.to_owned() }),
            _ => return Err(Error::Insecure { host: host.to_owned() }),
        }
        match address {
            Some(address) => Rules::new(config, named_by).admit(address).map_err(|why| Error::forbidden(host, why)),
            None if named_by == NamedBy::Them && !Rules::new(config, named_by).may_resolve(host) => {
                Err(Error::NotAllowed { host: host.to_owned() })
            }
            None => Ok(()),
        }
    }

    /// Which way a request takes. A proxy resolves names itself, so a name that a stranger chose does not go there.
    fn lane(&self, url: &Url, host: &str, named_by: NamedBy) -> Result<Lane, Error> {
        match (&self.0.config.proxy, named_by) {
            (_, NamedBy::Platform) => Ok(Lane::Beside),
            (Some(proxy), NamedBy::Us) if proxy.carries(url) => Ok(Lane::Proxied),
            (Some(proxy), NamedBy::Them) if proxy.carries(url) => Err(Error::NotAllowed { host: host.to_owned() }),
            (_, NamedBy::Us) => Ok(Lane::Ours),
            (_, NamedBy::Them) => Ok(Lane::Theirs),
        }
    }

    fn client(&self, lane: Lane, certificate: Option<&Arc<Certificate>>) -> Result<Client, Error> {
        let Some(certificate) = certificate else {
            return self.0.clients[lane as usize].get_or_init(|| build(&self.0.config, lane, self.tls()?)).clone();
        };
        let mut mutual = self.0.mutual.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |(thumbprint, of, _): &&(Digest, Lane, Client)| *thumbprint == certificate.thumbprint && *of == lane;
        if let Some((_, _, client)) = mutual.iter().find(same) {
            return Ok(client.clone());
        }
        let client = build(&self.0.config, lane, roots::with_certificate(&self.tls()?, certificate)?)?;
        if mutual.len() >= MUTUAL {
            mutual.pop_front();
        }
        mutual.push_back((certificate.thumbprint, lane, client.clone()));
        Ok(client)
    }

    /// A client that dials this socket, whatever the URL. It is asked every few minutes, so its connections are not kept.
    fn over(&self, socket: &Path) -> Result<Client, Error> {
        let builder = builder(&self.0.config, Lane::Beside, self.tls()?)?.unix_socket(socket);
        builder.build().map_err(|error| Error::Roots { what: error.to_string() })
    }

    fn tls(&self) -> Result<rustls::ClientConfig, Error> {
        self.0.tls.get_or_init(|| roots::tls(self.0.config.ca_pem.as_deref())).clone()
    }
}

/// Is this an endpoint beside the workload, on this machine or its link, where plain http may go?
pub(crate) fn is_beside_us(url: &Url) -> bool {
    let address = match url.host() {
        Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
        Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
        _ => None,
    };
    url.scheme() == "http" && address::is_beside_us(&host_of(url), address)
}

/// How much of an answer is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    Whole,
    Head,
}

async fn exchange(client: &Client, url: Url, ask: Ask, host: &str, reading: Reading) -> Result<Answer, Error> {
    let mut request = client.request(ask.method.clone(), url);
    for (name, value) in ask.headers {
        request = request.header(name, value);
    }
    if let Some(body) = ask.body {
        request = request.header(reqwest::header::CONTENT_TYPE, body.content_type).body(body.bytes.to_vec());
    }
    let mut response = request.send().await.map_err(|error| Error::from_reqwest(host, &error))?;
    let status = response.status().as_u16();
    tracing::debug!(%host, method = %ask.method, status, "answered");
    if (300..400).contains(&status) {
        return Err(Error::Redirect { host: host.to_owned(), status });
    }
    let headers = std::mem::take(response.headers_mut());
    if reading == Reading::Head {
        return Ok(Answer { status, headers, body: Zeroizing::default() });
    }
    let mut body = Zeroizing::new(Vec::with_capacity(4 * 1024));
    while let Some(chunk) = response.chunk().await.map_err(|error| Error::from_reqwest(host, &error))? {
        if body.len() + chunk.len() > BODY_CAP {
            return Err(Error::TooLarge { host: host.to_owned() });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Answer { status, headers, body })
}

/// The ways out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lane {
    /// To hosts that the operator or the platform named.
    Ours,
    /// To hosts that another party named.
    Theirs,
    /// Through the forward proxy.
    Proxied,
    /// To the platform's endpoints beside us.
    Beside,
}

/// Which addresses a request may reach.
#[derive(Clone, Debug)]
struct Rules {
    named_by: NamedBy,
    loopback: bool,
    allow: Option<Vec<Network>>,
}

impl Rules {
    fn new(config: &Config, named_by: NamedBy) -> Self {
        Self { named_by, loopback: config.insecure_loopback, allow: config.allow.clone() }
    }

    fn admit(&self, address: IpAddr) -> Result<(), Kind> {
        let kind = address::kind(address);
        match (self.named_by, kind) {
            (NamedBy::Platform, Kind::LinkLocal | Kind::Loopback) => Ok(()),
            // Nobody's configuration makes a metadata service an authorization server.
            (_, Kind::LinkLocal | Kind::Unusable) => Err(kind),
            (_, Kind::Loopback) if self.loopback => Ok(()),
            (NamedBy::Us | NamedBy::Platform, _) => Ok(()),
            (NamedBy::Them, _) => match &self.allow {
                Some(allow) if allow.iter().any(|network| network.contains(address)) => Ok(()),
                Some(_) => Err(Kind::Unlisted),
                None if kind == Kind::Public => Ok(()),
                None => Err(kind),
            },
        }
    }

    /// With an allow list, a name that the list does not hold may still resolve into a listed network; without
    /// any network in it there is no use in asking.
    fn may_resolve(&self, host: &str) -> bool {
        (self.loopback && host == "localhost") || self.allow.as_ref().is_none_or(|allow| !allow.is_empty())
    }
}

impl Resolve for Rules {
    fn resolve(&self, name: Name) -> Resolving {
        let rules = self.clone();
        Box::pin(async move {
            if let Some(address) = address::fixed(name.as_str()).filter(|_| rules.named_by == NamedBy::Platform) {
                return Ok(Box::new(std::iter::once(SocketAddr::new(address, 0))) as Addrs);
            }
            let found = name::look_up(name.as_str()).await?;
            let mut refused = None;
            let mut fine: Vec<SocketAddr> = Vec::new();
            for address in found {
                match rules.admit(address.ip()) {
                    Ok(()) => fine.push(address),
                    Err(kind) => refused = Some(kind),
                }
            }
            match (fine.is_empty(), refused) {
                (true, Some(kind)) => {
                    Err(Box::new(address::Forbidden(kind)) as Box<dyn std::error::Error + Send + Sync>)
                }
                _ => Ok(Box::new(fine.into_iter()) as Addrs),
            }
        })
    }
}

fn build(config: &Config, lane: Lane, tls: rustls::ClientConfig) -> Result<Client, Error> {
    builder(config, lane, tls)?.build().map_err(|error| Error::Roots { what: error.to_string() })
}

fn builder(config: &Config, lane: Lane, tls: rustls::ClientConfig) -> Result<ClientBuilder, Error> {
    let named_by = match lane {
        Lane::Theirs => NamedBy::Them,
        Lane::Beside => NamedBy::Platform,
        Lane::Ours | Lane::Proxied => NamedBy::Us,
    };
    let mut builder = Client::builder().no_proxy();
    if let (Lane::Proxied, Some(proxy)) = (lane, &config.proxy) {
        builder = builder.proxy(proxy.to_reqwest().map_err(|what| Error::Proxy { what: what.to_owned() })?);
    }
    Ok(builder
        .tls_backend_preconfigured(tls)
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .connect_timeout(CONNECT_LIMIT)
        .pool_idle_timeout(Duration::from_secs(30))
        .pool_max_idle_per_host(4)
        .user_agent(concat!("safeconduct/", env!("CARGO_PKG_VERSION")))
        .dns_resolver(Arc::new(Rules::new(config, named_by))))
}

#[cfg(test)]
mod tests;
