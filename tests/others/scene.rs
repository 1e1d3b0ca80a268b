//! A scene: an identity provider, an authorization server of another project, an MCP server that trusts it, and safeconduct.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

use serde_json::json;
use tempfile::TempDir;

use crate::keys::Authority;
use crate::parties::{IDP, Idp, McpServer};
use crate::process::{Outcome, safeconduct};
use crate::servers::{AuthorizationServer, Settings, Software};

pub(crate) const REFUSED: i32 = 76;

pub(crate) struct Scene {
    pub(crate) idp: Idp,
    pub(crate) server: AuthorizationServer,
    pub(crate) resource: String,
    pub(crate) dir: TempDir,
    /// Further lines of the `[egress]` table.
    egress: String,
}

impl Scene {
    pub(crate) fn new(software: Software, settings: Settings) -> Self {
        let mcp = McpServer::bind();
        let known = mcp.url.clone();
        Self::guarding(software, mcp, &known, settings)
    }

    /// `known` is the resource that the authorization server knows; it can differ from the MCP server's.
    pub(crate) fn guarding(software: Software, mcp: McpServer, known: &str, settings: Settings) -> Self {
        let mut scene = Self::at(&mcp.url, software, known, settings);
        scene.resource = mcp.guarded_by(&scene.server.issuer);
        scene
    }

    /// With an existing MCP server.
    pub(crate) fn at(resource: &str, software: Software, known: &str, mut settings: Settings) -> Self {
        let idp = Idp::new();
        settings.push(("TRUSTED_ISSUER", IDP.to_owned()));
        settings.push(("TRUSTED_JWKS", idp.key.jwks()));
        settings.push(("RESOURCE", known.to_owned()));
        let server = AuthorizationServer::start(software, &settings);
        let dir = TempDir::new().expect("a temporary folder can be made");
        Self { idp, server, resource: resource.to_owned(), dir, egress: String::new() }
    }

    /// oidc-provider on https. This authority signs its certificate and those of its clients.
    pub(crate) fn over_tls(authority: &Authority, settings: Settings) -> Self {
        let mcp = McpServer::bind();
        let known = mcp.url.clone();
        Self::over_tls_guarding(authority, mcp, &known, settings)
    }

    pub(crate) fn over_tls_guarding(
        authority: &Authority,
        mcp: McpServer,
        known: &str,
        mut settings: Settings,
    ) -> Self {
        let own = authority.vouches_for("127.0.0.1");
        let tls = json!({ "key": own.key, "cert": own.certificate, "ca": authority.pem() });
        settings.push(("TLS", tls.to_string()));
        let mut scene = Self::guarding(Software::OidcProvider, mcp, known, settings);
        scene.trust(authority);
        scene
    }

    /// Runs `safeconduct token`; `keys` are further lines of the server in the configuration.
    pub(crate) fn token(&self, keys: &str, assertion: Option<&str>) -> Outcome {
        self.safeconduct(keys, assertion, &["token", "target", "--no-daemon"])
    }

    pub(crate) fn safeconduct(&self, keys: &str, assertion: Option<&str>, verb: &[&str]) -> Outcome {
        let mut args = self.options(keys, assertion);
        args.extend(verb.iter().map(|&word| word.to_owned()));
        safeconduct(self.dir.path(), &args, assertion)
    }

    /// The global options of one run.
    pub(crate) fn options(&self, keys: &str, assertion: Option<&str>) -> Vec<String> {
        let config = format!(
            "[egress]\ninsecure_loopback = true\n{}[servers.target]\nurl = \"{}\"\n{keys}",
            self.egress, self.resource
        );
        let mut options = vec!["--config".to_owned(), self.private_file("safeconduct.toml", &config)];
        if let Some(assertion) = assertion {
            options.push("--identity-file".to_owned());
            options.push(self.private_file("assertion.jwt", assertion));
        }
        options
    }

    /// Only `issuer`, as an operator pins it.
    pub(crate) fn pin(&self) -> String {
        format!("issuer = \"{}\"\n", self.server.issuer)
    }

    /// The CA file with this authority.
    pub(crate) fn trust(&mut self, authority: &Authority) {
        self.egress = format!("ca_file = \"{}\"\n", self.private_file("authority.pem", &authority.pem()));
    }

    pub(crate) fn private_file(&self, name: &str, content: &str) -> String {
        let path = self.dir.path().join(name);
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&path).expect("a temporary folder is writable");
        file.write_all(content.as_bytes()).expect("a temporary folder is writable");
        path.to_str().expect("temporary paths are text").to_owned()
    }
}

pub(crate) fn refused_once(scene: Scene, outcome: &Outcome, error: &str) {
    is_refusal(outcome, error);
    assert_eq!(scene.server.token_requests(), [error], "one request, no second attempt");
}

pub(crate) fn is_refusal(outcome: &Outcome, error: &str) {
    assert_eq!((outcome.code, outcome.stdout.as_str()), (REFUSED, ""), "{}", outcome.stderr);
    assert!(outcome.stderr.contains(error), "it shows what the server said: {}", outcome.stderr);
}
