//! Goose: the daemon's proxy on its Unix socket (`socket`; `uri` gives host and path). Without a daemon the bridge.

use super::{Row, USUAL};

pub(super) const ROW: Row = Row {
    place: "~/.config/goose/config.yaml",
    bare_variables: true,
    direct: Some((
        r#"extensions:
  «key»:
    type: streamable_http
    uri: «proxy»
    socket: «socket»
    name: «key»
    description: an MCP server, by safeconduct
    enabled: true
    timeout: 300
"#,
        "Goose dials the daemon's socket; the daemon adds the token to each request",
    )),
    bridge: r#"extensions:
  «key»:
    type: stdio
    cmd: «program»
    args: «args»
    name: «key»
    description: an MCP server, by safeconduct
    enabled: true
    timeout: 300
"#,
    ..USUAL
};
