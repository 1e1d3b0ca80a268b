//! The flags of `safeconduct snippet`.

use clap::Args;

use crate::snippet::Client;

#[derive(Args, Debug)]
pub(crate) struct Snippet {
    /// The MCP client, the SDK of a program, or the CI system of a job
    #[arg(value_name = "CLIENT", value_enum)]
    pub client: Client,
    /// As for `token`
    #[arg(value_name = "TARGET")]
    pub target: String,
    /// The stdio bridge, also where the client has another way: for its older versions, and for tokens bound to a key
    #[arg(long)]
    pub bridge: bool,
    /// For use without a daemon, whether or not one runs here
    #[arg(long)]
    pub no_daemon: bool,
}
