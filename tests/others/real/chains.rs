//! From a platform to an MCP server with no fake between: SPIRE and Kubernetes before Keycloak, FastMCP behind it. What Keycloak
//! needs is what `trust-policy --for keycloak` prints.

use serde_json::{Value, json};

use super::keycloak::keycloak;
use super::realm::{NAME, PATIENCE, Realm, issued, pause};
use super::spire::{AGENT, Spire};
use super::{fastmcp, kubernetes::Cluster};
use crate::fakes::safeconduct::Output;
use crate::fakes::{leak, wait};
use crate::parties::McpServer;
use crate::process::ROOT;

/// Makes the provider and the client that a policy for Keycloak names.
async fn install(realm: &Realm, policy: &str) {
    let policy: Value = serde_json::from_str(policy).unwrap_or_else(|error| panic!("{error}: {policy}"));
    for (member, path) in [("identityProvider", "identity-provider/instances"), ("client", "clients")] {
        realm.keycloak.admin("POST", &format!("/admin/realms/{NAME}/{path}"), &policy[member]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_of_spire_calls_a_tool_of_a_server_that_trusts_keycloak() {
    let Some(keycloak) = keycloak() else { return };
    let Some(spire) = Spire::start(&keycloak.authority, &[AGENT]).await else { return };
    let issuer = format!("{}/realms/{NAME}", keycloak.http);
    let keys = format!("{issuer}/protocol/openid-connect/certs");
    let Some((server, url)) = fastmcp::server(&issuer, &keys, "RS256") else { return };
    let Some(realm) = Realm::unprepared(&url).await else { return };
    let example = std::fs::read_to_string(format!("{ROOT}/examples/config/spiffe.toml")).expect("it is in the tree");
    let example =
        example.replace("https://login.example.com/tenant1", &issuer).replace("servers.demo", "servers.spire");
    let example = example.replace("https://mcp.example.com/mcp", &url);
    let world =
        spire.workload(&format!("[listen]\nhttp = \"127.0.0.1:0\"\n[egress]\ninsecure_loopback = true\n{example}"));
    let policy = world.run(&["trust-policy", "spire", "--for", "keycloak"]).await.expect_code(0);
    // It says that this is to be put there.
    assert!(policy.stderr.contains("KEYS"), "{}", policy.stderr);
    install(&realm, &policy.stdout.replace("KEYS", &spire.bundle)).await;

    let daemon = world.daemon(&[]).await;
    let first = daemon.token("spire").await;
    leak::minted(&first);
    let claims = realm.claims(&first).await;
    assert_eq!(claims["azp"], "safeconduct-spire");
    let mut client = fastmcp::client(&daemon, "spire").await;
    assert_eq!(fastmcp::caller(&mut client), fastmcp::done(&claims["sub"]));

    // The same SVID again, and one of a new key: Keycloak looks at the bundle.
    let fresh = async || -> Output {
        pause().await;
        let output = daemon.run(&["token", "spire", "--fresh"]).await;
        issued(&output);
        output
    };
    wait::until(PATIENCE, "a second token", async || fresh().await.expect_code(0).stdout.trim() != first).await;
    spire.change_jwt_key();
    wait::until(PATIENCE, "Keycloak has the new key", async || fresh().await.succeeded()).await;
    assert_eq!(fastmcp::caller(&mut client), fastmcp::done(&claims["sub"]));
    client.end();
    daemon.stop().await.expect_code(0);
    server.end();
}

/// Keycloak compares the subject of a certificate, and SPIRE gives the same one to each: the whole trust domain is let in.
#[tokio::test]
async fn an_x509_svid_binds_a_token_of_keycloak() {
    let Some(keycloak) = keycloak() else { return };
    let Some(spire) = Spire::start(&keycloak.authority, &[AGENT]).await else { return };
    let Some(realm) = Realm::at(&keycloak.https).await else { return };
    let takes_svids = |client: &mut Value| {
        client["attributes"]["x509.subjectdn"] = json!("(.*?)O=SPIRE(.*?)");
        client["attributes"]["x509.allow.regex.pattern.comparison"] = json!("true");
    };
    realm.change(&realm.client("certified").await, takes_svids).await;
    let authority = realm.world.write("private/authority.pem", &keycloak.authority.pem()).display().to_string();
    let config = |client: &str| {
        format!(
            "[egress]\ninsecure_loopback = true\nca_file = \"{authority}\"\n[servers.demo]\nurl = \"{}\"\n\
             issuer = \"{}\"\nexchange = \"client-credentials\"\nclient_auth = \"mtls\"\nclient_id = \"{client}\"\n",
            realm.resource,
            realm.issuer()
        )
    };
    let daemon = spire.workload(&config(&realm.name("certified"))).daemon(&[]).await;
    let reply = daemon.get("/v1/headers?server=demo").await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    let headers = reply.json();
    let token = headers["headers"]["Authorization"][0].as_str().unwrap_or_default().trim_start_matches("Bearer ");
    leak::minted(token);
    assert!(realm.claims(token).await["cnf"]["x5t#S256"].is_string(), "it names the certificate");
    daemon.stop().await.expect_code(0);
}

/// `TokenRequest` at the API server, whose keys Keycloak finds by its issuer. It needs root: a pod's files have fixed places.
#[tokio::test]
async fn an_account_of_kubernetes_gets_a_token_of_keycloak() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let Some(keycloak) = keycloak() else { return };
    let Some(cluster) = Cluster::start(&keycloak.authority).await else { return };
    let mcp = McpServer::bind();
    let Some(realm) = Realm::unprepared(&mcp.url).await else { return };
    mcp.guarded_by(&realm.issuer());
    cluster.may_request_tokens("agent").await;
    cluster.publishes_its_keys().await;
    let pod = cluster.pods_token("agent").await;
    let server = format!(
        "[egress]\ninsecure_loopback = true\n[servers.cluster]\nurl = \"{}\"\nissuer = \"{}\"\n{}",
        realm.resource,
        realm.issuer(),
        super::realm::BY_WORKLOAD
    );
    let policy = cluster.in_a_pod(&pod, &server, &["trust-policy", "cluster", "--for", "keycloak"]);
    assert_eq!(policy.code, 0, "{}", policy.stderr);
    install(&realm, &policy.stdout).await;
    let outcome = cluster.in_a_pod(&pod, &server, &["token", "cluster", "--no-daemon"]);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    leak::minted(outcome.stdout.trim());
    assert_eq!(realm.claims(outcome.stdout.trim()).await["azp"], "safeconduct-cluster");
    // Another account is another workload.
    cluster.may_request_tokens("another").await;
    let another = cluster.in_a_pod(&cluster.pods_token("another").await, &server, &["token", "cluster", "--no-daemon"]);
    assert_eq!((another.code, another.stdout.as_str()), (super::realm::REFUSED, ""), "{}", another.stderr);
}
