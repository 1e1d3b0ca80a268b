//! The process at the other end of a connection, held so that a later process with the same id is never taken for it.
//!
//! A [`Process`] holds its directory in /proc open and reads everything through it: once the process has ended every read
//! fails. SO_PEERPIDFD (Linux 6.5) proves that the directory is the right one: its descriptor belongs to the connecting
//! process, and that process was still alive after the directory was opened, so its id had not been reused. Before Linux 6.5
//! the id could be reused between connect(2) and our look, which is a short time but not impossible (SECURITY.md).
//!
//! What the process was at the connection is kept too, as far as rules ask for it: a process that starts another program, or is
//! moved to another unit, must connect again.
//!
//! `exe` and `ns` need PTRACE_MODE_READ (`ptrace(2)`): the same user and a process that does not shield its memory, or
//! CAP_SYS_PTRACE. Everybody may read the control group.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Once, OnceLock};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlink};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt};
use nix::sys::stat::{FileStat, Mode, fstat, fstatat, stat};

use super::digests::{Digests, UserDigests, Version};
use crate::caller::{Facts, Needs, Program, Unit, Why, cgroup};
use crate::digest::Digest;
use crate::env::FileId;

/// Longer than any of these files.
const TEXT_CAP: u64 = 64 * 1024;

/// The kernel appends this to the path of a file that was removed or replaced.
const DELETED: &str = " (deleted)";

/// A process, alive or ended.
#[derive(Clone)]
pub(crate) struct Process {
    /// `/proc`; tests make one of their own.
    proc: PathBuf,
    directory: Arc<OwnedFd>,
    /// `None` for a process that did not connect: ourselves.
    connected: Option<Arc<AtConnect>>,
}

impl Process {
    /// The process that connected this stream, with what it is now as far as rules need it. Nothing is waited for: the
    /// descriptor of its program is opened without asking the file system, and [`Connected::looked_at`] does the rest.
    pub(crate) fn connected(stream: &impl AsFd, pid: Option<i32>, needs: &Needs) -> Result<Connected, Why> {
        let process = Self::peer(stream, pid)?;
        Ok(process.now(needs))
    }

    fn peer(stream: &impl AsFd, pid: Option<i32>) -> Result<Self, Why> {
        let pid = pid.ok_or(Why::OtherPidNamespace)?;
        let process = Self::open(Path::new("/proc"), pid);
        match getsockopt(stream, sockopt::PeerPidfd) {
            Ok(pidfd) if has_ended(&pidfd) => Err(Why::Gone),
            Ok(_) => process.map_err(|why| hidden_if_alive(why, || true)),
            Err(Errno::ENOPROTOOPT) => {
                warn_of_old_kernel();
                process.map_err(|why| hidden_if_alive(why, || exists(pid)))
            }
            // Some kernels report this for a process that has ended and was waited for.
            Err(Errno::EINVAL) => Err(Why::Gone),
            Err(error) => Err(why_not(error)),
        }
    }

    /// This process itself.
    pub(crate) fn own() -> Result<Self, Why> {
        Self::open(Path::new("/proc"), std::process::id().cast_signed())
    }

    fn open(proc: &Path, pid: i32) -> Result<Self, Why> {
        let own = readlink(&proc.join("self")).map_err(why_not)?;
        if own.to_str() != Some(&std::process::id().to_string()) {
            return Err(Why::ForeignProc);
        }
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let directory = nix::fcntl::open(&proc.join(pid.to_string()), flags, Mode::empty()).map_err(why_not)?;
        Ok(Self { proc: proc.to_owned(), directory: Arc::new(directory), connected: None })
    }

    fn now(self, needs: &Needs) -> Connected {
        let program = if needs.program() { self.at("exe", OFlag::O_PATH).map_err(why_not) } else { Err(Why::Earlier) };
        let unit = if needs.unit { self.unit_now() } else { Err(Why::Earlier) };
        Connected { process: self, program, unit }
    }

    /// Reads the facts that are needed, anew for each request: a process may start another program in between.
    /// `uid` is its user, whose turn it is if files are read.
    pub(crate) async fn facts(&self, needs: &Needs, digests: &Digests, uid: u32) -> Facts {
        let program =
            if needs.program() { self.program(needs, &digests.of_user(uid)).await } else { Err(Why::NotRead) };
        let unit = if needs.unit { self.unit() } else { Err(Why::NotRead) };
        // Checked last: if the process has ended, another process holds its connection.
        match self.lives() {
            Ok(()) => Facts { program, unit },
            Err(why) => Facts::unknown(&why),
        }
    }

    /// Runs off the serving thread: the file may be on a dead disk, or on a file system that the caller itself provides.
    async fn program(&self, needs: &Needs, digests: &UserDigests<'_>) -> Result<Program, Why> {
        let (process, wanted) = (self.clone(), needs.clone());
        let (mut program, file) = digests.look(move || process.look(&wanted)).await?;
        if !needs.digest(&program) {
            return Ok(program);
        }
        let digest = digests.of(by_descriptor(&file)).await;
        program.sha256 = digest.and_then(|(digest, version)| match &self.connected {
            Some(connected) => connected.confirm(digest, version),
            None => Ok(digest),
        });
        let process = self.clone();
        digests.look(move || if process.still_runs(&file)? { Ok(program) } else { Err(Why::Changed) }).await
    }

    /// The path and the file come from one descriptor, so they belong together even if the process starts another program.
    fn look(&self, needs: &Needs) -> Result<(Program, OwnedFd), Why> {
        let file = self.at("exe", OFlag::O_PATH).map_err(why_not)?;
        let found = fstat(&file).map_err(why_not)?;
        if let Some(connected) = &self.connected {
            connected.program.as_ref().map_err(Clone::clone)?.is_still(FileId::from(&found))?;
        }
        let path = readlink(&by_descriptor(&file)).map_err(why_not)?.to_string_lossy().into_owned();
        let stands_at = |path: &str| stat(path).is_ok_and(|there| same(&there, &found));
        let program = Program {
            stands_at: needs.programs.iter().map(|one| &one.path).filter(|path| stands_at(path)).cloned().collect(),
            sees_our_files: self.sees_our_files()?,
            sha256: Err(Why::NotRead),
            is_helper: path.rsplit('/').next() == Some("safeconduct") || stands_at("/proc/self/exe"),
            path: path.strip_suffix(DELETED).map(str::to_owned).unwrap_or(path),
        };
        Ok((program, file))
    }

    fn still_runs(&self, file: &OwnedFd) -> Result<bool, Why> {
        let now = fstatat(&*self.directory, "exe", AtFlags::empty()).map_err(why_not)?;
        Ok(same(&now, &fstat(file).map_err(why_not)?))
    }

    fn sees_our_files(&self) -> Result<bool, Why> {
        let its = fstatat(&*self.directory, "ns/mnt", AtFlags::empty()).map_err(why_not)?;
        let ours = stat(&self.proc.join("self/ns/mnt")).map_err(why_not)?;
        Ok(same(&its, &ours))
    }

    fn unit(&self) -> Result<Unit, Why> {
        let now = self.unit_now()?;
        match self.connected.as_ref().map(|connected| &connected.unit) {
            None => Ok(now),
            Some(Ok(then)) if *then == now => Ok(now),
            Some(Ok(_) | Err(Why::NoUnit)) => Err(Why::OtherThen),
            Some(Err(why)) => Err(why.clone()),
        }
    }

    fn unit_now(&self) -> Result<Unit, Why> {
        cgroup::unit(&self.text("cgroup")?).ok_or(Why::NoUnit)
    }

    /// The state comes after the name, which may contain anything, even parentheses (`proc_pid_stat(5)`).
    fn lives(&self) -> Result<(), Why> {
        let text = self.text("stat")?;
        let state = text.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        match state {
            Some('Z' | 'X' | 'x') => Err(Why::Gone),
            Some(_) => Ok(()),
            None => Err(Why::Unreadable("its state is not there".to_owned())),
        }
    }

    fn text(&self, name: &str) -> Result<String, Why> {
        let file = File::from(self.at(name, OFlag::O_RDONLY).map_err(why_not)?);
        // Enough for the usual text in one read: each read of such a file takes a lock in the kernel.
        let mut text = Vec::with_capacity(1_024);
        file.take(TEXT_CAP).read_to_end(&mut text).map_err(|error| why_not(errno(&error)))?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    fn at(&self, name: &str, flags: OFlag) -> nix::Result<OwnedFd> {
        openat(&*self.directory, name, flags | OFlag::O_CLOEXEC, Mode::empty())
    }
}

/// A process that has just connected.
pub(crate) struct Connected {
    process: Process,
    program: Result<OwnedFd, Why>,
    unit: Result<Unit, Why>,
}

/// What a process was when it connected. A process can pass its connection on and then start the program that a rule names,
/// so it must still be the same when a request comes.
struct AtConnect {
    program: Result<Version, Why>,
    /// The first digest of that file. It is made for a request, not before.
    digest: OnceLock<Digest>,
    unit: Result<Unit, Why>,
}

impl Connected {
    /// Looks at the program's file, off the serving thread. The descriptor is of the file that ran at the connection,
    /// whatever the process runs by now.
    pub(crate) async fn looked_at(self, digests: &Digests, uid: u32) -> Process {
        let Self { process, program, unit } = self;
        let program = match program {
            Ok(file) => digests.of_user(uid).look(move || Version::of_file(&File::from(file))).await,
            Err(why) => Err(why),
        };
        let connected = AtConnect { program, digest: OnceLock::new(), unit };
        Process { connected: Some(Arc::new(connected)), ..process }
    }
}

impl AtConnect {
    /// The digest, if it is that of the file as it was at the connection. The owner of a file can write to it while it does
    /// not run; so the first digest counts only for a file that was not touched since, and a later one must be the same.
    fn confirm(&self, digest: Digest, version: Version) -> Result<Digest, Why> {
        let is_untouched = self.program.as_ref().is_ok_and(|then| *then == version);
        let first = if is_untouched { Some(self.digest.get_or_init(|| digest)) } else { self.digest.get() };
        if first == Some(&digest) { Ok(digest) } else { Err(Why::OtherThen) }
    }
}

/// A pidfd is readable once its process has ended (`pidfd_open(2)`).
fn has_ended(pidfd: &OwnedFd) -> bool {
    let mut look = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    !matches!(poll(&mut look, PollTimeout::ZERO), Ok(0))
}

/// A process that lives and is not in /proc is hidden there.
fn hidden_if_alive(why: Why, lives: impl FnOnce() -> bool) -> Why {
    if why == Why::Gone && lives() { Why::Hidden } else { why }
}

/// Is there a process of this number, whosever it is? The kernel tells even if /proc hides it (kill(2)).
fn exists(pid: i32) -> bool {
    matches!(nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), None), Ok(()) | Err(Errno::EPERM))
}

fn same(one: &FileStat, other: &FileStat) -> bool {
    FileId::from(one) == FileId::from(other)
}

fn by_descriptor(file: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

fn errno(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

fn why_not(error: Errno) -> Why {
    match error {
        Errno::ESRCH | Errno::ENOENT | Errno::ENODATA => Why::Gone,
        Errno::EACCES | Errno::EPERM => Why::Forbidden,
        error => Why::Unreadable(error.desc().to_owned()),
    }
}

fn warn_of_old_kernel() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        tracing::warn!("before Linux 6.5 rules that name a program or a unit are weaker: see SECURITY.md");
    });
}

#[cfg(test)]
mod tests;
