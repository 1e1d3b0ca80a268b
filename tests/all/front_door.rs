//! `outer`: an MCP server behind a front door that requires its own credential, from the environment to both credentials.

use serde_json::{Value, json};
use support::authorization_server::FakeAs;
use support::google::{AGENT, FakeGoogle, INSTANCE};
use support::platform::SUBJECT;
use support::safeconduct::{Output, Safeconduct};
use support::scene::Scene;
use support::wait::until;
use support::{keys, tcp_http};

use crate::exit::{CONFIG, REFUSED};
use crate::{LIMIT, binary, example};

/// The OAuth client of the front door.
const CLIENT: &str = "123456789012-abc.apps.googleusercontent.com";
const FIELD: &str = "proxy-authorization";
const HEADERS: &str = "/v1/headers?server=demo";

struct World {
    scene: Scene,
    google: FakeGoogle,
    text: String,
}

impl World {
    /// The example, and Google's front door before its server.
    async fn new() -> Self {
        let scene = Scene::new(binary()).await;
        let google = FakeGoogle::start(scene.platform.trust()).await;
        google.grant(&FakeGoogle::principal(SUBJECT), AGENT);
        let verifier = google.trust().verifier;
        scene.mcp.stand_behind(FIELD, move |token| {
            verifier.verify(token).is_ok_and(|claims| claims["aud"] == json!(CLIENT))
        });
        let text = example::in_scene(&scene, "gcp-front-door", &google.egress());
        Self { text, scene, google }
    }

    fn safeconduct(&self) -> Safeconduct {
        self.scene.safeconduct.clone().config(&self.text)
    }

    /// Replaces `from`, which must be present.
    fn with(&self, from: &str, to: &str) -> Safeconduct {
        assert!(self.text.contains(from), "{from:?} is not in\n{}", self.text);
        self.scene.safeconduct.clone().config(&self.text.replace(from, to))
    }

    /// The status of `initialize` with these header fields.
    async fn ask(&self, fields: &[(&str, &str)]) -> u16 {
        let about =
            json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": about}).to_string();
        let authority = self.scene.mcp.base().trim_start_matches("http://");
        let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let request = format!(
            "POST /mcp HTTP/1.1\r\nHost: {authority}\r\nContent-Type: application/json\r\nAccept: application/json, text/event-stream\r\n{fields}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        tcp_http::exchange(authority.parse().expect("an address"), &request).await.expect("an answer").status
    }
}

fn tells(output: &Output, words: &[&str], hint: &[&str]) {
    let told = output.stderr.split("safeconduct: error: ").nth(1).unwrap_or_default();
    let (error, cure) = told.split_once("safeconduct: hint: ").unwrap_or((told, ""));
    for (wanted, found) in words.iter().map(|word| (word, error)).chain(hint.iter().map(|word| (word, cure))) {
        assert!(found.contains(wanted), "{wanted:?} is not where it belongs in\n{}", output.stderr);
    }
}

/// The value of a field of `/v1/headers`, which must have exactly one.
fn field<'a>(answer: &'a Value, name: &str) -> &'a str {
    let values = answer["headers"][name].as_array().unwrap_or_else(|| panic!("no {name} in {answer}"));
    assert_eq!(values.len(), 1, "{name}");
    values[0].as_str().expect("a text")
}

fn claims(value: &str) -> keys::Claims {
    keys::peek(value.strip_prefix("Bearer ").expect("a bearer token"))
}

#[tokio::test]
async fn both_credentials_come_with_the_headers() {
    let world = World::new().await;
    let daemon = world.safeconduct().daemon(&[]).await;
    let answer = daemon.get(HEADERS).await.json();
    let (inner, outer) = (field(&answer, "Authorization"), field(&answer, "Proxy-Authorization"));
    assert_eq!(answer["headers"].as_object().expect("an object").len(), 2);
    assert_eq!(claims(inner)["aud"], json!(world.scene.mcp.url()));
    assert_eq!((&claims(outer)["aud"], &claims(outer)["email"]), (&json!(CLIENT), &json!(AGENT)));
    assert_eq!(world.ask(&[("authorization", inner), (FIELD, outer)]).await, 200);
    assert_eq!(world.ask(&[("authorization", inner)]).await, 401);
    assert_eq!(world.ask(&[("authorization", inner), (FIELD, inner)]).await, 401);
    assert_eq!(world.scene.mcp.turned_away(), 2, "nothing was asked without the credential before");
    // Both are cached.
    assert_eq!(daemon.get(HEADERS).await.json(), answer);
    assert_eq!(world.scene.authorization_server.token_requests(), 1);
    assert_eq!(world.google.paths().iter().filter(|path| path.ends_with("/v1/token")).count(), 1);
    // The same through every helper, with a daemon and without.
    let safeconduct = world.safeconduct();
    let client = Safeconduct::new(binary()).env("SAFECONDUCT_SOCKET", &daemon.socket().display().to_string());
    let through = client.run(&["headers", "demo"]).await.expect_code(0).stdout;
    drop(daemon);
    let itself = safeconduct.run(&["headers", "demo", "--no-daemon"]).await.expect_code(0).stdout;
    for text in [through, itself] {
        let flat: Value = serde_json::from_str(&text).expect("JSON");
        let shown = |name: &str| flat[name].as_str().expect("a text").to_owned();
        let fields = [("authorization", shown("Authorization")), (FIELD, shown("Proxy-Authorization"))];
        let fields = [(fields[0].0, fields[0].1.as_str()), (fields[1].0, fields[1].1.as_str())];
        assert_eq!((world.ask(&fields).await, flat.as_object().map(serde_json::Map::len)), (200, Some(2)));
    }
    let uri = json!({"uri": world.scene.mcp.url()}).to_string();
    let got = safeconduct.run_with_stdin(&["get"], &uri).await.expect_code(0).stdout;
    let got: Value = serde_json::from_str(&got).expect("JSON");
    let fields = [("authorization", field(&got, "Authorization")), (FIELD, field(&got, "Proxy-Authorization"))];
    assert_eq!(world.ask(&fields).await, 200);
}

#[tokio::test]
async fn on_google_cloud_the_workload_shows_its_own_identity() {
    let mut world = World::new().await;
    world.scene.authorization_server.trust_only(world.google.trust());
    support::profiles::of_google(&world.scene);
    let lines = world.text.lines().filter(|line| !["pool", "service_account"].iter().any(|key| line.starts_with(key)));
    world.text = lines.collect::<Vec<_>>().join("\n") + "\n[identity]\nsource = \"gcp\"\n";
    let safeconduct = Safeconduct::new(binary()).env("GCE_METADATA_HOST", world.google.metadata_host());
    let daemon = safeconduct.config(&world.text).daemon(&[]).await;
    let answer = daemon.get(HEADERS).await.json();
    let (inner, outer) = (field(&answer, "Authorization"), field(&answer, "Proxy-Authorization"));
    assert_eq!((&claims(outer)["aud"], &claims(outer)["email"]), (&json!(CLIENT), &json!(INSTANCE)));
    assert_eq!(world.ask(&[("authorization", inner), (FIELD, outer)]).await, 200);
    // Outside Google Cloud the front door would get another platform's identity.
    world.scene.authorization_server.also_trust(world.scene.platform.trust());
    world.scene.authorization_server.set_profile(Default::default());
    let elsewhere = world.text.replace("[identity]\nsource = \"gcp\"\n", "");
    let output = world.scene.safeconduct.clone().config(&elsewhere).run(&["headers", "demo", "--no-daemon"]).await;
    tells(&output.expect_code(CONFIG), &["Google's identity tokens", "github-actions"], &["set `pool`"]);
}

/// A gateway with an authorization server of its own, which takes the workload's identity as that of the MCP server does.
#[tokio::test]
async fn a_gateway_takes_a_token_of_its_own_authorization_server() {
    const GATEWAY: &str = "https://gateway.example.com";
    for exchange in ["jwt-bearer", "token-exchange"] {
        let scene = Scene::new(binary()).await;
        let gateway = FakeAs::start(scene.platform.trust()).await;
        gateway.register(GATEWAY, &["gateway"]);
        gateway.set_resource_optional(true);
        let verifier = gateway.verifier();
        scene.mcp.stand_behind("x-gateway-authorization", move |token| {
            verifier.verify(token).is_ok_and(|claims| claims["aud"] == json!(GATEWAY))
        });
        let text = format!(
            "[egress]\ninsecure_loopback = true\n[servers.demo]\nurl = \"{}\"\nissuer = \"{}\"\nscopes = [\"demo:read\"]\n\
             [servers.demo.outer]\nexchange = \"{exchange}\"\nissuer = \"{}\"\nheader = \"X-Gateway-Authorization\"\n",
            scene.mcp.url(),
            scene.authorization_server.issuer(),
            gateway.issuer(),
        );
        let daemon = scene.safeconduct.clone().config(&text).daemon(&[]).await;
        let answer = daemon.get(HEADERS).await.json();
        let (inner, outer) = (field(&answer, "Authorization"), field(&answer, "X-Gateway-Authorization"));
        assert_eq!(claims(inner)["aud"], json!(scene.mcp.url()), "{exchange}");
        assert_eq!((&claims(outer)["aud"], &claims(outer)["iss"]), (&json!(GATEWAY), &json!(gateway.issuer())));
        // Each party got an identity that was made for it alone, and the gateway was not told of the MCP server.
        let asked = gateway.last_request();
        assert_eq!(asked.assertion["aud"], json!(gateway.issuer()), "{exchange}");
        assert!(!asked.params.contains_key("resource") && !asked.params.contains_key("scope"), "{exchange}");
        assert_eq!(scene.mcp.turned_away(), 0, "nothing was asked without the credential");
        let sent = || gateway.token_requests() + scene.authorization_server.token_requests();
        let before = sent();
        let report = scene.safeconduct.clone().config(&text).run(&["doctor", "demo", "--json"]).await.json();
        assert_eq!(report["requests"]["token_endpoint"], json!(sent() - before), "{report:#}");
        assert_eq!((gateway.revocations(), scene.authorization_server.revocations()), (1, 1), "{report:#}");
    }
}

#[tokio::test]
async fn without_one_credential_the_other_is_not_handed_out() {
    let world = World::new().await;
    world.google.revoke(&FakeGoogle::principal(SUBJECT), AGENT);
    let output = world.safeconduct().run(&["headers", "demo", "--no-daemon"]).await.expect_code(REFUSED);
    tells(&output, &["demo.outer", "PERMISSION_DENIED"], &["roles/iam.workloadIdentityUser"]);
    // A request for only the token does not need the front door.
    world.safeconduct().run(&["token", "demo", "--no-daemon"]).await.expect_code(0);
    let file = world.scene.safeconduct.path().join("audit.jsonl").display().to_string();
    let audited = world.with("[egress]", &format!("[audit]\nfile = {file:?}\n[egress]"));
    let daemon = audited.daemon(&[]).await;
    let reply = daemon.get(HEADERS).await;
    assert_eq!((reply.status, reply.json()["server"].clone()), (502, json!("demo.outer")));
    // The front door's own token works for everything behind it.
    assert_eq!(daemon.get("/v1/token?server=demo").await.status, 200);
    world.google.grant(&FakeGoogle::principal(SUBJECT), AGENT);
    drop(daemon);
    let daemon = audited.daemon(&[]).await;
    let answer = daemon.get(HEADERS).await.json();
    let lines = std::fs::read_to_string(&file).expect("it is there");
    let last: Value = serde_json::from_str(lines.lines().last().expect("a line")).expect("JSON");
    let digest = |value: &str| support::sigv4::sha256(value.strip_prefix("Bearer ").expect("bearer").as_bytes());
    assert_eq!(last["server"], json!("demo"));
    assert_eq!(last["sha256"], json!(digest(field(&answer, "Authorization"))));
    assert_eq!(last["outer"]["sha256"], json!(digest(field(&answer, "Proxy-Authorization"))));
    assert_eq!(last["outer"]["identity"][0]["source"], "github-actions");
    // A caller reports that the front door refused the token: only that token is replaced, unless it was made just now.
    let refused = json!({"server": "demo", "access_token_sha256": digest(field(&answer, "Proxy-Authorization"))});
    until(LIMIT, "the front door's token is a new one", async || {
        assert_eq!(daemon.post("/v1/reject", &refused).await.status, 204);
        let again = daemon.get(HEADERS).await.json();
        assert_eq!(field(&again, "Authorization"), field(&answer, "Authorization"));
        field(&again, "Proxy-Authorization") != field(&answer, "Proxy-Authorization")
    })
    .await;
}

#[tokio::test]
async fn only_callers_of_the_server_get_the_credential_of_the_front_door() {
    let world = World::new().await;
    let safeconduct = world.with("scopes = [\"demo:read\"]", "allow = [{ uid = 4294967294 }]\nrequired = true");
    let daemon = safeconduct.daemon(&[]).await;
    let reply = daemon.get(HEADERS).await;
    assert_eq!((reply.status, reply.json()["error"].clone()), (403, json!("access_denied")));
    // Callers cannot ask for the front door by name.
    for path in ["/v1/token?server=demo.outer", "/v1/headers?server=demo.outer"] {
        let reply = daemon.get(path).await;
        assert_eq!((reply.status, reply.json()["error"].clone()), (400, json!("unknown_server")), "{path}");
    }
    // Callers cannot ask for it by URL.
    let url = format!("/v1/token?server={}", world.scene.mcp.url());
    let told = daemon.get(&url).await.json();
    assert_eq!((&told["error"], &told["server"]), (&json!("access_denied"), &Value::Null), "nor learn its name");
}

#[tokio::test]
async fn rules_with_scopes_are_for_what_is_behind() {
    let world = World::new().await;
    let uid = std::fs::metadata("/proc/self").map(|own| std::os::unix::fs::MetadataExt::uid(&own)).expect("ours");
    let rule =
        format!("scopes = [\"demo:read\", \"demo:write\"]\nallow = [{{ uid = {uid}, scopes = [\"demo:read\"] }}]");
    let daemon = world.with("scopes = [\"demo:read\"]", &rule).daemon(&[]).await;
    let answer = daemon.get(HEADERS).await.json();
    let (inner, outer) = (field(&answer, "Authorization"), field(&answer, "Proxy-Authorization"));
    assert_eq!(world.ask(&[("authorization", inner), (FIELD, outer)]).await, 200);
}

#[tokio::test]
async fn a_helper_that_is_run_again_gets_both_anew_once() {
    let world = World::new().await;
    let daemon = world.safeconduct().daemon(&[]).await;
    let headers = format!("{HEADERS}&use=helper");
    let answers =
        [daemon.get(&headers).await.json(), daemon.get(&headers).await.json(), daemon.get(&headers).await.json()];
    for name in ["Authorization", "Proxy-Authorization"] {
        let [first, second, third] = [0, 1, 2].map(|at| field(&answers[at], name));
        assert!(first != second && second == third, "{name}");
    }
}

#[tokio::test]
async fn revoked_tokens_are_not_handed_out_again() {
    let world = World::new().await;
    let daemon = world.safeconduct().daemon(&[]).await;
    let first = daemon.get(HEADERS).await.json();
    let output = daemon.run(&["revoke"]).await.expect_code(0);
    assert_eq!(output.stdout, "demo: 1 revoked\n");
    let second = daemon.get(HEADERS).await.json();
    for name in ["Authorization", "Proxy-Authorization"] {
        assert_ne!(field(&first, name), field(&second, name), "{name}");
    }
}

#[tokio::test]
async fn a_required_server_waits_for_both() {
    let world = World::new().await;
    world.google.revoke(&FakeGoogle::principal(SUBJECT), AGENT);
    let safeconduct = world.with("scopes = [\"demo:read\"]", "scopes = [\"demo:read\"]\nrequired = true");
    let daemon = safeconduct.daemon(&[]).await;
    assert_eq!(daemon.get("/v1/token?server=demo").await.status, 200);
    let reply = daemon.get("/readyz").await;
    assert!(reply.status == 503 && reply.body.contains("demo.outer"), "{}", reply.body);
    let reply = daemon.get("/readyz?server=demo").await;
    assert!(reply.status == 503 && reply.body.contains("demo.outer"), "{}", reply.body);
    let status = daemon.get("/v1/status").await.json();
    let names: Vec<&str> =
        status["servers"].as_array().expect("a list").iter().filter_map(|one| one["name"].as_str()).collect();
    assert_eq!(names, ["demo.outer", "demo"]);
}

#[tokio::test]
async fn doctor_goes_through_the_door() {
    let world = World::new().await;
    let output = world.safeconduct().run(&["doctor", "demo", "--verbose"]).await.expect_code(0);
    assert!(output.stdout.contains("front-door") && output.stdout.contains("token-accepted"), "{output:?}");
    assert_eq!(world.scene.mcp.turned_away(), 0);
    world.google.revoke(&FakeGoogle::principal(SUBJECT), AGENT);
    let output = world.safeconduct().run(&["doctor", "demo", "--json"]).await;
    let report: Value = serde_json::from_str(&output.stdout).expect("JSON");
    let text = report.to_string();
    assert!(text.contains("\"front-door\"") && text.contains("PERMISSION_DENIED"), "{text}");
}

#[tokio::test]
async fn the_front_door_is_not_a_server() {
    let world = World::new().await;
    let safeconduct = world.safeconduct();
    let output = safeconduct.run(&["config", "check"]).await.expect_code(0);
    assert!(output.stdout.contains("whose credential goes into Proxy-Authorization"), "{output:?}");
    assert!(!output.stdout.contains("demo.outer"), "{output:?}");
    let checked = safeconduct.run(&["config", "check", "--json"]).await.expect_code(0).json();
    assert_eq!(checked["servers"].as_array().map(Vec::len), Some(1));
    assert_eq!(checked["servers"][0]["outer"], json!("Proxy-Authorization"));
    let output = safeconduct.run(&["token", "demo.outer", "--no-daemon"]).await;
    assert!(output.stderr.contains("demo") && !output.succeeded(), "{output:?}");
}

#[tokio::test]
async fn contradictions_about_the_front_door_are_configuration_errors() {
    let world = World::new().await;
    let issuer = format!("issuer = \"{}\"\n", world.scene.authorization_server.issuer());
    for (from, to, words) in [
        (issuer.as_str(), "", "servers.demo.outer: needs the server's `issuer`"),
        ("exchange = \"gcp\"", "exchange = \"entra\"", "servers.demo.outer.tenant: missing"),
        ("exchange = \"gcp\"", "exchange = \"jwt-bearer\"", "servers.demo.outer.issuer: missing"),
        ("exchange = \"gcp\"", "", "servers.demo.outer.exchange: missing"),
        ("audience = \"", "# audience = \"", "servers.demo.outer.audience: missing"),
        (
            "header = \"Proxy-Authorization\"",
            "header = \"Authorization\"",
            "servers.demo.outer.header: must be a field",
        ),
        ("header = \"Proxy-Authorization\"", "header = \"X: y-Authorization\"", "servers.demo.outer.header"),
        (
            "header = \"Proxy-Authorization\"",
            "header = \"Mcp-Session-Id\"",
            "servers.demo.outer.header: must be a field",
        ),
        (
            "header = \"Proxy-Authorization\"",
            "header = \"Content-Length\"",
            "servers.demo.outer.header: must be a field",
        ),
        ("service_account = ", "# service_account = ", "needs `service_account`"),
        ("pool = ", "# pool = ", "servers.demo.outer.service_account: has no effect without `pool`"),
        ("exchange = \"gcp\"", "exchange = \"gcp\"\nidentity = \"nobody\"", "there is no identity \"nobody\""),
        (
            "[egress]",
            "[servers.\"demo.outer\"]\nurl = \"https://other.example/mcp\"\n[egress]",
            "is the name of the front door",
        ),
        (
            "pool = \"projects/123456789012/locations/global/workloadIdentityPools/agents/providers/ci\"\nservice_account = \"agent@project.iam.gserviceaccount.com\"",
            "\n[identity]\nsource = \"github-actions\"",
            "servers.demo.outer.pool: missing: the identity \"default\" is of \"github-actions\"",
        ),
        ("header = ", "headr = ", "did you mean `header`?"),
    ] {
        let output = world.with(from, to).run(&["token", "demo"]).await.expect_code(CONFIG);
        assert!(output.stderr.contains(words), "{words:?} is not in\n{}", output.stderr);
    }
}
