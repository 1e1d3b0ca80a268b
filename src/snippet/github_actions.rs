//! GitHub Actions: a step that gets the tokens while the job's OIDC request variables are there, one that writes the
//! configuration of an agent, and one that revokes at the end what still lives. A daemon of the machine on which the snippet is
//! made does not count, for it is not that of the job.

use super::{Row, USUAL};

pub(super) const ROW: Row = Row {
    place: "the job in .github/workflows/*.yml, after a step that installs safeconduct",
    replaces: &["${{"],
    bridge: r#"permissions:
  contents: read
  id-token: write
steps:
  - name: Get the tokens
    run: «start»
  - name: Configure the agent
    run: «configure github»
  # The steps of the agent come here.
  - name: Revoke the tokens
    if: always()
    run: safeconduct stop
"#,
    alone: "«needs»start Claude Code with `--mcp-config \"$RUNNER_TEMP/mcp.json\"`, or put another client for claude-code",
    ..USUAL
};
