//! The only room that dials: TLS roots, egress rules, limits, and the HTTP clients.
//!
//! - https only. Plain http is for loopback under `insecure_loopback`, and for the endpoints of platforms beside the workload
//!   (metadata services), on their fixed addresses and on loopback.
//! - No redirect is followed, bodies are read up to 64 KiB, and every request has a time limit.
//! - A host that another party named must have a public address (`rules.rs`), unless the configuration names its origin for
//!   the same server (`origins.rs`) or allows it for all. A forward proxy resolves names itself, so only hosts that the
//!   operator named go through it.
//! - Two HTTP clients share these rules: `stream.rs` for the network, for what the data path relays and, by `far.rs`, for documents
//!   and tokens; and `platform.rs` for the APIs of platforms on Unix sockets. After a suspend all connections are given up: nobody
//!   at the other end remembers them. One crate has an HTTP client of its own; it is used only for an endpoint that has answered
//!   through this room before (`identity/gcp/access_token.rs`).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::ClientConfig;
use url::Url;

use crate::clock::Clock;
use crate::jitter::Jitter;
use crate::oauth::host_of;
use crate::token::Digest;

mod alert;
mod call;
mod certificate;
mod connector;
mod deadline;
mod dial;
mod error;
mod failure;
mod far;
mod message;
mod name;
mod origins;
mod patience;
mod pinned;
mod platform;
mod proxy;
mod roots;
mod rules;
mod shelf;
mod stream;
mod suspend;
mod trust;
mod tunnel;

pub(crate) use crate::address::{Kind, Network};
pub(crate) use certificate::Certificate;
pub(crate) use error::Error;
pub(crate) use message::{Answer, Ask, Body};
pub(crate) use origins::Origins;
pub(crate) use patience::Again;
pub(crate) use pinned::Thumbprint;
pub(crate) use proxy::Proxy;
pub(crate) use roots::{RootPlaces, is_pem_bundle};
pub(crate) use rules::is_beside_us;
#[cfg(any(test, safeconduct_fuzz))]
pub(crate) use stream::read_answer;
pub(crate) use stream::{Download, Exchange, Lost, Polled, RequestHead, Sent, Upload};

use call::{Call, Reading};
use connector::{Connector, Through};
use deadline::Deadline;
use rules::Rules;
use shelf::Shelf;
use stream::{Http, Pool, Terms};
use suspend::Watch;
use trust::Trust;

/// No document that we read is larger: metadata, token answers and identity tokens have a few KiB.
const BODY_CAP: usize = 64 * 1024;
/// No head of an answer is larger.
const HEAD_CAP: usize = 64 * 1024;
/// No head has more fields.
const FIELDS: usize = 100;
/// The interim answers of one request. Servers send one or two.
const INTERIM: usize = 8;
/// The limit for a connection: name, dialling, TLS handshake.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// How long a connection is kept without a request. Common servers (Node.js, uvicorn) close idle connections after five
/// seconds. One that is closed here before that does not break under a request.
const KEPT_FOR: Duration = Duration::from_secs(4);
/// The number of idle connections that are kept for documents and tokens of a host.
const KEPT: usize = 4;
const USER_AGENT: &str = concat!("safeconduct/", env!("CARGO_PKG_VERSION"));
/// The limit for a request, unless its sender sets another.
pub(crate) const REQUEST_LIMIT: Duration = Duration::from_secs(10);

/// The egress rules.
#[derive(Clone, Debug, Default)]
pub(crate) struct Config {
    /// Plain http and loopback addresses are allowed, for development.
    pub insecure_loopback: bool,
    /// Where the roots are, if the environment says so.
    pub roots: RootPlaces,
    /// Additional roots, as PEM.
    pub ca_pem: Option<Vec<u8>>,
    /// The networks that hosts named by others may be in. `None` is every public network.
    pub allow: Option<Vec<Network>>,
    /// Hosts in `[egress] allow`. They may have private addresses, whoever names them.
    pub named: BTreeSet<String>,
    /// The forward proxy, with the hosts that are dialled directly.
    pub proxy: Option<Proxy>,
}

/// Who named the host of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NamedBy {
    /// Our own environment or configuration: private addresses are fine.
    Us,
    /// Another party's document: public addresses only, unless `[egress] allow` names the host or network. The sender knows
    /// which origins the configuration names for its server ([`Origins`]).
    Them,
    /// The platform we run on, of itself: an endpoint beside the workload, on link-local or loopback addresses and in
    /// plain http, or anywhere over https. Never through a proxy.
    Platform,
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

/// The way out. Cheap to clone.
#[derive(Clone)]
pub struct Outbound(Arc<Inner>);

struct Inner {
    config: Config,
    // Read at first use: reading the system's roots takes longer than a daemon may take to be ready.
    tls: OnceLock<Result<Arc<ClientConfig>, Error>>,
    /// The turn to read the roots.
    reading: tokio::sync::Mutex<()>,
    /// One for each client certificate and lane: a connection that proves one workload serves no other.
    clients: Shelf<(Option<Digest>, Lane), Arc<Http<Connector>>>,
    /// The TLS of each client certificate that was used.
    presented: Shelf<Digest, Arc<ClientConfig>>,
    /// Shared with those that trust other roots: one task closes the connections of all as they grow old.
    pool: Arc<Pool>,
    /// Tells its connections in the pool from those of the others.
    number: usize,
    /// One for each Unix socket.
    sockets: Shelf<PathBuf, reqwest::Client>,
    /// One for each server certificate that is trusted by its thumbprint.
    pinned: Shelf<Thumbprint, Outbound>,
    trust: Arc<Trust>,
    watch: Watch,
    clock: Clock,
    jitter: Jitter,
    /// When the last request of the command that this is for must be over.
    deadline: Deadline,
}

/// An HTTP client.
enum Client {
    Far(Arc<Http<Connector>>),
    Platform(reqwest::Client),
}

/// The ways out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lane {
    /// To hosts that the operator named.
    Ours,
    /// To hosts that another party named.
    Theirs,
    /// Through the forward proxy.
    Proxied,
    /// To a platform's endpoints beside the workload.
    Beside,
}

impl Outbound {
    /// A way out under these rules. Nothing is read or dialled yet.
    #[cfg(test)]
    pub(crate) fn new(config: Config) -> Self {
        Self::until(config, Clock::system(), None)
    }

    /// The same for a command whose requests must all be over by the deadline. The clock shows when the machine was suspended.
    pub(crate) fn until(config: Config, clock: Clock, deadline: Option<tokio::time::Instant>) -> Self {
        Self::with(config, OnceLock::new(), clock, Deadline::at(deadline), Arc::default())
    }

    /// The same rules for one party that has a CA of its own. Only certificates of this bundle are trusted, so that no other
    /// CA can stand in for it.
    pub(crate) fn trusting(&self, ca_pem: &[u8]) -> Result<Self, Error> {
        Ok(self.with_tls(roots::only(ca_pem)?))
    }

    /// The same rules for one party that its platform names by the thumbprint of its certificate.
    pub(crate) fn pinned(&self, thumbprint: Thumbprint) -> Result<Self, Error> {
        self.0.pinned.get_or_make(thumbprint, || Ok(self.with_tls(pinned::tls(thumbprint)?)))
    }

    fn with_tls(&self, tls: ClientConfig) -> Self {
        // A party with a CA of its own is beside us, so there is no forward proxy on the way.
        let config = Config { proxy: None, ..self.0.config.clone() };
        let (tls, pool) = (OnceLock::from(Ok(Arc::new(tls))), Arc::clone(&self.0.pool));
        Self::with(config, tls, self.0.clock.clone(), self.0.deadline.clone(), pool)
    }

    fn with(
        config: Config,
        tls: OnceLock<Result<Arc<ClientConfig>, Error>>,
        clock: Clock,
        deadline: Deadline,
        pool: Arc<Pool>,
    ) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        Self(Arc::new(Inner {
            config,
            tls,
            reading: tokio::sync::Mutex::default(),
            clients: Shelf::default(),
            presented: Shelf::default(),
            pool,
            number: COUNT.fetch_add(1, Ordering::Relaxed),
            sockets: Shelf::default(),
            pinned: Shelf::default(),
            trust: Arc::default(),
            watch: Watch::default(),
            clock,
            jitter: Jitter::from_system(),
            deadline,
        }))
    }

    /// Gives up all connections. Requests that run keep theirs.
    fn forget_connections(&self) {
        debug!("the machine was suspended: its connections are given up");
        self.0.pool.clear();
        self.0.sockets.clear();
    }

    /// Builds the clients now, so that the first request does not wait for it.
    pub fn warm(&self) {
        for lane in [Lane::Ours, Lane::Theirs] {
            // A failure is kept, and the first request reports it.
            let _ = self.client(lane, None);
        }
    }

    /// Sends one request and reads the whole answer.
    pub async fn send(&self, ask: Ask) -> Result<Answer, Error> {
        self.send_and_read(ask, Reading::Whole).await
    }

    /// Sends one request and reads the body of the answer if its status is 200: for documents, where every other status says all.
    pub async fn send_for_document(&self, ask: Ask) -> Result<Answer, Error> {
        self.send_and_read(ask, Reading::Document).await
    }

    /// Sends one request and does not read the body of the answer: for callers that need only status and header fields, where
    /// the body may be a stream that never ends.
    pub async fn send_for_head(&self, ask: Ask) -> Result<Answer, Error> {
        self.send_and_read(ask, Reading::Head).await
    }

    async fn send_and_read(&self, ask: Ask, reading: Reading) -> Result<Answer, Error> {
        let url = Url::parse(&ask.url).map_err(|_| Error::NotAUrl)?;
        let limit = self.left(ask.limit);
        if self.0.watch.was_suspended(&self.0.clock) {
            self.forget_connections();
        }
        if let Some(socket) = &ask.socket {
            let host = socket.display().to_string();
            self.read_roots(&host, limit).await?;
            let (client, limit) = (self.over(socket)?, self.left(ask.limit));
            return self.exchange(&client, Call::new(ask, url, host, reading), limit).await;
        }
        let host = host_of(&url).to_owned();
        self.read_roots(&host, limit).await?;
        let limit = self.left(ask.limit);
        let lane = self.lane(&url, &host, ask.named_by)?;
        let client = self.client(lane, ask.certificate.as_deref())?;
        let outcome = self.exchange(&client, Call::new(ask, url, host, reading), limit).await;
        match (lane, &self.0.config.proxy) {
            (Lane::Proxied, Some(proxy)) => outcome.map_err(|error| proxy.explain(error)),
            _ => outcome,
        }
    }

    /// The exchange. A suspend ends it: the answer would not come any more.
    async fn exchange(&self, client: &Client, call: Call, limit: Duration) -> Result<Answer, Error> {
        let host = call.host.clone();
        tokio::select! {
            outcome = client.send(call, limit) => outcome,
            () = suspend::noticed(&self.0.clock) => {
                let what = format!("{host} cannot answer any more: the machine was suspended meanwhile");
                Err(Error::Stale { host, what })
            }
        }
    }

    /// Which way a request takes, if the rules let it pass. A proxy resolves names itself, so a name that a stranger chose does
    /// not go there.
    fn lane(&self, url: &Url, host: &str, named_by: NamedBy) -> Result<Lane, Error> {
        let named = named_by == NamedBy::Them && self.0.config.named.contains(host);
        let named_by = if named { NamedBy::Us } else { named_by };
        rules::admit(&self.0.config, url, named_by)?;
        match (&self.0.config.proxy, named_by) {
            (_, NamedBy::Platform) => Ok(Lane::Beside),
            (Some(proxy), NamedBy::Us) if proxy.carries(url) => Ok(Lane::Proxied),
            (Some(proxy), NamedBy::Them) if proxy.carries(url) => Err(Error::NotAllowed { host: host.to_owned() }),
            (_, NamedBy::Us) => Ok(Lane::Ours),
            (_, NamedBy::Them) => Ok(Lane::Theirs),
        }
    }

    fn client(&self, lane: Lane, certificate: Option<&Certificate>) -> Result<Client, Error> {
        let tls = || match certificate {
            None => self.tls(),
            Some(certificate) => Ok(Arc::new(roots::with_certificate(&*self.tls()?, certificate)?)),
        };
        self.http(lane, certificate.map(|certificate| certificate.thumbprint), &tls).map(Client::Far)
    }

    /// The client of this lane that shows this certificate. `tls` sets up TLS the first time.
    fn http(
        &self,
        lane: Lane,
        certificate: Option<Digest>,
        tls: &dyn Fn() -> Result<Arc<ClientConfig>, Error>,
    ) -> Result<Arc<Http<Connector>>, Error> {
        self.0.clients.get_or_make((certificate, lane), || {
            let tls = match certificate {
                Some(thumbprint) => self.0.presented.get_or_make(thumbprint, tls)?,
                None => tls()?,
            };
            let terms = Terms { outbound: self.0.number, lane, certificate };
            let (trust, pool) = (Arc::clone(&self.0.trust), Arc::clone(&self.0.pool));
            Ok(Arc::new(Http { connector: self.connector(lane, tls)?, terms, trust, pool }))
        })
    }

    fn connector(&self, lane: Lane, tls: Arc<ClientConfig>) -> Result<Connector, Error> {
        let rules = |named_by| Rules::new(&self.0.config, named_by);
        let (rules, through) = match lane {
            Lane::Ours => (rules(NamedBy::Us), None),
            Lane::Theirs => (rules(NamedBy::Them), None),
            Lane::Proxied => {
                let (proxy, tls) = (self.0.config.proxy.clone(), self.tls()?);
                (rules(NamedBy::Us), proxy.map(|proxy| Through { proxy, tls }))
            }
            Lane::Beside => (rules(NamedBy::Platform), None),
        };
        Ok(Connector::new(rules, tls, through))
    }

    /// A client that dials this socket, whatever the URL.
    fn over(&self, socket: &Path) -> Result<Client, Error> {
        let make = || {
            let rules = Rules::new(&self.0.config, NamedBy::Platform);
            platform::over(socket, rules, (*self.tls()?).clone())
        };
        self.0.sockets.get_or_make(socket.to_owned(), make).map(Client::Platform)
    }

    fn tls(&self) -> Result<Arc<ClientConfig>, Error> {
        self.0
            .tls
            .get_or_init(|| roots::tls(&self.0.config.roots, self.0.config.ca_pem.as_deref()).map(Arc::new))
            .clone()
    }
}

impl Client {
    /// The exchange, within its limit.
    async fn send(&self, call: Call, limit: Duration) -> Result<Answer, Error> {
        let host = call.host.clone();
        if limit.is_zero() {
            return Err(Error::NoTimeLeft { host });
        }
        let exchange = async {
            match self {
                Self::Far(http) => http.ask(call).await,
                Self::Platform(client) => platform::send(client, call).await,
            }
        };
        tokio::time::timeout(limit, exchange).await.unwrap_or(Err(Error::Timeout { host, limit }))
    }
}

#[cfg(test)]
mod tests;
