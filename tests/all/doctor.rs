//! `safeconduct doctor`: with correct servers every check passes. With servers that have one fault, the report names the fault, the
//! party and the section. Also the checks of this machine.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use serde_json::{Value, json};
use support::authorization_server::{MetadataFault, Published, TokenFault};
use support::fault::Fault;
use support::mcp_server::{FakeMcp, INSERTED, Lenience, Signposts};
use support::platform::{LIFE, PlatformFault, SUBJECT};
use support::safeconduct::Safeconduct;
use support::scene::{SCOPES, Scene};
use support::tls::TestCa;

use crate::binary;
use crate::exit::{CONFIG, NO_IDENTITY, REFUSED, TEMPORARY};

const OPERATOR_OF_MCP: &str = "mcp_server";
const OPERATOR_OF_AS: &str = "authorization_server";

mod federation;

/// A report of `doctor`.
struct Report {
    code: Option<i32>,
    data: Value,
    stderr: String,
}

impl Report {
    fn check(&self, code: &str) -> &Value {
        let found = self.checks().iter().find(|check| check["code"] == code);
        found.unwrap_or_else(|| panic!("no check {code} in {:#}", self.data))
    }

    fn checks(&self) -> &Vec<Value> {
        self.data["checks"].as_array().unwrap_or_else(|| panic!("no checks: {}", self.stderr))
    }

    fn in_state(&self, state: &str) -> Vec<&str> {
        self.checks()
            .iter()
            .filter(|check| check["state"] == state)
            .filter_map(|check| check["code"].as_str())
            .collect()
    }

    /// Expects exactly this fault, with its party, its section and its message.
    fn has_one_fault(&self, code: &str, party: &str, section: &str, words: &str) {
        assert_eq!(self.in_state("fail"), [code], "{:#}", self.data);
        self.says(code, party, section, words);
        assert_eq!(self.code, Some(REFUSED), "{}", self.stderr);
        assert!(self.stderr.contains(code), "{}", self.stderr);
    }

    fn says(&self, code: &str, party: &str, section: &str, words: &str) {
        let check = self.check(code);
        assert_eq!(check["party"], party);
        assert!(check["section"].as_str().is_some_and(|text| text.contains(section)), "{check:#}");
        assert!(check["what"].as_str().is_some_and(|text| text.contains(words)), "{check:#}");
        assert!(check["cure"].as_str().is_some_and(|text| text.len() > 20), "{check:#}");
    }

    fn passes(&self, codes: &[&str]) {
        for code in codes {
            assert_eq!(self.check(code)["state"], "pass", "{:#}", self.check(code));
        }
    }
}

async fn report(world: &Safeconduct, args: &[&str]) -> Report {
    let output = world.run(&[&["doctor", "--json"], args].concat()).await;
    let data = serde_json::from_str(&output.stdout).unwrap_or(Value::Null);
    Report { code: output.code, data, stderr: output.stderr }
}

/// `doctor` with a pinned issuer.
async fn pinned(scene: &Scene, args: &[&str]) -> Report {
    report(&scene.configured(""), &[&["demo"], args].concat()).await
}

/// `doctor` with the URL only.
async fn discovered(scene: &Scene, args: &[&str]) -> Report {
    let url = scene.mcp.url();
    report(&scene.safeconduct, &[&["--insecure-loopback", &url], args].concat()).await
}

/// Tokens live so short that the check waits for their expiry.
async fn brief_scene() -> Scene {
    let scene = Scene::new(binary()).await;
    scene.authorization_server.set_token_life(Duration::from_secs(3));
    scene
}

const ALL: [&str; 37] = [
    "mcp-https",
    "mcp-reachable",
    "mcp-no-redirect",
    "challenge-status",
    "challenge-header",
    "challenge-scheme",
    "challenge-resource-metadata",
    "resource-metadata",
    "resource-metadata-document",
    "resource-identifier",
    "authorization-servers",
    "scopes-published",
    "bearer-methods",
    "issuer-chosen",
    "server-metadata",
    "server-metadata-document",
    "server-issuer",
    "token-endpoint",
    "grant-types",
    "client-auth-methods",
    "revocation-endpoint",
    "identity-found",
    "subject-token",
    "subject-audience",
    "subject-expiry",
    "subject-jti",
    "clocks",
    "token-issued",
    "token-bound-to-resource",
    "token-lifetime",
    "token-scope",
    "token-accepted",
    "authorization-on-every-request",
    "garbage-refused",
    "query-token-refused",
    "tampered-refused",
    "wrong-audience-refused",
];

/// The rows of the certifier, which come last.
const FEDERATION: [&str; 7] = [
    "assertion-audience",
    "assertion-age",
    "assertion-single-use",
    "assertion-typ",
    "resource-parameter",
    "token-outlives-identity",
    "tokens-revoked",
];

// A correct pair of servers.

#[tokio::test]
async fn against_correct_servers_every_check_passes_with_these_codes() {
    let scene = brief_scene().await;
    let other = "https://other.example/mcp";
    scene.authorization_server.register(other, &SCOPES);
    let report = discovered(&scene, &["--other-resource", other]).await;
    let codes: Vec<&str> = report.checks().iter().filter_map(|check| check["code"].as_str()).collect();
    assert_eq!(codes, [&ALL[..], &["expired-refused"], &FEDERATION].concat());
    assert_eq!(report.in_state("pass"), codes, "{:#}", report.data);
    assert_eq!((report.code, &report.data["ok"], &report.data["exit"]), (Some(0), &json!(true), &json!(0)));
    assert_eq!(scene.authorization_server.token_requests(), 3, "one, one for the other resource, and the first again");
    assert_eq!(scene.authorization_server.revocations(), 2, "whatever was issued");
    assert!(report.checks().iter().all(|check| check["section"].as_str().is_some_and(|section| section.len() > 10)));
}

#[tokio::test]
async fn a_pinned_issuer_changes_nothing_and_what_needs_more_is_not_tried() {
    let scene = Scene::new(binary()).await;
    let report = pinned(&scene, &[]).await;
    assert_eq!(report.in_state("skip"), ["wrong-audience-refused", "expired-refused"]);
    assert_eq!(report.in_state("pass").len(), ALL.len() - 1 + FEDERATION.len(), "{:#}", report.data);
    assert_eq!(scene.authorization_server.token_requests(), 2, "one attempt, and the same identity token again");
    assert!(report.check("expired-refused")["what"].as_str().is_some_and(|what| what.contains("--wait-expiry 60")));
}

#[tokio::test]
async fn the_page_folds_what_passes_and_shows_it_when_asked() {
    let scene = Scene::new(binary()).await;
    let world = scene.configured("");
    let short = world.run(&["doctor", "demo"]).await.expect_code(0).stdout;
    assert!(short.contains("✓ challenge") && !short.contains("challenge-status"), "{short}");
    assert!(!short.contains('\u{1b}'), "no colours but on a terminal");
    let long = world.run(&["doctor", "demo", "--verbose"]).await.expect_code(0).stdout;
    assert!(ALL.iter().all(|code| long.contains(code)), "{long}");
}

#[tokio::test]
async fn the_identity_token_never_reaches_the_mcp_server_and_no_token_a_url() {
    let scene = brief_scene().await;
    pinned(&scene, &[]).await;
    let sent = scene.authorization_server.last_request();
    for seen in scene.mcp.seen() {
        let bearer = seen.header("authorization").unwrap_or_default();
        assert!(!bearer.ends_with(&sent.params["assertion"]), "{seen:?}");
        assert!(!seen.target.contains("ey"), "{seen:?}");
    }
}

// Servers with one fault each.

#[tokio::test]
async fn a_wrong_issuer_in_the_server_metadata_is_named() {
    let scene = Scene::new(binary()).await;
    scene.authorization_server.always_metadata(MetadataFault::WrongIssuer("https://evil.example".to_owned()));
    for report in [pinned(&scene, &[]).await, discovered(&scene, &[]).await] {
        report.has_one_fault("server-issuer", OPERATOR_OF_AS, "RFC 8414 section 3.3", "evil.example");
        assert_eq!(report.check("token-issued")["state"], "skip");
    }
    assert_eq!(scene.authorization_server.token_requests(), 0);
}

#[tokio::test]
async fn an_issuer_that_differs_by_a_slash_is_told_so() {
    let scene = Scene::new(binary()).await;
    let slashed = format!("{}/", scene.authorization_server.issuer());
    scene.authorization_server.always_metadata(MetadataFault::WrongIssuer(slashed));
    let report = pinned(&scene, &[]).await;
    let cure = report.check("server-issuer")["cure"].to_string();
    assert!(cure.contains("final slash"), "{cure}");
}

#[tokio::test]
async fn missing_resource_metadata_is_named() {
    let scene = Scene::new(binary()).await;
    scene.mcp.set_signposts(Signposts { header: None, inserted: false, root: false });
    let discovered = discovered(&scene, &[]).await;
    discovered.has_one_fault("resource-metadata", OPERATOR_OF_MCP, "RFC 9728 section 3", INSERTED);
    let pinned = pinned(&scene, &[]).await;
    pinned.has_one_fault("resource-metadata", OPERATOR_OF_MCP, "Protected Resource Metadata", INSERTED);
    pinned.passes(&["token-issued", "token-accepted"]);
}

#[tokio::test]
async fn a_challenge_that_names_a_place_where_nothing_is_published_is_noted() {
    let scene = Scene::new(binary()).await;
    scene.mcp.set_challenges(Some(&[&format!("Bearer resource_metadata=\"{}/nowhere\"", scene.mcp.base())]));
    let report = pinned(&scene, &[]).await;
    assert_eq!(report.check("resource-metadata")["state"], "warn");
    report.says("resource-metadata", OPERATOR_OF_MCP, "RFC 9728", "nowhere");
    report.passes(&["token-issued", "token-accepted"]);
}

#[tokio::test]
async fn an_authorization_server_that_ignores_resource_is_named() {
    let scene = Scene::new(binary()).await;
    scene.authorization_server.always_token(TokenFault::IgnoreResource);
    for report in [pinned(&scene, &[]).await, discovered(&scene, &[]).await] {
        report.has_one_fault(
            "token-bound-to-resource",
            OPERATOR_OF_AS,
            "RFC 8707 section 2",
            "https://somebody-else.example/mcp",
        );
    }
}

#[tokio::test]
async fn a_server_that_accepts_expired_tokens_is_named() {
    let scene = brief_scene().await;
    scene.mcp.set_lenience(Lenience { expired: true, ..Lenience::default() });
    let report = pinned(&scene, &["--timeout", "12s"]).await;
    report.has_one_fault("expired-refused", OPERATOR_OF_MCP, "RFC 7519 section 4.1.4", "after its expiry");
}

#[tokio::test]
async fn a_challenge_without_resource_metadata_is_named() {
    let scene = Scene::new(binary()).await;
    scene.mcp.set_signposts(Signposts { header: None, inserted: true, root: false });
    let report = discovered(&scene, &[]).await;
    assert_eq!((report.code, report.in_state("warn")), (Some(0), vec!["challenge-resource-metadata"]));
    report.says("challenge-resource-metadata", OPERATOR_OF_MCP, "RFC 9728 section 5.1", "resource_metadata");
    report.passes(&["resource-metadata", "token-issued", "token-accepted"]);
}

#[tokio::test]
async fn a_server_that_accepts_any_audience_is_named_with_a_flag_and_with_a_file() {
    let scene = Scene::new(binary()).await;
    scene.mcp.set_lenience(Lenience { any_audience: true, ..Lenience::default() });
    let other = "https://other.example/mcp";
    scene.authorization_server.register(other, &SCOPES);
    let by_flag = pinned(&scene, &["--other-resource", other]).await;
    by_flag.has_one_fault("wrong-audience-refused", OPERATOR_OF_MCP, "Token Audience Binding", other);
    let file = scene.safeconduct.private("foreign.jwt");
    let token = scene.authorization_server.mint(json!(other), "demo:read", Duration::from_secs(60));
    std::fs::write(&file, token).expect("written");
    let by_file = pinned(&scene, &["--wrong-audience-token-file", &file.display().to_string()]).await;
    by_file.has_one_fault("wrong-audience-refused", OPERATOR_OF_MCP, "RFC 8707", "file");
}

#[tokio::test]
async fn a_token_for_somebody_else_that_is_accepted_too_shows_both_faults() {
    let scene = Scene::new(binary()).await;
    scene.authorization_server.always_token(TokenFault::IgnoreResource);
    scene.mcp.set_lenience(Lenience { any_audience: true, ..Lenience::default() });
    let report = pinned(&scene, &[]).await;
    assert_eq!(report.in_state("fail"), ["token-bound-to-resource", "wrong-audience-refused"]);
}

#[tokio::test]
async fn an_expired_token_can_be_handed_in() {
    let scene = Scene::new(binary()).await;
    let file = scene.safeconduct.private("expired.jwt");
    let mint = |life| scene.authorization_server.mint(json!(scene.mcp.url()), "demo:read", life);
    std::fs::write(&file, mint(Duration::ZERO)).expect("written");
    let path = file.display().to_string();
    let arguments = ["--expired-token-file", path.as_str()];
    pinned(&scene, &arguments).await.passes(&["expired-refused"]);
    scene.mcp.set_lenience(Lenience { expired: true, ..Lenience::default() });
    let report = pinned(&scene, &arguments).await;
    report.has_one_fault("expired-refused", OPERATOR_OF_MCP, "RFC 7519", "--expired-token-file");
    std::fs::write(&file, mint(Duration::from_secs(600))).expect("written");
    assert_eq!(pinned(&scene, &arguments).await.check("expired-refused")["state"], "skip");
}

#[tokio::test]
async fn the_platforms_own_token_is_not_shown_to_the_mcp_server_even_when_handed_in() {
    let scene = Scene::new(binary()).await;
    let file = scene.safeconduct.private("identity.jwt");
    std::fs::write(&file, scene.platform.mint("https://elsewhere.example", LIFE)).expect("written");
    let before = scene.mcp.seen().len();
    let report = pinned(&scene, &["--wrong-audience-token-file", &file.display().to_string()]).await;
    let check = report.check("wrong-audience-refused");
    assert_eq!(check["state"], "skip");
    assert!(check["what"].as_str().is_some_and(|what| what.contains("identity's own issuer")), "{check:#}");
    assert!(scene.mcp.seen().len() > before);
}

#[tokio::test]
async fn every_other_leniency_of_the_bearer_check_is_named() {
    let cases = [
        (Lenience { bad_signature: true, ..Lenience::default() }, "tampered-refused", "fail"),
        (Lenience { nothing: true, ..Lenience::default() }, "challenge-status", "fail"),
        (Lenience { query: true, ..Lenience::default() }, "query-token-refused", "warn"),
    ];
    for (lenience, code, state) in cases {
        let scene = Scene::new(binary()).await;
        scene.mcp.set_lenience(lenience);
        let report = pinned(&scene, &[]).await;
        assert_eq!(report.in_state(state), [code], "{:#}", report.data);
    }
}

// Challenges and documents.

#[tokio::test]
async fn challenges_that_clients_cannot_use_are_named() {
    let scene = Scene::new(binary()).await;
    let metadata = format!("resource_metadata=\"{}{INSERTED}\"", scene.mcp.base());
    let cases: [(Option<String>, &str, &str); 4] = [
        (None, "challenge-header", "fail"),
        (Some("Basic realm=\"x\"".to_owned()), "challenge-scheme", "fail"),
        (Some("Bearer resource_metadata=\"not a url\"".to_owned()), "challenge-resource-metadata", "fail"),
        (Some(format!("Bearer {metadata}")), "garbage-refused", "warn"),
    ];
    for (challenge, code, state) in cases {
        let challenges: Vec<&str> = challenge.iter().map(String::as_str).collect();
        scene.mcp.set_challenges(Some(&challenges));
        assert_eq!(pinned(&scene, &[]).await.check(code)["state"], state, "{challenge:?}");
    }
}

#[tokio::test]
async fn faults_of_the_resource_metadata_are_named() {
    let cases = [
        (json!({"resource": "https://other.example/mcp"}), "resource-identifier", "fail"),
        (json!({"resource": 7}), "resource-metadata-document", "fail"),
        (json!({"authorization_servers": []}), "authorization-servers", "fail"),
        (json!({"authorization_servers": ["https://a.example#x"]}), "authorization-servers", "fail"),
        (json!({"authorization_servers": ["https://as.elsewhere.example"]}), "issuer-chosen", "fail"),
        (json!({"bearer_methods_supported": ["body"]}), "bearer-methods", "fail"),
        (json!({"bearer_methods_supported": ["header", "query"]}), "bearer-methods", "warn"),
        (json!({"scopes_supported": null}), "scopes-published", "warn"),
        (json!({"dpop_bound_access_tokens_required": true}), "dpop-algorithms", "fail"),
    ];
    for (overrides, code, state) in cases {
        let scene = Scene::new(binary()).await;
        scene.mcp.set_metadata(overrides.clone());
        let report = pinned(&scene, &[]).await;
        assert_eq!(report.check(code)["state"], state, "{overrides}: {:#}", report.data);
    }
}

#[tokio::test]
async fn a_resource_that_is_a_prefix_is_noted() {
    let scene = Scene::new(binary()).await;
    let base = scene.mcp.base().to_owned();
    scene.mcp.set_metadata(json!({"resource": base}));
    scene.mcp.set_signposts(Signposts { header: Some(INSERTED.to_owned()), inserted: true, root: true });
    let report = pinned(&scene, &[]).await;
    assert_eq!(report.check("resource-identifier")["state"], "warn");
}

#[tokio::test]
async fn a_resource_that_is_a_prefix_and_does_not_say_so_itself_fails() {
    let scene = Scene::new(binary()).await;
    scene.mcp.set_metadata(json!({"resource": scene.mcp.base()}));
    let report = pinned(&scene, &[]).await;
    let check = report.check("resource-identifier");
    assert_eq!(check["state"], "fail", "{check:#}");
    assert_eq!(scene.authorization_server.token_requests(), 0);
}

#[tokio::test]
async fn faults_of_the_server_metadata_are_named() {
    let cases = [
        (json!({"token_endpoint": null}), "token-endpoint", "fail"),
        (json!({"token_endpoint": "http://as.example.com/token"}), "token-endpoint", "fail"),
        (json!({"issuer": null}), "server-metadata-document", "fail"),
        (json!({"grant_types_supported": ["client_credentials"]}), "grant-types", "fail"),
        (json!({"grant_types_supported": null}), "grant-types", "warn"),
        (json!({"token_endpoint_auth_methods_supported": ["private_key_jwt"]}), "client-auth-methods", "warn"),
        (json!({"revocation_endpoint": null}), "revocation-endpoint", "skip"),
    ];
    for (overrides, code, state) in cases {
        let scene = Scene::new(binary()).await;
        scene.authorization_server.set_metadata(overrides.clone());
        let report = pinned(&scene, &[]).await;
        assert_eq!(report.check(code)["state"], state, "{overrides}: {:#}", report.data);
    }
}

#[tokio::test]
async fn a_configured_client_proof_that_is_not_listed_is_noted() {
    let scene = Scene::new(binary()).await;
    scene.authorization_server.federate("agent", SUBJECT);
    scene.authorization_server.set_metadata(json!({"token_endpoint_auth_methods_supported": ["none"]}));
    let keys = "exchange = \"client-credentials\"\nclient_auth = \"workload\"\nclient_id = \"agent\"";
    let report = report(&scene.configured(keys), &["demo"]).await;
    assert_eq!(report.in_state("warn"), ["grant-types", "client-auth-methods"]);
    report.says("client-auth-methods", OPERATOR_OF_AS, "RFC 7523 section 2.2", "workload");
    report.passes(&["token-issued", "token-accepted"]);
}

#[tokio::test]
async fn no_server_metadata_anywhere_is_named() {
    let scene = Scene::new(binary()).await;
    scene.authorization_server.publish(Published { oauth: false, openid_inserted: false, openid_appended: false });
    let report = pinned(&scene, &[]).await;
    report.has_one_fault("server-metadata", OPERATOR_OF_AS, "RFC 8414", "publishes no");
}

#[tokio::test]
async fn a_server_that_publishes_nothing_is_no_fault_where_its_endpoint_is_configured() {
    let scene = Scene::new(binary()).await;
    scene.authorization_server.publish(Published { oauth: false, openid_inserted: false, openid_appended: false });
    let endpoint = format!("token_endpoint = \"{}\"", scene.authorization_server.token_endpoint());
    let report = report(&scene.configured(&endpoint), &["demo"]).await;
    assert_eq!(report.check("server-metadata")["state"], "skip");
    report.passes(&["token-issued", "token-accepted"]);
}

#[tokio::test]
async fn documents_that_are_pages_redirects_or_trouble_are_told_apart() {
    let cases = [
        (Fault::Html, "resource-metadata-document", REFUSED),
        (Fault::WrongContentType, "resource-metadata-document", REFUSED),
        (Fault::Redirect("https://login.example".to_owned()), "resource-metadata", REFUSED),
        (Fault::Status(503), "resource-metadata", TEMPORARY),
    ];
    for (fault, code, exit) in cases {
        let scene = Scene::new(binary()).await;
        scene.mcp.always_metadata(fault.clone());
        let report = discovered(&scene, &[]).await;
        assert_eq!((report.in_state("fail"), report.code), (vec![code], Some(exit)), "{fault:?}");
    }
}

#[tokio::test]
async fn a_certificate_of_an_unknown_ca_is_named() {
    let ca = TestCa::new();
    let scene = Scene::new(binary()).await;
    let mcp = FakeMcp::start_tls(&scene.authorization_server, &SCOPES, ca.good()).await;
    let report = report(&scene.safeconduct, &["--insecure-loopback", &mcp.url()]).await;
    assert_eq!((report.in_state("fail"), report.code), (vec!["mcp-https"], Some(REFUSED)));
    report.says("mcp-https", OPERATOR_OF_MCP, "Communication Security", "unknown CA");
    let config = format!("[egress]\ninsecure_loopback = true\nca_file = \"{}\"\n", ca.file().display());
    let report = self::report(&scene.safeconduct.clone().config(&config), &[&mcp.url()]).await;
    report.passes(&["mcp-https", "token-accepted"]);
}

#[tokio::test]
async fn an_endpoint_that_redirects_or_has_trouble_is_told_apart() {
    let cases = [
        (Fault::Redirect("https://login.example".to_owned()), "mcp-no-redirect", REFUSED),
        (Fault::Status(503), "mcp-reachable", TEMPORARY),
        (Fault::Status(403), "challenge-status", REFUSED),
        (Fault::Status(404), "challenge-status", REFUSED),
        (Fault::Down, "mcp-reachable", TEMPORARY),
    ];
    for (fault, code, exit) in cases {
        let scene = Scene::new(binary()).await;
        scene.mcp.script([fault.clone(), fault.clone(), fault.clone()]);
        let report = pinned(&scene, &[]).await;
        assert_eq!((report.in_state("fail"), report.code), (vec![code], Some(exit)), "{fault:?} {:#}", report.data);
    }
}

// Identity, clocks and the exchange.

#[tokio::test]
async fn without_an_identity_all_else_is_examined() {
    let scene = Scene::new(binary()).await;
    let world = Safeconduct::new(binary()).config(&scene.config(""));
    let report = report(&world, &["demo"]).await;
    assert_eq!((report.in_state("fail"), report.code), (vec!["identity-found"], Some(NO_IDENTITY)));
    assert_eq!(report.check("identity-found")["party"], "workload");
    report.passes(&["server-issuer", "garbage-refused", "authorization-on-every-request"]);
}

#[tokio::test]
async fn an_identity_token_that_may_not_leave_is_named_and_does_not_leave() {
    let cases = [
        (PlatformFault::WrongAudience, "subject-audience", NO_IDENTITY),
        (PlatformFault::ManyAudiences, "subject-audience", NO_IDENTITY),
        (PlatformFault::Expired, "subject-expiry", NO_IDENTITY),
        (PlatformFault::Claims(json!({"exp": null})), "subject-expiry", NO_IDENTITY),
        (PlatformFault::NoJwt, "subject-token", NO_IDENTITY),
    ];
    for (fault, code, exit) in cases {
        let scene = Scene::new(binary()).await;
        scene.platform.always(fault.clone());
        let report = pinned(&scene, &[]).await;
        assert_eq!((report.in_state("fail"), report.code), (vec![code], Some(exit)), "{fault:?} {:#}", report.data);
        assert_eq!(report.check(code)["party"], "platform");
        assert_eq!(scene.authorization_server.token_requests(), 0);
    }
}

#[tokio::test]
async fn a_wrong_clock_is_attributed_to_the_party_that_differs_from_the_others() {
    let scene = Scene::new(binary()).await;
    scene.mcp.set_answer_headers(&[("date", "Mon, 01 Jan 2024 00:00:00 GMT")]);
    let report = pinned(&scene, &[]).await;
    report.has_one_fault("clocks", OPERATOR_OF_MCP, "RFC 7519", "behind");
}

#[tokio::test]
async fn a_refusal_shows_the_servers_words_and_no_identity_token_is_sent_again() {
    let scene = Scene::new(binary()).await;
    scene.authorization_server.always_token(TokenFault::OauthError {
        code: "invalid_grant".to_owned(),
        description: Some("the subject is not in the trust policy".to_owned()),
        uri: None,
    });
    let report = pinned(&scene, &[]).await;
    report.has_one_fault("token-issued", OPERATOR_OF_AS, "RFC 7523", "the subject is not in the trust policy");
    let sent = scene.authorization_server.received();
    assert_eq!(sent.len(), 2, "one with each form of audience");
    assert_ne!(sent[0].params["assertion"], sent[1].params["assertion"]);
}

#[tokio::test]
async fn oddities_of_the_token_are_noted() {
    let cases = [
        (TokenFault::OpaqueToken, "token-bound-to-resource", "warn"),
        (TokenFault::NoExpiresIn, "token-lifetime", "warn"),
        (TokenFault::ExpiresIn(json!(90_000)), "token-lifetime", "warn"),
        (TokenFault::ScopeGranted(Some("demo:read".to_owned())), "token-scope", "warn"),
        (TokenFault::TokenType("mac".to_owned()), "token-issued", "fail"),
    ];
    for (fault, code, state) in cases {
        let scene = Scene::new(binary()).await;
        scene.authorization_server.always_token(fault.clone());
        let report = pinned(&scene, &[]).await;
        assert_eq!(report.check(code)["state"], state, "{fault:?} {:#}", report.data);
    }
}

#[tokio::test]
async fn a_walk_that_takes_too_long_ends_with_what_it_found() {
    let scene = Scene::new(binary()).await;
    scene.authorization_server.always_token(Fault::Stall);
    let report = pinned(&scene, &["--timeout", "6s"]).await;
    assert_eq!(report.code, Some(TEMPORARY));
    report.passes(&["server-issuer", "subject-token"]);
    assert_eq!(report.in_state("fail").len(), 1, "{:#}", report.data);
}

#[tokio::test]
async fn words_of_others_are_no_commands_to_a_runner() {
    let scene = Scene::new(binary()).await;
    scene.authorization_server.always_token(TokenFault::ControlCharsInDescription);
    for args in [&["doctor", "demo"][..], &["doctor", "demo", "--json"]] {
        let output = scene.configured("").run(args).await.expect_code(REFUSED);
        assert!(!output.stdout.contains("::") && !output.stdout.contains("##vso["), "{}", output.stdout);
        assert!(!output.stdout.contains('\u{1b}') && !output.stdout.contains('\u{202e}'), "{}", output.stdout);
    }
}

// Checks of this machine.

async fn here(world: &Safeconduct) -> Report {
    report(world, &[]).await
}

#[tokio::test]
async fn a_daemon_that_is_found_lets_this_side_pass() {
    let scene = Scene::new(binary()).await;
    let daemon = scene.daemon("").await;
    let report = here(&daemon.helper()).await;
    report.passes(&[
        "socket",
        "daemon-owner",
        "daemon-lets-us-in",
        "identity",
        "configuration",
        "loopback-proxy",
        "clock",
        "core-dumps-off",
    ]);
    assert!(report.check("daemon-lets-us-in")["what"].as_str().is_some_and(|what| what.contains("demo")));
    // A variable names the socket of the tests. Claude Code keeps that variable, Codex removes it.
    report.passes(&["helper-under-claude-code"]);
    assert_eq!(report.check("helper-under-codex")["state"], "warn");
    let cure = report.check("helper-under-codex")["cure"].to_string();
    assert!(cure.contains(&daemon.socket().display().to_string()), "{cure}");
    assert_eq!(report.code, Some(0), "{:#}", report.data);
    assert_eq!(scene.authorization_server.token_requests(), 0, "nothing is minted to look at this side");
}

#[tokio::test]
async fn without_a_daemon_the_places_are_named_and_the_identity_is_ours() {
    let scene = Scene::new(binary()).await;
    let report = here(&scene.safeconduct).await;
    assert_eq!(report.check("socket")["state"], "warn");
    assert!(report.check("socket")["what"].as_str().is_some_and(|what| what.contains("nobody listens")));
    assert_eq!(report.check("helper-under-codex")["state"], "skip");
    assert!(report.check("identity")["what"].as_str().is_some_and(|what| what.contains("github-actions")));
    assert_eq!(report.code, Some(0));
}

#[tokio::test]
async fn on_a_laptop_the_missing_identity_is_the_failure() {
    let report = here(&Safeconduct::new(binary())).await;
    assert_eq!((report.in_state("fail"), report.code), (vec!["identity"], Some(NO_IDENTITY)));
}

#[tokio::test]
async fn every_problem_of_the_configuration_is_a_check_of_its_own() {
    let scene = Scene::new(binary()).await;
    let world = scene.safeconduct.clone().config("[servers.a]\nurl = \"ftp://x\"\n[servers.b]\nuri = \"y\"\n");
    let report = here(&world).await;
    assert!(report.in_state("fail").iter().filter(|code| **code == "configuration").count() >= 2, "{:#}", report.data);
    assert_eq!(report.code, Some(CONFIG));
}

#[tokio::test]
async fn a_proxy_that_would_swallow_loopback_is_noted() {
    let scene = Scene::new(binary()).await;
    let world = scene.safeconduct.clone().env("HTTP_PROXY", "http://user:password@proxy.example:3128");
    let report = here(&world).await;
    assert_eq!(report.check("loopback-proxy")["state"], "warn");
    assert!(!report.data.to_string().contains("password"), "a proxy's URL may hold a password");
    let exempt = here(&world.env("NO_PROXY", "localhost,127.0.0.1")).await;
    exempt.passes(&["loopback-proxy"]);
}

#[tokio::test]
async fn another_program_at_the_socket_is_a_failure() {
    let scene = Scene::new(binary()).await;
    let socket = scene.safeconduct.socket();
    let listener = std::os::unix::net::UnixListener::bind(&socket).expect("bound");
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o600)).expect("ours");
    let stranger = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let (mut stream, _) = listener.accept().expect("somebody comes");
        let mut request = [0; 1024];
        let _ = stream.read(&mut request).expect("a request");
        stream.write_all(b"220 mail.example ESMTP\r\n").expect("an answer");
    });
    let report = here(&scene.safeconduct).await;
    stranger.join().expect("it has answered");
    assert_eq!((report.in_state("fail"), report.code), (vec!["socket"], Some(CONFIG)), "{:#}", report.data);
}

#[tokio::test]
async fn tokens_are_handed_in_by_file_and_flags_need_a_target() {
    let scene = Scene::new(binary()).await;
    let world = scene.configured("");
    for args in [
        &["doctor", "--expired-token-file", "/x"][..],
        &["doctor", "--issuer", "https://as.example.com"],
        &["doctor", "demo", "--expired-token-file", "/nonexistent"],
        &["doctor", "demo", "--other-resource", "not a url"],
        &["doctor", "nowhere"],
    ] {
        let output = world.run(args).await.expect_code(64);
        assert!(output.stdout.is_empty(), "{args:?}");
    }
}

#[tokio::test]
async fn a_token_of_a_discovered_issuer_that_nobody_can_read_is_not_shown_to_the_server() {
    let scene = Scene::new(binary()).await;
    scene.authorization_server.always_token(TokenFault::OpaqueToken);
    let report = discovered(&scene, &[]).await;
    report.has_one_fault("token-bound-to-resource", OPERATOR_OF_AS, "RFC 8707", "not a JWT");
    assert_eq!(report.check("token-accepted")["state"], "skip");
    assert_eq!(scene.mcp.calls(), 0);
}
