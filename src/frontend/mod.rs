//! The listeners and the local API.
//!
//! A front-end turns a request into [`crate::broker::Request`] and an outcome into its own dialect. It never sees
//! identity, exchange or cache.

pub(crate) mod api;
mod body;
pub(crate) mod dialect;
pub(crate) mod gate;
pub(crate) mod health;
pub(crate) mod http;
mod secret;
pub(crate) mod serve;
pub(crate) mod socket;

pub use dialect::header_json;
