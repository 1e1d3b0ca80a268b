//! The `safeconduct` binary: hands the command line to the library and returns its exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    safeconduct_glibc::share_two_arenas();
    safeconduct::command::main()
}
