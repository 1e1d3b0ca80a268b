//! GitLab CI: an ID token for the authorization server, the daemon, and the configuration of an agent, in one job.

use super::form::word;
use super::{Facts, Page, entry, github_actions, list, shell_word, table, text};

pub(super) fn page(facts: &Facts) -> Page {
    let (audience, first) = match &facts.issuer {
        Some(issuer) => (text(issuer), String::new()),
        None => {
            let finds = format!("safeconduct doctor {}", shell_word(&facts.target));
            (word("https://AUTHORIZATION-SERVER"), format!("`aud` is the issuer that `{finds}` finds; "))
        }
    };
    let token = entry("SAFECONDUCT_ID_TOKEN", entry("aud", audience));
    let script = github_actions::commands(facts, "mcp.json").map(|line| text(&line));
    let job = table([("id_tokens".into(), token), ("script".into(), list(script))]);
    Page::new(entry("agent", job).yaml(), format!("{first}{}", github_actions::note(facts, "mcp.json")))
}
