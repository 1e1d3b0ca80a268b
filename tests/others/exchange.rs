//! Token exchange (RFC 8693) with @jmondi/oauth2-server.

use serde_json::Value;

use crate::parties::{Idp, McpServer, SUBJECT};
use crate::process::unspoken;
use crate::scene::{Scene, is_refusal, refused_once};
use crate::servers::Software::Oauth2Server;

const CLIENT: &str = "exchange = \"token-exchange\"\nclient_id = \"gateway\"\n";

#[test]
fn the_workloads_token_is_changed_for_one_bound_to_the_resource() {
    let scene = Scene::new(Oauth2Server, Vec::new());
    let outcome = scene.token(&gateway(&scene), Some(&scene.idp.assertion(&scene.server.issuer, 300)));
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    let claims: Value = scene.server.claims(outcome.stdout.trim(), &scene.resource);
    assert_eq!((&claims["sub"], &claims["cid"]), (&SUBJECT.into(), &"gateway".into()));
    assert_eq!(scene.server.token_requests(), ["granted"]);
}

#[test]
fn a_token_for_an_unknown_resource_is_refused() {
    let scene = Scene::guarding(Oauth2Server, McpServer::bind(), "https://other.example.com/mcp", Vec::new());
    let outcome = scene.token(&gateway(&scene), Some(&scene.idp.assertion(&scene.server.issuer, 300)));
    refused_once(scene, &outcome, "invalid_target");
}

#[test]
fn a_strangers_token_is_refused() {
    let scene = Scene::new(Oauth2Server, Vec::new());
    let outcome = scene.token(&gateway(&scene), Some(&Idp::new().assertion(&scene.server.issuer, 300)));
    // RFC 8693 section 2.2.2: a bad subject token is an invalid_request.
    refused_once(scene, &outcome, "invalid_request");
}

#[test]
fn an_unknown_client_is_refused() {
    let scene = Scene::new(Oauth2Server, Vec::new());
    let keys = gateway(&scene).replace("\"gateway\"", "\"somebody\"");
    let outcome = scene.token(&keys, Some(&scene.idp.assertion(&scene.server.issuer, 300)));
    refused_once(scene, &outcome, "invalid_client");
}

#[test]
fn the_secret_of_a_confidential_client_is_taken_in_the_header() {
    the_secret_is_taken("basic");
}

#[test]
fn the_secret_of_a_confidential_client_is_taken_in_the_form() {
    the_secret_is_taken("post");
}

#[test]
fn a_wrong_secret_is_refused() {
    let scene = Scene::new(Oauth2Server, vec![("CLIENT_SECRET", "one-secret".to_owned())]);
    let keys = with_secret(&scene, "another-secret", "basic");
    let outcome = scene.token(&keys, Some(&scene.idp.assertion(&scene.server.issuer, 300)));
    refused_once(scene, &outcome, "invalid_client");
}

fn the_secret_is_taken(place: &str) {
    let secret = "a-secret-for-one-test";
    let scene = Scene::new(Oauth2Server, vec![("CLIENT_SECRET", secret.to_owned())]);
    let keys = with_secret(&scene, secret, place);
    let outcome = scene.token(&keys, Some(&scene.idp.assertion(&scene.server.issuer, 300)));
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    unspoken(&outcome.stderr, &[secret]);
    assert_eq!(scene.server.token_requests(), ["granted"]);
}

fn with_secret(scene: &Scene, secret: &str, place: &str) -> String {
    let file = scene.private_file("client.secret", secret);
    let proof = format!("client_auth = \"secret\"\nclient_secret_file = \"{file}\"\n");
    format!("{}{proof}client_secret_method = \"{place}\"\n", gateway(scene))
}

/// RFC 8693 section 2.2.1 requires the field. The library leaves it to the operator, so servers without it exist.
#[test]
fn an_answer_that_does_not_say_what_it_issued_is_refused() {
    let scene = Scene::new(Oauth2Server, vec![("AS_SHIPPED", "1".to_owned())]);
    let outcome = scene.token(&gateway(&scene), Some(&scene.idp.assertion(&scene.server.issuer, 300)));
    is_refusal(&outcome, "issued_token_type");
}

fn gateway(scene: &Scene) -> String {
    format!("{}{CLIENT}", scene.pin())
}
