//! GitHub Actions: a step that starts the daemon while the job's OIDC request variables are there, and one that writes the
//! configuration of an agent. A daemon of the machine on which the snippet is made does not count, for it is not that of the job.

use super::{Row, USUAL};

pub(super) const ROW: Row = Row {
    place: "the job in .github/workflows/*.yml, after a step that installs safeconduct",
    replaces: &["${{"],
    bridge: r#"permissions:
  contents: read
  id-token: write
steps:
  - name: Start safeconduct
    run: «start»
  - name: Configure the agent
    run: «configure github»
"#,
    alone: "«needs»start Claude Code with `--mcp-config \"$RUNNER_TEMP/mcp.json\"`, or put another client for claude-code",
    ..USUAL
};
