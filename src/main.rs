//! The `safeconduct` binary: hands the command line to the library and returns its exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    match look_names_up_alone() {
        Ok(()) => safeconduct::command::main(),
        Err(failure) => failure,
    }
}

/// A static file must not load the name-service modules of the system it runs on: they bring another C library with them.
fn look_names_up_alone() -> Result<(), ExitCode> {
    if !cfg!(target_feature = "crt-static") {
        return Ok(());
    }
    safeconduct_static_names::keep_to_files_and_dns().map_err(|database| {
        #[expect(clippy::print_stderr, reason = "the command that would print it does not run")]
        {
            eprintln!("safeconduct: error: the C library has no database {database}");
        }
        ExitCode::from(70)
    })
}
