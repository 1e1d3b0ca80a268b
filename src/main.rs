//! The `wayleave` binary: the command line, handed to the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    wayleave::command::main()
}
