//! What ends the bridge besides the end of its input: a signal, or the end of its client.
//!
//! A client that is killed closes our stdin, unless another process holds it too. So the kernel sends a signal of our choice
//! when our parent ends. It sends it also when only the thread ends that has started us; then our parent is the same as before.

use std::io;

use nix::unistd::{Pid, getppid};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signal that asks us to look whether our parent is there.
#[cfg(target_os = "linux")]
const LOOK: nix::sys::signal::Signal = nix::sys::signal::Signal::SIGUSR1;

/// What is waited for.
pub(super) struct Ends {
    parent: Pid,
    term: Signal,
    int: Signal,
    hup: Signal,
    #[cfg(target_os = "linux")]
    look: Signal,
}

impl Ends {
    /// From now on none of them is missed. Must be called inside a runtime, by the first thread of the process.
    pub(super) fn watch() -> io::Result<Self> {
        let parent = getppid();
        // Without a handler the signal would end us.
        #[cfg(target_os = "linux")]
        let look = {
            let look = signal(SignalKind::from_raw(LOOK as i32))?;
            nix::sys::prctl::set_pdeathsig(LOOK)?;
            look
        };
        Ok(Self {
            parent,
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            hup: signal(SignalKind::hangup())?,
            #[cfg(target_os = "linux")]
            look,
        })
    }

    /// Waits for one of them, and says which.
    pub(super) async fn wait(&mut self) -> &'static str {
        let orphaned = async {
            // It may have ended before we asked for the signal.
            while getppid() == self.parent {
                #[cfg(target_os = "linux")]
                self.look.recv().await;
                #[cfg(not(target_os = "linux"))]
                tokio::time::sleep(std::time::Duration::from_millis(500)).await;
            }
        };
        tokio::select! {
            _ = self.term.recv() => "a signal",
            _ = self.int.recv() => "a signal",
            _ = self.hup.recv() => "a signal",
            () = orphaned => "the end of the client",
        }
    }
}
