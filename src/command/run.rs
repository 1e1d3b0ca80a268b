//! `safeconduct run`: the daemon, in the foreground or detached.

use std::fs::{File, Permissions};
use std::io::Read;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::unistd::{dup2_stdout, setsid};
use tokio::signal::unix::{SignalKind, signal};

use super::obtain::Wanted;
use super::{Context, Failure, Printable, print, tell};
use crate::app::{App, Inherited, Reload};
use crate::audit::Audit;
use crate::broker::Class;
use crate::cli::{Level, Run};
use crate::config::Config;
use crate::env::{Env, descriptors, open_regular, sockets};
use crate::frontend::desk::Listening;
use crate::oauth::shell_word;
use crate::{blocking, child, door, log};

pub(super) fn run(context: &Context<'_>, verb: &Run) -> Result<(), Failure> {
    if verb.detach { detach(context, verb) } else { serve(context, verb) }
}

fn serve(context: &Context<'_>, verb: &Run) -> Result<(), Failure> {
    if verb.detached {
        setsid().map_err(|error| Failure::bug(format!("no session of its own: {error}")))?;
    }
    queue_log()?;
    context.log(Level::Info)?;
    let config = configured(context, &verb.servers)?;
    descriptors::raise_limit();
    let inherited = inherited()?;
    let insecure = config.egress.insecure_loopback;
    let count = config.servers.len();
    context.block_on(async {
        let app = App::build_on(inherited, config, context.env.clone(), context.clock())?;
        let way = app.reload();
        let (shutdown, again) = (shutdown_signal(|| reload(context, verb, &way))?, second_signal()?);
        let orphans = orphans()?;
        let listening = app.listening().clone();
        let (socket, http, health) = (listening.socket.display(), addresses(&listening.http), listening.health);
        tracing::info!(%socket, http, health = health.map(tracing::field::display), servers = count, "listening");
        if insecure {
            tracing::warn!("plain http and loopback addresses are allowed: for development only");
        }
        if verb.detached {
            tell_parent(&listening, context.env)?;
        }
        // Fails without a service manager, which is fine.
        drop(sd_notify::notify(&[sd_notify::NotifyState::Ready]));
        let told = async {
            shutdown.await;
            tracing::info!("stopping");
            drop(sd_notify::notify(&[sd_notify::NotifyState::Stopping]));
        };
        tokio::select! {
            ended = app.run_or_end(told, again) => Ok(ended?),
            () = orphans => Ok(()),
        }
    })
}

/// From now on nothing waits for the log. Without threads a daemon could not look up a name either, so it says so at once.
fn queue_log() -> Result<(), Failure> {
    log::start().map_err(|error| {
        Failure::new(Class::Temporary, format!("no thread can be started: {error}")).hint(
            "raise the limit of processes and threads (`ulimit -u`, `TasksMax=` of a unit, the pids limit of a container)",
        )
    })
}

/// Waits for the children that nobody else waits for, as long as the daemon lives.
fn orphans() -> Result<impl Future<Output = ()>, Failure> {
    #[cfg(target_os = "linux")]
    return child::orphans::reap().map_err(|error| Failure::bug(format!("no signals: {error}")));
    #[cfg(not(target_os = "linux"))]
    Ok(std::future::pending())
}

/// The configuration file with the additions of the command line.
fn configured(context: &Context<'_>, servers: &[String]) -> Result<Config, Failure> {
    let mut config = context.config()?;
    add_servers(&mut config, context, servers)?;
    Ok(config)
}

fn add_servers(config: &mut Config, context: &Context<'_>, servers: &[String]) -> Result<(), Failure> {
    for text in servers {
        let Wanted { name: Some(name), url: Some(url) } = Wanted::parse(text)? else {
            return Err(
                Failure::asked("a server for `run` is NAME=URL").hint("for example deploy=https://mcp.example.com/mcp")
            );
        };
        if config
            .servers
            .iter()
            .any(|server| *server.name == *name || server.url.covers(&url) || url.covers(&server.url))
        {
            return Err(Failure::asked(format!("{name:?} or its URL is configured already"))
                .hint("use the configured server, or take it out of the file"));
        }
        if url.url().scheme() == "http" && !config.egress.insecure_loopback {
            return Err(Failure::new(Class::Config, format!("{name}: plain http is refused"))
                .hint("use https; for development on loopback `--insecure-loopback`"));
        }
        config.add_server(&name, &url, context.env).required = true;
    }
    Ok(())
}

/// Listeners that a service manager passed (`LISTEN_FDS`), which the listenfd crate reads by itself: one Unix socket,
/// and those of the loopback listener.
fn inherited() -> Result<Inherited, Failure> {
    let wrong = |what: String| {
        Failure::new(Class::Config, format!("the inherited socket {what}"))
            .hint("pass one Unix stream socket, `ListenStream=/run/safeconduct/safeconduct.sock`, and beside it no more than the address of `http` in [listen]")
    };
    let mut passed = listenfd::ListenFd::from_env();
    let mut inherited = Inherited::default();
    for at in 0..passed.len() {
        if let Ok(Some(listener)) = passed.take_tcp_listener(at) {
            inherited.tcp.push(listener);
            continue;
        }
        let socket = passed.take_unix_listener(at);
        let socket = socket.map_err(|_| wrong("is neither a Unix stream socket nor a TCP listener".to_owned()))?;
        if inherited.socket.is_some() {
            return Err(wrong("is the second Unix socket; one is served".to_owned()));
        }
        inherited.socket = socket;
    }
    Ok(inherited)
}

fn shutdown_signal<R: Future<Output = ()>>(hung_up: impl Fn() -> R) -> Result<impl Future<Output = ()>, Failure> {
    let cannot = |error: std::io::Error| Failure::bug(format!("no signals: {error}"));
    let mut term = signal(SignalKind::terminate()).map_err(cannot)?;
    let mut int = signal(SignalKind::interrupt()).map_err(cannot)?;
    let mut hup = signal(SignalKind::hangup()).map_err(cannot)?;
    Ok(async move {
        // A closed terminal must not end the daemon.
        let hung_up = gathered(
            async move || {
                hup.recv().await;
            },
            hung_up,
        );
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
            () = hung_up => {}
        }
    })
}

/// The shortest time between two reloads: each reads the trusted roots anew.
const BETWEEN_RELOADS: Duration = Duration::from_secs(1);

/// Acts on each signal at once. Signals that come soon after another are gathered: one action follows for all of them.
async fn gathered<R: Future<Output = ()>>(mut signal: impl AsyncFnMut(), act: impl Fn() -> R) {
    loop {
        signal().await;
        act().await;
        tokio::time::sleep(BETWEEN_RELOADS).await;
    }
}

/// Handles SIGHUP: reopens the audit file after a rotation and reloads the configuration. If the new configuration is bad, it
/// reports the problems and keeps the old one.
async fn reload(context: &Context<'_>, verb: &Run, way: &Reload) {
    reopen(way.audit());
    let (global, env, servers) = (context.global.clone(), context.env.clone(), verb.servers.clone());
    let read = move || configured(&Context { global: &global, env: &env }, &servers);
    let read = blocking::run(blocking::Kind::Settings, read).await;
    let read = read.map_err(|error| Failure::new(Class::Temporary, format!("it cannot be read now: {error}")));
    let swapped = read.flatten().and_then(|config| {
        let servers = config.servers.len();
        way.swap(config).map(|()| servers).map_err(Failure::from)
    });
    match swapped {
        Ok(servers) => tracing::info!(servers, "the configuration is read anew"),
        Err(Failure { message, hint, .. }) => {
            tracing::error!(error = message, hint, "the configuration is not taken over; the old one stays");
        }
    }
}

/// Completes at the second SIGTERM or SIGINT, which ends the daemon immediately.
fn second_signal() -> Result<impl Future<Output = ()>, Failure> {
    let cannot = |error: std::io::Error| Failure::bug(format!("no signals: {error}"));
    let mut term = signal(SignalKind::terminate()).map_err(cannot)?;
    let mut int = signal(SignalKind::interrupt()).map_err(cannot)?;
    Ok(async move {
        for _ in 0..2 {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
        }
    })
}

/// The addresses as one log field. `None` if there are none.
fn addresses(addresses: &[SocketAddr]) -> Option<String> {
    let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    (!texts.is_empty()).then(|| texts.join(" "))
}

/// Reopens the audit file after a rotation. If the new file cannot be opened, the old one stays in use.
fn reopen(audit: Option<&Audit>) {
    match audit.map(Audit::reopen) {
        None => {}
        Some(Ok(())) => tracing::info!("the audit file is open anew"),
        Some(Err(error)) => tracing::error!(%error, hint = error.hint(), "the audit goes on in the file it has"),
    }
}

/// Starts the same command as a daemon of its own, with its output in a private log, and waits until it is ready.
fn detach(context: &Context<'_>, verb: &Run) -> Result<(), Failure> {
    // What the caller has left open (a lock, a pipe that somebody reads to its end) is not for a daemon.
    descriptors::close_inherited();
    let config = configured(context, &verb.servers)?;
    let (path, mut log) = open_log(context, &config)?;
    let start = log.metadata().map(|metadata| metadata.len()).unwrap_or(0);
    let failed = |error: std::io::Error| Failure::bug(format!("the daemon cannot be started: {error}"));
    let program = child::own_program(context.env)
        .ok_or_else(|| Failure::bug("this program's own file is not found").hint("call it by its absolute path"))?;
    // This command line, with the child's flag instead of ours.
    let words = std::env::args_os().skip(1).map(|word| if word == "--detach" { "--detached".into() } else { word });
    let mut child = Command::new(program)
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log.try_clone().map_err(failed)?)
        .spawn()
        .map_err(failed)?;
    let mut said = String::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(4_096).read_to_string(&mut said).map_err(failed)?;
    }
    if let Some((first, _)) = said.split_once('\n') {
        let socket = first.trim_start_matches(SOCKET).trim_start();
        let said = format!("{said}pid    {}\nlog    {}\n", child.id(), path.display());
        return print(&Printable::text(&said, context.env)).map(|()| tell_flag(context, socket));
    }
    let status = child.wait().map_err(failed)?;
    let exit = status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .filter(|code| *code != 0)
        .unwrap_or_else(|| Class::Internal.exit_code());
    Err(Failure { exit, ..last_message(&mut log, start, &path) })
}

/// Prints the `--socket` flag that helpers need if the socket is not at a default path.
fn tell_flag(context: &Context<'_>, socket: &str) {
    let usual = door::places(None, context.env);
    if !usual.iter().any(|place| place.path.as_os_str() == socket)
        || context.env.get("SAFECONDUCT_SOCKET").is_some()
        || sockets::job_directory(context.env).is_some()
    {
        let socket = shell_word(socket).unwrap_or_else(|| "PATH".to_owned());
        let note =
            format!("safeconduct: hint: helpers that do not inherit this environment need `--socket {socket}`\n");
        tell(&Printable::text(&note, context.env));
    }
}

fn open_log(context: &Context<'_>, config: &Config) -> Result<(PathBuf, File), Failure> {
    let explicit = config.listen.socket.clone().map(|socket| vec![socket]);
    let sockets = explicit.clone().unwrap_or_else(|| sockets::to_bind(context.env));
    let mut last = None;
    for socket in sockets {
        let directory = socket.parent().map(PathBuf::from).unwrap_or_default();
        if explicit.is_none() {
            // The daemon checks whose directory it is; here it only has to exist for the log.
            use std::os::unix::fs::DirBuilderExt;
            drop(std::fs::DirBuilder::new().mode(0o700).create(&directory));
        }
        let mut path = socket.into_os_string();
        path.push(".log");
        let mut options = File::options();
        options.create(true).append(true).read(true).mode(0o600);
        let opened = open_regular(std::path::Path::new(&path), &mut options, nix::fcntl::OFlag::O_NOFOLLOW);
        // An existing file keeps its mode when it is opened, so set it.
        match opened.and_then(|log| log.set_permissions(Permissions::from_mode(0o600)).map(|()| log)) {
            Ok(log) => return Ok((path.into(), log)),
            Err(error) => last = Some(format!("{}: {error}", path.to_string_lossy())),
        }
    }
    Err(Failure::new(Class::Config, format!("no place for the log: {}", last.unwrap_or_default()))
        .hint("choose another place with `--socket`"))
}

/// The daemon's last message in its part of the log.
fn last_message(log: &mut File, start: u64, path: &std::path::Path) -> Failure {
    use std::io::{Seek, SeekFrom};
    let mut text = String::new();
    let read = log.seek(SeekFrom::Start(start)).and_then(|_| log.take(64 * 1024).read_to_string(&mut text));
    let of = |mark: &str| {
        text.rfind(mark)
            .map(|at| text[at + mark.len()..].split("\nsafeconduct: ").next().unwrap_or_default().trim_end().to_owned())
    };
    let message = read
        .ok()
        .and_then(|_| of("safeconduct: error: "))
        .unwrap_or_else(|| format!("the daemon ended at once; see {}", path.display()));
    // The daemon has written it line by line.
    let lines = message.lines().map(str::to_owned).collect();
    Failure { lines, ..Failure::new(Class::Internal, message) }.hint_maybe(of("safeconduct: hint: "))
}

/// The word before the socket's path in what a detached start prints.
const SOCKET: &str = "socket";

/// Tells the waiting parent where we listen, then closes its pipe: from now on stdout is the log too.
fn tell_parent(listening: &Listening, env: &Env) -> Result<(), Failure> {
    let mut said = format!("{SOCKET} {}\n", listening.socket.display());
    if let (Some(http), Some(secret)) = (addresses(&listening.http), &listening.http_secret) {
        said.push_str(&format!("http   {http}\nsecret {}\n", secret.display()));
    }
    if let Some(health) = listening.health {
        said.push_str(&format!("health {health}\n"));
    }
    print(&Printable::text(&said, env))?;
    dup2_stdout(std::io::stderr().as_fd()).map_err(|error| Failure::bug(format!("stdout cannot be given up: {error}")))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_storm_of_hangups_is_a_few_reloads_and_the_last_one_counts() {
        let (hangup, reloads, told) = (Notify::new(), Cell::new(0), Cell::new(0));
        let seen = Cell::new(0);
        let act = || {
            reloads.set(reloads.get() + 1);
            seen.set(told.get());
            std::future::ready(())
        };
        let storm = async {
            for _ in 0..1_000 {
                told.set(told.get() + 1);
                hangup.notify_one();
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            tokio::time::sleep(2 * BETWEEN_RELOADS).await;
        };
        tokio::select! {
            () = gathered(async || hangup.notified().await, act) => {}
            () = storm => {}
        }
        assert!((2..=4).contains(&reloads.get()), "{} reloads", reloads.get());
        assert_eq!(seen.get(), 1_000, "nothing that was told is missed");
    }
}
