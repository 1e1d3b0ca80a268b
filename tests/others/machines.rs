//! Clients with their own key (RFC 7523 section 2.2), which need no workload identity, with oidc-provider and Authlib:
//! registered by hand, by a metadata document, or by themselves.

use serde_json::Value;

use crate::keys::{Authority, Key};
use crate::parties::McpServer;
use crate::scene::{Scene, is_refusal, refused_once};
use crate::servers::Software;

const CONFIG: i32 = 78;

#[test]
fn oidc_provider_knows_the_client_by_its_key() {
    let claims = a_known_key_buys_a_bound_token(Software::OidcProvider);
    assert_eq!(claims["client_id"], "machine");
}

#[test]
fn oidc_provider_refuses_the_key_of_a_stranger() {
    a_strangers_key_is_refused(Software::OidcProvider);
}

#[test]
fn oidc_provider_refuses_a_client_it_does_not_know() {
    an_unknown_client_is_refused(Software::OidcProvider);
}

#[test]
fn oidc_provider_refuses_an_unknown_resource() {
    an_unknown_resource_is_refused(Software::OidcProvider);
}

#[test]
fn oidc_provider_gets_a_new_assertion_each_time() {
    every_assertion_is_new(Software::OidcProvider);
}

/// This server accepts only the issuer as audience.
#[test]
fn authlib_knows_the_client_by_its_key() {
    let claims = a_known_key_buys_a_bound_token(Software::Authlib);
    assert_eq!(claims["client_id"], "machine");
}

#[test]
fn authlib_refuses_the_key_of_a_stranger() {
    a_strangers_key_is_refused(Software::Authlib);
}

#[test]
fn authlib_refuses_a_client_it_does_not_know() {
    an_unknown_client_is_refused(Software::Authlib);
}

#[test]
fn authlib_refuses_an_unknown_resource() {
    an_unknown_resource_is_refused(Software::Authlib);
}

#[test]
fn authlib_gets_a_new_assertion_each_time() {
    every_assertion_is_new(Software::Authlib);
}

fn a_known_key_buys_a_bound_token(software: Software) -> Value {
    let key = Key::new();
    let scene = Scene::new(software, vec![("CLIENT_JWKS", key.jwks())]);
    let outcome = scene.token(&machine(&scene, &key), None);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    let claims = scene.server.claims(outcome.stdout.trim(), &scene.resource);
    assert_eq!(scene.server.token_requests(), ["granted"]);
    claims
}

fn a_strangers_key_is_refused(software: Software) {
    let scene = Scene::new(software, vec![("CLIENT_JWKS", Key::new().jwks())]);
    let outcome = scene.token(&machine(&scene, &Key::new()), None);
    refused_once(scene, &outcome, "invalid_client");
}

fn an_unknown_client_is_refused(software: Software) {
    let key = Key::new();
    let scene = Scene::new(software, vec![("CLIENT_JWKS", key.jwks())]);
    let outcome = scene.token(&machine(&scene, &key).replace("\"machine\"", "\"somebody\""), None);
    refused_once(scene, &outcome, "invalid_client");
}

fn an_unknown_resource_is_refused(software: Software) {
    let key = Key::new();
    let settings = vec![("CLIENT_JWKS", key.jwks())];
    let scene = Scene::guarding(software, McpServer::bind(), "https://other.example.com/mcp", settings);
    let outcome = scene.token(&machine(&scene, &key), None);
    refused_once(scene, &outcome, "invalid_target");
}

/// Both servers refuse an assertion that they have seen before.
fn every_assertion_is_new(software: Software) {
    let key = Key::new();
    let scene = Scene::new(software, vec![("CLIENT_JWKS", key.jwks())]);
    for _ in 0..2 {
        let outcome = scene.token(&machine(&scene, &key), None);
        assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    }
    assert_eq!(scene.server.token_requests(), ["granted", "granted"]);
}

fn machine(scene: &Scene, key: &Key) -> String {
    format!("client_id = \"machine\"\n{}", keyed(scene, key))
}

fn keyed(scene: &Scene, key: &Key) -> String {
    let file = scene.private_file("client.pem", &key.pem());
    let proof = format!("client_auth = \"private-key-jwt\"\nclient_key_file = \"{file}\"\n");
    format!("{}exchange = \"client-credentials\"\n{proof}", scene.pin())
}

// A metadata document (draft-ietf-oauth-client-id-metadata-document): https only, so the provider speaks it.

#[test]
fn oidc_provider_knows_the_client_by_its_document() {
    let key = Key::new();
    let scene = documented(&key);
    let outcome = scene.token(&by_document(&scene, &key, "machine"), None);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    let claims = scene.server.claims(outcome.stdout.trim(), &scene.resource);
    assert_eq!(claims["client_id"], format!("{}/agents/machine.json", scene.server.issuer));
    assert_eq!(scene.server.token_requests(), ["granted"]);
}

#[test]
fn oidc_provider_refuses_a_key_that_the_document_does_not_name() {
    let scene = documented(&Key::new());
    let outcome = scene.token(&by_document(&scene, &Key::new(), "machine"), None);
    refused_once(scene, &outcome, "invalid_client");
}

#[test]
fn oidc_provider_refuses_a_document_that_is_not_there() {
    let key = Key::new();
    let scene = documented(&key);
    let outcome = scene.token(&by_document(&scene, &key, "nobody"), None);
    refused_once(scene, &outcome, "invalid_client");
}

/// Authlib's metadata does not announce support, so a client must not try.
#[test]
fn authlib_is_not_shown_a_document() {
    let key = Key::new();
    let scene = Scene::new(Software::Authlib, vec![("CLIENT_JWKS", key.jwks())]);
    let keys = format!("client_metadata = \"https://agent.example.com/client.json\"\n{}", keyed(&scene, &key));
    let outcome = scene.token(&keys, None);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (CONFIG, ""), "{}", outcome.stderr);
    assert_eq!(scene.server.token_requests(), Vec::<String>::new());
}

fn documented(key: &Key) -> Scene {
    Scene::over_tls(&Authority::new(), vec![("CLIENT_JWKS", key.jwks())])
}

fn by_document(scene: &Scene, key: &Key, name: &str) -> String {
    format!("client_metadata = \"{}/agents/{name}.json\"\n{}", scene.server.issuer, keyed(scene, key))
}

// Dynamic registration (RFC 7591).

#[test]
fn oidc_provider_registers_a_client_with_a_new_key() {
    a_registered_client_gets_a_token("private-key-jwt");
}

#[test]
fn oidc_provider_registers_a_client_with_a_secret() {
    a_registered_client_gets_a_token("secret");
}

#[test]
fn authlib_registers_nobody() {
    let scene = Scene::new(Software::Authlib, Vec::new());
    let outcome = scene.token(&registering(&scene, "private-key-jwt"), None);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (CONFIG, ""), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("registration"), "{}", outcome.stderr);
    assert_eq!(scene.server.token_requests(), Vec::<String>::new());
}

#[test]
fn oidc_provider_refuses_to_register_without_the_initial_access_token_it_wants() {
    let scene = Scene::new(Software::OidcProvider, vec![("REGISTRATION", "guarded".to_owned())]);
    let outcome = scene.token(&registering(&scene, "private-key-jwt"), None);
    is_refusal(&outcome, "invalid_token");
    assert_eq!(scene.server.token_requests(), Vec::<String>::new());
}

fn a_registered_client_gets_a_token(proof: &str) {
    let scene = Scene::new(Software::OidcProvider, Vec::new());
    let outcome = scene.token(&registering(&scene, proof), None);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    let claims = scene.server.claims(outcome.stdout.trim(), &scene.resource);
    assert!(claims["client_id"].as_str().is_some_and(|id| id != "machine"), "{claims}");
    assert_eq!(scene.server.token_requests(), ["granted"]);
}

fn registering(scene: &Scene, proof: &str) -> String {
    format!("{}exchange = \"client-credentials\"\nclient_auth = \"{proof}\"\nregister = true\n", scene.pin())
}
