//! An event stream of an MCP server. The first byte is the size of its pieces.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| safeconduct::fuzzed::events(bytes));
