//! **safeconduct**: workload identity in, MCP access tokens out. No secret stored, no human in the loop.
//!
//! The path of a request, which is the order to read the rooms in:
//!
//! 1. a front-end takes it and the gate says who asks;
//! 2. `broker`: `policy` decides, `cache` answers if it can;
//! 3. else one shared flight: `discovery` finds the authorization server, `identity` fetches a subject token
//!    made for it, `exchange` turns that into an access token;
//! 4. the front-end writes the token in its own dialect.
//!
//! For agents written in Rust that embed the broker: read a [`Config`], [`App::build`] it, [`App::run`] it.

#![forbid(unsafe_code)]

mod app;
mod audit;
mod aws;
mod bucket;
mod cache;
mod caller;
mod cli;
mod clock;
mod config;
mod digest;
mod discovery;
mod door;
mod dpop;
mod env;
mod exchange;
mod frontend;
mod google;
mod identity;
mod jitter;
mod metrics;
mod oauth;
mod outbound;
mod policy;
mod setting;
mod sigv4;
mod store;
mod token;
mod trust;

pub mod broker;

#[doc(hidden)]
pub mod command;

pub use app::App;
pub use broker::Broker;
pub use caller::Caller;
pub use clock::Clock;
pub use config::Config;
pub use env::Env;
pub use token::Token;

/// The inside, for benchmarks and fuzzing: no promise is made about it.
#[doc(hidden)]
pub mod inside {
    pub use crate::cache::{
        Cache, Failure, Least, Lost, Observer, Parts as CacheParts, Persistence, Recipe, Verdict, Wish,
    };
    pub use crate::clock::Boot;
    pub use crate::digest::Digest;
    pub use crate::frontend::framing::{Framing, Stop, Violation};
    pub use crate::frontend::header_json;
    pub use crate::jitter::Jitter;
    pub use crate::oauth::{Issuer, Resource, Scopes, ServerUrl};
    pub use crate::token::{AccessToken, Claims, Credential, Token};
}
