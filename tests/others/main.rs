//! Tests against software of other projects: the MCP conformance suite with the official TypeScript client, four authorization
//! servers, the official Python SDK, clients and servers before and behind the injecting proxy, the adapters of `examples/` in
//! the MCP SDKs, two emulators of AWS, GNOME Keyring, the Linux network stack, Keycloak and FastMCP, and the schemas of CI services and of
//! Kubernetes. Not part of plain `cargo test`: install with `tests/others/install`, `tests/others/install-packages` and
//! `tests/real/fetch`, run with `cargo test --test others`.
#![allow(clippy::disallowed_methods, reason = "the tests run against real processes, in real time")]

use support as fakes;

mod daemon;
mod documents;
mod keys;
mod parties;
mod peer;
mod process;
mod scene;
mod servers;
mod suite;

mod action;
mod adapters;
mod aws;
mod black_hole;
mod bound;
mod clouds;
mod conformance;
mod enterprise;
mod eras;
mod exchange;
mod gcp_auth;
mod keyring;
mod kubernetes;
mod long;
mod machines;
mod packages;
mod pipelines;
mod proxy;
mod real;
mod revocation;
mod workloads;
