//! What the command line names: the targets, as a configuration that serves them alone, and the guards.

use url::form_urlencoded::Serializer;

use super::super::obtain::Wanted;
use super::super::run::{plain_http, refuse_overlap};
use super::super::{Context, Failure};
use crate::broker::{Class, Refusal, Server};
use crate::cli::Ci;
use crate::config::Config;
use crate::frontend::dialect::variable_name;
use crate::oauth::{Issuer, Scopes, ServerUrl, quoted_words};

/// A target of the command line.
#[derive(Clone, Debug)]
pub(super) struct Targeted {
    pub(super) name: String,
    /// For people: without its query.
    pub(super) url: String,
}

impl Targeted {
    /// The request line for the daemon, without its version.
    pub(super) fn as_request(&self, verb: &Ci) -> String {
        let mut query = Serializer::new(String::new());
        query.append_pair("server", &self.name).append_pair("use", "helper");
        if let Some(least) = verb.min_ttl {
            query.append_pair("min_ttl", &least.as_secs().to_string());
        }
        if verb.fresh {
            query.append_pair("fresh", "1");
        }
        format!("GET /v1/token?{}", query.finish())
    }
}

/// The configuration of the daemon in the background: the targets and no other server. Fails if a guard refuses one.
pub(super) fn read(context: &Context<'_>, verb: &Ci) -> Result<(Config, Vec<Targeted>), Failure> {
    let mut config = context.config()?;
    let mut targets: Vec<Targeted> = Vec::new();
    for text in &verb.targets {
        let name = settle(context, &mut config, text)?;
        if let Some(other) = targets.iter().find(|other| variable_name(&other.name) == variable_name(&name)) {
            return Err(Failure::asked(format!(
                "the outputs of {:?} and {name:?} would have the same name",
                other.name
            ))
            .hint("give them names that differ in more than case and punctuation"));
        }
        let server = config.servers.iter_mut().find(|server| *server.name == *name);
        let server = server.ok_or_else(|| Failure::bug("a target that was just found is not there"))?;
        check_server(verb, text, server)?;
        narrow(server, verb)?;
        targets.push(Targeted { url: server.url.to_string(), name });
    }
    config.servers.retain(|server| targets.iter().any(|target| target.name == *server.name));
    config.listen.unlisted = false;
    config.listen.linger = std::time::Duration::ZERO;
    pin(verb, &mut config)?;
    guard_issuers(verb, &mut config)?;
    if let Some(server) = config.first_insecure() {
        return Err(plain_http(server));
    }
    Ok((config, targets))
}

/// The name of the server that a target means. It is added if it is not configured.
fn settle(context: &Context<'_>, config: &mut Config, text: &str) -> Result<String, Failure> {
    let wanted = Wanted::parse(text)?;
    let same = |server: &&Server, url: &ServerUrl| server.url.covers(url) && url.covers(&server.url);
    let Some(url) = wanted.url else {
        let name = wanted.name.unwrap_or_default();
        let known = config.servers.iter().map(|server| &*server.name);
        if !known.clone().any(|known| known == name) {
            return Err(Failure::from(crate::broker::Error::from(Refusal::unknown_server(&name, known))));
        }
        return Ok(name);
    };
    let configured = config.servers.iter().find(|server| same(server, &url)).map(|server| server.name.to_string());
    match (configured, wanted.name) {
        (Some(configured), None) => Ok(configured),
        (Some(configured), Some(name)) if configured == name => Ok(name),
        (None, None) => {
            Err(Failure::asked("a URL that is not configured needs a name for its outputs").hint("give it as NAME=URL"))
        }
        (_, Some(name)) => {
            refuse_overlap(config, &name, &url)?;
            config.add_server(&name, &url, context.env);
            Ok(name)
        }
    }
}

/// `--scope`: the job may have nothing else. A token of the job is revoked when the daemon ends.
fn narrow(server: &mut Server, verb: &Ci) -> Result<(), Failure> {
    (server.required, server.revoke_on_exit) = (true, true);
    if let Some(bad) = verb.scopes.iter().find(|scope| Scopes::from_list([scope.as_str()]).is_err()) {
        return Err(Failure::asked(format!("--scope {:?} is not one scope", quoted_words(bad))));
    }
    if !verb.scopes.is_empty() {
        let scopes = Scopes::from_list(verb.scopes.iter().map(String::as_str));
        let scopes = scopes.map_err(|why| Failure::asked(why.to_string()))?;
        server
            .policy
            .narrow_to(&scopes)
            .map_err(|denied| Failure::new(Class::Denied, format!("{}: {denied}", server.name)).hint(denied.hint()))?;
    }
    Ok(())
}

/// `--allowed-server`
fn check_server(verb: &Ci, typed: &str, server: &Server) -> Result<(), Failure> {
    let typed = typed.split_once('=').map_or(typed, |(_, url)| url);
    let is_allowed = |allowed: &String| allowed == server.url.as_str() || allowed == typed;
    if verb.allowed_servers.is_empty() || verb.allowed_servers.iter().any(is_allowed) {
        return Ok(());
    }
    let message = format!("{}: {} is not among the allowed servers", server.name, server.url);
    Err(Failure::new(Class::Denied, message)
        .hint("`--allowed-server` names each URL that this job may use, spelled exactly so"))
}

/// `--issuer`
fn pin(verb: &Ci, config: &mut Config) -> Result<(), Failure> {
    let Some(issuer) = &verb.issuer else { return Ok(()) };
    let issuer = Issuer::parse(issuer).map_err(|why| Failure::asked(format!("--issuer cannot be used: {why}")))?;
    let names: Vec<String> = config.servers.iter().map(|server| server.name.to_string()).collect();
    names.iter().for_each(|name| config.pin(name, &issuer));
    Ok(())
}

/// `--allowed-issuer`: of those that a server names, no other is chosen, and no other may be configured for a target.
fn guard_issuers(verb: &Ci, config: &mut Config) -> Result<(), Failure> {
    if verb.allowed_issuers.is_empty() {
        return Ok(());
    }
    let mut allowed = Vec::new();
    for text in &verb.allowed_issuers {
        let issuer = Issuer::parse(text);
        allowed.push(issuer.map_err(|why| {
            Failure::asked(format!("--allowed-issuer cannot be used: {why}"))
                .hint("an issuer as its metadata spells it, for example https://auth.example.com")
        })?);
    }
    for server in &config.servers {
        for issuer in config.asked_for(server) {
            check_issuer(verb, &server.name, &issuer)?;
        }
    }
    match &mut config.issuers {
        Some(listed) => listed.retain(|issuer| allowed.contains(issuer)),
        none => *none = Some(allowed),
    }
    Ok(())
}

/// Fails if this issuer is not among those of `--allowed-issuer`.
pub(super) fn check_issuer(verb: &Ci, name: &str, issuer: &str) -> Result<(), Failure> {
    if verb.allowed_issuers.is_empty() || verb.allowed_issuers.iter().any(|allowed| allowed == issuer) {
        return Ok(());
    }
    let message = format!("{name}: {:?} is not among the allowed authorization servers", quoted_words(issuer));
    Err(Failure::new(Class::Denied, message)
        .hint("`--allowed-issuer` names each issuer that this job may use, spelled exactly so"))
}
