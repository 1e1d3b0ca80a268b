//! The integration tests of safeconduct, linked once: the real program against the servers of `tests/support`.
//!
//! | tests of | in |
//! |---|---|
//! | the program as people and clients call it | `cli` `helpers` `daemon` `life` `reload` `listeners` `refusals` `callers` `keyring` |
//! | identities, exchanges, client proofs | `sources` `spiffe` `aws` `exchanges` `clients` `mutual_tls` `profiles` `front_door` `narrow` |
//! | what goes wrong, and who attacks | `attacks` `bad_input` `tls` `forward_proxy` `far_side` |
//! | what people read | `doctor` `trust_policy` `audit` |
//! | the tests and the tree themselves | `support_selftest` `tidy` |

#![allow(clippy::disallowed_methods, reason = "the tests run in real time and have tasks of their own")]

mod attacks;
mod audit;
mod aws;
mod bad_input;
mod callers;
mod cli;
mod clients;
mod daemon;
mod doctor;
mod exchanges;
mod far_side;
mod forward_proxy;
mod front_door;
mod helpers;
#[cfg(target_os = "linux")]
mod keyring;
mod life;
mod listeners;
mod mutual_tls;
mod narrow;
mod profiles;
mod refusals;
mod reload;
mod sources;
mod spiffe;
mod support_selftest;
mod tidy;
mod tls;
mod trust_policy;

/// The program under test: the one that cargo built beside the tests, or the one that `SAFECONDUCT_BIN` names.
pub(crate) fn binary() -> &'static str {
    static BINARY: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| {
        std::env::var("SAFECONDUCT_BIN").unwrap_or_else(|_| env!("CARGO_BIN_EXE_safeconduct").to_owned())
    });
    &BINARY
}
