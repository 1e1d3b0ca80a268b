//! The workload's own token as the grant (RFC 7523 section 2.1), with oidc-provider and Authlib.

use serde_json::Value;

use crate::parties::{Idp, McpServer, SUBJECT};
use crate::scene::{REFUSED, Scene, is_refusal, refused_once};
use crate::servers::Software;

const NO_IDENTITY: i32 = 69;

// oidc-provider: certified and strict. It requires a client id, so the issuer is pinned.

#[test]
fn oidc_provider_accepts_the_assertion_and_binds_the_resource() {
    let claims = a_good_assertion_buys_a_bound_token(Software::OidcProvider);
    assert_eq!(claims["client_id"], "workload");
}

#[test]
fn oidc_provider_refuses_an_unknown_resource() {
    an_unknown_resource_is_refused(Software::OidcProvider);
}

#[test]
fn oidc_provider_refuses_an_assertion_for_another_audience() {
    a_foreign_audience_is_refused(Software::OidcProvider);
}

#[test]
fn oidc_provider_refuses_a_stale_assertion() {
    a_stale_assertion_is_refused(Software::OidcProvider);
}

#[test]
fn oidc_provider_refuses_an_assertion_of_a_stranger() {
    a_strangers_assertion_is_refused(Software::OidcProvider);
}

#[test]
fn oidc_provider_refuses_an_assertion_used_before() {
    a_used_assertion_is_refused(Software::OidcProvider);
}

#[test]
fn oidc_provider_never_sees_an_assertion_long_expired() {
    a_long_expired_assertion_stays_here(Software::OidcProvider);
}

#[test]
fn oidc_provider_never_sees_an_assertion_meant_for_another() {
    a_misdirected_assertion_stays_here(Software::OidcProvider);
}

// Authlib: its own RFC 7523 grant, without a client; the issuer is discovered.

#[test]
fn authlib_accepts_the_assertion_and_binds_the_resource() {
    let claims = a_good_assertion_buys_a_bound_token(Software::Authlib);
    assert_eq!(claims["sub"], SUBJECT);
}

#[test]
fn authlib_refuses_an_unknown_resource() {
    an_unknown_resource_is_refused(Software::Authlib);
}

#[test]
fn authlib_refuses_an_assertion_for_another_audience() {
    a_foreign_audience_is_refused(Software::Authlib);
}

#[test]
fn authlib_refuses_a_stale_assertion() {
    a_stale_assertion_is_refused(Software::Authlib);
}

#[test]
fn authlib_refuses_an_assertion_of_a_stranger() {
    a_strangers_assertion_is_refused(Software::Authlib);
}

#[test]
fn authlib_refuses_an_assertion_used_before() {
    a_used_assertion_is_refused(Software::Authlib);
}

#[test]
fn authlib_never_sees_an_assertion_long_expired() {
    a_long_expired_assertion_stays_here(Software::Authlib);
}

#[test]
fn authlib_never_sees_an_assertion_meant_for_another() {
    a_misdirected_assertion_stays_here(Software::Authlib);
}

fn a_good_assertion_buys_a_bound_token(software: Software) -> Value {
    let scene = Scene::new(software, Vec::new());
    let outcome = scene.token(&workload(software, &scene), Some(&scene.idp.assertion(&scene.server.issuer, 300)));
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    let claims = scene.server.claims(outcome.stdout.trim(), &scene.resource);
    assert_eq!(scene.server.token_requests(), ["granted"]);
    claims
}

fn an_unknown_resource_is_refused(software: Software) {
    let scene = Scene::guarding(software, McpServer::bind(), "https://other.example.com/mcp", Vec::new());
    let outcome = scene.token(&workload(software, &scene), Some(&scene.idp.assertion(&scene.server.issuer, 300)));
    refused_once(scene, &outcome, "invalid_target");
}

fn a_foreign_audience_is_refused(software: Software) {
    let scene = Scene::new(software, Vec::new());
    let elsewhere = "https://elsewhere.example.com";
    // safeconduct sends another audience only if it is configured, and that needs a pinned issuer.
    let keys = format!("{}client_id = \"workload\"\nsubject_audience = \"{elsewhere}\"\n", scene.pin());
    let outcome = scene.token(&keys, Some(&scene.idp.assertion(elsewhere, 300)));
    refused_once(scene, &outcome, "invalid_grant");
}

/// Up to five minutes after expiry the server decides, because our clock may be wrong. Both servers allow less.
fn a_stale_assertion_is_refused(software: Software) {
    let scene = Scene::new(software, Vec::new());
    let outcome = scene.token(&workload(software, &scene), Some(&scene.idp.assertion(&scene.server.issuer, -120)));
    refused_once(scene, &outcome, "invalid_grant");
}

fn a_strangers_assertion_is_refused(software: Software) {
    let scene = Scene::new(software, Vec::new());
    let outcome = scene.token(&workload(software, &scene), Some(&Idp::new().assertion(&scene.server.issuer, 300)));
    refused_once(scene, &outcome, "invalid_grant");
}

fn a_used_assertion_is_refused(software: Software) {
    let scene = Scene::new(software, Vec::new());
    let assertion = scene.idp.assertion(&scene.server.issuer, 300);
    let first = scene.token(&workload(software, &scene), Some(&assertion));
    assert_eq!(first.code, 0, "{}", first.stderr);
    let second = scene.token(&workload(software, &scene), Some(&assertion));
    is_refusal(&second, "invalid_grant");
    assert_eq!(scene.server.token_requests(), ["granted", "invalid_grant"]);
}

fn a_long_expired_assertion_stays_here(software: Software) {
    let scene = Scene::new(software, Vec::new());
    let outcome = scene.token(&workload(software, &scene), Some(&scene.idp.assertion(&scene.server.issuer, -3600)));
    assert_eq!((outcome.code, outcome.stdout.as_str()), (NO_IDENTITY, ""), "{}", outcome.stderr);
    assert_eq!(scene.server.token_requests(), Vec::<String>::new());
}

fn a_misdirected_assertion_stays_here(software: Software) {
    let scene = Scene::new(software, Vec::new());
    let assertion = scene.idp.assertion("https://elsewhere.example.com", 300);
    let outcome = scene.token(&workload(software, &scene), Some(&assertion));
    assert!(outcome.code != 0 && outcome.code != REFUSED, "nobody was asked, so nobody refused: {}", outcome.stderr);
    assert_eq!(outcome.stdout, "");
    assert_eq!(scene.server.token_requests(), Vec::<String>::new());
}

/// oidc-provider requires a client id in every request, and a client id is sent only to a pinned issuer.
/// Authlib requires none, and its tokens show their audience: there the issuer is discovered.
fn workload(software: Software, scene: &Scene) -> String {
    match software {
        Software::OidcProvider => format!("{}client_id = \"workload\"\n", scene.pin()),
        _ => String::new(),
    }
}
