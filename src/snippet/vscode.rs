//! VS Code: the daemon's proxy on its Unix socket, whose permissions say who may use it. Without a daemon the bridge.

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::{Row, USUAL};

/// What would end the path in a URL, or change it.
const IN_PATH: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'%').add(b'?').add(b'<').add(b'>').add(b'\\');

/// The proxy on the socket.
pub(super) fn url(socket: &str, name: &str) -> String {
    format!("unix://{}#/mcp/{name}", utf8_percent_encode(socket, IN_PATH))
}

pub(super) const ROW: Row = Row {
    place: ".vscode/mcp.json of the project, or the user's mcp.json",
    direct: Some((
        r#"{
  "servers": {
    «key»: {
      "type": "http",
      "url": «unix url»
    }
  }
}
"#,
        "VS Code dials the daemon's socket; the daemon adds the token to each request",
    )),
    bridge: r#"{
  "servers": {
    «key»: {
      "type": "stdio",
      "command": «program»,
      "args": «args»
    }
  }
}
"#,
    ..USUAL
};
