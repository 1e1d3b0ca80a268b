//! Runs our own binary as MCP clients run helpers: with almost no environment.
//!
//! It gives a flag that a command with a daemon refuses, after it has asked whether the daemon lives. So no token is issued, and
//! the daemon has nothing to record. Codex passes six variables. Claude Code removes variables that look like credentials, and
//! `XDG_RUNTIME_DIR`, and adds its own.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::broker::Class;
use crate::env::Env;
use crate::oauth::quoted_words;
use crate::sockets;

/// Both clients give up after this time.
const LIMIT: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// What Claude Code would call the server. No configuration has one of this name.
const NO_SERVER: &str = "safeconduct-doctor";
/// The limit of the helper's stderr, which is a line or two.
const WORDS_CAP: u64 = 16 * 1024;

/// The helper's result.
pub(super) enum Heard {
    /// The daemon answered.
    Daemon,
    /// No daemon was found.
    Nobody,
    /// Another failure, with the helper's message.
    Trouble(String),
}

/// The six variables that Codex passes.
pub(super) fn under_codex(env: &Env) -> Vec<(String, String)> {
    kept(env, &["HOME", "LANG", "PATH", "PWD", "TERM", "TMPDIR"])
}

/// The variables that Claude Code passes and we read, and its own.
pub(super) fn under_claude_code(env: &Env) -> Vec<(String, String)> {
    let passed = ["HOME", "PATH", "TMPDIR", "SAFECONDUCT_SOCKET"].into_iter().chain(sockets::job_variables());
    let mut vars = kept(env, &passed.collect::<Vec<_>>());
    let own = [("CLAUDE_CODE_MCP_SERVER_NAME", NO_SERVER), ("CLAUDE_CODE_MCP_SERVER_URL", "https://mcp.invalid/mcp")];
    vars.extend(own.map(|(name, value)| (name.to_owned(), value.to_owned())));
    vars
}

fn kept(env: &Env, names: &[&str]) -> Vec<(String, String)> {
    names.iter().filter_map(|name| Some(((*name).to_owned(), env.get(name)?.to_owned()))).collect()
}

/// Runs `safeconduct headers` in that environment. Fails with a message if it cannot be run.
pub(super) fn ask(environment: &[(String, String)], socket: Option<&Path>) -> Result<Heard, String> {
    let binary = std::env::current_exe().map_err(|error| format!("our own binary is not found: {error}"))?;
    let mut command = Command::new(binary);
    if let Some(socket) = socket {
        command.arg("--socket").arg(socket);
    }
    let child = command
        .args(["headers", NO_SERVER, "--daemon-only", "--issuer", "https://doctor.invalid"])
        .env_clear()
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.map_err(|error| format!("our own binary does not start: {error}"))?;
    let Some(code) = end_of(&mut child)? else {
        return Ok(Heard::Trouble(format!("no answer within {} s", LIMIT.as_secs())));
    };
    let mut words = String::new();
    if let Some(stderr) = child.stderr.take() {
        stderr.take(WORDS_CAP).read_to_string(&mut words).map_err(|error| error.to_string())?;
    }
    Ok(heard(code, &words))
}

fn heard(code: i32, words: &str) -> Heard {
    if code == i32::from(Class::BadRequest.exit_code()) {
        return Heard::Daemon;
    }
    let is_nobody = ["no daemon is running", "nobody listens at"].iter().any(|start| words.contains(start));
    if code == i32::from(Class::Temporary.exit_code()) && is_nobody {
        return Heard::Nobody;
    }
    let first = words.lines().next().unwrap_or_default();
    Heard::Trouble(quoted_words(first.strip_prefix("safeconduct: error: ").unwrap_or(first)))
}

/// Its exit code; `None` if it had to be killed.
fn end_of(child: &mut Child) -> Result<Option<i32>, String> {
    let mut waited = Duration::ZERO;
    loop {
        match child.try_wait().map_err(|error| error.to_string())? {
            Some(status) => return Ok(status.code()),
            None if waited < LIMIT => {
                std::thread::sleep(LOOK_AGAIN);
                waited += LOOK_AGAIN;
            }
            None => {
                drop(child.kill());
                drop(child.wait());
                return Ok(None);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_helper_says_is_understood() {
        assert!(matches!(
            heard(64, "safeconduct: error: --issuer has no effect while a daemon answers"),
            Heard::Daemon
        ));
        assert!(matches!(heard(75, "safeconduct: error: no daemon is running; looked at /x"), Heard::Nobody));
        assert!(matches!(heard(75, "safeconduct: error: nobody listens at /x, which …"), Heard::Nobody));
        match heard(77, "safeconduct: error: /x: Permission denied\nsafeconduct: hint: y") {
            Heard::Trouble(words) => assert_eq!(words, "/x: Permission denied"),
            _ => panic!("that is trouble"),
        }
    }
}
