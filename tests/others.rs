//! Proofs against what others wrote: the MCP conformance suite with the official TypeScript client, authorization servers by
//! four different hands, the official Python SDK, two emulators of AWS, GNOME Keyring, and the Linux network stack. Not part
//! of plain `cargo test`: install with `tests/others/install` and `tests/others/install-packages`, run with
//! `cargo test --test others`.
#![allow(clippy::disallowed_methods, reason = "the proofs run against real processes, in real time")]

#[path = "others/daemon.rs"]
mod daemon;
#[path = "support/mod.rs"]
mod fakes;
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

#[path = "others/aws.rs"]
mod aws;
#[path = "others/black_hole.rs"]
mod black_hole;
#[path = "others/bound.rs"]
mod bound;
#[path = "others/clouds.rs"]
mod clouds;
#[path = "others/conformance.rs"]
mod conformance;
#[path = "others/enterprise.rs"]
mod enterprise;
#[path = "others/exchange.rs"]
mod exchange;
#[path = "others/keyring.rs"]
mod keyring;
#[path = "others/machines.rs"]
mod machines;
#[path = "others/revocation.rs"]
mod revocation;
#[path = "others/workloads.rs"]
mod workloads;
