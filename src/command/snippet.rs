//! `safeconduct snippet CLIENT TARGET`: what to paste into the configuration of an MCP client. Stdout is that alone; where it
//! belongs is on stderr.
//!
//! A daemon counts if it answers and serves the target. If none listens, the snippet is for use without one.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::obtain::{self, Unconfigured, Wanted};
use super::output::tell;
use super::{Context, Failure, Printable, print, status, stdio};
use crate::broker::Class;
use crate::cli::{Level, Snippet};
use crate::config::is_name;
use crate::door::{self, Place};
use crate::frontend::oauth;
use crate::oauth::{quoted_words, words};
use crate::snippet::{self, Daemon, Facts, OAuth};
use crate::sockets;
use crate::supervisor;

pub(super) fn run(context: &Context<'_>, verb: &Snippet) -> Result<(), Failure> {
    context.log(Level::Error)?;
    let facts = facts(context, verb)?;
    let made = snippet::of(verb.client, &facts).map_err(|error| {
        Failure::asked(error.to_string())
            .hint("for a server whose URL has it: give the server a name in [servers], and use that name")
    })?;
    // Such a character comes from a path. The forms do not agree on an escape for it.
    if words::json(&made.text) != made.text {
        return Err(Failure::new(Class::Config, "a path in the snippet has characters that are not seen")
            .hint("choose other paths for this program and the daemon's socket"));
    }
    print(&Printable::json(&made.text, context.env))?;
    tell(&Printable::text(
        &format!("safeconduct: paste it into {}\nsafeconduct: {}\n", made.place, made.note),
        context.env,
    ));
    Ok(())
}

fn facts(context: &Context<'_>, verb: &Snippet) -> Result<Facts, Failure> {
    let wanted = Wanted::parse(&verb.target)?;
    let asked = if verb.no_daemon { None } else { Some(status::ask_at(&stdio::serving(context, &wanted), context)) };
    let found = match asked {
        Some(Ok(reply)) => {
            obtain::not_with_a_daemon(context, false)?;
            match at_daemon(context, &wanted, &reply) {
                // The job has a daemon of its own.
                Err(_) if verb.client.is_a_job() => here(context, &wanted)?,
                found => found?,
            }
        }
        None => here(context, &wanted)?,
        Some(Err(absent @ door::Error::Absent { .. })) => {
            here(context, &wanted).map_err(|failure| failure.without_daemon(Some(&absent)))?
        }
        Some(Err(error)) => return Err(error.into()),
    };
    let Found { name, issuer, flags, daemon } = found;
    Ok(Facts {
        program: program(context)?,
        flags,
        no_daemon: verb.no_daemon,
        target: verb.target.clone(),
        url: wanted.url.map(|url| url.as_str().to_owned()),
        // The host of a URL can be an address.
        name: if is_name(&name) { name } else { "server".to_owned() },
        issuer,
        daemon,
        bridge: verb.bridge,
    })
}

/// The server, at a daemon or without one.
struct Found {
    name: String,
    issuer: Option<String>,
    flags: Vec<String>,
    daemon: Option<Daemon>,
}

/// The server with this name or URL at the daemon, from the daemon's status.
fn at_daemon(context: &Context<'_>, wanted: &Wanted, reply: &door::Reply) -> Result<Found, Failure> {
    let status = status::read(reply)?;
    let servers = status["servers"].as_array().map_or(&[][..], Vec::as_slice);
    let name = match (&wanted.url, &wanted.name) {
        (Some(url), _) => stdio::listed(&reply.body, url),
        (None, name) => name.clone(),
    };
    let server =
        servers.iter().find(|server| server["front_door_of"].is_null() && server["name"].as_str() == name.as_deref());
    let (Some(server), Some(name)) = (server, name) else {
        let known: Vec<&str> = servers.iter().filter_map(|server| server["name"].as_str()).collect();
        let message = "the daemon does not serve that, or not to this user";
        return Err(Failure::asked(message)
            .hint(format!("it serves: {}; `--no-daemon` writes for use without it", quoted_words(&known.join(", ")))));
    };
    let shown = server["url"].as_str().unwrap_or_default();
    let listen = &status["listen"];
    // Where we see it: the daemon can see its socket at another path.
    let places = stdio::serving(context, wanted);
    let is_there = |place: &&Place| door::connect(std::slice::from_ref(place), context.env.uid()).is_ok();
    let place = places.iter().find(is_there).ok_or_else(|| {
        Failure::new(Class::Temporary, "the daemon went away").hint("try again when it is back, or use `--no-daemon`")
    })?;
    let socket = absolute(&place.path)?;
    // Clients start helpers with almost no environment: those find the daemon at the compiled-in places alone.
    let is_found = !place.named && sockets::job_of(&place.path, context.env).is_none();
    Ok(Found {
        issuer: server["issuer"].as_str().map(str::to_owned),
        flags: if is_found { Vec::new() } else { vec!["--socket".to_owned(), socket.clone()] },
        daemon: Some(Daemon {
            oauth: token_endpoint(context, listen, &socket, &name),
            // The daemon does not show a query, which may hold a secret.
            url: wanted.url.as_ref().map_or(shown, |url| url.as_str()).to_owned(),
            socket,
        }),
        name,
    })
}

/// The daemon's token endpoint, if it has one and has written the file of its client for this server where we can see it.
fn token_endpoint(context: &Context<'_>, listen: &Value, socket: &str, name: &str) -> Option<OAuth> {
    let address = listen["http"][0].as_str()?;
    let file = oauth::file_of(Path::new(socket), name);
    context.env.metadata(&file).ok()?;
    Some(OAuth { endpoint: format!("http://{address}{}", oauth::PATH), file: file.to_str()?.to_owned() })
}

/// The server, without a daemon: what a bridge of this process would serve, with the same flags.
fn here(context: &Context<'_>, wanted: &Wanted) -> Result<Found, Failure> {
    let mut config = context.config()?;
    let name = obtain::settle(context, &mut config, wanted, Unconfigured::Discover)?
        .ok_or_else(|| Failure::bug("a server that was just added is not served"))?;
    let server = config.servers.iter().find(|server| *server.name == *name);
    let issuer = server.and_then(|server| server.order.issuer()).map(ToString::to_string);
    Ok(Found { name, issuer, flags: flags(context)?, daemon: None })
}

/// The flags of this command that the bridge needs too. Clients need not hand on `SAFECONDUCT_CONFIG`.
fn flags(context: &Context<'_>) -> Result<Vec<String>, Failure> {
    let global = context.global;
    let config = global.config.clone().or_else(|| context.env.get("SAFECONDUCT_CONFIG").map(PathBuf::from));
    let mut flags = Vec::new();
    for (flag, path) in [("--config", config.as_ref()), ("--identity-file", global.identity_file.as_ref())] {
        if let Some(path) = path {
            flags.extend([flag.to_owned(), absolute(path)?]);
        }
    }
    if let Some(identity) = &global.identity {
        flags.extend(["--identity".to_owned(), identity.clone()]);
    }
    if global.insecure_loopback {
        flags.push("--insecure-loopback".to_owned());
    }
    Ok(flags)
}

/// The path of this program: the one in `PATH` that leads to it, because an update does not change that.
fn program(context: &Context<'_>) -> Result<String, Failure> {
    let own = supervisor::own_program(context.env)
        .ok_or_else(|| Failure::new(Class::Config, "the path of this program is not known").hint("mount /proc"))?;
    let is_own = |path: &PathBuf| path.canonicalize().ok() == own.canonicalize().ok();
    absolute(&context.env.program("safeconduct").filter(is_own).unwrap_or(own))
}

/// An absolute path, as text.
fn absolute(path: &Path) -> Result<String, Failure> {
    let absolute = std::path::absolute(path).ok().and_then(|path| path.to_str().map(str::to_owned));
    absolute.ok_or_else(|| {
        Failure::new(Class::Config, format!("{}: a configuration cannot hold this path", path.display()))
            .hint("choose a path that is UTF-8")
    })
}
