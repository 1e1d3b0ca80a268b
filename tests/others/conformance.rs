//! The MCP conformance suite with the official TypeScript client, on both wires: all that a revision requires, and the
//! scenario of workload identity federation in every way it can go. `through_proxy.rs` has the same with the proxy in between,
//! `through_bridge.rs` with the bridge.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::scene::REFUSED;
use crate::suite::{Requirements, Run, Scenario, Wire, baseline, baseline_between, conformance, requirements};

mod through_bridge;
mod through_proxy;

const WIRE_2025: Wire = Wire("2025-11-25");
const WIRE_2026: Wire = Wire("2026-07-28");

/// The scenarios that a machine client can pass completely, so the baseline must not name them.
const WHOLE: &[&str] = &[
    "auth/client-credentials-basic",
    "auth/client-credentials-jwt",
    "auth/enterprise-managed-authorization",
    "auth/iss-not-advertised",
    "auth/iss-supported",
    "auth/metadata-issuer-mismatch",
    "auth/pre-registration",
    "auth/resource-mismatch",
    "auth/wif-jwt-bearer",
];

/// Scenarios in which the client never gets in: a trap, or a mock that grants only the scopes of an authorization request.
const CLOSED: &[&str] = &[
    "auth/authorization-server-migration",
    "auth/metadata-issuer-mismatch",
    "auth/resource-mismatch",
    "auth/scope-from-www-authenticate",
    "auth/scope-retry-limit",
    "auth/scope-step-up",
];

#[test]
fn the_baseline_names_no_scenario_that_a_machine_can_pass() {
    for (scenario, check) in baseline() {
        assert!(scenario.starts_with("auth/"), "{scenario}: only authorization can be out of reach");
        assert!(!WHOLE.contains(&scenario.as_str()), "{scenario} passes whole, so {check} is no exception");
    }
}

#[test]
fn all_that_2025_11_25_requires_passes_but_for_the_baseline() {
    all_requirements_pass_but_for_the_baseline(WIRE_2025);
}

#[test]
fn all_that_2026_07_28_requires_passes_but_for_the_baseline() {
    all_requirements_pass_but_for_the_baseline(WIRE_2026);
}

fn all_requirements_pass_but_for_the_baseline(wire: Wire) {
    let run = &*requirements(wire);
    let baseline = baseline();
    let wrong: Vec<String> =
        run.scenarios.iter().flat_map(|(name, scenario)| departures(name, scenario, &baseline)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(run.passed, "{}", run.log);
    for (name, scenario) in &run.scenarios {
        asked_once_and_was_let_in(name, scenario);
    }
    metadata_was_found_by_safeconduct_itself(&run.scenarios);
    the_token_request_says_what_the_suite_looks_for_elsewhere(&run.scenarios);
}

/// `run` has one of ours in between; `part` of its baseline says how the checks differ then.
fn the_client_passes_as_directly(wire: Wire, run: &Requirements, part: &str) {
    let direct = requirements(wire);
    let (known, own) = (baseline(), baseline_between(part));
    let mut wrong = Vec::new();
    for (name, scenario) in &run.scenarios {
        let but = |entries: &[(String, String)]| -> BTreeSet<String> {
            entries.iter().filter(|(of, _)| of == name).map(|(_, check)| check.clone()).collect()
        };
        let (known, own) = (but(&known), but(&own));
        let bad: BTreeSet<String> = scenario.complaints().into_iter().map(str::to_owned).collect();
        let good = scenario.with("SUCCESS");
        wrong.extend(
            bad.iter().filter(|id| !known.contains(*id) && !own.contains(*id)).map(|id| format!("{name}:{id} fails")),
        );
        wrong
            .extend(own.difference(&bad).map(|id| format!("{name}:{id} does not differ: remove it from the baseline")));
        let missing =
            direct.scenarios[name].with("SUCCESS").into_iter().filter(|id| !good.contains(id) && !own.contains(*id));
        wrong.extend(missing.map(|id| format!("{name}:{id} passes directly alone")));
        asked_once_and_was_let_in(name, scenario);
    }
    assert!(run.scenarios.len() == direct.scenarios.len() && wrong.is_empty(), "{}\n{}", wrong.join("\n"), run.log);
}

/// The suite judges by the baseline, but only what it scores; extensions, which it does not score, are judged here alike.
fn departures(name: &str, scenario: &Scenario, baseline: &[(String, String)]) -> Vec<String> {
    let entries: Vec<&str> = baseline.iter().filter(|(of, _)| of == name).map(|(_, check)| check.as_str()).collect();
    let bad = scenario.complaints().into_iter().filter(|check| !entries.contains(check));
    let stale = entries.iter().filter(|check| scenario.passes(check));
    bad.map(|check| format!("{name}:{check} fails: {}", scenario.report))
        .chain(stale.map(|check| format!("{name}:{check} passes: remove it from the baseline")))
        .collect()
}

fn asked_once_and_was_let_in(name: &str, scenario: &Scenario) {
    // A nonce is asked for once, and then sent (RFC 9449 section 8).
    let most = if name == "auth/dpop-nonce" { 2 } else { 1 };
    assert!(scenario.count("token-request") <= most, "{name}: no second attempt, with this grant or another");
    if name.starts_with("auth/") && !CLOSED.contains(&name) {
        assert_eq!(scenario.report["said"], "test", "{name}: the tool was really called: {}", scenario.report);
    }
}

/// The operator, who pins the issuer, reads the resource metadata too.
fn metadata_was_found_by_safeconduct_itself(scenarios: &BTreeMap<String, Scenario>) {
    for name in ["auth/metadata-default", "auth/metadata-var1"] {
        let scenario = &scenarios[name];
        let by_operator = scenario.operator_requests("/.well-known/oauth-protected-resource/mcp");
        assert!(scenario.count("prm-pathbased-requested") > by_operator, "{name}");
    }
}

/// The suite checks scopes and the client's document in the authorization request. This checks the same in the token request.
fn the_token_request_says_what_the_suite_looks_for_elsewhere(scenarios: &BTreeMap<String, Scenario>) {
    let sent = |name: &str, key: &str| scenarios[name].token_form()[key].clone();
    assert_eq!(sent("auth/scope-from-www-authenticate", "scope"), "mcp:basic");
    assert_eq!(sent("auth/scope-from-scopes-supported", "scope"), "mcp:basic mcp:read mcp:write");
    assert_eq!(sent("auth/scope-step-up", "scope"), "mcp:basic");
    assert_eq!(sent("auth/scope-omitted-when-undefined", "scope"), Value::Null);
    assert_eq!(sent("auth/basic-cimd", "client_id"), "https://conformance-test.local/client-metadata.json");
}

#[test]
fn wif_valid_on_the_2025_11_25_wire() {
    a_valid_assertion_passes(WIRE_2025);
}

#[test]
fn wif_valid_on_the_2026_07_28_wire() {
    a_valid_assertion_passes(WIRE_2026);
}

#[test]
fn wif_valid_through_a_daemon_on_the_2025_11_25_wire() {
    a_valid_assertion_passes_through_a_daemon(WIRE_2025);
}

#[test]
fn wif_valid_through_a_daemon_on_the_2026_07_28_wire() {
    a_valid_assertion_passes_through_a_daemon(WIRE_2026);
}

#[test]
fn wif_expired_is_presented_once_on_the_2025_11_25_wire() {
    a_bad_assertion_is_presented_once(WIRE_2025, "expired", "wif-assertion-expired");
}

#[test]
fn wif_expired_is_presented_once_on_the_2026_07_28_wire() {
    a_bad_assertion_is_presented_once(WIRE_2026, "expired", "wif-assertion-expired");
}

#[test]
fn wif_wrong_audience_is_presented_once_on_the_2025_11_25_wire() {
    a_bad_assertion_is_presented_once(WIRE_2025, "wrong-audience", "wif-assertion-audience");
}

#[test]
fn wif_wrong_audience_is_presented_once_on_the_2026_07_28_wire() {
    a_bad_assertion_is_presented_once(WIRE_2026, "wrong-audience", "wif-assertion-audience");
}

#[test]
fn resource_mismatch_stops_safeconduct_on_the_2025_11_25_wire() {
    a_foreign_resource_stops_safeconduct(WIRE_2025);
}

#[test]
fn resource_mismatch_stops_safeconduct_on_the_2026_07_28_wire() {
    a_foreign_resource_stops_safeconduct(WIRE_2026);
}

#[test]
fn issuer_mismatch_stops_safeconduct_on_the_2025_11_25_wire() {
    a_foreign_issuer_stops_safeconduct(WIRE_2025);
}

#[test]
fn issuer_mismatch_stops_safeconduct_on_the_2026_07_28_wire() {
    a_foreign_issuer_stops_safeconduct(WIRE_2026);
}

fn a_valid_assertion_passes(wire: Wire) {
    let run = conformance("auth/wif-jwt-bearer", wire, "valid", false);
    assert!(run.passed, "{}", run.log);
    assert_eq!(run.scenario.only_run().0, 0);
    passed_with_one_token_request(&run.scenario);
}

fn a_valid_assertion_passes_through_a_daemon(wire: Wire) {
    let run = conformance("auth/wif-jwt-bearer", wire, "valid", true);
    assert!(run.passed, "{}", run.log);
    let report = &run.scenario.report;
    assert_eq!(report["daemon_exit"], 0, "SIGTERM ends the daemon in good order");
    let asked = report["runs"].as_array().map_or(0, Vec::len);
    assert!(asked > 1, "the client asks before every request, and the daemon answers all but the first from memory");
    passed_with_one_token_request(&run.scenario);
}

fn passed_with_one_token_request(scenario: &Scenario) {
    assert_eq!(scenario.complaints(), Vec::<&str>::new());
    assert_eq!(scenario.count("wif-assertion-verified"), 1);
    assert_eq!(scenario.count("token-request"), 1);
    assert_eq!(scenario.report["said"], "test", "the tool was really called");
    let form = scenario.token_form();
    assert_eq!(form["grant_type"], "urn:ietf:params:oauth:grant-type:jwt-bearer");
    assert!(form["resource"].as_str().is_some_and(|r| r.starts_with("http://localhost:") && r.ends_with("/mcp")));
    assert_eq!(form["client_assertion"], Value::Null, "the workload is no OAuth client");
}

fn a_bad_assertion_is_presented_once(wire: Wire, assertion: &str, check: &str) {
    let Run { passed, scenario, .. } = conformance("auth/wif-jwt-bearer", wire, assertion, false);
    assert!(!passed, "the suite counts the refusal as a failure of the scenario");
    assert_eq!(scenario.count("token-request"), 1, "no second attempt, with this grant or another");
    assert_eq!(scenario.complaints(), [check], "nothing but the refusal itself is complained about");
    let (code, stderr) = scenario.only_run();
    assert_eq!(code, i64::from(REFUSED), "{stderr}");
    assert!(
        stderr.contains("invalid_grant") && stderr.contains("JWT assertion"),
        "it shows what the server said: {stderr}"
    );
}

fn a_foreign_resource_stops_safeconduct(wire: Wire) {
    let Run { passed, log, scenario } = conformance("auth/resource-mismatch", wire, "valid", false);
    assert!(passed, "{log}");
    let by_operator = scenario.operator_requests("/.well-known/oauth-protected-resource/mcp");
    assert!(scenario.count("prm-pathbased-requested") > by_operator, "safeconduct read the metadata");
    stopped_before_the_token_endpoint(&scenario, "evil.example.com");
}

fn a_foreign_issuer_stops_safeconduct(wire: Wire) {
    let Run { passed, log, scenario } = conformance("auth/metadata-issuer-mismatch", wire, "valid", false);
    assert!(passed, "{log}");
    assert!(scenario.count("authorization-server-metadata") >= 1, "safeconduct read the metadata");
    stopped_before_the_token_endpoint(&scenario, "attacker.example.com");
}

fn stopped_before_the_token_endpoint(scenario: &Scenario, culprit: &str) {
    assert_eq!(scenario.count("token-request"), 0);
    let (code, stderr) = scenario.only_run();
    assert_eq!(code, i64::from(REFUSED), "{stderr}");
    assert!(stderr.contains(culprit), "the error names what was offered: {stderr}");
}
