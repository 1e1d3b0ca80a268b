//! Enterprise-managed authorization: oidc-provider as the identity provider that issues ID-JAGs, the official Python SDK as
//! authorization server and MCP server, and its client as the MCP client.

use std::process::Command;

use serde_json::{Value, json};

use crate::parties::Idp;
use crate::process::{Outcome, PYTHON, ROOT, run, unspoken};
use crate::scene::{Scene, is_refusal};
use crate::servers::{AuthorizationServer, Software};

const NEIGHBOUR: &str = "https://neighbour.example.com/mcp";
const SECRET: &str = "a-secret-for-one-test";

#[test]
fn a_workload_calls_a_tool_of_the_python_sdk() {
    let cast = Cast::new("agent", None);
    let token = cast.token("");
    assert_eq!(token.code, 0, "{}", token.stderr);
    assert_eq!(cast.call(token.stdout.trim()), json!({ "said": "hello safeconduct" }));
    cast.requests(&["granted"], &["granted"]);
}

#[test]
fn a_token_for_the_neighbour_opens_nothing_here() {
    let cast = Cast::new("agent", Some(NEIGHBOUR));
    let token = cast.token(&format!("resource = \"{NEIGHBOUR}\"\n"));
    assert_eq!(token.code, 0, "{}", token.stderr);
    assert_eq!(cast.call(token.stdout.trim()), json!({ "refused": 401 }));
    cast.requests(&["granted"], &["granted"]);
}

#[test]
fn the_identity_provider_refuses_a_stranger() {
    let cast = Cast::new("agent", None);
    let stranger = Idp::new().assertion(&cast.scene.server.issuer, 300);
    let outcome = cast.scene.token(&cast.keys("", SECRET), Some(&stranger));
    is_refusal(&outcome, "invalid_grant");
    cast.requests(&["invalid_grant"], &[]);
}

#[test]
fn the_identity_provider_refuses_a_resource_it_does_not_know() {
    let cast = Cast::new("agent", Some(NEIGHBOUR));
    is_refusal(&cast.token(""), "invalid_target");
    cast.requests(&["invalid_target"], &[]);
}

#[test]
fn the_python_sdk_refuses_an_id_jag_of_another_client() {
    let cast = Cast::new("somebody", None);
    is_refusal(&cast.token(""), "invalid_grant");
    cast.requests(&["granted"], &["invalid_grant"]);
}

#[test]
fn the_python_sdk_refuses_a_wrong_secret() {
    let cast = Cast::new("agent", None);
    let assertion = cast.scene.idp.assertion(&cast.scene.server.issuer, 300);
    let outcome = cast.scene.token(&cast.keys("", "another-secret"), Some(&assertion));
    is_refusal(&outcome, "invalid_client");
    // The SDK checks the client first, so it did not read the ID-JAG.
    cast.requests(&["granted"], &[]);
}

struct Cast {
    /// The workload's platform and the enterprise's identity provider.
    scene: Scene,
    sdk: AuthorizationServer,
}

impl Cast {
    /// `client` is the client of the ID-JAGs, `known` their resource if it is another one.
    fn new(client: &str, known: Option<&str>) -> Self {
        let settings = vec![("CLIENT_SECRET", SECRET.to_owned()), ("NEIGHBOUR", NEIGHBOUR.to_owned())];
        let mut sdk = AuthorizationServer::start(Software::PythonSdk, &settings);
        let resource = sdk.ready["resource"].as_str().expect("the first line names the resource").to_owned();
        let settings = vec![("ID_JAG_AUDIENCE", sdk.issuer.clone()), ("ID_JAG_CLIENT", client.to_owned())];
        let scene = Scene::at(&resource, Software::OidcProvider, known.unwrap_or(&resource), settings);
        let trust = json!({ "trusted_issuer": scene.server.issuer, "jwks": scene.server.ready["jwks"] });
        sdk.tell(&trust, "trusts");
        Self { scene, sdk }
    }

    fn token(&self, more: &str) -> Outcome {
        let assertion = self.scene.idp.assertion(&self.scene.server.issuer, 300);
        let outcome = self.scene.token(&self.keys(more, SECRET), Some(&assertion));
        unspoken(&outcome.stderr, &[SECRET]);
        outcome
    }

    fn keys(&self, more: &str, secret: &str) -> String {
        let file = self.scene.private_file("client.secret", secret);
        // The SDK needs the client's identifier in the form; HTTP Basic does not send it there.
        let proof =
            format!("client_auth = \"secret\"\nclient_secret_file = \"{file}\"\nclient_secret_method = \"post\"\n");
        let idp = format!("idp = {{ issuer = \"{}\", client_id = \"workload\" }}\n", self.scene.server.issuer);
        let server = format!("issuer = \"{}\"\nexchange = \"id-jag\"\nclient_id = \"agent\"\n", self.sdk.issuer);
        [&server, &proof, &idp, more].concat()
    }

    /// The official client, with this token.
    fn call(&self, token: &str) -> Value {
        let mut command = Command::new(std::path::Path::new(ROOT).join(PYTHON));
        command.current_dir(ROOT).args(["tests/others/mcp_client.py", &self.scene.resource]).env("TOKEN", token);
        let outcome = run(command, self.scene.dir.path());
        serde_json::from_str(&outcome.stdout).unwrap_or_else(|e| panic!("{e}: {}", outcome.stderr))
    }

    /// The outcomes of the token requests, at the identity provider and at the SDK.
    fn requests(self, idp: &[&str], sdk: &[&str]) {
        assert_eq!(self.scene.server.token_requests(), idp);
        assert_eq!(self.sdk.token_requests(), sdk);
    }
}
