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
use crate::oauth::shell_word;

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
    /// Something else is in the place of the socket or of its directory.
    #[error("{}: {what}", path.display())]
    Occupied {
        /// The path.
        path: PathBuf,
        /// What is there.
        what: String,
    },
    /// The directory of the path cannot be looked at.
    #[error("the directory {}: {error}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
    /// The system does not let us give the path to this group.
    #[error("{} cannot be given to the group {group}: {error}", path.display())]
    Group {
        /// The path.
        path: PathBuf,
        /// The number of the group.
        group: u32,
        /// The system's error.
        error: io::Error,
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
                "use it (`safeconduct status`), end it (`safeconduct stop`), or give this one another `--socket`".to_owned()
            }
            Self::TooLong { .. } => "choose a shorter path for `socket` in [listen] or `--socket`".to_owned(),
            Self::Path { .. } => {
                "choose a directory that only you can write, for example a new one of mode 0700".to_owned()
            }
            Self::Occupied { path, .. } => {
                format!("move {} away, or choose another path for the socket", path.display())
            }
            Self::Directory { path, .. } => format!(
                "choose a directory that only you can write, or make this one: `install -d -m 0700 {}`",
                path.to_str().and_then(shell_word).unwrap_or_else(|| "DIR".to_owned())
            ),
            Self::Group { .. } => {
                "run the daemon as a member of that group (`SupplementaryGroups=` of a unit), or choose another `socket_group`"
                    .to_owned()
            }
            Self::Inherited { .. } => {
                "make `SocketMode=` and `SocketGroup=` of the socket unit no wider than [listen]".to_owned()
            }
            Self::NotListening { .. } => PASS_A_LISTENER.to_owned(),
            Self::System { path, .. } => format!("look at the permissions and the file system of {}", path.display()),
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
        return Err(Error::Occupied { path: directory.to_owned(), what: "is there and no directory".to_owned() });
    }
    if found.uid() != own_uid {
        return Err(refuse(format!("belongs to uid {}, not to us (uid {own_uid})", found.uid())));
    }
    if let Some(group) = access.group {
        give_to(directory, group)?;
    }
    fs::set_permissions(directory, Permissions::from_mode(mode)).map_err(|error| refuse(error.to_string()))
}

/// Gives a path to a group. Without privileges we can do so only as its member.
pub(super) fn give_to(path: &Path, group: u32) -> Result<(), Error> {
    chown(path, None, Some(Gid::from_raw(group))).map_err(|error| Error::Group {
        path: path.to_owned(),
        group,
        error: error.into(),
    })
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
    let found = fs::metadata(directory).map_err(|error| Error::Directory { path: directory.to_owned(), error })?;
    if !found.is_dir() {
        return Err(Error::Occupied { path: directory.to_owned(), what: "is no directory".to_owned() });
    }
    if found.uid() != own_uid && found.uid() != 0 {
        return Err(refuse(format!("belongs to uid {}, neither to us (uid {own_uid}) nor to root", found.uid())));
    }
    if found.mode() & 0o022 != 0 {
        return Err(refuse(format!("others can write it (mode {:04o})", found.mode() & 0o7777)));
    }
    Ok(())
}
