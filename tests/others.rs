//! Proofs against what others wrote: the MCP conformance suite with the official TypeScript client, and two authorization
//! servers by different hands. Not part of plain `cargo test`: install with `tests/others/install`, run with
//! `cargo test --test others`.
#![allow(clippy::disallowed_methods, reason = "the proofs run against real processes, in real time")]

#[path = "others/servers.rs"]
mod servers;
#[path = "others/suite.rs"]
mod suite;
#[path = "others/support.rs"]
mod support;

use servers::{Idp, McpServer, SUBJECT, Scene, Software};
use suite::{Run, Wire, conformance};
use support::Outcome;

const WIRE_2025: Wire = Wire("2025-11-25");
const WIRE_2026: Wire = Wire("2026-07-28");

const NO_IDENTITY: i32 = 69;
const REFUSED: i32 = 76;

// The MCP conformance suite.

#[test]
fn conformance_wif_valid_on_the_2025_11_25_wire() {
    a_valid_assertion_passes(WIRE_2025);
}

#[test]
fn conformance_wif_valid_on_the_2026_07_28_wire() {
    a_valid_assertion_passes(WIRE_2026);
}

#[test]
fn conformance_wif_valid_through_a_daemon_on_the_2025_11_25_wire() {
    a_valid_assertion_passes_through_a_daemon(WIRE_2025);
}

#[test]
fn conformance_wif_valid_through_a_daemon_on_the_2026_07_28_wire() {
    a_valid_assertion_passes_through_a_daemon(WIRE_2026);
}

#[test]
fn conformance_wif_expired_is_presented_once_on_the_2025_11_25_wire() {
    a_bad_assertion_is_presented_once(WIRE_2025, "expired", "wif-assertion-expired");
}

#[test]
fn conformance_wif_expired_is_presented_once_on_the_2026_07_28_wire() {
    a_bad_assertion_is_presented_once(WIRE_2026, "expired", "wif-assertion-expired");
}

#[test]
fn conformance_wif_wrong_audience_is_presented_once_on_the_2025_11_25_wire() {
    a_bad_assertion_is_presented_once(WIRE_2025, "wrong-audience", "wif-assertion-audience");
}

#[test]
fn conformance_wif_wrong_audience_is_presented_once_on_the_2026_07_28_wire() {
    a_bad_assertion_is_presented_once(WIRE_2026, "wrong-audience", "wif-assertion-audience");
}

#[test]
fn conformance_resource_mismatch_stops_wayleave_on_the_2025_11_25_wire() {
    a_foreign_resource_stops_wayleave(WIRE_2025);
}

#[test]
fn conformance_resource_mismatch_stops_wayleave_on_the_2026_07_28_wire() {
    a_foreign_resource_stops_wayleave(WIRE_2026);
}

#[test]
fn conformance_issuer_mismatch_stops_wayleave_on_the_2025_11_25_wire() {
    a_foreign_issuer_stops_wayleave(WIRE_2025);
}

#[test]
fn conformance_issuer_mismatch_stops_wayleave_on_the_2026_07_28_wire() {
    a_foreign_issuer_stops_wayleave(WIRE_2026);
}

fn a_valid_assertion_passes(wire: Wire) {
    let run = conformance("auth/wif-jwt-bearer", wire, "valid", false);
    assert!(run.passed, "{}", run.log);
    assert_eq!(run.only_run().0, 0);
    passed_with_one_token_request(&run);
}

fn a_valid_assertion_passes_through_a_daemon(wire: Wire) {
    let run = conformance("auth/wif-jwt-bearer", wire, "valid", true);
    assert!(run.passed, "{}", run.log);
    assert_eq!(run.report["daemon_exit"], 0, "SIGTERM ends the daemon in good order");
    let asked = run.report["runs"].as_array().map_or(0, Vec::len);
    assert!(asked > 1, "the client asks before every request, and the daemon answers all but the first from memory");
    passed_with_one_token_request(&run);
}

fn passed_with_one_token_request(run: &Run) {
    assert_eq!(run.complaints(), Vec::<&str>::new());
    assert_eq!(run.count("wif-assertion-verified"), 1);
    assert_eq!(run.count("token-request"), 1);
    assert_eq!(run.report["said"], "test", "the tool was really called");
    let form = run.token_form();
    assert_eq!(form["grant_type"], "urn:ietf:params:oauth:grant-type:jwt-bearer");
    assert!(form["resource"].as_str().is_some_and(|r| r.starts_with("http://localhost:") && r.ends_with("/mcp")));
    assert_eq!(form["client_assertion"], serde_json::Value::Null, "the workload is no OAuth client");
}

fn a_bad_assertion_is_presented_once(wire: Wire, assertion: &str, check: &str) {
    let run = conformance("auth/wif-jwt-bearer", wire, assertion, false);
    assert!(!run.passed, "the suite counts the refusal as a failure of the scenario");
    assert_eq!(run.count("token-request"), 1, "no second attempt, with this grant or another");
    assert_eq!(run.complaints(), [check], "nothing but the refusal itself is complained about");
    let (code, stderr) = run.only_run();
    assert_eq!(code, i64::from(REFUSED), "{stderr}");
    assert!(
        stderr.contains("invalid_grant") && stderr.contains("JWT assertion"),
        "it shows what the server said: {stderr}"
    );
}

fn a_foreign_resource_stops_wayleave(wire: Wire) {
    let run = conformance("auth/resource-mismatch", wire, "own", false);
    assert!(run.passed, "{}", run.log);
    // The client reads it too, to make an assertion for the right audience.
    assert!(run.count("prm-pathbased-requested") >= 2, "wayleave read the metadata");
    stopped_before_the_token_endpoint(&run, "evil.example.com");
}

fn a_foreign_issuer_stops_wayleave(wire: Wire) {
    let run = conformance("auth/metadata-issuer-mismatch", wire, "own", false);
    assert!(run.passed, "{}", run.log);
    assert!(run.count("authorization-server-metadata") >= 1, "wayleave read the metadata");
    stopped_before_the_token_endpoint(&run, "attacker.example.com");
}

fn stopped_before_the_token_endpoint(run: &Run, culprit: &str) {
    assert_eq!(run.count("token-request"), 0);
    let (code, stderr) = run.only_run();
    assert_eq!(code, i64::from(REFUSED), "{stderr}");
    assert!(stderr.contains(culprit), "the error names what was offered: {stderr}");
}

// oidc-provider: certified, strict, wants a client id, so the issuer is pinned.

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

// Authlib: its own RFC 7523 grant, no client at all; the issuer is discovered.

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

fn a_good_assertion_buys_a_bound_token(software: Software) -> serde_json::Value {
    let scene = Scene::new(software);
    let outcome = scene.token(&scene.idp.assertion(&scene.server.issuer, 300));
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    let claims = scene.server.claims(outcome.stdout.trim(), &scene.resource);
    assert_eq!(scene.server.token_requests(), ["granted"]);
    claims
}

fn an_unknown_resource_is_refused(software: Software) {
    let scene = Scene::guarding(software, McpServer::bind(), "https://other.example.com/mcp");
    let outcome = scene.token(&scene.idp.assertion(&scene.server.issuer, 300));
    refused_once(scene, &outcome, "invalid_target");
}

fn a_foreign_audience_is_refused(software: Software) {
    let scene = Scene::new(software);
    let elsewhere = "https://elsewhere.example.com";
    let outcome = scene.token_for_audience(elsewhere, &scene.idp.assertion(elsewhere, 300));
    refused_once(scene, &outcome, "invalid_grant");
}

/// Within the five minutes by which our clock may be wrong the server decides, not we; both servers allow less.
fn a_stale_assertion_is_refused(software: Software) {
    let scene = Scene::new(software);
    let outcome = scene.token(&scene.idp.assertion(&scene.server.issuer, -120));
    refused_once(scene, &outcome, "invalid_grant");
}

fn a_strangers_assertion_is_refused(software: Software) {
    let scene = Scene::new(software);
    let outcome = scene.token(&Idp::new().assertion(&scene.server.issuer, 300));
    refused_once(scene, &outcome, "invalid_grant");
}

fn a_used_assertion_is_refused(software: Software) {
    let scene = Scene::new(software);
    let assertion = scene.idp.assertion(&scene.server.issuer, 300);
    let first = scene.token(&assertion);
    assert_eq!(first.code, 0, "{}", first.stderr);
    let second = scene.token(&assertion);
    is_refusal(&second, "invalid_grant");
    assert_eq!(scene.server.token_requests(), ["granted", "invalid_grant"]);
}

fn a_long_expired_assertion_stays_here(software: Software) {
    let scene = Scene::new(software);
    let outcome = scene.token(&scene.idp.assertion(&scene.server.issuer, -3600));
    assert_eq!((outcome.code, outcome.stdout.as_str()), (NO_IDENTITY, ""), "{}", outcome.stderr);
    assert_eq!(scene.server.token_requests(), Vec::<String>::new());
}

fn a_misdirected_assertion_stays_here(software: Software) {
    let scene = Scene::new(software);
    let outcome = scene.token(&scene.idp.assertion("https://elsewhere.example.com", 300));
    assert!(outcome.code != 0 && outcome.code != REFUSED, "nobody was asked, so nobody refused: {}", outcome.stderr);
    assert_eq!(outcome.stdout, "");
    assert_eq!(scene.server.token_requests(), Vec::<String>::new());
}

fn refused_once(scene: Scene, outcome: &Outcome, error: &str) {
    is_refusal(outcome, error);
    assert_eq!(scene.server.token_requests(), [error], "one request, no second attempt");
}

fn is_refusal(outcome: &Outcome, error: &str) {
    assert_eq!((outcome.code, outcome.stdout.as_str()), (REFUSED, ""), "{}", outcome.stderr);
    assert!(outcome.stderr.contains(error), "it shows what the server said: {}", outcome.stderr);
}
