//! What takes too long, or needs too large a program, for every change: only `.ci/long` runs it, after `install-long`.
//!
//! | file | what |
//! |---|---|
//! | `browser.rs` | a hostile page in Chromium reads nothing from the loopback listener and causes nothing |
//! | `inspector.rs` | the MCP Inspector's command line before the proxy |
//! | `job.rs` | a CI job of ten minutes: two targets, an outage, a step that fails and one that is cancelled |
//! | `packages.rs` | a whole release, installed, upgraded and removed in fresh Debian systems |
//! | `session.rs` | ten thousand calls while everything fails and comes back |

mod browser;
mod inspector;
mod job;
mod packages;
mod session;
