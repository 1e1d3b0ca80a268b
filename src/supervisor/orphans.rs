//! Children that we have not started: as PID 1 of a container every orphan becomes ours, and so do the children of a shell that has
//! replaced itself by us. Without a wait for them they stay zombies.

use std::io;
use std::time::Duration;

use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};

use crate::child;

/// How soon to look again while a child that the runtime waits for hides the others.
const AGAIN: Duration = Duration::from_millis(100);

/// What the kernel has for us to wait for.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    Nobody,
    /// The runtime waits for it.
    Ours,
    Orphan(Pid),
}

/// Waits for orphans as long as the process lives. Fails if there can be no signal handler.
pub(crate) fn reap() -> io::Result<impl Future<Output = ()>> {
    let mut child_ended = signal(SignalKind::child())?;
    Ok(async move {
        loop {
            match first() {
                Ended::Orphan(orphan) => {
                    // It has ended, so this does not wait. An error means that somebody else was quicker.
                    let _ = waitid(Id::Pid(orphan), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG);
                }
                Ended::Ours => tokio::time::sleep(AGAIN).await,
                Ended::Nobody => {
                    child_ended.recv().await;
                }
            }
        }
    })
}

/// The first child that has ended. It is left as it is.
fn first() -> Ended {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    match waitid(Id::All, flags) {
        Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..)) => {
            if child::ours().contains(&pid.as_raw()) {
                Ended::Ours
            } else {
                Ended::Orphan(pid)
            }
        }
        _ => Ended::Nobody,
    }
}
