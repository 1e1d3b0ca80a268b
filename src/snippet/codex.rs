//! Codex: `http_headers_helper`, which it runs again after a 401 or 403. Without a daemon the bridge. Codex clears the environment
//! of both; for the bridge alone `env_vars` can hand on variables.

use super::{Row, USUAL};

pub(super) const ROW: Row = Row {
    place: "~/.codex/config.toml",
    replaces: &[],
    // `required`: else `codex exec` does not wait for a server that takes a second to answer.
    direct: Some((
        r#"[mcp_servers.«bare key»]
url = «url»
http_headers_helper = «helper»
required = true
"#,
        "for Codex 0.150 and later: before, and for tokens that are bound to a key, use `--bridge`; add no `http_headers` \
        beside the helper",
    )),
    bridge: r#"[mcp_servers.«bare key»]
command = «program»
args = «args»
required = true
"#,
    alone: "Codex clears the environment: name the variables of the job's identity (`safeconduct whoami` has them as evidence) in `env_vars`, or start `safeconduct run` \
        first",
    ..USUAL
};
