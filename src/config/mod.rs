//! Reads the configuration from file, environment and flags into a checked [`Config`]. All problems are reported at
//! once, with their lines.
//!
//! Used only by `command` and `app`. Other modules get their own small structs.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use crate::broker::{DEFAULT, Link, Server};
use crate::env::Env;
use crate::exchange::{Asks, Provider};
use crate::identity::{Choice, SOURCES};
use crate::oauth::{Issuer, ServerUrl, suggestion};
use crate::outbound;
use crate::policy::Rule;

mod audit;
mod cache_key;
mod client;
mod cross_checks;
mod document;
mod doubts;
mod egress;
mod exchange;
mod identities;
mod identity;
mod issuer;
mod keys;
mod listen;
mod one_resource;
mod order;
mod outer;
mod parameters;
mod parties;
mod place;
mod reader;
mod secrets;
mod server;

pub(crate) use document::{schema, starter};
pub(crate) use reader::Problem;
use reader::{Found, Reader};

/// The tables of the file.
const TABLES: [&str; 7] = ["identity", "identities", "servers", "listen", "egress", "audit", "keyring"];

/// The size limit of the file.
const CAP: u64 = 1024 * 1024;

/// A checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// By name. `default` is always present.
    pub(crate) identities: BTreeMap<Arc<str>, IdentityConfig>,
    pub(crate) servers: Vec<Server>,
    pub(crate) issuers: Option<Vec<Issuer>>,
    pub(crate) listen: Listen,
    pub(crate) egress: outbound::Config,
    /// Keep registrations and keys in the platform's keyring, so that they survive a restart.
    pub(crate) keyring: bool,
    /// The audit log; `None` if it is off.
    pub(crate) audit: Option<crate::audit::Config>,
    pub(crate) file: Option<PathBuf>,
}

/// An identity: a source, and the links of its chain.
#[derive(Clone, Debug)]
pub(crate) struct IdentityConfig {
    pub(crate) choice: Choice,
    pub(crate) links: Vec<Link>,
}

impl IdentityConfig {
    fn root(choice: Choice) -> Self {
        Self { choice, links: Vec::new() }
    }
}

/// The addresses of the daemon and who may connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listen {
    /// `None`: the default path.
    pub(crate) socket: Option<PathBuf>,
    pub(crate) mode: u32,
    pub(crate) group: Option<u32>,
    /// The loopback addresses of the HTTP API: two for `localhost`.
    pub(crate) http: Vec<SocketAddr>,
    /// The addresses of the listener for health: two for `localhost`.
    pub(crate) health: Vec<SocketAddr>,
    /// May the user that owns the connecting socket use the proxy there?
    pub(crate) http_owner: bool,
    /// Is there a token endpoint for OAuth clients?
    pub(crate) oauth_token: bool,
    /// How long the daemon keeps serving after it was told to stop.
    pub(crate) linger: Duration,
    /// Serve URLs that are not configured, too.
    pub(crate) unlisted: bool,
}

impl Listen {
    /// The default without the table: only a private socket at the default path.
    fn silent() -> Self {
        let (http, health, linger) = (Vec::new(), Vec::new(), Duration::ZERO);
        let (http_owner, oauth_token, unlisted) = (true, false, false);
        Self { socket: None, mode: 0o600, group: None, http, health, http_owner, oauth_token, linger, unlisted }
    }
}

/// Why the configuration could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read, or its permissions are unsafe.
    #[error("{}: {what}", path.display())]
    File {
        /// The path of the file.
        path: PathBuf,
        /// The problem.
        what: String,
        /// What to do about it.
        cure: &'static str,
    },
    /// The content has problems.
    #[error("{}", list(path.as_deref(), problems).join("\n"))]
    Problems {
        /// The path of the file; `None` if the text is not from a file.
        path: Option<PathBuf>,
        /// All problems, in the order of their lines.
        problems: Vec<Problem>,
    },
}

impl Error {
    /// The message, line by line.
    pub(crate) fn lines(&self) -> Vec<String> {
        match self {
            Self::File { .. } => vec![self.to_string()],
            Self::Problems { path, problems } => list(path.as_deref(), problems),
        }
    }
}

fn list(path: Option<&Path>, problems: &[Problem]) -> Vec<String> {
    let place = path.map_or_else(|| "configuration".to_owned(), |path| path.display().to_string());
    let count = if problems.len() == 1 { "1 problem".to_owned() } else { format!("{} problems", problems.len()) };
    let problems = problems.iter().map(|problem| format!("  {problem}"));
    std::iter::once(format!("{place}: {count}")).chain(problems).collect()
}

impl Config {
    /// The configuration without a file: everything is detected and discovered.
    pub fn empty() -> Self {
        Self {
            identities: [(Arc::from(DEFAULT), IdentityConfig::root(Choice::Detect))].into(),
            keyring: false,
            servers: Vec::new(),
            issuers: None,
            listen: Listen::silent(),
            egress: outbound::Config::default(),
            audit: None,
            file: None,
        }
    }

    /// Parses and checks a configuration. Fails with all problems.
    pub fn from_toml(text: &str, env: &Env) -> Result<Self, Error> {
        let mut reader = Reader::new(text);
        let (document, errors) = DeTable::parse_recoverable(text);
        for error in &errors {
            let line = error.span().map(|span| reader.line(span.start));
            reader.problem(line, "", error.message().to_owned());
        }
        let config = if errors.is_empty() { Some(build(&mut reader, document.get_ref(), env)) } else { None };
        let mut problems = reader.problems;
        problems.sort_by_key(|problem| problem.line);
        match config {
            Some(config) if problems.is_empty() => Ok(config),
            _ => Err(Error::Problems { path: None, problems }),
        }
    }

    /// Adds a server from the command line.
    pub(crate) fn add_server(&mut self, name: &str, url: &ServerUrl, env: &Env) -> &mut Server {
        let identity_fields = self.identities.get(DEFAULT).map(IdentityConfig::fields).unwrap_or_default();
        let mut server = Server::discovered(name.into(), url.clone(), own_user(env));
        server.orders_mut().for_each(|order| order.identity_fields.clone_from(&identity_fields));
        self.servers.push(server);
        self.servers.last_mut().expect("one was just added")
    }

    /// Takes the rest from the environment: the proxy, if the file configures none, and the places of the trusted roots.
    /// Fails if a variable that could decide here cannot be read or used. The message names the variable.
    pub(crate) fn take_environment(&mut self, env: &Env) -> Result<(), String> {
        if let Some(name) = env.unreadable().find(|name| name.starts_with("SAFECONDUCT_") || of_a_source(name)) {
            return Err(format!("{name} is not UTF-8"));
        }
        if self.egress.proxy.is_none() {
            self.egress.proxy = outbound::Proxy::from_env(env)?;
        }
        self.egress.roots = outbound::RootPlaces::from_env(env)?;
        Ok(())
    }

    /// The first server whose URL or issuer uses plain http although `insecure_loopback` is off.
    pub(crate) fn first_insecure(&self) -> Option<&str> {
        let plain = |server: &&Server| {
            let mut issuers = server.orders().filter_map(|order| order.issuer());
            server.url.url().scheme() == "http" || issuers.any(|one| one.as_str().starts_with("http:"))
        };
        let insecure = if self.egress.insecure_loopback { None } else { self.servers.iter().find(plain) };
        insecure.map(|server| &*server.name)
    }

    /// Uses the JWT in this file as the default identity (from the command line).
    pub(crate) fn use_identity_file(&mut self, file: &Path) {
        let token_file = toml::Value::String(file.to_string_lossy().into_owned());
        let mut settings = toml::Table::new();
        settings.insert("token_file".to_owned(), token_file);
        self.set_default(Choice::Named { source: "file".to_owned(), settings });
    }

    fn set_default(&mut self, choice: Choice) {
        self.identities.insert(DEFAULT.into(), IdentityConfig::root(choice));
    }

    /// The source of the default identity.
    pub(crate) fn identity(&self) -> &Choice {
        &self.identities[DEFAULT].choice
    }

    /// Uses the named identity or source as the default. If the file configures that source, its keys stay in effect.
    /// Fails with the known source names.
    pub(crate) fn use_identity(&mut self, name: &str) -> Result<(), Vec<&'static str>> {
        let known = identity_sources();
        if name == DEFAULT || self.identity_name() == name {
            return Ok(());
        }
        if let Some(named) = self.identities.get(name).cloned() {
            self.identities.insert(DEFAULT.into(), named);
            return Ok(());
        }
        if !known.contains(&name) {
            return Err(known);
        }
        self.set_default(Choice::Named { source: name.to_owned(), settings: toml::Table::new() });
        Ok(())
    }

    /// Disables the host probe. Returns whether it was enabled.
    pub(crate) fn disable_probe(&mut self) -> bool {
        let mut forgone = false;
        for identity in self.identities.values_mut().filter(|identity| identity.choice == Choice::Probe) {
            identity.choice = Choice::Detect;
            forgone = true;
        }
        forgone
    }

    /// The name of the source of the default identity, or `detected`.
    pub(crate) fn identity_name(&self) -> &str {
        match self.identity() {
            Choice::Detect | Choice::Probe => "detected",
            Choice::Named { source, .. } => source,
        }
    }

    /// The provider that receives the platform's token for this server, if any.
    pub(crate) fn first_provider(&self, name: &str) -> Option<Provider> {
        let server = self.servers.iter().find(|server| *server.name == *name)?;
        let links =
            self.identities.get(&server.order.identity).map(|identity| identity.links.as_slice()).unwrap_or_default();
        match (links.first(), server.order.expected().traits().asks) {
            (Some(link), _) => link.change.provider(),
            (None, Asks::Provider(provider)) => Some(provider),
            (None, Asks::Discovered | Asks::Nobody) => None,
        }
    }

    /// Pins the issuer of one server (from the command line).
    pub(crate) fn pin(&mut self, name: &str, issuer: &Issuer) {
        if let Some(server) = self.servers.iter_mut().find(|server| *server.name == *name) {
            Arc::make_mut(&mut server.order).pin_to(issuer);
        }
    }
}

/// The names of all sources, for `--identity` and `source = "…"`.
fn identity_sources() -> Vec<&'static str> {
    SOURCES.iter().map(|row| row.name).collect()
}

/// Does an identity source read this variable?
fn of_a_source(name: &str) -> bool {
    let is_named = |pattern: &str| match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => pattern == name,
    };
    SOURCES.iter().flat_map(|row| row.variables).any(|pattern| is_named(pattern))
}

/// Can this name be used in a path, a label and a variable?
pub(crate) fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 64
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        && !text.starts_with('.')
}

fn own_user(env: &Env) -> Vec<Rule> {
    vec![Rule::own_user(env.uid())]
}

fn build<'a>(reader: &mut Reader<'a>, document: &'a DeTable<'a>, env: &Env) -> Config {
    let mut config = Config::empty();
    let mut chains = None;
    for (name, value) in document {
        let (text, at) = (name.get_ref().as_ref(), name.span().start);
        let line = reader.line(at);
        let DeValue::Table(table) = value.get_ref() else {
            let known = TABLES.into_iter();
            reader.problem(line, text, format!("unknown key, or not a table{}", suggestion(text, known)));
            continue;
        };
        match text {
            "identity" => {
                let choice = identity::identity_of(reader, at, table);
                config.set_default(choice);
            }
            // Read after [identity], because chains may start from it.
            "identities" => chains = Some(table),
            "keyring" => {
                config.keyring =
                    reader.section(Found { path: "keyring", at, table }, &keys::KEYRING, &[]).flag("enabled");
            }
            "servers" => server::servers_of(reader, table, env, &mut config),
            "listen" => config.listen = listen::listen_of(reader, at, table, env),
            "egress" => egress::egress_of(reader, at, table, env, &mut config),
            "audit" => config.audit = audit::audit_of(reader, at, table, env),
            _ => {
                let known = TABLES.into_iter();
                reader.problem(line, text, format!("unknown table{}", suggestion(text, known)));
            }
        }
    }
    if let Some(table) = chains {
        let default = config.identity().clone();
        config.identities.extend(identities::identities_of(reader, table, &default));
    }
    cross_checks::identities_in_use(reader, &mut config);
    cross_checks::check(reader, &mut config);
    config
}

/// Refuses plain http to hosts other than loopback. Whether `insecure_loopback` is on is checked when connecting,
/// because the flag is read after the file.
fn insecure(reader: &mut Reader<'_>, line: usize, key: &str, text: &str) {
    let Ok(url) = url::Url::parse(text) else { return };
    let loopback = match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    if url.scheme() == "http" && !loopback {
        reader.problem(line, key, "plain http is refused; only https is spoken");
    }
}

#[cfg(test)]
mod tests;
