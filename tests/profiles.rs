//! Every example of `examples/config/`, from the environment to the token, against a server of the kind it is for; and the near
//! miss that somebody would write first, with the hint that gets them on.
//!
//! The names in an example are replaced by those of the fakes, and nothing else.

#![allow(clippy::disallowed_methods, reason = "the tests run in real time and have tasks of their own")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey};
use nix::unistd::getegid;
use serde_json::{Value, json};
use support::authorization_server::{ClientProof, FakeAs};
use support::case::{self, Stage};
use support::scene::Scene;
use support::tls::TestCa;
use support::wayleave::{Output, Wayleave};
use support::workload_api::FakeWorkloadApi;
use support::{keys, leak, profiles, unix_http};
use wayleave::{App, Clock, Config, Env};

const BINARY: &str = env!("CARGO_BIN_EXE_wayleave");
const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/config");

const NO_IDENTITY: i32 = 69;
const REFUSED: i32 = 76;
const DENIED: i32 = 77;
const CONFIG: i32 = 78;

/// Who the platform says the job is.
const SUBJECT: &str = "repo:octo-org/octo-repo:ref:refs/heads/main";
const SVID: &str = "spiffe://example.org/agent";
const LIFE: Duration = Duration::from_secs(300);

const MCP: &str = "https://mcp.example.com/mcp";
const LOGIN: &str = "https://login.example.com/tenant1";
const KEY: &str = "/etc/wayleave/client.pem";
const SECRET_FILE: &str = "/etc/wayleave/client-secret";
const SECRET: &str = "a client's secret: 100%+";

/// An example with the names of this scene.
struct Example<'a> {
    scene: &'a Scene,
    text: String,
}

impl<'a> Example<'a> {
    /// `issuer` is the one in the file.
    fn new(scene: &'a Scene, name: &str, issuer: &str) -> Self {
        let example = Self::unchanged(scene, name).with(&quoted(MCP), &quoted(&scene.mcp.url()));
        example.with(&quoted(issuer), &quoted(&scene.authorization_server.issuer()))
    }

    fn unchanged(scene: &'a Scene, name: &str) -> Self {
        let text = fs::read_to_string(format!("{EXAMPLES}/{name}.toml")).expect("there is such an example");
        // The fakes are on loopback.
        let text = match text.contains("[egress]\n") {
            true => text.replace("[egress]\n", "[egress]\ninsecure_loopback = true\n"),
            false => format!("{text}\n[egress]\ninsecure_loopback = true\n"),
        };
        Self { scene, text }
    }

    /// With `from`, which must be there, replaced.
    fn with(&self, from: &str, to: &str) -> Self {
        assert!(self.text.contains(from), "{from:?} is not in\n{}", self.text);
        Self { scene: self.scene, text: self.text.replace(from, to) }
    }

    /// With a key file of a client, in the place of that one. Gives what the server has to know as well.
    fn with_key(&self, path: &str) -> (Self, ClientProof) {
        let pair = rcgen::KeyPair::generate().expect("a key");
        let file = self.scene.wayleave.private(path.rsplit('/').next().expect("a name"));
        fs::write(&file, pair.serialize_pem()).expect("ours");
        let key = EncodingKey::from_ec_der(&pair.serialize_der());
        let jwk = Jwk::from_encoding_key(&key, Algorithm::ES256).expect("a public key");
        (self.with(path, &file.display().to_string()), ClientProof::Key(Box::new(jwk)))
    }

    fn with_secret(&self) -> Self {
        leak::minted(SECRET);
        let file = self.scene.wayleave.private("secret");
        fs::write(&file, SECRET).expect("ours");
        self.with(SECRET_FILE, &file.display().to_string())
    }

    fn world(&self) -> Wayleave {
        self.scene.wayleave.clone().config(&self.text)
    }

    async fn run(&self) -> Output {
        self.world().run(&["token", "demo"]).await
    }

    /// Gives the token.
    async fn works(&self) -> String {
        self.run().await.expect_code(0).stdout.trim().to_owned()
    }

    /// One request at most, then that exit code, these words in the error and those in the hint.
    async fn fails(&self, code: i32, words: &[&str], hint: &[&str]) {
        let before = self.scene.authorization_server.token_requests();
        let output = self.run().await.expect_code(code);
        tells(&output, words, hint);
        assert!(self.scene.authorization_server.token_requests() <= before + 1, "no second attempt");
    }
}

fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}

fn tells(output: &Output, words: &[&str], hint: &[&str]) {
    let told = output.stderr.split("wayleave: error: ").nth(1).unwrap_or_default();
    let (error, cure) = told.split_once("wayleave: hint: ").unwrap_or_default();
    for (wanted, found) in words.iter().map(|word| (word, error)).chain(hint.iter().map(|word| (word, cure))) {
        assert!(found.contains(wanted), "{wanted:?} is not where it belongs in\n{}", output.stderr);
    }
}

fn examples() -> Vec<(String, String)> {
    let entries = fs::read_dir(EXAMPLES).expect("there are examples").map(|entry| entry.expect("readable").path());
    let files = entries.map(|path| (path.display().to_string(), fs::read_to_string(&path).expect("UTF-8")));
    files.collect()
}

#[tokio::test]
async fn every_example_is_a_valid_configuration_and_says_what_must_be_true_elsewhere() {
    for (path, text) in examples() {
        let output = Wayleave::new(BINARY).config(&text).run(&["config", "check"]).await;
        assert!(output.succeeded(), "{path}: {}", output.stderr);
        assert!(
            text.starts_with("# ") && text.lines().all(|line| line.len() <= 132),
            "{path}: comments, and short lines"
        );
    }
}

// The MCP profile and what belongs to it.

#[tokio::test]
async fn workload_identity_federation() {
    let scene = Scene::new(BINARY).await;
    let example = Example::new(&scene, "jwt-bearer", LOGIN);
    assert_eq!(keys::peek(&example.works().await)["aud"], json!(scene.mcp.url()));
    let sent = scene.authorization_server.last_request();
    assert!(!sent.authorization && !sent.params.contains_key("client_id"), "{:?}", sent.params);
    // The endpoint is what people have at hand; the identifier is what is asked for.
    let issuer = quoted(&scene.authorization_server.issuer());
    let endpoint = example.with(&issuer, &quoted(&scene.authorization_server.token_endpoint()));
    endpoint.fails(REFUSED, &["/token"], &["`issuer`"]).await;
}

#[tokio::test]
async fn enterprise_managed_authorization() {
    let scene = Scene::new(BINARY).await;
    let idp = FakeAs::start(scene.platform.trust()).await;
    idp.set_audience(&scene.authorization_server.issuer());
    scene.authorization_server.trust_only(idp.trust());
    let example = Example::new(&scene, "id-jag", LOGIN).with("https://acme.okta.com", &idp.issuer());
    let (example, at_server) = example.with_key(KEY);
    let (example, at_idp) = example.with_key("/etc/wayleave/idp.pem");
    for (party, id, proof) in
        [(&scene.authorization_server, "mcp-agent", at_server), (&idp, "0oa1234567890abcdef", at_idp)]
    {
        party.add_client(id, proof);
        party.require_clients(true);
    }
    assert_eq!(keys::peek(&example.works().await)["aud"], json!(scene.mcp.url()));
    // The client is known under another name on each side.
    let one_name = example.with("0oa1234567890abcdef", "mcp-agent");
    one_name.fails(REFUSED, &[&idp.issuer(), "invalid_client"], &["`client_id`"]).await;
    let without = example.text.split("[servers.demo.idp]").next().expect("a first part").to_owned();
    let without = Example { scene: &scene, text: format!("{without}[egress]\ninsecure_loopback = true\n") };
    without.fails(CONFIG, &["servers.demo.exchange", "needs `idp`"], &[]).await;
}

#[tokio::test]
async fn client_credentials_with_a_key() {
    let scene = Scene::new(BINARY).await;
    let (example, proof) = Example::new(&scene, "client-credentials-key", LOGIN).with_key(KEY);
    scene.authorization_server.add_client("mcp-agent", proof);
    example.works().await;
    assert_eq!(scene.platform.requests(), 0, "no workload identity is needed");
    let other = example.with("mcp-agent", "another");
    other.fails(REFUSED, &["invalid_client"], &["`client_id`", "operator"]).await;
    let proofless = example.with("client_auth = \"private-key-jwt\"\n", "");
    proofless.fails(CONFIG, &["needs `client_auth`"], &[]).await;
}

#[tokio::test]
async fn client_credentials_with_a_secret() {
    let scene = Scene::new(BINARY).await;
    let example = Example::new(&scene, "client-credentials-secret", LOGIN).with_secret();
    scene.authorization_server.add_client("mcp-agent", ClientProof::Basic(SECRET.to_owned()));
    example.works().await;
    assert!(scene.authorization_server.last_request().authorization);
    let in_the_form = example.with("client_secret_method = \"basic\"", "client_secret_method = \"post\"");
    in_the_form.fails(REFUSED, &["invalid_client"], &["`client_auth`"]).await;
    let file = scene.wayleave.private("secret").display().to_string();
    let written = example.with(&format!("client_secret_file = \"{file}\""), "client_secret = \"s\"");
    written.fails(CONFIG, &["servers.demo.client_secret"], &[]).await;
}

#[tokio::test]
async fn client_credentials_with_a_certificate() {
    let mut scene = Scene::new(BINARY).await;
    let ca = TestCa::new();
    scene.authorization_server.serve_mutual(ca.mutual(&[ca.der()])).await;
    scene.authorization_server.add_client("mcp-agent", ClientProof::Certificate("mcp-agent".to_owned()));
    let (chain, key) = ca.client("mcp-agent");
    let mut example = Example::new(&scene, "client-credentials-mtls", LOGIN)
        .with("[egress]\n", &format!("[egress]\nca_file = \"{}\"\n", ca.file().display()));
    for (name, text) in [("client.crt", chain), ("client.pem", key)] {
        let file = scene.wayleave.private(name);
        fs::write(&file, text).expect("ours");
        example = example.with(&format!("/etc/wayleave/{name}"), &file.display().to_string());
    }
    // The token is bound to the certificate, and so never given bare.
    let reply = example.world().daemon(&[]).await.get("/v1/headers?server=demo").await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    let file = scene.wayleave.private("client.crt").display().to_string();
    let half = example.with(&format!("client_cert_file = \"{file}\""), "");
    half.fails(CONFIG, &["`client_cert_file` and `client_key_file` together"], &[]).await;
    // A server that asks for certificates elsewhere, and does not say where.
    scene.authorization_server.set_metadata(json!({}));
    example.fails(REFUSED, &["invalid_client", "no certificate came"], &["`client_auth`", "operator"]).await;
}

#[tokio::test]
async fn tokens_that_are_bound_to_a_key() {
    let scene = Scene::new(BINARY).await;
    scene.mcp.require_dpop(None);
    scene
        .authorization_server
        .set_profile(support::authorization_server::Profile { wants_proof: true, ..Default::default() });
    let example = Example::new(&scene, "dpop", LOGIN);
    let headers = format!("/v1/headers?server=demo&method=POST&url={}", scene.mcp.url());
    let reply = example.world().daemon(&[]).await.get(&headers).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    assert!(reply.json()["headers"]["DPoP"].is_array(), "a proof comes with the token");
    example.fails(DENIED, &["bound to"], &["/v1/headers"]).await;
    let bearer = example.with("dpop = true", "dpop = false");
    bearer.fails(REFUSED, &["invalid_dpop_proof"], &["`dpop = true`"]).await;
}

#[tokio::test]
async fn a_server_that_trusts_the_platform_itself() {
    let scene = Scene::new(BINARY).await;
    let example = Example::unchanged(&scene, "direct").with(MCP, &scene.mcp.url());
    let claims = keys::peek(&example.works().await);
    assert_eq!((&claims["iss"], &claims["aud"]), (&json!(scene.platform.issuer()), &json!(scene.mcp.url())));
    let line = format!("subject_audience = \"{}\"\n", scene.mcp.url());
    example.with(&line, "").fails(CONFIG, &["needs `subject_audience`"], &[]).await;
    let limited = example.with(&line, &format!("{line}scopes = [\"demo:read\"]\n"));
    limited.fails(CONFIG, &["servers.demo.scopes", "nothing limits scopes"], &[]).await;
    assert_eq!(scene.authorization_server.metadata_requests(), 0);
}

#[tokio::test]
async fn a_chain_of_identities() {
    let scene = Scene::new(BINARY).await;
    let company = FakeAs::start(scene.platform.trust()).await;
    company.set_audience(&scene.authorization_server.issuer());
    scene.authorization_server.trust_only(company.trust());
    let example = Example::new(&scene, "chain", LOGIN).with("https://sts.example.com", &company.issuer());
    example.works().await;
    assert_eq!(scene.authorization_server.last_request().assertion["iss"], json!(company.issuer()));
    let unused = example.with("identity = \"company\"\n", "");
    unused.fails(REFUSED, &["invalid_grant"], &["trust policy", "wayleave whoami"]).await;
}

// The vendors.

#[tokio::test]
async fn keycloak_takes_the_grant_of_a_confidential_client() {
    let scene = Scene::new(BINARY).await;
    profiles::keycloak_grant(&scene, SUBJECT);
    let example = Example::new(&scene, "keycloak-jwt-grant", "https://keycloak.example.com/realms/agents");
    let (example, proof) = example.with_key(KEY);
    scene.authorization_server.add_client("mcp-agent", proof);
    example.works().await;
    let sent = scene.authorization_server.last_request();
    assert_eq!(sent.params["resource"], scene.mcp.url(), "sent, and ignored");
    // As for a server that wants no client.
    let text = example.text.lines().filter(|line| !line.starts_with("client_")).collect::<Vec<_>>().join("\n");
    let anonymous = Example { scene: &scene, text };
    anonymous
        .fails(
            REFUSED,
            &["invalid_client", "Invalid client or Invalid client credentials"],
            &["`client_id`", "`client_auth`"],
        )
        .await;
    profiles::keycloak_grant(&scene, "repo:somebody/else:ref:refs/heads/main");
    example.fails(REFUSED, &["invalid_grant", "User not found"], &["operator must link", "whoami"]).await;
}

#[tokio::test]
async fn keycloak_takes_a_jwt_once_and_soon() {
    let scene = Scene::new(BINARY).await;
    profiles::keycloak_grant(&scene, SUBJECT);
    let example = Example::new(&scene, "keycloak-jwt-grant", "https://keycloak.example.com/realms/agents");
    let (example, proof) = example.with_key(KEY);
    scene.authorization_server.add_client("mcp-agent", proof);
    let file = scene.wayleave.private("identity.jwt");
    let old = json!({"iat": keys::now() as u64 - 1_200, "nbf": keys::now() as u64 - 1_200});
    for (claims, words, runs) in [(Value::Null, "Token reuse detected", 2), (old, "too far in the past", 1)] {
        let token = scene.platform.mint_with(&scene.authorization_server.issuer(), Duration::from_secs(3_600), &claims);
        fs::write(&file, token).expect("ours");
        let named = ["token", "demo", "--identity-file", &file.display().to_string()];
        for _ in 1..runs {
            example.world().run(&named).await.expect_code(0);
        }
        let output = example.world().run(&named).await.expect_code(REFUSED);
        tells(&output, &["invalid_grant", words], &["mints anew"]);
    }
}

#[tokio::test]
async fn keycloak_federates_a_client() {
    let scene = Scene::new(BINARY).await;
    let example = Example::new(&scene, "keycloak-federated-client", "https://keycloak.example.com/realms/agents");
    scene.authorization_server.federate("mcp-agent", SUBJECT);
    example.works().await;
    let nameless = example.with("client_id = ", "# client_id = ");
    nameless.fails(REFUSED, &["client_id is missing"], &["`client_id`"]).await;
}

#[tokio::test]
async fn entra_federates_a_credential() {
    let scene = Scene::new(BINARY).await;
    profiles::entra(&scene);
    let client = "11111111-1111-1111-1111-111111111111";
    scene.authorization_server.federate(client, SUBJECT);
    let issuer = "https://login.microsoftonline.com/00000000-0000-0000-0000-000000000000/v2.0";
    let example = Example::new(&scene, "entra-federated-credential", issuer);
    example.works().await;
    assert_eq!(scene.authorization_server.last_request().assertion["aud"], profiles::ENTRA_AUDIENCE);
    let with_resource = example.with("resource = \"\"\n", "");
    with_resource.fails(REFUSED, &["invalid_target", "AADSTS9010010"], &["`resource = \"\"`"]).await;
    let own_scopes = example.with(profiles::ENTRA_SCOPE, "demo:read");
    own_scopes.fails(REFUSED, &["invalid_scope", "AADSTS1002012"], &["`/.default`", "`scopes`"]).await;
    let for_the_issuer = example.with("subject_audience = \"api://AzureADTokenExchange\"\n", "");
    for_the_issuer.fails(REFUSED, &["invalid_client", "AADSTS700212"], &["`subject_audience`"]).await;
    scene.authorization_server.federate(client, "repo:somebody/else:ref:refs/heads/main");
    example.fails(REFUSED, &["invalid_client", "AADSTS700213"], &["wayleave whoami", "trust policy"]).await;
    let unpinned = example.with("issuer = ", "# issuer = ");
    unpinned.fails(CONFIG, &["servers.demo.subject_audience", "needs `issuer`"], &[]).await;
}

#[tokio::test]
async fn auth0_is_told_the_audience() {
    let scene = Scene::new(BINARY).await;
    profiles::auth0(&scene);
    assert!(scene.authorization_server.issuer().ends_with('/'));
    let (example, proof) = Example::new(&scene, "auth0", "https://acme.eu.auth0.com/").with_key(KEY);
    scene.authorization_server.add_client("AbCdEfGhIjKlMnOpQrStUvWxYz012345", proof);
    example.works().await;
    let line = format!("audience = \"{}\"\n", scene.mcp.url());
    let silent = example.with(&line, "");
    silent.fails(REFUSED, &["access_denied", "No audience parameter"], &["`audience`"]).await;
    let slashed = example.with(&line, &format!("audience = \"{}/\"\n", scene.mcp.url()));
    slashed.fails(REFUSED, &["access_denied", "Service not enabled within domain"], &["character by character"]).await;
    let other_grant = example.with("\"client-credentials\"", "\"jwt-bearer\"");
    other_grant.fails(REFUSED, &["unauthorized_client", "Grant type"], &["operator must allow"]).await;
    let issuer = scene.authorization_server.issuer();
    let bare = example.with(&quoted(&issuer), &quoted(issuer.trim_end_matches('/')));
    bare.fails(REFUSED, &["issuer"], &["`issuer`"]).await;
}

#[tokio::test]
async fn okta_wants_scopes_and_by_default_a_proof() {
    let scene = Scene::new(BINARY).await;
    profiles::okta(&scene, false);
    let issuer = "https://acme.okta.com/oauth2/aus1234567890abcdef";
    let (example, proof) = Example::new(&scene, "okta", issuer).with_key(KEY);
    scene.authorization_server.add_client("0oa1234567890abcdef", proof);
    example.works().await;
    // An MCP server that does not list its scopes leaves it to the configuration.
    scene.mcp.set_metadata(json!({"scopes_supported": null}));
    example.works().await;
    let without = example.with("scopes = [\"demo:read\"]", "");
    without.fails(REFUSED, &["invalid_scope", "must be provided"], &["`scopes`"]).await;
    let other = example.with("demo:read", "demo:admin");
    other.fails(REFUSED, &["invalid_scope", "not configured"], &["`scopes`", "operator"]).await;
    profiles::okta(&scene, true);
    scene.authorization_server.set_nonce(Some("okta-nonce-1"));
    example.fails(REFUSED, &["invalid_dpop_proof", "is missing"], &["`dpop = true`", "operator"]).await;
    let bound = example.with("client_key_id", "dpop = true\nclient_key_id");
    let headers = format!("/v1/headers?server=demo&method=POST&url={}", scene.mcp.url());
    let reply = bound.world().daemon(&[]).await.get(&headers).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
}

#[tokio::test]
async fn google_exchanges_for_its_provider() {
    let scene = Scene::new(BINARY).await;
    profiles::google(&scene);
    let endpoint = quoted(&scene.authorization_server.token_endpoint());
    let example = Example::new(&scene, "google-sts", "https://sts.googleapis.com");
    let example = example.with("\"https://sts.googleapis.com/v1/token\"", &endpoint);
    assert!(example.works().await.starts_with("opaque-"));
    let sent = scene.authorization_server.last_request();
    assert_eq!(sent.params["subject_token_type"], "urn:ietf:params:oauth:token-type:jwt");
    assert_eq!(sent.params["requested_token_type"], "urn:ietf:params:oauth:token-type:access_token");
    let for_the_issuer = example.with("subject_audience = ", "# subject_audience = ");
    for_the_issuer
        .fails(REFUSED, &["invalid_grant", "does not match the expected audience"], &["`subject_audience`"])
        .await;
    let with_resource = example.with("resource = \"\"", "");
    with_resource.fails(REFUSED, &["invalid_request", "resource"], &["`resource`", "do not send it"]).await;
    let discovered = example.with("token_endpoint = ", "# token_endpoint = ");
    discovered.fails(REFUSED, &["publishes no authorization server metadata"], &["`token_endpoint`"]).await;
}

#[tokio::test]
async fn hydra_is_the_audience_by_its_endpoint() {
    let scene = Scene::new(BINARY).await;
    profiles::hydra(&scene);
    let endpoint = scene.authorization_server.token_endpoint();
    let example = Example::new(&scene, "ory-hydra", "https://hydra.example.com").with_secret();
    let example = example.with("https://hydra.example.com/oauth2/token", &endpoint);
    scene.authorization_server.add_client("mcp-agent", ClientProof::Basic(SECRET.to_owned()));
    assert_eq!(keys::peek(&example.works().await)["aud"], json!(endpoint));
    let for_the_issuer = example.with("subject_audience = ", "# subject_audience = ");
    // What it says comes after what is shown; the hint knows it all the same.
    for_the_issuer.fails(REFUSED, &["invalid_grant"], &["`subject_audience`"]).await;
    let wider = example.with("[\"demo:read\"]", "[\"demo:read\", \"demo:write\"]");
    wider.fails(REFUSED, &["invalid_scope"], &["`scopes`", "operator"]).await;
    let text = example.text.lines().filter(|line| !line.starts_with("client_")).collect::<Vec<_>>().join("\n");
    let anonymous = Example { scene: &scene, text };
    anonymous.fails(REFUSED, &["invalid_client", "no client authentication"], &["`client_id`"]).await;
}

// The platforms.

#[tokio::test]
async fn a_workload_of_a_spiffe_trust_domain() {
    let scene = Scene::new(BINARY).await;
    let agent = FakeWorkloadApi::start(&[SVID]);
    scene.authorization_server.also_trust(agent.trust());
    scene.authorization_server.federate("mcp-agent", SVID);
    let example = Example::new(&scene, "spiffe", LOGIN);
    let world = |example: &Example<'_>| {
        Wayleave::new(BINARY).env("SPIFFE_ENDPOINT_SOCKET", &agent.endpoint()).config(&example.text)
    };
    world(&example).run(&["token", "demo"]).await.expect_code(0);
    let sent = scene.authorization_server.last_request();
    assert_eq!(sent.params["client_assertion_type"], "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe");
    let both = example.with("exchange = \"client-credentials\"", "exchange = \"jwt-bearer\"");
    let output = world(&both).run(&["token", "demo"]).await.expect_code(CONFIG);
    tells(&output, &["one JWT as grant and as proof", "client-credentials"], &[]);
}

#[tokio::test]
async fn a_job_of_gitlab() {
    let scene = Scene::new(BINARY).await;
    let example = Example::new(&scene, "gitlab-ci", LOGIN);
    let job = |audience: &str| {
        let token = scene.platform.mint(audience, LIFE);
        Wayleave::new(BINARY).env("GITLAB_CI", "true").env("MCP_ID_TOKEN", &token).config(&example.text)
    };
    let issuer = scene.authorization_server.issuer();
    job(&issuer).run(&["token", "demo"]).await.expect_code(0);
    let output = job(&scene.mcp.url()).run(&["token", "demo"]).await.expect_code(NO_IDENTITY);
    tells(&output, &["is made for", &scene.mcp.url()], &["have the platform make the token for", &issuer]);
    let output = job(&issuer).without_env("MCP_ID_TOKEN").run(&["token", "demo"]).await.expect_code(NO_IDENTITY);
    tells(&output, &["MCP_ID_TOKEN is not set"], &["`id_tokens:`"]);
}

/// The daemon inside this process, where the files of the platform can lie below another root. Gives its answer.
async fn at_the_platform(stage: &Stage, text: &str) -> Value {
    let place = tempfile::Builder::new().prefix("wl").tempdir_in("/tmp").expect("/tmp is writable");
    let socket = place.path().join("s");
    let vars: BTreeMap<String, String> = stage.vars.clone();
    let env = Env::from_vars(vars);
    let env = match &stage.files {
        Some(root) => env.with_root(root.path().to_owned()),
        None => env,
    };
    let text = format!("{text}\n[listen]\nsocket = {:?}\n", socket.display().to_string());
    let config = Config::from_toml(&text, &env).expect("a valid configuration");
    let app = App::build(config, env, Clock::system()).await.expect("it can be built");
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let served = tokio::spawn(app.run(async move { drop(stopped.await) }));
    let answer = unix_http::get(&socket, "/v1/token?server=demo").await.expect("the daemon answers").json();
    drop(stop);
    served.await.expect("it does not panic").expect("it serves");
    answer
}

/// The pod of a case of `tests/sources/kubernetes/`.
async fn pod(name: &str) -> Stage {
    platform("kubernetes", name).await
}

/// The platform of a case of `tests/sources/`.
async fn platform(source: &str, name: &str) -> Stage {
    let cases = case::all(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sources")));
    let case = cases.iter().find(|case| case.source == source && case.name == name).expect("there is such a case");
    case.stage(BINARY).await
}

#[tokio::test]
async fn a_pod_with_a_projected_token() {
    let stage = pod("ok").await;
    let example = Example::new(&stage.scene, "kubernetes-token-file", LOGIN);
    let answer = at_the_platform(&stage, &example.text).await;
    assert!(answer["access_token"].is_string(), "{}", answer["error_description"]);
    // The token that every pod has is the first that is found.
    let default = "/var/run/secrets/kubernetes.io/serviceaccount/token";
    let answer = at_the_platform(&stage, &example.with("/var/run/secrets/tokens/mcp", default).text).await;
    assert_eq!(answer["class"], "no_identity");
    assert!(answer["hint"].as_str().is_some_and(|hint| hint.contains("projected `serviceAccountToken`")), "{answer}");
}

#[tokio::test]
async fn a_pod_that_asks_for_its_token() {
    let stage = pod("request-ok").await;
    let example = Example::new(&stage.scene, "kubernetes-token-request", LOGIN);
    let answer = at_the_platform(&stage, &example.text).await;
    assert!(answer["access_token"].is_string(), "{}", answer["error_description"]);
    assert_eq!(stage.problems(), Vec::<String>::new());
    // Without the role.
    let stage = pod("request-forbidden").await;
    let example = Example::new(&stage.scene, "kubernetes-token-request", LOGIN);
    let answer = at_the_platform(&stage, &example.text).await;
    assert_eq!(answer["class"], "no_identity");
    assert!(answer["hint"].as_str().is_some_and(|hint| hint.contains("serviceaccounts/token")), "{answer}");
}

/// The example of a platform whose tokens only Entra takes, which federates that subject with the client: it works at the
/// platform of that case, and without the audience nothing leaves.
async fn federated_with_entra(source: &str, example: &str, subject: &str) {
    let stage = platform(source, "ok").await;
    profiles::entra(&stage.scene);
    stage.scene.authorization_server.federate("11111111-1111-1111-1111-111111111111", subject);
    let issuer = "https://login.microsoftonline.com/00000000-0000-0000-0000-000000000000/v2.0";
    let example = Example::new(&stage.scene, example, issuer);
    let answer = at_the_platform(&stage, &example.text).await;
    assert!(answer["access_token"].is_string(), "{}", answer["error_description"]);
    let assertion = stage.scene.authorization_server.last_request().assertion;
    assert_eq!((&assertion["aud"], &assertion["sub"]), (&json!(profiles::ENTRA_AUDIENCE), &json!(subject)));
    assert_eq!(stage.problems(), Vec::<String>::new());

    let stage = platform(source, "ok").await;
    profiles::entra(&stage.scene);
    let unsaid = example.with("subject_audience = ", "# subject_audience = ");
    let answer = at_the_platform(&stage, &unsaid.text).await;
    assert_eq!(answer["class"], "no_identity");
    let hint = answer["hint"].as_str().unwrap_or_default();
    assert!(hint.contains("`subject_audience`"), "{answer}");
}

#[tokio::test]
async fn a_service_connection_of_azure_pipelines() {
    federated_with_entra("azure-pipelines", "azure-pipelines", "sc://octo-org/octo-project/agents").await;
}

#[tokio::test]
async fn a_pod_of_aks() {
    federated_with_entra("azure-workload-identity", "aks", "system:serviceaccount:agents:agent").await;
}

// The daemon.

#[tokio::test]
async fn a_daemon_in_production() {
    let scene = Scene::new(BINARY).await;
    let place = scene.wayleave.path().display().to_string();
    let example = Example::new(&scene, "production-daemon", LOGIN)
        .with("/run/wayleave/wayleave.sock", &scene.wayleave.socket().display().to_string())
        .with("/var/log/wayleave", &place)
        .with("127.0.0.1:9464", "127.0.0.1:0")
        .with("\"2000\"", &quoted(&getegid().to_string()))
        .with("linger = \"10s\"", "linger = \"0s\"");
    // Here nobody is the agent.
    let stranger = example.world().daemon(&[]).await;
    let reply = stranger.get("/v1/token?server=demo").await;
    assert_eq!((reply.status, &reply.json()["class"]), (403, &json!("denied")), "{}", reply.body);
    assert!(reply.json()["hint"].as_str().is_some_and(|hint| hint.contains("`exe` is another than")), "{}", reply.body);
    stranger.stop().await;
    let own = std::env::current_exe().expect("it runs").display().to_string();
    let daemon = example.with("/usr/bin/deploy-agent", &own).world().daemon(&[]).await;
    daemon.token("demo").await;
    let record = fs::read_to_string(format!("{place}/audit.jsonl")).expect("it is there");
    let outcomes: Vec<Value> = record.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(outcomes.len() >= 2, "the refusal and the token: {record}");
}
