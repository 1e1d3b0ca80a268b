//! Reads and digests the files of programs off the serving thread: each file once.
//!
//! Anybody who may connect can make us read its program, so users take turns: one user cannot use up the places of others, nor
//! have their digests forgotten.

use std::collections::{HashMap, VecDeque};
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use tokio::sync::Semaphore;

use crate::blocking::{self, Kind};
use crate::caller::Why;
use crate::digest::Digest;
use crate::env::FileId;

/// Programs that contain the runtime of a language have some 200 MB.
const FILE_CAP: u64 = 256 * 1024 * 1024;
/// The longest wait for a digest. After a wait that was too long the reading goes on, and a later request finds its result.
const WAIT: Duration = Duration::from_secs(10);
/// More programs than one user runs as callers. Beyond the limit the one is forgotten that was asked for longest ago.
const PROGRAMS: usize = 32;
/// More users than one daemon serves. Beyond the limit the one is forgotten who asked longest ago.
const USERS: usize = 256;
const CHUNK: usize = 256 * 1024;
/// Files that are read at a time, for all users and for one. A file may lie on a file system that its user provides, where a
/// read may never end.
const READS: (usize, usize) = (4, 1);
/// The same for looks at the file system. Together they are as many as the threads of [`Kind::Programs`]. One that waits for a disk keeps its place.
const LOOKS: (usize, usize) = (6, 2);

/// The digests made so far.
#[derive(Clone)]
pub(crate) struct Digests {
    known: Arc<Mutex<Known>>,
    reads: Turns,
    looks: Turns,
}

/// The digests as one user asks for them.
pub(super) struct UserDigests<'a> {
    digests: &'a Digests,
    uid: u32,
}

/// One state of one file. The change time moves with every write and cannot be set back.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Version {
    file: FileId,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// For each user the digests that it asked for, the newest last; the users in the same order.
#[derive(Default)]
struct Known(VecDeque<(u32, VecDeque<(Version, Digest)>)>);

impl Known {
    /// A digest that anybody asked for. It becomes one of this user's.
    fn find(&mut self, uid: u32, version: Version) -> Option<Digest> {
        let of = |(_, digests): &(u32, VecDeque<(Version, Digest)>)| {
            digests.iter().find(|(known, _)| *known == version).map(|(_, digest)| *digest)
        };
        let digest = self.0.iter().find_map(of)?;
        self.add(uid, version, digest);
        Some(digest)
    }

    fn add(&mut self, uid: u32, version: Version, digest: Digest) {
        let own = self.0.iter().position(|(user, _)| *user == uid).and_then(|at| self.0.remove(at));
        let (_, mut digests) = own.unwrap_or((uid, VecDeque::new()));
        digests.retain(|(known, _)| *known != version);
        if digests.len() >= PROGRAMS {
            digests.pop_front();
        }
        digests.push_back((version, digest));
        if self.0.len() >= USERS {
            self.0.pop_front();
        }
        self.0.push_back((uid, digests));
    }
}

/// Places for work off the serving thread. Each user has a few of them, and those who wait for a place of all are served in the
/// order in which they came; so nobody waits for more than one work of each other user.
#[derive(Clone)]
struct Turns {
    all: Arc<Semaphore>,
    each: usize,
    users: Arc<Mutex<HashMap<u32, Arc<Semaphore>>>>,
}

impl Turns {
    fn new((all, each): (usize, usize)) -> Self {
        Self { all: Arc::new(Semaphore::new(all)), each, users: Arc::default() }
    }

    /// Runs work once a place is free. A caller that hangs up or has waited too long stops waiting; the work goes on and keeps
    /// its place until it is done.
    async fn aside<T: Send + 'static>(
        &self,
        uid: u32,
        work: impl FnOnce() -> Result<T, Why> + Send + 'static,
    ) -> Result<T, Why> {
        let done = async {
            let of_user = self.of(uid).acquire_owned().await.map_err(|_| Why::Busy)?;
            let of_all = Arc::clone(&self.all).acquire_owned().await.map_err(|_| Why::Busy)?;
            let work = blocking::run(Kind::Programs, move || {
                let _places = (of_user, of_all);
                work()
            });
            work.await.unwrap_or(Err(Why::Busy))
        };
        tokio::time::timeout(WAIT, done).await.unwrap_or(Err(Why::Busy))
    }

    /// The places of one user. Those of users who wait for nothing are forgotten.
    fn of(&self, uid: u32) -> Arc<Semaphore> {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(places) = users.get(&uid) {
            return Arc::clone(places);
        }
        // Whoever holds or awaits a place holds its semaphore.
        users.retain(|_, places| Arc::strong_count(places) > 1);
        let places = Arc::new(Semaphore::new(self.each));
        users.insert(uid, Arc::clone(&places));
        places
    }
}

impl Default for Digests {
    fn default() -> Self {
        Self { known: Arc::default(), reads: Turns::new(READS), looks: Turns::new(LOOKS) }
    }
}

impl Digests {
    /// As this user asks for them.
    pub(super) fn of_user(&self, uid: u32) -> UserDigests<'_> {
        UserDigests { digests: self, uid }
    }

    fn known(&self, uid: u32, version: Version) -> Option<Digest> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).find(uid, version)
    }

    fn remember(&self, uid: u32, version: Version, digest: Digest) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).add(uid, version, digest);
    }
}

impl UserDigests<'_> {
    /// Runs something that asks the file system.
    pub(super) async fn look<T: Send + 'static>(
        &self,
        what: impl FnOnce() -> Result<T, Why> + Send + 'static,
    ) -> Result<T, Why> {
        self.digests.looks.aside(self.uid, what).await
    }

    /// The digest of a file, with the state of the file that it is of.
    pub(super) async fn of(&self, path: PathBuf) -> Result<(Digest, Version), Why> {
        let (file, version) = self.look(move || open(&path)).await?;
        if let Some(digest) = self.digests.known(self.uid, version) {
            return Ok((digest, version));
        }
        if version.size > FILE_CAP {
            return Err(Why::TooLarge);
        }
        let (digests, uid) = (self.digests.clone(), self.uid);
        let make = move || match digests.known(uid, version) {
            Some(digest) => Ok(digest),
            None => {
                let digest = read(&file, version)?;
                digests.remember(uid, version, digest);
                Ok(digest)
            }
        };
        self.digests.reads.aside(self.uid, make).await.map(|digest| (digest, version))
    }
}

impl Version {
    /// The state of an open file.
    pub(super) fn of_file(file: &File) -> Result<Self, Why> {
        file.metadata().map(|metadata| Self::of(&metadata)).map_err(unreadable)
    }

    /// Fails if this is another file.
    pub(super) fn is_still(&self, file: FileId) -> Result<(), Why> {
        if self.file == file { Ok(()) } else { Err(Why::OtherThen) }
    }

    fn of(metadata: &Metadata) -> Self {
        Self {
            file: metadata.into(),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

fn open(path: &Path) -> Result<(File, Version), Why> {
    // A process may identify a file without the right to read it, so only this fails.
    let file = File::open(path).map_err(|_| Why::FileForbidden)?;
    let version = Version::of_file(&file)?;
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
    let now = Version::of_file(file)?;
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
        let of = async || digests.of_user(1).of(path.clone()).await.expect("readable").0.to_string();
        assert_eq!((of().await, of().await), (OF_ABC.to_owned(), OF_ABC.to_owned()));
        assert_eq!(digests.known.lock().expect("whole").0[0].1.len(), 1);
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
        let digest = Digests::default().of_user(1).of(file.path().to_owned()).await;
        assert_eq!(digest.map(drop), Err(Why::TooLarge));
    }

    #[tokio::test]
    async fn a_file_that_may_not_be_opened_says_so() {
        let digest = Digests::default().of_user(1).of("/nonexistent".into()).await;
        assert_eq!(digest.map(drop), Err(Why::FileForbidden));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_too_long_for_its_turn_is_told_so() {
        let digests = Digests::default();
        let looks = u32::try_from(LOOKS.0).expect("a few");
        let _all = Arc::clone(&digests.looks.all).try_acquire_many_owned(looks).expect("free");
        assert_eq!(digests.of_user(1).of("/nonexistent".into()).await.map(drop), Err(Why::Busy));
    }

    #[tokio::test]
    async fn a_strangers_files_do_not_keep_another_user_from_its_turn() {
        let digests = Digests::default();
        let tasks = tokio_util::task::TaskTracker::new();
        // Reads that do not end, as on a file system that the stranger provides, for as long as the senders live.
        let mut strangers = Vec::new();
        for _ in 0..16 {
            let (end, ended) = std::sync::mpsc::channel::<()>();
            strangers.push(end);
            let reads = digests.reads.clone();
            let read = move || {
                let _ = ended.recv();
                Ok(())
            };
            tasks.spawn(async move { reads.aside(4711, read).await });
        }
        while digests.reads.all.available_permits() == READS.0 {
            tokio::task::yield_now().await;
        }
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), "abc").expect("written");
        let (digest, _) = digests.of_user(1000).of(file.path().to_owned()).await.expect("its turn");
        assert_eq!(digest.to_string(), OF_ABC);
        assert_eq!(digests.reads.all.available_permits(), READS.0 - READS.1, "the stranger has one place");
        drop(strangers);
    }

    #[test]
    fn a_known_digest_is_not_thrown_out_by_that_of_a_stranger() {
        let mut known = Known::default();
        let version = |size| Version {
            file: FileId::at(Path::new("/")).expect("there is always a root"),
            size,
            modified: (0, 0),
            changed: (0, 0),
        };
        let digest = Digest::finish(Context::new(&SHA256));
        known.add(4711, version(0), digest);
        assert_eq!(known.find(1000, version(0)), Some(digest), "a file is read once, whoever runs it");
        (1..1_000).for_each(|size| known.add(4711, version(size), digest));
        assert_eq!(known.find(1000, version(0)), Some(digest));
        assert!(known.0.iter().all(|(_, digests)| digests.len() <= PROGRAMS));
        (5_000..6_000).for_each(|uid| known.add(uid, version(1), digest));
        assert_eq!(known.0.len(), USERS);
    }

    #[tokio::test]
    async fn the_places_of_users_who_wait_for_nothing_are_forgotten() {
        let digests = Digests::default();
        for uid in 0..100 {
            assert_eq!(digests.of_user(uid).look(move || Ok(uid)).await, Ok(uid));
        }
        assert!(digests.looks.users.lock().expect("whole").len() < 20);
    }
}
