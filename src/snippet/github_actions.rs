//! GitHub Actions: a step that starts the daemon while the job's OIDC request variables are there, and one that writes the
//! configuration of an agent. A daemon of the machine on which the snippet is made does not count, for it is not that of the job.

use super::form::word;
use super::{Facts, Page, list, shell_word, table, text};

pub(super) fn page(facts: &Facts) -> Page {
    let permissions = table([("contents".into(), word("read")), ("id-token".into(), word("write"))]);
    let [start, configure] = commands(facts, "\"$RUNNER_TEMP/mcp.json\"");
    let step = |name, run: &str| table([("name".into(), word(name)), ("run".into(), text(run))]);
    let steps = list([step("Start safeconduct", &start), step("Configure the agent", &configure)]);
    let job = table([("permissions".into(), permissions), ("steps".into(), steps)]);
    Page::new(job.yaml(), note(facts, "\"$RUNNER_TEMP/mcp.json\""))
}

/// What to do in the job besides.
pub(super) fn note(facts: &Facts, file: &str) -> String {
    let needs = match &facts.url {
        Some(_) => String::new(),
        None => format!("the job needs the configuration file that has `{}` (SAFECONDUCT_CONFIG); ", facts.name),
    };
    format!("{needs}start Claude Code with `--mcp-config {file}`, or put another client for claude-code")
}

/// The commands of a job: the daemon, and the configuration of an agent, written to `file`.
pub(super) fn commands(facts: &Facts, file: &str) -> [String; 2] {
    let (server, name) = match &facts.url {
        // The configuration of the job has it.
        None => (String::new(), &facts.target),
        Some(url) => (format!(" {}", shell_word(&format!("{}={url}", facts.name))), &facts.name),
    };
    let name = shell_word(name);
    [format!("safeconduct run --detach{server}"), format!("safeconduct snippet claude-code {name} > {file}")]
}
