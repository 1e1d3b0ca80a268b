//! Masks by a program of the runner, which reads the text from its standard input.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::clock::Clock;
use crate::env::Env;
use crate::runner::spellings;

/// So long the program may take for one text.
const LIMIT: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(10);

/// Has the program hide every spelling of the token. Fails with the reason.
pub(super) fn by_program(env: &Env, words: &[&str], token: &str) -> Result<(), String> {
    let (name, arguments) = words.split_first().ok_or("has no name")?;
    let path = env.program(name).ok_or("is not in PATH")?;
    env.check_program(&path).map_err(|error| format!("cannot be looked at: {error}"))??;
    let clock = Clock::system();
    for spelling in spellings(token) {
        let mut child = Command::new(&path);
        // It gets no secret of the configuration.
        child.args(arguments).env_clear().envs(env.for_program(|_| false));
        child.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = child.spawn().map_err(|error| format!("cannot be started: {error}"))?;
        // It may end without reading, which its exit code tells; one that neither reads nor ends is killed, and the thread ends then.
        let stdin = child.stdin.take();
        let writes = std::thread::Builder::new().spawn(move || {
            drop(stdin.map(|mut stdin| stdin.write_all(spelling.as_bytes())));
        });
        if let Err(error) = writes {
            let _ = child.kill().and_then(|()| child.wait());
            return Err(format!("cannot be told: {error}"));
        }
        let begun = clock.boot();
        let status = loop {
            match child.try_wait().map_err(|error| format!("cannot be waited for: {error}"))? {
                Some(status) => break status,
                None if clock.boot().since(begun) < LIMIT => std::thread::sleep(LOOK),
                None => {
                    let _ = child.kill().and_then(|()| child.wait());
                    return Err(format!("did not end within {} s", LIMIT.as_secs()));
                }
            }
        };
        if !status.success() {
            return Err(format!("failed ({status})"));
        }
    }
    Ok(())
}
