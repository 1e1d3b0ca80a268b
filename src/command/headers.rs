//! `safeconduct headers`: `{"Authorization":"Bearer …"}` for Claude Code's `headersHelper` and Codex' `http_headers_helper`.

use super::obtain::{self, Purpose, Wanted};
use super::{Context, Failure, Printable, print};
use crate::cli::Headers;

pub(super) fn run(context: &Context<'_>, verb: &Headers) -> Result<(), Failure> {
    let target = match &verb.target {
        Some(target) => target.clone(),
        // Use the URL, not the name: the author of the client's configuration chooses the names.
        None => context.env.get("CLAUDE_CODE_MCP_SERVER_URL").map(str::to_owned).ok_or_else(|| {
            Failure::asked("no TARGET")
                .hint("name the server: `safeconduct headers NAME`; only Claude Code says itself which server it means")
        })?,
    };
    let handed = obtain::token(context, &Wanted::parse(&target)?, &verb.wishes, Purpose::Headers)?;
    let mut text = handed.flat_headers();
    text.push('\n');
    print(&Printable::json_credential(&text, context.env)?)
}
