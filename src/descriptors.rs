//! The file descriptors of this process: how many it may have, and which are open.

use std::fs;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// The highest descriptor to try where the system does not list the open ones.
const TRIED: i32 = 65_536;

/// The descriptors above standard error that are open. `None` if the system does not list them (no /proc).
fn open() -> Option<Vec<i32>> {
    let listed = fs::read_dir("/proc/self/fd").or_else(|_| fs::read_dir("/dev/fd")).ok()?;
    let number = |entry: fs::DirEntry| entry.file_name().to_str()?.parse().ok();
    Some(listed.flatten().filter_map(number).filter(|descriptor| *descriptor > 2).collect())
}

/// The descriptors above standard error that the caller has left open. To be called before anything of ours is open.
pub(crate) fn inherited() -> Vec<i32> {
    let listed = open().unwrap_or_default();
    // The one that listed the others is closed already.
    listed.into_iter().filter(|descriptor| fs::read_link(format!("/proc/self/fd/{descriptor}")).is_ok()).collect()
}

/// Closes descriptors of the caller.
pub(crate) fn close(descriptors: &[i32]) {
    for descriptor in descriptors {
        // It was open, and nothing of ours has its number.
        let _ = nix::unistd::close(*descriptor);
    }
}

/// How many more descriptors this process may open.
pub(crate) fn left() -> usize {
    /// More than a daemon has open when it has started, without any that it has inherited.
    const USUAL: usize = 32;
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(1_024, |(soft, _)| soft);
    let used = open().map_or(USUAL, |open| open.len() + 3);
    usize::try_from(limit).unwrap_or(usize::MAX).saturating_sub(used)
}

/// Raises the limit: each caller needs two descriptors, and the usual soft limit is 1,024.
pub(crate) fn raise_limit() {
    const WANTED: u64 = 8_192;
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < WANTED
    {
        // With a lower limit there are fewer places for callers.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, WANTED.min(hard), hard);
    }
}

/// Closes everything above standard error that the caller has left open. To be called before anything of ours is open.
pub(crate) fn close_inherited() {
    let limit = || getrlimit(Resource::RLIMIT_NOFILE).map_or(TRIED, |(soft, _)| i32::try_from(soft).unwrap_or(TRIED));
    let descriptors = open().unwrap_or_else(|| (3..limit().min(TRIED)).collect());
    for descriptor in descriptors {
        // The one that listed the others is closed already.
        let _ = nix::unistd::close(descriptor);
    }
}
