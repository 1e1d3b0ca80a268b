//! The `WWW-Authenticate` fields of an MCP server, one a line.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| safeconduct::fuzzed::challenge(bytes));
