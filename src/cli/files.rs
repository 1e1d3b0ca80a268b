//! The flags of `safeconduct audit` and `safeconduct config`: what looks at files.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::examples;

#[derive(Debug, Subcommand)]
pub(crate) enum AuditVerb {
    /// Check the hash chain and print its head
    ///
    /// A chain shows that no line was changed, inserted, deleted or reordered since its head was taken. Whoever may write the
    /// file can write it all anew, or cut off its end: keep heads elsewhere (`safeconduct status` shows the head) and look for
    /// them with --head.
    #[command(after_help = examples::AUDIT_VERIFY)]
    Verify(AuditVerify),
    /// Show the last lines, one for each decision
    #[command(after_help = examples::AUDIT_TAIL)]
    Tail(AuditTail),
}

#[derive(Args, Debug)]
pub(crate) struct AuditVerify {
    /// The audit file; several, oldest first, are checked as one chain [default: that of the daemon, else the configured one]
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// A head that was noted before: 64 hexadecimal digits
    #[arg(long, value_name = "H")]
    pub head: Option<String>,
    /// For scripts
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct AuditTail {
    /// The audit file [default: that of the daemon, else the configured one]
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// How many lines
    #[arg(short = 'n', long, value_name = "N", default_value = "10")]
    pub lines: usize,
    /// Go on with each new line, also after a rotation
    #[arg(short, long)]
    pub follow: bool,
    /// The lines as they are
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigVerb {
    /// Check the file and show every problem at once
    #[command(after_help = examples::CONFIG_CHECK)]
    Check {
        /// The file [default: the one in use]
        #[arg(value_name = "FILE", conflicts_with = "config")]
        file: Option<PathBuf>,
        /// For scripts
        #[arg(long)]
        json: bool,
    },
    /// Print a commented starter file
    #[command(after_help = examples::CONFIG_INIT)]
    Init,
    /// Print the JSON Schema of the file
    #[command(after_help = examples::CONFIG_SCHEMA)]
    Schema,
}
