//! The integration tests of safeconduct, linked once: the real program against the servers of `tests/support`.
//!
//! | tests of | in |
//! |---|---|
//! | the program as people and clients call it | `cli` `ci` `helpers` `snippet` `daemon` `life` `reload` `listeners` `owners` `oauth_token` `refusals` `callers` `keyring` |
//! | the data path | `proxy` `bridge` |
//! | a command beside an endpoint of its own | `exec` |
//! | identities, exchanges, client proofs | `sources` `spiffe` `aws` `exchanges` `clients` `mutual_tls` `profiles` `front_door` `narrow` `presented` |
//! | failures and attacks | `attacks` `stalled` `bad_input` `framing` `tls` `forward_proxy` `far_side` `servers` `environment` |
//! | reports, records, pages and manual pages for people | `doctor` `trust_policy` `audit` `api_page` `troubleshooting` `manual` |
//! | the fakes and the source tree | `support_selftest` `tidy` |
//! | nothing: shared by the others | `activated` `asking` `example` `exit` `tables` |

#![allow(clippy::disallowed_methods, reason = "the tests run in real time and spawn their own tasks")]

use std::time::Duration;

mod activated;
mod api_page;
mod asking;
mod attacks;
mod audit;
mod aws;
mod bad_input;
mod bridge;
mod callers;
mod ci;
mod cli;
mod clients;
mod daemon;
mod doctor;
mod embed;
mod environment;
mod example;
mod exchanges;
mod exec;
mod exit;
mod far_side;
mod forward_proxy;
mod framing;
mod front_door;
mod helpers;
#[cfg(target_os = "linux")]
mod keyring;
mod life;
mod listeners;
mod manual;
mod mutual_tls;
mod narrow;
mod newcomer;
mod oauth_token;
mod owners;
mod presented;
mod profiles;
mod proxy;
mod refusals;
mod reload;
mod servers;
mod snippet;
mod sources;
mod spiffe;
mod stalled;
mod support_selftest;
mod tables;
mod tidy;
mod tls;
mod troubleshooting;
mod trust_policy;

/// The time limit of every wait: longer than any step takes, also on a slow machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// The program under test: `SAFECONDUCT_BIN`, else the one that cargo built for the tests.
pub(crate) fn binary() -> &'static str {
    static BINARY: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| {
        std::env::var("SAFECONDUCT_BIN").unwrap_or_else(|_| env!("CARGO_BIN_EXE_safeconduct").to_owned())
    });
    &BINARY
}
