//! The shape that most clients share: `mcpServers` with `command` and `args`. Cursor, Windsurf and Cline read headers once, at
//! their start, so the bridge is all that renews a token for them; Gemini CLI too.

use super::{Row, USUAL};

/// `mcpServers` with the bridge.
pub(super) const SERVERS: &str = r#"{
  "mcpServers": {
    «key»: {
      "command": «program»,
      "args": «args»
    }
  }
}
"#;

pub(super) const GEMINI: Row = Row {
    place: "~/.gemini/settings.json, or .gemini/settings.json of the project",
    bare_variables: true,
    alone: "Gemini CLI keeps back variables that look like a credential: name those of the job's identity (`safeconduct whoami` has them as evidence) in `env`, or start \
        `safeconduct run` first",
    ..USUAL
};

pub(super) const CURSOR: Row = Row { place: "~/.cursor/mcp.json, or .cursor/mcp.json of the project", ..USUAL };

pub(super) const WINDSURF: Row = Row { place: "~/.codeium/windsurf/mcp_config.json", ..USUAL };

pub(super) const CLINE: Row = Row { place: "cline_mcp_settings.json (CLI: in ~/.cline/data/settings)", ..USUAL };
