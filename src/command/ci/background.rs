//! The daemon that goes on after the step: it serves the targets alone, keeps their tokens fresh, and ends with the job.
//!
//! Until the outputs are written it holds the other end of a pipe of the step. If the step fails, is cancelled or is killed, the
//! pipe closes, and the daemon revokes what it got and removes its directory. Afterwards it ends by `safeconduct stop`, when its
//! directory is gone, when what the runner removes at the end of the job is gone, or after the longest time that the job may
//! take; or the runner kills what it finds of the job (see `runner`).

use std::ffi::OsString;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use super::super::run::detach::Started;
use super::super::run::{self, Configured, Serving};
use super::super::{Context, Failure};
use super::step::Step;
use super::targets;
use crate::blocking::{self, Kind};
use crate::broker::Class;
use crate::cli::Ci;
use crate::clock::Clock;
use crate::runner;
use crate::sockets;

/// So long the daemon may take to revoke what it got. It has a limit of its own, which is shorter.
const LIMIT: Duration = Duration::from_secs(15);
const LOOK: Duration = Duration::from_millis(20);
/// How often the daemon looks whether the job still is.
const JOB_LOOK: Duration = Duration::from_secs(2);

/// The daemon, seen from the step.
pub(super) struct Background {
    pub(super) socket: PathBuf,
    pub(super) step: Step,
    child: Child,
    /// Closed without a word, it ends the daemon.
    go_on: ChildStdin,
    clock: Clock,
}

impl Background {
    /// Starts it and waits until it listens.
    pub(super) fn start(context: &Context<'_>, verb: &Ci, step: Step) -> Result<Self, Failure> {
        let socket = socket(context, &step.directory);
        let begun = begin(context, verb, &step.directory);
        let started = begun.and_then(|Started { mut child, .. }| {
            let go_on = child.stdin.take().ok_or_else(|| Failure::bug("the daemon has no pipe"))?;
            Ok((child, go_on))
        });
        match started {
            Ok((child, go_on)) => Ok(Self { socket, step, child, go_on, clock: context.clock() }),
            Err(failure) => {
                Step::remove(&step.directory);
                Err(failure)
            }
        }
    }

    /// From now on it lives by itself. Returns its process id.
    pub(super) fn confirm(&mut self) -> Result<u32, Failure> {
        self.go_on.write_all(b"\n").map_err(|_| {
            Failure::new(Class::Temporary, "the daemon has ended").hint("run the step again with `--log debug`")
        })?;
        Ok(self.child.id())
    }

    /// Ends it, and takes back what it got. Nothing stays.
    pub(super) fn end(self) {
        let Self { step, mut child, go_on, clock, .. } = self;
        drop(go_on);
        let begun = clock.boot();
        while matches!(child.try_wait(), Ok(None)) {
            if clock.boot().since(begun) > LIMIT {
                let _ = child.kill().and_then(|()| child.wait());
                break;
            }
            std::thread::sleep(LOOK);
        }
        Step::remove(&step.directory);
    }
}

fn begin(context: &Context<'_>, verb: &Ci, directory: &Path) -> Result<Started, Failure> {
    debug_assert!(verb.detached.is_none(), "the daemon starts no other");
    // This command line, with the child's flag.
    let mut words: Vec<OsString> = std::env::args_os().skip(1).collect();
    let end = words.iter().position(|word| word == "--").unwrap_or(words.len());
    let mut flag = OsString::from("--detached=");
    flag.push(directory);
    words.insert(end, flag);
    Started::begin(context, words, Stdio::piped(), Step::log(directory)?).map(|(started, _)| started)
}

/// The daemon's socket. `SAFECONDUCT_SOCKET` can be that of an earlier step.
fn socket(context: &Context<'_>, directory: &Path) -> PathBuf {
    context.global.socket.clone().unwrap_or_else(|| directory.join(sockets::NAME))
}

/// Is the daemon, until the job ends.
pub(super) fn serve(context: &Context<'_>, verb: &Ci, directory: &Path) -> Result<(), Failure> {
    let (verb, socket) = (verb.clone(), socket(context, directory));
    let configured: Configured = Arc::new(move |context| {
        let (mut config, _) = targets::read(context, &verb)?;
        config.listen.socket = Some(socket.clone());
        Ok(config)
    });
    let served = run::serve(context, &Serving { configured, detached: true }, job_ended(context));
    Step::remove(directory);
    served
}

/// Completes when the step ends without having confirmed, or when the job has ended.
async fn job_ended(context: &Context<'_>) {
    let confirmed = async || {
        let mut pipe = pipe::Receiver::from_owned_fd(std::io::stdin().as_fd().try_clone_to_owned()?)?;
        pipe.read_u8().await
    };
    let row = runner::here(context.env).ok().flatten();
    let longest = row.map(|row| row.longest(context.env)).unwrap_or_default();
    let removed = row.and_then(|row| context.env.get(row.lives_with?)).map(PathBuf::from);
    // The job can end as soon as the step has.
    let removed = removed.filter(|path| path.exists());
    if let Err(error) = confirmed().await {
        tracing::info!(%error, "the step has ended without its outputs");
        return;
    }
    tokio::select! {
        () = tokio::time::sleep(longest) => tracing::info!("the job cannot take longer"),
        () = gone(removed) => tracing::info!("what the runner removes at the end of the job is gone"),
    }
}

/// Completes when there is nothing at this path any more.
async fn gone(path: Option<PathBuf>) {
    let Some(path) = path else { return std::future::pending().await };
    loop {
        tokio::time::sleep(JOB_LOOK).await;
        let looked = path.clone();
        if blocking::run(Kind::Files, move || looked.exists()).await.is_ok_and(|is_there| !is_there) {
            return;
        }
    }
}
