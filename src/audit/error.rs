//! Why a line cannot be written. Each error names the file and has a hint.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Cheap to clone, because failures are shared.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// Another process holds the lock.
    #[error("the audit file {}: {} writes to it", path.display(), holder(*pid))]
    Held {
        /// Which file.
        path: PathBuf,
        /// The process, if the kernel reports it.
        pid: Option<i32>,
    },
    /// The file or its directory is not safe to write to.
    #[error("the audit file {}: {what}", path.display())]
    Unsafe {
        /// Which file.
        path: PathBuf,
        /// Why not.
        what: String,
    },
    /// The file does not end like an audit file.
    #[error("the audit file {}: {what}", path.display())]
    Chain {
        /// Which file.
        path: PathBuf,
        /// What is wrong with its end.
        what: String,
    },
    /// An error of the system.
    #[error("the audit file {} cannot be written: {error}", path.display())]
    System {
        /// Which file.
        path: PathBuf,
        /// As the system says it.
        error: Arc<io::Error>,
    },
}

fn holder(pid: Option<i32>) -> String {
    pid.map_or_else(|| "another safeconduct".to_owned(), |pid| format!("another safeconduct (pid {pid})"))
}

impl Error {
    pub(super) fn system(path: &std::path::Path, error: io::Error) -> Self {
        Self::System { path: path.to_owned(), error: Arc::new(error) }
    }

    /// What to do.
    pub fn hint(&self) -> String {
        match self {
            Self::Held { .. } => {
                "one daemon writes to one file, and perhaps serves these servers already: ask it (without `--no-daemon`), end it with `safeconduct stop`, or give this one another `file` in [audit]"
                    .to_owned()
            }
            Self::Unsafe { .. } => {
                "choose a file in a directory that only you can write, for example a new one of mode 0700".to_owned()
            }
            Self::Chain { path, .. } => format!(
                "see `safeconduct audit verify {0}`; keep the file under another name and a new chain begins at {0}",
                path.display()
            ),
            Self::System { path, error } => {
                let cure = match error.kind() {
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "free space for",
                    io::ErrorKind::FileTooLarge => "raise the limit of the file size for, or rotate (rename and SIGHUP),",
                    io::ErrorKind::PermissionDenied => "let this user write to, or make files in the directory of,",
                    io::ErrorKind::ReadOnlyFilesystem => "make writable the file system of",
                    io::ErrorKind::NotFound => "make the directory of",
                    _ => "repair what holds",
                };
                format!("{cure} {}: nothing is served until a line can be written", path.display())
            }
        }
    }

    /// May it succeed later, without a change of the configuration?
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::System { error, .. } if !matches!(
            error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
        ))
    }
}
