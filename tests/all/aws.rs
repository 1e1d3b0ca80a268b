//! A workload on AWS, a role for a workload elsewhere, and servers behind IAM: the examples of `examples/config/aws*.toml` from
//! the environment to the token, and what somebody would get wrong first.
//!
//! The account is `FakeAws`, which verifies every JWT and every signature that it gets.

use std::time::Duration;

use serde_json::{Value, json};
use support::aws::{FakeAws, REGION, ROLE, SERVICE};
use support::google::{AGENT, FakeGoogle, PROVIDER, external_account};
use support::platform::SUBJECT;
use support::safeconduct::{Output, Safeconduct};
use support::scene::Scene;
use support::unix_http::Reply;
use support::{keys, sigv4, tcp_http};

use crate::exit::{CONFIG, DENIED, NO_IDENTITY, REFUSED, TEMPORARY};
use crate::{binary, example};

/// Replaces `from`, which must be present.
fn with(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from:?} is not in\n{text}");
    text.replace(from, to)
}

fn tells(output: &Output, words: &[&str], hint: &[&str]) {
    let told = output.stderr.split("safeconduct: error: ").nth(1).unwrap_or_default();
    let (error, cure) = told.split_once("safeconduct: hint: ").unwrap_or_default();
    for (wanted, found) in words.iter().map(|word| (word, error)).chain(hint.iter().map(|word| (word, cure))) {
        assert!(found.contains(wanted), "{wanted:?} is not where it belongs in\n{}", output.stderr);
    }
}

/// A container with a role, and an authorization server that trusts the account.
async fn container() -> (Scene, FakeAws, Safeconduct) {
    let scene = Scene::new(binary()).await;
    let aws = FakeAws::start().await;
    scene.authorization_server.trust_only(aws.trust());
    let world = Safeconduct::new(binary()).envs(aws.container()).config(&example::in_scene(&scene, "aws", ""));
    (scene, aws, world)
}

#[tokio::test]
async fn a_role_becomes_a_jwt_for_the_authorization_server() {
    let (scene, aws, world) = container().await;
    let token = world.run(&["token", "demo"]).await.expect_code(0).stdout;
    assert_eq!(keys::peek(token.trim())["aud"], json!(scene.mcp.url()));
    let sent = scene.authorization_server.last_request().assertion;
    assert_eq!((&sent["iss"], &sent["sub"]), (&json!(aws.base()), &json!(ROLE)));
    let calls = aws.calls();
    assert_eq!(calls.len(), 1, "{calls:?}");
    let call = &calls[0];
    assert_eq!((&*call["SigningAlgorithm"], &*call["DurationSeconds"], &*call["outcome"]), ("RS256", "300", "ok"));
    assert_eq!(call["Audience.member.1"], scene.authorization_server.issuer());
}

#[tokio::test]
async fn a_refusal_of_the_account_names_its_cure() {
    let (scene, aws, world) = container().await;
    aws.switch(false);
    let output = world.run(&["token", "demo"]).await.expect_code(NO_IDENTITY);
    tells(&output, &["OutboundWebIdentityFederationDisabled"], &["aws iam enable-outbound-web-identity-federation"]);
    aws.switch(true);
    aws.allow(false);
    let output = world.run(&["token", "demo"]).await.expect_code(NO_IDENTITY);
    tells(&output, &["AccessDenied", "is not authorized"], &["sts:GetWebIdentityToken"]);
    assert_eq!(scene.authorization_server.token_requests(), 0);
    // The issuer that is trusted is another account's.
    aws.allow(true);
    scene.authorization_server.trust_only(FakeAws::start().await.trust());
    let output = world.run(&["token", "demo"]).await.expect_code(REFUSED);
    tells(&output, &["invalid_grant"], &["trust policy", "safeconduct whoami"]);
}

#[tokio::test]
async fn a_token_never_outlives_the_session_of_its_role() {
    let (scene, aws, world) = container().await;
    aws.set_session_life(Duration::from_secs(150));
    world.run(&["token", "demo"]).await.expect_code(0);
    let asked: u64 = aws.calls()[0]["DurationSeconds"].parse().expect("a number");
    assert!((100..=150).contains(&asked), "{asked}");
    // STS has a minimum lifetime. If the session has less left, we wait for the platform's next credentials.
    aws.set_session_life(Duration::from_secs(30));
    let output = world.run(&["token", "demo", "--timeout", "5s"]).await.expect_code(TEMPORARY);
    tells(&output, &["end within a minute"], &["clock"]);
    assert_eq!((aws.calls().len(), scene.authorization_server.token_requests()), (1, 1));
}

#[tokio::test]
async fn a_machine_is_a_role_only_when_it_is_named() {
    let scene = Scene::new(binary()).await;
    let aws = FakeAws::start().await;
    scene.authorization_server.trust_only(aws.trust());
    let text = with(&example::in_scene(&scene, "aws", ""), "region = \"eu-central-1\"", "");
    let machine = Safeconduct::new(binary())
        .env("AWS_EC2_METADATA_SERVICE_ENDPOINT", aws.base())
        .env("AWS_ENDPOINT_URL_STS", aws.base());
    machine.clone().config(&text).run(&["token", "demo"]).await.expect_code(0);
    assert_eq!(scene.authorization_server.last_request().assertion["sub"], json!(ROLE));
    let unnamed = with(&text, "[identity]\nsource = \"aws\"", "");
    let output = machine.config(&unnamed).run(&["token", "demo"]).await.expect_code(NO_IDENTITY);
    tells(&output, &["no workload identity here"], &["safeconduct whoami"]);
}

/// A job of the CI platform, and an authorization server that trusts an AWS role.
async fn chain() -> (Scene, FakeAws, String) {
    let scene = Scene::new(binary()).await;
    let aws = FakeAws::start().await;
    scene.authorization_server.trust_only(aws.trust());
    aws.trust_identities(scene.platform.trust(), SUBJECT);
    let sts = format!("region = \"eu-central-1\"\nendpoint = \"{}\"", aws.base());
    let text = with(&example::in_scene(&scene, "aws-role", ""), "region = \"eu-central-1\"", &sts);
    (scene, aws, text)
}

#[tokio::test]
async fn a_job_takes_on_a_role_and_the_role_is_its_identity() {
    let (scene, aws, text) = chain().await;
    let world = scene.safeconduct.clone().config(&text);
    world.run(&["token", "demo"]).await.expect_code(0);
    assert_eq!(scene.platform.audiences(), ["sts.amazonaws.com"], "the job's JWT is for STS alone");
    let sent = scene.authorization_server.last_request().assertion;
    assert_eq!((&sent["iss"], &sent["sub"]), (&json!(aws.base()), &json!(ROLE)));
    let actions: Vec<String> = aws.calls().iter().map(|call| call["Action"].clone()).collect();
    assert_eq!(actions, ["AssumeRoleWithWebIdentity", "GetWebIdentityToken"]);
}

#[tokio::test]
async fn a_role_that_does_not_trust_the_job_is_told_with_its_cure() {
    let (scene, aws, text) = chain().await;
    aws.trust_identities(scene.platform.trust(), "repo:octo-org/other:ref:refs/heads/main");
    let world = scene.safeconduct.clone().config(&text);
    let output = world.run(&["token", "demo"]).await.expect_code(REFUSED);
    let words = ["AccessDenied", "Not authorized to perform sts:AssumeRoleWithWebIdentity"];
    tells(&output, &words, &["trust policy", "whoami --audience sts.amazonaws.com"]);
    // The account trusts only another issuer.
    aws.trust_identities(aws.trust(), SUBJECT);
    let output = world.run(&["token", "demo"]).await.expect_code(REFUSED);
    tells(&output, &["InvalidIdentityToken"], &["identity provider"]);
    assert_eq!(aws.calls().len(), 2, "one attempt each");
    aws.trust_identities(scene.platform.trust(), SUBJECT);
    aws.switch(false);
    let output = world.run(&["token", "demo"]).await.expect_code(REFUSED);
    tells(&output, &["OutboundWebIdentityFederationDisabled"], &["enable-outbound-web-identity-federation"]);
    assert_eq!(scene.authorization_server.token_requests(), 0);
}

#[tokio::test]
async fn an_identity_for_another_party_does_not_go_to_sts() {
    let (scene, aws, text) = chain().await;
    scene.platform.script([support::platform::PlatformFault::WrongAudience]);
    let output = scene.safeconduct.clone().config(&text).run(&["token", "demo"]).await.expect_code(NO_IDENTITY);
    tells(&output, &["https://somebody-else.example", "sts.amazonaws.com"], &[]);
    assert!(aws.calls().is_empty());
}

#[tokio::test]
async fn contradictions_about_roles_are_configuration_errors() {
    let (scene, aws, text) = chain().await;
    let endpoint = format!("endpoint = \"{}\"", aws.base());
    let linked = with(&text, "identity = \"role\"", "exchange = \"aws-role\"");
    let global = with(&text, "\"eu-central-1\"", "\"aws-global\"");
    let user = with(&text, "role/agent", "user/agent").replace(":role/", ":user/");
    let foreign = with(&text, &endpoint, "endpoint = \"https://sts.example.com\"");
    let plain = with(&text, &endpoint, "endpoint = \"http://sts.eu-central-1.amazonaws.com\"");
    for (text, words) in [
        (linked, ["servers.demo.exchange", "changes an identity and gives no access token"]),
        (global, ["identities.role.region", "not a region"]),
        (user, ["identities.role.role_arn", "not the ARN of a role"]),
        (foreign, ["identities.role.endpoint", "must be an https host of AWS"]),
        (plain, ["identities.role.endpoint", "must be an https host of AWS"]),
    ] {
        let output = scene.safeconduct.clone().config(&text).run(&["token", "demo"]).await.expect_code(CONFIG);
        tells(&output, &words, &[]);
    }
    assert!(aws.calls().is_empty() && scene.platform.requests() == 0);
}

const BODY: &str = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"deploy"}}"#;

/// A server behind IAM. The keys replace `[identity]` and `region` of the example.
fn signed(scene: &Scene, aws: &FakeAws, identity: &str, more: &str) -> String {
    let text = example::in_scene(scene, "aws-sigv4", "");
    let url = "https://gateway-1.gateway.bedrock-agentcore.eu-central-1.amazonaws.com/mcp";
    let text = with(&text, url, &aws.mcp_url());
    let text = with(&text, "[identity]\nsource = \"aws\"\n", identity);
    with(&text, "region = \"eu-central-1\"", &format!("region = \"{REGION}\"\n{more}"))
}

fn query(url: &str, body: &str) -> String {
    let query = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs([
            ("server", "demo"),
            ("method", "POST"),
            ("url", url),
            ("body_sha256", &sigv4::sha256(body.as_bytes())),
        ])
        .finish();
    format!("/v1/headers?{query}")
}

/// Sends a request with the headers of the daemon.
async fn send(aws: &FakeAws, target: &str, headers: &Value, body: &str) -> Reply {
    let address = aws.base().trim_start_matches("http://");
    let mut request = format!("POST {target} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n");
    for (name, values) in headers.as_object().expect("a map of lists") {
        request.push_str(&format!("{name}: {}\r\n", values[0].as_str().expect("a text")));
    }
    request.push_str(&format!("content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len()));
    tcp_http::exchange(address.parse().expect("an address"), &request).await.expect("an answer")
}

#[tokio::test]
async fn each_request_to_a_server_behind_iam_is_signed() {
    let scene = Scene::new(binary()).await;
    let aws = FakeAws::start().await;
    let text = signed(&scene, &aws, "[identity]\nsource = \"aws\"\n", "");
    let world = Safeconduct::new(binary()).envs(aws.container()).config(&text);
    let daemon = world.daemon(&[]).await;
    for target in ["/mcp", "/mcp/a%20b?z=1&a=%2F"] {
        let reply = daemon.get(&query(&format!("{}{target}", aws.base()), BODY)).await;
        assert_eq!(reply.status, 200, "{}", reply.body);
        let headers = reply.json()["headers"].clone();
        let names: Vec<&String> = headers.as_object().expect("a map").keys().collect();
        assert_eq!(names, ["Authorization", "X-Amz-Content-Sha256", "X-Amz-Date", "X-Amz-Security-Token"]);
        let taken = send(&aws, target, &headers, BODY).await;
        assert_eq!((taken.status, &taken.json()["id"]), (200, &json!(7)), "{}", taken.body);

        // The server refuses these headers for another request.
        let other = BODY.replace("deploy", "delete");
        let refused = send(&aws, target, &headers, &other).await;
        assert_eq!(refused.status, 403, "another body: {}", refused.body);
        let refused = send(&aws, "/mcp/other", &headers, BODY).await;
        assert_eq!(refused.status, 403, "another path: {}", refused.body);
        let refused =
            send(&aws, &format!("{target}{}x=1", if target.contains('?') { "&" } else { "?" }), &headers, BODY).await;
        assert_eq!(refused.status, 403, "another query: {}", refused.body);
        let mut late = headers.clone();
        late["X-Amz-Date"] = json!(["20200101T000000Z"]);
        let refused = send(&aws, target, &late, BODY).await;
        assert!(refused.status == 403 && refused.body.contains("expired"), "another time: {}", refused.body);
        let mut changed = headers.clone();
        changed["X-Amz-Content-Sha256"] = json!([sigv4::sha256(other.as_bytes())]);
        let refused = send(&aws, target, &changed, &other).await;
        assert_eq!(refused.status, 403, "another body with its own digest: {}", refused.body);
    }
    assert_eq!(aws.served(), [BODY, BODY]);
    assert!(aws.calls().is_empty(), "STS is not asked where the platform gives the credentials");
    assert_eq!(scene.authorization_server.token_requests() + scene.authorization_server.metadata_requests(), 0);
}

#[tokio::test]
async fn there_is_no_token_and_no_half_signed_request() {
    let scene = Scene::new(binary()).await;
    let aws = FakeAws::start().await;
    let text = signed(&scene, &aws, "[identity]\nsource = \"aws\"\n", "");
    let world = Safeconduct::new(binary()).envs(aws.container()).config(&text);
    let output = world.run(&["token", "demo", "--no-daemon"]).await.expect_code(DENIED);
    tells(&output, &["has no token"], &["/v1/headers", "body_sha256"]);
    world.run(&["headers", "demo", "--no-daemon"]).await.expect_code(DENIED);
    let output = world.run(&["exec", "--no-daemon", "--env", "demo", "--", "true"]).await.expect_code(DENIED);
    tells(&output, &["has no token"], &[]);
    let temp = world.private("runner");
    std::fs::create_dir_all(&temp).expect("it is ours");
    let (temp, file) = (temp.display().to_string(), world.private("output").display().to_string());
    let job = world.clone().without_env("SAFECONDUCT_SOCKET").env("RUNNER_TEMP", &temp);
    let job = job.env("GITHUB_ACTIONS", "true").env("GITHUB_OUTPUT", &file);
    let output = job.run(&["ci", "demo"]).await.expect_code(DENIED);
    tells(&output, &["has no token"], &[]);
    let daemon = world.daemon(&[]).await;
    let whole = query(&aws.mcp_url(), BODY);
    let digest = format!("&body_sha256={}", sigv4::sha256(BODY.as_bytes()));
    for (path, status, code) in [
        ("/v1/token?server=demo".to_owned(), 403, "no_token"),
        ("/v1/headers?server=demo".to_owned(), 403, "no_token"),
        (whole.replace(&digest, ""), 400, "invalid_request"),
        (whole.replace(&digest, "&body_sha256=abc"), 400, "invalid_request"),
        (whole.replace(&digest, &format!("&body_sha256={}", "g".repeat(64))), 400, "invalid_request"),
        (query("https://somebody-else.example/mcp", BODY), 403, "access_denied"),
        (query(aws.base(), BODY), 403, "access_denied"),
    ] {
        let reply = daemon.get(&path).await;
        assert_eq!((reply.status, &reply.json()["error"]), (status, &json!(code)), "{path}: {}", reply.body);
    }
    assert!(aws.served().is_empty());
}

#[tokio::test]
async fn a_job_elsewhere_signs_as_the_role_it_takes_on() {
    let scene = Scene::new(binary()).await;
    let aws = FakeAws::start().await;
    aws.trust_identities(scene.platform.trust(), SUBJECT);
    let more = format!("role_arn = \"{ROLE}\"\nendpoint = \"{}\"", aws.base());
    let record = scene.safeconduct.private("audit.jsonl");
    let audit = format!("\n[audit]\nfile = {record:?}\n");
    let text = signed(&scene, &aws, "", &more) + &audit;
    let daemon = scene.safeconduct.clone().config(&text).daemon(&[]).await;
    let reply = daemon.get(&query(&aws.mcp_url(), BODY)).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    let taken = send(&aws, "/mcp", &reply.json()["headers"], BODY).await;
    assert_eq!(taken.status, 200, "{}", taken.body);
    assert_eq!(scene.platform.audiences(), ["sts.amazonaws.com"]);
    // The credentials are cached: another request needs no call.
    daemon.get(&query(&aws.mcp_url(), "{}")).await;
    assert_eq!(aws.calls().len(), 1);
    let record = std::fs::read_to_string(&record).expect("it is there");
    assert!(record.contains(SUBJECT) && record.contains("assumed-role/agent/safeconduct"), "{record}");
}

#[tokio::test]
async fn doctor_shows_whose_credentials_sign() {
    let scene = Scene::new(binary()).await;
    let aws = FakeAws::start().await;
    aws.trust_identities(scene.platform.trust(), SUBJECT);
    let more = format!("role_arn = \"{ROLE}\"\nendpoint = \"{}\"", aws.base());
    let elsewhere = scene.safeconduct.clone().config(&signed(&scene, &aws, "", &more));
    let here = Safeconduct::new(binary()).envs(aws.container());
    let here = here.config(&signed(&scene, &aws, "[identity]\nsource = \"aws\"\n", ""));
    for (world, who) in [(elsewhere, "assumed-role/agent/safeconduct"), (here, "the workload's own role")] {
        let output = world.run(&["doctor", "demo", "--json"]).await;
        let told = &output.stdout;
        assert!(told.contains("credentials to sign with") && told.contains(who), "{told}\n{}", output.stderr);
        assert!(told.contains("nobody issues a token"), "{told}");
        assert!(told.contains("assertion-single-use") && told.contains("no authorization server is asked"), "{told}");
    }
}

#[tokio::test]
async fn a_workload_without_a_role_is_told_how_to_get_one() {
    let scene = Scene::new(binary()).await;
    let aws = FakeAws::start().await;
    let text = signed(&scene, &aws, "", "");
    let daemon = scene.safeconduct.clone().config(&text).daemon(&[]).await;
    let reply = daemon.get(&query(&aws.mcp_url(), BODY)).await;
    assert_eq!((reply.status, &reply.json()["class"]), (500, &json!("config")), "{}", reply.body);
    assert!(reply.json()["hint"].as_str().is_some_and(|hint| hint.contains("`role_arn`")), "{}", reply.body);
    daemon.stop().await;
    for (more, words) in [
        ("scopes = [\"a\"]", ["servers.demo.scopes", "there is no token"]),
        ("client_id = \"agent\"", ["servers.demo.client_id", "there is no token"]),
        ("dpop = true", ["servers.demo.dpop", "asks the provider's own hosts"]),
    ] {
        let text = signed(&scene, &aws, "", more);
        let output = scene.safeconduct.clone().config(&text).run(&["token", "demo"]).await.expect_code(CONFIG);
        tells(&output, &words, &[]);
    }
    let nothing = with(&signed(&scene, &aws, "", ""), &format!("service = \"{SERVICE}\"\n"), "");
    let output = scene.safeconduct.clone().config(&nothing).run(&["token", "demo"]).await.expect_code(CONFIG);
    tells(&output, &["\"aws-sigv4\" needs it"], &[]);
}

/// Google, with a provider of type AWS that admits the role.
async fn google(scene: &Scene, aws: &FakeAws) -> FakeGoogle {
    let google = FakeGoogle::start(scene.platform.trust()).await;
    google.trust_aws(aws.caller(true));
    google.grant(&FakeGoogle::principal(ROLE), AGENT);
    google
}

#[tokio::test]
async fn a_signed_request_stands_for_a_role_at_google() {
    let (scene, aws, world) = container().await;
    // The account gives no JWT.
    aws.switch(false);
    let google = google(&scene, &aws).await;
    let line = "exchange = \"gcp\"\n";
    let text = example::in_scene(&scene, "gcp-from-aws", &google.egress());
    let run = |text: &str| {
        let world = world.clone().config(text);
        async move { world.run(&["token", "demo"]).await }
    };
    let token = run(&text).await.expect_code(0).stdout;
    assert_eq!(google.verify(token.trim())["email"], json!(AGENT));
    assert_eq!(google.last_form()["subject_token_type"], "urn:ietf:params:aws:token-type:aws4_request");
    assert_eq!(aws.calls(), Vec::new(), "Google asks STS, we do not");
    // A request for another verifier is refused.
    let named = with(&text, line, &format!("{line}subject_audience = \"https://elsewhere.example\"\n"));
    let output = run(&named).await.expect_code(REFUSED);
    tells(&output, &["invalid_grant", "names another"], &[]);
    let other =
        with(&text, "\"caller-identity\"", "\"caller-identity\"\naudience_field = \"x-vault-aws-iam-server-id\"");
    let output = run(&other).await.expect_code(REFUSED);
    tells(&output, &["invalid_grant"], &[]);
    // Another role than the admitted one.
    google.trust_aws(|_, _, _| Ok("arn:aws:iam::123456789012:role/other".to_owned()));
    let output = run(&text).await.expect_code(REFUSED);
    tells(&output, &["PERMISSION_DENIED"], &["roles/iam.workloadIdentityUser"]);
}

#[tokio::test]
async fn a_signed_request_goes_only_where_it_is_called_one() {
    let (scene, aws, world) = container().await;
    const FIELD: &str = "x-vault-aws-iam-server-id";
    scene.authorization_server.trust_aws(FIELD, aws.caller(true));
    let named = format!("token = \"caller-identity\"\naudience_field = \"{FIELD}\"\n\n[servers.demo]");
    let text = with(&example::in_scene(&scene, "aws", ""), "\n[servers.demo]", &named);
    let exchange = |name: &str, more: &str| {
        with(&text, "[servers.demo]", &format!("[servers.demo]\nexchange = \"{name}\"\n{more}"))
    };
    world.clone().config(&exchange("token-exchange", "")).run(&["token", "demo"]).await.expect_code(0);
    assert_eq!((aws.calls().len(), scene.authorization_server.token_requests()), (0, 1));
    let proof = "client_auth = \"workload\"\nclient_id = \"agent\"\n";
    let pin = format!("issuer = \"{}\"", scene.authorization_server.issuer());
    let elsewhere = [
        text.clone(),
        exchange("token-exchange", proof),
        exchange("client-credentials", proof),
        with(&text, &pin, "exchange = \"direct\"\nsubject_audience = \"https://mcp.example.com\""),
    ];
    for text in elsewhere {
        let output = world.clone().config(&text).run(&["token", "demo"]).await.expect_code(CONFIG);
        assert!(output.stderr.contains("servers.demo.identity: is a signed request of AWS"), "{output:?}");
        // If the command line chooses the identity, the error comes just before the token is sent.
        let role = world.clone().config(&with(&text, "[identity]\n", "[identities.role]\n"));
        let output = role.run(&["token", "demo", "--identity", "role"]).await.expect_code(NO_IDENTITY);
        tells(&output, &["a signed request of AWS", "a JWT is wanted"], &["leave `token` out", "get-caller-identity"]);
        let policy = ["trust-policy", "--for", "generic", "demo", "--identity", "role"];
        let output = role.run(&policy).await.expect_code(NO_IDENTITY);
        tells(&output, &["a signed request of AWS"], &["get-caller-identity"]);
    }
    assert_eq!(scene.authorization_server.token_requests(), 1, "nothing else left");
    // As a link of a chain: the first party accepts the request and returns a JWT for the next.
    let issuer = scene.authorization_server.issuer();
    let link = format!(
        "[identities.job]\nfrom = \"default\"\nexchange = \"token-exchange\"\nissuer = \"{issuer}\"\nsubject_token_type = \"id_token\"\n\n[servers.demo]\nidentity = \"job\"\n"
    );
    world.clone().config(&with(&text, "[servers.demo]\n", &link)).run(&["token", "demo"]).await.expect_code(REFUSED);
    let asked = scene.authorization_server.last_request().params;
    assert_eq!(asked["subject_token_type"], "urn:ietf:params:aws:token-type:aws4_request", "whatever is said of JWTs");
}

#[tokio::test]
async fn contradictions_about_signed_requests_are_configuration_errors() {
    let (scene, _aws, world) = container().await;
    for (code, lines, words) in [
        (CONFIG, "token = \"request\"", "must be \"jwt\" or \"caller-identity\""),
        (NO_IDENTITY, "token = \"caller-identity\"\nsigning_algorithm = \"ES384\"", "`signing_algorithm` is of a JWT"),
        (NO_IDENTITY, "audience_field = \"x-verifier\"", "`audience_field` has no effect"),
        (CONFIG, "token = \"caller-identity\"\naudience_field = \"x-amz-date\"", "a field of the verifier's own"),
        (CONFIG, "token = \"caller-identity\"\naudience_field = \"host\"", "a field of the verifier's own"),
        (CONFIG, "token = \"caller-identity\"\naudience_field = \"x-a: b\"", "a field of the verifier's own"),
    ] {
        let more = format!("{lines}\n\n[servers.demo]\nexchange = \"token-exchange\"");
        let text = with(&example::in_scene(&scene, "aws", ""), "\n[servers.demo]", &more);
        let output = world.clone().config(&text).run(&["token", "demo"]).await.expect_code(code);
        assert!(output.stderr.contains(words), "{lines}: {output:?}");
    }
    assert_eq!(scene.authorization_server.token_requests(), 0);
}

#[tokio::test]
async fn an_external_account_file_of_aws() {
    let (scene, aws, world) = container().await;
    let google = google(&scene, &aws).await;
    scene.authorization_server.trust_only(google.trust());
    support::profiles::of_google(&scene);
    let source = json!({
        "environment_id": "aws1",
        "region_url": "http://169.254.169.254/latest/meta-data/placement/availability-zone",
        "url": "http://169.254.169.254/latest/meta-data/iam/security-credentials",
        "regional_cred_verification_url":
            "https://sts.{region}.amazonaws.com?Action=GetCallerIdentity&Version=2011-06-15",
        "imdsv2_session_token_url": "http://169.254.169.254/latest/api/token",
    });
    let file = world.private("google.json");
    let write = |subject_type: &str, source: &Value| {
        std::fs::write(&file, external_account(subject_type, source).to_string()).expect("ours");
    };
    const REQUEST: &str = "aws:token-type:aws4_request";
    write(REQUEST, &source);
    let line = "credentials_file = \"/etc/safeconduct/google.json\"\n";
    let text =
        with(&example::in_scene(&scene, "gcp-external-account", ""), line, &format!("credentials_file = {file:?}\n"));
    let text = with(&text, "[egress]\n", &format!("[egress]\n{}", google.egress()));
    let world = world.config(&text);
    world.run(&["token", "demo"]).await.expect_code(0);
    assert_eq!(scene.authorization_server.last_request().assertion["email"], json!(AGENT));
    assert_eq!(google.last_form()["audience"], PROVIDER);
    assert!(!google.paths().iter().any(|path| path.contains("meta-data")), "no URL of the file is dialled");
    // An access key in the environment is not a role, also not with the file.
    let leftover = Safeconduct::new(binary())
        .env("AWS_ACCESS_KEY_ID", "AKIAEXAMPLEEXAMPLE12")
        .env("AWS_SECRET_ACCESS_KEY", "left-over-and-not-a-role")
        .env("AWS_REGION", REGION)
        .env("KUBERNETES_SERVICE_HOST", "10.0.0.1")
        .config(&text);
    let output = leftover.run(&["token", "demo"]).await.expect_code(NO_IDENTITY);
    tells(&output, &["no role of its own"], &["annotate the service account"]);
    // A detected file does not permit the use of the machine's role.
    let found = Safeconduct::new(binary())
        .env("GOOGLE_APPLICATION_CREDENTIALS", &file.display().to_string())
        .env("AWS_REGION", REGION);
    let output = found.run(&["whoami", "--audience", "https://as.example.com"]).await.expect_code(NO_IDENTITY);
    tells(&output, &["no variable of one is here"], &["name the file"]);
    // Contradictory configurations.
    let mut both = source.clone();
    both["file"] = json!("/run/token");
    write(REQUEST, &both);
    let output = world.run(&["token", "demo"]).await.expect_code(NO_IDENTITY);
    tells(&output, &["not exactly one of"], &["create-cred-config"]);
    write(REQUEST, &source);
    let other = with(&text, "[servers.demo]", "subject_audience = \"api://x\"\n\n[servers.demo]");
    let output = world.clone().config(&other).run(&["token", "demo"]).await.expect_code(NO_IDENTITY);
    tells(&output, &["`subject_audience` is for a token"], &["leave it out"]);
    write("oauth:token-type:jwt", &source);
    let output = world.run(&["token", "demo"]).await.expect_code(NO_IDENTITY);
    tells(&output, &["`subject_token_type`", "is not that of its `credential_source`"], &["create-cred-config"]);
    let mut strange = source.clone();
    strange["regional_cred_verification_url"] = json!("https://sts.{region}.evil.example?Action=GetCallerIdentity");
    write(REQUEST, &strange);
    let output = world.run(&["token", "demo"]).await.expect_code(NO_IDENTITY);
    tells(&output, &["asks AWS something else"], &["create-cred-config"]);
}
