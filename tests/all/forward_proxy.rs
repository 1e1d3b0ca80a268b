//! `[egress] proxy` and `HTTPS_PROXY`: which requests use the forward proxy, which never do, and the errors of the proxy.
//! The proxy resolves names itself, so the hosts here have names that no DNS server knows.

use serde_json::json;
use support::authorization_server::FakeAs;
use support::forward_proxy::{FakeProxy, Mood};
use support::leak;
use support::listener::Bound;
use support::mcp_server::FakeMcp;
use support::platform::FakePlatform;
use support::safeconduct::{Output, Safeconduct};
use support::tls::TestCa;

use crate::binary;
use crate::exit::{CONFIG, DENIED, TEMPORARY};

/// RFC 6761: names that never resolve.
const LOGIN: &str = "login.safeconduct.invalid";
const MCP: &str = "mcp.safeconduct.invalid";
const PASSWORD: &str = "a-password-of-the-proxy";

struct World {
    ca: TestCa,
    proxy: FakeProxy,
    platform: FakePlatform,
    authorization_server: FakeAs,
    mcp: FakeMcp,
}

impl World {
    async fn new() -> Self {
        let (ca, proxy, platform) = (TestCa::new(), FakeProxy::start().await, FakePlatform::start().await);
        let bound = Bound::named(LOGIN, ca.good_for(LOGIN)).await;
        proxy.route(LOGIN, bound.address());
        let authorization_server = FakeAs::start_on(bound, platform.trust());
        let bound = Bound::named(MCP, ca.good_for(MCP)).await;
        proxy.route(MCP, bound.address());
        let mcp = FakeMcp::start_on(bound, &authorization_server, &["demo:read"]);
        Self { ca, proxy, platform, authorization_server, mcp }
    }

    /// A job of the platform, whose identity endpoint is on loopback. `egress` has further keys of that table, which may contain
    /// the proxy's password.
    fn safeconduct(&self, egress: &str, pin: bool) -> Safeconduct {
        let issuer = if pin { format!("issuer = \"{}\"\n", self.authorization_server.issuer()) } else { String::new() };
        let toml = format!(
            "[egress]\ninsecure_loopback = true\nca_file = \"{}\"\n{egress}[servers.demo]\nurl = \"{}\"\n{issuer}",
            self.ca.file().display(),
            self.mcp.url(),
        );
        Safeconduct::new(binary()).envs(self.platform.env()).private_config(&toml)
    }

    fn through(&self, url: &str) -> Safeconduct {
        self.safeconduct(&format!("proxy = \"{url}\"\n"), true)
    }
}

async fn token(safeconduct: &Safeconduct) -> Output {
    safeconduct.run(&["token", "demo", "--timeout", "20s"]).await
}

/// A run that retries until its time limit.
async fn outage(safeconduct: &Safeconduct) -> Output {
    safeconduct.run(&["token", "demo", "--timeout", "4s"]).await.expect_code(TEMPORARY)
}

fn hint(output: &Output) -> &str {
    output.stderr.lines().find(|line| line.starts_with("safeconduct: hint: ")).unwrap_or_default()
}

fn both() -> [String; 2] {
    [format!("{LOGIN}:443"), format!("{MCP}:443")]
}

// Which requests use it.

#[tokio::test]
async fn configured_hosts_go_through_it_and_the_identity_endpoint_on_loopback_does_not() {
    let world = World::new().await;
    token(&world.through(&world.proxy.url())).await.expect_code(0);
    assert_eq!(world.proxy.asked(), both(), "and nothing else");
    assert!(world.platform.requests() > 0, "the platform was asked directly");
}

#[tokio::test]
async fn a_daemon_renews_and_revokes_through_it() {
    let world = World::new().await;
    let daemon = world.through(&world.proxy.url()).daemon(&[]).await;
    let token = daemon.token("demo").await;
    daemon.post("/v1/revoke", &json!({"server": "demo"})).await;
    assert!(world.authorization_server.is_revoked(&token));
    daemon.stop().await.expect_code(0);
}

#[tokio::test]
async fn the_environment_names_it_in_either_spelling_and_the_file_goes_before() {
    for name in ["HTTPS_PROXY", "https_proxy"] {
        let world = World::new().await;
        token(&world.safeconduct("", true).env(name, &world.proxy.url())).await.expect_code(0);
        assert_eq!(world.proxy.asked(), both(), "{name}");
        // The proxy of the file is used. The proxy of the environment does not exist.
        let file = world.through(&world.proxy.url());
        token(&file.env(name, "http://127.0.0.1:9")).await.expect_code(0);
    }
}

#[tokio::test]
async fn hosts_on_loopback_never_go_through_it() {
    let ca = TestCa::new();
    let (platform, proxy) = (FakePlatform::start().await, FakeProxy::start().await);
    let authorization_server = FakeAs::start_tls(platform.trust(), ca.good()).await;
    let mcp = FakeMcp::start_tls(&authorization_server, &["demo:read"], ca.good()).await;
    let toml = format!(
        "[egress]\ninsecure_loopback = true\nca_file = \"{}\"\nproxy = \"{}\"\n[servers.demo]\nurl = \"{}\"\nissuer = \"{}\"\n",
        ca.file().display(),
        proxy.url(),
        mcp.url(),
        authorization_server.issuer(),
    );
    token(&Safeconduct::new(binary()).envs(platform.env()).config(&toml)).await.expect_code(0);
    assert!(proxy.asked().is_empty(), "{:?}", proxy.asked());
}

#[tokio::test]
async fn hosts_in_no_proxy_are_dialled_directly() {
    futures_util::future::join_all([LOGIN, ".safeconduct.invalid", "*"].map(|entry| async move {
        let world = World::new().await;
        let safeconduct = world.through(&world.proxy.url()).env("NO_PROXY", entry);
        // Without the proxy the name does not resolve.
        let output = outage(&safeconduct).await;
        let error = output.stderr.lines().find(|line| line.starts_with("safeconduct: error: ")).unwrap_or_default();
        assert!(error.contains(LOGIN) && !error.contains("forward proxy"), "{}", output.stderr);
        assert!(!world.proxy.asked().contains(&format!("{LOGIN}:443")), "{entry}: {:?}", world.proxy.asked());
    }))
    .await;
}

/// We cannot check the address to which the proxy resolves a name. So a name from another party's document is used only if the
/// operator named it too.
#[tokio::test]
async fn a_host_that_only_a_document_named_goes_through_it_if_the_operator_allows_it() {
    let world = World::new().await;
    let proxy = format!("proxy = \"{}\"\n", world.proxy.url());
    let output = token(&world.safeconduct(&proxy, false)).await.expect_code(DENIED);
    assert!(output.stderr.contains(LOGIN) && hint(&output).contains("`allow` in [egress]"), "{}", output.stderr);
    assert_eq!(world.proxy.asked(), [format!("{MCP}:443")], "it was not even asked for");
    let allowed = format!("{proxy}allow = [\"{LOGIN}\"]\n");
    token(&world.safeconduct(&allowed, false)).await.expect_code(0);
    assert_eq!(world.proxy.asked(), both());
}

/// The certificate must be the host's, so a false server behind the tunnel is detected.
#[tokio::test]
async fn a_tunnel_to_another_server_is_refused() {
    let world = World::new().await;
    let stranger = Bound::named(LOGIN, TestCa::new().good_for(LOGIN)).await;
    world.proxy.route(LOGIN, stranger.address());
    let _stranger = FakeAs::start_on(stranger, world.platform.trust());
    let output = token(&world.through(&world.proxy.url())).await.expect_code(76);
    assert!(output.stderr.contains("signed by an unknown CA"), "{}", output.stderr);
}

// Its user and password.

#[tokio::test]
async fn user_and_password_go_to_it_and_into_no_log() {
    let world = World::new().await;
    leak::minted(PASSWORD);
    // A character that must be escaped in a URL.
    world.proxy.demand("agent", &format!("{PASSWORD}@"));
    let url = world.proxy.url().replace("//", &format!("//agent:{PASSWORD}%40@"));
    token(&world.through(&url)).await.expect_code(0);
    let daemon = world.through(&url).daemon(&[]).await;
    daemon.token("demo").await;
    daemon.stop().await.expect_code(0);
    world.safeconduct("", true).env("HTTPS_PROXY", &url).run(&["config", "check"]).await.expect_code(0);
}

#[tokio::test]
async fn a_wrong_password_is_said_without_showing_it() {
    let world = World::new().await;
    leak::minted(PASSWORD);
    world.proxy.demand("agent", "another password altogether");
    let url = world.proxy.url().replace("//", &format!("//agent:{PASSWORD}@"));
    let output = outage(&world.through(&url)).await;
    blames_the_proxy(&world, &output);
    assert!(output.stderr.contains("authorization required"), "{}", output.stderr);
    assert_eq!(world.authorization_server.metadata_requests(), 0);
}

// Failures of the proxy.

fn blames_the_proxy(world: &World, output: &Output) {
    assert_eq!(output.stdout, "");
    let place = world.proxy.place();
    let error = output.stderr.lines().find(|line| line.starts_with("safeconduct: error: ")).unwrap_or_default();
    assert!(error.contains(LOGIN) && error.contains(&format!("the forward proxy {place}")), "{}", output.stderr);
    assert!(hint(output).contains(&place) && hint(output).contains("NO_PROXY"), "{}", output.stderr);
}

#[tokio::test]
async fn a_proxy_that_refuses_is_silent_or_leads_nowhere_is_named_and_may_come_back() {
    let moods = [Mood::Refusing(502), Mood::Refusing(403), Mood::Silent, Mood::Dead];
    futures_util::future::join_all(moods.map(|mood| async move {
        let world = World::new().await;
        let safeconduct = world.through(&world.proxy.url());
        world.proxy.be(mood);
        blames_the_proxy(&world, &outage(&safeconduct).await);
        assert_eq!(world.authorization_server.metadata_requests(), 0, "nothing went round it");
        world.proxy.be(Mood::Willing);
        token(&safeconduct).await.expect_code(0);
    }))
    .await;
}

#[tokio::test]
async fn a_proxy_that_is_down_is_named() {
    let world = World::new().await;
    // No server listens on the discard port.
    let output = outage(&world.through("http://127.0.0.1:9")).await;
    assert!(output.stderr.contains("through the forward proxy 127.0.0.1:9: "), "{}", output.stderr);
    assert!(hint(&output).contains("127.0.0.1:9"), "{}", output.stderr);
}

#[tokio::test]
async fn through_a_daemon_its_failure_is_temporary() {
    let world = World::new().await;
    world.proxy.be(Mood::Refusing(502));
    let daemon = world.through(&world.proxy.url()).daemon(&[]).await;
    let reply = daemon.get("/v1/token?server=demo").await;
    let body = reply.json();
    assert_eq!((reply.status, &body["class"]), (503, &json!("temporary")), "{}", reply.body);
    assert!(body["hint"].as_str().is_some_and(|hint| hint.contains(&world.proxy.place())), "{}", reply.body);
    daemon.stop().await.expect_code(0);
}

// Addresses that are not a proxy's.

#[tokio::test]
async fn a_broken_address_is_a_configuration_error_that_does_not_show_it() {
    let world = World::new().await;
    leak::minted(PASSWORD);
    for broken in [format!("agent:{PASSWORD}"), format!("socks5://agent:{PASSWORD}@proxy.example:1080")] {
        for name in ["HTTPS_PROXY", "https_proxy"] {
            let safeconduct = world.safeconduct("", true).env(name, &broken);
            for command in [&["token", "demo"][..], &["run"]] {
                let output = safeconduct.run(command).await.expect_code(CONFIG);
                assert!(output.stderr.contains(&format!("safeconduct: error: {name} is not ")), "{}", output.stderr);
                assert!(!hint(&output).is_empty() && !output.stderr.contains("proxy.example"), "{}", output.stderr);
            }
        }
        let output = token(&world.through(&broken)).await.expect_code(CONFIG);
        assert!(output.stderr.contains("egress.proxy"), "{}", output.stderr);
    }
    assert!(world.proxy.asked().is_empty());
}
