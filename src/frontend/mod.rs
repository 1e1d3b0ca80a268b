//! The listeners and the local API.
//!
//! A connection is accepted (`socket.rs`, `http.rs`, `health.rs`) and served by the package `safeconduct-listener`
//! (src/listener): within limits, and after a check of where its requests begin and end. A request passes the gate (`gate.rs`)
//! and is led by the table of routes (`route.rs`) to a handler (`api.rs`, `mcp.rs`), which asks the broker of its desk
//! (`desk.rs`). Its outcome (`answer.rs`) becomes a response in the funnel (`funnel.rs`), where a refusal is recorded.
//!
//! A handler turns a request into [`crate::broker::Request`] and the broker's outcome into an answer. It never sees identity,
//! exchange or cache.

mod answer;
mod api;
pub(crate) mod behind;
mod body;
pub(crate) mod course;
pub(crate) mod descriptors;
pub(crate) mod desk;
pub(crate) mod dialect;
mod funnel;
#[cfg(any(test, safeconduct_fuzz))]
pub(crate) mod fuzzed;
mod gate;
pub(crate) mod health;
pub(crate) mod http;
pub(crate) mod inside;
pub(crate) mod loads;
mod mcp;
pub(crate) mod oauth;
pub(crate) mod operator;
mod owner;
pub(crate) mod place;
mod query;
pub(crate) mod relay_threads;
mod route;
mod secret;
pub(crate) mod socket;

pub use dialect::header_json;
