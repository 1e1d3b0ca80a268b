//! The counters and histograms, named once. Labels come from configuration or from a fixed list, never from a
//! caller, so their number is bounded.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};

use crate::cache::Observer;

/// Log lines of this process that could not be written.
pub(crate) static LOG_LINES_DROPPED: LazyLock<Counter> = LazyLock::new(Counter::default);

/// All metrics of this process.
pub struct Metrics {
    refused: Family<ByClass, Counter>,
    cache: CacheMetrics,
    /// Decisions that could not be recorded.
    unrecorded: Counter,
    /// Requests answered with a token, by the name of the server.
    each_served: Mutex<BTreeMap<String, Counter>>,
    /// The data path, by the name of the server.
    each_relayed: Mutex<BTreeMap<String, Arc<Relayed>>>,
    /// Tries to get a token that failed, by the name of the server and the class.
    each_failed: Mutex<BTreeMap<(String, &'static str), u64>>,
}

/// How the last reload of the configuration went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LastReload {
    /// Is the newest file in use?
    pub is_in_use: bool,
    /// When what is in use was read, in seconds since 1970.
    pub read: i64,
}

/// The data path of one server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Relayed {
    /// Requests of clients.
    pub(crate) requests: Counter,
    /// Requests that were sent to the server once more.
    pub(crate) repetitions: Counter,
    /// Sessions that the server had lost and that were replaced.
    pub(crate) heals: Counter,
    /// Event streams that are open.
    pub(crate) streams: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByServer {
    server: String,
}

type ByName = Family<ByServer, Counter>;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByServerAndClass {
    server: String,
    class: &'static str,
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
    /// All zero, but for the decisions that could not be recorded, which the audit counts.
    pub fn new(unrecorded: Counter) -> Self {
        // In seconds: from a local answer to an identity endpoint that needs five tries.
        let took = Histogram::new([0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0]);
        let cache =
            CacheMetrics { hits: Counter::default(), flights: Counter::default(), outcomes: Outcomes::default(), took };
        let (each_served, each_relayed, each_failed) = Default::default();
        Self { refused: Family::default(), cache, unrecorded, each_served, each_relayed, each_failed }
    }

    /// The counter of requests answered with a token for this configured server; looked up once, not per request.
    pub fn served(&self, server: &str) -> Counter {
        let mut each = self.each_served.lock().unwrap_or_else(PoisonError::into_inner);
        each.entry(server.to_owned()).or_default().clone()
    }

    /// The counters of the data path of this configured server.
    pub(crate) fn relayed(&self, server: &str) -> Arc<Relayed> {
        let mut each = self.each_relayed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(relayed) = each.get(server) {
            return Arc::clone(relayed);
        }
        Arc::clone(each.entry(server.to_owned()).or_default())
    }

    /// The same, if there was any request.
    pub(crate) fn relayed_so_far(&self, server: &str) -> Option<Arc<Relayed>> {
        self.each_relayed.lock().unwrap_or_else(PoisonError::into_inner).get(server).cloned()
    }

    /// Counts a try to get a token for this server that failed.
    pub(crate) fn failed(&self, server: &str, class: &'static str) {
        let mut each = self.each_failed.lock().unwrap_or_else(PoisonError::into_inner);
        *each.entry((server.to_owned(), class)).or_default() += 1;
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
    pub(crate) fn nameless_text(&self, last: LastReload) -> Result<String, fmt::Error> {
        let total = Counter::<u64>::default();
        total.inc_by(self.each_served.lock().unwrap_or_else(PoisonError::into_inner).values().map(Counter::get).sum());
        let all = Relayed::default();
        for one in self.each_relayed.lock().unwrap_or_else(PoisonError::into_inner).values() {
            all.requests.inc_by(one.requests.get());
            all.repetitions.inc_by(one.repetitions.get());
            all.heals.inc_by(one.heals.get());
            all.streams.inc_by(one.streams.get());
        }
        let mut registry = Registry::with_prefix(PREFIX);
        self.register(&mut registry, total, (all.requests, all.repetitions, all.heals, all.streams));
        text(registry, last)
    }

    /// Prometheus text that names these servers alone. `lives` are the seconds that are left of their tokens.
    pub(crate) fn text_of(
        &self,
        is_named: impl Fn(&str) -> bool,
        lives: &[(String, u64)],
        last: LastReload,
    ) -> Result<String, fmt::Error> {
        let served = Family::<ByServer, Counter>::default();
        for (server, counter) in &*self.each_served.lock().unwrap_or_else(PoisonError::into_inner) {
            if is_named(server) {
                served.get_or_create(&ByServer { server: server.clone() }).inc_by(counter.get());
            }
        }
        let (requests, repetitions, heals) = <(ByName, ByName, ByName)>::default();
        let streams = Family::<ByServer, Gauge>::default();
        for (server, one) in &*self.each_relayed.lock().unwrap_or_else(PoisonError::into_inner) {
            if is_named(server) {
                let label = ByServer { server: server.clone() };
                requests.get_or_create(&label).inc_by(one.requests.get());
                repetitions.get_or_create(&label).inc_by(one.repetitions.get());
                heals.get_or_create(&label).inc_by(one.heals.get());
                streams.get_or_create(&label).set(one.streams.get());
            }
        }
        let left = Family::<ByServer, Gauge>::default();
        for (server, seconds) in lives {
            let seconds = i64::try_from(*seconds).unwrap_or(i64::MAX);
            left.get_or_create(&ByServer { server: server.clone() }).set(seconds);
        }
        let failed = Family::<ByServerAndClass, Counter>::default();
        for ((server, class), count) in &*self.each_failed.lock().unwrap_or_else(PoisonError::into_inner) {
            if is_named(server) {
                let label = ByServerAndClass { server: server.clone(), class };
                failed.get_or_create(&label).inc_by(*count);
            }
        }
        let mut registry = Registry::with_prefix(PREFIX);
        self.register(&mut registry, served, (requests, repetitions, heals, streams));
        registry.register("token_life_left_seconds", "What is left of the token; 0: required, and there is none", left);
        registry.register("token_failures", "Tries to get a token that failed, by server and class", failed);
        text(registry, last)
    }

    fn register<C: Metric>(
        &self,
        registry: &mut Registry,
        served: impl Metric,
        (requests, repetitions, heals, streams): (C, C, C, impl Metric),
    ) {
        registry.register(SERVED.0, SERVED.1, served);
        registry.register("proxy_requests", "Requests of clients of the proxy", requests);
        registry.register("proxy_repetitions", "Requests that the proxy sent once more", repetitions);
        registry.register("proxy_sessions_healed", "Lost sessions that the proxy replaced", heals);
        registry.register("proxy_open_streams", "Event streams that are open at the proxy", streams);
        register_nameless(registry, &self.refused, &self.cache);
        registry.register(UNRECORDED.0, UNRECORDED.1, self.unrecorded.clone());
    }
}

fn text(mut registry: Registry, last: LastReload) -> Result<String, fmt::Error> {
    let (is_in_use, read) = <(Gauge, Gauge)>::default();
    is_in_use.set(i64::from(last.is_in_use));
    read.set(last.read);
    registry.register("config_last_reload_successful", "1 if the newest configuration file is in use", is_in_use);
    registry.register("config_last_reload_success_timestamp_seconds", "When the configuration in use was read", read);
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

/// The prefix of every metric's name.
const PREFIX: &str = "safeconduct";
/// Name and help of the first metric that names servers.
const SERVED: (&str, &str) = ("tokens_served", "Requests answered with a token");

/// Name and help of the counter of the audit.
const UNRECORDED: (&str, &str) = ("audit_records_failed", "Audit records that could not be written");

/// The metrics that name no server.
fn register_nameless(registry: &mut Registry, refused: &Family<ByClass, Counter>, cache: &CacheMetrics) {
    registry.register("requests_refused", "Requests not served, by class", refused.clone());
    registry.register("cache_hits", "Requests answered without waiting", cache.hits.clone());
    registry.register("flights", "Exchanges started", cache.flights.clone());
    registry.register("flights_landed", "Exchanges that brought a token", cache.outcomes.ok.clone());
    registry.register("flights_failed", "Exchanges that failed", cache.outcomes.failed.clone());
    registry.register("log_lines_dropped", "Log lines that could not be written", LOG_LINES_DROPPED.clone());
    let took = cache.took.clone();
    registry.register("flight_seconds", "How long an exchange took, discovery and identity included", took);
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new(Counter::default())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_named_to_those_alone_who_may_know_of_it() {
        let metrics = Metrics::default();
        metrics.served("mine").inc_by(2);
        metrics.served("hidden").inc_by(3);
        metrics.failed("mine", "refused");
        metrics.failed("hidden", "temporary");
        let (lives, last) = ([("mine".to_owned(), 42)], LastReload { is_in_use: false, read: 7 });
        let text = metrics.text_of(|server| server == "mine", &lives, last).expect("encoded");
        for line in [
            "safeconduct_token_life_left_seconds{server=\"mine\"} 42",
            "safeconduct_token_failures_total{server=\"mine\",class=\"refused\"} 1",
            "safeconduct_config_last_reload_successful 0",
            "safeconduct_config_last_reload_success_timestamp_seconds 7",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        assert!(text.contains("safeconduct_tokens_served_total{server=\"mine\"} 2"), "{text}");
        assert!(!text.contains("hidden"), "{text}");
        let nameless = metrics.nameless_text(last).expect("encoded");
        assert!(nameless.contains("safeconduct_tokens_served_total 5"), "{nameless}");
        metrics.relayed("mine").streams.inc();
        metrics.relayed("hidden").requests.inc();
        metrics.relayed("hidden").streams.inc();
        let text = metrics.text_of(|server| server == "mine", &lives, last).expect("encoded");
        assert!(text.contains("safeconduct_proxy_open_streams{server=\"mine\"} 1"), "{text}");
        assert!(!text.contains("hidden"), "{text}");
        let nameless = metrics.nameless_text(last).expect("encoded");
        let all = ["safeconduct_proxy_open_streams 2", "safeconduct_proxy_requests_total 1"];
        assert!(all.iter().all(|line| nameless.contains(line)), "{nameless}");
    }
}
