//! The listeners and the local API.
//!
//! A connection is accepted (`socket.rs`, `http.rs`, `health.rs`) and served within limits (`serve.rs`). Where its requests
//! begin and end is checked (`framing.rs`) before the HTTP library reads them (`inbound.rs`). A request passes the gate
//! (`gate.rs`) and is led by the table of routes (`route.rs`) to a handler (`api.rs`), which asks the broker of its desk
//! (`desk.rs`). Its outcome (`answer.rs`) becomes a response in the funnel (`funnel.rs`), where a refusal is recorded.
//!
//! A handler turns a request into [`crate::broker::Request`] and the broker's outcome into an answer. It never sees identity,
//! exchange or cache.

mod activity;
mod answer;
mod api;
mod body;
pub(crate) mod descriptors;
pub(crate) mod desk;
pub(crate) mod dialect;
pub(crate) mod framing;
mod funnel;
#[cfg(any(test, safeconduct_fuzz))]
pub(crate) mod fuzzed;
mod gate;
pub(crate) mod health;
pub(crate) mod http;
mod inbound;
pub(crate) mod place;
mod query;
mod route;
mod seats;
mod secret;
pub(crate) mod serve;
pub(crate) mod socket;
mod watched;

pub use dialect::header_json;
