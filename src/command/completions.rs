//! `safeconduct completions`: prints the completions of a shell, which know the names of servers.

use std::time::Duration;

use clap::{Command, CommandFactory};
use clap_complete::Shell;

use super::{Context, Failure, Printable, print};
use crate::cli::{Cli, Completions};
use crate::config::{Config, is_name};

/// Nobody waits longer for a completion.
const LIMIT: Duration = Duration::from_secs(1);

/// The commands that take the name of a server.
const WITH_TARGET: &str = "token|headers|stdio|exec|ready|doctor|trust-policy|snippet|revoke|ci";

pub(super) fn run(context: &Context<'_>, verb: &Completions) -> Result<(), Failure> {
    let Some(shell) = verb.shell.filter(|_| !verb.servers) else { return servers(context) };
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut command_line(), "safeconduct", &mut text);
    print(&Printable::own(with_servers(shell, &String::from_utf8_lossy(&text))))
}

/// Names for TARGET: of the daemon if one answers, else of the configuration. Without either there are none, and no message: it
/// would stand in the middle of somebody's command line.
fn servers(context: &Context<'_>) -> Result<(), Failure> {
    let of_daemon = context.ask_daemon("GET /v1/status", None, LIMIT).ok().filter(|reply| reply.status == 200);
    let of_daemon = of_daemon.and_then(|reply| serde_json::from_slice::<serde_json::Value>(&reply.body).ok());
    let names: Vec<String> = match of_daemon {
        Some(status) => {
            let all = status["servers"].as_array().into_iter().flatten();
            all.filter(|one| one["front_door_of"].is_null())
                .filter_map(|one| Some(one["name"].as_str()?.to_owned()))
                .collect()
        }
        None => {
            let config = Config::load(context.global.config.as_deref(), context.env);
            config.map(|config| config.servers.iter().map(|one| one.name.to_string()).collect()).unwrap_or_default()
        }
    };
    // The shell expands what it is given: only what can be a name reaches it, whoever answered.
    let lines: String = names.iter().filter(|name| is_name(name)).map(|name| format!("{name}\n")).collect();
    print(&Printable::text(&lines, context.env))
}

/// The script of clap, in which TARGET is completed by the names of servers.
fn with_servers(shell: Shell, script: &str) -> String {
    let more = match shell {
        Shell::Bash => {
            "\n_safeconduct_servers() {\n    \
            _safeconduct \"$@\"\n    \
            local word current=\"${COMP_WORDS[COMP_CWORD]}\"\n    \
            [[ $current == -* ]] && return\n    \
            for word in \"${COMP_WORDS[@]:1:COMP_CWORD-1}\"; do\n        \
            case $word in\n            \
            @VERBS@) COMPREPLY+=($(compgen -W \"$(safeconduct completions --servers 2>/dev/null)\" -- \"$current\")); return ;;\n        \
            esac\n    \
            done\n}\n\
            complete -F _safeconduct_servers -o bashdefault -o default safeconduct\n"
        }
        Shell::Fish => {
            "\ncomplete -c safeconduct -n \"__fish_seen_subcommand_from @SPACED@\" -f -a \"(safeconduct completions --servers 2>/dev/null)\"\n"
        }
        Shell::Zsh => {
            let names = "\n_safeconduct_servers() {\n    \
                compadd -- ${(f)\"$(safeconduct completions --servers 2>/dev/null)\"}\n}\n";
            // The script ends by calling itself, so the function comes first.
            let (head, rest) = script.split_once('\n').unwrap_or((script, ""));
            let rest: String = rest.split_inclusive('\n').map(in_zsh).collect();
            return format!("{head}\n{names}{rest}");
        }
        _ => "",
    };
    let more = more.replace("@VERBS@", WITH_TARGET).replace("@SPACED@", &WITH_TARGET.replace('|', " "));
    format!("{script}{more}")
}

/// A line that completes TARGET by file names completes it by servers.
fn in_zsh(line: &str) -> String {
    let is_target =
        ["'::target ", "':target ", "'*::targets ", "'*:targets "].iter().any(|start| line.starts_with(start));
    if is_target { line.replacen(":_default'", ":_safeconduct_servers'", 1) } else { line.to_owned() }
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
    let more = command.get_after_help().cloned().unwrap_or_default();
    let shown: Vec<_> = command.get_arguments().filter(|argument| !argument.is_hide_set()).cloned().collect();
    Command::new(name).about(about).after_help(more).args(shown)
}
