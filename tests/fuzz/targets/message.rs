//! A JSON-RPC message of a client or an MCP server.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| safeconduct::fuzzed::message(bytes));
