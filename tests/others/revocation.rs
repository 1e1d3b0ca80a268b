//! Revocation (RFC 7009) with oidc-provider. Introspection (RFC 7662) shows that a revoked token is not valid any more.

use serde_json::json;

use crate::daemon::Daemon;
use crate::keys::Key;
use crate::scene::Scene;
use crate::servers::Software::OidcProvider;

#[test]
fn a_revoked_token_is_gone_at_the_server() {
    let key = Key::new();
    let settings = vec![("CLIENT_JWKS", key.jwks()), ("TOKENS", "opaque".to_owned())];
    let mut scene = Scene::new(OidcProvider, settings);
    let mut daemon = Daemon::start(&scene, &machine(&scene, &key), None);
    let token = daemon.ask(&["token", "target", "--daemon-only"]);
    assert_eq!(token.code, 0, "{}", token.stderr);
    assert_eq!(active(&mut scene, token.stdout.trim()), true);

    let revoked = daemon.ask(&["revoke", "target"]);
    assert_eq!(revoked.code, 0, "{}", revoked.stderr);
    assert_eq!(active(&mut scene, token.stdout.trim()), false);

    let another = daemon.ask(&["token", "target", "--daemon-only"]);
    assert_ne!(another.stdout, token.stdout, "the daemon does not hand out what it gave back");
    assert_eq!(active(&mut scene, another.stdout.trim()), true);
    daemon.end();
    assert_eq!(scene.server.token_requests(), ["granted", "granted"]);
}

fn active(scene: &mut Scene, token: &str) -> serde_json::Value {
    scene.server.tell(&json!({ "introspect": token }), "introspected")["active"].clone()
}

fn machine(scene: &Scene, key: &Key) -> String {
    let file = scene.private_file("client.pem", &key.pem());
    let client = format!("client_id = \"machine\"\nclient_auth = \"private-key-jwt\"\nclient_key_file = \"{file}\"\n");
    format!("{}exchange = \"client-credentials\"\n{client}", scene.pin())
}
