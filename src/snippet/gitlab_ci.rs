//! GitLab CI: an ID token for the authorization server, the tokens, the configuration of an agent, and the end of the tokens, in one
//! job.

use super::{Row, USUAL};

/// In the place of an issuer that is not known.
pub(super) const UNKNOWN: &str = "https://AUTHORIZATION-SERVER";

pub(super) const ROW: Row = Row {
    place: ".gitlab-ci.yml, for an image with safeconduct",
    replaces: &["$[["],
    bridge: r#"agent:
  id_tokens:
    SAFECONDUCT_ID_TOKEN:
      aud: «issuer»
  script:
    - «start»
    - «configure gitlab»
    # The commands of the agent come here.
  after_script:
    - safeconduct stop
"#,
    alone: "«finds issuer»«needs»start Claude Code with `--mcp-config mcp.json`, or put another client for claude-code",
    ..USUAL
};
