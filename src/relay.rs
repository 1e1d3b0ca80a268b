//! The data path: what happens between a local MCP client and an MCP server.
//!
//! [`verdict`] decides what an answer or a failure leads to. [`session`] keeps what is needed to replace a session that the
//! server has lost. Both are pure.

#[cfg_attr(not(test), expect(dead_code, unused_imports, reason = "the streaming half that asks it is not joined yet"))]
pub(crate) mod session;
#[cfg_attr(not(test), expect(dead_code, unused_imports, reason = "the streaming half that asks it is not joined yet"))]
pub(crate) mod verdict;
