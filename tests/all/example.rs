//! The configurations in `examples/config/`, as tests use them.

use support::scene::Scene;

pub(crate) const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/config");

/// The text of `NAME.toml`.
pub(crate) fn text(name: &str) -> String {
    std::fs::read_to_string(format!("{FOLDER}/{name}.toml")).expect("there is such an example")
}

/// The same with the URLs of the scene's servers, and with `egress` in the table `[egress]`.
pub(crate) fn in_scene(scene: &Scene, name: &str, egress: &str) -> String {
    let text = text(name).replace("https://mcp.example.com/mcp", &scene.mcp.url());
    let text = text.replace("https://login.example.com/tenant1", &scene.authorization_server.issuer());
    format!("{text}\n[egress]\n{egress}insecure_loopback = true\n")
}
