//! Bound tokens, with oidc-provider: bound to a key (DPoP, RFC 9449) or to a certificate (mutual
//! TLS, RFC 8705).

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::daemon::Daemon;
use crate::keys::{Authority, Certified, Key};
use crate::parties::McpServer;
use crate::process::{NODE, ROOT};
use crate::scene::{REFUSED, Scene, is_refusal, refused_once};
use crate::servers::Software::{Authlib, OidcProvider};

const DENIED: i32 = 77;

// DPoP: oidc-provider requires its nonce in every proof; oauth4webapi acts as the MCP server.

#[test]
fn a_key_bound_token_goes_with_a_proof_that_others_accept() {
    let (scene, mut daemon) = bound();
    let [first, second] = [(); 2].map(|()| daemon.headers("POST", &scene.resource));
    let claims = judged(&scene, "POST", &first)["claims"].clone();
    assert_eq!(claims["client_id"], "bound");
    assert!(claims["cnf"]["jkt"].is_string(), "the token names the key: {claims}");
    assert_eq!(judged(&scene, "POST", &second)["claims"], claims, "the same token");
    assert_ne!(first["DPoP"], second["DPoP"], "and a new proof");
    daemon.end();
    assert_eq!(scene.server.token_requests(), ["use_dpop_nonce", "granted"]);
}

#[test]
fn a_proof_for_one_request_is_none_for_another() {
    let (scene, mut daemon) = bound();
    let headers = daemon.headers("GET", &scene.resource);
    let verdict = judged(&scene, "POST", &headers);
    assert!(verdict["refused"].as_str().is_some_and(|why| why.contains("htm")), "{verdict}");
    daemon.end();
}

#[test]
fn a_key_bound_token_is_none_without_its_proof() {
    let (scene, mut daemon) = bound();
    let mut headers = daemon.headers("POST", &scene.resource);
    headers.as_object_mut().expect("headers are an object").remove("DPoP");
    assert!(judged(&scene, "POST", &headers)["refused"].is_string());
    daemon.end();
}

#[test]
fn a_key_bound_token_is_not_handed_out_bare() {
    let (_scene, mut daemon) = bound();
    let outcome = daemon.ask(&["token", "target", "--daemon-only"]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (DENIED, ""), "{}", outcome.stderr);
    daemon.end();
}

#[test]
fn a_refusal_after_the_nonce_is_final() {
    let key = Key::new();
    let settings = vec![("CLIENT_JWKS", key.jwks())];
    let scene = Scene::guarding(OidcProvider, McpServer::bind(), "https://other.example.com/mcp", settings);
    let outcome = scene.safeconduct(&dpop(&scene, &key), None, &["headers", "target", "--no-daemon"]);
    is_refusal(&outcome, "invalid_target");
    assert_eq!(scene.server.token_requests(), ["use_dpop_nonce", "invalid_target"]);
}

/// Authlib does not know proofs: a thief could use its token.
#[test]
fn a_token_that_a_server_did_not_bind_is_refused() {
    let key = Key::new();
    let scene = Scene::new(Authlib, vec![("CLIENT_JWKS", key.jwks())]);
    let keys = dpop(&scene, &key).replace("\"bound\"", "\"machine\"");
    let outcome = scene.safeconduct(&keys, None, &["headers", "target", "--no-daemon"]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (REFUSED, ""), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("not bound to our key"), "{}", outcome.stderr);
    assert_eq!(scene.server.token_requests(), ["granted"]);
}

fn bound() -> (Scene, Daemon) {
    let key = Key::new();
    let scene = Scene::new(OidcProvider, vec![("CLIENT_JWKS", key.jwks())]);
    let daemon = Daemon::start(&scene, &dpop(&scene, &key), None);
    (scene, daemon)
}

fn dpop(scene: &Scene, key: &Key) -> String {
    let file = scene.private_file("client.pem", &key.pem());
    let client = format!("client_id = \"bound\"\nclient_auth = \"private-key-jwt\"\nclient_key_file = \"{file}\"\n");
    format!("{}exchange = \"client-credentials\"\ndpop = true\n{client}", scene.pin())
}

/// Whether oauth4webapi accepts a request with these headers.
fn judged(scene: &Scene, method: &str, headers: &Value) -> Value {
    let request = json!({
        "issuer": scene.server.issuer, "audience": scene.resource,
        "method": method, "url": scene.resource, "headers": headers,
    });
    let mut command = Command::new(Path::new(ROOT).join(NODE));
    command.current_dir(ROOT).arg("tests/others/dpop-resource.mjs").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("node can be started");
    // The input fits into the pipe. The program waits for its end.
    write!(child.stdin.take().expect("stdin is piped"), "{request}").expect("it reads its stdin");
    let output = child.wait_with_output().expect("it ends after one request");
    serde_json::from_slice(&output.stdout).expect("it prints JSON")
}

// Mutual TLS: the provider reads the certificate from the connection.

#[test]
fn a_vouched_certificate_buys_a_token_bound_to_it() {
    let authority = Authority::new();
    let agent = authority.vouches_for("agent.example.com");
    let scene = Scene::over_tls(&authority, Vec::new());
    the_token_is_bound(scene, &agent, "vouched");
}

#[test]
fn a_pinned_certificate_buys_a_token_bound_to_it() {
    let agent = Authority::new().vouches_for("whatever.example.com");
    let scene = Scene::over_tls(&Authority::new(), vec![("CLIENT_CERTIFICATE_JWKS", agent.jwks())]);
    the_token_is_bound(scene, &agent, "pinned");
}

#[test]
fn a_certificate_with_another_name_is_refused() {
    let authority = Authority::new();
    let stranger = authority.vouches_for("stranger.example.com");
    a_certificate_is_refused(&authority, &stranger, "vouched");
}

#[test]
fn a_certificate_that_nobody_vouches_for_is_refused() {
    let impostor = Authority::new().vouches_for("agent.example.com");
    a_certificate_is_refused(&Authority::new(), &impostor, "vouched");
}

#[test]
fn another_certificate_than_the_pinned_one_is_refused() {
    let authority = Authority::new();
    let stranger = authority.vouches_for("agent.example.com");
    a_certificate_is_refused(&authority, &stranger, "pinned");
}

#[test]
fn an_unknown_resource_is_refused_over_mutual_tls_too() {
    let authority = Authority::new();
    let agent = authority.vouches_for("agent.example.com");
    let scene = Scene::over_tls_guarding(&authority, McpServer::bind(), "https://other.example.com/mcp", Vec::new());
    let outcome = scene.safeconduct(&certified(&scene, &agent, "vouched"), None, &["headers", "target", "--no-daemon"]);
    refused_once(scene, &outcome, "invalid_target");
}

#[test]
fn a_server_whose_certificate_nobody_vouches_for_is_told_nothing() {
    let agent = Authority::new().vouches_for("agent.example.com");
    let mut scene = Scene::over_tls(&Authority::new(), Vec::new());
    scene.trust(&Authority::new());
    let outcome = scene.safeconduct(&certified(&scene, &agent, "vouched"), None, &["headers", "target", "--no-daemon"]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (REFUSED, ""), "{}", outcome.stderr);
    assert_eq!(scene.server.token_requests(), Vec::<String>::new());
}

fn the_token_is_bound(scene: Scene, agent: &Certified, client: &str) {
    let outcome = scene.safeconduct(&certified(&scene, agent, client), None, &["headers", "target", "--no-daemon"]);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    let headers: Value = serde_json::from_str(&outcome.stdout).expect("headers are JSON");
    let token = headers["Authorization"].as_str().and_then(|value| value.strip_prefix("Bearer ")).expect("a token");
    let claims = scene.server.claims(token, &scene.resource);
    assert_eq!(claims["cnf"]["x5t#S256"], agent.thumbprint());
    assert_eq!(scene.server.token_requests(), ["granted"]);
}

fn a_certificate_is_refused(authority: &Authority, certificate: &Certified, client: &str) {
    let scene = Scene::over_tls(authority, Vec::new());
    let outcome =
        scene.safeconduct(&certified(&scene, certificate, client), None, &["headers", "target", "--no-daemon"]);
    refused_once(scene, &outcome, "invalid_client");
}

fn certified(scene: &Scene, own: &Certified, client: &str) -> String {
    let key = scene.private_file("client.key", &own.key);
    let certificate = scene.private_file("client.pem", &own.certificate);
    let files = format!("client_key_file = \"{key}\"\nclient_cert_file = \"{certificate}\"\n");
    let client = format!("client_id = \"{client}\"\nclient_auth = \"mtls\"\n{files}");
    format!("{}exchange = \"client-credentials\"\n{client}", scene.pin())
}
