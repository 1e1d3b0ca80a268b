//! `safeconduct completions`: prints the completions of a shell.

use clap::{Command, CommandFactory};

use super::{Failure, Printable, print};
use crate::cli::{Cli, Completions};

pub(super) fn run(verb: &Completions) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_complete::generate(verb.shell, &mut command_line(), "safeconduct", &mut text);
    print(&Printable::own(String::from_utf8_lossy(&text)))
}

/// The command line as people may see it: completions and manual pages are made from it.
pub fn command_line() -> Command {
    let hiding = ["run", "ci"];
    hiding
        .into_iter()
        .fold(Cli::command(), |command, name| command.mut_subcommand(name, |verb| without_hidden(name, &verb)))
}

/// Hidden flags are left out of the help, but not of the completions.
fn without_hidden(name: &'static str, command: &Command) -> Command {
    let about = command.get_about().cloned().unwrap_or_default();
    let shown: Vec<_> = command.get_arguments().filter(|argument| !argument.is_hide_set()).cloned().collect();
    Command::new(name).about(about).args(shown)
}
