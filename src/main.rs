//! The `safeconduct` binary: hands the command line to the library and returns its exit code.

use std::process::ExitCode;

use safeconduct::command::{self, Binary};

fn main() -> ExitCode {
    safeconduct_glibc::share_two_arenas();
    command::main(Binary { limit_name_lookup, unmap_code: safeconduct_glibc::unmap_code })
}

/// Limits name lookups to files and DNS in a static binary, which must not load the system's name-service modules: they would
/// bring in a second C library. Only this crate knows how it is linked. Fails if the C library lacks one of the databases.
fn limit_name_lookup() -> Result<(), &'static str> {
    if cfg!(target_feature = "crt-static") { safeconduct_glibc::keep_to_files_and_dns() } else { Ok(()) }
}
