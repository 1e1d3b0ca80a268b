//! The counters and histograms, named once. Labels come from configuration or from a fixed list, never from a
//! caller, so their number is bounded.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::cache::Observer;

/// All metrics of this process.
pub struct Metrics {
    registry: Registry,
    served: Family<ByServer, Counter>,
    refused: Family<ByClass, Counter>,
    cache: CacheMetrics,
    /// The counters of `served`, to be summed when the output must not name servers.
    each_served: Mutex<BTreeMap<String, Counter>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByServer {
    server: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByClass {
    class: &'static str,
}

#[derive(Clone, Default)]
struct Outcomes {
    ok: Counter<u64, AtomicU64>,
    failed: Counter<u64, AtomicU64>,
}

/// The metrics that the cache updates.
#[derive(Clone)]
pub struct CacheMetrics {
    hits: Counter,
    flights: Counter,
    outcomes: Outcomes,
    took: Histogram,
}

impl Metrics {
    /// All zero.
    pub fn new() -> Self {
        // In seconds: from a local answer to an identity endpoint that needs five tries.
        let took = Histogram::new([0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0]);
        let cache =
            CacheMetrics { hits: Counter::default(), flights: Counter::default(), outcomes: Outcomes::default(), took };
        let (served, refused) = (Family::default(), Family::default());
        let mut registry = Registry::with_prefix(PREFIX);
        registry.register(SERVED.0, SERVED.1, served.clone());
        register_nameless(&mut registry, &refused, &cache);
        Self { registry, served, refused, cache, each_served: Mutex::default() }
    }

    /// The counter of requests answered with a token for this configured server; looked up once, not per request.
    pub fn served(&self, server: &str) -> Counter {
        let counter = self.served.get_or_create(&ByServer { server: server.to_owned() }).clone();
        self.each_served.lock().unwrap_or_else(PoisonError::into_inner).insert(server.to_owned(), counter.clone());
        counter
    }

    /// Counts a request that was not served.
    pub fn refused(&self, class: &'static str) {
        self.refused.get_or_create(&ByClass { class }).inc();
    }

    /// The part that the cache reports to.
    pub fn cache(&self) -> CacheMetrics {
        self.cache.clone()
    }

    /// Prometheus text with one total for all servers.
    pub fn nameless_text(&self) -> Result<String, fmt::Error> {
        let total = Counter::<u64>::default();
        total.inc_by(self.each_served.lock().unwrap_or_else(PoisonError::into_inner).values().map(Counter::get).sum());
        let mut registry = Registry::with_prefix(PREFIX);
        registry.register(SERVED.0, SERVED.1, total);
        register_nameless(&mut registry, &self.refused, &self.cache);
        let mut text = String::new();
        encode(&mut text, &registry)?;
        Ok(text)
    }

    /// Prometheus text.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// The prefix of every metric's name.
const PREFIX: &str = "safeconduct";
/// Name and help of the one metric that names servers.
const SERVED: (&str, &str) = ("tokens_served", "Requests answered with a token");

/// The metrics that name no server.
fn register_nameless(registry: &mut Registry, refused: &Family<ByClass, Counter>, cache: &CacheMetrics) {
    registry.register("requests_refused", "Requests not served, by class", refused.clone());
    registry.register("cache_hits", "Requests answered without waiting", cache.hits.clone());
    registry.register("flights", "Exchanges started", cache.flights.clone());
    registry.register("flights_landed", "Exchanges that brought a token", cache.outcomes.ok.clone());
    registry.register("flights_failed", "Exchanges that failed", cache.outcomes.failed.clone());
    let took = cache.took.clone();
    registry.register("flight_seconds", "How long an exchange took, discovery and identity included", took);
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Observer for CacheMetrics {
    fn hit(&self) {
        self.hits.inc();
    }

    fn flight(&self) {
        self.flights.inc();
    }

    fn landed(&self, took: Duration, ok: bool) {
        if ok {
            self.outcomes.ok.inc();
        } else {
            self.outcomes.failed.inc();
        }
        self.took.observe(took.as_secs_f64());
    }
}
