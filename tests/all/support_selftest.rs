//! Tests of the fakes: they refuse everything that a real platform, authorization server or MCP server refuses.
//!
//! A simple HTTP client plays safeconduct: first correctly, then with one mistake at a time.

use std::time::Duration;

use serde_json::{Value, json};
use support::authorization_server::{FakeAs, JWT_BEARER, MetadataFault, Published, TokenFault};
use support::fault::Fault;
use support::keys;
use support::leak;
use support::mcp_server::{FakeMcp, INSERTED, Signposts};
use support::platform::{FakePlatform, LIFE, PlatformFault};
use support::safeconduct::Safeconduct;
use support::sigv4;
use support::tls::TestCa;
use support::wait::until;
use support::workload_api::FakeWorkloadApi;

use crate::LIMIT;

const SCOPES: [&str; 2] = ["demo:read", "demo:write"];

struct World {
    platform: FakePlatform,
    authorization_server: FakeAs,
    mcp: FakeMcp,
    http: reqwest::Client,
}

impl World {
    async fn new() -> Self {
        let platform = FakePlatform::start().await;
        let authorization_server = FakeAs::start(platform.trust()).await;
        let mcp = FakeMcp::start(&authorization_server, &SCOPES).await;
        Self { platform, authorization_server, mcp, http: client(None) }
    }

    fn assertion(&self, overrides: &Value) -> String {
        self.platform.mint_with(&self.authorization_server.issuer(), LIFE, overrides)
    }

    /// The right token request with some parameters replaced; an empty one is left out.
    async fn request(&self, changes: &[(&str, &str)]) -> (u16, Value) {
        let (assertion, resource) = (self.assertion(&Value::Null), self.mcp.url());
        let mut form = vec![
            ("grant_type", JWT_BEARER),
            ("assertion", &assertion),
            ("resource", &resource),
            ("scope", "demo:read"),
        ];
        form.retain(|(name, _)| !changes.iter().any(|(changed, _)| changed == name));
        form.extend(changes.iter().filter(|(_, value)| !value.is_empty()));
        self.post(&self.authorization_server.token_endpoint(), &form).await
    }

    async fn post(&self, url: &str, form: &[(&str, &str)]) -> (u16, Value) {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let request = self.http.post(url).header("content-type", "application/x-www-form-urlencoded");
        let answer = request.body(body).send().await.expect("it answers");
        let status = answer.status().as_u16();
        (status, serde_json::from_str(&answer.text().await.expect("it has a body")).unwrap_or_default())
    }

    async fn refused(&self, changes: &[(&str, &str)]) -> String {
        let (status, body) = self.request(changes).await;
        assert_eq!(status, 400, "{body}");
        format!(
            "{}: {}",
            body["error"].as_str().unwrap_or_default(),
            body["error_description"].as_str().unwrap_or_default()
        )
    }

    async fn refused_assertion(&self, overrides: Value) -> String {
        self.refused(&[("assertion", &self.assertion(&overrides))]).await
    }

    async fn ping(&self, token: Option<&str>) -> reqwest::Response {
        let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
            "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "selftest", "version": "0"}}});
        let request = self.http.post(self.mcp.url()).header("accept", "application/json, text/event-stream");
        let request = request.header("content-type", "application/json").body(ping.to_string());
        let request = match token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        request.send().await.expect("it answers")
    }
}

fn client(ca: Option<&TestCa>) -> reqwest::Client {
    let roots = ca.map(|ca| reqwest::Certificate::from_pem(ca.pem().as_bytes()).expect("a certificate"));
    let builder = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
    builder.tls_certs_only(roots).timeout(Duration::from_secs(10)).build().expect("a client")
}

#[tokio::test]
async fn the_whole_path_works_for_a_correct_client() {
    let world = World::new().await;
    let env = world.platform.env();
    let mut url = url::Url::parse(&env[1].1).expect("a URL");
    url.query_pairs_mut().append_pair("audience", &world.authorization_server.issuer());
    let answer = world.http.get(url).bearer_auth(&env[2].1).send().await.expect("it answers");
    let answer: Value = serde_json::from_str(&answer.text().await.expect("text")).expect("JSON");
    let assertion = answer["value"].as_str().expect("a JWT");

    let (status, body) = world.request(&[("assertion", assertion)]).await;
    assert_eq!((status, body["token_type"].as_str(), body["expires_in"].as_u64()), (200, Some("Bearer"), Some(600)));
    let token = body["access_token"].as_str().expect("a token");
    assert_eq!(keys::peek(token)["aud"], json!(world.mcp.url()));
    assert_eq!(world.ping(Some(token)).await.status(), 200);

    assert_eq!(world.platform.audiences(), [world.authorization_server.issuer()]);
    let received = world.authorization_server.last_request();
    assert_eq!((received.outcome.as_str(), received.params["resource"].as_str()), ("ok", world.mcp.url().as_str()));
    assert_eq!(received.params["assertion"], keys::digest(assertion));
    assert_eq!((world.mcp.calls(), world.mcp.probes(), world.mcp.refusals()), (1, 0, 0));
}

#[tokio::test]
async fn the_platform_refuses_what_github_would() {
    let world = World::new().await;
    let env = world.platform.env();
    let (url, token) = (&env[1].1, &env[2].1);
    let good = format!("{url}&audience=a");
    let without_version = good.replace("api-version=2.0&", "");
    let cases = [
        (&good, "nonsense", 401),
        (url, token, 400),
        (&format!("{good}&audience=b"), token, 400),
        (&without_version, token, 400),
        (&good, token, 200),
    ];
    for (url, token, status) in cases {
        let answer = world.http.get(url).bearer_auth(token).send().await.expect("it answers");
        assert_eq!(answer.status(), status, "{url}");
    }
    world.platform.script([PlatformFault::Pending403, Fault::Status(503).into()]);
    for status in [403, 503, 200] {
        assert_eq!(world.http.get(&good).bearer_auth(token).send().await.expect("it answers").status(), status);
    }
    assert_eq!(world.platform.requests(), 8);
}

#[tokio::test]
async fn a_bad_assertion_is_an_invalid_grant() {
    let world = World::new().await;
    let issuer = world.authorization_server.issuer();
    let token_endpoint = world.authorization_server.token_endpoint();
    let past = keys::now() as u64 - 10;
    let future = keys::now() as u64 + 60;
    let cases = [
        (json!({"aud": token_endpoint}), "aud is not exactly this issuer"),
        (json!({"aud": format!("{issuer}/")}), "aud is not exactly this issuer"),
        (json!({"aud": [issuer]}), "aud is missing or no string"),
        (json!({"aud": null}), "aud is missing or no string"),
        (json!({"exp": past}), "exp has passed"),
        (json!({"exp": null}), "exp is missing or no number"),
        (json!({"nbf": future}), "iat or nbf is ahead"),
        (json!({"jti": null}), "jti is missing or no string"),
        (json!({"sub": null}), "sub is missing or no string"),
        (json!({"iss": "https://token.actions.example"}), "iss is not trusted here"),
    ];
    for (overrides, why) in cases {
        assert_eq!(world.refused_assertion(overrides).await, format!("invalid_grant: {why}"));
    }
    assert!(world.refused(&[("assertion", "not-a-jwt")]).await.starts_with("invalid_grant: assertion"));
}

#[tokio::test]
async fn a_foreign_signature_is_an_invalid_grant() {
    let world = World::new().await;
    let stranger = keys::Keys::generate("platform-key-1");
    let forged = stranger.sign("JWT", &keys::peek(&world.assertion(&Value::Null)));
    assert!(world.refused(&[("assertion", &forged)]).await.starts_with("invalid_grant: signature"));

    let good = world.assertion(&Value::Null);
    let (head, signature) = good.rsplit_once('.').expect("a JWT");
    let unsigned = format!("{head}.");
    assert!(world.refused(&[("assertion", &unsigned)]).await.starts_with("invalid_grant"));
    let swapped: String = signature.chars().rev().collect();
    assert!(world.refused(&[("assertion", &format!("{head}.{swapped}"))]).await.starts_with("invalid_grant"));
}

#[tokio::test]
async fn an_assertion_is_good_once() {
    let world = World::new().await;
    let assertion = world.assertion(&Value::Null);
    assert_eq!(world.request(&[("assertion", &assertion)]).await.0, 200);
    assert_eq!(world.refused(&[("assertion", &assertion)]).await, "invalid_grant: jti was used before");
}

#[tokio::test]
async fn the_rest_of_the_request_is_judged_too() {
    let world = World::new().await;
    let url = world.mcp.url();
    assert!(world.refused(&[("resource", &format!("{url}/"))]).await.starts_with("invalid_target"));
    assert!(world.refused(&[("resource", "")]).await.starts_with("invalid_target"));
    assert!(world.refused(&[("scope", "demo:read demo:admin")]).await.starts_with("invalid_scope"));
    assert!(world.refused(&[("grant_type", "password")]).await.starts_with("unsupported_grant_type"));
    assert!(world.refused(&[("assertion", "")]).await.starts_with("invalid_request"));
    assert_eq!(world.refused(&[("scope", "a"), ("scope", "b")]).await, "invalid_request: scope is there twice");
    let endpoint = world.authorization_server.token_endpoint();
    let as_json = world.http.post(&endpoint).header("content-type", "application/json").body("{}").send().await;
    assert_eq!(as_json.expect("it answers").status(), 400);
    assert_eq!(world.http.get(&endpoint).send().await.expect("it answers").status(), 405);
    world.authorization_server.set_resource_optional(true);
    assert_eq!(world.request(&[("resource", "")]).await.0, 200);
}

#[tokio::test]
async fn scripted_token_answers_come_in_order_and_then_the_right_one() {
    let world = World::new().await;
    world.authorization_server.script_token([
        TokenFault::oauth("invalid_client"),
        Fault::StatusWithRetryAfter(429, 7).into(),
        TokenFault::NoExpiresIn,
        TokenFault::ExpiresIn(json!("soon")),
        TokenFault::TokenType("DPoP".to_owned()),
        TokenFault::OpaqueToken,
        TokenFault::Audience(json!(["a", "b"])),
    ]);
    assert_eq!(world.request(&[]).await.0, 401);
    assert_eq!(world.request(&[]).await.0, 429);
    assert_eq!(world.request(&[]).await.1["expires_in"], Value::Null);
    assert_eq!(world.request(&[]).await.1["expires_in"], "soon");
    assert_eq!(world.request(&[]).await.1["token_type"], "DPoP");
    assert!(world.request(&[]).await.1["access_token"].as_str().is_some_and(|token| token.starts_with("opaque-")));
    let many = world.request(&[]).await.1;
    assert_eq!(keys::peek(many["access_token"].as_str().expect("a token"))["aud"], json!(["a", "b"]));
    let first = world.request(&[]).await.1;
    world.authorization_server.always_token(TokenFault::SameToken);
    assert_eq!(world.request(&[]).await.1["access_token"], first["access_token"]);
    assert_eq!(world.request(&[]).await.1["access_token"], first["access_token"]);
    world.authorization_server.heal();
    assert_ne!(world.request(&[]).await.1["access_token"], first["access_token"]);
    assert_eq!(world.authorization_server.token_requests(), 11);
}

#[tokio::test]
async fn an_assertion_is_spent_although_its_answer_was_cut_off() {
    let world = World::new().await;
    world.authorization_server.script_token([Fault::WrongContentType, Fault::Status(503)]);
    let assertion = world.assertion(&Value::Null);
    assert_eq!(world.request(&[("assertion", &assertion)]).await.0, 200);
    assert_eq!(world.request(&[("assertion", &assertion)]).await.0, 503);
    assert_eq!(world.refused(&[("assertion", &assertion)]).await, "invalid_grant: jti was used before");
}

#[tokio::test]
async fn metadata_lies_where_it_was_published() {
    let world = World::new().await;
    let server = &world.authorization_server;
    server.set_issuer_path("/tenant1");
    let places = [
        "/.well-known/oauth-authorization-server/tenant1",
        "/.well-known/openid-configuration/tenant1",
        "/tenant1/.well-known/openid-configuration",
        "/.well-known/oauth-authorization-server",
    ];
    let statuses = async || {
        let mut statuses = Vec::new();
        for place in places {
            let answer = world.http.get(format!("{}{place}", server.base())).send().await;
            statuses.push(answer.expect("it answers").status().as_u16());
        }
        statuses
    };
    assert_eq!(statuses().await, [200, 404, 404, 404]);
    server.publish(Published { oauth: false, openid_inserted: true, openid_appended: true });
    assert_eq!(statuses().await, [404, 200, 200, 404]);
    server.script_metadata([MetadataFault::WrongIssuer("https://evil.example".to_owned())]);
    let answer = world.http.get(format!("{}{}", server.base(), places[1])).send().await.expect("it answers");
    assert!(answer.text().await.expect("text").contains("https://evil.example"));
    assert_eq!(world.request(&[]).await.0, 200, "the assertion's aud is the issuer with its path");
}

#[tokio::test]
async fn the_mcp_server_wants_a_token_of_its_own_that_has_not_expired() {
    let world = World::new().await;
    let mint =
        |audience: Value, life| world.authorization_server.mint(audience, "demo:read", Duration::from_millis(life));
    let url = world.mcp.url();
    let challenge =
        |answer: &reqwest::Response| answer.headers()["www-authenticate"].to_str().expect("text").to_owned();

    let answer = world.ping(None).await;
    let metadata = format!("Bearer resource_metadata=\"{}{INSERTED}\"", world.mcp.base());
    assert_eq!((answer.status().as_u16(), challenge(&answer)), (401, metadata.clone()));
    let answer = world.ping(Some(&mint(json!(url), 0))).await;
    assert_eq!((answer.status().as_u16(), challenge(&answer)), (401, format!("{metadata}, error=\"invalid_token\"")));
    for audience in [json!([url]), json!("https://other.example/mcp"), Value::Null] {
        assert_eq!(world.ping(Some(&mint(audience, 60_000))).await.status(), 401);
    }
    let stranger = FakeAs::start(world.platform.trust()).await;
    assert_eq!(world.ping(Some(&stranger.mint(json!(url), "demo:read", LIFE))).await.status(), 401);

    let good = mint(json!(url), 60_000);
    assert_eq!(world.ping(Some(&good)).await.status(), 200);
    world.mcp.require_scope(Some("demo:write"));
    let answer = world.ping(Some(&good)).await;
    assert_eq!(answer.status(), 403);
    assert!(challenge(&answer).contains("error=\"insufficient_scope\", scope=\"demo:write\""));
    world.mcp.require_scope(None);
    assert_eq!((world.mcp.probes(), world.mcp.calls(), world.mcp.refusals()), (1, 1, 6));
    let short = mint(json!(url), 1000);
    until(LIMIT, "its life is over", async || world.ping(Some(&short)).await.status() == 401).await;
}

#[tokio::test]
async fn resource_metadata_lies_where_the_signposts_say() {
    let world = World::new().await;
    let get = async |path: &str| {
        let answer = world.http.get(format!("{}{path}", world.mcp.base())).send().await.expect("it answers");
        (answer.status().as_u16(), serde_json::from_str::<Value>(&answer.text().await.expect("text")).expect("JSON"))
    };
    let (status, document) = get(INSERTED).await;
    assert_eq!((status, &document["resource"]), (200, &json!(world.mcp.url())));
    assert_eq!(document["authorization_servers"], json!([world.authorization_server.issuer()]));
    world.mcp.set_signposts(Signposts { header: Some("/elsewhere".to_owned()), inserted: false, root: true });
    world.mcp.set_metadata(json!({"resource": "https://x.example", "scopes_supported": null}));
    assert_eq!(get(INSERTED).await.0, 404);
    assert_eq!(get("/elsewhere").await.1["resource"], "https://x.example");
    assert_eq!(get("/.well-known/oauth-protected-resource").await.1["scopes_supported"], Value::Null);
    world.mcp.set_challenges(Some(&["Basic realm=\"x\"", "Bearer error=\"invalid_token\""]));
    assert_eq!(world.ping(None).await.headers().get_all("www-authenticate").iter().count(), 2);
}

#[tokio::test]
async fn wire_faults_are_what_they_are_called() {
    let world = World::new().await;
    let url = format!("{}{INSERTED}", world.mcp.base());
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).redirect(reqwest::redirect::Policy::none());
    let client = client.timeout(Duration::from_millis(300)).build().expect("a client");
    let body = async |fault: Fault| {
        world.mcp.script_metadata([fault]);
        let answer = client.get(&url).send().await?;
        answer.bytes().await
    };
    for fault in [Fault::Stall, Fault::StallBody] {
        let begun = keys::now();
        assert!(body(fault).await.expect_err("nothing whole comes").is_timeout());
        assert!(keys::now() - begun >= 0.29);
    }
    for fault in [Fault::HalfBody, Fault::Down] {
        assert!(!body(fault).await.expect_err("nothing whole comes").is_timeout());
    }
    assert!(body(Fault::NonUtf8).await.is_ok_and(|body| std::str::from_utf8(&body).is_err()));
    assert!(body(Fault::NotJson).await.is_ok_and(|body| serde_json::from_slice::<Value>(&body).is_err()));
    assert!(body(Fault::HugeBody).await.map_or(true, |body| body.len() > 1 << 20));
    world.mcp.set_down(true);
    assert!(client.get(&url).send().await.is_err());
    world.mcp.heal();
    assert_eq!(client.get(&url).send().await.expect("it is up again").status(), 200);
}

#[tokio::test]
async fn only_the_good_certificate_is_accepted() {
    let ca = TestCa::new();
    let platform = FakePlatform::start().await;
    let path = "/.well-known/oauth-authorization-server";
    for (tls, good) in [(ca.good(), true), (ca.wrong_host(), false), (ca.expired(), false)] {
        let server = FakeAs::start_tls(platform.trust(), tls).await;
        assert!(server.issuer().starts_with("https://localhost:"));
        let answer = client(Some(&ca)).get(format!("{}{path}", server.base())).send().await;
        assert_eq!(answer.is_ok_and(|answer| answer.status() == 200), good);
        let stranger = client(Some(&TestCa::new())).get(format!("{}{path}", server.base())).send().await;
        assert!(stranger.is_err(), "an unknown CA");
    }
}

#[tokio::test]
async fn a_leak_is_found_in_every_shape() {
    let platform = FakePlatform::start().await;
    let token = platform.mint("https://as.example", LIFE);
    let tail = &token[token.len() - 32..];
    use base64::Engine;
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let shapes = [
        token.clone(),
        tail.to_owned(),
        encode(&token),
        encode(&format!("x:{token}")),
        encode(&format!("Bearer {token}\n")),
    ];
    for shape in shapes {
        let text = format!("before {shape} after");
        assert!(std::panic::catch_unwind(|| leak::check("the log", &text)).is_err(), "{}", shape.len());
    }
    leak::check("the log", &format!("{} {}", keys::digest(&token), platform.issuer()));
}

#[tokio::test]
#[should_panic(expected = "stderr of safeconduct whoami contains a token")]
async fn a_token_on_standard_error_fails_the_run() {
    let token = FakePlatform::start().await.mint("https://as.example", LIFE);
    shell(&token, "echo $SECRET >&2").run(&["whoami"]).await;
}

#[tokio::test]
#[should_panic(expected = "stdout of safeconduct whoami contains a token")]
async fn a_token_on_standard_output_fails_the_run_of_most_commands() {
    let token = FakePlatform::start().await.mint("https://as.example", LIFE);
    let world = shell(&token, "echo $SECRET");
    assert_eq!(world.run(&["token", "demo"]).await.stdout.trim(), token, "this one is to print it");
    world.run(&["whoami"]).await;
}

#[tokio::test]
#[should_panic(expected = "audit.jsonl contains a token")]
async fn a_token_in_a_file_left_behind_fails_the_test() {
    let token = FakePlatform::start().await.mint("https://as.example", LIFE);
    shell(&token, "echo $SECRET > $HOME/audit.jsonl").run(&["token", "demo"]).await.expect_code(0);
}

#[tokio::test]
#[should_panic(expected = "took longer than")]
async fn a_run_without_end_fails_the_test() {
    shell("sixteen characters and more", "sleep 60").limit(Duration::from_millis(200)).run(&["whoami"]).await;
}

/// A shell instead of the binary: `whoami` and `token` are scripts in its working directory. Only the environment has the secret.
fn shell(secret: &str, script: &str) -> Safeconduct {
    let world = Safeconduct::new("/bin/sh").env("SECRET", secret);
    for command in ["whoami", "token"] {
        world.write(&format!("home/{command}"), script);
    }
    world
}

/// `grpc-status` of a well-formed request for a JWT-SVID with these further fields, from the head or from the trailers.
#[expect(clippy::disallowed_methods, reason = "no app, no tracker: the connection ends with the test")]
async fn workload_api(agent: &FakeWorkloadApi, fields: &[(&str, &str)]) -> String {
    use http_body_util::BodyExt;
    use hyper_util::rt::{TokioExecutor, TokioIo};

    let stream = tokio::net::UnixStream::connect(agent.socket()).await.expect("the agent listens");
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.expect("it speaks HTTP/2");
    tokio::spawn(connection);
    // Field 1, a string of 18 bytes, in a message of 20 that is not compressed.
    let message = [&[0, 0, 0, 0, 20, 0x0a, 18][..], b"https://as.example"].concat();
    let mut request = hyper::Request::post("http://localhost/SpiffeWorkloadAPI/FetchJWTSVID");
    for (name, value) in [("content-type", "application/grpc"), ("te", "trailers")].iter().chain(fields) {
        request = request.header(*name, *value);
    }
    let request = request.body(http_body_util::Full::new(bytes::Bytes::from(message))).expect("a request");
    let (head, body) = sender.send_request(request).await.expect("it answers").into_parts();
    let trailers = body.collect().await.expect("a whole answer").trailers().cloned().unwrap_or_default();
    let status = head.headers.get("grpc-status").or_else(|| trailers.get("grpc-status"));
    status.and_then(|status| status.to_str().ok()).unwrap_or_default().to_owned()
}

#[tokio::test]
async fn the_workload_api_wants_its_metadata_and_a_registered_workload() {
    let agent = FakeWorkloadApi::start(&["spiffe://example.org/agent"]);
    assert_eq!(workload_api(&agent, &[]).await, "3", "without the metadata that no browser sends");
    assert_eq!(workload_api(&agent, &[("workload.spiffe.io", "false")]).await, "3");
    assert_eq!(workload_api(&agent, &[("workload.spiffe.io", "true")]).await, "0");
    assert_eq!(agent.audiences(), [["https://as.example"]], "what is refused does not count");
    let nobody = FakeWorkloadApi::start(&[]);
    assert_eq!(workload_api(&nobody, &[("workload.spiffe.io", "true")]).await, "7");
}

/// AWS's published example. It finds mistakes that the fake and the product share.
#[test]
fn the_published_key_of_the_description_is_derived() {
    let mut secret = b"AWS4wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_vec();
    for step in ["20150830", "us-east-1", "iam", "aws4_request"] {
        secret = sigv4::mac(&secret, step.as_bytes());
    }
    assert_eq!(sigv4::hex(&secret), "c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9");
}

#[test]
fn paths_are_encoded_twice_and_queries_sorted() {
    assert_eq!(sigv4::path("/a%20b/c"), "/a%2520b/c");
    assert_eq!(sigv4::query(Some("b=2&a=1&a=0")), "a=0&a=1&b=2");
}
