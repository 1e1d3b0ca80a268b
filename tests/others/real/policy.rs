//! What `trust-policy --for keycloak` prints, installed as printed: then a token comes.

use std::process::Command;

use super::keycloak::keycloak;
use super::realm::{BY_WORKLOAD, NAME, Realm};
use crate::fakes::safeconduct::Output;
use crate::parties::McpServer;
use crate::process::run;

/// In a realm that knows neither the platform nor the client.
#[tokio::test]
async fn the_printed_policy_and_the_printed_configuration_give_a_token() {
    let Some(keycloak) = keycloak() else { return };
    let mcp = McpServer::bind();
    let Some(realm) = Realm::unprepared(&mcp.url).await else { return };
    mcp.guarded_by(&format!("{}/realms/{NAME}", keycloak.http));
    let world = realm.world.clone().config(&realm.config(BY_WORKLOAD));
    let policy = world.run(&["trust-policy", "demo", "--for", "keycloak"]).await.expect_code(0);

    install(&realm, &policy);

    let output = realm.token(&realm.config(BY_WORKLOAD)).await.expect_code(0);
    realm.claims(output.stdout.trim()).await;
    // The lines for our own configuration.
    let here = policy.stderr.split_once("# here").and_then(|(_, rest)| rest.split_once('\n')).expect("it says them").1;
    let here = here.replace("[servers.NAME]", "[servers.demo]");
    let output = realm.token(&format!("[egress]\ninsecure_loopback = true\n{here}")).await.expect_code(0);
    realm.claims(output.stdout.trim()).await;
}

/// Runs the printed commands in a folder with the printed document, as a person does who is logged in.
fn install(realm: &Realm, policy: &Output) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    std::fs::write(folder.path().join("policy.json"), &policy.stdout).expect("ours");
    let commands: Vec<&str> = policy.stderr.lines().filter_map(|line| line.strip_prefix("# install: ")).collect();
    assert!(commands.len() >= 2, "a provider and a client: {}", policy.stderr);
    let login = format!(
        "kcadm.sh config credentials --server {} --realm master --user admin --password admin",
        realm.keycloak.http
    );
    for line in [login.as_str()].into_iter().chain(commands) {
        let mut command = Command::new("bash");
        command.args(["-e", "-o", "pipefail", "-c", &line.replace("REALM", NAME)]);
        let path = format!("{}/bin:/usr/local/bin:/usr/bin:/bin", realm.keycloak.home.display());
        command.env("HOME", folder.path()).env("PATH", path).current_dir(folder.path());
        let outcome = run(command, folder.path());
        assert_eq!(outcome.code, 0, "{line}\n{}{}", outcome.stdout, outcome.stderr);
    }
}
