//! The directory of one endpoint: new, for this user alone, and gone at the end.
//!
//! Supervisor and endpoint hold a shared lock on a file in it. A directory whose lock is free belongs to nobody any more: both were
//! killed. The next start removes it.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg, OFlag};

use crate::broker::Class;
use crate::command::{Failure, left};
use crate::env::open_regular;

/// What the names of such directories begin with.
const PREFIX: &str = "safeconduct-exec-";
const LOCK: &str = "lock";
const SOCKET: &str = "safeconduct.sock";
/// A socket's path has 103 bytes at most, of which these are the directory's parent.
const LONGEST_PARENT: usize = 103 - PREFIX.len() - 16 - SOCKET.len() - 2;

/// The directory. Dropping it removes it.
pub(super) struct Place {
    directory: PathBuf,
    _lock: Flock<File>,
}

impl Place {
    /// Makes a directory in the first of these that will do, and removes those that killed processes have left there.
    pub(super) fn make(parents: &[PathBuf], uid: u32) -> Result<Self, Failure> {
        let mut last = "there is no place for it".to_owned();
        for parent in parents {
            if let Err(why) = check_parent(parent, uid) {
                last = format!("{}: {why}", parent.display());
                continue;
            }
            sweep(parent, uid);
            match Self::make_in(parent) {
                Ok(place) => return Ok(place),
                Err(error) => last = format!("{}: {error}", parent.display()),
            }
        }
        Err(Failure::new(Class::Config, format!("no directory for the endpoint: {last}"))
            .hint("set TMPDIR to a directory with a short path that nobody else can write"))
    }

    fn make_in(parent: &Path) -> io::Result<Self> {
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        let directory = parent.join(format!("{PREFIX}{:016x}", u64::from_ne_bytes(bytes)));
        DirBuilder::new().mode(0o700).create(&directory)?;
        // Locked before it has its name, so that nobody takes the directory for abandoned.
        let early = directory.join("lock.new");
        let locked = open_lock(&early, true).and_then(|lock| fs::rename(&early, directory.join(LOCK)).map(|()| lock));
        match locked {
            Ok(lock) => Ok(Self { directory, _lock: lock }),
            Err(error) => {
                drop(fs::remove_dir_all(&directory));
                Err(error)
            }
        }
    }

    /// Holds the directory of another process of ours too.
    pub(super) fn hold(directory: &Path) -> io::Result<Self> {
        Ok(Self { directory: directory.to_owned(), _lock: open_lock(&directory.join(LOCK), false)? })
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.directory.join(SOCKET)
    }

    /// Removes the directory now.
    pub(super) fn remove(&self) {
        // The other process may be quicker, and may be writing its last file.
        for _ in 0..3 {
            match fs::remove_dir_all(&self.directory) {
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
                _ => return,
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.remove();
    }
}

fn open_lock(path: &Path, is_new: bool) -> io::Result<Flock<File>> {
    let mut options = File::options();
    options.mode(0o600).create_new(is_new).read(true).write(true);
    let file = open_regular(path, &mut options, OFlag::O_NOFOLLOW)?;
    Flock::lock(file, FlockArg::LockSharedNonblock).map_err(|(_, error)| error.into())
}

/// Others must not be able to exchange a directory of ours in it: it is ours or root's, and who else can write there can only
/// remove what is their own.
fn check_parent(parent: &Path, uid: u32) -> Result<(), String> {
    if parent.as_os_str().len() > LONGEST_PARENT {
        return Err("its path is too long for a socket".to_owned());
    }
    let found = fs::metadata(parent).map_err(|error| error.to_string())?;
    let is_sticky = found.mode() & 0o1000 != 0;
    match found {
        _ if !found.is_dir() => Err("is no directory".to_owned()),
        _ if found.uid() != uid && found.uid() != 0 => Err(format!("belongs to uid {}", found.uid())),
        _ if found.mode() & 0o022 != 0 && !is_sticky => Err("others can write it".to_owned()),
        _ => Ok(()),
    }
}

/// Removes the directories of this user whose processes were killed.
fn sweep(parent: &Path, uid: u32) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX)) {
            left::remove(&entry, LOCK, uid);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn uid() -> u32 {
        nix::unistd::geteuid().as_raw()
    }

    fn made(parent: &Path) -> Place {
        let Ok(place) = Place::make(&[parent.to_owned()], uid()) else { panic!("it is made") };
        place
    }

    fn parent() -> tempfile::TempDir {
        tempfile::tempdir_in("/tmp").expect("a directory")
    }

    #[test]
    fn a_place_is_private_and_gone_at_the_end() {
        let parent = parent();
        let place = made(parent.path());
        assert_eq!(fs::metadata(place.directory()).expect("there").mode() & 0o7777, 0o700);
        assert!(place.socket().as_os_str().len() <= 103);
        fs::write(place.socket(), "").expect("ours");
        drop(place);
        assert_eq!(fs::read_dir(parent.path()).expect("there").count(), 0);
    }

    #[test]
    fn only_what_nobody_holds_is_swept() {
        let parent = parent();
        let held = made(parent.path());
        let abandoned = parent.path().join(format!("{PREFIX}fedcba9876543210"));
        fs::create_dir(&abandoned).expect("ours");
        fs::write(abandoned.join(LOCK), "").expect("ours");
        let half_made = parent.path().join(format!("{PREFIX}0123456789abcdef"));
        fs::create_dir(&half_made).expect("ours");
        let elsewhere = parent.path().join("elsewhere");
        fs::create_dir(&elsewhere).expect("ours");
        std::os::unix::fs::symlink(&elsewhere, parent.path().join(format!("{PREFIX}link"))).expect("ours");
        sweep(parent.path(), uid());
        assert!(!abandoned.exists() && held.directory().exists());
        assert!(half_made.exists() && elsewhere.exists(), "another process is making it");
        sweep(parent.path(), uid() + 1);
        assert!(held.directory().exists());
        let second = Place::hold(held.directory()).expect("two may hold it");
        std::mem::forget(held);
        sweep(parent.path(), uid());
        assert!(second.directory().exists());
    }

    #[test]
    fn a_place_that_others_can_exchange_is_no_place() {
        let parent = parent();
        let mode = |mode| fs::set_permissions(parent.path(), Permissions::from_mode(mode)).expect("ours");
        for (bits, is_good) in [(0o700, true), (0o755, true), (0o777, false), (0o770, false), (0o1777, true)] {
            mode(bits);
            assert_eq!(check_parent(parent.path(), uid()).is_ok(), is_good, "{bits:o}");
        }
        let long = parent.path().join("x".repeat(80));
        fs::create_dir(&long).expect("ours");
        assert!(check_parent(&long, uid()).is_err_and(|why| why.contains("too long")));
        assert!(Place::make(&[long, parent.path().to_owned()], uid()).is_ok(), "the next one will do");
    }
}
