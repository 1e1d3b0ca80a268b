//! Gets the token for the helper commands: from the daemon if its socket answers, else in this process.
//!
//! This process does the work only if there is no daemon. After a refusal, a time-out or a permission error it does not, because
//! it would ask again with another identity.

use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use url::form_urlencoded::Serializer;

use super::{Context, Failure};
use crate::assembly::{self, Core};
use crate::audit::{self, Decision, Outcome};
use crate::broker::{
    self, Action, AuditSubject, Class, LastFailure, Least, Persistence, Target, beside, most_specific,
};
use crate::caller::{Caller, Facts};
use crate::cli::{Level, Wishes};
use crate::config::{self, Config};
use crate::door;
use crate::frontend::dialect::Handed;
use crate::oauth::{Issuer, Scopes, ServerUrl, quoted_words};
use crate::process::Process;

mod refused;

use refused::{NOT_SERVED, is_unknown};
pub(super) use refused::{Refused, is_not_served, strange};

/// A target as typed.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    /// The server's name.
    pub(super) name: Option<String>,
    /// The URL, if one was typed.
    pub(super) url: Option<ServerUrl>,
}

impl Wanted {
    /// NAME, URL or NAME=URL.
    pub(super) fn parse(text: &str) -> Result<Self, Failure> {
        let url =
            |text: &str| ServerUrl::parse(text).map_err(|why| Failure::asked(format!("the URL cannot be used: {why}")));
        let (name, url) = match text.split_once('=') {
            Some((name, rest)) if config::is_name(name) => (Some(name.to_owned()), Some(url(rest)?)),
            _ if text.contains("://") => (None, Some(url(text)?)),
            _ if config::is_name(text) => (Some(text.to_owned()), None),
            _ => {
                return Err(Failure::asked("TARGET is neither a name nor a URL")
                    .hint("a configured name, https://…, or NAME=https://…"));
            }
        };
        Ok(Self { name, url })
    }

    /// The parameter for the daemon: the URL if there is one, else the name.
    fn as_parameter(&self) -> &str {
        match (&self.url, &self.name) {
            (Some(url), _) => url.as_str(),
            (None, Some(name)) => name,
            (None, None) => "",
        }
    }
}

/// The requested form of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The token itself.
    Token,
    /// Headers. A second request within 30 s gets a new token.
    Headers,
}

impl Purpose {
    fn action(self) -> Action {
        match self {
            Self::Token => Action::Token,
            Self::Headers => Action::Headers,
        }
    }
}

/// The result of a request.
pub(super) enum Obtained {
    /// A token.
    Token(Box<Handed>),
    /// The URL belongs to no configured server.
    NotServed,
}

/// The request of a helper command.
#[derive(Clone, Copy)]
pub(super) struct Question<'a> {
    /// The server.
    pub(super) wanted: &'a Wanted,
    /// The flags.
    pub(super) wishes: &'a Wishes,
    /// The form of the answer.
    pub(super) purpose: Purpose,
    /// What to do with a URL that is not configured.
    pub(super) unconfigured: Unconfigured,
}

impl Question<'_> {
    /// The request line for the daemon, without its version.
    fn as_request(&self) -> String {
        let path = match self.purpose {
            Purpose::Token => "/v1/token",
            Purpose::Headers => "/v1/headers",
        };
        let mut query = Serializer::new(String::new());
        query.append_pair("server", self.wanted.as_parameter()).append_pair("use", "helper");
        if !self.wishes.scopes.is_empty() {
            query.append_pair("scope", &self.wishes.scopes.join(" "));
        }
        if let Some(least) = self.wishes.min_ttl {
            query.append_pair("min_ttl", &least.as_secs().to_string());
        }
        if self.wishes.fresh {
            query.append_pair("fresh", "1");
        }
        if self.unconfigured == Unconfigured::Leave {
            query.append_pair("unlisted", "0");
        }
        format!("GET {path}?{}", query.finish())
    }
}

/// Gets a token. Discovers the authorization server of an unconfigured URL.
pub(super) fn token(
    context: &Context<'_>,
    wanted: &Wanted,
    wishes: &Wishes,
    purpose: Purpose,
) -> Result<Handed, Failure> {
    match obtain(context, Question { wanted, wishes, purpose, unconfigured: Unconfigured::Discover })? {
        Obtained::Token(handed) => Ok(*handed),
        Obtained::NotServed => Err(Failure::bug("a server that was just added is not served")),
    }
}

/// What to do with a URL that is not configured, when there is no daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unconfigured {
    /// Discover its authorization server (zero configuration).
    Discover,
    /// Return [`Obtained::NotServed`], without network.
    Leave,
}

/// Gets a token, where an unconfigured URL is not a failure.
pub(super) fn obtain(context: &Context<'_>, question: Question<'_>) -> Result<Obtained, Failure> {
    let wishes = question.wishes;
    if let Some(scopes) = wishes.scopes.iter().find(|scope| Scopes::from_list([scope.as_str()]).is_err()) {
        return Err(Failure::asked(format!("--scope {:?} is not one scope", quoted_words(scopes))));
    }
    if !wishes.no_daemon {
        match from_daemon(context, question) {
            Err(Asked::Door(absent)) if absent.lets_work_here() && !wishes.daemon_only => {
                return here(context, question, Some(&absent));
            }
            Err(Asked::Door(error)) => return Err(error.into()),
            Err(Asked::Failed(failure)) => return Err(failure),
            Ok(obtained) => return Ok(obtained),
        }
    }
    here(context, question, None)
}

enum Asked {
    Door(door::Error),
    Failed(Failure),
}

fn from_daemon(context: &Context<'_>, question: Question<'_>) -> Result<Obtained, Asked> {
    let Question { wishes, purpose, unconfigured, .. } = question;
    let places = door::places(context.global.socket.as_ref(), context.env);
    let request = question.as_request();
    let (uid, limit) = (context.env.uid(), wishes.timeout);
    let tell = |path: &Path| {
        context.tell_waiting(&format!("the daemon at {} fetches the token", path.display()));
    };
    let limit = door::Limit { whole: limit, tell: Some(&tell) };
    let ask = |line: &str| door::ask_steps(&places, (line, None), uid, limit, is_not_served).map_err(Asked::Door);
    // The daemon uses its own identity and configuration. Refuse flags that only this process could apply; do not ignore them.
    if let Err(failure) = not_with_a_daemon(context, wishes.issuer.is_some()) {
        return ask("GET /healthz").and(Err(Asked::Failed(failure)));
    }
    let reply = ask(&request)?;
    if reply.status == 200 {
        let is_bare = purpose == Purpose::Token;
        let handed = if is_bare { Handed::read(&reply.body) } else { Handed::read_headers(&reply.body) };
        return handed.map(|handed| Obtained::Token(Box::new(handed))).ok_or_else(|| Asked::Failed(strange()));
    }
    let refused = Refused::read(&reply).ok_or_else(|| Asked::Failed(strange()))?;
    if refused.error == NOT_SERVED && unconfigured == Unconfigured::Leave {
        return Ok(Obtained::NotServed);
    }
    let is_unknown = is_unknown(&refused.error);
    let failure = refused.into_failure();
    let or_here = "`--no-daemon` does the work in this process instead";
    let hint = failure.hint.as_ref().map_or_else(|| or_here.to_owned(), |hint| format!("{hint}; {or_here}"));
    Err(Asked::Failed(if is_unknown { failure.hint(hint) } else { failure }))
}

/// Refuses flags that only this process could apply.
pub(super) fn not_with_a_daemon(context: &Context<'_>, pins_issuer: bool) -> Result<(), Failure> {
    let global = context.global;
    let given = [
        ("--issuer", pins_issuer),
        ("--identity", global.identity.is_some()),
        ("--identity-file", global.identity_file.is_some()),
        ("--config", global.config.is_some()),
    ];
    match given.iter().find(|(_, given)| *given) {
        Some((flag, _)) => Err(Failure::asked(format!("{flag} has no effect while a daemon answers"))
            .hint("do the work in this process with `--no-daemon`, or leave the flag out")),
        None => Ok(()),
    }
}

/// Does the work in this process, within the caller's time-out. `inline(never)` keeps its large stack frame off other paths.
#[inline(never)]
fn here(context: &Context<'_>, question: Question<'_>, absent: Option<&door::Error>) -> Result<Obtained, Failure> {
    let Question { wanted, wishes, purpose, unconfigured } = question;
    context.log(Level::Error)?;
    let mut config = context.config()?;
    // A client may start its helper without the job's variables. Then the probe would find the machine's broader identity.
    let forgone = purpose == Purpose::Headers && config.disable_probe();
    let early = Early { context, audit: config.audit.clone(), purpose };
    let settled = settle(context, &mut config, wanted, unconfigured).inspect_err(|error| {
        early.refused(wanted.as_parameter(), error.class(), error.code());
    });
    // A server that is unknown here may be known to the daemon that is away.
    let Some(name) = settled.map_err(|error| Failure::from(error).without_daemon(absent))? else {
        return Ok(Obtained::NotServed);
    };
    if let Some(issuer) = &wishes.issuer {
        let issuer = Issuer::parse(issuer).map_err(|why| Failure::asked(format!("--issuer cannot be used: {why}")))?;
        config.pin(&name, &issuer);
    }
    let scopes = (!wishes.scopes.is_empty()).then(|| Scopes::from_list(wishes.scopes.iter().map(String::as_str)));
    let scopes = scopes.transpose().map_err(|why| Failure::asked(why.to_string()))?;
    let request = broker::Request {
        target: Target::Name(name.clone()),
        scopes,
        least: wishes.min_ttl.map_or(Least::ForHelper, Least::Of),
        fresh: false,
        action: purpose.action(),
        helper: true,
        may_be_a_retry: false,
    };
    let caller = Caller::own(context.env.uid(), context.env.gid());
    let clock = context.clock();
    let limit = wishes.timeout;
    let failing = OnceLock::new();
    let waiting = || waited_for(&name, failing.get());
    let obtained = context.block_on_telling(&waiting, async {
        let core: Core = assembly::core(config, context.env.clone(), clock.clone(), Persistence::OneShot(limit))
            .inspect_err(|error| {
                if let assembly::Error::Identity(_) = error {
                    early.note(&name, error.class(), "no_identity");
                }
            })?;
        failing.get_or_init(|| core.broker.last_failure());
        let caller = judged(caller, &core).await;
        // Clients reuse a helper's headers, but a DPoP proof is for one request, so a bound token does not work here.
        let granted = tokio::time::timeout(limit, core.broker.headers(&caller, &request, None)).await;
        core.stop.cancel();
        let granted = granted.map_err(|_| {
            let (matter, why) = (AuditSubject::of(&caller, &request), "no token in time");
            core.broker.note_refusal(&matter, Class::Temporary, "timed_out", &why);
            Failure::new(Class::Temporary, format!("no token within {} s", limit.as_secs()))
                .hint("see what it waits for with `--log debug`")
        })?;
        let (lease, _) = granted?;
        let handed = Handed::new(&lease, clock.now());
        let handed = handed.ok_or_else(|| Failure::bug("a credential without a token was served"))?;
        Ok(Obtained::Token(Box::new(handed)))
    });
    obtained.map_err(|failure| match failure.exit {
        exit if forgone && exit == Class::NoIdentity.exit_code() => failure.hint(
            "`probe = true` does not hold for a client's helper, which may lack the variables of a narrower identity; run \
            the daemon (`safeconduct run`), or name `source` in [identity]",
        ),
        _ => failure,
    })
}

/// What the token is waited for: the failure that is tried over again, if there was one.
fn waited_for(name: &str, failing: Option<&LastFailure>) -> String {
    match failing.and_then(|failing| failing.lock().ok()?.clone()) {
        Some(error) => format!("{error}; trying again"),
        None => format!("no answer yet on the way to a token for {name}: the MCP server, its issuer or the platform"),
    }
}

/// Without a daemon the allow rules apply to this process itself.
async fn judged(caller: Caller, core: &Core) -> Caller {
    let Some(needs) = core.broker.needs(&caller) else { return caller };
    let facts = match Process::own() {
        Ok(process) => process.facts(&needs, &Default::default(), caller.uid).await,
        Err(why) => Facts::unknown(&why),
    };
    caller.with(facts)
}

/// Records refusals that happen before the broker exists.
struct Early<'a> {
    context: &'a Context<'a>,
    audit: Option<audit::Config>,
    purpose: Purpose,
}

impl Early<'_> {
    fn refused(&self, asked_for: &str, class: Class, error: &str) {
        let noted = self.context.block_on(async {
            self.note(asked_for, class, error);
            Ok(())
        });
        if let Err(failure) = noted {
            failure.show(self.context.env);
        }
    }

    /// Records a refusal. If that fails, the request is still refused. Must be called inside a runtime.
    fn note(&self, asked_for: &str, class: Class, error: &str) {
        let Some(config) = self.audit.clone() else { return };
        let server = quoted_words(asked_for.split('?').next().unwrap_or_default());
        let caller = Caller::own(self.context.env.uid(), self.context.env.gid());
        let decision = Decision {
            time: self.context.clock().wall(),
            action: self.purpose.action(),
            outcome: Outcome::Refused { class: class.as_str(), error },
            caller: &caller,
            helper: true,
            server: Some(&server),
            asked: None,
            token: None,
            outer: None,
            rejected: None,
            call: None,
            done: None,
        };
        let audit = assembly::audit_of(config, Persistence::OneShot(Duration::ZERO));
        if let Err(error) = audit.and_then(|audit| audit.note(&decision)) {
            tracing::error!(%error, hint = error.hint(), "a refusal could not be recorded");
        }
    }
}

/// Finds the name of the requested server in the configuration, and adds an unconfigured URL to it. `None` if such a URL is to
/// be left alone.
pub(super) fn settle(
    context: &Context<'_>,
    config: &mut Config,
    wanted: &Wanted,
    unconfigured: Unconfigured,
) -> Result<Option<String>, broker::Error> {
    let configured = match (&wanted.url, &wanted.name) {
        (Some(url), _) => most_specific(config.servers.iter(), url),
        (None, Some(name)) => config.servers.iter().find(|server| *server.name == **name),
        (None, None) => None,
    };
    let name = match (configured, &wanted.url) {
        (Some(server), _) => server.name.to_string(),
        (None, Some(_)) if unconfigured == Unconfigured::Leave => return Ok(None),
        (None, Some(url)) => {
            // Another spelling or path on a configured origin must not bypass that server's policy.
            if let Some(server) = beside(config.servers.iter(), url) {
                return Err(broker::Refusal::beside(url, server).into());
            }
            let name = wanted.name.clone().unwrap_or_else(|| url.url().host_str().unwrap_or("server").to_owned());
            let unique = if config.servers.iter().any(|server| *server.name == *name) {
                format!("{name}-from-command-line")
            } else {
                name
            };
            config.add_server(&unique, url, context.env);
            unique
        }
        (None, None) => {
            let name = wanted.name.as_deref().unwrap_or_default();
            let known = config.servers.iter().map(|server| &*server.name);
            return Err(broker::Refusal::unknown_server(name, known).into());
        }
    };
    Ok(Some(name))
}
