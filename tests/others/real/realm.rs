//! Keycloak's realm. Each test has its own platform in it, which the realm trusts, its own clients and its own user
//! (tests/real/tenant.json), and runs safeconduct in a job of that platform.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::keycloak::{Keycloak, keycloak};
use crate::fakes::platform::{FakePlatform, LIFE, SUBJECT};
use crate::fakes::safeconduct::{Output, Safeconduct};
use crate::fakes::{leak, tcp_http};
use crate::keys::Key;
use crate::parties::McpServer;
use crate::process::{LIMIT, ROOT, SAFECONDUCT};

pub(super) const UNAVAILABLE: i32 = 75;
pub(super) const REFUSED: i32 = 76;

/// The platform's JWT proves the client.
pub(super) const BY_WORKLOAD: &str = "exchange = \"client-credentials\"\nclient_auth = \"workload\"\n";

/// `tests/real/keycloak.py` has made it.
pub(super) const NAME: &str = "agents";

/// Who changes the realm.
static CHANGES: Mutex<()> = Mutex::const_new(());

pub(super) struct Realm {
    pub(super) keycloak: &'static Keycloak,
    /// Where safeconduct finds Keycloak. The issuer follows it.
    origin: String,
    /// The name of the platform in the realm, and the end of the names of its clients.
    pub(super) alias: String,
    pub(super) platform: FakePlatform,
    /// What the clients' tokens are for.
    pub(super) resource: String,
    /// The key of the clients that have one.
    pub(super) client_key: Key,
    /// In a job of the platform.
    pub(super) world: Safeconduct,
}

impl Realm {
    /// With an MCP server that names it. `None` without a Keycloak.
    pub(super) async fn new() -> Option<Self> {
        Self::at(&keycloak()?.http).await
    }

    /// The same at another origin of Keycloak.
    pub(super) async fn at(origin: &str) -> Option<Self> {
        let mcp = McpServer::bind();
        let realm = Self { origin: origin.to_owned(), ..Self::guarding(&mcp.url).await? };
        mcp.guarded_by(&realm.issuer());
        Some(realm)
    }

    /// For a resource that is already there.
    pub(super) async fn guarding(resource: &str) -> Option<Self> {
        let realm = Self::unprepared(resource).await?;
        let mut document = realm.tenant();
        // An import makes clients without their service accounts.
        let clients = document["clients"].take();
        // Keycloak answers 500 at times when two tests change the realm at once.
        let _alone = CHANGES.lock().await;
        realm.keycloak.admin("POST", &format!("/admin/realms/{NAME}/partialImport"), &document).await;
        for client in clients.as_array().expect("a list") {
            realm.keycloak.admin("POST", &format!("/admin/realms/{NAME}/clients"), client).await;
        }
        Some(realm)
    }

    /// tests/real/tenant.json for this test.
    pub(super) fn tenant(&self) -> Value {
        let mapper = json!({
            "name": "mcp", "protocol": "openid-connect", "protocolMapper": "oidc-audience-mapper",
            "config": { "included.custom.audience": self.resource, "access.token.claim": "true" },
        });
        let text = fs::read_to_string(format!("{ROOT}/tests/real/tenant.json")).expect("it is in the tree");
        let text = text.replace("\"MAPPER\"", &mapper.to_string()).replace("ALIAS", &self.alias);
        let text = text.replace("ISSUER", self.platform.issuer()).replace("SUBJECT", SUBJECT);
        let text = text.replace("\"CLIENT_JWKS\"", &json!(self.client_key.jwks()).to_string());
        serde_json::from_str(&text).expect("the file is JSON")
    }

    /// It does not know the platform.
    pub(super) async fn unprepared(resource: &str) -> Option<Self> {
        Some(Self::of(keycloak()?, resource).await)
    }

    /// The same of this Keycloak.
    pub(super) async fn of(keycloak: &'static Keycloak, resource: &str) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(1);
        let platform = FakePlatform::start().await;
        let alias = format!("platform-{}", NEXT.fetch_add(1, Ordering::SeqCst));
        let world = Safeconduct::new(SAFECONDUCT).envs(platform.env()).limit(LIMIT);
        let (origin, resource, client_key) = (keycloak.http.clone(), resource.to_owned(), Key::new());
        Self { keycloak, origin, alias, platform, resource, client_key, world }
    }

    /// The name of a client of tests/real/tenant.json.
    pub(super) fn name(&self, client: &str) -> String {
        format!("{client}-{}", self.alias)
    }

    pub(super) fn issuer(&self) -> String {
        format!("{}/realms/{NAME}", self.origin)
    }

    /// The one server `demo`, its issuer pinned; `keys` are its further keys.
    pub(super) fn config(&self, keys: &str) -> String {
        format!(
            "[egress]\ninsecure_loopback = true\n[servers.demo]\nurl = \"{}\"\nissuer = \"{}\"\n{keys}",
            self.resource,
            self.issuer()
        )
    }

    /// An example, with the addresses of this test in it, and the client's name.
    pub(super) fn example(&self, name: &str, client: &str) -> String {
        let text = fs::read_to_string(format!("{ROOT}/examples/config/{name}.toml")).expect("it is in the tree");
        let text = text.replace("https://keycloak.example.com/realms/agents", &self.issuer());
        let text = text.replace("https://mcp.example.com/mcp", &self.resource).replace("mcp-agent", &self.name(client));
        let text = text.replace("/etc/safeconduct/client.pem", &self.key_file());
        assert!(text.contains(&self.issuer()) && text.contains(&self.resource), "{text}");
        format!("[egress]\ninsecure_loopback = true\n\n{text}")
    }

    /// The private key of the clients that have one.
    pub(super) fn key_file(&self) -> String {
        self.world.write("private/client.pem", &self.client_key.pem()).display().to_string()
    }

    /// `safeconduct token demo` in the job.
    pub(super) async fn token(&self, config: &str) -> Output {
        let output = self.world.clone().config(config).run(&["token", "demo", "--no-daemon"]).await;
        issued(&output);
        output
    }

    /// The same with this identity token in a file.
    pub(super) async fn token_for(&self, config: &str, assertion: &str) -> Output {
        let file = self.world.write("private/assertion.jwt", assertion).display().to_string();
        let words = ["--identity-file", &file, "token", "demo", "--no-daemon"];
        let output = self.world.clone().config(config).run(&words).await;
        issued(&output);
        output
    }

    /// A token of the platform for this realm, with claims changed; null removes one.
    pub(super) fn assertion(&self, overrides: &Value) -> String {
        self.platform.mint_with(&self.issuer(), LIFE, overrides)
    }

    /// The claims of an access token, after a check of the realm's signature, of its issuer, and of the resource as only audience.
    pub(super) async fn claims(&self, token: &str) -> Value {
        let path = format!("/realms/{NAME}/protocol/openid-connect/certs");
        let reply = tcp_http::get(self.keycloak.address(), &path).await.expect("Keycloak publishes its keys");
        let keys: JwkSet = serde_json::from_str(&reply.body).expect("a key set");
        let header = jsonwebtoken::decode_header(token).expect("a JWT");
        let key = keys.find(&header.kid.expect("it names its key")).expect("the key is published");
        let mut rules = Validation::new(Algorithm::RS256);
        rules.set_audience(&[&self.resource]);
        let key = DecodingKey::from_jwk(key).expect("a usable JWK");
        let claims: Value = jsonwebtoken::decode(token, &key, &rules).expect("the access token verifies").claims;
        assert_eq!(claims["iss"], *self.issuer());
        assert_eq!(claims["aud"], *self.resource, "the audience is the resource alone");
        claims
    }

    /// Changes one part of the realm, as its administrator does.
    pub(super) async fn change(&self, path: &str, change: impl Fn(&mut Value)) {
        let path = format!("/admin/realms/{NAME}/{path}");
        let mut now = self.keycloak.admin("GET", &path, &Value::Null).await;
        change(&mut now);
        self.keycloak.admin("PUT", &path, &now).await;
    }

    /// The path of a client for [`Realm::change`].
    pub(super) async fn client(&self, client: &str) -> String {
        let name = self.name(client);
        let path = format!("/admin/realms/{NAME}/clients?clientId={name}");
        let found = self.keycloak.admin("GET", &path, &Value::Null).await;
        format!("clients/{}", found[0]["id"].as_str().unwrap_or_else(|| panic!("no client {name}: {found}")))
    }
}

/// From now on no log may contain the token.
pub(super) fn issued(output: &Output) {
    if output.succeeded() && output.stdout.trim().len() >= 16 {
        leak::minted(output.stdout.trim());
    }
}

/// For what happens by itself in a few seconds.
pub(super) const PATIENCE: Duration = Duration::from_secs(180);

/// Waits between two attempts.
pub(super) async fn pause() {
    tokio::time::sleep(Duration::from_millis(500)).await;
}

/// A refusal, with what the server said.
#[track_caller]
pub(super) fn is_refusal(output: &Output, code: &str, words: &str) {
    assert_eq!((output.code, output.stdout.as_str()), (Some(REFUSED), ""), "{}", output.stderr);
    assert!(output.stderr.contains(code), "it shows the server's code {code:?}: {}", output.stderr);
    assert!(output.stderr.contains(words), "it shows what the server said, {words:?}: {}", output.stderr);
}
