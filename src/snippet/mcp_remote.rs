//! mcp-remote: OAuth's `client_credentials` at the daemon's token endpoint, with which it renews tokens by itself. Its client and
//! secret are in a file that the daemon writes at its start; the snippet names the file. Without that endpoint the bridge takes the
//! place of mcp-remote.

use super::{Row, USUAL};

pub(super) const ROW: Row = Row {
    place: "the configuration of the client that starts mcp-remote",
    needs_oauth: true,
    // The first version that can be given a token endpoint.
    direct: Some((
        r#"{
  "mcpServers": {
    «key»: {
      "command": "npx",
      "args": [
        "-y",
        "mcp-remote@0.15.1",
        «url»,
        "--client-credentials",
        "--token-endpoint",
        «endpoint»,
        "--static-oauth-client-info",
        «file»
      ]
    }
  }
}
"#,
        "mcp-remote reads its secret from that file, which is new at each start of the daemon: start it again after the daemon",
    )),
    alone: "this starts `safeconduct stdio` in the place of mcp-remote, which needs a daemon with `http` and \
        `oauth_token = true` in [listen]",
    ..USUAL
};
