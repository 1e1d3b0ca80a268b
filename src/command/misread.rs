//! A command line that clap cannot read: what was probably meant, and the exit code.

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::{Printable, command_line, print, tell};
use crate::broker::Class;
use crate::env::Env;
use crate::oauth::{nearest, quoted_words};

/// The same error with what was probably meant, and a hint where another command has that flag.
fn with_suggestion(mut error: clap::Error) -> (clap::Error, String) {
    let text = |error: &clap::Error, kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        _ => String::new(),
    };
    let mut hint = String::new();
    match error.kind() {
        ErrorKind::InvalidValue if error.get(ContextKind::SuggestedValue).is_none() => {
            let value = text(&error, ContextKind::InvalidValue);
            let near = match error.get(ContextKind::ValidValue) {
                Some(ContextValue::Strings(known)) => {
                    nearest(&value, known.iter().map(String::as_str)).map(str::to_owned)
                }
                _ => None,
            };
            if let Some(near) = near {
                error.insert(ContextKind::SuggestedValue, ContextValue::String(near));
            }
        }
        ErrorKind::UnknownArgument => {
            // That a flag is given as a value is never what was meant.
            error.remove(ContextKind::Suggested);
            let flag = text(&error, ContextKind::InvalidArg);
            let verbs = verbs_with(flag.trim_start_matches('-'));
            if !verbs.is_empty() {
                hint = format!("safeconduct: hint: {} is a flag of {}\n", quoted_words(&flag), verbs.join(", "));
            }
        }
        _ => {}
    }
    (error, hint)
}

/// The commands that have this long flag.
fn verbs_with(flag: &str) -> Vec<String> {
    let has =
        |verb: &&clap::Command| verb.get_arguments().any(|one| one.get_long() == Some(flag) && !one.is_hide_set());
    command_line().get_subcommands().filter(has).map(|verb| format!("`{}`", verb.get_name())).collect()
}

/// Tells what is wrong with the command line, or shows the help. Returns the exit code.
pub(super) fn told(error: clap::Error, env: &Env) -> u8 {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            match print(&Printable::own(error.render().to_string())) {
                Ok(()) => 0,
                Err(failure) => failure.exit,
            }
        }
        kind => {
            let (error, hint) = with_suggestion(error);
            // Without a command clap shows only the help; its other messages begin with `error: `.
            let helps = kind == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
            let start = if helps { "error: no command is given\n\n" } else { "" };
            // A line that begins like ours comes from an argument.
            let said = error.render().to_string().replace("\nsafeconduct:", "\n  safeconduct:");
            tell(&Printable::text(&format!("safeconduct: {start}{said}{hint}"), env));
            Class::BadRequest.exit_code()
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn a_flag_of_another_command_and_the_beginning_of_a_value_are_recognised() {
        let said = |words: &[&str]| {
            let error = Cli::try_parse_from(["safeconduct"].iter().chain(words)).expect_err("it is wrong");
            let (error, hint) = with_suggestion(error);
            format!("{}{hint}", error.render())
        };
        let text = said(&["token", "a", "--audience", "x"]);
        assert!(text.contains("hint: --audience is a flag of `whoami`") && !text.contains("-- --audience"), "{text}");
        assert!(said(&["token", "a", "--scop", "x"]).contains("'--scope'"));
        assert!(said(&["snippet", "claude", "x"]).contains("'claude-code'"), "{}", said(&["snippet", "claude", "x"]));
    }
}
