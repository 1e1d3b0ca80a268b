//! The whole path over TLS with a test CA, and certificates that must be refused.

use std::path::Path;
use std::time::Duration;

use support::authorization_server::FakeAs;
use support::mcp_server::FakeMcp;
use support::platform::FakePlatform;
use support::safeconduct::{Output, Safeconduct};
use support::tls::TestCa;
use tokio_rustls::TlsAcceptor;

use crate::binary;

const SCOPES: [&str; 1] = ["demo:read"];

struct World {
    platform: FakePlatform,
    authorization_server: FakeAs,
    mcp: FakeMcp,
}

impl World {
    async fn new(of_authorization_server: TlsAcceptor, of_mcp: TlsAcceptor) -> Self {
        let platform = FakePlatform::start().await;
        let authorization_server = FakeAs::start_tls(platform.trust(), of_authorization_server).await;
        let mcp = FakeMcp::start_tls(&authorization_server, &SCOPES, of_mcp).await;
        Self { platform, authorization_server, mcp }
    }

    /// Everything is https. The identity comes from a file, and `insecure_loopback` is off.
    fn safeconduct(&self, ca_file: Option<&Path>) -> Safeconduct {
        let safeconduct = Safeconduct::new(binary());
        let file = safeconduct.private("subject.jwt");
        let jwt = self.platform.mint(&self.authorization_server.issuer(), Duration::from_secs(300));
        std::fs::write(&file, jwt).expect("ours");
        let ca_file = ca_file.map_or_else(String::new, |file| format!("[egress]\nca_file = \"{}\"\n", file.display()));
        safeconduct.config(&format!(
            "{ca_file}[identity]\nsource = \"file\"\ntoken_file = \"{}\"\n[servers.demo]\nurl = \"{}\"\nissuer = \"{}\"\n",
            file.display(),
            self.mcp.url(),
            self.authorization_server.issuer(),
        ))
    }
}

async fn token(safeconduct: &Safeconduct) -> Output {
    safeconduct.run(&["token", "demo", "--timeout", "20s"]).await
}

#[track_caller]
fn refused(output: Output, words: &str, cure: &str) {
    let output = output.expect_code(76);
    assert_eq!(output.stdout, "");
    let line = |start: &str| output.stderr.lines().find(|line| line.starts_with(start)).unwrap_or_default().to_owned();
    let (error, hint) = (line("safeconduct: error: "), line("safeconduct: hint: "));
    assert!(error.contains(words) && error.contains("localhost"), "{}", output.stderr);
    assert!(hint.contains(cure), "{}", output.stderr);
}

#[tokio::test]
async fn the_whole_path_over_tls_with_a_ca_of_ones_own() {
    let ca = TestCa::new();
    let world = World::new(ca.good(), ca.good()).await;
    let safeconduct = world.safeconduct(Some(ca.file()));
    assert!(token(&safeconduct).await.expect_code(0).stdout.starts_with("eyJ"));
    assert_eq!((world.mcp.probes(), world.mcp.metadata_requests()), (1, 1));

    let world = World::new(ca.good(), ca.good()).await;
    let daemon = world.safeconduct(Some(ca.file())).daemon(&[]).await;
    let first = daemon.token("demo").await;
    assert_eq!(daemon.token("demo").await, first);
    assert_eq!(daemon.run(&["token", "demo"]).await.expect_code(0).stdout.trim(), first);
    daemon.post("/v1/revoke", &serde_json::json!({"server": "demo"})).await;
    assert!(world.authorization_server.is_revoked(&first));
    daemon.stop().await.expect_code(0);
}

#[tokio::test]
async fn a_discovered_issuer_over_tls_needs_only_its_host_named() {
    let ca = TestCa::new();
    let world = World::new(ca.good(), ca.good()).await;
    let safeconduct = Safeconduct::new(binary()).envs(world.platform.env());
    let toml = format!(
        "[egress]\ninsecure_loopback = true\nca_file = \"{}\"\n[servers.demo]\nurl = \"{}\"\n",
        ca.file().display(),
        world.mcp.url()
    );
    token(&safeconduct.config(&toml)).await.expect_code(0);
}

#[tokio::test]
async fn an_unknown_ca_is_refused() {
    let (ca, other) = (TestCa::new(), TestCa::new());
    let unknown = "signed by an unknown CA";
    for known in [None, Some(other.file())] {
        // The bad certificate belongs to the MCP server, to the authorization server, or to both.
        let world = World::new(ca.good(), ca.good()).await;
        refused(token(&world.safeconduct(known)).await, unknown, "`ca_file`");
        assert_eq!(world.authorization_server.metadata_requests(), 0, "nothing is said before the handshake");
    }
    let world = World::new(other.good(), ca.good()).await;
    refused(token(&world.safeconduct(Some(ca.file()))).await, unknown, "`ca_file`");
    assert_eq!(world.authorization_server.token_requests(), 0);
}

#[tokio::test]
async fn a_certificate_for_another_host_is_refused() {
    let ca = TestCa::new();
    let world = World::new(ca.wrong_host(), ca.good()).await;
    refused(token(&world.safeconduct(Some(ca.file()))).await, "for another host name", "certificate for this name");
    assert_eq!(world.authorization_server.metadata_requests(), 0);
}

#[tokio::test]
async fn an_expired_certificate_is_refused() {
    let ca = TestCa::new();
    let world = World::new(ca.expired(), ca.good()).await;
    refused(token(&world.safeconduct(Some(ca.file()))).await, "certificate has expired", "renew");
    assert_eq!(world.authorization_server.metadata_requests(), 0);
}

/// With a pinned issuer no resource metadata is needed. So a bad certificate of the MCP server causes only a warning. No secret is
/// sent to that server.
#[tokio::test]
async fn a_bad_certificate_of_the_mcp_server_alone_is_warned_about() {
    let ca = TestCa::new();
    for acceptor in [ca.wrong_host(), ca.expired(), TestCa::new().good()] {
        let world = World::new(ca.good(), acceptor).await;
        let output = token(&world.safeconduct(Some(ca.file()))).await.expect_code(0);
        assert!(output.stderr.contains("certificate"), "{}", output.stderr);
        assert_eq!(world.mcp.seen().len(), 0);
    }
}

#[tokio::test]
async fn through_a_daemon_a_bad_certificate_is_refused_and_not_temporary() {
    let ca = TestCa::new();
    for acceptor in [ca.wrong_host(), ca.expired(), TestCa::new().good()] {
        let world = World::new(acceptor, ca.good()).await;
        let daemon = world.safeconduct(Some(ca.file())).daemon(&[]).await;
        let reply = daemon.get("/v1/token?server=demo").await;
        assert_eq!((reply.status, reply.json()["class"].as_str()), (502, Some("refused")), "{}", reply.body);
        assert!(reply.json()["hint"].is_string() && reply.header("retry-after").is_none());
    }
}

#[tokio::test]
async fn a_server_that_speaks_no_tls_is_not_spoken_to_in_clear() {
    let ca = TestCa::new();
    let platform = FakePlatform::start().await;
    let plain = FakeAs::start(platform.trust()).await;
    let mcp = FakeMcp::start_tls(&plain, &SCOPES, ca.good()).await;
    let safeconduct = Safeconduct::new(binary()).envs(platform.env());
    let toml = |issuer: &str| {
        format!(
            "[egress]\nca_file = \"{}\"\n[servers.demo]\nurl = \"{}\"\nissuer = \"{issuer}\"\n",
            ca.file().display(),
            mcp.url()
        )
    };
    // With an http URL it is refused before a connection; with an https URL the handshake fails.
    let output = token(&safeconduct.clone().config(&toml(&plain.issuer()))).await.expect_code(78);
    assert!(output.stderr.contains("plain http on loopback is refused"), "{}", output.stderr);
    let https = plain.issuer().replace("http://", "https://");
    let output =
        safeconduct.config(&toml(&https)).run(&["token", "demo", "--insecure-loopback", "--timeout", "5s"]).await;
    assert!(output.code == Some(75) || output.code == Some(76), "{}", output.stderr);
    assert_eq!(plain.metadata_requests(), 0);
}

#[tokio::test]
async fn a_ca_file_that_is_none_is_a_configuration_error() {
    let ca = TestCa::new();
    let world = World::new(ca.good(), ca.good()).await;
    let safeconduct = world.safeconduct(None);
    let garbage =
        safeconduct.write("garbage.pem", "-----BEGIN CERTIFICATE-----\nbm90IGRlcg==\n-----END CERTIFICATE-----\n");
    let cases = [
        (safeconduct.write("empty.pem", ""), "holds no PEM certificate"),
        (safeconduct.write("text.pem", "not a certificate"), "holds no PEM certificate"),
        (garbage, "holds no PEM certificate"),
        (safeconduct.path().join("missing.pem"), "cannot be read"),
        (safeconduct.path().to_owned(), "cannot be read"),
    ];
    for (file, words) in cases {
        let output = token(&world.safeconduct(Some(&file))).await.expect_code(78);
        assert!(output.stderr.contains("egress.ca_file") && output.stderr.contains(words), "{}", output.stderr);
        assert!(output.stderr.contains("safeconduct: hint: "), "{}", output.stderr);
    }
}
