//! Metadata documents and the answer of a token endpoint.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| safeconduct::fuzzed::documents(bytes));
