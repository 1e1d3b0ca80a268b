//! `safeconduct run`: the daemon, in the foreground or detached.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::setsid;
use tokio::signal::unix::{SignalKind, signal};

use super::obtain::Wanted;
use super::{Context, Failure};
use crate::app::{App, Inherited, Reload};
use crate::audit::Audit;
use crate::broker::{Class, Server};
use crate::cli::{Level, Run};
use crate::config::Config;
use crate::descriptors;
use crate::frontend::operator::{Reloaded, Reloads, Unchanged};
use crate::oauth::ServerUrl;
use crate::{blocking, log, supervisor};

pub(super) mod detach;

pub(super) fn run(context: &Context<'_>, verb: &Run) -> Result<(), Failure> {
    if verb.wait.is_some() && !(verb.detach || verb.detached) {
        return Err(
            Failure::asked("--wait goes with --detach").hint("a daemon in the foreground serves until it is stopped")
        );
    }
    if verb.detach {
        return detach::detach(context, verb);
    }
    let servers = verb.servers.clone();
    let configured: Configured = Arc::new(move |context| configured(context, &servers));
    serve(context, &Serving { configured, detached: verb.detached }, std::future::pending())
}

/// Reads the configuration, at the start and at each reload.
pub(super) type Configured = Arc<dyn Fn(&Context<'_>) -> Result<Config, Failure> + Send + Sync>;

/// What a daemon is to serve.
pub(super) struct Serving {
    pub(super) configured: Configured,
    /// It has a session of its own, and a parent that waits for its first words.
    pub(super) detached: bool,
}

/// Serves until a signal or an order, or until `end` is ready.
pub(super) fn serve(context: &Context<'_>, serving: &Serving, end: impl Future<Output = ()>) -> Result<(), Failure> {
    if serving.detached {
        setsid().map_err(|error| Failure::bug(format!("no session of its own: {error}")))?;
    }
    queue_log()?;
    context.log(Level::Info)?;
    let config = (serving.configured)(context)?;
    descriptors::raise_limit();
    let inherited = inherited()?;
    let insecure = config.egress.insecure_loopback;
    let (count, is_of_use) = (config.servers.len(), !config.servers.is_empty() || config.listen.unlisted);
    let file = config.file.clone();
    context.block_on(async {
        let mut app = App::build_on(inherited, config, context.env.clone(), context.clock())?;
        let (way, stopped) = (app.reload(), app.stop_ordered());
        let reloads = app.take_reloads().ok_or_else(|| Failure::bug("the orders to reload are taken"))?;
        let (shutdown, again) =
            (shutdown_signal(reloads, || reload(context, &serving.configured, &way))?, second_signal()?);
        let orphans = orphans()?;
        let listening = app.listening().clone();
        let (socket, http, health) = (listening.socket.display(), addresses(&listening.http), listening.health);
        tracing::info!(%socket, http, health = health.map(tracing::field::display), servers = count, "listening");
        if !is_of_use {
            let file = file.map(|file| file.display().to_string());
            tracing::warn!(
                file,
                "no server is configured, so nothing can be asked for: `safeconduct config init` shows how"
            );
        }
        if insecure {
            tracing::warn!("plain http and loopback addresses are allowed: for development only");
        }
        if serving.detached {
            detach::tell_parent(&listening, context.env)?;
        }
        // Fails without a service manager, which is fine.
        drop(sd_notify::notify(&[sd_notify::NotifyState::Ready]));
        let told = async {
            tokio::select! {
                () = shutdown => {}
                () = stopped => {}
                () = end => {}
            }
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
    return supervisor::orphans::reap().map_err(|error| Failure::bug(format!("no signals: {error}")));
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
        refuse_overlap(config, &name, &url)?;
        if url.url().scheme() == "http" && !config.egress.insecure_loopback {
            return Err(plain_http(&name));
        }
        config.add_server(&name, &url, context.env).required = true;
    }
    Ok(())
}

/// Fails if a server with this name or URL is there, so that either could be meant.
pub(super) fn refuse_overlap(config: &Config, name: &str, url: &ServerUrl) -> Result<(), Failure> {
    let overlaps = |server: &Server| *server.name == *name || server.url.covers(url) || url.covers(&server.url);
    if config.servers.iter().any(overlaps) {
        return Err(Failure::asked(format!("{name:?} or its URL is configured already"))
            .hint("name each server once, on the command line or in the file"));
    }
    Ok(())
}

/// The server of this name is reached without TLS.
pub(super) fn plain_http(name: &str) -> Failure {
    Failure::new(Class::Config, format!("{name}: plain http is refused"))
        .hint("write https:// in the URL; for development on loopback `--insecure-loopback`")
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

/// Completes at SIGTERM or SIGINT. Until then it reloads at SIGHUP and when the operator orders it.
fn shutdown_signal<R: Future<Output = Reloaded>>(
    mut reloads: Reloads,
    reload: impl Fn() -> R,
) -> Result<impl Future<Output = ()>, Failure> {
    let cannot = |error: std::io::Error| Failure::bug(format!("no signals: {error}"));
    let mut term = signal(SignalKind::terminate()).map_err(cannot)?;
    let mut int = signal(SignalKind::interrupt()).map_err(cannot)?;
    let mut hup = signal(SignalKind::hangup()).map_err(cannot)?;
    Ok(async move {
        let waiting = RefCell::new(Vec::new());
        // A closed terminal must not end the daemon.
        let hung_up = gathered(
            async || {
                tokio::select! {
                    _ = hup.recv() => {}
                    Some(order) = reloads.recv() => waiting.borrow_mut().push(order),
                }
                while let Ok(order) = reloads.try_recv() {
                    waiting.borrow_mut().push(order);
                }
            },
            async || {
                let orders = waiting.take();
                let outcome = reload().await;
                for order in orders {
                    // Who asked may have left.
                    drop(order.send(outcome.clone()));
                }
            },
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
async fn gathered(mut signal: impl AsyncFnMut(), act: impl AsyncFn()) {
    loop {
        signal().await;
        act().await;
        tokio::time::sleep(BETWEEN_RELOADS).await;
    }
}

/// Reopens the audit file after a rotation and reloads the configuration. If the new configuration is bad, it reports the
/// problems and keeps the old one.
async fn reload(context: &Context<'_>, configured: &Configured, way: &Reload) -> Reloaded {
    reopen(way.audit());
    let (global, env, configured) = (context.global.clone(), context.env.clone(), Arc::clone(configured));
    let read = move || configured(&Context { global: &global, env: &env });
    let read = blocking::run(blocking::Kind::Settings, read).await;
    let read = read.map_err(|error| Failure::new(Class::Temporary, format!("it cannot be read now: {error}")));
    let swapped = read.flatten().and_then(|config| way.swap(config).map_err(Failure::from));
    match swapped {
        Ok(loaded) => {
            tracing::info!(servers = loaded.servers, "the configuration is read anew");
            Ok(loaded)
        }
        Err(Failure { exit, message, hint, .. }) => {
            tracing::error!(error = message, hint, "the configuration is not taken over; the old one stays");
            // Asked wrongly is what the command line of `run` does not allow beside the new file.
            let class = if exit == Class::Temporary.exit_code() { Class::Temporary } else { Class::Config };
            let words = message.split('\n').map(str::trim).collect::<Vec<_>>().join("; ");
            let why = Unchanged { class, words, hint };
            way.note_failure(&why);
            Err(why)
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_storm_of_hangups_is_a_few_reloads_and_the_last_one_counts() {
        let (hangup, reloads, told) = (Notify::new(), Cell::new(0), Cell::new(0));
        let seen = Cell::new(0);
        let act = async || {
            reloads.set(reloads.get() + 1);
            seen.set(told.get());
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
