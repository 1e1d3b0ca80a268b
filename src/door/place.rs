//! Where a daemon may listen, and which of these places may be asked.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::env::Env;
use crate::sockets;

/// A path where the daemon's socket may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The socket.
    pub path: PathBuf,
    /// A flag or a variable names it, so whoever listens there is trusted. At a compiled-in path only a daemon of this
    /// user or of root is.
    pub named: bool,
    /// It is that of one step of a CI job. Other steps have daemons of their own, which serve other servers.
    pub of_step: bool,
}

/// Where to look for the daemon, in this order. A path that a flag or `SAFECONDUCT_SOCKET` names is the only one.
pub(crate) fn places(flag: Option<&PathBuf>, env: &Env) -> Vec<Place> {
    match flag.cloned().or_else(|| env.get("SAFECONDUCT_SOCKET").map(PathBuf::from)) {
        Some(path) => vec![Place { path, named: true, of_step: false }],
        None => sockets::to_look(env).into_iter().map(Place::compiled_in).collect(),
    }
}

impl Place {
    fn compiled_in(candidate: sockets::Candidate) -> Self {
        Self { path: candidate.path, named: false, of_step: candidate.of_step }
    }
}

/// May a daemon of ours listen at a place? At a compiled-in path only in a directory that is ours or root's: whoever else made
/// that directory may let us wait there, or answer. It is looked at before we dial.
pub(crate) fn may_be_ours(place: &Place, own_uid: u32) -> bool {
    foreign_directory(place, own_uid).is_none()
}

/// The other user whose directory a place lies in.
fn foreign_directory(place: &Place, own_uid: u32) -> Option<u32> {
    if place.named {
        return None;
    }
    let directory = place.path.parent().unwrap_or_else(|| Path::new("/"));
    // A link is its owner's to change, whatever it leads to. What is not there, or behind a directory that is closed to us, says so
    // when it is dialled.
    let owners = [std::fs::symlink_metadata(directory), std::fs::metadata(directory)];
    owners.into_iter().flatten().map(|found| found.uid()).find(|owner| *owner != own_uid && *owner != 0)
}

/// The same if a socket is there, or may be behind a directory that is closed to us.
pub(super) fn passed_over_at(place: &Place, own_uid: u32) -> Option<(PathBuf, u32)> {
    let owner = foreign_directory(place, own_uid)?;
    let is_absent = |error: io::Error| matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
    let is_there = !std::fs::symlink_metadata(&place.path).is_err_and(is_absent);
    is_there.then(|| (place.path.clone(), owner))
}

pub(super) fn nobody_at(places: &[Place], killed: Option<&PathBuf>) -> String {
    match places {
        [Place { path, named: true, .. }] => {
            format!("nobody listens at {}, which `--socket` or SAFECONDUCT_SOCKET names", path.display())
        }
        _ => {
            let looked: Vec<_> = places.iter().map(|place| place.path.display().to_string()).collect();
            let killed = killed.map_or_else(String::new, |step| {
                format!("; the one of this job has left {} behind: run `safeconduct ci` again", step.display())
            });
            format!("no daemon is running{killed}; looked at {}", looked.join(", "))
        }
    }
}

pub(super) fn passed_over(passed: Option<&(PathBuf, u32)>) -> String {
    passed.map_or_else(String::new, |(path, uid)| {
        let path = path.display();
        format!("; {path} is passed over, because its directory belongs to uid {uid}, neither to us nor to root: if that daemon is meant, name it with `--socket` or SAFECONDUCT_SOCKET")
    })
}
