//! Reads and digests the files of programs off the serving thread: each file once, one file at a time.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use tokio::sync::Semaphore;

use super::facts::Why;
use crate::digest::Digest;
use crate::env::FileId;

/// Programs that contain the runtime of a language have some 200 MB.
const FILE_CAP: u64 = 1024 * 1024 * 1024;
/// The longest wait for a digest. Anybody who may connect can make us read its program, so files are read one after the
/// other. After a wait that was too long the reading goes on, and a later request finds its result.
const WAIT: Duration = Duration::from_secs(10);
/// More programs than one daemon serves. Beyond the limit all digests are forgotten and made again.
const CAP: usize = 256;
const CHUNK: usize = 256 * 1024;
/// At most this many looks at the file system run at a time. One that waits for a disk keeps its place.
const LOOKS: usize = 8;

/// The digests made so far.
#[derive(Clone)]
pub(crate) struct Digests {
    known: Arc<Mutex<HashMap<Version, Digest>>>,
    turn: Arc<Semaphore>,
    looks: Arc<Semaphore>,
}

/// One state of one file. The change time moves with every write and cannot be set back.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Version {
    file: FileId,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Default for Digests {
    fn default() -> Self {
        Self { known: Arc::default(), turn: Arc::new(Semaphore::new(1)), looks: Arc::new(Semaphore::new(LOOKS)) }
    }
}

impl Digests {
    /// Runs something that asks the file system.
    pub(super) async fn look<T: Send + 'static>(
        &self,
        what: impl FnOnce() -> Result<T, Why> + Send + 'static,
    ) -> Result<T, Why> {
        aside(&self.looks, what).await
    }

    /// The digest of a file.
    pub(super) async fn of(&self, path: PathBuf) -> Result<Digest, Why> {
        let (file, version) = self.look(move || open(&path)).await?;
        if let Some(digest) = self.known(version) {
            return Ok(digest);
        }
        if version.size > FILE_CAP {
            return Err(Why::TooLarge);
        }
        let known = self.clone();
        let make = move || match known.known(version) {
            Some(digest) => Ok(digest),
            None => {
                let digest = read(&file, version)?;
                known.remember(version, digest);
                Ok(digest)
            }
        };
        aside(&self.turn, make).await
    }

    fn known(&self, version: Version) -> Option<Digest> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&version).copied()
    }

    fn remember(&self, version: Version, digest: Digest) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= CAP {
            known.clear();
        }
        known.insert(version, digest);
    }
}

impl Version {
    fn of(metadata: &Metadata) -> Self {
        Self {
            file: metadata.into(),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// Runs work off the serving thread, once a place is free. A caller that hangs up or has waited too long stops waiting; the
/// work goes on and keeps its place until it is done.
async fn aside<T: Send + 'static>(
    places: &Arc<Semaphore>,
    work: impl FnOnce() -> Result<T, Why> + Send + 'static,
) -> Result<T, Why> {
    let done = async {
        let place = Arc::clone(places).acquire_owned().await.map_err(|_| Why::Busy)?;
        let work = tokio::task::spawn_blocking(move || {
            let _place = place;
            work()
        });
        work.await.unwrap_or_else(|error| Err(Why::Unreadable(error.to_string())))
    };
    tokio::time::timeout(WAIT, done).await.unwrap_or(Err(Why::Busy))
}

fn open(path: &Path) -> Result<(File, Version), Why> {
    // A process may identify a file without the right to read it, so only this fails.
    let file = File::open(path).map_err(|_| Why::FileForbidden)?;
    let version = Version::of(&file.metadata().map_err(unreadable)?);
    Ok((file, version))
}

/// Digests as many bytes as the file had when it was opened. Fails if it has changed since.
fn read(file: &File, version: Version) -> Result<Digest, Why> {
    let mut context = Context::new(&SHA256);
    let mut chunk = vec![0; CHUNK];
    let mut rest = file.take(version.size);
    loop {
        match rest.read(&mut chunk) {
            Ok(0) => break,
            Ok(length) => context.update(&chunk[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(unreadable(error)),
        }
    }
    let now = Version::of(&file.metadata().map_err(unreadable)?);
    if now == version { Ok(Digest::finish(context)) } else { Err(Why::Changed) }
}

#[expect(clippy::needless_pass_by_value, reason = "it stands in map_err")]
fn unreadable(error: io::Error) -> Why {
    Why::Unreadable(error.to_string())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const OF_ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[tokio::test]
    async fn a_digest_is_that_of_the_file_and_follows_its_changes() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("agent");
        fs::write(&path, "abc").expect("written");
        let digests = Digests::default();
        let of = async || digests.of(path.clone()).await.expect("readable").to_string();
        assert_eq!((of().await, of().await), (OF_ABC.to_owned(), OF_ABC.to_owned()));
        assert_eq!(digests.known.lock().expect("whole").len(), 1);
        let before = fs::metadata(&path).expect("there").modified().expect("has one");
        fs::write(&path, "abd").expect("written");
        let file = File::options().write(true).open(&path).expect("there");
        file.set_modified(before).expect("ours");
        assert_ne!(of().await, OF_ABC, "neither size nor modification time tells, but the change time does");
    }

    #[tokio::test]
    async fn a_file_beyond_the_cap_is_not_read() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        file.as_file().set_len(FILE_CAP + 1).expect("sparse");
        assert_eq!(Digests::default().of(file.path().to_owned()).await, Err(Why::TooLarge));
    }

    #[tokio::test]
    async fn a_file_that_may_not_be_opened_says_so() {
        assert_eq!(Digests::default().of("/nonexistent".into()).await, Err(Why::FileForbidden));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_too_long_for_its_turn_is_told_so() {
        let digests = Digests::default();
        let looks = u32::try_from(LOOKS).expect("a few");
        let _all = Arc::clone(&digests.looks).try_acquire_many_owned(looks).expect("free");
        assert_eq!(digests.of("/nonexistent".into()).await, Err(Why::Busy));
    }
}
