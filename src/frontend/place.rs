//! Where the socket and the loopback secret may lie: who owns the directory, who may write it, and which daemon has it.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::{Gid, chown};

use crate::env::open_regular;

/// Who may connect.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Access {
    /// 0600 or 0660.
    pub mode: u32,
    /// The group of 0660.
    pub group: Option<u32>,
}

/// Why the socket, or the secret beside it, cannot be there. Each names the path and the cure.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another daemon answers there.
    #[error("another daemon already serves {}", path.display())]
    Taken {
        /// The path.
        path: PathBuf,
    },
    /// The path, or its directory, cannot be used.
    #[error("{}: {what}", path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// Why not.
        what: String,
    },
    /// The path has more bytes than the path of a socket may have.
    #[error("{}: longer than the {cap} bytes that a socket path may have", path.display())]
    TooLong {
        /// The path.
        path: PathBuf,
        /// The limit.
        cap: usize,
    },
    /// The socket that the service manager passed does not fit the configuration.
    #[error("the inherited socket {what}")]
    Inherited {
        /// What is wrong with it.
        what: String,
    },
    /// Nothing listens on the socket that the service manager passed.
    #[error("the inherited socket {} is not listening", path.display())]
    NotListening {
        /// Its path.
        path: PathBuf,
    },
    /// A system call failed.
    #[error("{}: {error}", path.display())]
    System {
        /// The path.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
}

impl Error {
    /// The cure.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Taken { .. } => {
                "use it (`safeconduct status`), stop it, or give this one another `--socket`".to_owned()
            }
            Self::TooLong { .. } => "choose a shorter path for `socket` in [listen] or `--socket`".to_owned(),
            Self::Path { .. } => {
                "choose a directory that only you can write, for example a new one of mode 0700".to_owned()
            }
            Self::Inherited { .. } => {
                "make `SocketMode=` and `SocketGroup=` of the socket unit no wider than [listen]".to_owned()
            }
            Self::NotListening { .. } => PASS_A_LISTENER.to_owned(),
            Self::System { .. } => return None,
        })
    }
}

/// The cure for an inherited socket that does not listen.
pub(super) const PASS_A_LISTENER: &str =
    "pass a socket that listens: `ListenStream=` with `Accept=no` in the socket unit, or call listen(2) before";

/// Can connections arrive at this socket?
pub(super) fn is_listening(socket: &impl AsFd) -> io::Result<bool> {
    Ok(getsockopt(socket, sockopt::AcceptConn)?)
}

/// Locks a path for this process. Fails if another daemon has it.
pub(super) fn lock(path: &Path) -> Result<Flock<File>, Error> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let lock_path = PathBuf::from(name);
    let system = |error: io::Error| Error::System { path: lock_path.clone(), error };
    let mut options = File::options();
    options.mode(0o600).create(true).truncate(false).write(true);
    let file = open_regular(&lock_path, &mut options, OFlag::O_NOFOLLOW).map_err(system)?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| Error::Taken { path: path.to_owned() })
}

/// Makes a directory for the socket. The parent may be writable by others, so one that is there already must belong to this
/// user.
pub(super) fn make_directory(directory: &Path, access: Access, own_uid: u32) -> Result<(), Error> {
    let refuse = |what: String| Error::Path { path: directory.to_owned(), what };
    let mode = if access.group.is_some() { 0o750 } else { 0o700 };
    match DirBuilder::new().mode(mode).create(directory) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(refuse(error.to_string())),
    }
    let found = fs::symlink_metadata(directory).map_err(|error| refuse(error.to_string()))?;
    if !found.is_dir() {
        return Err(refuse("is there and no directory".to_owned()));
    }
    if found.uid() != own_uid {
        return Err(refuse(format!("belongs to uid {}, not to us (uid {own_uid})", found.uid())));
    }
    if let Some(group) = access.group {
        chown(directory, None, Some(Gid::from_raw(group))).map_err(|error| refuse(error.to_string()))?;
    }
    fs::set_permissions(directory, Permissions::from_mode(mode)).map_err(|error| refuse(error.to_string()))
}

/// Checks a directory of ours that holds secrets: no other user may look into it.
pub(super) fn check_private_directory(directory: &Path, own_uid: u32) -> Result<(), Error> {
    let refuse = |what: String| Error::Path { path: directory.to_owned(), what };
    let found = fs::symlink_metadata(directory).map_err(|error| refuse(error.to_string()))?;
    if !found.is_dir() {
        return Err(refuse("is there and no directory".to_owned()));
    }
    if found.uid() != own_uid {
        return Err(refuse(format!("belongs to uid {}, not to us (uid {own_uid})", found.uid())));
    }
    if found.mode() & 0o077 != 0 {
        return Err(refuse(format!("others can look into it (mode {:04o})", found.mode() & 0o7777)));
    }
    Ok(())
}

/// Checks the directory of a path that the operator chose: nobody but this user and root may write it.
pub(super) fn check_directory(directory: &Path, own_uid: u32) -> Result<(), Error> {
    let refuse = |what: String| Error::Path { path: directory.to_owned(), what };
    let found = fs::metadata(directory).map_err(|error| refuse(error.to_string()))?;
    if !found.is_dir() {
        return Err(refuse("is no directory".to_owned()));
    }
    if found.uid() != own_uid && found.uid() != 0 {
        return Err(refuse(format!("belongs to uid {}, neither to us (uid {own_uid}) nor to root", found.uid())));
    }
    if found.mode() & 0o022 != 0 {
        return Err(refuse(format!("others can write it (mode {:04o})", found.mode() & 0o7777)));
    }
    Ok(())
}
