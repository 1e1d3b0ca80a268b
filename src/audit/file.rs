//! The audit file: its permissions, its lock, its end, and one write for each group of lines.

use std::fs::{self, File, Metadata};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};

use super::group::Group;
use super::line;
use super::verify::LINE_CAP;
use super::{Config, Error, Head, Tail};
use crate::clock::Clock;
use crate::env::{FileId, private};

/// How much of the end is read to continue the chain: a line, and the bytes that a power loss may leave after it.
const TAIL: u64 = 4 * LINE_CAP as u64;
/// The delay between two tries for the lock.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// A file with its lock. Dropping it releases the lock.
#[derive(Debug)]
pub(super) struct Held {
    path: PathBuf,
    file: Flock<File>,
    head: Head,
    /// Where the last line of the chain ends, if the bytes after it could not be cut off yet.
    spoiled: Option<u64>,
    /// The first line of this file, which continues the chain of the last one, is still to be written.
    carries: bool,
    /// The buffer for what is written, used again for each write.
    lines: Vec<u8>,
}

impl Held {
    /// Opens or makes the file and continues its chain. An empty file continues `before`.
    pub(super) fn open(config: &Config, patience: Duration, before: Option<Head>) -> Result<Self, Error> {
        let path = config.file.clone();
        let opened = open(config)?;
        let file = locked(&path, opened, patience)?;
        let lines = Vec::with_capacity(1_024);
        let mut held = Self { path, file, head: Head::NONE, spoiled: None, carries: false, lines };
        held.go_on(before.filter(|before| !before.is_none()))?;
        Ok(held)
    }

    fn go_on(&mut self, before: Option<Head>) -> Result<(), Error> {
        let tail = self.tail()?;
        self.head = tail.last.or(before).unwrap_or(Head::NONE);
        let now = Clock::system().wall();
        let mut line = Vec::new();
        if let Some(torn) = &tail.torn {
            let bytes = torn.bytes;
            tracing::warn!(file = %self.path.display(), bytes, "the audit file ends with what is no whole line; it is kept, and a line says so");
            line.push(b'\n');
            let next = line::repair(&mut line, &self.head, now, torn);
            self.append(&line, next)?;
        } else if tail.lacks_end {
            self.append(b"\n", self.head)?;
        }
        self.carries = before.is_some() && tail.last.is_none() && tail.torn.is_none();
        Ok(())
    }

    fn tail(&self) -> Result<Tail, Error> {
        let failed = |error| Error::system(&self.path, error);
        let length = self.file.metadata().map_err(failed)?.len();
        let from = length.saturating_sub(TAIL);
        let mut end = Vec::new();
        let mut file: &File = &self.file;
        file.seek(SeekFrom::Start(from)).map_err(failed)?;
        file.take(TAIL).read_to_end(&mut end).map_err(failed)?;
        Tail::read(&end, from == 0).map_err(|what| Error::Chain { path: self.path.clone(), what })
    }

    pub(super) fn head(&self) -> Head {
        self.head
    }

    /// Gives each line of a group its place in the chain and writes them all. If that fails, the chain is unchanged.
    pub(super) fn write(&mut self, group: &Group) -> Result<(), Error> {
        let mut lines = std::mem::take(&mut self.lines);
        lines.clear();
        let mut head = self.head;
        if self.carries {
            head = line::carried_on(&mut lines, &head, Clock::system().wall());
        }
        let next = group.texts().fold(head, |head, text| line::chained(&mut lines, &head, text));
        let written = self.append(&lines, next);
        self.carries &= written.is_err();
        self.lines = lines;
        written
    }

    /// Usually one write. What a failed write leaves is cut off, now or before the next one.
    fn append(&mut self, lines: &[u8], next: Head) -> Result<(), Error> {
        self.cut_off().map_err(|error| Error::system(&self.path, error))?;
        if let Err((written, error)) = write_whole(&self.file, lines) {
            if written > 0 {
                // With O_APPEND the position is where the write ended, even if somebody truncated the file before.
                let mut file: &File = &self.file;
                self.spoiled = file.stream_position().ok().and_then(|end| end.checked_sub(written));
                if let Err(error) = self.cut_off() {
                    tracing::error!(file = %self.path.display(), %error, "what could not be written whole is left in the audit file");
                }
            }
            return Err(Error::system(&self.path, error));
        }
        self.head = next;
        Ok(())
    }

    fn cut_off(&mut self) -> io::Result<()> {
        if let Some(end) = self.spoiled {
            self.file.set_len(end)?;
            self.spoiled = None;
        }
        Ok(())
    }

    /// Has the file no name any more?
    pub(super) fn is_removed(&self) -> bool {
        self.file.metadata().is_ok_and(|found| found.nlink() == 0)
    }

    /// Continues in the file that has the name now, unless it is still this one. A file that has a chain keeps its own. The line
    /// that continues the chain is tried at once. If it fails on a file that was removed, it comes with the next one: the disk may be
    /// full of the removed file, which is gone when it is closed.
    pub(super) fn follow(&mut self, config: &Config, patience: Duration) -> Result<(), Error> {
        let ours = self.file.metadata().map_err(|error| Error::system(&self.path, error))?;
        if FileId::at(&config.file) == Some(FileId::from(&ours)) {
            return Ok(());
        }
        let mut next = Self::open(config, patience, Some(self.head))?;
        if next.carries
            && let Err(error) = next.write(&Group::default())
            && ours.nlink() > 0
        {
            return Err(error);
        }
        *self = next;
        Ok(())
    }
}

fn write_whole(mut file: &File, lines: &[u8]) -> Result<(), (u64, io::Error)> {
    let mut written = 0;
    while written < lines.len() {
        match file.write(&lines[written..]) {
            Ok(0) => return Err((written as u64, io::ErrorKind::WriteZero.into())),
            // A full disk writes a part first; the next write returns the error.
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err((written as u64, error)),
        }
    }
    Ok(())
}

fn open(config: &Config) -> Result<File, Error> {
    let path = &config.file;
    let refuse = |what: String| Error::Unsafe { path: path.clone(), what };
    let directory = path.parent().unwrap_or_else(|| Path::new("/"));
    let found = fs::metadata(directory).map_err(|error| Error::system(path, error))?;
    private(&found, config.uid).map_err(|what| refuse(format!("its directory {what}")))?;
    // Without O_NONBLOCK, opening a pipe could wait for ever.
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let opened = File::options().read(true).append(true).create(true).mode(0o600).custom_flags(flags.bits()).open(path);
    let file = opened.map_err(|error| match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ELOOP) => refuse("it is a symbolic link".to_owned()),
        Some(Errno::EISDIR | Errno::ENXIO) => refuse("it is no regular file".to_owned()),
        _ => Error::system(path, error),
    })?;
    let found = file.metadata().map_err(|error| Error::system(path, error))?;
    if !found.is_file() {
        return Err(refuse("it is no regular file".to_owned()));
    }
    private(&found, config.uid).map_err(|what| refuse(format!("it {what}")))?;
    Ok(file)
}

fn locked(path: &Path, file: File, patience: Duration) -> Result<Flock<File>, Error> {
    let mut left = patience.as_millis() / LOOK_AGAIN.as_millis();
    let mut file = file;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(locked) => return Ok(locked),
            Err((back, Errno::EWOULDBLOCK)) if left > 0 => file = back,
            Err((back, Errno::EWOULDBLOCK)) => {
                return Err(Error::Held {
                    path: path.to_owned(),
                    pid: back.metadata().ok().and_then(|it| holder(&it)),
                });
            }
            Err((_, error)) => return Err(Error::system(path, error.into())),
        }
        left -= 1;
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// The process that holds the lock, for the message: `1: FLOCK  ADVISORY  WRITE 4711 08:01:131 0 EOF` (proc_locks(5)).
fn holder(file: &Metadata) -> Option<i32> {
    const CAP: u64 = 1024 * 1024;
    let mut text = String::new();
    File::open("/proc/locks").ok()?.take(CAP).read_to_string(&mut text).ok()?;
    let inode = format!(":{}", file.ino());
    let mut rows = text.lines().map(|row| row.split_whitespace().collect::<Vec<_>>());
    rows.find_map(|row| match row.as_slice() {
        [_, "FLOCK", _, "WRITE", pid, place, ..] if place.ends_with(&inode) => pid.parse().ok().filter(|pid| *pid > 0),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Place, refusal};
    use super::*;
    use crate::caller::Caller;

    #[test]
    fn the_line_that_continues_a_chain_can_come_with_the_first_line_of_its_file() {
        let place = Place::new();
        let caller = Caller::on_socket(1, 2, None);
        let before = Head { seq: 7, hash: crate::digest::Digest::of(b"x") };
        let config = Config { file: place.path(), uid: nix::unistd::geteuid().as_raw() };
        let mut held = Held::open(&config, Duration::ZERO, Some(before)).expect("nothing is in the way");
        let mut group = Group::default();
        group.add(&refusal(&caller, "demo"), 0);
        held.write(&group).expect("written");
        held.write(&group).expect("written");
        let text = place.text();
        let actions: Vec<_> = text.split("\"action\":\"").skip(1).map(|rest| &rest[..5]).collect();
        assert_eq!(actions, ["conti", "token", "token"], "{text}");
        assert_eq!(held.head().seq, 10);
    }
}
