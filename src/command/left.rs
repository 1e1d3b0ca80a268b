//! Directories of ours that killed processes have left.
//!
//! A process holds a shared lock on a file in its directory. The kernel frees the lock when the process is gone, however it ended.

use std::fs::{self, DirEntry, File, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use nix::fcntl::OFlag;

use crate::env::open_regular;

/// A directory without a lock is being made, unless it is older than this.
const BEING_MADE: Duration = Duration::from_secs(60);

/// Removes a directory of this user, with all that is in it, if nobody holds the lock on its file `lock`.
pub(super) fn remove(entry: &DirEntry, lock: &str, uid: u32) {
    // The entry itself, not what a link leads to.
    let Some(found) = entry.metadata().ok().filter(|found| found.is_dir() && found.uid() == uid) else { return };
    let path = entry.path();
    // Held until the directory is gone, so that nobody takes it over meanwhile.
    let _held = match open_regular(&path.join(lock), File::options().read(true).write(true), OFlag::O_NOFOLLOW) {
        Ok(file) => match file.try_lock() {
            Ok(()) => Some(file),
            Err(TryLockError::WouldBlock | TryLockError::Error(_)) => return,
        },
        Err(_) if found.modified().is_ok_and(|at| at.elapsed().is_ok_and(|age| age > BEING_MADE)) => None,
        Err(_) => return,
    };
    if let Err(error) = fs::remove_dir_all(path) {
        debug!(%error, "what killed processes have left cannot be removed");
    }
}
