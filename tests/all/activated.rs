//! Starts the daemon as a service manager does (socket activation).

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use support::leak;
use support::safeconduct::Safeconduct;
use tokio::process::{Child, Command};

use crate::LIMIT;

/// Descriptor 3 is standard input of the shell, descriptor 4 its standard output. `LISTEN_PID` is the daemon's own process.
const ONE: &str = "exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$; export LISTEN_FDS LISTEN_PID; exec \"$@\"";
const TWO: &str =
    "exec 3<&0 4<&1 </dev/null >/dev/null; LISTEN_FDS=2 LISTEN_PID=$$; export LISTEN_FDS LISTEN_PID; exec \"$@\"";

/// Passes one or two listeners. Gives the daemon and its log file.
pub(crate) fn activated(world: &Safeconduct, first: OwnedFd, second: Option<OwnedFd>) -> (Child, PathBuf) {
    let (launch, second) = second.map_or_else(|| (ONE, Stdio::null()), |second| (TWO, Stdio::from(second)));
    let command = world.command(&["run"]);
    let given = command.as_std();
    let log = world.path().join("out/activated");
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", launch, "sh"]).arg(given.get_program()).args(given.get_args()).env_clear();
    shell.envs(given.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell.stdin(Stdio::from(first)).stdout(second).kill_on_drop(true);
    shell.stderr(fs::File::create(&log).expect("ours"));
    (shell.spawn().expect("there is a shell"), log)
}

/// Waits for the end of the daemon. Gives its exit code and its log.
pub(crate) async fn ends(mut child: Child, log: &Path) -> (Option<i32>, String) {
    let status = tokio::time::timeout(LIMIT, child.wait()).await.expect("in time").expect("waited for");
    let text = fs::read_to_string(log).expect("ours");
    leak::check("stderr of an activated daemon", &text);
    (status.code(), text)
}
