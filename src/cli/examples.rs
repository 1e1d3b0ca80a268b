//! An example below the help of each command. A test parses them.

pub(super) const STOP: &str = "Example:\n  safeconduct stop";
pub(super) const RELOAD: &str = "Example:\n  safeconduct reload";
pub(super) const READY: &str =
    "Example, as a gate in a job or as a startup probe:\n  safeconduct ready --wait 30s deploy";
pub(super) const TOKEN: &str = "Examples:\n  safeconduct token https://mcp.example.com/mcp\n  \
    safeconduct token deploy --scope deploy:read -o header";
pub(super) const HEADERS: &str = "Example, as `headersHelper` of Claude Code:\n  safeconduct headers deploy";
pub(super) const STDIO: &str = "Example, as the command of an MCP server in any client:\n  \
    safeconduct stdio https://mcp.example.com/mcp";
pub(super) const GET: &str = "Example, in .bazelrc:\n  --credential_helper=mcp.example.com=/usr/local/bin/safeconduct\n\n\
    Bazel starts it with `get`. By hand:\n  echo '{\"uri\":\"https://mcp.example.com/mcp\"}' | safeconduct get";
pub(super) const WHOAMI: &str =
    "Examples:\n  safeconduct whoami\n  safeconduct whoami --audience https://login.example.com";
pub(super) const TRUST_POLICY: &str = "Example:\n  safeconduct trust-policy deploy --for keycloak > policy.json";
pub(super) const SNIPPET: &str = "Example:\n  safeconduct snippet claude-code deploy";
pub(super) const STATUS: &str = "Examples:\n  safeconduct status\n  safeconduct status --watch";
pub(super) const REVOKE: &str = "Example:\n  safeconduct revoke deploy";
pub(super) const AUDIT_VERIFY: &str = "Example, with the rotated file first:\n  \
    safeconduct audit verify audit.jsonl.1 audit.jsonl\n\n\
    Exit codes besides the usual ones: 1 when the chain is broken or the head is not in it.";
pub(super) const AUDIT_TAIL: &str = "Example:\n  safeconduct audit tail --follow\n\n\
    Actions: token, headers and call hand out a token or use it; reject and\n\
    revoke end one; ready and status ask how things are; stop and reload are the\n\
    operator's; gate is a request that was refused before its route was known.";
pub(super) const CONFIG_CHECK: &str = "Example:\n  safeconduct config check safeconduct.toml";
pub(super) const CONFIG_INIT: &str = "Example:\n  safeconduct config init > safeconduct.toml";
pub(super) const CONFIG_SCHEMA: &str = "Example:\n  safeconduct config schema > safeconduct.schema.json";
pub(super) const COMPLETIONS: &str = "Example, for bash:\n  \
    safeconduct completions bash > ~/.local/share/bash-completion/completions/safeconduct";

#[cfg(test)]
mod tests {
    use clap::{Command, Parser};

    use crate::cli::Cli;
    use crate::command::command_line;

    fn of(command: &Command, path: &str, leaves: &mut Vec<(String, String)>) {
        for verb in command.get_subcommands().filter(|verb| verb.get_name() != "help") {
            let name = format!("{path} {}", verb.get_name());
            if verb.has_subcommands() {
                of(verb, &name, leaves);
            } else {
                leaves.push((name, verb.get_after_help().map(ToString::to_string).unwrap_or_default()));
            }
        }
    }

    #[test]
    fn the_help_of_each_command_has_an_example_that_is_right() {
        let mut leaves = Vec::new();
        of(&command_line(), "safeconduct", &mut leaves);
        assert!(leaves.len() > 20);
        for (name, help) in leaves {
            let calls: Vec<&str> = help.lines().filter_map(|line| line.strip_prefix("  ")).collect();
            let own: Vec<&&str> = calls.iter().filter(|call| call.contains(&name)).collect();
            assert!(help.contains("Example") && !own.is_empty(), "{name}: {help}");
            for call in own {
                let call = &call[call.find("safeconduct").expect("it is ours")..];
                let words = call.split(" > ").next().unwrap_or_default().trim_end_matches(" \\");
                // What the shell reads, and the command after `--`, is not ours.
                let words = words.split(" -- ").next().unwrap_or_default();
                let mut words: Vec<&str> = words.split_whitespace().collect();
                if name.ends_with(" exec") {
                    words.extend(["--", "true"]);
                }
                let words: Vec<&str> =
                    words.into_iter().filter(|word| *word != "--" || name.ends_with(" exec")).collect();
                Cli::try_parse_from(&words).unwrap_or_else(|error| panic!("{call}: {error}"));
            }
        }
    }
}
