//! The `wayleave` binary: the command line, handed to the library.
//!
//! A helper call lives for a millisecond, of which half is spent before `main`. So on Linux with glibc this file leaves
//! out two parts of a usual start, measured at 0.05 ms of CPU time each (`benches/README.md`):
//!
//! - Rust's runtime asks for the bounds of the main thread's stack, for which glibc reads `/proc/self/maps`, to word the
//!   message of a stack overflow. An overflow ends the process all the same.
//! - The maths library is loaded for one function: AWS's SDK raises a number to a power when it waits before a retry.
//!
//! Both need a name that C knows; hence the one exception to "no unsafe code" there is. No unsafe block is in it.

#![cfg_attr(all(target_os = "linux", target_env = "gnu"), no_main)]
#![cfg_attr(
    all(target_os = "linux", target_env = "gnu"),
    expect(unsafe_code, reason = "a symbol with a name of C's counts as unsafe: it could replace another's")
)]

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod start {
    use std::ffi::{c_char, c_int};

    /// Where libc's start arrives. The standard library has the arguments from libc by itself.
    #[unsafe(no_mangle)]
    extern "C" fn main(_count: c_int, _arguments: *const *const c_char) -> c_int {
        wayleave::command::main().into()
    }

    /// `pow` of C, as in the maths library.
    #[unsafe(no_mangle)]
    extern "C" fn pow(base: f64, exponent: f64) -> f64 {
        libm::pow(base, exponent)
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn main() -> std::process::ExitCode {
    wayleave::command::main().into()
}
