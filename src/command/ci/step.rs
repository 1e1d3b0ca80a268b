//! The directory of one `ci` step: for its daemon's socket and log, and for files of ours. Only this user can look into it.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::super::{Failure, left};
use crate::broker::Class;
use crate::env::Env;
use crate::sockets;

/// The path of a socket may have so many bytes.
const SOCKET_CAP: usize = 103;

/// The daemon's log. The step holds a shared lock on it when it starts the daemon, and so the daemon does as long as it lives.
pub(super) const LOG: &str = "daemon.log";

/// How many numbers are tried if other steps begin at the same time.
const TRIES: u32 = 64;

pub(super) struct Step {
    pub(super) directory: PathBuf,
}

impl Step {
    /// Makes the next numbered directory in that of the job.
    pub(super) fn make(env: &Env) -> Result<Self, Failure> {
        let jobs = sockets::job_directories(env);
        if jobs.is_empty() {
            let names: Vec<_> = sockets::job_variables().collect();
            return Err(Failure::new(Class::Config, "nothing says which job this is")
                .hint(format!("the runner sets one of these, or you: {}", names.join(", "))));
        }
        let mut why = String::new();
        for job in jobs {
            sweep(&job, env.uid());
            let made = match Self::within(&job, env.uid()) {
                // A step of another job took the empty directory for left.
                Err(error) if error.kind() == io::ErrorKind::NotFound => Self::within(&job, env.uid()),
                made => made,
            };
            match made {
                Ok(directory) => return Ok(Self { directory }),
                Err(error) => why.push_str(&format!("; {}: {error}", job.display())),
            }
        }
        Err(Failure::new(Class::Config, format!("there is no place for the daemon{why}"))
            .hint("the job's temporary directory must be writable, and its path short enough for a socket"))
    }

    fn within(job: &Path, own_uid: u32) -> io::Result<PathBuf> {
        if let Some(temporary) = job.parent()
            && !temporary.exists()
        {
            // Jenkins names a directory that need not be there.
            DirBuilder::new().recursive(true).mode(0o700).create(temporary)?;
        }
        match DirBuilder::new().mode(0o700).create(job) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let found = fs::symlink_metadata(job)?;
        if !found.is_dir() {
            return Err(io::Error::other("it is there and no directory"));
        }
        if found.uid() != own_uid {
            return Err(io::Error::other(format!("it belongs to uid {}, not to us (uid {own_uid})", found.uid())));
        }
        fs::set_permissions(job, Permissions::from_mode(0o700))?;
        let newest = sockets::steps(job).first().copied().unwrap_or(0);
        for number in (1..=TRIES).filter_map(|more| newest.checked_add(more)) {
            let directory = job.join(number.to_string());
            if directory.join(sockets::NAME).as_os_str().len() > SOCKET_CAP {
                return Err(io::Error::other("its path is too long for a socket"));
            }
            match DirBuilder::new().mode(0o700).create(&directory) {
                Ok(()) => return Ok(directory),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other("other steps take every number"))
    }

    /// Opens the log of the daemon, locked.
    pub(super) fn log(directory: &Path) -> Result<(PathBuf, File), Failure> {
        let (path, early) = (directory.join(LOG), directory.join("log.new"));
        let log = File::options().read(true).append(true).create_new(true).mode(0o600).open(&early);
        // Locked before it has its name, so that nobody takes the directory for left.
        let log = log.and_then(|log| log.try_lock_shared().map(|()| log).map_err(io::Error::from));
        let log = log.and_then(|log| fs::rename(&early, &path).map(|()| log));
        let log = log.map_err(|error| Failure::new(Class::Temporary, format!("{}: {error}", path.display())))?;
        Ok((path, log))
    }

    /// Makes a new file of ours with this text.
    pub(super) fn write(&self, name: &str, text: &str) -> Result<PathBuf, Failure> {
        let path = self.directory.join(name);
        let written = File::options().write(true).create_new(true).mode(0o600).open(&path);
        let written = written.and_then(|mut file| file.write_all(text.as_bytes()));
        written.map_err(|error| Failure::new(Class::Temporary, format!("{}: {error}", path.display())))?;
        Ok(path)
    }

    /// Removes the directory with all that is in it, and that of the job if no other step has one.
    pub(super) fn remove(directory: &Path) {
        // Nobody else may have put anything there, and a part that stays is no secret for long.
        if let Err(error) = fs::remove_dir_all(directory) {
            debug!(%error, "the directory of the step stays");
        }
        if let Some(job) = directory.parent() {
            let _ = fs::remove_dir(job);
        }
    }
}

/// Removes what steps of other jobs have left whose daemons were killed before they could: with it their files with tokens.
/// Runners with a temporary directory for each job remove that themselves.
fn sweep(job: &Path, own_uid: u32) {
    let entries = |directory: &Path| fs::read_dir(directory).into_iter().flatten().flatten();
    let Some(parent) = job.parent() else { return };
    for other in entries(parent).filter(|other| other.path() != job && sockets::is_of_a_job(other, own_uid)) {
        for step in entries(&other.path()) {
            left::remove(&step, LOG, own_uid);
        }
        // It stays as long as a step has a directory in it.
        let _ = fs::remove_dir(other.path());
    }
}
