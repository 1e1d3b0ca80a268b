//! The flags of `safeconduct run`, `stop`, `reload` and `revoke`, and of `install`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::span;

/// Shown below the help of `run`.
pub(super) const RUN: &str = "Example:\n  safeconduct run --detach deploy=https://mcp.example.com/mcp";

#[derive(Args, Debug)]
pub(crate) struct Run {
    /// Further servers; they need no file and are required
    #[arg(value_name = "NAME=URL")]
    pub servers: Vec<String>,
    /// Go on in the background; return when every required server has its token
    #[arg(long)]
    pub detach: bool,
    /// With --detach: how long to wait for the tokens; 0s returns when it listens [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = span)]
    pub wait: Option<Duration>,
    /// Set by --detach for the process it starts
    #[arg(long, hide = true)]
    pub detached: bool,
}

/// Shown below the help of `install`.
pub(super) const INSTALL: &str = "Example, as the command of an init container:\n  safeconduct install /shared/bin";

#[derive(Args, Debug)]
pub(crate) struct Install {
    /// Where to; it is made if it does not exist, and must be writable by nobody else
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct Operate {
    /// For scripts
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Revoke {
    /// The name or URL of a configured server; without it, all of them
    #[arg(value_name = "TARGET")]
    pub target: Option<String>,
}
