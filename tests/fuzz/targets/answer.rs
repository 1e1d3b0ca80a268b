//! An answer of an MCP server. The first byte says whether HEAD was asked (`H`).
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| safeconduct::fuzzed::answer(bytes));
