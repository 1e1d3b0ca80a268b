//! A server that ends with its test: in good order, and also if the test program is killed.

use std::ffi::OsStr;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::process::{ROOT, Running};

const STOP_LIMIT: Duration = Duration::from_secs(60);

pub(super) struct Tethered {
    process: Running,
    log: PathBuf,
}

impl Tethered {
    /// The folder gets its log.
    pub(super) fn start(program: &Path, arguments: &[impl AsRef<OsStr>], folder: &Path) -> Self {
        let name = program.file_name().expect("a program has a name").display().to_string();
        let log = folder.join(format!("{name}.log"));
        let mut command = Command::new("python3");
        command.arg(format!("{ROOT}/tests/real/tethered.py")).arg(&log).arg(program).args(arguments);
        command.current_dir(folder).stdin(Stdio::piped());
        Self { process: Running(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"))), log }
    }

    pub(super) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Fails the test if it has ended.
    pub(super) fn lives(&mut self) {
        let ended = self.process.0.try_wait().expect("a child of ours can be waited for");
        assert!(ended.is_none(), "{} has ended: {}", self.log.display(), self.log());
    }
}

impl Drop for Tethered {
    fn drop(&mut self) {
        drop(self.process.0.stdin.take());
        // If it does not end, `Running` kills the script, and the system the server.
        let _ = self.process.wait(STOP_LIMIT);
    }
}

/// An address that nobody has.
pub(super) fn free() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    listener.local_addr().expect("it is bound")
}
