//! Claude Code: `headersHelper`, which it runs again after a 401 or 403 and then replays the call. Without a daemon the bridge:
//! the helper of a project gets no variable that looks like a credential, and a failure of it is silent.

use super::{Row, USUAL};

pub(super) const ROW: Row = Row {
    place: ".mcp.json of the project, or a file for `claude --mcp-config`, which needs no approval",
    direct: Some((
        r#"{
  "mcpServers": {
    «key»: {
      "type": "http",
      "url": «url»,
      "headersHelper": «helper»
    }
  }
}
"#,
        "for Claude Code 2.1.250 and later: before, and for tokens that are bound to a key, use `--bridge`; add no `headers` \
        beside the helper",
    )),
    ..USUAL
};
