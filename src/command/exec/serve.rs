//! The endpoint: a private daemon for one command. It serves the targets in its own directory and on loopback, until the supervisor
//! says that the command has ended, or is gone itself.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use nix::unistd::setsid;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::unix::pipe::Receiver;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use url::form_urlencoded::Serializer;

use super::place::Place;
use super::{Announced, SOCKET};
use crate::app::{App, KeepIdentity, of_identities};
use crate::blocking::{self, Kind};
use crate::broker::{Class, Server};
use crate::caller::{Caller, Facts, Needs};
use crate::cli::{Exec, Level};
use crate::command::obtain::{self, Refused, Unconfigured, Wanted};
use crate::command::{Context, Failure, Printable, print, status, stdio};
use crate::config::{Config, Listen};
use crate::descriptors;
use crate::door;
use crate::frontend::behind::Behind;
use crate::frontend::dialect::variable_name;
use crate::log;
use crate::oauth::{Issuer, Scopes, ServerUrl, quoted_words};
use crate::process::Process;
use crate::supervisor::process::Family;

/// What ends a command does not end its endpoint, which the command may need to the last: these signals are sent to groups, too.
const IGNORED: [SignalKind; 6] = [
    SignalKind::hangup(),
    SignalKind::interrupt(),
    SignalKind::quit(),
    SignalKind::terminate(),
    SignalKind::user_defined1(),
    SignalKind::user_defined2(),
];

pub(super) fn run(context: &Context<'_>, verb: &Exec, directory: &Path) -> Result<(), Failure> {
    let failed = |what: &str, error: io::Error| Failure::bug(format!("{what}: {error}"));
    // What the caller has left open is for the command.
    descriptors::close_inherited();
    setsid().map_err(|error| failed("no session of its own", error.into()))?;
    let place = Place::hold(directory).map_err(|error| failed("the directory of the endpoint", error))?;
    // Nobody may read stderr, and nothing may wait for that.
    log::start().map_err(|error| Failure::new(Class::Temporary, format!("no thread can be started: {error}")))?;
    context.log(Level::Warn)?;
    let kept = KeepIdentity::parse(&verb.keep_identity).map_err(|known| {
        Failure::asked("--keep-identity names no identity source").hint(format!("known are: {}", known.join(", ")))
    })?;
    context.block_on(async {
        let _ignored: Vec<_> =
            IGNORED.into_iter().map(signal).collect::<io::Result<_>>().map_err(|error| failed("no signals", error))?;
        let orders = Orders::open().map_err(|error| failed("no orders", error))?;
        let daemon = daemon(context, verb)?;
        let (mut config, servers) = match &daemon {
            Some(place) => listed(context, verb, place)?,
            None => planned(context, verb).await?,
        };
        config.listen = Listen::private(place.socket(), SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let withheld = of_identities(&config, context.env, &kept);
        let (env, clock) = (context.env.clone(), context.clock());
        let app = match daemon {
            Some(place) => App::build_before(behind(place, context.env.uid()), config, env, clock)?,
            None => App::build_private(config, env, clock)?,
        };
        let url = app.listening().http.first().map(|address| format!("http://{address}/mcp/"));
        let announced = Announced { url: url.unwrap_or_default(), servers, withheld };
        serve(context, verb, app, (announced, orders, place)).await
    })
}

async fn serve(
    context: &Context<'_>,
    verb: &Exec,
    app: App,
    (announced, mut orders, place): (Announced, Orders, Place),
) -> Result<(), Failure> {
    let (end, lost) = (CancellationToken::new(), CancellationToken::new());
    let watched = async {
        if orders.end().await == End::Told {
            end.cancel();
        } else {
            // The supervisor was killed. First of all nothing may run that it has started.
            orders.kill_command((SOCKET, &place.socket()));
            place.remove();
            lost.cancel();
        }
        std::future::pending::<()>().await;
    };
    let served = app.run_or_end(end.cancelled(), lost.cancelled());
    let announce = async {
        if verb.env {
            fetch(context, verb, &place, &announced).await?;
        }
        let text = serde_json::to_string(&announced).map_err(|_| Failure::bug("the endpoint cannot be described"))?;
        print(&Printable::own(format!("{text}\n")))
    };
    tokio::pin!(served, watched);
    tokio::select! {
        ended = &mut served => return Ok(ended?),
        () = &mut watched => {}
        announced = announce => announced?,
    }
    tokio::select! {
        ended = served => Ok(ended?),
        () = watched => Ok(()),
    }
}

/// Fetches the tokens that the command is given, so that the supervisor does not wait for them.
async fn fetch(context: &Context<'_>, verb: &Exec, place: &Place, announced: &Announced) -> Result<(), Failure> {
    for name in announced.servers.values() {
        let (socket, request, uid) = (place.socket(), token_request(name, verb, verb.wishes.fresh), context.env.uid());
        let limit = verb.wishes.timeout;
        let ask =
            move || door::ask(&[door::Place { path: socket, named: true, of_step: false }], &request, None, uid, limit);
        let reply = blocking::run(Kind::Programs, ask).await;
        let reply = reply.map_err(|error| Failure::new(Class::Temporary, error.to_string()))??;
        if reply.status != 200 {
            return Err(Refused::read(&reply).map_or_else(obtain::strange, Refused::into_failure));
        }
    }
    Ok(())
}

/// Asks the endpoint for a token.
pub(super) fn ask_token(socket: &Path, name: &str, verb: &Exec, uid: u32) -> Result<door::Reply, door::Error> {
    let places = [door::Place { path: socket.to_owned(), named: true, of_step: false }];
    // The endpoint has got the new ones already.
    door::ask(&places, &token_request(name, verb, false), None, uid, verb.wishes.timeout)
}

fn token_request(name: &str, verb: &Exec, fresh: bool) -> String {
    let mut query = Serializer::new(String::new());
    query.append_pair("server", name).append_pair("use", "helper");
    if !verb.wishes.scopes.is_empty() {
        query.append_pair("scope", &verb.wishes.scopes.join(" "));
    }
    if let Some(least) = verb.wishes.min_ttl {
        query.append_pair("min_ttl", &least.as_secs().to_string());
    }
    if fresh {
        query.append_pair("fresh", "1");
    }
    format!("GET /v1/token?{}", query.finish())
}

/// The configuration that serves the targets alone, and their servers by their names in variables.
type Planned = (Config, BTreeMap<String, String>);

/// The place of the present daemon, where one answers. Without one the endpoint does the work itself. It stays with this one: if that
/// goes away, another with servers of the same names may have another identity.
fn daemon(context: &Context<'_>, verb: &Exec) -> Result<Option<door::Place>, Failure> {
    if verb.wishes.no_daemon {
        return Ok(None);
    }
    let places = match verb.targets.first() {
        Some(first) => stdio::serving(context, &Wanted::parse(first)?),
        None => door::places(context.global.socket.as_ref(), context.env),
    };
    let place = match door::listening(&places, context.env.uid()) {
        Ok(place) => place.clone(),
        Err(absent) if absent.lets_work_here() && !verb.wishes.daemon_only => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    obtain::not_with_a_daemon(context, verb.wishes.issuer.is_some())?;
    if !verb.wishes.scopes.is_empty() {
        return Err(Failure::asked("--scope cannot narrow the servers of a daemon that answers").hint(
            "do the work in this process with `--no-daemon`, or give this user an `allow` entry with `scopes` there",
        ));
    }
    Ok(Some(place))
}

/// The way to the daemon at this place.
fn behind(place: door::Place, uid: u32) -> Behind {
    let may_come_back = |error: door::Error| match error {
        door::Error::Absent { .. } | door::Error::TimedOut { .. } => {
            io::Error::new(io::ErrorKind::ConnectionRefused, error)
        }
        error => io::Error::other(error),
    };
    Behind(Box::new(move || door::connect(std::slice::from_ref(&place), uid).map_err(may_come_back)))
}

/// The targets among the servers that the present daemon serves to this user.
fn listed(context: &Context<'_>, verb: &Exec, place: &door::Place) -> Result<Planned, Failure> {
    #[derive(Deserialize)]
    struct Status {
        servers: Vec<Server>,
    }
    #[derive(Deserialize)]
    struct Server {
        name: String,
        url: String,
        front_door_of: Option<String>,
    }
    let status: Status = serde_json::from_value(status::read(&status::ask_at(std::slice::from_ref(place), context)?)?)
        .map_err(|_| obtain::strange())?;
    let servers: Vec<(String, ServerUrl)> = (status.servers.into_iter())
        .filter(|server| server.front_door_of.is_none())
        .filter_map(|server| Some((server.name, ServerUrl::parse(&server.url).ok()?)))
        .collect();
    let mut named = Vec::new();
    for target in &verb.targets {
        let wanted = Wanted::parse(target)?;
        let found = servers.iter().find(|(name, url)| match (&wanted.url, &wanted.name) {
            (Some(wanted), _) => url.covers(wanted) && wanted.covers(url),
            (None, wanted) => wanted.as_ref() == Some(name),
        });
        let class = if wanted.url.is_some() { Class::Denied } else { Class::BadRequest };
        let (name, _) = found.ok_or_else(|| {
            let known: Vec<&str> = servers.iter().map(|(name, _)| name.as_str()).collect();
            let hint = format!("it serves: {}; `--no-daemon` does without it", quoted_words(&known.join(", ")));
            Failure::new(
                class,
                format!("{:?}: the daemon does not serve that, or not to this user", quoted_words(target)),
            )
            .hint(hint)
        })?;
        named.push((wanted.name.unwrap_or_else(|| name.clone()), name.clone()));
    }
    if verb.targets.is_empty() {
        named = servers.iter().map(|(name, _)| (name.clone(), name.clone())).collect();
    }
    if named.is_empty() {
        return Err(Failure::asked("no TARGET is given, and the daemon serves none to this user"));
    }
    let (mut config, caller) = (Config::empty(), Caller::own(context.env.uid(), context.env.gid()));
    for (name, url) in servers.iter().filter(|(name, _)| named.iter().any(|(_, one)| one == name)) {
        config.add_server(name, url, context.env).serve_only(&caller, None)?;
    }
    Ok((config, spelled(named)?))
}

async fn planned(context: &Context<'_>, verb: &Exec) -> Result<Planned, Failure> {
    let mut config = context.config()?;
    let mut named = Vec::new();
    for target in &verb.targets {
        let wanted = Wanted::parse(target)?;
        let name = obtain::settle(context, &mut config, &wanted, Unconfigured::Discover)?;
        let name = name.ok_or_else(|| Failure::bug("a server that was just added is not served"))?;
        named.push((wanted.name.unwrap_or_else(|| name.clone()), name));
    }
    let scopes = scopes(&verb.wishes.scopes)?;
    let caller = caller(context, &config.servers).await;
    if verb.targets.is_empty() {
        config.servers.retain_mut(|server| server.serve_only(&caller, scopes.as_ref()).is_ok());
        named = config.servers.iter().map(|server| (server.name.to_string(), server.name.to_string())).collect();
        if named.is_empty() {
            return Err(Failure::asked("no TARGET is given, and no server is configured that this user may use")
                .hint("name one: `safeconduct exec deploy=https://mcp.example.com/mcp -- CMD`"));
        }
    } else {
        config.servers.retain(|server| named.iter().any(|(_, name)| *server.name == **name));
        config.servers.iter_mut().try_for_each(|server| server.serve_only(&caller, scopes.as_ref()))?;
    }
    if let Some(issuer) = &verb.wishes.issuer {
        let issuer = Issuer::parse(issuer).map_err(|why| Failure::asked(format!("--issuer cannot be used: {why}")))?;
        named.iter().for_each(|(_, name)| config.pin(name, &issuer));
    }
    Ok((config, spelled(named)?))
}

/// The names for variables. Two servers of one name there could not be told apart.
fn spelled(named: Vec<(String, String)>) -> Result<BTreeMap<String, String>, Failure> {
    let mut servers = BTreeMap::new();
    for (typed, name) in named {
        let spelling = variable_name(&typed);
        if servers.insert(spelling.clone(), name).is_some() {
            return Err(Failure::asked(format!("two targets would be SAFECONDUCT_URL_{spelling}"))
                .hint("give one of them another name: NAME=URL"));
        }
    }
    Ok(servers)
}

fn scopes(given: &[String]) -> Result<Option<Scopes>, Failure> {
    if let Some(wrong) = given.iter().find(|scope| Scopes::from_list([scope.as_str()]).is_err()) {
        return Err(Failure::asked(format!("--scope {:?} is not one scope", quoted_words(wrong))));
    }
    let scopes = (!given.is_empty()).then(|| Scopes::from_list(given.iter().map(String::as_str)));
    scopes.transpose().map_err(|why| Failure::asked(why.to_string()))
}

/// This user, with the facts that the rules of these servers ask for.
async fn caller(context: &Context<'_>, servers: &[Server]) -> Caller {
    let caller = Caller::own(context.env.uid(), context.env.gid());
    let mut needs = Needs::default();
    servers.iter().for_each(|server| server.policy.need(&caller, &mut needs));
    if needs.is_empty() {
        return caller;
    }
    let facts = match Process::own() {
        Ok(process) => process.facts(&needs, &Arc::default(), caller.uid).await,
        Err(why) => Facts::unknown(&why),
    };
    caller.with(facts)
}

/// How the pipe from the supervisor ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// The command has ended.
    Told,
    /// The supervisor was killed.
    Lost,
}

/// What the supervisor says.
struct Orders {
    lines: tokio::io::Lines<BufReader<Receiver>>,
    command: Cell<Option<(i32, u64)>>,
}

impl Orders {
    fn open() -> io::Result<Self> {
        let pipe = Receiver::from_owned_fd(io::stdin().as_fd().try_clone_to_owned()?)?;
        Ok(Self { lines: BufReader::new(pipe).lines(), command: Cell::new(None) })
    }

    /// Waits for the end, and learns meanwhile which process the command is.
    async fn end(&mut self) -> End {
        while let Ok(Some(line)) = self.lines.next_line().await {
            let words: Vec<&str> = line.split(' ').collect();
            match words.as_slice() {
                ["end"] => return End::Told,
                ["command", pid, started] => self.command.set(pid.parse().ok().zip(started.parse().ok())),
                _ => {}
            }
        }
        End::Lost
    }

    fn kill_command(&self, mark: (&str, &Path)) {
        // Without a word of it the command may run all the same; no process has the number 0.
        Family { head: self.command.get().unwrap_or_default(), mark }.kill();
    }
}
