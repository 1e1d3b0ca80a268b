//! The certifier: what the authorization server demands of an identity token, with one behaviour of a server each.

use support::authorization_server::{ClientProof, FakeAs, Profile, Target, Words};
use support::keys;

use super::*;

/// Those that measure. The last row is about what is left behind.
const ROWS: &[&str] = FEDERATION.split_at(FEDERATION.len() - 1).0;

fn with(scene: &Scene, profile: Profile) {
    scene.authorization_server.set_profile(profile);
}

/// In the words of a real server, which say what it wants.
const OLD: &[Words] = &[Words {
    ours: "iat is too long ago",
    status: 400,
    code: "invalid_grant",
    text: "Token was issued too far in the past to be used now",
}];

/// `doctor` with an identity token from a file, which is given again and again.
async fn kept(scene: &Scene, overrides: &Value) -> Report {
    let world = scene.configured("");
    let file = world.private("identity.jwt");
    let issuer = scene.authorization_server.issuer();
    std::fs::write(&file, scene.platform.mint_with(&issuer, Duration::from_secs(600), overrides)).expect("ours");
    report(&world, &["demo", "--identity-file", &file.display().to_string()]).await
}

impl Report {
    fn has(&self, code: &str, state: &str, words: &str) {
        let check = self.check(code);
        assert_eq!(check["state"], state, "{check:#}");
        assert!(check["what"].as_str().is_some_and(|what| what.contains(words)), "{words}: {check:#}");
    }

    /// The row says who must act, and what to change.
    fn is_cured_by(&self, code: &str, party: &str, cure: &str) {
        let check = self.check(code);
        assert_eq!(check["party"], party, "{check:#}");
        assert!(check["cure"].as_str().is_some_and(|text| text.contains(cure)), "{cure}: {check:#}");
    }
}

#[tokio::test]
async fn what_is_seen_of_a_correct_server_is_said_with_the_number_of_requests_and_every_token_is_revoked() {
    let scene = Scene::new(binary()).await;
    let report = pinned(&scene, &[]).await;
    report.passes(ROWS);
    report.has("assertion-audience", "pass", "issuer identifier");
    report.has("assertion-age", "pass", "taken at an age of ");
    report.has("assertion-single-use", "pass", "taken once");
    report.has("assertion-typ", "pass", "\"JWT\"");
    report.has("tokens-revoked", "pass", "1 revoked");
    assert_eq!(scene.authorization_server.revocations(), 1);
    let requests = &report.data["requests"];
    assert_eq!((&requests["token_endpoint"], &requests["revocation_endpoint"]), (&json!(2), &json!(1)));
    assert_eq!(requests["mcp_server"], json!(scene.mcp.seen().iter().filter(|seen| seen.method == "POST").count()));
    let page = scene.configured("").run(&["doctor", "demo"]).await.expect_code(0).stdout;
    assert!(page.contains("requests sent: ") && page.contains("2 to token endpoint"), "{page}");
}

#[tokio::test]
async fn a_server_that_takes_its_token_endpoint_alone_is_told_from_one_that_distrusts() {
    let scene = Scene::new(binary()).await;
    let endpoint = scene.authorization_server.token_endpoint();
    with(&scene, Profile { assertion_audience: Some(endpoint.clone()), ..Profile::default() });
    for report in [pinned(&scene, &[]).await, discovered(&scene, &[]).await] {
        assert_eq!(report.in_state("fail"), ["token-issued", "assertion-audience"], "{:#}", report.data);
        report.has("assertion-audience", "fail", "taken with its token endpoint");
        report.is_cured_by("assertion-audience", OPERATOR_OF_AS, "subject_audience = \"token_endpoint\"");
        let what = report.check("assertion-age")["what"].as_str().expect("text");
        let (_, age) = what.split_once("at an age of ").expect("its age");
        let age: u32 = age.split(' ').next().and_then(|age| age.parse().ok()).expect("a number");
        assert!(age < 60, "{what}");
        assert_eq!(report.data["requests"]["token_endpoint"], 2);
        report.has("tokens-revoked", "pass", "1 revoked");
    }
    // So configured it works; that the issuer identifier is not taken stays the operator's.
    let keys = "subject_audience = \"token_endpoint\"";
    let report = report(&scene.configured(keys), &["demo"]).await;
    report.has("assertion-audience", "warn", "and not its issuer identifier");
    report.is_cured_by("assertion-audience", OPERATOR_OF_AS, "accept the issuer identifier");
    // Every one that was sent names a party that got it.
    for sent in scene.authorization_server.received() {
        let audience = sent.assertion["aud"].as_str().expect("one");
        assert!([endpoint.as_str(), &scene.authorization_server.issuer()].contains(&audience), "{audience}");
    }
}

#[tokio::test]
async fn a_server_that_distrusts_is_asked_once_with_either_form() {
    let scene = Scene::new(binary()).await;
    with(&scene, Profile { linked: Some(Vec::new()), ..Profile::default() });
    let report = pinned(&scene, &[]).await;
    assert_eq!(report.in_state("fail"), ["token-issued"]);
    report.has("assertion-audience", "note", "it is not this alone");
    assert!(
        report.check("token-issued")["what"].as_str().is_some_and(|what| what.contains(SUBJECT)),
        "what was presented"
    );
    assert_eq!(scene.authorization_server.token_requests(), 2);
    // A token from a file has one audience.
    let report = kept(&scene, &Value::Null).await;
    report.has("assertion-audience", "note", "for one audience");
    assert_eq!(scene.authorization_server.token_requests(), 3);
}

#[tokio::test]
async fn single_use_is_the_workloads_matter_where_the_platform_keeps_its_token() {
    let scene = Scene::new(binary()).await;
    let report = kept(&scene, &Value::Null).await;
    report.has("assertion-single-use", "warn", "taken once");
    report.is_cured_by("assertion-single-use", "workload", "mints anew");
    with(&scene, Profile { jti_optional: true, ..Profile::default() });
    let report = kept(&scene, &json!({"jti": null})).await;
    report.has("assertion-single-use", "pass", "taken twice");
    report.has("tokens-revoked", "pass", "2 revoked");
    // Where each is new, a server that takes one twice lets a stolen one in.
    scene.platform.always(PlatformFault::Claims(json!({"jti": null})));
    let report = pinned(&scene, &[]).await;
    report.has("assertion-single-use", "warn", "taken twice");
    report.is_cured_by("assertion-single-use", OPERATOR_OF_AS, "remember each `jti`");
}

#[tokio::test]
async fn the_age_is_that_of_the_token_that_is_held_and_never_guessed() {
    let scene = Scene::new(binary()).await;
    #[expect(clippy::cast_possible_truncation, reason = "a date")]
    let then = keys::now() as i64 - 214;
    let old = json!({"iat": then, "nbf": then});
    let report = kept(&scene, &old).await;
    report.has("assertion-age", "pass", "taken at an age of 21");
    let oldest_assertion = Some(Duration::from_secs(60));
    with(&scene, Profile { oldest_assertion, words: OLD, ..Profile::default() });
    let report = kept(&scene, &old).await;
    report.has("assertion-age", "fail", "at an age of 21");
    report.is_cured_by("assertion-age", "workload", "mints anew");
    report.has("assertion-audience", "note", "not seen to be the cause");
    // Without words of the server it stays a note.
    with(&scene, Profile { oldest_assertion, ..Profile::default() });
    kept(&scene, &old).await.has("assertion-age", "note", "at an age of 21");
}

#[tokio::test]
async fn a_server_that_demands_a_typ_is_named() {
    let scene = Scene::new(binary()).await;
    with(&scene, Profile { wants_typ: Some("wit+jwt"), ..Profile::default() });
    let report = pinned(&scene, &[]).await;
    report.has("assertion-typ", "fail", "\"JWT\"");
    report.is_cured_by("assertion-typ", OPERATOR_OF_AS, "must take the platform's");
    assert_eq!(scene.authorization_server.token_requests(), 1, "another audience would not help");
}

#[tokio::test]
async fn a_resource_is_taken_ignored_or_refused() {
    let scene = Scene::new(binary()).await;
    scene.authorization_server.always_token(TokenFault::IgnoreResource);
    pinned(&scene, &[]).await.has("resource-parameter", "note", "ignored");
    scene.authorization_server.heal();
    let (target, scopes) = (Target::Fixed(scene.mcp.url()), &SCOPES[..]);
    with(&scene, Profile { refuses_resource: true, target, scopes, ..Profile::default() });
    let report = pinned(&scene, &[]).await;
    report.has("resource-parameter", "fail", "without `resource` a token is issued");
    report.is_cured_by("resource-parameter", OPERATOR_OF_AS, "resource = \"\"");
    report.has("tokens-revoked", "pass", "1 revoked");
    let omitted = self::report(&scene.configured("resource = \"\""), &["demo"]).await;
    omitted.has("resource-parameter", "note", "not sent");
}

#[tokio::test]
async fn a_token_without_audience_and_one_that_lives_on_are_named() {
    let scene = Scene::new(binary()).await;
    with(&scene, Profile { token_audience: Some(Value::Null), ..Profile::default() });
    let report = pinned(&scene, &[]).await;
    report.has("token-bound-to-resource", "warn", "names no audience");
    report.has("resource-parameter", "note", "does not show for whom");
    with(&scene, Profile::default());
    scene.authorization_server.set_token_life(Duration::from_secs(90_000));
    let report = pinned(&scene, &[]).await;
    report.has("token-lifetime", "warn", "90000 s");
    report.has("token-outlives-identity", "warn", "lives 90000 s");
    report.is_cured_by("token-outlives-identity", OPERATOR_OF_AS, "end the access token");
}

#[tokio::test]
async fn what_cannot_be_measured_is_a_note_that_says_why() {
    let scene = Scene::new(binary()).await;
    let world = Safeconduct::new(binary()).config(&scene.config(""));
    let report = report(&world, &["demo"]).await;
    for row in ROWS {
        report.has(row, "note", "no identity token");
    }
    assert_eq!(
        (report.check("tokens-revoked")["state"].as_str(), report.data["notes"].as_u64()),
        (Some("skip"), Some(6))
    );
    scene.authorization_server.set_metadata(json!({"revocation_endpoint": null}));
    pinned(&scene, &[]).await.has("tokens-revoked", "skip", "lapse");
}

/// An identity provider between the platform and the server, and `doctor` with its token.
async fn enterprise(scene: &Scene, source: &str) -> (FakeAs, Report) {
    let idp = FakeAs::start(scene.platform.trust()).await;
    idp.set_audience(&scene.authorization_server.issuer());
    scene.authorization_server.trust_only(idp.trust());
    let keys = format!("exchange = \"id-jag\"\nidp = {{ issuer = \"{}\" }}\n", idp.issuer());
    let world = scene.configured(&keys);
    let file = world.private("identity.jwt");
    std::fs::write(&file, scene.platform.mint_with(&idp.issuer(), Duration::from_secs(600), &Value::Null))
        .expect("ours");
    let file = file.display().to_string();
    let args: &[&str] = if source == "file" { &["demo", "--identity-file", &file] } else { &["demo"] };
    let report = report(&world, args).await;
    (idp, report)
}

#[tokio::test]
async fn of_a_chain_the_rows_describe_what_the_server_got_or_nothing() {
    let scene = Scene::new(binary()).await;
    with(&scene, Profile { wants_typ: Some("no such"), ..Profile::default() });
    let (idp, report) = enterprise(&scene, "platform").await;
    assert_eq!(report.in_state("fail"), ["token-issued"], "{:#}", report.data);
    for row in ROWS {
        report.has(row, "note", "a chain of identities leads there");
    }
    assert_eq!((idp.token_requests(), scene.authorization_server.token_requests()), (1, 1));
    assert_eq!(report.data["requests"]["token_endpoint"], 2, "links are counted");
    // The link mints anew, whatever the platform does.
    with(&scene, Profile::default());
    let (_idp, report) = enterprise(&scene, "file").await;
    report.has("assertion-single-use", "pass", "taken once");
    assert_eq!(report.data["requests"]["token_endpoint"], 3);
    report.has("tokens-revoked", "pass", "1 revoked");
}

#[tokio::test]
async fn a_wrong_secret_is_not_sent_a_second_time() {
    let scene = Scene::new(binary()).await;
    scene.authorization_server.add_client("agent", ClientProof::Basic("the right secret".to_owned()));
    let file = scene.safeconduct.private("secret");
    std::fs::write(&file, "a wrong secret").expect("ours");
    let keys = format!("client_id = \"agent\"\nclient_auth = \"secret\"\nclient_secret_file = \"{}\"", file.display());
    let report = report(&scene.configured(&keys), &["demo"]).await;
    report.has("assertion-audience", "note", "invalid_client");
    assert_eq!(scene.authorization_server.token_requests(), 1);
}

#[tokio::test]
async fn a_proof_of_the_client_that_is_spent_is_not_sent_to_revoke() {
    let scene = Scene::new(binary()).await;
    scene.authorization_server.federate("agent", SUBJECT);
    let world =
        scene.configured("exchange = \"client-credentials\"\nclient_auth = \"workload\"\nclient_id = \"agent\"");
    let file = world.private("identity.jwt");
    let issuer = scene.authorization_server.issuer();
    std::fs::write(&file, scene.platform.mint(&issuer, Duration::from_secs(600))).expect("ours");
    let report = report(&world, &["demo", "--identity-file", &file.display().to_string()]).await;
    report.has("assertion-single-use", "warn", "taken once");
    report.has("tokens-revoked", "note", "proof is spent");
    assert_eq!(report.check("tokens-revoked")["party"], "workload");
    assert_eq!(
        (scene.authorization_server.revocations(), &report.data["requests"]["revocation_endpoint"]),
        (0, &json!(0))
    );
}

#[tokio::test]
async fn what_was_issued_is_revoked_when_the_time_is_over() {
    let scene = Scene::new(binary()).await;
    scene.authorization_server.script_token([TokenFault::ExpiresIn(json!(300))]);
    scene.authorization_server.always_token(Fault::Stall);
    let report = pinned(&scene, &["--timeout", "5s"]).await;
    report.has("assertion-single-use", "note", "not seen");
    report.has("tokens-revoked", "pass", "1 revoked");
    assert_eq!((scene.authorization_server.revocations(), report.code), (1, Some(0)));
    // A revocation endpoint that does not answer is a warning, and takes no time of the rest.
    let silent = FakeAs::start(scene.platform.trust()).await;
    silent.always_token(Fault::Stall);
    scene.authorization_server.heal();
    scene.authorization_server.set_metadata(json!({"revocation_endpoint": silent.token_endpoint()}));
    let report = pinned(&scene, &[]).await;
    assert_eq!((report.in_state("warn"), report.code), (vec!["tokens-revoked"], Some(0)), "{:#}", report.data);
    report.has("tokens-revoked", "warn", "0 of 1 revoked");
}
