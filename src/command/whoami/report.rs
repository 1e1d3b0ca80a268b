//! The report of `whoami`, as JSON with stable words and as text. It names variables and shows claims, but never the value of a
//! variable and never the token.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::broker::{AssertionAudience, Order};
use crate::clock::{Boot, Clock, rfc3339};
use crate::command::paper::{Colour, Paper, span};
use crate::config::Config;
use crate::identity::{self, Chosen, Finding, Found};
use crate::oauth::quoted_words;
use crate::platform::{self, Platform};
use crate::token::{Claims, Digest, SubjectToken};

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
    pub(super) token: Option<&'a SubjectToken>,
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
        let audience = order.subject_audience.as_ref().map(AssertionAudience::as_str).or(issuer);
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
            // Whether the next one is new is not known where the agent keeps them for a while.
            let mints_anew = (!chosen.source.repeats()).then(|| chosen.source.mints_anew());
            json!({
                "source": chosen.source.name(), "evidence": chosen.evidence, "mints_anew": mints_anew,
                "claims": self.token.map(|token| of_claims(&token.claims, now)),
            })
        });
        let mut report = json!({
            "identity": identity,
            "servers": self.servers,
            "sources": self.found.iter().map(|one| of_source(one, name)).collect::<Vec<_>>(),
            "steps": self.steps,
        });
        if let (Some(chosen), Some(token)) = (self.chosen, self.token) {
            let all = token.all_claims();
            let platform = identity::platform(chosen.source.row(), platform::text(&all, "iss"));
            let stranger = (platform.stranger)(&all);
            report["identity"]["notes"] = notes(platform, &all);
            report["identity"]["warning"] =
                json!(stranger.map(|why| format!("a stranger can obtain this identity: {why}; {}", platform.instead)));
            report["identity"]["all_claims"] = Value::Object(all);
        }
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

/// What a claim is good for, for claims of which we know it.
fn notes(platform: &Platform, all: &platform::Claims) -> Value {
    let mut notes = serde_json::Map::new();
    let sub = platform::text(all, "sub");
    let of_sub = match (platform.stable_subject)(sub) {
        Some(stable) if stable.len() < sub.len() && !stable.is_empty() => {
            format!("who it is; only its beginning is the same in every run: {stable}")
        }
        _ => "who it is; a trust policy compares it".to_owned(),
    };
    let standard = [
        ("iss", "who signed it; a trust policy names this issuer".to_owned()),
        ("sub", of_sub),
        ("aud", "for whom it is made; the authorization server compares it with its own name".to_owned()),
        ("exp", "its end".to_owned()),
        ("iat", "when it was made".to_owned()),
        ("nbf", "its beginning".to_owned()),
        ("jti", "its number, by which a server notices a second use".to_owned()),
    ];
    let pinned = platform.pins.iter().map(|pin| (pin.path.join("."), format!("pin it: {}", pin.why)));
    for (name, note) in standard.map(|(name, note)| (name.to_owned(), note)).into_iter().chain(pinned) {
        notes.insert(name, Value::String(note));
    }
    notes.retain(|name, _| platform::at(all, &name.split('.').collect::<Vec<_>>()).is_some());
    Value::Object(notes)
}

/// A claim as safe text, because another party wrote it.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) if text.is_empty() => "\"\"".to_owned(),
        Value::String(text) => quoted_words(text),
        Value::Null => "-".to_owned(),
        Value::Array(list) => {
            let one = |one: &Value| one.as_str().map_or_else(|| quoted_words(&one.to_string()), quoted_words);
            list.iter().map(one).collect::<Vec<_>>().join(", ")
        }
        other => quoted_words(&other.to_string()),
    }
}

/// Which sources the text names one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sources {
    /// Those of which something is here.
    Present,
    Each,
}

/// The width of the labels.
const LABEL: usize = 10;

fn line(paper: &Paper, label: &str, text: &str) -> String {
    paper.paragraph(0, &format!("{label:<LABEL$}"), text)
}

/// The report as text.
pub(super) fn text(paper: &Paper, report: &Value, of_sources: Sources) -> String {
    let mut out = seen(paper, report, of_sources);
    let steps = report["steps"].as_array().into_iter().flatten();
    let steps =
        steps.map(|step| format!("{} {:.1} ms", plain(&step["step"]), step["seconds"].as_f64().unwrap_or(0.0) * 1e3));
    out.push_str(&line(paper, "took", &steps.collect::<Vec<_>>().join(", ")));
    out
}

/// What is known of the identity, if there is one, of the servers and of the sources.
pub(super) fn seen(paper: &Paper, report: &Value, of_sources: Sources) -> String {
    let identity = &report["identity"];
    let mut out = String::new();
    if identity["claims"].is_object() {
        out.push_str(&of_identity(paper, identity));
        for server in report["servers"].as_array().into_iter().flatten() {
            let follows = format!("{}: {}", plain(&server["server"]), what_follows(server));
            out.push_str(&line(paper, "server", &follows));
        }
    }
    out.push_str(&others(paper, report, of_sources));
    out
}

fn of_identity(paper: &Paper, identity: &Value) -> String {
    let mut out = line(paper, "source", &paper.paint(Colour::Bold, &plain(&identity["source"])));
    out.push_str(&line(paper, "evidence", &plain(&identity["evidence"])));
    out.push_str(&line(paper, "life", &life(&identity["claims"])));
    let minted = match identity["mints_anew"].as_bool() {
        Some(true) => "anew for each exchange, for any audience",
        Some(false) => "by somebody else, for the audience below",
        None => "for any audience; the same one again until about half its life is over",
    };
    out.push_str(&line(paper, "minted", minted));
    if let Some(thumbprint) = identity["certificate"]["sha256"].as_str() {
        out.push_str(&line(paper, "x509", &format!("a certificate for mutual TLS, SHA-256 {thumbprint}")));
    }
    if let Some(warning) = identity["warning"].as_str() {
        out.push_str(&line(paper, "warning", &quoted_words(warning)));
    }
    let all = identity["all_claims"].as_object().filter(|all| !all.is_empty());
    match all {
        Some(all) => out.push_str(&claims(paper, all, &identity["notes"])),
        None => {
            // It is no JWT: what is known of it is said by its source.
            for name in ["iss", "sub", "aud"] {
                out.push_str(&line(paper, name, &plain(&identity["claims"][name])));
            }
        }
    }
    out
}

/// How long it lives, in words.
fn life(claims: &Value) -> String {
    let until = plain(&claims["exp"]);
    match claims["expires_in"].as_i64().map(|left| (u64::try_from(left), left.unsigned_abs())) {
        None => "it names no end".to_owned(),
        Some((Ok(left), _)) if left > 0 => format!("{} more, until {until}", span(left)),
        Some((_, over)) => format!("ended {} ago, at {until}", span(over)),
    }
}

/// All claims, those first that a trust policy is about.
fn claims(paper: &Paper, all: &platform::Claims, notes: &Value) -> String {
    const FIRST: [&str; 3] = ["iss", "sub", "aud"];
    let width = all.keys().map(|name| name.chars().count()).max().unwrap_or(0).clamp(8, 24);
    let first = FIRST.iter().filter_map(|name| all.get_key_value(*name));
    let rest = all.iter().filter(|(name, _)| !FIRST.contains(&name.as_str()));
    let mut out = line(paper, "claims", &format!("{}, by what they are good for", all.len()));
    let (noted, plain_ones): (Vec<_>, Vec<_>) = rest.partition(|(name, _)| !note(notes, name).is_empty());
    for (name, value) in first.chain(noted).chain(plain_ones) {
        let label = format!("{:<width$} ", quoted_words(name));
        out.push_str(&paper.paragraph(2, &label, &dated(name, value)));
        out.push_str(&paper.paragraph(2, &" ".repeat(width + 1), &note(notes, name)));
    }
    out
}

fn note(notes: &Value, name: &str) -> String {
    let below = format!("{name}.");
    let of_it = notes.as_object().into_iter().flatten();
    let of_it = of_it.filter(|(path, _)| *path == name || path.starts_with(&below));
    let said = of_it.map(|(path, note)| {
        let note = plain(note);
        if path == name { note } else { format!("{}: {note}", quoted_words(path)) }
    });
    said.collect::<Vec<_>>().join("; ")
}

/// A claim; a date with its time.
fn dated(name: &str, value: &Value) -> String {
    let seconds = value.as_f64().filter(|_| ["exp", "iat", "nbf", "auth_time"].contains(&name));
    let time = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let time = time.and_then(|time| SystemTime::UNIX_EPOCH.checked_add(time));
    time.map_or_else(|| plain(value), |time| format!("{} ({})", plain(value), rfc3339(time)))
}

/// The sources that are not in use, and why not.
fn others(paper: &Paper, report: &Value, of_sources: Sources) -> String {
    let mut out = String::new();
    let sources = || report["sources"].as_array().into_iter().flatten().filter(|source| source["state"] != "used");
    let is_absent = |source: &&Value| source["state"] == "absent";
    for source in sources().filter(|source| of_sources == Sources::Each || !is_absent(source)) {
        let detail = match source["state"].as_str() {
            Some("absent") => format!("absent: {}", plain(&source["looked_for"])),
            Some("unusable") => format!("unusable: {}; to use it, {}", plain(&source["why"]), plain(&source["cure"])),
            _ => format!("here, not used: {}", plain(&source["evidence"])),
        };
        out.push_str(&line(paper, "other", &format!("{}: {detail}", plain(&source["source"]))));
    }
    let absent = sources().filter(is_absent).count();
    if of_sources == Sources::Present && absent > 0 {
        let noun = if absent == 1 { "source" } else { "sources" };
        let text = format!("{absent} {noun} of which nothing is here (`--all` shows what each looks for)");
        out.push_str(&line(paper, "other", &text));
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
