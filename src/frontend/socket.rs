//! The API on a Unix socket: how it is bound and served.
//!
//! The daemon makes the directory of a default socket itself and keeps other users out of it. An explicit path is used as it
//! is, but its directory must belong to this user or root and must not be writable by others, who could replace the socket.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::fcntl::Flock;
use nix::sys::stat::{Mode, umask};
use safeconduct_listener::{self as listener, Begun, Limits, Owner, Places, Seat, Seats};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

use super::course::Course;
use super::descriptors::Share;
use super::desk::State;
use super::funnel::{Answers, Finished};
use super::gate::{self, Pass};
use super::place::{Access, Error, check_directory, give_to, is_listening, lock, make_directory};
use super::{relay_threads, route};
use crate::blocking::{self, Kind};
use crate::caller::{Caller, Why};
use crate::env::FileId;
use crate::process::Process;

/// The kernel's `sun_path` holds 108 bytes with the final zero; some systems have 104.
const PATH_CAP: usize = 103;

/// Of all that may connect, a user has a quarter.
const PLACES: Places = Places { all: 2_048, user: 512, strangers: 0 };

/// Each connection takes up to three descriptors: itself, the process of its peer, and at first the file that this runs.
const EACH: usize = 3;

/// How often to check that the socket's file is still there: programs that tidy up remove old files.
const LOOK: Duration = Duration::from_secs(5);

/// A bound socket. Dropping it removes the file, unless a service manager owns it.
pub(crate) struct Socket {
    path: PathBuf,
    /// Replaced when the file was removed.
    bound: Mutex<Bound>,
    place: Place,
}

/// Who chose the path, and who may connect.
#[derive(Clone, Copy)]
enum Place {
    Default(Access, u32),
    Explicit(Access, u32),
    Inherited,
}

struct Bound {
    listener: StdListener,
    /// The file that we made, by device and inode, which the listener keeps. One of the same name may be another
    /// daemon's by now.
    ours: Option<FileId>,
    /// Held while the daemon serves, so that two daemons that start at once cannot both bind the path.
    _lock: Option<Flock<File>>,
}

impl Socket {
    /// Binds the first default place that can be made.
    pub(crate) fn default_place(places: &[PathBuf], access: Access, own_uid: u32) -> Result<Self, Error> {
        let mut last = None;
        for path in places {
            check_length(path)?;
            let directory = path.parent().unwrap_or_else(|| Path::new("/"));
            match make_directory(directory, access, own_uid) {
                Ok(()) => return Self::bound(path, Place::Default(access, own_uid)),
                Err(error) => last = Some(error),
            }
        }
        Err(last
            .unwrap_or_else(|| Error::Path { path: PathBuf::new(), what: "there is no default place here".to_owned() }))
    }

    /// Binds an explicit path.
    pub(crate) fn explicit(path: &Path, access: Access, own_uid: u32) -> Result<Self, Error> {
        if !path.is_absolute() {
            // Helpers run in other directories, where a relative path means another file.
            return Err(Error::Path { path: path.to_owned(), what: "must be an absolute path".to_owned() });
        }
        check_length(path)?;
        Self::bound(path, Place::Explicit(access, own_uid))
    }

    /// Takes a socket from the service manager, if it is no wider than configured.
    pub(crate) fn inherited(listener: StdListener, access: Access) -> Result<Self, Error> {
        let wrong = |what: String| Error::Inherited { what };
        let address = listener.local_addr().map_err(|error| wrong(error.to_string()))?;
        let path = address.as_pathname().ok_or_else(|| wrong("has no path".to_owned()))?.to_owned();
        let metadata = fs::metadata(&path).map_err(|error| wrong(format!("{}: {error}", path.display())))?;
        let mode = metadata.mode() & 0o777;
        // Only the write permission of a socket lets anybody connect.
        if mode & 0o222 & !access.mode != 0 {
            return Err(wrong(format!(
                "{} has mode {mode:04o}, wider than the configured {:04o}",
                path.display(),
                access.mode
            )));
        }
        if access.mode & 0o222 & !mode != 0 {
            let (socket, has, wanted) = (path.display(), format!("{mode:04o}"), format!("{:04o}", access.mode));
            tracing::warn!(
                %socket,
                "the inherited socket has mode {has}, narrower than `socket_mode = \"{wanted}\"`: set SocketMode={wanted} in its unit"
            );
        }
        if access.group.is_some_and(|group| mode & 0o060 != 0 && metadata.gid() != group) {
            return Err(wrong(format!(
                "{} belongs to group {}, not to the configured one",
                path.display(),
                metadata.gid()
            )));
        }
        if !is_listening(&listener).map_err(|error| wrong(error.to_string()))? {
            return Err(Error::NotListening { path });
        }
        let bound = Bound { listener, ours: None, _lock: None };
        Ok(Self { path, bound: Mutex::new(bound), place: Place::Inherited })
    }

    fn bound(path: &Path, place: Place) -> Result<Self, Error> {
        let bound = place.bind(path)?;
        Ok(Self { path: path.to_owned(), bound: Mutex::new(bound), place })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The descriptors that its connections can take.
    pub(crate) fn descriptors(&self) -> usize {
        PLACES.descriptors(EACH)
    }

    /// Serves until the daemon stops. Requests that run are finished. If the file is removed, it is made again; fails if that
    /// cannot be.
    pub(crate) async fn serve(&self, state: Arc<State>, course: &Course, share: Share) -> Result<(), Error> {
        let system = |error: io::Error| Error::System { path: self.path.clone(), error };
        let seats = Seats::new(share.places(PLACES, EACH));
        let begin = |stream: UnixStream| {
            // Nobody else waits for the connections of a user who opens and closes them all the time.
            if gate::has_left(&stream) {
                return;
            }
            let (state, seats) = (Arc::clone(&state), Arc::clone(&seats));
            course.tasks.spawn(serve_one(state, course.clone(), seats, stream));
        };
        loop {
            let bound = self.listener().map_err(system)?;
            let bound = &bound;
            let accept = || async move { bound.accept().await.map(|(stream, _)| stream) };
            tokio::select! {
                ended = listener::accept_all(&course.stop, accept, begin) => return ended.map_err(system),
                () = self.lost() => self.bind_again()?,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Bound> {
        self.bound.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy of the listener for the runtime. The original stays open and keeps the address.
    fn listener(&self) -> io::Result<UnixListener> {
        let listener = self.lock().listener.try_clone()?;
        listener.set_nonblocking(true)?;
        UnixListener::from_std(listener)
    }

    /// Waits until the file that we made is no longer there.
    async fn lost(&self) {
        let Some(ours) = self.lock().ours else { return std::future::pending().await };
        loop {
            tokio::time::sleep(LOOK).await;
            let path = self.path.clone();
            let found = blocking::run(Kind::Files, move || fs::symlink_metadata(path)).await;
            match found {
                Ok(Ok(found)) if FileId::from(&found) != ours => return,
                Ok(Err(error)) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                    return;
                }
                // It is there, or that cannot be seen now.
                _ => {}
            }
        }
    }

    fn bind_again(&self) -> Result<(), Error> {
        tracing::warn!(path = %self.path.display(), "the socket's file was removed or replaced: making it again");
        let mut bound = self.lock();
        // The lock's file may be gone too. Our own lock would keep us from a new one.
        bound._lock = None;
        *bound = self.place.bind(&self.path)?;
        Ok(())
    }
}

/// Serves one connection, here or on a thread of the data path.
pub(super) async fn serve_one(state: Arc<State>, course: Course, seats: Arc<Seats>, mut stream: UnixStream) {
    let (caller, process) = {
        let desk = state.desk();
        let Ok(caller) = gate::caller(&stream, &desk) else { return };
        let process = gate::process(&stream, &caller, &desk);
        (caller, process)
    };
    let Some(seat) = seats.take(Owner::User(caller.uid)) else { return };
    let process = match process {
        Some(Ok(connected)) => Some(Ok(connected.looked_at(&state.fixed().digests, caller.uid).await)),
        Some(Err(why)) => Some(Err(why)),
        None => None,
    };
    let begun = listener::beginning(Limits::API, &course.stop, &mut stream, &seat, relay_threads::is_decided);
    let Some(first) = begun.await else { return };
    let (stop, peer) = (course.stop.clone(), Peer { caller, process });
    let Some((runtime, place)) = course.relay.for_connection(&first) else {
        return serve(state, stop, (seat, peer), Begun::new(first, Box::new(stream))).await;
    };
    let Ok(stream) = stream.into_std() else { return };
    let served = async move {
        let _place = place;
        if let Ok(stream) = UnixStream::from_std(stream) {
            // What can be written without waiting is known only after this runtime has looked. hyper drops the answer to an
            // `Upgrade` that it cannot write at once.
            drop(stream.writable().await);
            serve(state, stop, (seat, peer), Begun::new(first, Box::new(stream))).await;
        }
    };
    course.tasks.spawn_on(served, &runtime);
}

/// Who is at the other end of a connection.
struct Peer {
    caller: Caller,
    process: Option<Result<Process, Why>>,
}

/// Answers the requests of a connection.
async fn serve(state: Arc<State>, stop: CancellationToken, (seat, peer): (Seat, Peer), stream: Begun<'_>) {
    let Peer { caller, process } = peer;
    let answer = |request| {
        let (desk, caller, process) = (state.desk(), &caller, process.as_ref());
        // Few rules need more than the kernel says.
        let Some(needs) = desk.broker.needs(caller) else {
            return route::answer(&Pass::Kernel, desk, caller, request);
        };
        Finished::after(async move {
            let caller = gate::look(caller, process, &needs, &desk).await;
            route::answer(&Pass::Kernel, desk, &caller, request).awaited().await
        })
    };
    listener::connection(Limits::API, stop, stream, &seat, &Answers(answer)).await;
}

impl Place {
    /// Makes the socket, and its directory if that is ours to make.
    fn bind(self, path: &Path) -> Result<Bound, Error> {
        let directory = path.parent().unwrap_or_else(|| Path::new("/"));
        match self {
            Self::Default(access, own_uid) => {
                make_directory(directory, access, own_uid)?;
                Bound::new(path, access, own_uid)
            }
            Self::Explicit(access, own_uid) => {
                check_directory(directory, own_uid)?;
                Bound::new(path, access, own_uid)
            }
            Self::Inherited => Err(Error::Inherited { what: format!("{} was removed", path.display()) }),
        }
    }
}

impl Bound {
    fn new(path: &Path, access: Access, own_uid: u32) -> Result<Self, Error> {
        let system = |error: io::Error| Error::System { path: path.to_owned(), error };
        let lock = lock(path)?;
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(system(error)),
            Ok(found) if !found.file_type().is_socket() => {
                return Err(Error::Occupied {
                    path: path.to_owned(),
                    what: "something else than a socket is there".to_owned(),
                });
            }
            Ok(found) if found.uid() != own_uid => {
                return Err(Error::Occupied {
                    path: path.to_owned(),
                    what: format!("a socket of uid {} is there", found.uid()),
                });
            }
            Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
                // Nobody listens: a killed daemon left the file behind.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    fs::remove_file(path).map_err(system)?;
                }
                _ => return Err(Error::Taken { path: path.to_owned() }),
            },
        }
        // With this umask the socket is private from the start; its mode is widened afterwards.
        let before = umask(Mode::from_bits_truncate(0o177));
        let bound = StdListener::bind(path);
        umask(before);
        let listener = bound.map_err(system)?;
        let bound = Self { listener, ours: FileId::at(path), _lock: Some(lock) };
        if let Some(group) = access.group {
            give_to(path, group)?;
        }
        fs::set_permissions(path, Permissions::from_mode(access.mode)).map_err(system)?;
        Ok(bound)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let ours = self.lock().ours;
        if ours.is_some() && FileId::at(&self.path) == ours {
            // The directory may be gone, and the file with it.
            drop(fs::remove_file(&self.path));
        }
    }
}

fn check_length(path: &Path) -> Result<(), Error> {
    if path.as_os_str().len() <= PATH_CAP {
        Ok(())
    } else {
        Err(Error::TooLong { path: path.to_owned(), cap: PATH_CAP })
    }
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
        assert!(matches!(Socket::explicit(&file, PRIVATE, uid()), Err(Error::Occupied { .. })));
        assert_eq!(fs::read_to_string(&file).expect("still there"), "precious");
        let link = dir.path().join("link.sock");
        std::os::unix::fs::symlink(&file, &link).expect("linked");
        assert!(matches!(Socket::explicit(&link, PRIVATE, uid()), Err(Error::Occupied { .. })));
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
        assert!(matches!(refused, Err(Error::Occupied { what, .. }) if what.contains("no directory")));
    }

    #[test]
    fn a_path_too_long_says_so() {
        let dir = directory();
        let refused =
            Socket::explicit(&dir.path().join("x".repeat(110)), PRIVATE, uid()).map(|_| ()).expect_err("too long");
        assert!(refused.hint().expect("a cure").contains("shorter"), "{refused}");
        let place = dir.path().join("x".repeat(110)).join("w.sock");
        assert!(matches!(
            Socket::default_place(std::slice::from_ref(&place), PRIVATE, uid()),
            Err(Error::TooLong { .. })
        ));
        assert!(!place.parent().expect("it has one").exists(), "no directory is made for nothing");
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
