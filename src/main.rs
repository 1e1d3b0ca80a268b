//! The `safeconduct` binary: hands the command line to the library and returns its exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    safeconduct_glibc::share_two_arenas();
    match use_builtin_name_lookup() {
        Ok(()) => safeconduct::command::main(),
        Err(failure) => failure,
    }
}

/// Limits name lookups to files and DNS in a static binary, which must not load the system's name-service modules: they
/// would bring in a second C library. Fails if the C library lacks one of the databases.
fn use_builtin_name_lookup() -> Result<(), ExitCode> {
    if !cfg!(target_feature = "crt-static") {
        return Ok(());
    }
    safeconduct_glibc::keep_to_files_and_dns().map_err(|database| {
        #[expect(clippy::print_stderr, reason = "the command that would print it does not run")]
        {
            eprintln!("safeconduct: error: the C library has no database {database}");
        }
        ExitCode::from(70)
    })
}
