//! opencode: the bridge, as one list of words. It reads headers and `{file:…}` once.

use super::{Row, USUAL};

pub(super) const ROW: Row = Row {
    place: "opencode.json of the project, or ~/.config/opencode/opencode.json",
    replaces: &["{env:", "{file:"],
    bridge: r#"{
  "$schema": "https://opencode.ai/config.json",
  "mcp": {
    «key»: {
      "type": "local",
      "command": «command»,
      "enabled": true
    }
  }
}
"#,
    ..USUAL
};
