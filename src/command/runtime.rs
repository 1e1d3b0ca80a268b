//! The runtime of a command or of the daemon, and what it needs of the process.

use std::io;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::sync::OnceLock;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use tokio::signal::unix::{SignalKind, signal};

use super::Failure;
use crate::broker::Class;

/// The descriptors that the runtime, its signals, and one request with a name lookup need.
const DESCRIPTORS: usize = 16;

/// Uses `dyn Future`, because the runtime's loop is compiled again for every future type, 17 KB each.
pub(super) fn drive(work: Pin<&mut dyn Future<Output = ()>>) -> Result<(), Failure> {
    try_descriptors()?;
    // Our own blocking work does not run in tokio's pool (`blocking.rs`); some dependency's may.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .thread_keep_alive(Duration::from_secs(3))
        .thread_stack_size(512 * 1024)
        .build();
    let runtime = runtime.map_err(|error| Failure::bug(format!("no runtime: {error}")))?;
    // A closed log pipe must not end the daemon: with a handler for SIGPIPE the write fails instead.
    let entered = runtime.enter();
    let handled = signal(SignalKind::pipe()).map_err(|error| Failure::bug(format!("no signal handler: {error}")))?;
    drop((handled, entered));
    if let Some(binary) = BINARY.get() {
        runtime.spawn(keep_small(binary.unmap_code));
    }
    runtime.block_on(work);
    // Do not wait for a thread that a silent DNS server blocks.
    runtime.shutdown_background();
    Ok(())
}

/// Fails if this process may not open the few descriptors that the runtime and one request need. Without this check the runtime
/// would panic.
pub(super) fn try_descriptors() -> Result<(), Failure> {
    let pairs: io::Result<Vec<_>> = (0..DESCRIPTORS / 2).map(|_| UnixStream::pair()).collect();
    pairs.map(drop).map_err(|error| {
        Failure::new(Class::Temporary, format!("fewer than {DESCRIPTORS} descriptors are left: {error}"))
            .hint("raise the limit (`ulimit -n`, `LimitNOFILE=` of a unit), or start it with fewer open files")
    })
}

/// When the start is over. A short command has ended by then.
const STARTED: Duration = Duration::from_millis(500);
/// How long code that runs no more may be mapped.
const UNUSED: Duration = Duration::from_secs(5 * 60);

/// Keeps the resident memory of a process that lives long at what it used in the last minutes. It holds nothing, so nobody waits
/// for its end.
async fn keep_small(unmap_code: fn()) {
    tokio::time::sleep(STARTED).await;
    loop {
        unmap_code();
        tokio::time::sleep(UNUSED).await;
    }
}

/// What only the binary can do: this library has no `unsafe`, and does not know how the binary is linked.
pub struct Binary {
    /// Limits the name lookups of this process, before the first one. Names the database that the C library lacks.
    pub limit_name_lookup: fn() -> Result<(), &'static str>,
    /// Unmaps the pages of the program's code. Those that run are mapped again.
    pub unmap_code: fn(),
}

static BINARY: OnceLock<Binary> = OnceLock::new();

/// Says in which binary this library runs. Only the first call counts.
pub(super) fn runs_in(binary: Binary) {
    let _ = BINARY.set(binary);
}

/// Limits the lookups, at the first call. To be called before the first lookup, and before any thread that looks names up: a reload reads
/// the configuration while others do. A helper that is answered by a daemon looks nothing up, and glibc would read
/// `/etc/nsswitch.conf` for it.
pub(super) fn limit_name_lookup() -> Result<(), Failure> {
    static LIMITED: OnceLock<Result<(), &'static str>> = OnceLock::new();
    let limited = *LIMITED.get_or_init(|| BINARY.get().map_or(Ok(()), |binary| (binary.limit_name_lookup)()));
    limited.map_err(|database| Failure::bug(format!("the C library has no database {database}")))
}

/// Lets SIGTERM and SIGINT end a short-lived command at once, also as PID 1, where the kernel ignores them unless somebody
/// handles them.
pub(super) fn end_at_signals() {
    if std::process::id() != 1 {
        return;
    }
    let signals: SigSet = [Signal::SIGTERM, Signal::SIGINT].into_iter().collect();
    let wait = move || {
        if let Ok(signal) = signals.wait() {
            #[expect(clippy::disallowed_methods, reason = "PID 1 cannot end by a signal")]
            std::process::exit(128 + signal as i32);
        }
    };
    // The new thread inherits the mask, so that no other thread takes the signals.
    if signals.thread_block().is_ok() && std::thread::Builder::new().stack_size(128 * 1024).spawn(wait).is_err() {
        let _ = signals.thread_unblock();
    }
}

/// Keeps other processes of this user from reading our memory and environment, and the kernel from writing core dumps, which would
/// contain every token.
pub(super) fn hide_memory() {
    #[cfg(target_os = "linux")]
    let _ = nix::sys::prctl::set_dumpable(false);
}

/// The soft limit of core files before [`forbid_core_files`].
#[derive(Clone, Copy)]
pub(super) struct CoreLimit(Option<u64>);

impl CoreLimit {
    /// From now on nobody can raise it again.
    pub(super) fn seal(self) {
        let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    }

    /// Sets the limit that there was, for a program that is not ours.
    #[cfg(target_os = "linux")]
    pub(super) fn restore(self) {
        if let (Some(soft), Ok((_, hard))) = (self.0, getrlimit(Resource::RLIMIT_CORE)) {
            let _ = setrlimit(Resource::RLIMIT_CORE, soft.min(hard), hard);
        }
    }
}

/// Disables core files for us and for programs that we start, once more. Gives the limit that there was.
pub(super) fn forbid_core_files() -> CoreLimit {
    let before = getrlimit(Resource::RLIMIT_CORE).ok();
    // The hard limit stays for now: the command of `exec` is to have what its caller had.
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, before.map_or(0, |(_, hard)| hard));
    CoreLimit(before.map(|(soft, _)| soft))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn code_is_unmapped_after_the_start_and_then_regularly() {
        static TIMES: AtomicU32 = AtomicU32::new(0);
        let looks = async {
            for (span, times) in
                [(Duration::from_millis(499), 0), (Duration::from_millis(2), 1), (UNUSED, 2), (UNUSED, 3)]
            {
                tokio::time::sleep(span).await;
                assert_eq!(TIMES.load(Ordering::Relaxed), times, "{span:?} later");
            }
        };
        tokio::select! {
            () = looks => {}
            () = keep_small(|| _ = TIMES.fetch_add(1, Ordering::Relaxed)) => {}
        }
    }
}
