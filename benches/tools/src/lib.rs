//! Shared by the bench tools: the protocols of the two daemons under test, and the arithmetic of samples.

pub mod stats;
pub mod wire;

/// Every tool fails with a sentence for the person who runs it.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;
