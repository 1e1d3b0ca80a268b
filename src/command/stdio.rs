//! `safeconduct stdio`: a stdio MCP server that is the remote one, with the token added.
//!
//! With a daemon it is a bridge to the daemon's `/mcp/NAME`: no TLS, no configuration, no broker. Without one at the start, a
//! `/mcp/NAME` of this process is behind the same bridge.

use std::time::Duration;

use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};
use serde::Deserialize;

use super::obtain::{self, Unconfigured, Wanted};
use super::runtime;
use super::{Context, Failure};
use crate::app::Private;
use crate::bridge::{self, Origin, Parts, Target};
use crate::broker::Class;
use crate::cli::{Level, Stdio};
use crate::door::{self, Place};
use crate::log;
use crate::oauth::{Issuer, ServerUrl, quoted_words};

/// So long tokens may take to be revoked at the end. With the farewell to the server it is less than a second.
const LAST: Duration = Duration::from_millis(250);

/// So long a daemon of a job's step may take to say what it serves.
const LOOK: Duration = Duration::from_secs(2);

pub(super) fn run(context: &Context<'_>, verb: &Stdio) -> Result<(), Failure> {
    let wanted = Wanted::parse(&verb.target)?;
    let fields = fields(&verb.headers)?;
    // Nobody may read stderr, and nothing may wait for that.
    log::start().map_err(|error| Failure::new(Class::Temporary, format!("no thread can be started: {error}")))?;
    context.log(Level::Warn)?;
    let (longest, protocol) = (verb.max_message, verb.protocol);
    let parts = |origin, target| Parts { origin, target, fields: fields.clone(), longest, protocol };
    if !verb.no_daemon {
        let places = serving(context, &wanted);
        let first = door::connect(&places, context.env.uid());
        if !matches!(first, Err(door::Error::Absent { .. })) {
            obtain::not_with_a_daemon(context, verb.issuer.is_some())?;
        }
        let first = match first {
            Err(absent) if absent.lets_work_here() && !verb.daemon_only => {
                return here(context, verb, &wanted, parts).map_err(|failure| failure.without_daemon(Some(&absent)));
            }
            // What is wrong is said in the answers: a client shows those.
            first => first.inspect_err(|error| tracing::warn!(%error, "the daemon cannot be asked now")).ok(),
        };
        let origin = Origin::Daemon { places, own_uid: context.env.uid(), first };
        return drive(parts(origin, target(wanted)));
    }
    here(context, verb, &wanted, parts)
}

/// Keeps the large stack frame of this process's own broker off the path with a daemon.
#[inline(never)]
fn here(
    context: &Context<'_>,
    verb: &Stdio,
    wanted: &Wanted,
    parts: impl FnOnce(Origin, Target) -> Parts,
) -> Result<(), Failure> {
    let mut config = context.config()?;
    // A client may start us without the job's variables. Then the probe would find the machine's broader identity.
    if config.disable_probe() {
        tracing::warn!(
            "`probe = true` does not hold for what a client starts; run the daemon, or name `source` in [identity]"
        );
    }
    let settled = obtain::settle(context, &mut config, wanted, Unconfigured::Discover)?;
    let name = settled.ok_or_else(|| Failure::bug("a server that was just added is not served"))?;
    if let Some(issuer) = &verb.issuer {
        let issuer = Issuer::parse(issuer).map_err(|why| Failure::asked(format!("--issuer cannot be used: {why}")))?;
        config.pin(&name, &issuer);
    }
    context.block_on(async {
        let private = Private::build(config, context.env.clone(), context.clock())?;
        let within = private.clone();
        let origin = Origin::Here(Box::new(move || within.connect()));
        let served = bridge::run(parts(origin, Target::Name(name))).await;
        private.end(LAST).await;
        Ok(served?)
    })
}

fn drive(parts: Parts) -> Result<(), Failure> {
    let mut outcome = Ok(());
    runtime::drive(std::pin::pin!(async { outcome = bridge::run(parts).await }))?;
    Ok(outcome?)
}

/// The server at the daemon. A URL has a name there, which its status says.
fn target(wanted: Wanted) -> Target {
    match (wanted.url, wanted.name) {
        (Some(url), _) => Target::Listed(Box::new(move |status| listed(status, &url))),
        (None, name) => Target::Name(name.unwrap_or_default()),
    }
}

/// The places of daemons, those that serve this target first: each step of a CI job has a daemon of its own.
pub(super) fn serving(context: &Context<'_>, wanted: &Wanted) -> Vec<Place> {
    let mut places = door::places(context.global.socket.as_ref(), context.env);
    let of_steps = places.iter().take_while(|place| place.of_step).count();
    let serves = |place: &Place| {
        let asked = door::ask(std::slice::from_ref(place), "GET /v1/status", None, context.env.uid(), LOOK);
        asked.is_ok_and(|reply| match &wanted.url {
            Some(url) => listed(&reply.body, url).is_some(),
            None => names(&reply.body).any(|name| Some(name) == wanted.name),
        })
    };
    if of_steps > 1
        && let Some(at) = places[..of_steps].iter().position(serves)
    {
        places[..=at].rotate_right(1);
    }
    places
}

/// The name of the server with this URL, from the status of a daemon.
pub(super) fn listed(status: &[u8], url: &ServerUrl) -> Option<String> {
    let is_it =
        |server: &Listed| ServerUrl::parse(&server.url).is_ok_and(|found| found.covers(url) && url.covers(&found));
    servers(status).find(is_it).map(|server| server.name)
}

fn names(status: &[u8]) -> impl Iterator<Item = String> {
    servers(status).map(|server| server.name)
}

/// A server in the status of a daemon.
#[derive(Deserialize)]
struct Listed {
    name: String,
    url: String,
    front_door_of: Option<String>,
}

/// The servers in the status of a daemon, without the front doors.
fn servers(status: &[u8]) -> impl Iterator<Item = Listed> {
    #[derive(Deserialize)]
    struct Status {
        servers: Vec<Listed>,
    }
    let servers = serde_json::from_slice(status).map_or_else(|_| Vec::new(), |status: Status| status.servers);
    servers.into_iter().filter(|server| server.front_door_of.is_none())
}

/// `--header NAME=VALUE`
fn fields(given: &[String]) -> Result<HeaderMap, Failure> {
    let mut fields = HeaderMap::new();
    for text in given {
        let wrong = || {
            Failure::asked(format!("--header {:?} is not NAME=VALUE", quoted_words(text)))
                .hint("for example --header X-Tenant=blue; names are those of HTTP fields, values are visible ASCII")
        };
        let (name, value) = text.split_once('=').ok_or_else(wrong)?;
        let name = HeaderName::from_bytes(name.trim().as_bytes()).map_err(|_| wrong())?;
        let value = value.trim();
        let is_plain = !value.is_empty() && value.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        let value = HeaderValue::from_str(value).ok().filter(|_| is_plain).ok_or_else(wrong)?;
        if !bridge::may_be_added(&name) {
            return Err(Failure::asked(format!("--header cannot set {name}"))
                .hint("safeconduct makes or drops that field; it adds the credential by itself"));
        }
        if fields.insert(name, value).is_some() {
            return Err(Failure::asked("--header names a field twice"));
        }
    }
    Ok(fields)
}

impl From<bridge::Error> for Failure {
    fn from(error: bridge::Error) -> Self {
        let class = match &error {
            bridge::Error::Start(_) | bridge::Error::Output(_) => Class::Temporary,
            bridge::Error::Http2 => Class::BadRequest,
        };
        Self::new(class, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_given_once_and_is_none_of_ours() {
        let fields = |given: &[&str]| fields(&given.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>());
        let Ok(good) = fields(&["X-Tenant= a=b ", "traceparent=00-1"]) else { panic!("they are good") };
        assert_eq!(good.get("x-tenant").map(HeaderValue::as_bytes), Some(&b"a=b"[..]), "wire 60: blanks are trimmed");
        for bad in ["x", "=y", "a b=c", "X=", "X=a\r\nb", "Authorization=Bearer x", "Mcp-Name=x", "Content-Length=1"] {
            assert!(fields(&[bad]).is_err(), "{bad}");
        }
        assert!(fields(&["X-A=1", "x-a=2"]).is_err(), "wire 60: no header twice");
    }

    #[test]
    fn a_url_is_found_in_the_status_whatever_its_spelling() {
        let status = br#"{"servers":[
            {"name":"door","url":"https://mcp.example.com/mcp","front_door_of":"demo"},
            {"name":"below","url":"https://mcp.example.com/mcp/below"},
            {"name":"demo","url":"https://mcp.example.com/mcp"}]}"#;
        let name = |url: &str| listed(status, &ServerUrl::parse(url).expect("a URL"));
        assert_eq!(name("https://MCP.example.com:443/mcp/").as_deref(), Some("demo"));
        assert_eq!(name("https://mcp.example.com/mcp/below").as_deref(), Some("below"));
        assert_eq!(name("https://mcp.example.com/mcp/other"), None);
        assert_eq!(listed(b"{}", &ServerUrl::parse("https://mcp.example.com/mcp").expect("a URL")), None);
    }
}
