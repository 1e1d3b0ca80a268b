//! Every example of `examples/config/`, from the environment to the token, against a server of the kind it is for; and the near
//! miss that somebody would write first, with the hint that gets them on.
//!
//! The names in an example are replaced by those of the fakes, and nothing else.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey};
use nix::unistd::getegid;
use safeconduct::{App, Clock, Config, Env};
use serde_json::{Value, json};
use support::authorization_server::{ClientProof, FakeAs, Profile};
use support::case::{self, Stage};
use support::entra::FakeEntra;
use support::google::{AGENT as ACCOUNT, FakeGoogle, INSTANCE, PROVIDER, external_account};
use support::platform::FakePlatform;
use support::safeconduct::{Output, Safeconduct};
use support::scene::Scene;
use support::tls::TestCa;
use support::traffic::{Place, Traffic};
use support::workload_api::FakeWorkloadApi;
use support::{entra, keys, leak, profiles, unix_http};

use crate::binary;

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
const KEY: &str = "/etc/safeconduct/client.pem";
const SECRET_FILE: &str = "/etc/safeconduct/client-secret";
const SECRET: &str = "a client's secret: 100%+";

/// An example with the names of this scene.
struct Example<'a> {
    scene: &'a Scene,
    text: String,
}

impl<'a> Example<'a> {
    /// `issuer` is the one in the file.
    fn new(scene: &'a Scene, name: &str, issuer: &str) -> Self {
        Self::at_server(scene, name).with(&quoted(issuer), &quoted(&scene.authorization_server.issuer()))
    }

    /// One that names no issuer.
    fn at_server(scene: &'a Scene, name: &str) -> Self {
        Self::unchanged(scene, name).with(&quoted(MCP), &quoted(&scene.mcp.url()))
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

    /// With these keys in `[egress]`, by which a fake is in the place of hosts of the product's own.
    fn behind(&self, egress: &str) -> Self {
        self.with("[egress]\n", &format!("[egress]\n{egress}"))
    }

    /// With a key file of a client, in the place of that one. Gives what the server has to know as well.
    fn with_key(&self, path: &str) -> (Self, ClientProof) {
        let pair = rcgen::KeyPair::generate().expect("a key");
        let file = self.scene.safeconduct.private(path.rsplit('/').next().expect("a name"));
        fs::write(&file, pair.serialize_pem()).expect("ours");
        let key = EncodingKey::from_ec_der(&pair.serialize_der());
        let jwk = Jwk::from_encoding_key(&key, Algorithm::ES256).expect("a public key");
        (self.with(path, &file.display().to_string()), ClientProof::Key(Box::new(jwk)))
    }

    fn with_secret(&self) -> Self {
        leak::minted(SECRET);
        let file = self.scene.safeconduct.private("secret");
        fs::write(&file, SECRET).expect("ours");
        self.with(SECRET_FILE, &file.display().to_string())
    }

    fn world(&self) -> Safeconduct {
        self.scene.safeconduct.clone().config(&self.text)
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
    let told = output.stderr.split("safeconduct: error: ").nth(1).unwrap_or_default();
    let (error, cure) = told.split_once("safeconduct: hint: ").unwrap_or_default();
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
        let output = Safeconduct::new(binary()).config(&text).run(&["config", "check"]).await;
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
    let scene = Scene::new(binary()).await;
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
    let scene = Scene::new(binary()).await;
    let idp = FakeAs::start(scene.platform.trust()).await;
    idp.set_audience(&scene.authorization_server.issuer());
    scene.authorization_server.trust_only(idp.trust());
    let example = Example::new(&scene, "id-jag", LOGIN).with("https://acme.okta.com", &idp.issuer());
    let (example, at_server) = example.with_key(KEY);
    let (example, at_idp) = example.with_key("/etc/safeconduct/idp.pem");
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
    let scene = Scene::new(binary()).await;
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
    let scene = Scene::new(binary()).await;
    let example = Example::new(&scene, "client-credentials-secret", LOGIN).with_secret();
    scene.authorization_server.add_client("mcp-agent", ClientProof::Basic(SECRET.to_owned()));
    example.works().await;
    assert!(scene.authorization_server.last_request().authorization);
    let in_the_form = example.with("client_secret_method = \"basic\"", "client_secret_method = \"post\"");
    in_the_form.fails(REFUSED, &["invalid_client"], &["`client_auth`"]).await;
    let file = scene.safeconduct.private("secret").display().to_string();
    let written = example.with(&format!("client_secret_file = \"{file}\""), "client_secret = \"s\"");
    written.fails(CONFIG, &["servers.demo.client_secret"], &[]).await;
}

#[tokio::test]
async fn client_credentials_with_a_certificate() {
    let mut scene = Scene::new(binary()).await;
    let ca = TestCa::new();
    scene.authorization_server.serve_mutual(ca.mutual(&[ca.der()])).await;
    scene.authorization_server.add_client("mcp-agent", ClientProof::Certificate("mcp-agent".to_owned()));
    let (chain, key) = ca.client("mcp-agent");
    let mut example = Example::new(&scene, "client-credentials-mtls", LOGIN)
        .with("[egress]\n", &format!("[egress]\nca_file = \"{}\"\n", ca.file().display()));
    for (name, text) in [("client.crt", chain), ("client.pem", key)] {
        let file = scene.safeconduct.private(name);
        fs::write(&file, text).expect("ours");
        example = example.with(&format!("/etc/safeconduct/{name}"), &file.display().to_string());
    }
    // The token is bound to the certificate, and so never given bare.
    let reply = example.world().daemon(&[]).await.get("/v1/headers?server=demo").await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    let file = scene.safeconduct.private("client.crt").display().to_string();
    let half = example.with(&format!("client_cert_file = \"{file}\""), "");
    half.fails(CONFIG, &["`client_cert_file` and `client_key_file` together"], &[]).await;
    // A server that asks for certificates elsewhere, and does not say where.
    scene.authorization_server.set_metadata(json!({}));
    example.fails(REFUSED, &["invalid_client", "no certificate came"], &["`client_auth`", "operator"]).await;
}

#[tokio::test]
async fn tokens_that_are_bound_to_a_key() {
    let scene = Scene::new(binary()).await;
    scene.mcp.require_dpop(None);
    scene.authorization_server.set_profile(Profile { wants_proof: true, ..Default::default() });
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
    let scene = Scene::new(binary()).await;
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
    let scene = Scene::new(binary()).await;
    let company = FakeAs::start(scene.platform.trust()).await;
    company.set_audience(&scene.authorization_server.issuer());
    scene.authorization_server.trust_only(company.trust());
    let example = Example::new(&scene, "chain", LOGIN).with("https://sts.example.com", &company.issuer());
    example.works().await;
    assert_eq!(scene.authorization_server.last_request().assertion["iss"], json!(company.issuer()));
    let unused = example.with("identity = \"company\"\n", "");
    unused.fails(REFUSED, &["invalid_grant"], &["trust policy", "safeconduct whoami"]).await;
}

// The vendors.

#[tokio::test]
async fn keycloak_takes_the_grant_of_a_confidential_client() {
    let scene = Scene::new(binary()).await;
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
    let scene = Scene::new(binary()).await;
    profiles::keycloak_grant(&scene, SUBJECT);
    let example = Example::new(&scene, "keycloak-jwt-grant", "https://keycloak.example.com/realms/agents");
    let (example, proof) = example.with_key(KEY);
    scene.authorization_server.add_client("mcp-agent", proof);
    let file = scene.safeconduct.private("identity.jwt");
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
    let scene = Scene::new(binary()).await;
    let example = Example::new(&scene, "keycloak-federated-client", "https://keycloak.example.com/realms/agents");
    scene.authorization_server.federate("mcp-agent", SUBJECT);
    example.works().await;
    let nameless = example.with("client_id = ", "# client_id = ");
    nameless.fails(REFUSED, &["client_id is missing"], &["`client_id`"]).await;
}

/// An example for Entra, with what stands for its hosts.
fn of_entra<'a>(scene: &'a Scene, entra: &FakeEntra, name: &str) -> Example<'a> {
    of_the_scene(scene, name).behind(&entra.egress())
}

fn of_the_scene<'a>(scene: &'a Scene, name: &str) -> Example<'a> {
    Example::unchanged(scene, name).with(&quoted(MCP), &quoted(&scene.mcp.url()))
}

const APPLICATION: &str = "11111111-1111-1111-1111-111111111111";
const TARGET: &str = "api://22222222-2222-2222-2222-222222222222";
const AGENT: &str = "55555555-5555-5555-5555-555555555555";

#[tokio::test]
async fn entra_federates_a_credential() {
    let scene = Scene::new(binary()).await;
    let entra = FakeEntra::start().await;
    entra.federate(APPLICATION, scene.platform.trust(), SUBJECT);
    entra.target(TARGET, "22222222-2222-2222-2222-222222222222");
    let example = of_entra(&scene, &entra, "entra-federated-credential");
    let claims = entra.verified(&example.works().await);
    assert_eq!((&claims["aud"], &claims["azp"]), (&json!(&TARGET[6..]), &json!(APPLICATION)));
    assert_eq!(scene.platform.audiences(), [entra::EXCHANGE]);
    assert_eq!(
        scene.mcp.probes() + scene.mcp.metadata_requests() + scene.authorization_server.metadata_requests(),
        0,
        "nothing is discovered"
    );
    let line = format!("client_id = \"{APPLICATION}\"\n");
    let with_resource = example.with(&line, &format!("{line}resource = \"https://mcp.example.com\"\n"));
    with_resource.fails(REFUSED, &["invalid_target", "AADSTS9010010"], &["`resource = \"\"`"]).await;
    let other_target = example.with(TARGET, "api://mcp");
    other_target.fails(REFUSED, &["invalid_resource", "AADSTS500011"], &["`scopes`", "`tenant`"]).await;
    let other_client = example.with(APPLICATION, AGENT);
    other_client.fails(REFUSED, &["unauthorized_client", "AADSTS700016"], &["`client_id`"]).await;
    let other_tenant = example.with(&format!("tenant = \"{}\"", entra::TENANT), "tenant = \"contoso.example\"");
    other_tenant.fails(REFUSED, &["AADSTS90002"], &["`tenant`", "`cloud`"]).await;
    let other_audience = example.with(&line, &format!("{line}subject_audience = \"api://elsewhere\"\n"));
    other_audience.fails(REFUSED, &["invalid_client", "AADSTS700212"], &["`subject_audience`"]).await;
    // The audience of one cloud is not that of another, and a key of another cloud's is not sent here.
    let other_cloud = example.with("# cloud = \"us-government\"", "cloud = \"us-government\"");
    other_cloud.fails(REFUSED, &["AADSTS700212"], &["`subject_audience`"]).await;
    let own_scopes = example.with(&format!("{TARGET}/.default"), "demo:read");
    own_scopes.fails(CONFIG, &["servers.demo.scopes", "/.default"], &[]).await;
    let discovered = example.with(&line, &format!("{line}issuer = \"https://login.microsoftonline.com/common\"\n"));
    discovered.fails(CONFIG, &["servers.demo.issuer", "the provider's own hosts"], &[]).await;
    let with_key = example.with(&line, &format!("{line}client_auth = \"mtls\"\n"));
    with_key.fails(CONFIG, &["servers.demo.client_auth", "Entra takes"], &[]).await;
    // Without an application only a managed identity has a token, and this job has none.
    let nameless = example.with(&line, "");
    nameless.fails(CONFIG, &["\"entra\" without `client_id`", scene.platform.issuer()], &["set `client_id`"]).await;
    let named = nameless.with("[egress]", "[identity]\nsource = \"github-actions\"\n\n[egress]");
    named.fails(CONFIG, &["servers.demo.client_id", "is not of Azure"], &[]).await;
}

#[tokio::test]
async fn entra_says_what_a_federated_credential_lacks() {
    let scene = Scene::new(binary()).await;
    let entra = FakeEntra::start().await;
    entra.target(TARGET, TARGET);
    entra.register(APPLICATION);
    let example = of_entra(&scene, &entra, "entra-federated-credential");
    let cure = ["federated credential", "safeconduct whoami"];
    example.fails(REFUSED, &["invalid_client", "AADSTS70025"], &cure).await;
    entra.federate(APPLICATION, entra.trust(), SUBJECT);
    example.fails(REFUSED, &["invalid_client", "AADSTS700211"], &cure).await;
    entra.federate(APPLICATION, scene.platform.trust(), "repo:somebody/else:ref:refs/heads/main");
    example.fails(REFUSED, &["invalid_client", "AADSTS700213"], &cure).await;
    entra.federate(APPLICATION, scene.platform.trust(), SUBJECT);
    example.works().await;
    // The same claims under another key.
    let forger = FakePlatform::start().await;
    let file = scene.safeconduct.private("forged.jwt");
    let claims = json!({"iss": scene.platform.issuer(), "sub": SUBJECT});
    fs::write(&file, forger.mint_with(entra::EXCHANGE, LIFE, &claims)).expect("ours");
    let named = ["token", "demo", "--identity-file", &file.display().to_string()];
    let output = example.world().run(&named).await.expect_code(REFUSED);
    tells(&output, &["invalid_client", "AADSTS700027"], &["`client_id`"]);
    // A minute over by Entra's clock; ours may be wrong by more.
    let file = scene.safeconduct.private("identity.jwt");
    let over =
        json!({"iat": keys::now() as u64 - 360, "nbf": keys::now() as u64 - 360, "exp": keys::now() as u64 - 60});
    fs::write(&file, scene.platform.mint_with(entra::EXCHANGE, LIFE, &over)).expect("ours");
    let named = ["token", "demo", "--identity-file", &file.display().to_string()];
    let output = example.world().run(&named).await.expect_code(REFUSED);
    tells(&output, &["invalid_client", "AADSTS700024"], &["compare both clocks"]);
}

#[tokio::test]
async fn entra_takes_a_secret_where_there_must_be_one() {
    let scene = Scene::new(binary()).await;
    let entra = FakeEntra::start().await;
    entra.target(TARGET, TARGET);
    entra.secret(APPLICATION, SECRET);
    let line = format!("client_id = \"{APPLICATION}\"\n");
    let keys = format!(
        "{line}client_auth = \"secret\"\nclient_secret_method = \"post\"\nclient_secret_file = \"{SECRET_FILE}\"\n"
    );
    let example = of_entra(&scene, &entra, "entra-federated-credential").with(&line, &keys).with_secret();
    example.works().await;
    assert_eq!(scene.platform.requests(), 0, "no workload identity is needed");
    entra.secret(APPLICATION, "another secret than that");
    example.fails(REFUSED, &["invalid_client", "AADSTS7000215"], &["its value", "federated credential"]).await;
}

/// `doctor` walks the same way: what a provider's exchange does not ask for is not demanded of the server.
#[tokio::test]
async fn entra_is_examined_by_doctor() {
    let scene = Scene::new(binary()).await;
    let entra = FakeEntra::start().await;
    entra.target(TARGET, TARGET);
    entra.federate(APPLICATION, scene.platform.trust(), SUBJECT);
    let example = of_entra(&scene, &entra, "entra-federated-credential");
    let report = example.world().run(&["doctor", "--json", "demo"]).await.json();
    let state = |code: &str| {
        let checks = report["checks"].as_array().cloned().unwrap_or_default();
        let found = checks.into_iter().find(|check| check["code"] == code);
        found
            .map(|check| check["state"].as_str().unwrap_or_default().to_owned())
            .unwrap_or_else(|| panic!("{code}: {report:#}"))
    };
    for (code, wanted) in [
        ("resource-metadata", "skip"),
        ("server-metadata", "skip"),
        ("subject-audience", "pass"),
        ("token-issued", "pass"),
        ("token-bound-to-resource", "pass"),
        ("token-scope", "pass"),
        // The MCP server of this scene trusts another issuer.
        ("token-accepted", "fail"),
    ] {
        assert_eq!(state(code), wanted, "{code}: {report:#}");
    }
}

#[tokio::test]
async fn entra_takes_a_svid_for_a_jwt_like_any_other() {
    let scene = Scene::new(binary()).await;
    let entra = FakeEntra::start().await;
    entra.target(TARGET, TARGET);
    entra.federate(APPLICATION, scene.platform.trust(), SVID);
    let file = scene.safeconduct.private("identity.jwt");
    fs::write(&file, scene.platform.mint_with(entra::EXCHANGE, LIFE, &json!({"sub": SVID}))).expect("ours");
    let example = of_entra(&scene, &entra, "entra-federated-credential");
    let named = ["token", "demo", "--identity-file", &file.display().to_string()];
    example.world().run(&named).await.expect_code(0);
}

/// The metadata service of a machine, which gives the managed identity this token for this target.
async fn metadata_service(resource: &str, which: &str, token: &str) -> (Traffic, String) {
    let script = format!(
        "[[request]]\nor_more = true\nmethod = \"GET\"\npath = \"/metadata/identity/oauth2/token\"\n\
        query = {{ api-version = \"2019-08-01\", resource = \"{resource}\"{which} }}\nheaders = {{ metadata = \"true\" }}\n\
        [request.answer]\nbody = '{{\"access_token\": \"{token}\", \"expires_on\": \"1999999999\", \"resource\": \"{resource}\", \"token_type\": \"Bearer\"}}'\n"
    );
    let place = Place::new(&script).await;
    let base = place.base().to_owned();
    (place.serve(&script, None), base)
}

/// On such a machine and nowhere else.
fn on_a_machine(example: &Example<'_>, base: &str) -> Safeconduct {
    Safeconduct::new(binary()).env("AZURE_POD_IDENTITY_AUTHORITY_HOST", base).config(&example.text)
}

#[tokio::test]
async fn entra_knows_its_managed_identities() {
    let scene = Scene::new(binary()).await;
    let entra = FakeEntra::start().await;
    entra.target(TARGET, TARGET);
    let which = ", client_id = \"33333333-3333-3333-3333-333333333333\"";
    let token = entra.managed(TARGET);
    let (machine, base) = metadata_service(TARGET, which, &token).await;
    let example = of_entra(&scene, &entra, "entra-managed-identity");
    let output = on_a_machine(&example, &base).run(&["token", "demo"]).await.expect_code(0);
    assert_eq!(output.stdout.trim(), token, "it is passed on as it came");
    assert!(entra.seen().is_empty() && machine.problems().is_empty(), "{:?}", machine.problems());
    // As to what is left of it, and whose it is, the broker says the same.
    let daemon = on_a_machine(&example, &base).daemon(&[]).await;
    let answer = daemon.get("/v1/token?server=demo").await.json();
    let expires_in = answer["expires_in"].as_u64().expect("a number");
    assert!(
        (3_000..=3_600).contains(&expires_in) && answer["scope"] == json!(format!("{TARGET}/.default")),
        "{answer}"
    );
    // Another directory's managed identity.
    let elsewhere = example.with(entra::TENANT, "66666666-6666-6666-6666-666666666666");
    let output = on_a_machine(&elsewhere, &base).run(&["token", "demo"]).await.expect_code(CONFIG);
    tells(&output, &["not by the directory 66666666"], &["`tenant` of the managed identity"]);
    // About an application that is not there.
    let line = format!("scopes = [\"{TARGET}/.default\"]\n");
    let agent = example.with(&line, &format!("{line}agent_identity = \"{AGENT}\"\n"));
    let output = on_a_machine(&agent, &base).run(&["token", "demo"]).await.expect_code(CONFIG);
    tells(&output, &["servers.demo.client_id", "`agent_identity` is about an application"], &[]);
}

#[tokio::test]
async fn entra_names_an_application_of_version_2_by_its_id() {
    let scene = Scene::new(binary()).await;
    let entra = FakeEntra::start().await;
    let id = "22222222-2222-2222-2222-222222222222";
    entra.target(TARGET, id);
    let which = ", client_id = \"33333333-3333-3333-3333-333333333333\"";
    let token = entra.managed(TARGET);
    let example = of_entra(&scene, &entra, "entra-managed-identity");
    let (_machine, base) = metadata_service(TARGET, which, &token).await;
    let output = on_a_machine(&example, &base).run(&["token", "demo"]).await.expect_code(NO_IDENTITY);
    tells(&output, &["tokens of version 2", id], &[&format!("scopes = [\"{id}/.default\"]")]);
    let by_id = example.with(&format!("[\"{TARGET}/"), &format!("[\"{id}/"));
    let (_machine, base) = metadata_service(id, which, &token).await;
    on_a_machine(&by_id, &base).run(&["token", "demo"]).await.expect_code(0);
    // Or asked for by the one name and known by the other.
    let line = format!("scopes = [\"{TARGET}/.default\"]\n");
    let by_both = example
        .with(&line, &format!("{line}subject_audience = \"{id}\"\n"))
        .with("source = \"azure\"", &format!("resource = \"{TARGET}\"\nsource = \"azure\""));
    let (_machine, base) = metadata_service(TARGET, which, &token).await;
    on_a_machine(&by_both, &base).run(&["token", "demo"]).await.expect_code(0);
}

#[tokio::test]
async fn entra_lets_a_blueprint_speak_for_its_agent() {
    let scene = Scene::new(binary()).await;
    let entra = FakeEntra::start().await;
    entra.target(TARGET, TARGET);
    entra.federate(APPLICATION, entra.trust(), entra::MANAGED);
    entra.agent(AGENT, APPLICATION);
    let (_machine, base) = metadata_service(entra::EXCHANGE, "", &entra.managed(entra::EXCHANGE)).await;
    let example = of_entra(&scene, &entra, "entra-agent-identity");
    let output = on_a_machine(&example, &base).run(&["token", "demo"]).await.expect_code(0);
    assert_eq!(entra.verified(output.stdout.trim())["azp"], json!(AGENT));
    let [first, second] = &entra.seen()[..] else { panic!("two requests: {:?}", entra.seen()) };
    assert_eq!((&*first.client, &*first.scope), (APPLICATION, "api://AzureADTokenExchange/.default"));
    assert_eq!((first.agent.as_deref(), &*first.subject), (Some(AGENT), entra::MANAGED));
    assert_eq!((&*second.client, &*second.scope, &second.agent), (AGENT, &*format!("{TARGET}/.default"), &None));
    assert!(second.subject.ends_with(AGENT), "{second:?}");
    // The blueprint for itself.
    let alone = example.with("agent_identity = ", "# agent_identity = ");
    let output = on_a_machine(&alone, &base).run(&["token", "demo"]).await.expect_code(REFUSED);
    tells(&output, &["AADSTS82001"], &["`agent_identity`"]);
    let other = example.with(AGENT, "77777777-7777-7777-7777-777777777777");
    let output = on_a_machine(&other, &base).run(&["token", "demo"]).await.expect_code(REFUSED);
    tells(&output, &["AADSTS82000"], &["operator"]);
}

#[tokio::test]
async fn entra_between_a_platform_and_an_authorization_server() {
    let scene = Scene::new(binary()).await;
    let entra = FakeEntra::start().await;
    let id = "44444444-4444-4444-4444-444444444444";
    entra.target(id, id);
    entra.federate(APPLICATION, scene.platform.trust(), SUBJECT);
    scene.authorization_server.trust_only(entra.trust());
    let strict = Profile { assertion_audience: Some(id.to_owned()), ..Profile::default() };
    scene.authorization_server.set_profile(strict.clone());
    let example = of_entra(&scene, &entra, "entra-chain");
    let example = example.with(&quoted(LOGIN), &quoted(&scene.authorization_server.issuer()));
    // Entra's tokens have no `jti` (theirs is `uti`), and the MCP profile wants one.
    example.fails(REFUSED, &["invalid_grant", "jti is missing"], &["Entra's", "its operator must take them"]).await;
    scene.authorization_server.set_profile(Profile { jti_optional: true, ..strict });
    example.works().await;
    let sent = scene.authorization_server.last_request();
    assert_eq!((&sent.assertion["azp"], &sent.assertion["aud"]), (&json!(APPLICATION), &json!(id)));
    assert_eq!(entra.seen().last().map(|seen| seen.scope.clone()), Some(format!("{id}/.default")));
    // Known by a URI, and named by its id: what comes back is not what was asked for, and goes nowhere.
    let uri = "api://authorization-server";
    entra.target(uri, id);
    let by_uri = example.with(&quoted(id), &quoted(uri));
    by_uri.fails(NO_IDENTITY, &["made for", id], &["`subject_audience`"]).await;
    let unregistered = example.with(&quoted(id), "\"api://unknown\"");
    unregistered.fails(REFUSED, &["AADSTS500011"], &["in a chain"]).await;
    let nameless = example.with("client_id = ", "# client_id = ");
    nameless.fails(CONFIG, &["identities.entra.client_id", "federated credential"], &[]).await;
    // The same from a managed identity, whose token for Entra carries the id of the token exchange.
    entra.federate(APPLICATION, entra.trust(), entra::MANAGED);
    let (_machine, base) = metadata_service(entra::EXCHANGE, "", &entra.managed(entra::EXCHANGE)).await;
    let managed = example.with("[egress]", "[identity]\nsource = \"azure\"\n\n[egress]");
    on_a_machine(&managed, &base).run(&["token", "demo"]).await.expect_code(0);
    assert_eq!(scene.authorization_server.last_request().assertion["azp"], json!(APPLICATION));
}

#[tokio::test]
async fn auth0_is_told_the_audience() {
    let scene = Scene::new(binary()).await;
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
    let scene = Scene::new(binary()).await;
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

/// Google as it stands in the place of its hosts, with the job of the scene trusted by the provider in the pool.
async fn google(scene: &Scene) -> FakeGoogle {
    let google = FakeGoogle::start(scene.platform.trust()).await;
    google.grant(&FakeGoogle::principal(SUBJECT), ACCOUNT);
    google
}

impl Example<'_> {
    /// With a fake in the place of Google's hosts.
    fn at_google(&self, google: &FakeGoogle) -> Self {
        self.behind(&google.egress())
    }
}

/// A type of token, without what all their names begin with.
const JWT: &str = "oauth:token-type:jwt";
const FRONT_DOOR: &str = "https://mcp-abc123-ew.a.run.app";

#[tokio::test]
async fn google_gives_an_identity_token_for_a_front_door() {
    let scene = Scene::new(binary()).await;
    let google = google(&scene).await;
    let example = Example::at_server(&scene, "gcp-id-token").at_google(&google);
    let claims = google.verify(&example.works().await);
    assert_eq!((&claims["aud"], &claims["email"]), (&json!(FRONT_DOOR), &json!(ACCOUNT)));
    let form = google.last_form();
    assert_eq!(form["scope"], "https://www.googleapis.com/auth/iam", "no more than this step needs");
    assert_eq!(scene.authorization_server.token_requests(), 0, "nothing is discovered");
    // It lives as long as it says itself.
    let answer = example.world().daemon(&[]).await.get("/v1/token?server=demo").await.json();
    assert!((3_500..=3_600).contains(&answer["expires_in"].as_u64().unwrap_or_default()), "{answer}");
    // Through another account, which may act as the last one.
    let through = example
        .with(ACCOUNT, "last@project.iam.gserviceaccount.com\"\ndelegates = [\"AGENT\"]\n#")
        .with("AGENT", ACCOUNT);
    through.fails(REFUSED, &["PERMISSION_DENIED", "getOpenIdToken"], &["roles/iam.workloadIdentityUser"]).await;
    google.grant(ACCOUNT, "last@project.iam.gserviceaccount.com");
    assert_eq!(google.verify(&through.works().await)["email"], json!("last@project.iam.gserviceaccount.com"));
    google.revoke(&FakeGoogle::principal(SUBJECT), ACCOUNT);
    through.fails(REFUSED, &["implicitDelegation"], &["`delegates`"]).await;
    example.fails(REFUSED, &["PERMISSION_DENIED", "getOpenIdToken"], &["roles/iam.workloadIdentityUser"]).await;
}

#[tokio::test]
async fn google_refuses_with_words_that_have_a_cure() {
    let scene = Scene::new(binary()).await;
    let google = google(&scene).await;
    let example = Example::at_server(&scene, "gcp-id-token").at_google(&google);
    let by_name = example.with("projects/123456789012/", "projects/my-project/");
    by_name.fails(REFUSED, &["invalid_target"], &["`pool`", "the number of the project"]).await;
    google.allow_audiences(&["https://github.com/octo-org"]);
    example.fails(REFUSED, &["invalid_grant", "does not match the expected audience"], &["`subject_audience`"]).await;
    let named = example.with("exchange = ", "subject_audience = \"https://github.com/octo-org\"\nexchange = ");
    google.verify(&named.works().await);
    // What is wrong in the file.
    let poolless = example.with("pool = ", "# pool = ");
    poolless.fails(CONFIG, &["servers.demo.pool", "`exchange = \"direct\"`", "`subject_audience`"], &[]).await;
    let nobody = example.with("service_account = ", "# service_account = ");
    nobody.fails(CONFIG, &["servers.demo.audience", "needs `service_account`"], &[]).await;
    let nothing = example.with("audience = ", "# audience = ");
    nothing.fails(CONFIG, &["needs `audience`", "or `scopes`"], &[]).await;
    let both = example.with("audience = ", "scopes = [\"openid\"]\naudience = ");
    both.fails(CONFIG, &["servers.demo.scopes", "an identity token has no scopes"], &[]).await;
    let limited = example.with("audience = ", "allow = [{ uid = 0, scopes = [\"openid\"] }]\naudience = ");
    limited.fails(CONFIG, &["servers.demo.allow", "limit nothing"], &[]).await;
    let elsewhere = example.with("exchange = ", "endpoint = \"http://127.0.0.1:1\"\nexchange = ");
    elsewhere.fails(CONFIG, &["servers.demo.endpoint", "has no effect without `exchange` = \"aws-role\""], &[]).await;
}

#[tokio::test]
async fn google_gives_an_access_token() {
    let scene = Scene::new(binary()).await;
    let google = google(&scene).await;
    let example = Example::at_server(&scene, "gcp-access-token").at_google(&google);
    let scope = "https://www.googleapis.com/auth/cloud-platform".to_owned();
    let token = example.works().await;
    assert_eq!(google.access(&token), Some((ACCOUNT.to_owned(), scope.clone())));
    let answer = example.world().daemon(&[]).await.get("/v1/token?server=demo").await.json();
    assert!((3_500..=3_600).contains(&answer["expires_in"].as_u64().unwrap_or_default()), "{answer}");
    assert_eq!(answer["scope"], json!(scope));
    // The federated token itself, with the scopes that are asked for.
    let federated = example.with("service_account = ", "# service_account = ");
    assert_eq!(google.access(&federated.works().await), Some((FakeGoogle::principal(SUBJECT), scope.clone())));
    assert_eq!(google.last_form()["scope"], scope);
    google.revoke(&FakeGoogle::principal(SUBJECT), ACCOUNT);
    example.fails(REFUSED, &["getAccessToken"], &["roles/iam.workloadIdentityUser"]).await;
}

#[tokio::test]
async fn google_as_a_link_of_a_chain() {
    let scene = Scene::new(binary()).await;
    let google = google(&scene).await;
    profiles::of_google(&scene);
    scene.authorization_server.trust_only(google.trust());
    let example = Example::new(&scene, "gcp-chain", LOGIN).at_google(&google);
    assert_eq!(keys::peek(&example.works().await)["aud"], json!(scene.mcp.url()));
    let assertion = scene.authorization_server.last_request().assertion;
    assert_eq!(assertion["aud"], json!(scene.authorization_server.issuer()));
    assert_eq!(assertion["email"], json!(ACCOUNT));
    let nobody = example.with("service_account = ", "# service_account = ");
    nobody.fails(CONFIG, &["identities.google.service_account", "is no identity"], &[]).await;
    google.revoke(&FakeGoogle::principal(SUBJECT), ACCOUNT);
    example.fails(REFUSED, &["PERMISSION_DENIED"], &["roles/iam.workloadIdentityUser"]).await;
}

#[tokio::test]
async fn hydra_is_the_audience_by_its_endpoint() {
    let scene = Scene::new(binary()).await;
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
    let scene = Scene::new(binary()).await;
    let agent = FakeWorkloadApi::start(&[SVID]);
    scene.authorization_server.also_trust(agent.trust());
    scene.authorization_server.federate("mcp-agent", SVID);
    let example = Example::new(&scene, "spiffe", LOGIN);
    let world = |example: &Example<'_>| {
        Safeconduct::new(binary()).env("SPIFFE_ENDPOINT_SOCKET", &agent.endpoint()).config(&example.text)
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
    let scene = Scene::new(binary()).await;
    let example = Example::new(&scene, "gitlab-ci", LOGIN);
    let job = |audience: &str| {
        let token = scene.platform.mint(audience, LIFE);
        Safeconduct::new(binary()).env("GITLAB_CI", "true").env("MCP_ID_TOKEN", &token).config(&example.text)
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
    let place = tempfile::Builder::new().prefix("sc").tempdir_in("/tmp").expect("/tmp is writable");
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
    case.stage(binary()).await
}

/// The example of a platform from which a token for any audience, or for the right one, can be had: it works at the platform of
/// the case `ok`, and what is made for somebody else stays here.
async fn on_its_platform(source: &str, near_miss: &str) {
    for (case, comes) in [("ok", true), (near_miss, false)] {
        let stage = platform(source, case).await;
        let example = Example::new(&stage.scene, source, LOGIN);
        // What only a test has to say: where the fake of the platform is.
        let of_the_case: toml::Table = stage.config.parse().expect("the configuration of the case");
        let mut text: toml::Table = example.text.parse().expect("the example is TOML");
        for section in ["identity", "egress"] {
            let own = of_the_case.get(section).and_then(toml::Value::as_table).cloned().unwrap_or_default();
            let both = text.entry(section).or_insert_with(|| toml::Table::new().into());
            both.as_table_mut().expect("a section").extend(own);
        }
        if text["identity"].as_table().is_some_and(toml::Table::is_empty) {
            text.remove("identity");
        }
        let answer = at_the_platform(&stage, &text.to_string()).await;
        assert_eq!(answer["access_token"].is_string(), comes, "{source}/{case}: {answer}");
        if !comes {
            assert_eq!(answer["class"], "no_identity", "{source}/{case}");
            let hint = answer["hint"].as_str().unwrap_or_default();
            assert!(hint.contains("`subject_audience`") || hint.contains("audience"), "{source}/{case}: {answer}");
            assert_eq!(stage.scene.authorization_server.token_requests(), 0, "nothing leaves");
        }
        assert_eq!(stage.problems(), Vec::<String>::new(), "{source}/{case}");
    }
}

#[tokio::test]
async fn a_token_in_a_file_a_variable_or_from_a_program() {
    let scene = Scene::new(binary()).await;
    let issuer = scene.authorization_server.issuer();
    let (file, program) = (scene.safeconduct.private("subject.jwt"), scene.safeconduct.private("program"));
    let mint = |audience: &str| {
        let token = scene.platform.mint(audience, LIFE);
        fs::write(&file, &token).expect("ours");
        token
    };
    let script =
        format!("#!/bin/sh\ntest \"$SAFECONDUCT_AUDIENCE\" = {issuer} && cat {:?}\n", file.display().to_string());
    fs::write(&program, script).expect("ours");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).expect("ours");
    let example = |name: &str| Example::new(&scene, name, LOGIN);
    let worlds = |token: &str| {
        let in_file =
            example("file").with(&quoted("/var/run/secrets/agent/token"), &quoted(&file.display().to_string()));
        let printed =
            example("command").with(&quoted("/usr/local/bin/platform-token"), &quoted(&program.display().to_string()));
        let in_variable = Safeconduct::new(binary()).env("AGENT_TOKEN", token).config(&example("env").text);
        [in_file.world(), in_variable, printed.world()]
    };
    for turn in 0..3 {
        // A server takes each assertion once.
        let world = &worlds(&mint(&issuer))[turn];
        world.run(&["token", "demo"]).await.expect_code(0);
        let elsewhere = &worlds(&mint("https://elsewhere.example"))[turn];
        let output = elsewhere.run(&["token", "demo"]).await.expect_code(NO_IDENTITY);
        tells(&output, &["is made for", "https://elsewhere.example"], &[&issuer]);
    }
}

#[tokio::test]
async fn a_job_of_buildkite() {
    on_its_platform("buildkite", "other-audience").await;
}

#[tokio::test]
async fn a_job_of_circleci() {
    on_its_platform("circleci", "command-gives-other-audience").await;
}

#[tokio::test]
async fn a_step_of_bitbucket() {
    on_its_platform("bitbucket", "other-audience").await;
}

#[tokio::test]
async fn a_run_of_hcp_terraform() {
    on_its_platform("hcp-terraform", "other-audience").await;
}

#[tokio::test]
async fn a_machine_of_fly() {
    on_its_platform("fly", "other-audience").await;
}

#[tokio::test]
async fn a_build_of_vercel() {
    on_its_platform("vercel", "other-audience").await;
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

/// An instance of Google Cloud, and a server that trusts Google.
async fn instance(scene: &Scene) -> (FakeGoogle, Safeconduct) {
    let google = FakeGoogle::start(scene.platform.trust()).await;
    profiles::of_google(scene);
    scene.authorization_server.also_trust(google.trust());
    let world = Safeconduct::new(binary()).env("GCE_METADATA_HOST", google.metadata_host());
    (google, world)
}

#[tokio::test]
async fn a_workload_on_google_cloud() {
    let scene = Scene::new(binary()).await;
    let (google, world) = instance(&scene).await;
    let example = Example::new(&scene, "gcp-workload", LOGIN);
    world.clone().config(&example.text).run(&["token", "demo"]).await.expect_code(0);
    assert_eq!(scene.authorization_server.last_request().assertion["email"], json!(INSTANCE));
    // On Cloud Run nothing has to be said.
    let detected = example.with("source = \"gcp\"", "# source = \"gcp\"").text;
    let run = world.clone().env("K_SERVICE", "agent").env("K_REVISION", "agent-00001").config(&detected);
    run.run(&["token", "demo"]).await.expect_code(0);
    // A server that wants `jti`, as the MCP profile does.
    scene.authorization_server.set_profile(Profile::default());
    let output = world.clone().config(&example.text).run(&["token", "demo"]).await.expect_code(REFUSED);
    tells(&output, &["jti is missing"], &["have none"]);
    // As on Cloud Build, or on GKE without a Google service account.
    google.give_no_identity();
    let output = world.clone().config(&example.text).run(&["token", "demo"]).await.expect_code(NO_IDENTITY);
    tells(&output, &["gives no identity token"], &["`impersonate = true`"]);
    let pod = world.env("KUBERNETES_SERVICE_HOST", "10.0.0.1").config(&example.text);
    let output = pod.run(&["token", "demo"]).await.expect_code(NO_IDENTITY);
    tells(&output, &["gives no identity token"], &["projected token", "iam.gke.io/gcp-service-account"]);
}

#[tokio::test]
async fn a_workload_on_google_cloud_as_another_account() {
    let scene = Scene::new(binary()).await;
    let (google, world) = instance(&scene).await;
    google.give_no_identity();
    google.grant(INSTANCE, ACCOUNT);
    let example = Example::new(&scene, "gcp-impersonate", LOGIN).at_google(&google);
    world.clone().config(&example.text).run(&["token", "demo"]).await.expect_code(0);
    assert_eq!(scene.authorization_server.last_request().assertion["email"], json!(ACCOUNT));
    let between = "between@project.iam.gserviceaccount.com";
    let through = example.with("# delegates", "delegates");
    let output = world.clone().config(&through.text).run(&["token", "demo"]).await.expect_code(NO_IDENTITY);
    tells(&output, &["implicitDelegation"], &["`delegates`"]);
    google.grant(INSTANCE, between);
    google.grant(between, ACCOUNT);
    world.clone().config(&through.text).run(&["token", "demo"]).await.expect_code(0);
    google.revoke(INSTANCE, ACCOUNT);
    let output = world.config(&example.text).run(&["token", "demo"]).await.expect_code(NO_IDENTITY);
    tells(&output, &["getOpenIdToken"], &["roles/iam.serviceAccountOpenIdTokenCreator"]);
}

#[tokio::test]
async fn a_workload_on_google_cloud_before_a_front_door_of_google() {
    let scene = Scene::new(binary()).await;
    let (google, world) = instance(&scene).await;
    let example = Example::at_server(&scene, "gcp-direct");
    let output = world.config(&example.text).run(&["token", "demo"]).await.expect_code(0);
    assert_eq!(google.verify(output.stdout.trim())["aud"], json!(FRONT_DOOR));
    assert_eq!(google.paths().len(), 1, "the metadata server alone is asked");
}

#[tokio::test]
async fn an_external_account_file() {
    let scene = Scene::new(binary()).await;
    let google = google(&scene).await;
    profiles::of_google(&scene);
    scene.authorization_server.also_trust(google.trust());
    let (file, subject) = (scene.safeconduct.private("google.json"), scene.safeconduct.private("subject.jwt"));
    let mint = |audience: &str| {
        fs::write(&subject, scene.platform.mint(audience, LIFE)).expect("ours");
    };
    let source = json!({"file": subject.display().to_string()});
    fs::write(&file, external_account(JWT, &source).to_string()).expect("ours");
    mint(&format!("https:{PROVIDER}"));
    let line = "credentials_file = \"/etc/safeconduct/google.json\"\n";
    let here = format!("credentials_file = {:?}\n", file.display().to_string());
    let example = Example::new(&scene, "gcp-external-account", LOGIN).with(line, &here).at_google(&google);
    example.works().await;
    assert_eq!(scene.authorization_server.last_request().assertion["email"], json!(ACCOUNT));
    // Detected by Google's own variable, outside of a job. Nothing leaves: it leads to no token.
    fs::write(&subject, "no token").expect("ours");
    let world = Safeconduct::new(binary()).env("GOOGLE_APPLICATION_CREDENTIALS", &file.display().to_string());
    let output = world.run(&["whoami", "--json"]).await.expect_code(NO_IDENTITY);
    assert!(output.stderr.contains("GOOGLE_APPLICATION_CREDENTIALS (external_account, file)"), "{output:?}");
    // A token that is good elsewhere too.
    mint("https://kubernetes.default.svc");
    example.fails(NO_IDENTITY, &["is made for"], &["`subject_audience`"]).await;
    // A file from a stranger.
    let mut strange = external_account(JWT, &source);
    strange["token_url"] = json!("https://sts.evil.example/v1/token");
    fs::write(&file, strange.to_string()).expect("ours");
    example.fails(NO_IDENTITY, &["is not Google's Security Token Service"], &["sts.googleapis.com"]).await;
    // A stored secret.
    fs::write(&file, json!({"type": "service_account", "private_key": "x"}).to_string()).expect("ours");
    example.fails(NO_IDENTITY, &["a key of a service account"], &["delete the key"]).await;
}

#[tokio::test]
async fn an_external_account_file_with_a_program() {
    let scene = Scene::new(binary()).await;
    let google = google(&scene).await;
    profiles::of_google(&scene);
    scene.authorization_server.also_trust(google.trust());
    let (file, program) = (scene.safeconduct.private("google.json"), scene.safeconduct.private("program"));
    let write = |script: &str| {
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).expect("ours");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).expect("ours");
    };
    let token = scene.platform.mint(&format!("https:{PROVIDER}"), LIFE);
    let id_token = "urn:ietf:params:oauth:token-type:id_token";
    let good = json!({"version": 1, "success": true, "token_type": id_token, "id_token": token, "expiration_time": 1});
    let checks = format!("test \"$GOOGLE_EXTERNAL_ACCOUNT_AUDIENCE $1\" = '{PROVIDER} --quiet' || exit 3");
    write(&format!("{checks}\necho '{good}'"));
    let command = format!("{} --quiet", program.display());
    let mut account = external_account(JWT, &json!({"executable": {"command": command, "timeout_millis": 5000}}));
    account["subject_token_type"] = json!(id_token);
    fs::write(&file, account.to_string()).expect("ours");
    let line = "credentials_file = \"/etc/safeconduct/google.json\"\n";
    let here = format!("credentials_file = {:?}\n", file.display().to_string());
    let example = Example::new(&scene, "gcp-external-account", LOGIN).with(line, &here).at_google(&google);
    let world = |allowed: &str| {
        scene.safeconduct.clone().env("GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES", allowed).config(&example.text)
    };
    world("1").run(&["token", "demo"]).await.expect_code(0);
    assert_eq!(google.last_form()["subject_token_type"], id_token);
    let output = world("true").run(&["token", "demo"]).await.expect_code(NO_IDENTITY);
    tells(&output, &["GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES is not 1"], &["if the file is yours"]);
    write("echo '{\"version\": 1, \"success\": false, \"code\": \"401\", \"message\": \"signed out\"}'");
    let output = world("1").run(&["token", "demo"]).await.expect_code(NO_IDENTITY);
    tells(&output, &["has no token", "401"], &["by hand"]);
    write("exit 3");
    let output = world("1").run(&["token", "demo"]).await.expect_code(NO_IDENTITY);
    tells(&output, &["exit status: 3"], &["GOOGLE_EXTERNAL_ACCOUNT_AUDIENCE"]);
    write("echo no JSON");
    let output = world("1").run(&["token", "demo"]).await.expect_code(NO_IDENTITY);
    tells(&output, &["not the JSON of AIP-4117"], &["one JSON object"]);
    // Whoever else can write the file could run programs as this user.
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).expect("ours");
    let output = world("1").run(&["token", "demo"]).await.expect_code(NO_IDENTITY);
    tells(&output, &["others than this user can write it"], &["chmod go-w"]);
}

/// The example of a platform whose tokens only Entra takes, which federates that subject with the application: it works at the
/// platform of that case, and for another subject it does not.
async fn federated_with_entra(source: &str, example: &str, subject: &str) {
    for (federated, comes) in [(subject, true), ("sc://somebody/else", false)] {
        let stage = platform(source, "ok").await;
        let entra = FakeEntra::start().await;
        entra.federate(APPLICATION, stage.scene.platform.trust(), federated);
        entra.target(TARGET, "22222222-2222-2222-2222-222222222222");
        let root = stage.files.as_ref().map(|root| root.path());
        let example = of_the_scene(&stage.scene, example).behind(&entra.egress_below(root));
        let answer = at_the_platform(&stage, &example.text).await;
        if comes {
            let claims = entra.verified(answer["access_token"].as_str().unwrap_or_default());
            assert_eq!(claims["azp"], json!(APPLICATION), "{}", answer["error_description"]);
        } else {
            assert_eq!(answer["class"], "refused");
            assert!(answer["hint"].as_str().unwrap_or_default().contains("safeconduct whoami"), "{answer}");
        }
        assert_eq!(stage.problems(), Vec::<String>::new());
    }
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
    let scene = Scene::new(binary()).await;
    let place = scene.safeconduct.path().display().to_string();
    let example = Example::new(&scene, "production-daemon", LOGIN)
        .with("/run/safeconduct/safeconduct.sock", &scene.safeconduct.socket().display().to_string())
        .with("/var/log/safeconduct", &place)
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
