//! mcp-remote: OAuth's `client_credentials` at the daemon's token endpoint, with which it renews tokens by itself. Its client and
//! secret are in a file that the daemon writes at its start; the snippet names the file. Without that endpoint the bridge takes the
//! place of mcp-remote.

use super::form::word;
use super::{Facts, Page, entry, list, table, text, usual};

/// The first that can be given a token endpoint.
const PACKAGE: &str = "mcp-remote@0.15.1";

pub(super) fn page(facts: &Facts) -> Page {
    let found = facts.direct().and_then(|daemon| Some((daemon, daemon.oauth.as_ref()?)));
    let Some((daemon, oauth)) = found else {
        return Page::new(
            usual::servers(facts),
            "this starts `safeconduct stdio` in the place of mcp-remote, which needs a daemon with `http` and \
            `oauth_token = true` in [listen]",
        );
    };
    let args = list([
        word("-y"),
        word(PACKAGE),
        text(&daemon.url),
        word("--client-credentials"),
        word("--token-endpoint"),
        text(&oauth.endpoint),
        word("--static-oauth-client-info"),
        text(&format!("@{}", oauth.file)),
    ]);
    let server = table([("command".into(), word("npx")), ("args".into(), args)]);
    Page::new(
        entry("mcpServers", entry(facts.key(), server)).json(),
        "mcp-remote reads its secret from that file, which is new at each start of the daemon: start it again after the daemon",
    )
}
