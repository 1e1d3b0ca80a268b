//! The flags of `safeconduct ci`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::span;

/// What is shown after the flags.
pub(super) const EXAMPLE: &str = "\
Example:
  safeconduct ci deploy=https://mcp.example.com/mcp \\
    --allowed-issuer https://auth.example.com

It knows GitHub Actions, Forgejo and Gitea, Azure Pipelines, GitLab, CircleCI,
Buildkite, Bitbucket and Jenkins. Step outputs: token_NAME and expires_at_NAME
of each target, and socket. Where a runner stores outputs, they are instead in a
file that only this user can read; its path is on stdout:
  . \"$(safeconduct ci NAME=URL)\"
A daemon goes on in the background and renews the tokens until the job ends.
`safeconduct stop` ends it before.";

#[derive(Args, Clone, Debug)]
pub(crate) struct Ci {
    /// Names of configured servers, or NAME=URL
    #[arg(value_name = "TARGET", required = true)]
    pub targets: Vec<String>,
    /// Ask for this scope, and let the job have no other; can be given several times
    #[arg(long = "scope", value_name = "S")]
    pub scopes: Vec<String>,
    /// Pin the authorization server of each target
    #[arg(long, value_name = "URL")]
    pub issuer: Option<String>,
    /// Refuse each target with another URL than these; can be given several times
    #[arg(long = "allowed-server", value_name = "URL")]
    pub allowed_servers: Vec<String>,
    /// Send the identity of this job to no other authorization server than these; can be given several times
    #[arg(long = "allowed-issuer", value_name = "URL")]
    pub allowed_issuers: Vec<String>,
    /// Prefer a token that lives at least this long
    #[arg(long, value_name = "TIME", value_parser = span)]
    pub min_ttl: Option<Duration>,
    /// A new token, unless one was minted within the last second
    #[arg(long)]
    pub fresh: bool,
    /// Give up after this time
    #[arg(long, value_name = "TIME", value_parser = span, default_value = "30s")]
    pub timeout: Duration,
    /// For scripts
    #[arg(long)]
    pub json: bool,
    /// Set for the process that goes on in the background
    #[arg(long, hide = true, value_name = "DIR")]
    pub detached: Option<PathBuf>,
}
