//! The usual scene: a CI platform, an authorization server that trusts it, an MCP server that trusts that server, and the real
//! binary in a job of the platform.

use serde_json::json;

use super::authorization_server::FakeAs;
use super::mcp_server::FakeMcp;
use super::platform::FakePlatform;
use super::safeconduct::{Daemon, Safeconduct};
use super::sluice::Sluice;

pub const SCOPES: [&str; 2] = ["demo:read", "demo:write"];

pub struct Scene {
    pub platform: FakePlatform,
    pub authorization_server: FakeAs,
    pub mcp: FakeMcp,
    /// In the job, without a configuration.
    pub safeconduct: Safeconduct,
}

impl Scene {
    /// `binary` is `env!("CARGO_BIN_EXE_safeconduct")`.
    pub async fn new(binary: &str) -> Self {
        let platform = FakePlatform::start().await;
        let authorization_server = FakeAs::start(platform.trust()).await;
        let mcp = FakeMcp::start(&authorization_server, &SCOPES).await;
        let safeconduct = Safeconduct::new(binary).envs(platform.env());
        Self { platform, authorization_server, mcp, safeconduct }
    }

    /// A configuration with the one server `demo`, its issuer pinned; `more` are further keys of that server and further tables.
    pub fn config(&self, more: &str) -> String {
        format!(
            "[egress]\ninsecure_loopback = true\n\n[servers.demo]\nurl = \"{}\"\nissuer = \"{}\"\n{more}\n",
            self.mcp.url(),
            self.authorization_server.issuer()
        )
    }

    /// The world with that configuration.
    pub fn configured(&self, more: &str) -> Safeconduct {
        self.safeconduct.clone().config(&self.config(more))
    }

    /// A daemon that serves `demo`.
    pub async fn daemon(&self, more: &str) -> Daemon {
        self.configured(more).daemon(&[]).await
    }

    /// The argument of `run` that serves `demo` without a file.
    pub fn argument(&self) -> String {
        format!("demo={}", self.mcp.url())
    }

    /// Puts a sluice before the token endpoint.
    pub async fn sluice(&self) -> Sluice {
        let sluice = Sluice::before(self.authorization_server.base()).await;
        self.authorization_server.set_metadata(json!({"token_endpoint": sluice.url("/token")}));
        sluice
    }
}
