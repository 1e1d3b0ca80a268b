//! Proofs against what others wrote: the MCP conformance suite with the official TypeScript client, authorization servers by
//! four different hands, and the official Python SDK. Not part of plain `cargo test`: install with `tests/others/install`,
//! run with `cargo test --test others`.
#![allow(clippy::disallowed_methods, reason = "the proofs run against real processes, in real time")]

#[path = "others/keys.rs"]
mod keys;
#[path = "others/parties.rs"]
mod parties;
#[path = "others/scene.rs"]
mod scene;
#[path = "others/servers.rs"]
mod servers;
#[path = "others/suite.rs"]
mod suite;
#[path = "others/support.rs"]
mod support;

#[path = "others/conformance.rs"]
mod conformance;
#[path = "others/exchange.rs"]
mod exchange;
#[path = "others/workloads.rs"]
mod workloads;
