//! The report of `whoami`, as JSON with stable words and as text. It names variables and shows claims, but never the value of a
//! variable and never the token.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::broker::Order;
use crate::clock::{Boot, Clock, rfc3339};
use crate::config::Config;
use crate::identity::{Chosen, Finding, Found};
use crate::oauth::quoted_words;
use crate::token::{Claims, Digest};

/// How long each step took.
pub(super) struct Steps {
    clock: Clock,
    last: Boot,
    done: Vec<Value>,
}

impl Steps {
    pub(super) fn new(clock: &Clock) -> Self {
        Self { clock: clock.clone(), last: clock.boot(), done: Vec::new() }
    }

    /// Records the end of a step, which began when the last one ended.
    pub(super) fn done(&mut self, step: &str) {
        let now = self.clock.boot();
        self.done.push(json!({ "step": step, "seconds": now.since(self.last).as_secs_f64() }));
        self.last = now;
    }

    pub(super) fn into_json(self) -> Value {
        Value::Array(self.done)
    }
}

/// The data of the report.
pub(super) struct Seen<'a> {
    pub(super) chosen: Option<&'a Chosen>,
    pub(super) found: &'a [Found],
    pub(super) claims: Option<&'a Claims>,
    pub(super) certificate: Option<Digest>,
    pub(super) servers: Value,
    pub(super) steps: Value,
}

/// For each configured server: its identity, the exchanges on the way, the client authentication and the audience.
pub(super) fn servers(config: &Config) -> Value {
    let one = |order: &Arc<Order>| {
        let (exchange, issuer) =
            (order.exchange.as_ref().map(|one| one.name()), order.issuer().map(|issuer| issuer.as_str()));
        let links =
            config.identities.get(&order.identity).map(|identity| identity.links.as_slice()).unwrap_or_default();
        let through: Vec<Value> = links
            .iter()
            .chain(&order.idp)
            .map(|link| json!({ "exchange": link.step(), "issuer": link.issuer.as_str() }))
            .collect();
        let presents = order.needs_subject();
        let audience = order.subject_audience.as_deref().or(issuer);
        json!({
            "server": &*order.name, "identity": &*order.identity, "through": through,
            "exchange": exchange, "client_auth": order.client.auth.as_str(),
            "issuer": issuer, "audience": audience.filter(|_| presents), "presents_identity": presents,
        })
    };
    config.servers.iter().flat_map(|server| server.orders()).map(one).collect()
}

impl Seen<'_> {
    pub(super) fn report(&self, now: i64) -> Value {
        let name = self.chosen.map(|chosen| chosen.source.name());
        let identity = self.chosen.map(|chosen| {
            json!({
                "source": chosen.source.name(), "evidence": chosen.evidence, "mints_anew": chosen.source.mints_anew(),
                "claims": self.claims.map(|claims| of_claims(claims, now)),
            })
        });
        let mut report = json!({
            "identity": identity,
            "servers": self.servers,
            "sources": self.found.iter().map(|one| of_source(one, name)).collect::<Vec<_>>(),
            "steps": self.steps,
        });
        if let Some(thumbprint) = &self.certificate {
            report["identity"]["certificate"] = json!({ "sha256": thumbprint.hex() });
        }
        report
    }
}

fn of_claims(claims: &Claims, now: i64) -> Value {
    let date = |seconds: Option<i64>| {
        let seconds = seconds.and_then(|seconds| u64::try_from(seconds).ok())?;
        Some(rfc3339(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)))
    };
    json!({
        "iss": claims.iss, "sub": claims.sub, "aud": claims.aud, "exp": date(claims.exp), "iat": date(claims.iat),
        "expires_in": claims.exp.map(|exp| exp.saturating_sub(now)), "jti": claims.jti.is_some(),
    })
}

fn of_source(one: &Found, used: Option<&str>) -> Value {
    let (state, detail) = match &one.finding {
        _ if used == Some(one.row.name) => ("used", json!({})),
        Finding::Absent { looked_for } => ("absent", json!({ "looked_for": looked_for })),
        Finding::Unusable { evidence, defect } => {
            ("unusable", json!({ "evidence": evidence, "why": defect.what, "cure": defect.cure }))
        }
        Finding::Usable { evidence, .. } => ("not_used", json!({ "evidence": evidence })),
    };
    let mut row =
        json!({ "source": one.row.name, "tier": one.row.tier.as_str(), "about": one.row.about, "state": state });
    row.as_object_mut().expect("just made").extend(detail.as_object().cloned().unwrap_or_default());
    row
}

/// A claim as safe text, because another party wrote it.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => quoted_words(text),
        Value::Null => "-".to_owned(),
        Value::Array(list) => {
            list.iter().map(|one| quoted_words(one.as_str().unwrap_or("-"))).collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    }
}

/// The report as text.
pub(super) fn text(report: &Value) -> String {
    let identity = &report["identity"];
    let claims = &identity["claims"];
    let mut out = String::new();
    let mut line = |name: &str, value: String| out.push_str(&format!("{name:<9} {value}\n"));
    line("source", plain(&identity["source"]));
    line("evidence", plain(&identity["evidence"]));
    for name in ["iss", "sub", "aud"] {
        line(name, plain(&claims[name]));
    }
    line("exp", format!("{} (in {} s)", plain(&claims["exp"]), plain(&claims["expires_in"])));
    line("jti", if claims["jti"] == true { "yes: servers can notice a replay" } else { "no" }.to_owned());
    let anew = identity["mints_anew"] == true;
    let minted =
        if anew { "anew for each exchange, for any audience" } else { "by somebody else, for the audience above" };
    line("minted", minted.to_owned());
    if let Some(thumbprint) = identity["certificate"]["sha256"].as_str() {
        line("x509", format!("a certificate for mutual TLS, SHA-256 {thumbprint}"));
    }
    for server in report["servers"].as_array().into_iter().flatten() {
        line("server", format!("{}: {}", plain(&server["server"]), what_follows(server)));
    }
    out.push_str(&others(report));
    let steps = report["steps"].as_array().into_iter().flatten();
    let steps =
        steps.map(|step| format!("{} {:.1} ms", plain(&step["step"]), step["seconds"].as_f64().unwrap_or(0.0) * 1e3));
    out.push_str(&format!("{:<9} {}\n", "took", steps.collect::<Vec<_>>().join(", ")));
    out
}

/// Every source that is not in use, and why not, in columns.
pub(super) fn others(report: &Value) -> String {
    let mut out = String::new();
    let sources = || report["sources"].as_array().into_iter().flatten().filter(|source| source["state"] != "used");
    let width = sources().filter_map(|source| source["source"].as_str()).map(str::len).max().unwrap_or(0);
    for source in sources() {
        let detail = match source["state"].as_str() {
            Some("absent") => format!("absent: {}", plain(&source["looked_for"])),
            Some("unusable") => format!("unusable: {}; to use it, {}", plain(&source["why"]), plain(&source["cure"])),
            _ => format!("here, not used: {}", plain(&source["evidence"])),
        };
        out.push_str(&format!("other     {:<width$}  {detail}\n", plain(&source["source"])));
    }
    out
}

fn what_follows(server: &Value) -> String {
    let through = server["through"].as_array().into_iter().flatten();
    let mut parts: Vec<String> =
        through.map(|link| format!("{} at {}", plain(&link["exchange"]), plain(&link["issuer"]))).collect();
    let exchange = if server["exchange"].is_null() {
        "the exchange that its metadata allows".to_owned()
    } else {
        plain(&server["exchange"])
    };
    let issuer = if server["issuer"].is_null() { "the issuer it names".to_owned() } else { plain(&server["issuer"]) };
    parts.push(format!("{exchange} at {issuer}"));
    if server["presents_identity"] == false {
        parts.push("without this identity".to_owned());
    } else if server["audience"].is_string() && server["audience"] != server["issuer"] {
        parts.push(format!("as {}", plain(&server["audience"])));
    }
    parts.join(", then ")
}
