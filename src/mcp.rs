//! What MCP puts on the wire, as pure functions: JSON-RPC messages ([`rpc`]), event streams ([`sse`]), and the translation between
//! the two wires ([`era`]). No I/O.
//!
//! Everything here reads what a stranger sent. It never panics, takes linear time, and keeps no more than its caps.

pub(crate) mod era;
pub(crate) mod fields;
#[cfg(any(test, safeconduct_fuzz))]
pub(crate) mod fuzzed;
pub(crate) mod object;
pub(crate) mod rpc;
pub(crate) mod sse;
