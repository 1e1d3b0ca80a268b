//! The command line, and nothing else: clap types whose texts are the help people read.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::clock;
use crate::trust::Shape;
pub(crate) use usual::usual_call;

mod ci;
mod daemon;
mod examples;
mod exec;
mod files;
mod snippet;
mod stdio;
mod usual;

pub(crate) use ci::Ci;
pub(crate) use daemon::{Install, Operate, Revoke, Run};
pub(crate) use exec::Exec;
pub(crate) use files::{AuditTail, AuditVerb, AuditVerify, ConfigVerb};
pub(crate) use snippet::Snippet;
pub(crate) use stdio::Stdio;

/// Workload identity in, MCP access tokens out. No secret stored, no human in the loop.
#[derive(Debug, Parser)]
#[command(name = "safeconduct", version, max_term_width = 100, propagate_version = true)]
#[command(after_help = "Exit codes: 0 ok, 64 asked wrongly, 69 no usable identity here, 70 our bug, 75 temporary,\n\
    76 refused by the authorization server, 77 refused by policy, 78 wrong configuration.")]
pub(crate) struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Global {
    /// Configuration file [env: SAFECONDUCT_CONFIG]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The daemon's socket [env: SAFECONDUCT_SOCKET]
    #[arg(long, global = true, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// What is worth a line on stderr [env: SAFECONDUCT_LOG]
    #[arg(long, global = true, value_name = "LEVEL")]
    pub log: Option<Level>,
    /// How log lines look
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
    /// Use this identity source instead of detecting one
    #[arg(long, global = true, value_name = "NAME", conflicts_with = "identity_file")]
    pub identity: Option<String>,
    /// Use the JWT in this file as identity
    #[arg(long, global = true, value_name = "FILE")]
    pub identity_file: Option<PathBuf>,
    /// Development: plain http and loopback addresses are fine
    #[arg(long, global = true)]
    pub insecure_loopback: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

impl From<Level> for tracing_subscriber::filter::LevelFilter {
    fn from(level: Level) -> Self {
        match level {
            Level::Error => Self::ERROR,
            Level::Warn => Self::WARN,
            Level::Info => Self::INFO,
            Level::Debug => Self::DEBUG,
            Level::Trace => Self::TRACE,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Run the daemon: tokens over a Unix socket, kept fresh while they are in use
    #[command(after_help = daemon::RUN)]
    Run(Run),
    /// End the daemon, and wait for its end
    #[command(after_help = examples::STOP)]
    Stop(Operate),
    /// Have the daemon read its configuration again; what is wrong with it is printed
    #[command(after_help = examples::RELOAD)]
    Reload(Operate),
    /// Exit 0 when the required (or named) tokens are in hand, else the class's code and the reasons
    #[command(after_help = examples::READY)]
    Ready(Ready),
    /// Print an access token
    #[command(after_help = examples::TOKEN)]
    Token(Token),
    /// Print {"Authorization":"Bearer …"} for an MCP client's headers helper
    #[command(after_help = examples::HEADERS)]
    Headers(Headers),
    /// Be a stdio MCP server that is the remote one, with the token added
    #[command(after_help = examples::STDIO)]
    Stdio(Stdio),
    /// Run a command beside an endpoint of its own, without the variables of the job's identity
    #[command(after_help = exec::EXAMPLE)]
    Exec(Exec),
    /// Speak the Bazel and EngFlow credential helper protocol on stdin and stdout
    #[command(after_help = examples::GET)]
    Get(Get),
    /// One step of a CI job: step outputs with tokens, which a daemon renews until the job ends
    #[command(after_help = ci::EXAMPLE)]
    Ci(Ci),
    /// Say which workload identity is here, by what evidence, and what was not found or not used
    #[command(after_help = examples::WHOAMI)]
    Whoami(Whoami),
    /// Find out what is wrong on this side or, with TARGET, at a live MCP server: who must change what
    #[command(after_help = DOCTOR_ENDS)]
    Doctor(Doctor),
    /// Print the trust policy that the other side must have for the identity found here, from its real claims
    #[command(after_help = examples::TRUST_POLICY)]
    TrustPolicy(TrustPolicy),
    /// Print the exact configuration to paste for an MCP client, by the best way it has
    #[command(after_help = examples::SNIPPET)]
    Snippet(Snippet),
    /// Show servers, what is left of their tokens, failures and callers
    #[command(after_help = examples::STATUS)]
    Status(Status),
    /// Revoke what the daemon holds (RFC 7009)
    #[command(after_help = examples::REVOKE)]
    Revoke(Revoke),
    /// Check the audit file's chain, or show its last lines
    #[command(subcommand)]
    Audit(AuditVerb),
    /// Check the configuration, print a starter file or the JSON Schema
    #[command(subcommand)]
    Config(ConfigVerb),
    /// Print shell completions
    #[command(after_help = examples::COMPLETIONS)]
    Completions(Completions),
    /// Copy this program to a directory, in one step
    #[command(after_help = daemon::INSTALL)]
    Install(Install),
}

#[derive(Args, Debug)]
pub(crate) struct Ready {
    /// Names of configured servers; without any, the required ones
    #[arg(value_name = "TARGET")]
    pub targets: Vec<String>,
    /// How long to wait for it, for example 30s
    #[arg(long, value_name = "TIME", value_parser = span, default_value = "0s")]
    pub wait: Duration,
    /// For scripts
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Wishes {
    /// Ask for this scope; can be given several times
    #[arg(long = "scope", value_name = "S")]
    pub scopes: Vec<String>,
    /// Prefer a token that lives at least this long [default: min(60s, 20 % of its life)]
    #[arg(long, value_name = "TIME", value_parser = span)]
    pub min_ttl: Option<Duration>,
    /// A new token, unless one was minted within the last second
    #[arg(long)]
    pub fresh: bool,
    /// Pin the authorization server
    #[arg(long, value_name = "URL")]
    pub issuer: Option<String>,
    /// Give up after this time
    #[arg(long, value_name = "TIME", value_parser = span, default_value = "30s")]
    pub timeout: Duration,
    /// Do the work in this process, whether or not a daemon runs
    #[arg(long, conflicts_with = "daemon_only")]
    pub no_daemon: bool,
    /// Ask the daemon or fail
    #[arg(long)]
    pub daemon_only: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Token {
    /// The name of a configured server, the URL of an MCP server, or NAME=URL
    #[arg(value_name = "TARGET")]
    pub target: String,
    /// What to print
    #[arg(short, long, value_name = "FORM", default_value = "raw")]
    pub output: TokenForm,
    /// Do not tell the CI runner to mask the token first (GitHub Actions, Azure Pipelines)
    #[arg(long)]
    pub no_mask: bool,
    #[command(flatten)]
    pub wishes: Wishes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TokenForm {
    Raw,
    Header,
    Json,
    Env,
}

#[derive(Args, Debug)]
pub(crate) struct Headers {
    /// As for `token`; without it, CLAUDE_CODE_MCP_SERVER_URL decides
    #[arg(value_name = "TARGET")]
    pub target: Option<String>,
    #[command(flatten)]
    pub wishes: Wishes,
}

#[derive(Args, Debug)]
pub(crate) struct Get {
    #[command(flatten)]
    pub wishes: Wishes,
}

#[derive(Args, Debug)]
pub(crate) struct Whoami {
    /// Ask the platform for a token with this audience [default: safeconduct:whoami]
    #[arg(long, value_name = "A")]
    pub audience: Option<String>,
    /// Also show each source of which nothing is here, and what it looks for
    #[arg(long)]
    pub all: bool,
    /// For scripts
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct TrustPolicy {
    /// The name of a configured server, or the URL of an MCP server: who has to trust is found on the way to it
    #[arg(value_name = "TARGET")]
    pub target: String,
    /// In whose words
    #[arg(long = "for", value_name = "SHAPE", value_enum)]
    pub shape: Shape,
    /// The audience that the policy is to ask for, where neither configuration nor discovery says it
    #[arg(long, value_name = "A")]
    pub audience: Option<String>,
    /// For scripts
    #[arg(long)]
    pub json: bool,
}

/// The exit codes of `doctor` tell who must fix the problem.
const DOCTOR_ENDS: &str = "Examples:\n  safeconduct doctor\n  safeconduct doctor https://mcp.example.com/mcp\n\nExit codes of doctor:\n  \
    0  nothing failed; warnings are allowed\n  \
    76 another party fails a requirement\n  \
    75 a server cannot be reached or has trouble of its own\n  \
    78 on our side: the configuration, or the clock\n  \
    69 on our side: no usable identity\n  \
    77 on our side: our policy, or the daemon's, says no\n\
    Of several failures, ours come first: until they are solved, the others cannot be judged.";

#[derive(Args, Debug)]
pub(crate) struct Doctor {
    /// The name of a configured server, the URL of an MCP server, or NAME=URL; without it, this side is examined
    #[arg(value_name = "TARGET")]
    pub target: Option<String>,
    /// Show every check, also those that pass
    #[arg(short, long)]
    pub verbose: bool,
    /// For scripts
    #[arg(long)]
    pub json: bool,
    /// Ask for this scope; can be given several times
    #[arg(long = "scope", value_name = "S", requires = "target")]
    pub scopes: Vec<String>,
    /// Pin the authorization server
    #[arg(long, value_name = "URL", requires = "target")]
    pub issuer: Option<String>,
    /// The whole run is over after this time (plus that of --wait-expiry, where it is given), with the revocation of what was issued
    #[arg(long, value_name = "TIME", value_parser = span, default_value = "60s")]
    pub timeout: Duration,
    /// Wait for the end of a token that lives at most this long, and see it refused [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = span, requires = "target")]
    pub wait_expiry: Option<Duration>,
    /// Also ask for a token for this resource, and show that the MCP server refuses it; the MCP server sees that token
    #[arg(long, value_name = "URL", requires = "target")]
    pub other_resource: Option<String>,
    /// An expired token for this MCP server, which it must refuse
    #[arg(long, value_name = "FILE", requires = "target")]
    pub expired_token_file: Option<PathBuf>,
    /// A good token for another resource, which this MCP server must refuse; it sees that token
    #[arg(long, value_name = "FILE", requires = "target", conflicts_with = "other_resource")]
    pub wrong_audience_token_file: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct Status {
    /// Show it again every second
    #[arg(long, conflicts_with = "json")]
    pub watch: bool,
    /// For scripts
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Completions {
    /// For which shell
    #[arg(required_unless_present = "servers")]
    pub shell: Option<clap_complete::Shell>,
    /// Print the names that a completion offers for TARGET
    #[arg(long, hide = true)]
    pub servers: bool,
}

/// `30s`, `5m`, `1h` or a bare number of seconds.
fn span(text: &str) -> Result<Duration, String> {
    clock::span(text).ok_or_else(|| "a time is a number with s, m or h, for example 30s".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn times_are_read_with_their_unit() {
        assert_eq!(span("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(span("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(span("7"), Ok(Duration::from_secs(7)));
        for bad in ["", "s", "1d", "-1s", "99999999999s"] {
            assert!(span(bad).is_err(), "{bad}");
        }
    }
}
