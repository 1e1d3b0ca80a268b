//! **safeconduct**: workload identity in, MCP access tokens out. No secret stored, no human in the loop.
//!
//! How a request is served. Read the modules in this order:
//!
//! 1. a front-end reads the request, and its gate identifies the caller;
//! 2. `broker`: `policy` decides whether the caller may have a token; `cache` answers if it holds one;
//! 3. else one shared flight: `discovery` finds the authorization server, `identity` fetches a subject token for it,
//!    and `exchange` turns that into an access token;
//! 4. the front-end writes the token in its own format.
//!
//! To embed the broker in an agent written in Rust: [`Broker::open`] a [`Config`], [`Broker::lease`] a token, [`Lease::authorize`] each
//! request. `examples/embed.rs` is such an agent. With `default-features = false` it compiles the broker alone: the feature `daemon` is the
//! rest, from the front-ends to the command line.

#![forbid(unsafe_code)]
#![cfg_attr(
    not(feature = "daemon"),
    allow(dead_code, unreachable_pub, unused_imports, reason = "the rooms below also serve those of the daemon")
)]

#[macro_use]
mod debug;

mod address;
mod assembly;
mod audit;
mod aws;
mod blocking;
mod bucket;
mod cache;
mod caller;
mod child;
mod clock;
mod config;
mod digest;
mod discovery;
mod dpop;
mod embed;
mod env;
mod exchange;
mod google;
mod identity;
mod jitter;
mod metrics;
mod oauth;
mod outbound;
mod platform;
mod policy;
mod setting;
mod sigv4;
mod store;
mod token;
mod urgency;

#[doc(hidden)]
pub mod broker;

// The daemon and its commands. No room above uses one of these (tests/all/tidy/gated.rs).
#[cfg(feature = "daemon")]
mod app;
#[cfg(feature = "daemon")]
mod bridge;
#[cfg(feature = "daemon")]
mod cli;
#[cfg(feature = "daemon")]
mod descriptors;
#[cfg(feature = "daemon")]
mod door;
#[cfg(feature = "daemon")]
mod frontend;
#[cfg(feature = "daemon")]
mod log;
#[cfg(feature = "daemon")]
#[cfg_attr(not(test), allow(dead_code, reason = "rules about tools will use the rest of it"))]
mod mcp;
#[cfg(feature = "daemon")]
mod process;
#[cfg(feature = "daemon")]
mod relay;
#[cfg(feature = "daemon")]
mod runner;
#[cfg(feature = "daemon")]
mod snippet;
#[cfg(feature = "daemon")]
mod sockets;
#[cfg(feature = "daemon")]
mod supervisor;
#[cfg(feature = "daemon")]
mod trust;

#[cfg(feature = "daemon")]
#[doc(hidden)]
pub mod command;

#[cfg(feature = "daemon")]
#[doc(hidden)]
pub use app::App;
pub use broker::Class;
pub use clock::Clock;
pub use config::{Config, Error as ConfigError};
pub use embed::{Broker, Error, Head, Lease};
pub use env::Env;

/// Internals for benchmarks and fuzzing. Not part of the stable API.
#[doc(hidden)]
pub mod inside {
    pub use crate::cache::{
        Cache, Failure, Least, Lost, Observer, Parts as CacheParts, Persistence, Recipe, Verdict, Wish,
    };
    pub use crate::clock::Boot;
    pub use crate::digest::Digest;
    #[cfg(feature = "daemon")]
    pub use crate::frontend::header_json;
    pub use crate::jitter::Jitter;
    pub use crate::oauth::{Issuer, Resource, Scopes, ServerUrl};
    pub use crate::token::{AccessToken, Claims, Credential, Token};
}

/// What the fuzz targets call (tests/fuzz). Each function panics if what it reads is taken for something that it is not.
#[cfg(all(feature = "daemon", any(test, safeconduct_fuzz)))]
#[doc(hidden)]
pub mod fuzzed {
    pub use crate::discovery::fuzzed::read_challenge as challenge;
    pub use crate::frontend::fuzzed::read_query as query;
    pub use crate::mcp::fuzzed::{read_events as events, read_message as message};
    #[cfg(safeconduct_fuzz)]
    pub use safeconduct_listener::fuzzed::read_framing as framing;

    /// Answers on the data path.
    pub fn answer(bytes: &[u8]) {
        crate::outbound::read_answer(bytes);
    }

    /// Metadata documents and answers of token endpoints.
    pub fn documents(bytes: &[u8]) {
        crate::discovery::fuzzed::read_documents(bytes);
        crate::exchange::fuzzed::read_token_answer(bytes);
    }

    #[cfg(test)]
    mod tests {
        use std::path::Path;

        /// The kept corpus holds every kind of input that fuzzing found, so each change is tried on it. That of `framing` is tried in the
        /// package of the listener.
        #[test]
        fn every_kept_input_is_read_as_what_it_is() {
            type Target = (&'static str, fn(&[u8]));
            let targets: [Target; 6] = [
                ("answer", super::answer),
                ("challenge", super::challenge),
                ("documents", super::documents),
                ("events", super::events),
                ("message", super::message),
                ("query", super::query),
            ];
            let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
            for (name, target) in targets {
                let inputs: Vec<_> = std::fs::read_dir(corpus.join(name)).expect("a folder for each target").collect();
                assert!(!inputs.is_empty(), "{name} has inputs");
                for input in inputs {
                    target(&std::fs::read(input.expect("a file").path()).expect("readable"));
                }
            }
        }
    }
}
