//! Copilot CLI: the bridge. It reads headers once. The coding agent takes the same entry in the repository's settings, after a
//! setup step that starts the daemon.

use super::{Row, USUAL};

pub(super) const ROW: Row = Row {
    place: "~/.copilot/mcp-config.json",
    bare_variables: true,
    bridge: r#"{
  "mcpServers": {
    «key»: {
      "type": "local",
      "command": «program»,
      "args": «args»,
      "tools": ["*"]
    }
  }
}
"#,
    ..USUAL
};
