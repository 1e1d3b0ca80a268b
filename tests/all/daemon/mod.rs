//! `safeconduct run`: how it starts, where it listens, whom it serves and how it ends.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getegid, geteuid, getsid};
use serde_json::{Value, json};
use support::fault::Fault;
use support::leak;
use support::memory::memory;
use support::safeconduct::{Output, Running, Safeconduct};
use support::scene::Scene;
use support::tcp_http::Loopback;
use support::unix_http;
use support::wait::until;

use crate::exit::{ASKED_WRONGLY, CONFIG, DENIED, NO_IDENTITY, REFUSED, TEMPORARY};
use crate::{LIMIT, binary};

mod detached;
mod end;
mod health;
mod operator;
mod peers;
mod place;
mod service_manager;
mod start;
mod who_may_ask;

async fn answers(socket: &Path) -> bool {
    unix_http::get(socket, "/healthz").await.is_ok_and(|reply| reply.status == 200)
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
}

/// A new directory in the directory of this world.
fn directory(world: &Safeconduct, name: &str, mode: u32) -> PathBuf {
    let path = world.path().join(name);
    fs::create_dir(&path).expect("it is new");
    set_mode(&path, mode);
    path
}

/// Runs a daemon that must fail by itself.
async fn fails(world: &Safeconduct, args: &[&str]) -> Output {
    world.run(&[&["run"], args].concat()).await
}

/// A process that is not our child. It ends with the test.
struct Detached(Pid);

impl Detached {
    fn of(pid: &str) -> Self {
        Self(Pid::from_raw(pid.parse().expect("a process id")))
    }

    fn lives(&self) -> bool {
        kill(self.0, None).is_ok()
    }
}

impl Drop for Detached {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGKILL);
    }
}

/// `name   value` lines.
fn fields(text: &str) -> BTreeMap<&str, &str> {
    text.lines().filter_map(|line| line.split_once(' ')).map(|(name, value)| (name, value.trim())).collect()
}
