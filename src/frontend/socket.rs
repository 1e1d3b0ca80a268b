//! The API on a Unix socket: where it may lie, how it is bound, how it is served.
//!
//! A default socket lies in a directory that we make ourselves, which keeps everybody else out. An explicit path
//! is used as it is, but its directory must be ours or root's and not writable by others: whoever can write the
//! directory can put a socket of their own in our place.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::future::Either;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, chown};
use tokio::net::UnixListener;

use super::api::{self, State};
use super::gate::{self, Pass};
use super::serve::{self, Course, Limits};
use crate::env::FileId;

/// The kernel's `sun_path` holds 108 bytes with the final zero; some systems have 104.
const PATH_CAP: usize = 103;

/// Who may connect.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Access {
    /// 0600 or 0660.
    pub mode: u32,
    /// The group of 0660.
    pub group: Option<u32>,
}

/// Why there is no socket. Each names the path and the cure.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another daemon answers there.
    #[error("another daemon already serves {}", path.display())]
    Taken {
        /// Where.
        path: PathBuf,
    },
    /// The path cannot be a socket of ours.
    #[error("{}: {what}", path.display())]
    Path {
        /// Where.
        path: PathBuf,
        /// Why not.
        what: String,
    },
    /// What the service manager passed is not what is configured.
    #[error("the inherited socket {what}")]
    Inherited {
        /// What is wrong with it.
        what: String,
    },
    /// The system said no.
    #[error("{}: {error}", path.display())]
    System {
        /// Where.
        path: PathBuf,
        /// As the system says it.
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
            Self::Path { what, .. } if what.contains("longer than") => {
                "choose a shorter path for `socket` in [listen] or `--socket`".to_owned()
            }
            Self::Path { .. } => {
                "choose a directory that only you can write, for example a new one of mode 0700".to_owned()
            }
            Self::Inherited { .. } => {
                "make `SocketMode=` and `SocketGroup=` of the socket unit no wider than [listen]".to_owned()
            }
            Self::System { .. } => return None,
        })
    }
}

/// A bound socket. Dropping it removes the file, unless a service manager owns it.
pub(crate) struct Socket {
    listener: StdListener,
    path: PathBuf,
    /// Held as long as we serve, so that two daemons that start at once cannot both take the place.
    _lock: Option<Flock<File>>,
    /// The file that we made, by device and inode, which the listener keeps. One of the same name may be another
    /// daemon's by now.
    ours: Option<FileId>,
}

impl Socket {
    /// Binds the first default place that can be made.
    pub(crate) fn default_place(places: &[PathBuf], access: Access, own_uid: u32) -> Result<Self, Error> {
        let mut last = None;
        for path in places {
            let directory = path.parent().unwrap_or_else(|| Path::new("/"));
            match make_directory(directory, access, own_uid) {
                Ok(()) => return Self::bind(path, access, own_uid),
                Err(error) => last = Some(error),
            }
        }
        Err(last
            .unwrap_or_else(|| Error::Path { path: PathBuf::new(), what: "there is no default place here".to_owned() }))
    }

    /// Binds an explicit path.
    pub(crate) fn explicit(path: &Path, access: Access, own_uid: u32) -> Result<Self, Error> {
        if !path.is_absolute() {
            // Helpers run in other directories.
            return Err(Error::Path { path: path.to_owned(), what: "must be an absolute path".to_owned() });
        }
        let directory = path.parent().unwrap_or_else(|| Path::new("/"));
        check_directory(directory, own_uid)?;
        Self::bind(path, access, own_uid)
    }

    /// Takes a socket from the service manager, if it is no wider than configured.
    pub(crate) fn inherited(listener: StdListener, access: Access) -> Result<Self, Error> {
        let wrong = |what: String| Error::Inherited { what };
        let address = listener.local_addr().map_err(|error| wrong(error.to_string()))?;
        let path = address.as_pathname().ok_or_else(|| wrong("has no path".to_owned()))?.to_owned();
        let metadata = fs::metadata(&path).map_err(|error| wrong(format!("{}: {error}", path.display())))?;
        let mode = metadata.mode() & 0o777;
        // To connect one needs the permission to write; the other bits of a socket open nothing.
        if mode & 0o222 & !access.mode != 0 {
            return Err(wrong(format!(
                "{} has mode {mode:04o}, wider than the configured {:04o}",
                path.display(),
                access.mode
            )));
        }
        if access.group.is_some_and(|group| mode & 0o060 != 0 && metadata.gid() != group) {
            return Err(wrong(format!(
                "{} belongs to group {}, not to the configured one",
                path.display(),
                metadata.gid()
            )));
        }
        Ok(Self { listener, path, _lock: None, ours: None })
    }

    fn bind(path: &Path, access: Access, own_uid: u32) -> Result<Self, Error> {
        let system = |error: io::Error| Error::System { path: path.to_owned(), error };
        if path.as_os_str().len() > PATH_CAP {
            return Err(Error::Path {
                path: path.to_owned(),
                what: format!("longer than the {PATH_CAP} bytes that a socket path may have"),
            });
        }
        let lock = lock(path)?;
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(system(error)),
            Ok(found) if !found.file_type().is_socket() => {
                return Err(Error::Path {
                    path: path.to_owned(),
                    what: "something else than a socket is there".to_owned(),
                });
            }
            Ok(found) if found.uid() != own_uid => {
                return Err(Error::Path {
                    path: path.to_owned(),
                    what: format!("a socket of uid {} is there", found.uid()),
                });
            }
            Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
                // Nobody answers: it is what a killed daemon left behind.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    fs::remove_file(path).map_err(system)?;
                }
                _ => return Err(Error::Taken { path: path.to_owned() }),
            },
        }
        // The mask makes the socket private from its first moment; the mode is widened afterwards.
        let before = umask(Mode::from_bits_truncate(0o177));
        let bound = StdListener::bind(path);
        umask(before);
        let listener = bound.map_err(system)?;
        let socket = Self { listener, path: path.to_owned(), _lock: Some(lock), ours: FileId::at(path) };
        if let Some(group) = access.group {
            chown(path, None, Some(Gid::from_raw(group))).map_err(|error| system(error.into()))?;
        }
        fs::set_permissions(path, Permissions::from_mode(access.mode)).map_err(system)?;
        Ok(socket)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Serves until the course ends; connections finish what they are at.
    pub(crate) async fn serve(&self, state: Arc<State>, course: &Course) -> io::Result<()> {
        let listener = self.listener.try_clone()?;
        listener.set_nonblocking(true)?;
        let listener = UnixListener::from_std(listener)?;
        let listener = &listener;
        let accept = || async move { listener.accept().await.map(|(stream, _)| stream) };
        serve::accept_all(Limits::API, &course.stop, accept, |stream, place| {
            let (state, stop) = (Arc::clone(&state), course.stop.clone());
            course.tasks.spawn(async move {
                let Ok(caller) = gate::caller(&stream, &state) else { return };
                let process = gate::process(&stream, &caller, &state);
                let answer = |request| {
                    let (state, caller, process) = (&state, &caller, process.as_ref());
                    // Nearly all rules ask for no more than the kernel has said, and then no room is spent on it.
                    if state.broker.now().needs(caller).is_none() {
                        return Either::Left(api::answer(state, caller, &Pass::Kernel, request));
                    }
                    Either::Right(Box::pin(async move {
                        let caller = gate::look(caller, process, state).await;
                        api::answer(state, &caller, &Pass::Kernel, request).await
                    }))
                };
                serve::connection(Limits::API, stop, stream, place, answer).await;
            });
        })
        .await;
        Ok(())
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.ours.is_some() && FileId::at(&self.path) == self.ours {
            // It may be gone with its directory; then there is nothing to remove.
            drop(fs::remove_file(&self.path));
        }
    }
}

pub(super) fn lock(path: &Path) -> Result<Flock<File>, Error> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let lock_path = PathBuf::from(name);
    let system = |error: io::Error| Error::System { path: lock_path.clone(), error };
    let mut options = File::options();
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, nix::fcntl::OFlag::O_NOFOLLOW.bits());
    let file = options.create(true).truncate(false).write(true).open(&lock_path).map_err(system)?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| Error::Taken { path: path.to_owned() })
}

/// Makes a directory of ours, also inside a parent that others can write. One that is there must be ours alone.
fn make_directory(directory: &Path, access: Access, own_uid: u32) -> Result<(), Error> {
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

#[cfg(test)]
mod tests {
    use super::*;

    const PRIVATE: Access = Access { mode: 0o600, group: None };

    fn uid() -> u32 {
        nix::unistd::geteuid().as_raw()
    }

    fn directory() -> tempfile::TempDir {
        tempfile::tempdir().expect("a directory")
    }

    #[test]
    fn the_socket_is_private_and_gone_when_dropped() {
        let dir = directory();
        let path = dir.path().join("w.sock");
        let socket = Socket::explicit(&path, PRIVATE, uid()).expect("bound");
        assert_eq!(fs::metadata(&path).expect("there").mode() & 0o777, 0o600);
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let dir = directory();
        let path = dir.path().join("w.sock");
        drop(StdListener::bind(&path).expect("bound"));
        let live = Socket::explicit(&path, PRIVATE, uid()).expect("nobody answered at the stale one");
        assert!(matches!(Socket::explicit(&path, PRIVATE, uid()), Err(Error::Taken { .. })));
        drop(live);
    }

    #[test]
    fn what_is_no_socket_of_ours_is_left_alone() {
        let dir = directory();
        let file = dir.path().join("file.sock");
        fs::write(&file, "precious").expect("written");
        assert!(matches!(Socket::explicit(&file, PRIVATE, uid()), Err(Error::Path { .. })));
        assert_eq!(fs::read_to_string(&file).expect("still there"), "precious");
        let link = dir.path().join("link.sock");
        std::os::unix::fs::symlink(&file, &link).expect("linked");
        assert!(matches!(Socket::explicit(&link, PRIVATE, uid()), Err(Error::Path { .. })));
    }

    #[test]
    fn a_directory_that_others_can_write_is_refused() {
        let dir = directory();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).expect("set");
        let refused = Socket::explicit(&dir.path().join("w.sock"), PRIVATE, uid());
        assert!(matches!(refused, Err(Error::Path { what, .. }) if what.contains("others can write")));
        // A default place makes a directory of its own there.
        let made = Socket::default_place(&[dir.path().join("own/w.sock")], PRIVATE, uid()).expect("made");
        assert_eq!(fs::metadata(dir.path().join("own")).expect("there").mode() & 0o777, 0o700);
        drop(made);
    }

    #[test]
    fn a_squatted_directory_is_refused() {
        let dir = directory();
        let target = directory();
        std::os::unix::fs::symlink(target.path(), dir.path().join("own")).expect("linked");
        let refused = Socket::default_place(&[dir.path().join("own/w.sock")], PRIVATE, uid());
        assert!(matches!(refused, Err(Error::Path { what, .. }) if what.contains("no directory")));
    }

    #[test]
    fn a_path_too_long_says_so() {
        let dir = directory();
        let refused =
            Socket::explicit(&dir.path().join("x".repeat(110)), PRIVATE, uid()).map(|_| ()).expect_err("too long");
        assert!(refused.hint().expect("a cure").contains("shorter"), "{refused}");
    }

    #[test]
    fn an_inherited_socket_wider_than_configured_is_refused() {
        let dir = directory();
        let path = dir.path().join("w.sock");
        let listener = StdListener::bind(&path).expect("bound");
        fs::set_permissions(&path, Permissions::from_mode(0o666)).expect("set");
        let wide = Socket::inherited(listener.try_clone().expect("cloned"), PRIVATE);
        assert!(matches!(wide, Err(Error::Inherited { .. })));
        fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("set");
        drop(Socket::inherited(listener, PRIVATE).expect("no wider"));
        assert!(path.exists(), "the service manager keeps its socket");
    }
}
