//! The bytes of a connection.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| safeconduct::fuzzed::framing(bytes));
