//! The other parties of an exchange, faked in one process on loopback: a job's identity endpoint, MCP servers that
//! challenge, and an authorization server that verifies the assertion and signs its tokens.
//!
//! Each party has its own port. A fourth port, for the measurements only, has `/counters` (the requests with their times, and the
//! longest chain of requests that waited for each other), `/reset?delay_ms=N` (clears that, and delays each answer by N ms) and
//! `/fault?at=PARTY&kind=KIND&for_ms=N` (for so long this party, `identity`, `mcp` or `authorization`, fails in this way).
//! Prints one JSON line with the four URLs and the environment to give to the broker, and runs until it is ended.
//!
//! MCP server `/mcp/NAME` is guarded by the authorization server itself, `/tN/NAME` by its tenant `/tN`: several issuers,
//! so that the rate limit per issuer does not slow down other measurements.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use aws_lc_rs::{hmac, rand};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use clap::Parser;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::LocalSet;
use url::Url;
use url::form_urlencoded::parse as parse_form;
use safeconduct_bench_tools::Result;

const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const METADATA: &str = "/.well-known/oauth-authorization-server";
const RESOURCE_METADATA: &str = "/.well-known/oauth-protected-resource";
/// The secret that a job sends to its identity endpoint.
const REQUEST_TOKEN: &str = "bench-request-token";
const SUBJECT: &str = "repo:example/bench:ref:refs/heads/main";
/// Access tokens are padded to this many characters, a usual size.
const TOKEN_LENGTH: usize = 700;

#[derive(Parser)]
struct Flags {
    /// Life of the access tokens in seconds.
    #[arg(long, default_value_t = 3600)]
    life: u64,
    /// The delay of every answer.
    #[arg(long, default_value_t = 0)]
    delay_ms: u64,
}

fn main() -> Result<()> {
    let flags = Flags::parse();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, serve(&flags))
}

async fn serve(flags: &Flags) -> Result<()> {
    let mut listeners = Vec::new();
    for _ in 0..4 {
        listeners.push(TcpListener::bind("127.0.0.1:0").await?);
    }
    let address = |at: usize| listeners[at].local_addr();
    let world = Rc::new(World::new(flags, [address(0)?, address(1)?, address(2)?])?);
    println!("{}", world.announcement(address(3)?));
    let parties = [
        Party::Identity,
        Party::Mcp,
        Party::Authorization,
        Party::Control,
    ];
    for (listener, party) in listeners.into_iter().zip(parties) {
        tokio::task::spawn_local(accept(listener, party, Rc::clone(&world)));
    }
    Ok(tokio::signal::ctrl_c().await?)
}

async fn accept(listener: TcpListener, party: Party, world: Rc<World>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        // Small answers must not wait for the delayed acknowledgement of the one before.
        let _ = stream.set_nodelay(true);
        let world = Rc::clone(&world);
        tokio::task::spawn_local(async move {
            let answer = service_fn(move |request| {
                let world = Rc::clone(&world);
                async move { world.answer_or_fail(party, request).await }
            });
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), answer)
                .await;
        });
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Party {
    Identity,
    Mcp,
    Authorization,
    Control,
}

type Answer = Response<Full<Bytes>>;

/// How a party fails for a while.
#[derive(Clone, Copy)]
enum Kind {
    /// 503 with a large page.
    Busy,
    /// 429 with `Retry-After`.
    Limit,
    /// 200 with a page, as a captive portal answers.
    Page,
    /// The connection is closed without an answer.
    Close,
    /// No answer until the fault is over, and then none either.
    Silent,
    /// Right, but two seconds late.
    Slow,
}

#[derive(Clone, Copy)]
struct Fault {
    party: Party,
    kind: Kind,
    until: Instant,
}

/// The connection ends without an answer.
#[derive(Debug)]
struct NoAnswer;

impl std::fmt::Display for NoAnswer {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.write_str("a fault that was asked for")
    }
}

impl std::error::Error for NoAnswer {}

/// All parties, their keys and the requests they got.
struct World {
    identity: String,
    mcp: String,
    issuer: String,
    life: u64,
    access_key: EcdsaKeyPair,
    identity_key: hmac::Key,
    asked: Mutex<Asked>,
    fault: Mutex<Option<Fault>>,
}

/// One request and its answer, in milliseconds since the last reset.
struct Visit {
    endpoint: &'static str,
    start_ms: f64,
    end_ms: f64,
}

struct Asked {
    since: Instant,
    delay: Duration,
    refused: u64,
    visits: Vec<Visit>,
}

impl World {
    fn new(flags: &Flags, [identity, mcp, issuer]: [SocketAddr; 3]) -> Result<Self> {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random)
            .map_err(|_| "no key")?;
        let access_key =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref())
                .map_err(|_| "bad key")?;
        let identity_key = hmac::Key::generate(hmac::HMAC_SHA256, &random).map_err(|_| "no key")?;
        let asked = Asked {
            since: Instant::now(),
            delay: Duration::from_millis(flags.delay_ms),
            refused: 0,
            visits: Vec::new(),
        };
        Ok(Self {
            identity: format!("http://{identity}"),
            mcp: format!("http://{mcp}"),
            issuer: format!("http://{issuer}"),
            life: flags.life,
            access_key,
            identity_key,
            asked: Mutex::new(asked),
            fault: Mutex::new(None),
        })
    }

    fn announcement(&self, control: SocketAddr) -> Value {
        json!({
            "identity": self.identity, "mcp": self.mcp, "issuer": self.issuer, "control": control.to_string(),
            "env": {
                "GITHUB_ACTIONS": "true",
                "ACTIONS_ID_TOKEN_REQUEST_URL": format!("{}/token?api-version=2.0", self.identity),
                "ACTIONS_ID_TOKEN_REQUEST_TOKEN": REQUEST_TOKEN,
            },
        })
    }

    fn asked(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fault(&self) -> MutexGuard<'_, Option<Fault>> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer_or_fail(
        &self,
        party: Party,
        request: Request<Incoming>,
    ) -> std::result::Result<Answer, NoAnswer> {
        let fault = *self.fault();
        let Some(fault) = fault.filter(|fault| fault.party == party && fault.until > Instant::now()) else {
            return Ok(self.answer(party, request).await);
        };
        let page = |status| {
            let mut answer = Response::new(Full::new(Bytes::from("<p>not now</p>".repeat(8_192))));
            *answer.status_mut() = status;
            answer
        };
        match fault.kind {
            Kind::Busy => Ok(page(StatusCode::SERVICE_UNAVAILABLE)),
            Kind::Page => Ok(page(StatusCode::OK)),
            Kind::Limit => {
                let mut answer = page(StatusCode::TOO_MANY_REQUESTS);
                answer
                    .headers_mut()
                    .insert(RETRY_AFTER, HeaderValue::from_static("1"));
                Ok(answer)
            }
            Kind::Close => Err(NoAnswer),
            Kind::Silent => {
                tokio::time::sleep_until(fault.until.into()).await;
                Err(NoAnswer)
            }
            Kind::Slow => {
                tokio::time::sleep(Duration::from_secs(2)).await;
                Ok(self.answer(party, request).await)
            }
        }
    }

    async fn answer(&self, party: Party, request: Request<Incoming>) -> Answer {
        if party == Party::Control {
            return self.control(&request);
        }
        let (since, delay) = {
            let asked = self.asked();
            (asked.since, asked.delay)
        };
        let start_ms = since.elapsed().as_secs_f64() * 1e3;
        let (endpoint, answer) = match party {
            Party::Identity => self.identity(&request),
            Party::Mcp => self.mcp(&request),
            Party::Authorization | Party::Control => self.authorization(request).await,
        };
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let mut asked = self.asked();
        // A request that began before a reset belongs to the earlier measurement.
        if asked.since == since {
            asked.visits.push(Visit {
                endpoint,
                start_ms,
                end_ms: since.elapsed().as_secs_f64() * 1e3,
            });
            asked.refused += u64::from(endpoint != "challenge" && !answer.status().is_success());
        }
        answer
    }

    fn control(&self, request: &Request<Incoming>) -> Answer {
        let mut asked = self.asked();
        match request.uri().path() {
            "/counters" => json_answer(StatusCode::OK, &asked.counters()),
            "/reset" => {
                let delay = query(request, "delay_ms")
                    .and_then(|value| value.parse().ok())
                    .unwrap_or(0);
                *asked = Asked {
                    since: Instant::now(),
                    delay: Duration::from_millis(delay),
                    refused: 0,
                    visits: Vec::new(),
                };
                json_answer(StatusCode::OK, &json!({ "delay_ms": delay }))
            }
            "/fault" => match fault_of(request) {
                Some(fault) => {
                    *self.fault() = Some(fault);
                    json_answer(StatusCode::OK, &json!({}))
                }
                None => not_found(),
            },
            _ => not_found(),
        }
    }

    /// The identity endpoint of a CI job: a JWT for whatever audience the job names.
    fn identity(&self, request: &Request<Incoming>) -> (&'static str, Answer) {
        let permitted = bearer(request) == Some(REQUEST_TOKEN);
        let (true, Some(audience)) = (permitted, query(request, "audience")) else {
            return (
                "identity",
                json_answer(
                    StatusCode::FORBIDDEN,
                    &json!({ "message": "no request token or no audience" }),
                ),
            );
        };
        let now = unix_now();
        let claims = json!({
            "iss": self.identity, "sub": SUBJECT, "aud": audience, "iat": now, "nbf": now, "exp": now + 600, "jti": random_id(),
            "repository": "example/bench", "ref": "refs/heads/main",
        });
        let signed = signing_input("HS256", &claims);
        let signature = BASE64.encode(hmac::sign(&self.identity_key, signed.as_bytes()));
        (
            "identity",
            json_answer(
                StatusCode::OK,
                &json!({ "value": format!("{signed}.{signature}") }),
            ),
        )
    }

    /// MCP servers: their metadata, and a challenge for everything else.
    fn mcp(&self, request: &Request<Incoming>) -> (&'static str, Answer) {
        let path = request.uri().path();
        if let Some(resource) = path
            .strip_prefix(RESOURCE_METADATA)
            .filter(|resource| resource.starts_with('/'))
        {
            let document = json!({
                "resource": format!("{}{resource}", self.mcp),
                "authorization_servers": [format!("{}{}", self.issuer, tenant(resource))],
                "scopes_supported": ["bench:read", "bench:write"],
                "bearer_methods_supported": ["header"],
            });
            return ("resource_metadata", json_answer(StatusCode::OK, &document));
        }
        if path.starts_with("/.well-known/") {
            return ("other", not_found());
        }
        if bearer(request).is_some() {
            return ("mcp", json_answer(StatusCode::OK, &json!({})));
        }
        let mut answer = json_answer(
            StatusCode::UNAUTHORIZED,
            &json!({ "error": "invalid_token" }),
        );
        let challenge = format!(
            r#"Bearer resource_metadata="{}{RESOURCE_METADATA}{path}", scope="bench:read""#,
            self.mcp
        );
        if let Ok(value) = HeaderValue::try_from(challenge) {
            answer.headers_mut().insert(WWW_AUTHENTICATE, value);
        }
        ("challenge", answer)
    }

    async fn authorization(&self, request: Request<Incoming>) -> (&'static str, Answer) {
        let path = request.uri().path().to_owned();
        if let Some(tenant) = path.strip_prefix(METADATA) {
            return ("server_metadata", self.metadata(tenant));
        }
        let Some(tenant) = path.strip_suffix("/token") else {
            return ("other", not_found());
        };
        let answer = match self.mint(tenant, request).await {
            Ok(body) => json_answer(StatusCode::OK, &body),
            Err((error, why)) => json_answer(
                StatusCode::BAD_REQUEST,
                &json!({ "error": error, "error_description": why }),
            ),
        };
        ("token", answer)
    }

    fn metadata(&self, tenant: &str) -> Answer {
        let issuer = format!("{}{tenant}", self.issuer);
        let document = json!({
            "issuer": issuer,
            "token_endpoint": format!("{issuer}/token"),
            "jwks_uri": format!("{issuer}/jwks"),
            "grant_types_supported": [JWT_BEARER],
            "response_types_supported": [],
            "token_endpoint_auth_methods_supported": ["none"],
            "scopes_supported": ["bench:read", "bench:write"],
        });
        json_answer(StatusCode::OK, &document)
    }

    /// RFC 7523 2.1 with RFC 8707: the identity endpoint must have signed the assertion for this issuer, and it must not be expired.
    async fn mint(
        &self,
        tenant: &str,
        request: Request<Incoming>,
    ) -> std::result::Result<Value, (&'static str, &'static str)> {
        let body = Limited::new(request.into_body(), 64 * 1024)
            .collect()
            .await
            .map_err(|_| ("invalid_request", "no body"))?;
        let form: BTreeMap<String, String> = parse_form(&body.to_bytes()).into_owned().collect();
        let field = |name: &str| form.get(name).map(String::as_str);
        if field("grant_type") != Some(JWT_BEARER) {
            return Err((
                "unsupported_grant_type",
                "only the jwt-bearer grant is served",
            ));
        }
        let issuer = format!("{}{tenant}", self.issuer);
        self.check_assertion(field("assertion").unwrap_or_default(), &issuer)?;
        let resource = field("resource")
            .filter(|resource| resource.starts_with(&self.mcp))
            .ok_or(("invalid_target", "no such resource"))?;
        let scope = field("scope").unwrap_or("bench:read");
        Ok(json!({
            "access_token": self.access_token(&issuer, resource, scope).ok_or(("server_error", "cannot sign"))?,
            "token_type": "Bearer", "expires_in": self.life, "scope": scope,
        }))
    }

    fn check_assertion(
        &self,
        assertion: &str,
        issuer: &str,
    ) -> std::result::Result<(), (&'static str, &'static str)> {
        let (signed, signature) = assertion
            .rsplit_once('.')
            .ok_or(("invalid_grant", "the assertion is no JWT"))?;
        let signature = BASE64
            .decode(signature)
            .map_err(|_| ("invalid_grant", "the signature is not base64url"))?;
        hmac::verify(&self.identity_key, signed.as_bytes(), &signature)
            .map_err(|_| ("invalid_grant", "the signature is wrong"))?;
        let claims = signed
            .split_once('.')
            .and_then(|(_, claims)| BASE64.decode(claims).ok());
        let claims: Value = claims
            .and_then(|claims| serde_json::from_slice(&claims).ok())
            .ok_or(("invalid_grant", "no claims"))?;
        if claims["aud"] != issuer {
            return Err(("invalid_grant", "the assertion is for somebody else"));
        }
        if claims["exp"].as_u64().is_none_or(|exp| exp <= unix_now()) {
            return Err(("invalid_grant", "the assertion has expired"));
        }
        Ok(())
    }

    /// An RFC 9068 access token for one resource, padded to a usual size.
    fn access_token(&self, issuer: &str, resource: &str, scope: &str) -> Option<String> {
        let now = unix_now();
        let mut claims = json!({
            "iss": issuer, "sub": SUBJECT, "aud": resource, "client_id": SUBJECT, "scope": scope,
            "iat": now, "exp": now + self.life, "jti": random_id(),
        });
        // Base64 makes four characters of three bytes; the signature and its dot take 87 more.
        let missing =
            TOKEN_LENGTH.saturating_sub(signing_input("ES256", &claims).len() + 87 + 12) * 3 / 4;
        claims["pad"] = json!("x".repeat(missing));
        let signed = signing_input("ES256", &claims);
        let signature = self
            .access_key
            .sign(&SystemRandom::new(), signed.as_bytes())
            .ok()?;
        Some(format!("{signed}.{}", BASE64.encode(signature)))
    }
}

impl Asked {
    fn counters(&self) -> Value {
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        for visit in &self.visits {
            *counts.entry(visit.endpoint).or_default() += 1;
        }
        let mut visits: Vec<&Visit> = self.visits.iter().collect();
        visits.sort_by(|a, b| a.start_ms.total_cmp(&b.start_ms));
        let log: Vec<Value> = visits
            .iter()
            .map(|visit| json!({ "endpoint": visit.endpoint, "start_ms": visit.start_ms.round(), "end_ms": visit.end_ms.round() }))
            .collect();
        json!({
            "counts": counts,
            "exchanges": counts.get("token").copied().unwrap_or(0),
            "refused": self.refused,
            "round_trips": self.round_trips(),
            "sequence": self.sequence(&visits),
            "log": log,
        })
    }

    /// The longest chain of requests in which each began after the answer to the one before. With a long delay, that is the
    /// number of network round trips on the critical path.
    fn round_trips(&self) -> u64 {
        let mut visits: Vec<&Visit> = self.visits.iter().collect();
        visits.sort_by(|a, b| a.end_ms.total_cmp(&b.end_ms));
        let (mut length, mut free_from) = (0, f64::NEG_INFINITY);
        for visit in visits {
            if visit.start_ms >= free_from {
                length += 1;
                free_from = visit.end_ms;
            }
        }
        length
    }

    /// The requests as text: `+` between concurrent requests, `>` between requests that waited for each other.
    fn sequence(&self, by_start: &[&Visit]) -> String {
        let mut text = String::new();
        let mut group_ends = f64::NEG_INFINITY;
        for visit in by_start {
            let joint = if text.is_empty() {
                ""
            } else if visit.start_ms < group_ends {
                " + "
            } else {
                " > "
            };
            if joint != " + " {
                group_ends = visit.end_ms;
            }
            text.push_str(joint);
            text.push_str(visit.endpoint);
        }
        text
    }
}

/// The fault that a request to the control port describes.
fn fault_of(request: &Request<Incoming>) -> Option<Fault> {
    let party = match query(request, "at")?.as_str() {
        "identity" => Party::Identity,
        "mcp" => Party::Mcp,
        "authorization" => Party::Authorization,
        _ => return None,
    };
    let kind = match query(request, "kind")?.as_str() {
        "busy" => Kind::Busy,
        "limit" => Kind::Limit,
        "page" => Kind::Page,
        "close" => Kind::Close,
        "silent" => Kind::Silent,
        "slow" => Kind::Slow,
        _ => return None,
    };
    let span = Duration::from_millis(query(request, "for_ms")?.parse().ok()?);
    Some(Fault { party, kind, until: Instant::now() + span })
}

/// `/t3` for `/t3/NAME`, nothing for every other path.
fn tenant(resource: &str) -> &str {
    let end = resource[1..].find('/').map_or(resource.len(), |at| at + 1);
    let first = &resource[..end];
    let number = first.strip_prefix("/t").unwrap_or_default();
    if !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) {
        first
    } else {
        ""
    }
}

fn bearer(request: &Request<Incoming>) -> Option<&str> {
    request
        .headers()
        .get(AUTHORIZATION)?
        .to_str()
        .ok()?
        .strip_prefix("Bearer ")
}

fn query(request: &Request<Incoming>, name: &str) -> Option<String> {
    let url = Url::parse("http://localhost")
        .ok()?
        .join(request.uri().path_and_query()?.as_str())
        .ok()?;
    url.query_pairs()
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.into_owned())
}

fn signing_input(algorithm: &str, claims: &Value) -> String {
    let header = json!({ "alg": algorithm, "typ": "JWT" });
    format!(
        "{}.{}",
        BASE64.encode(header.to_string()),
        BASE64.encode(claims.to_string())
    )
}

fn random_id() -> String {
    let mut bytes = [0; 16];
    // The ids only have to be unique. A failing generator would cause repeated ids, not a wrong measurement.
    let _ = rand::fill(&mut bytes);
    BASE64.encode(bytes)
}

fn unix_now() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

fn json_answer(status: StatusCode, body: &Value) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body.to_string())));
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

fn not_found() -> Answer {
    json_answer(StatusCode::NOT_FOUND, &json!({ "error": "not_found" }))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Asked, Visit, tenant};

    fn asked(visits: &[(&'static str, f64, f64)]) -> Asked {
        let visits = visits
            .iter()
            .map(|&(endpoint, start_ms, end_ms)| Visit {
                endpoint,
                start_ms,
                end_ms,
            })
            .collect();
        Asked {
            since: Instant::now(),
            delay: Duration::ZERO,
            refused: 0,
            visits,
        }
    }

    #[test]
    fn requests_that_overlap_are_one_round_trip() {
        let asked = asked(&[
            ("identity", 0.0, 100.0),
            ("server_metadata", 1.0, 101.0),
            ("token", 102.0, 202.0),
        ]);
        assert_eq!(asked.round_trips(), 2);
        let counters = asked.counters();
        assert_eq!(counters["sequence"], "identity + server_metadata > token");
    }

    #[test]
    fn a_chain_beside_a_long_request_counts_each_of_its_links() {
        let asked = asked(&[
            ("identity", 0.0, 300.0),
            ("resource_metadata", 0.0, 100.0),
            ("server_metadata", 101.0, 201.0),
            ("token", 301.0, 401.0),
        ]);
        assert_eq!(asked.round_trips(), 3);
    }

    #[test]
    fn only_a_numbered_first_segment_is_a_tenant() {
        assert_eq!(tenant("/t3/m1"), "/t3");
        assert_eq!(tenant("/mcp/bench"), "");
        assert_eq!(tenant("/team/x"), "");
        assert_eq!(tenant("/t/x"), "");
    }
}
