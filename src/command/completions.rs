//! `wayleave completions`: prints the completions of a shell.

use clap::CommandFactory;

use super::{Failure, print};
use crate::cli::{Cli, Completions};

pub(super) fn run(verb: &Completions) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_complete::generate(verb.shell, &mut Cli::command(), "wayleave", &mut text);
    print(&String::from_utf8_lossy(&text))
}
