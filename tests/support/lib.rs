//! Fakes of the parties around safeconduct, in this process and on loopback: CI platforms, authorization servers, MCP servers.
//!
//! A fake does not accept everything. It verifies every signature, audience, expiry,
//! `jti` and resource, so that it refuses a mistake in safeconduct as a real server would.
//!
//! | file | content |
//! |---|---|
//! | `platform.rs` | the identity endpoint of a CI platform (GitHub's shape): `FakePlatform` |
//! | `authorization_server.rs` | metadata, token endpoint (RFC 7523), revocation (RFC 7009): `FakeAs` |
//! | `mcp_server.rs` | an rmcp server behind a bearer check, with RFC 9728 metadata: `FakeMcp` |
//! | `modern_server.rs` | a server that speaks 2026-07-28 alone, at the place of a daemon: `FakeModern` |
//! | `aws.rs` | an account of AWS: STS, metadata, a server behind IAM: `FakeAws`; `sigv4.rs` verifies its signatures |
//! | `workload_api.rs` | the SPIFFE Workload API of an agent: `FakeWorkloadApi` |
//! | `google.rs` | the metadata server, the Security Token Service and service accounts of Google: `FakeGoogle` |
//! | `entra.rs` | the token endpoint of a Microsoft Entra tenant: `FakeEntra` |
//! | `forward_proxy.rs` | the proxy of a company network (CONNECT): `FakeProxy` |
//! | `stand_in.rs` | puts a fake in place of hosts that are compiled into the product: `StandIn` |
//! | `bus.rs` | a session bus whose secret service is absent or silent: `FakeBus` |
//! | `safeconduct.rs` | runs the real binary in a clean environment: `Safeconduct`, `Daemon` |
//! | `raw_server.rs` | a server whose every byte the test writes: `RawServer` |
//! | `scripted.rs` | a server of fixed answers: `Scripted` |
//! | `scene.rs` | the usual parties together; `sluice.rs` makes one of them slow |
//! | `case.rs` `traffic.rs` | a platform as data: the cases of `tests/sources/` |
//! | `long_session.rs` | sessions that last while everything around them fails and comes back |
//! | `profiles.rs` | makes `FakeAs` behave like the servers of several vendors |
//! | `leak.rs` | knows every issued token and fails the test if one appears in an output |
//! | `keys.rs` `tls.rs` `listener.rs` `fault.rs` `unix_http.rs` `tcp_http.rs` `wait.rs` | shared parts of the fakes |
//!
//! Every fake has its own port and its own tasks, and stops when it is dropped.

#![allow(clippy::new_without_default, reason = "a fake is started; there is no default one")]
#![allow(clippy::disallowed_methods, reason = "the fakes are no part of safeconduct: real time, own tasks")]

pub mod authorization_server;
pub mod aws;
pub mod bus;
pub mod case;
pub mod dpop;
pub mod entra;
pub mod fault;
pub mod forward_proxy;
pub mod google;
pub mod keys;
pub mod leak;
pub mod listener;
pub mod long_session;
pub mod mcp_server;
pub mod memory;
pub mod modern_server;
pub mod platform;
pub mod profiles;
pub mod raw_server;
pub mod safeconduct;
pub mod scene;
pub mod scripted;
pub mod sigv4;
pub mod sluice;
pub mod stand_in;
pub mod tcp_http;
pub mod tls;
pub mod traffic;
pub mod unix_http;
pub mod wait;
pub mod workload_api;
