//! `client_auth = "mtls"` (RFC 8705): a certificate file or the workload's X.509-SVID proves the client in the handshake, and the
//! token works only with that certificate.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use support::authorization_server::{ClientProof, FakeAs, Profile};
use support::google::{AGENT as ACCOUNT, FakeGoogle, external_account};
use support::keys;
use support::mcp_server::FakeMcp;
use support::platform::FakePlatform;
use support::safeconduct::{Output, Safeconduct};
use support::tls::TestCa;
use support::unix_http::Reply;
use support::workload_api::FakeWorkloadApi;

use crate::binary;
use crate::exit::{CONFIG, DENIED, NO_IDENTITY, REFUSED};

const AGENT: &str = "agent.example.com";
const SPIFFE: &str = "spiffe://example.org/agent";
const HEADERS: &str = "/v1/headers?server=demo";

struct World {
    /// Signs the certificates of the servers, and of the client with a certificate file.
    ca: TestCa,
    agent: FakeWorkloadApi,
    authorization_server: FakeAs,
    mcp: FakeMcp,
    safeconduct: Safeconduct,
}

impl World {
    async fn new() -> Self {
        let (ca, agent, platform) = (TestCa::new(), FakeWorkloadApi::start(&[SPIFFE]), FakePlatform::start().await);
        let mut authorization_server = FakeAs::start_tls(platform.trust(), ca.good()).await;
        authorization_server.serve_mutual(ca.mutual(&[ca.der(), agent.ca()])).await;
        authorization_server.add_client("agent", ClientProof::Certificate(AGENT.to_owned()));
        authorization_server.add_client("workload", ClientProof::Certificate(SPIFFE.to_owned()));
        let mcp = FakeMcp::start_tls(&authorization_server, &["demo:read", "demo:write"], ca.good()).await;
        Self { ca, agent, authorization_server, mcp, safeconduct: Safeconduct::new(binary()) }
    }

    fn configured(&self, keys: &str) -> Safeconduct {
        self.safeconduct.clone().config(&format!(
            "[egress]\nca_file = \"{}\"\nallow = [\"localhost\"]\n[servers.demo]\nurl = \"{}\"\nissuer = \"{}\"\nexchange = \"client-credentials\"\nclient_auth = \"mtls\"\n{keys}",
            self.ca.file().display(),
            self.mcp.url(),
            self.authorization_server.issuer(),
        ))
    }

    /// A client that proves itself with a certificate file. Gives the thumbprint of the certificate.
    fn with_files(&self, ca: &TestCa, name: &str) -> (Safeconduct, String) {
        let thumbprint = self.put(ca, name);
        let file = |name: &str| self.safeconduct.private(name).display().to_string();
        let keys = format!(
            "client_id = \"agent\"\nclient_cert_file = \"{}\"\nclient_key_file = \"{}\"\n",
            file("client.pem"),
            file("client.key")
        );
        (self.configured(&keys), thumbprint)
    }

    /// Replaces the certificate by a new one.
    fn put(&self, ca: &TestCa, name: &str) -> String {
        let (certificate, key) = ca.client(name);
        std::fs::write(self.safeconduct.private("client.key"), key).expect("ours");
        std::fs::write(self.safeconduct.private("client.pem"), &certificate).expect("ours");
        thumbprint(&certificate)
    }
}

/// `x5t#S256` (RFC 8705 section 3.1).
fn thumbprint(pem: &str) -> String {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate");
    URL_SAFE_NO_PAD.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &der))
}

/// The certificate to which the token in these headers is bound.
fn bound_to(reply: &Reply) -> String {
    assert_eq!(reply.status, 200, "{}", reply.body);
    let value = reply.json()["headers"]["Authorization"][0].as_str().expect("a header").to_owned();
    let token =
        value.strip_prefix("Bearer ").expect("a certificate-bound token is sent as Bearer (RFC 8705 section 3)");
    keys::peek(token)["cnf"]["x5t#S256"].as_str().expect("it is bound").to_owned()
}

fn refused(output: Output, words: &[&str]) {
    let output = output.expect_code(REFUSED);
    assert_eq!(output.stdout, "");
    for word in words.iter().chain(&["safeconduct: hint: "]) {
        assert!(output.stderr.contains(word), "{word:?} in {}", output.stderr);
    }
}

#[tokio::test]
async fn a_certificate_in_a_file_buys_a_token_bound_to_it() {
    let world = World::new().await;
    let (safeconduct, thumbprint) = world.with_files(&world.ca, AGENT);
    let daemon = safeconduct.daemon(&[]).await;
    assert_eq!(bound_to(&daemon.get(HEADERS).await), thumbprint);
    let sent = world.authorization_server.last_request();
    assert_eq!(
        sent.params["client_id"], "agent",
        "RFC 8705 section 2: the certificate does not say which client it is"
    );
    assert!(!sent.authorization && !sent.params.contains_key("client_assertion"));
    daemon.stop().await.expect_code(0);
}

#[tokio::test]
async fn the_workloads_own_certificate_buys_a_token_bound_to_it() {
    let world = World::new().await;
    let safeconduct =
        world.configured("client_id = \"workload\"\n").env("SPIFFE_ENDPOINT_SOCKET", &world.agent.endpoint());
    let daemon = safeconduct.daemon(&[]).await;
    let bound = bound_to(&daemon.get(HEADERS).await);
    let digest = URL_SAFE_NO_PAD.decode(bound).expect("base64url");
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, world.agent.last_thumbprint());
    assert!(world.agent.audiences().is_empty(), "no JWT-SVID is needed beside it");
    daemon.stop().await.expect_code(0);
}

/// The program in a step of a CI job.
fn job(world: &Safeconduct) -> Safeconduct {
    let temp = world.private("runner");
    std::fs::create_dir_all(&temp).expect("it is ours");
    let (temp, output) = (temp.display().to_string(), world.private("output").display().to_string());
    world
        .clone()
        .without_env("SAFECONDUCT_SOCKET")
        .env("RUNNER_TEMP", &temp)
        .env("GITHUB_ACTIONS", "true")
        .env("GITHUB_OUTPUT", &output)
}

/// Without the certificate the caller could not use the token, and would not know why.
#[tokio::test]
async fn a_token_that_is_bound_to_a_certificate_is_not_handed_out_bare() {
    let world = World::new().await;
    let (safeconduct, _) = world.with_files(&world.ca, AGENT);
    let daemon = safeconduct.daemon(&[]).await;
    let reply = daemon.get("/v1/token?server=demo").await;
    let body = reply.json();
    assert_eq!((reply.status, &body["error"]), (403, &json!("token_bound")), "{}", reply.body);
    assert!(
        body["hint"].is_string() && body["error_description"].as_str().is_some_and(|what| what.contains("certificate"))
    );
    let output = daemon.run(&["token", "demo"]).await.expect_code(DENIED);
    assert!(output.stdout.is_empty() && output.stderr.contains("bound to a certificate"), "{}", output.stderr);
    safeconduct.run(&["token", "demo", "--no-daemon"]).await.expect_code(DENIED);
    let output = safeconduct.run(&["exec", "--no-daemon", "--env", "demo", "--", "true"]).await.expect_code(DENIED);
    assert!(output.stderr.contains("bound to a certificate"), "{}", output.stderr);
    let job = job(&safeconduct);
    let output = job.run(&["ci", "demo"]).await.expect_code(DENIED);
    assert!(output.stdout.is_empty() && output.stderr.contains("bound to a certificate"), "{}", output.stderr);
    let headers = daemon.run(&["headers", "demo"]).await.expect_code(0).json();
    assert!(headers["Authorization"].as_str().is_some_and(|value| value.starts_with("Bearer ")));
    daemon.stop().await.expect_code(0);
}

#[tokio::test]
async fn a_renewed_certificate_is_used_at_the_next_exchange() {
    let world = World::new().await;
    let (safeconduct, first) = world.with_files(&world.ca, AGENT);
    let daemon = safeconduct.daemon(&[]).await;
    assert_eq!(bound_to(&daemon.get(HEADERS).await), first);
    let second = world.put(&world.ca, AGENT);
    assert_ne!(second, first);
    assert_eq!(bound_to(&daemon.get(&format!("{HEADERS}&scope=demo:read")).await), second);
    daemon.stop().await.expect_code(0);
}

#[tokio::test]
async fn the_token_is_revoked_over_mutual_tls_too() {
    let world = World::new().await;
    let (safeconduct, _) = world.with_files(&world.ca, AGENT);
    let daemon = safeconduct.daemon(&[]).await;
    world.authorization_server.require_clients(true);
    assert_eq!(daemon.get(HEADERS).await.status, 200);
    daemon.run(&["revoke", "demo"]).await.expect_code(0);
    assert_eq!(world.authorization_server.revocations(), 1);
    daemon.stop().await.expect_code(0);
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_refused_in_the_handshake() {
    let world = World::new().await;
    let (safeconduct, _) = world.with_files(&TestCa::new(), AGENT);
    refused(safeconduct.run(&["headers", "demo"]).await, &["refuses our certificate", "CA"]);
    assert_eq!(world.authorization_server.token_requests(), 0);
    // This is not an outage, so there is no retry.
    let daemon = safeconduct.daemon(&[]).await;
    let reply = daemon.get(HEADERS).await;
    assert_eq!((reply.status, &reply.json()["class"]), (502, &json!("refused")), "{}", reply.body);
    assert!(reply.header("retry-after").is_none());
    daemon.stop().await.expect_code(0);
}

#[tokio::test]
async fn a_strangers_certificate_is_refused_by_the_server() {
    let world = World::new().await;
    let (safeconduct, _) = world.with_files(&world.ca, "stranger.example.com");
    refused(safeconduct.run(&["headers", "demo"]).await, &["invalid_client", "another one's"]);
    assert_eq!(world.authorization_server.token_requests(), 1, "one request, no second attempt");
}

/// Without the alias of RFC 8705 section 5 the usual token endpoint is used, which here does not ask for a certificate.
#[tokio::test]
async fn without_an_alias_the_usual_endpoint_is_asked() {
    let world = World::new().await;
    world.authorization_server.set_metadata(json!({"mtls_endpoint_aliases": null}));
    let (safeconduct, _) = world.with_files(&world.ca, AGENT);
    world.authorization_server.require_clients(true);
    refused(safeconduct.run(&["headers", "demo"]).await, &["invalid_client"]);
}

#[tokio::test]
async fn a_token_that_is_bound_to_another_certificate_is_not_used() {
    let world = World::new().await;
    world.authorization_server.bind_to(&thumbprint(&world.ca.client(AGENT).0));
    let (safeconduct, _) = world.with_files(&world.ca, AGENT);
    refused(safeconduct.run(&["headers", "demo"]).await, &["bound to a certificate that is not ours"]);
}

#[tokio::test]
async fn files_that_do_not_belong_together_and_a_workload_without_certificate_say_so() {
    let world = World::new().await;
    let (safeconduct, _) = world.with_files(&world.ca, AGENT);
    std::fs::write(world.safeconduct.private("client.key"), world.ca.client(AGENT).1).expect("ours");
    let output = safeconduct.run(&["headers", "demo"]).await.expect_code(CONFIG);
    assert!(output.stderr.contains("not that of the certificate"), "{}", output.stderr);
    let file = world.safeconduct.private("subject.jwt");
    let platform = FakePlatform::start().await;
    std::fs::write(&file, platform.mint("https://x.example", std::time::Duration::from_secs(60))).expect("ours");
    let other =
        format!("client_id = \"workload\"\n[identity]\nsource = \"file\"\ntoken_file = \"{}\"\n", file.display());
    let output = world.configured(&other).run(&["headers", "demo"]).await.expect_code(CONFIG);
    assert!(output.stderr.contains("no certificate") && output.stderr.contains("SPIFFE"), "{}", output.stderr);
    assert_eq!(world.authorization_server.token_requests(), 0);
}

/// Google over TLS, with an X.509 provider in the pool, and an authorization server that trusts Google.
struct Federated {
    world: World,
    google: FakeGoogle,
    first: String,
}

impl Federated {
    async fn new() -> Self {
        let world = World::new().await;
        let trust = FakePlatform::start().await.trust();
        let google = FakeGoogle::mutual(&world.ca, trust).await;
        google.grant(&FakeGoogle::principal("certificate-2"), ACCOUNT);
        world.authorization_server.trust_only(google.trust());
        // Google's identity tokens have no `jti`.
        world.authorization_server.set_profile(Profile { jti_optional: true, ..Profile::default() });
        let first = world.put(&world.ca, AGENT);
        let federated = Self { world, google, first };
        federated.write("chain.pem", federated.world.ca.pem());
        federated.certificates(&federated.pair());
        federated.account(federated.usual());
        federated
    }

    fn place(&self, name: &str) -> String {
        self.world.safeconduct.private(name).display().to_string()
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.place(name), text).expect("ours");
    }

    fn pair(&self) -> Value {
        json!({"cert_path": self.place("client.pem"), "key_path": self.place("client.key")})
    }

    fn usual(&self) -> Value {
        json!({"certificate_config_location": self.place("certificates.json"), "trust_chain_path": self.place("chain.pem")})
    }

    /// The file with the paths of certificate and key.
    fn certificates(&self, paths: &Value) {
        self.write("certificates.json", &json!({"version": 1, "cert_configs": {"workload": paths}}).to_string());
    }

    /// The `external_account` file.
    fn account(&self, source: Value) {
        let text = external_account("oauth:token-type:mtls", &json!({"certificate": source})).to_string();
        let text = text.replace("//sts.googleapis", "//sts.mtls.googleapis");
        self.write("google.json", &text.replace("//iamcredentials.googleapis", "//iamcredentials.mtls.googleapis"));
    }

    fn configured(&self) -> Safeconduct {
        self.world.safeconduct.clone().config(&format!(
            "[egress]\n{}ca_file = \"{}\"\n[identity]\nsource = \"gcp\"\ncredentials_file = \"{}\"\n[servers.demo]\nurl = \"{}\"\nissuer = \"{}\"\n",
            self.google.egress(),
            self.world.ca.file().display(),
            self.place("google.json"),
            self.world.mcp.url(),
            self.world.authorization_server.issuer(),
        ))
    }

    async fn fails(&self, words: &str, hint: &str) {
        let output = self.configured().run(&["token", "demo"]).await.expect_code(NO_IDENTITY);
        tells(&output, words, hint);
    }
}

#[tokio::test]
async fn an_external_account_file_with_a_certificate() {
    let federated = Federated::new().await;
    let (world, configured) = (&federated.world, federated.configured());
    configured.run(&["token", "demo"]).await.expect_code(0);
    assert_eq!(world.authorization_server.last_request().assertion["email"], json!(ACCOUNT));
    assert_eq!(federated.google.last_form()["subject_token_type"], "urn:ietf:params:oauth:token-type:mtls");
    // A running process uses a renewed certificate.
    let daemon = configured.clone().daemon(&[]).await;
    assert_eq!(daemon.get("/v1/token?server=demo").await.status, 200);
    assert_ne!(world.put(&world.ca, AGENT), federated.first);
    assert_eq!(daemon.get("/v1/token?server=demo&fresh=1").await.status, 200);
    drop(daemon);
    // The second file is at `gcloud`'s default path, or at the path in the variable.
    federated
        .account(json!({"use_default_certificate_config": true, "trust_chain_path": federated.place("chain.pem")}));
    let by_variable = |name: &str| configured.clone().env("GOOGLE_API_CERTIFICATE_CONFIG", &federated.place(name));
    by_variable("certificates.json").run(&["token", "demo"]).await.expect_code(0);
    let output = by_variable("nowhere.json").run(&["token", "demo"]).await.expect_code(NO_IDENTITY);
    tells(&output, "nowhere.json cannot be read", "where the certificate and its key are");
}

#[tokio::test]
async fn an_external_account_file_whose_certificate_cannot_be_used_says_so() {
    let federated = Federated::new().await;
    // Without its chain the certificate is another principal.
    federated.account(json!({"certificate_config_location": federated.place("certificates.json")}));
    federated.fails("PERMISSION_DENIED", "roles/iam.workloadIdentityUser").await;
    federated.account(federated.usual());
    federated.write("client.key", &federated.world.ca.client(AGENT).1);
    federated.fails("the key is not that of the certificate", "as PEM").await;
    federated.certificates(&json!({"cert_path": "client.pem", "key_path": federated.place("client.key")}));
    federated.fails("is a relative path", "absolute path").await;
    federated.certificates(&json!(null));
    federated.fails("names no `cert_path` and `key_path`", "create-cred-config").await;
    federated.account(json!({"certificate_config_location": "certificates.json"}));
    federated.fails("is a relative path", "absolute path").await;
    federated.certificates(&federated.pair());
    let source = json!({"certificate": {"certificate_config_location": federated.place("certificates.json")}});
    federated.write("google.json", &external_account("oauth:token-type:mtls", &source).to_string());
    federated.fails("names hosts that ask for none", "sts.mtls.googleapis.com").await;
    federated.account(json!({"trust_chain_path": federated.place("chain.pem")}));
    federated.fails("not exactly one of", "create-cred-config").await;
}

fn tells(output: &Output, words: &str, hint: &str) {
    let told = output.stderr.split("safeconduct: error: ").nth(1).unwrap_or_default();
    let (error, cure) = told.split_once("safeconduct: hint: ").unwrap_or_default();
    assert!(error.contains(words) && cure.contains(hint), "{words:?}, {hint:?} not in\n{}", output.stderr);
}
