//! Zed: the bridge. It reads headers once.

use super::{Row, USUAL};

pub(super) const ROW: Row = Row {
    place: "~/.config/zed/settings.json",
    replaces: &[],
    bridge: r#"{
  "context_servers": {
    «key»: {
      "command": «program»,
      "args": «args»,
      "env": {}
    }
  }
}
"#,
    ..USUAL
};
