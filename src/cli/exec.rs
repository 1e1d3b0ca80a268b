//! The flags of `safeconduct exec`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use super::Wishes;

/// Shown below the help of `exec`.
pub(super) const EXAMPLE: &str = "\
Examples:
  safeconduct exec deploy=https://mcp.example.com/mcp -- \\
    sh -c 'agent --mcp \"$SAFECONDUCT_URL_DEPLOY\"'
  safeconduct exec --env deploy -- \\
    sh -c 'curl -H \"Authorization: Bearer $SAFECONDUCT_TOKEN_DEPLOY\" …'

CMD gets SAFECONDUCT_SOCKET (the whole API, for these servers alone) and for
each TARGET SAFECONDUCT_URL_<NAME>, an MCP server at 127.0.0.1 that only this
user can open. The variables with which it could get the job's identity by
itself are taken out of its environment. The identity must be there before CMD
is started; a token is fetched first with --env, else when CMD asks for it.

Exit codes: that of CMD, or its signal; 127 if CMD is not found, 126 if it
cannot be run; before CMD is started those of the other commands.";

#[derive(Args, Debug)]
pub(crate) struct Exec {
    /// As for `token`; without any, the configured servers that this user may use
    #[arg(value_name = "TARGET")]
    pub targets: Vec<String>,
    /// The command and its arguments
    #[arg(value_name = "CMD", last = true, required_unless_present = "serve")]
    pub command: Vec<OsString>,
    /// Also set `SAFECONDUCT_TOKEN_<NAME>` to a token, which is not renewed
    #[arg(long)]
    pub env: bool,
    /// Leave the variables of this identity source (or of all) in the environment of CMD
    #[arg(long, value_name = "SOURCE", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    pub keep_identity: Vec<String>,
    #[command(flatten)]
    pub wishes: Wishes,
    /// Set for the process that serves CMD, with its directory
    #[arg(long, hide = true, value_name = "DIR")]
    pub serve: Option<PathBuf>,
}
