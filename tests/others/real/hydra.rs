//! The platform's JWT as grant (RFC 7523) at Ory Hydra, whose library fosite is in other servers too.

use std::fs;
use std::net::SocketAddr;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::fetched::built;
use super::realm::{PATIENCE, is_refusal, issued};
use super::tethered::{Tethered, free};
use crate::fakes::platform::{FakePlatform, LIFE, SUBJECT};
use crate::fakes::safeconduct::{Output, Safeconduct};
use crate::fakes::{keys, tcp_http, wait};
use crate::parties::McpServer;
use crate::process::{LIMIT, ROOT, SAFECONDUCT};

const SECRET: &str = "a-secret-for-one-test";

struct Hydra {
    public: SocketAddr,
    admin: SocketAddr,
    platform: FakePlatform,
    resource: String,
    world: Safeconduct,
    _server: Tethered,
    _folder: TempDir,
}

impl Hydra {
    /// It trusts the platform's subject with its key, and has a client that may present its tokens.
    async fn start() -> Option<Self> {
        let program = built("hydra-2.3.0")?.join("hydra");
        let (public, admin) = (free(), free());
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let config = fs::read_to_string(format!("{ROOT}/tests/real/hydra/hydra.yml")).expect("it is in the tree");
        let config = config.replace("PUBLIC", &public.port().to_string()).replace("ADMIN", &admin.port().to_string());
        fs::write(folder.path().join("hydra.yml"), config).expect("ours");
        let arguments = ["serve", "all", "--dev", "--sqa-opt-out", "-c", "hydra.yml"];
        let mut server = Tethered::start(&program, &arguments, folder.path());
        wait::until(PATIENCE, "Hydra answers", async || {
            server.lives();
            tcp_http::get(public, "/health/ready").await.is_ok_and(|reply| reply.status == 200)
        })
        .await;
        let platform = FakePlatform::start().await;
        let mcp = McpServer::bind();
        let resource = mcp.guarded_by(&format!("http://{public}"));
        let world = Safeconduct::new(SAFECONDUCT).envs(platform.env()).limit(LIMIT);
        let hydra = Self { public, admin, platform, resource, world, _server: server, _folder: folder };
        hydra.prepare().await;
        Some(hydra)
    }

    async fn prepare(&self) {
        let client = json!({
            "client_id": "mcp-agent", "client_secret": SECRET, "token_endpoint_auth_method": "client_secret_basic",
            "grant_types": ["urn:ietf:params:oauth:grant-type:jwt-bearer"], "scope": "demo:read demo:admin",
        });
        self.admin("/admin/clients", &client).await;
        let key = self.platform.trust().verifier.jwks()["keys"][0].clone();
        let trust = json!({
            "issuer": self.platform.issuer(), "subject": SUBJECT, "scope": ["demo:read"], "jwk": key,
            "expires_at": "2099-01-01T00:00:00Z",
        });
        self.admin("/admin/trust/grants/jwt-bearer/issuers", &trust).await;
    }

    async fn admin(&self, path: &str, body: &Value) {
        let (host, body) = (self.admin, body.to_string());
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        let reply = tcp_http::exchange(host, &request).await.expect("Hydra answers");
        assert_eq!(reply.status, 201, "{path}: {}", reply.body);
    }

    /// The example with the addresses of this test, and these words replaced.
    fn example(&self, from: &str, to: &str) -> String {
        let text = fs::read_to_string(format!("{ROOT}/examples/config/ory-hydra.toml")).expect("it is in the tree");
        assert!(text.contains(from), "{text}");
        let text = text.replace("https://mcp.example.com/mcp", &self.resource).replace(from, to);
        let text = text.replace("https://hydra.example.com", &format!("http://{}", self.public));
        let secret = self.world.write("private/secret", SECRET).display().to_string();
        format!("[egress]\ninsecure_loopback = true\n\n{}", text.replace("/etc/safeconduct/client-secret", &secret))
    }

    async fn token(&self, config: &str, more: &[&str]) -> Output {
        let words = [more, &["token", "demo", "--no-daemon"]].concat();
        let output = self.world.clone().config(config).run(&words).await;
        issued(&output);
        output
    }

    /// With claims of the platform's token changed.
    async fn token_for(&self, overrides: &Value) -> (Output, String) {
        let assertion = self.platform.mint_with(&format!("http://{}/oauth2/token", self.public), LIFE, overrides);
        let file = self.world.write("private/assertion.jwt", &assertion).display().to_string();
        (self.token(&self.example("demo", "demo"), &["--identity-file", &file]).await, file)
    }
}

#[tokio::test]
async fn the_example_for_hydra_works_as_it_stands_and_without_rfc_8414() {
    let Some(hydra) = Hydra::start().await else { return };
    let output = hydra.token(&hydra.example("demo", "demo"), &[]).await.expect_code(0);
    let claims = keys::peek(output.stdout.trim());
    assert_eq!((&claims["sub"], &claims["scp"]), (&json!(SUBJECT), &json!(["demo:read"])), "{claims:?}");
    let replies = ["oauth-authorization-server", "openid-configuration"].map(|name| format!("/.well-known/{name}"));
    for (path, status) in replies.iter().zip([404, 200]) {
        assert_eq!(tcp_http::get(hydra.public, path).await.expect("Hydra answers").status, status, "{path}");
    }
}

#[tokio::test]
async fn a_token_is_taken_once_at_hydra_too() {
    let Some(hydra) = Hydra::start().await else { return };
    let (output, file) = hydra.token_for(&Value::Null).await;
    output.expect_code(0);
    let again = hydra.token(&hydra.example("demo", "demo"), &["--identity-file", &file]).await;
    is_refusal(&again, "jti_known", "");
}

#[tokio::test]
async fn a_grant_that_hydra_does_not_take() {
    let Some(hydra) = Hydra::start().await else { return };
    let now = keys::now() as u64;
    let cases = [
        json!({ "sub": "repo:octo-org/other:ref:refs/heads/main" }),
        json!({ "iss": "https://somebody-else.example" }),
        json!({ "exp": now + 3600 }),
        json!({ "jti": null }),
    ];
    for overrides in cases {
        let (output, _) = hydra.token_for(&overrides).await;
        is_refusal(&output, "invalid_grant", "");
    }
    let more = hydra.example("\"demo:read\"", "\"demo:admin\"");
    is_refusal(&hydra.token(&more, &[]).await, "invalid_scope", "");
    // Trust is one record for each key.
    hydra.platform.rotate("platform-key-2");
    is_refusal(&hydra.token(&hydra.example("demo", "demo"), &[]).await, "invalid_grant", "");
}
