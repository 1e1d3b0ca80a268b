//! Continue: the bridge, in a file of its own. It reads headers once.

use super::{Row, USUAL};

pub(super) const ROW: Row = Row {
    place: "a file of its own in .continue/mcpServers, or `cn --config FILE`",
    replaces: &["${{"],
    bridge: r#"name: «key»
version: 0.0.1
schema: v1
mcpServers:
  - name: «key»
    command: «program»
    args: «args»
"#,
    ..USUAL
};
