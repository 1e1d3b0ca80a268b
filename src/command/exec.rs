//! `safeconduct exec`: runs a command beside an endpoint of its own, without the variables of the job's identity.
//!
//! | process | what it does |
//! |---|---|
//! | the supervisor, which the caller has started | passes signals on, waits for the command and for orphans, ends as the command did |
//! | the endpoint, in a session of its own | a private daemon that serves the targets, in a new directory |
//! | the command | what the caller wants to run; its parent is the supervisor |
//!
//! The endpoint reads a pipe whose other end only the supervisor has. If the supervisor is killed, the endpoint kills the command with
//! all that it has started, and removes the directory. If the endpoint is killed, the supervisor does that. If both are killed, the
//! directory stays until the next `exec`, which removes those whose lock is free ([`place`]).
//!
//! Neither of the two is dumpable, so no other process of the same user can read their environment in /proc.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Stdio};
use std::time::Duration;

use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::obtain::{Refused, strange};
use super::{Context, CoreLimit, Failure};
use crate::broker::Class;
use crate::cli::Exec;
use crate::frontend::dialect::Handed;
use crate::supervisor::{self, begin, process};
use crate::{descriptors, sockets};
use place::Place;
use supervise::{Ended, Supervisor};

mod place;
mod serve;
mod supervise;

/// What the endpoint says of itself when it serves.
#[derive(Deserialize, Serialize)]
struct Announced {
    /// Where the servers are, without their names.
    url: String,
    /// The names of the servers by the names in variables.
    servers: BTreeMap<String, String>,
    /// The variables that are not for the command.
    withheld: Vec<String>,
}

/// How long the endpoint may take to end: it revokes tokens, if that is configured.
const FAREWELL: Duration = Duration::from_secs(6);

/// Keeps its stack frame off the path of a helper call.
#[inline(never)]
pub(super) fn run(context: &Context<'_>, verb: &Exec, limit: CoreLimit) -> Result<u8, Failure> {
    match &verb.serve {
        Some(directory) => serve::run(context, verb, directory).map(|()| 0),
        None => supervise(context, verb, limit),
    }
}

fn supervise(context: &Context<'_>, verb: &Exec, limit: CoreLimit) -> Result<u8, Failure> {
    let inherited = descriptors::inherited();
    let own_program = supervisor::own_program(context.env)
        .ok_or_else(|| Failure::bug("this program's own file is not found").hint("call it by its absolute path"))?;
    let place = Place::make(&sockets::for_private_directories(context.env), context.env.uid())?;
    let mut supervisor = Supervisor::new()?;
    let mut endpoint = Endpoint::start(&own_program, &place, &mut supervisor)?;
    let announced = match supervisor.announcement(&mut endpoint.stdout)? {
        Ok(announced) => announced,
        Err(ended) => {
            endpoint.end(&mut supervisor);
            drop(place);
            return Ok(ended.as_code(supervisor));
        }
    };
    let announced: Announced =
        serde_json::from_slice(&announced).map_err(|_| Failure::bug("the endpoint says nothing"))?;
    // We cannot be dumped ourselves.
    limit.restore();
    let started = start(context, verb, (&own_program, &place), &announced, &supervisor);
    let command = match started {
        Ok(command) => command,
        Err(failure) => {
            endpoint.end(&mut supervisor);
            return Err(failure);
        }
    };
    endpoint.tell(&format!("command {command} {}\n", process::started(command.as_raw()).unwrap_or_default()));
    // Whoever waits for the end of such a descriptor waits for the command, not for us.
    descriptors::close(&inherited);
    let ended = supervisor.wait(command);
    if matches!(ended, Ended::WithoutEndpoint) {
        supervisor.end_command(command, (SOCKET, &place.socket()));
    } else {
        endpoint.end(&mut supervisor);
    }
    drop(place);
    match ended {
        Ended::WithoutEndpoint => {
            Err(Failure::new(Class::Temporary, "the endpoint of the command was killed, so the command was ended")
                .hint("look for what killed it, for example a limit of memory"))
        }
        ended => Ok(ended.as_code(supervisor)),
    }
}

/// The variable with the socket.
const SOCKET: &str = "SAFECONDUCT_SOCKET";

/// Starts the command.
fn start(
    context: &Context<'_>,
    verb: &Exec,
    (own_program, place): (&Path, &Place),
    announced: &Announced,
    supervisor: &Supervisor,
) -> Result<Pid, Failure> {
    let [program, arguments @ ..] = verb.command.as_slice() else { return Err(Failure::asked("no command is given")) };
    let mut command = begin::command(own_program, program, supervisor.held_back());
    command.args(arguments);
    for name in &announced.withheld {
        command.env_remove(name);
    }
    command.env(SOCKET, place.socket());
    for (spelled, name) in &announced.servers {
        command.env(format!("SAFECONDUCT_URL_{spelled}"), format!("{}{name}", announced.url));
        if verb.env {
            let text = token(context, verb, place, name)?.variable(name);
            let value = text.split_once('=').map(|(_, value)| value).unwrap_or_default();
            command.env(format!("SAFECONDUCT_TOKEN_{spelled}"), value);
        }
    }
    if !supervisor.shares_group() {
        command.process_group(0);
    }
    let child = command.spawn().map_err(|error| cannot_start(own_program.as_os_str(), &error))?;
    i32::try_from(child.id()).map(Pid::from_raw).map_err(|_| Failure::bug("a process has no number"))
}

/// A token, which the endpoint has fetched before it said that it serves.
fn token(context: &Context<'_>, verb: &Exec, place: &Place, name: &str) -> Result<Handed, Failure> {
    let reply = serve::ask_token(&place.socket(), name, verb, context.env.uid())?;
    if reply.status != 200 {
        return Err(Refused::read(&reply).map_or_else(strange, Refused::into_failure));
    }
    Handed::read(&reply.body).ok_or_else(strange)
}

/// The failure of a command that cannot be started, with the exit code of env(1).
pub(super) fn cannot_start(program: &OsStr, error: &io::Error) -> Failure {
    let exit = if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 };
    let message = format!("{}: {error}", program.display());
    Failure { exit, ..Failure::new(Class::BadRequest, message) }
}

/// The private daemon, as the supervisor sees it.
struct Endpoint {
    stdout: ChildStdout,
    /// Open as long as we live.
    stdin: ChildStdin,
}

impl Endpoint {
    fn start(own_program: &Path, place: &Place, supervisor: &mut Supervisor) -> Result<Self, Failure> {
        let failed = |error: io::Error| Failure::bug(format!("the endpoint cannot be started: {error}"));
        // This command line without the command, which is no matter of the endpoint.
        let words = std::env::args_os().skip(1).take_while(|word| word != "--");
        let mut child = begin::command(own_program, own_program.as_os_str(), supervisor.held_back())
            .args(words)
            .arg("--serve")
            .arg(place.directory())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let pid = i32::try_from(child.id()).map(Pid::from_raw).ok();
        match (pid, child.stdin.take(), child.stdout.take()) {
            (Some(pid), Some(stdin), Some(stdout)) => {
                supervisor.endpoint = Some(pid);
                Ok(Self { stdout, stdin })
            }
            _ => Err(Failure::bug("the endpoint has no pipes")),
        }
    }

    fn tell(&mut self, line: &str) {
        // It may have been killed; the supervisor notices that by itself.
        drop(self.stdin.write_all(line.as_bytes()));
    }

    /// Ends it in an orderly way, or after a while in another.
    fn end(mut self, supervisor: &mut Supervisor) {
        self.tell("end\n");
        drop(self.stdin);
        supervisor.wait_for_endpoint(FAREWELL);
    }
}
