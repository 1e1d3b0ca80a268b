//! File, environment and flags become one checked [`Config`]; every problem is reported at once, with its line.
//!
//! Read by `command` and `app` only. The rooms below get their own small structs.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use toml::de::{DeTable, DeValue};

use crate::broker::{ClientAuth, ResourceParameter, Server};
use crate::env::Env;
use crate::exchange;
use crate::identity::{self, Choice};
use crate::oauth::{Issuer, Resource, Scopes, ServerUrl, host_of};
use crate::outbound::{self, Network};
use crate::policy::{Policy, Rule};

mod document;
mod keys;
mod reader;

pub(crate) use document::{schema, starter};
pub(crate) use reader::Problem;
use reader::{Reader, Section};

/// Larger than any configuration that a person writes.
const CAP: u64 = 1024 * 1024;

/// A checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    pub(crate) identity: Choice,
    pub(crate) servers: Vec<Server>,
    pub(crate) issuers: Option<Vec<Issuer>>,
    pub(crate) listen: Listen,
    pub(crate) egress: outbound::Config,
    pub(crate) file: Option<PathBuf>,
}

/// Where the daemon listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listen {
    /// `None`: the default place.
    pub(crate) socket: Option<PathBuf>,
    pub(crate) mode: u32,
    pub(crate) group: Option<u32>,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be used at all.
    #[error("{}: {what}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        what: String,
    },
    /// Everything that is wrong in it.
    #[error("{}", list(path.as_deref(), problems))]
    Problems {
        /// Which file; none for text.
        path: Option<PathBuf>,
        /// In the order of their lines.
        problems: Vec<Problem>,
    },
}

fn list(path: Option<&Path>, problems: &[Problem]) -> String {
    let place = path.map_or_else(|| "configuration".to_owned(), |path| path.display().to_string());
    let lines: Vec<String> = problems.iter().map(|problem| format!("\n  {problem}")).collect();
    let count = if problems.len() == 1 { "1 problem".to_owned() } else { format!("{} problems", problems.len()) };
    format!("{place}: {count}{}", lines.concat())
}

impl Config {
    /// What holds without any file: everything is detected and discovered.
    pub fn empty() -> Self {
        Self {
            identity: Choice::Detect,
            servers: Vec::new(),
            issuers: None,
            listen: Listen { socket: None, mode: 0o600, group: None },
            egress: outbound::Config::default(),
            file: None,
        }
    }

    /// Finds and reads the file: the named one, else `$WAYLEAVE_CONFIG`, else the platform's place, else `/etc`.
    /// An absent file is fine unless it was named.
    pub(crate) fn load(named: Option<&Path>, env: &Env) -> Result<Self, Error> {
        let named = named.map(Path::to_owned).or_else(|| env.get("WAYLEAVE_CONFIG").map(PathBuf::from));
        if let Some(path) = named {
            return Self::read(&path, env);
        }
        let usual =
            [env.config_dir().map(|dir| dir.join("wayleave.toml")), Some(PathBuf::from("/etc/wayleave/wayleave.toml"))];
        for path in usual.into_iter().flatten() {
            match env.metadata(&path) {
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
                _ => return Self::read(&path, env),
            }
        }
        Ok(Self::empty())
    }

    fn read(path: &Path, env: &Env) -> Result<Self, Error> {
        let refuse = |what: String| Error::File { path: path.to_owned(), what };
        let content = env.read(path, CAP).map_err(|error| refuse(format!("cannot be read: {error}")))?;
        let metadata = env.metadata(path).map_err(|error| refuse(format!("cannot be read: {error}")))?;
        writable_by_others(&metadata, env).map_err(refuse)?;
        let text = std::str::from_utf8(&content).map_err(|_| refuse("not UTF-8".to_owned()))?;
        match Self::from_toml(text, env) {
            Ok(config) => Ok(Self { file: Some(path.to_owned()), ..config }),
            Err(Error::Problems { problems, .. }) => Err(Error::Problems { path: Some(path.to_owned()), problems }),
            Err(error) => Err(error),
        }
    }

    /// Reads a configuration from text.
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

    /// Adds a server that was given on the command line.
    pub(crate) fn add_server(&mut self, name: &str, url: &ServerUrl, env: &Env) -> &mut Server {
        self.egress.named.insert(host_of(url.url()));
        self.servers.push(Server {
            name: name.into(),
            url: url.clone(),
            issuer: None,
            trust_discovered_issuer: false,
            policy: Policy { allow: own_user(env), ceiling: None, tolerate: Scopes::default() },
            exchange: None,
            client_id: None,
            client_auth: ClientAuth::None,
            audience: None,
            subject_audience: None,
            resource: ResourceParameter::FromMetadata,
            extra: Vec::new(),
            required: false,
            usual_key: OnceLock::new(),
        });
        self.servers.last_mut().expect("one was just added")
    }

    /// A server that would be spoken to in plain http though that is not switched on.
    pub(crate) fn first_insecure(&self) -> Option<&str> {
        let plain = |server: &&Server| {
            server.url.url().scheme() == "http"
                || server.issuer.as_ref().is_some_and(|one| one.as_str().starts_with("http:"))
        };
        let insecure = if self.egress.insecure_loopback { None } else { self.servers.iter().find(plain) };
        insecure.map(|server| &*server.name)
    }

    /// Uses the JWT in a file as identity, as the command line says.
    pub(crate) fn use_identity_file(&mut self, file: &Path) {
        let token_file = toml::Value::String(file.to_string_lossy().into_owned());
        let settings = [("token_file".to_owned(), token_file)].into_iter().collect();
        self.identity = Choice::Named { source: "file".to_owned(), settings };
    }

    /// Uses the named source instead of detecting one; its keys in the file stay good. Fails with the known names.
    pub(crate) fn use_identity(&mut self, name: &str) -> Result<(), Vec<&'static str>> {
        let known = identity_sources();
        if name == "default" || self.identity_name() == name {
            return Ok(());
        }
        if !known.contains(&name) {
            return Err(known);
        }
        self.identity = Choice::Named { source: name.to_owned(), settings: toml::Table::new() };
        Ok(())
    }

    /// The source in use, or `detected`.
    pub(crate) fn identity_name(&self) -> &str {
        match &self.identity {
            Choice::Detect => "detected",
            Choice::Named { source, .. } => source,
        }
    }

    /// Pins the issuer of one server, as the command line says.
    pub(crate) fn pin(&mut self, name: &str, issuer: &Issuer) {
        if let Ok(url) = url::Url::parse(issuer.as_str()) {
            self.egress.named.insert(host_of(&url));
        }
        if let Some(server) = self.servers.iter_mut().find(|server| *server.name == *name) {
            server.issuer = Some(issuer.clone());
        }
    }
}

/// The names that `--identity` and `source = "…"` may have.
fn identity_sources() -> Vec<&'static str> {
    identity::SOURCES.iter().map(|row| row.name).collect()
}

/// A name that can stand in a path, a label and a variable.
pub(crate) fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 64
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        && !text.starts_with('.')
}

fn writable_by_others(metadata: &std::fs::Metadata, env: &Env) -> Result<(), String> {
    use std::os::unix::fs::MetadataExt;
    if metadata.uid() != env.uid() && metadata.uid() != 0 {
        return Err(format!("belongs to uid {}; it must be ours (uid {}) or root's", metadata.uid(), env.uid()));
    }
    if metadata.mode() & 0o022 != 0 {
        return Err(format!("others can write it (mode {:04o}); `chmod go-w` it", metadata.mode() & 0o7777));
    }
    Ok(())
}

fn own_user(env: &Env) -> Vec<Rule> {
    vec![Rule { uid: Some(env.uid()), gid: None, scopes: None }]
}

fn build<'a>(reader: &mut Reader<'a>, document: &'a DeTable<'a>, env: &Env) -> Config {
    let mut config = Config::empty();
    for (name, value) in document {
        let (text, at) = (name.get_ref().as_ref(), name.span().start);
        let line = reader.line(at);
        if let Some((_, about)) = keys::LATER.iter().find(|(later, _)| *later == text) {
            reader.problem(line, text, format!("not built in this version ({about}); take it out"));
            continue;
        }
        let DeValue::Table(table) = value.get_ref() else {
            let known = ["identity", "servers", "listen", "egress"].into_iter();
            reader.problem(line, text, format!("unknown key, or not a table{}", reader::suggestion(text, known)));
            continue;
        };
        match text {
            "identity" => config.identity = identity_of(reader, at, table),
            "servers" => servers_of(reader, table, env, &mut config),
            "listen" => config.listen = listen_of(reader, at, table, env),
            "egress" => egress_of(reader, at, table, env, &mut config),
            _ => {
                let known = ["identity", "servers", "listen", "egress"].into_iter();
                reader.problem(line, text, format!("unknown table{}", reader::suggestion(text, known)));
            }
        }
    }
    together(reader, &mut config);
    config
}

fn identity_of<'a>(reader: &mut Reader<'a>, at: usize, table: &'a DeTable<'a>) -> Choice {
    let all: Vec<&str> = identity::SOURCES.iter().flat_map(|row| row.settings.iter().map(|(name, _)| *name)).collect();
    let section = reader.section("identity", at, table, &keys::IDENTITY, &all);
    let Some((source, line)) = section.text("source") else {
        if !section.rest.is_empty() {
            reader.problem(section.line, "identity", "its keys need `source`, which says whose they are");
        }
        return Choice::Detect;
    };
    let Some(row) = identity::row(source) else {
        let known = identity_sources();
        reader.problem(
            line,
            "identity.source",
            format!("{source:?} is not known; this version knows: {}", known.join(", ")),
        );
        return Choice::Detect;
    };
    for key in section.rest.keys().filter(|key| !row.settings.iter().any(|(name, _)| name == key)) {
        reader.problem(section.line, &format!("identity.{key}"), format!("belongs to another source than {source:?}"));
    }
    for (name, doc) in row.settings.iter().filter(|(name, _)| !section.rest.contains_key(*name)) {
        reader.problem(line, &format!("identity.{name}"), format!("missing: {doc}"));
    }
    Choice::Named { source: source.to_owned(), settings: section.rest }
}

fn servers_of<'a>(reader: &mut Reader<'a>, servers: &'a DeTable<'a>, env: &Env, config: &mut Config) {
    for (name, value) in servers {
        let (name, at) = (name.get_ref().as_ref(), name.span().start);
        let path = format!("servers.{name}");
        let line = reader.line(at);
        if !is_name(name) {
            reader.problem(line, &path, "a name has letters, digits, `-`, `_` and `.`, at most 64");
        }
        match value.get_ref().as_table() {
            Some(table) => {
                let section = reader.section(&path, at, table, &keys::SERVER, &[]);
                if let Some(server) = server_of(reader, name, &section, env) {
                    config.servers.push(server);
                }
            }
            None => reader.problem(line, &path, format!("must be a table: [servers.{name}]")),
        }
    }
}

fn server_of<'a>(reader: &mut Reader<'a>, name: &str, section: &Section<'a>, env: &Env) -> Option<Server> {
    let url = match section.text("url") {
        Some((text, line)) => {
            insecure(reader, line, &section.key("url"), text);
            ServerUrl::parse(text).map_err(|why| reader.problem(line, &section.key("url"), why.to_string())).ok()
        }
        None if section.has("url") => None,
        None => {
            reader.problem(section.line, &section.key("url"), "missing: the MCP endpoint");
            None
        }
    };
    let issuer = section.text("issuer").and_then(|(text, line)| {
        insecure(reader, line, &section.key("issuer"), text);
        Issuer::parse(text).map_err(|why| reader.problem(line, &section.key("issuer"), why.to_string())).ok()
    });
    let ceiling = scopes_of(reader, section, "scopes");
    let tolerate = scopes_of(reader, section, "tolerate_scopes").unwrap_or_default();
    let exchange = exchange_of(reader, section);
    let client_auth = client_auth_of(reader, section);
    contradictions(reader, section, exchange.as_deref(), client_auth);
    let resource = match section.text("resource") {
        None => ResourceParameter::FromMetadata,
        Some(("", _)) => ResourceParameter::Omitted,
        Some((text, line)) => {
            if let Err(why) = Resource::parse(text) {
                reader.problem(line, &section.key("resource"), why.to_string());
            }
            ResourceParameter::Fixed(Resource::verbatim(text))
        }
    };
    let allow = allow_of(reader, section, env);
    let text = |key: &str| section.text(key).map(|(text, _)| text.to_owned());
    Some(Server {
        name: name.into(),
        url: url?,
        issuer,
        trust_discovered_issuer: section.flag("trust_discovered_issuer"),
        policy: Policy { allow, ceiling, tolerate },
        exchange,
        client_id: text("client_id"),
        client_auth,
        audience: text("audience"),
        subject_audience: text("subject_audience"),
        resource,
        extra: extra_of(reader, section),
        required: section.flag("required"),
        usual_key: OnceLock::new(),
    })
}

fn scopes_of(reader: &mut Reader<'_>, section: &Section<'_>, key: &str) -> Option<Scopes> {
    let (list, line) = section.texts(key)?;
    Scopes::from_list(list.iter().map(String::as_str))
        .map_err(|why| reader.problem(line, &section.key(key), why.to_string()))
        .ok()
}

fn exchange_of(reader: &mut Reader<'_>, section: &Section<'_>) -> Option<String> {
    let (name, line) = section.text("exchange")?;
    if exchange::row(name).is_none() {
        let known: Vec<&str> = exchange::EXCHANGES.iter().map(|row| row.name).collect();
        reader.problem(
            line,
            &section.key("exchange"),
            format!("{name:?} is not known or not built in this version; it knows: {}", known.join(", ")),
        );
        return None;
    }
    Some(name.to_owned())
}

fn client_auth_of(reader: &mut Reader<'_>, section: &Section<'_>) -> ClientAuth {
    let Some((name, line)) = section.text("client_auth") else { return ClientAuth::None };
    ClientAuth::parse(name).unwrap_or_else(|| {
        let known: Vec<&str> = ClientAuth::ALL.iter().map(|(name, _)| *name).collect();
        let later = ["private-key-jwt", "secret", "mtls"].contains(&name);
        let what = if later { "not built in this version" } else { "not known" };
        let what = format!("{name:?} is {what}; it knows: {}", known.join(", "));
        reader.problem(line, &section.key("client_auth"), what);
        ClientAuth::None
    })
}

/// What contradicts itself, and what without a pin would go to whoever the server names, who could replay it elsewhere.
fn contradictions(reader: &mut Reader<'_>, section: &Section<'_>, exchange: Option<&str>, client_auth: ClientAuth) {
    if exchange == Some("client-credentials") && client_auth == ClientAuth::None {
        let what = "\"client-credentials\" needs `client_auth`: a client that proves nothing gets nothing";
        reader.problem(section.line_of("exchange"), &section.key("exchange"), what);
    }
    if client_auth == ClientAuth::Workload && matches!(exchange, None | Some("jwt-bearer")) {
        let what = "\"workload\" would send one JWT as grant and as proof, and a server may take it only once; \
            set `exchange = \"client-credentials\"`";
        reader.problem(section.line_of("client_auth"), &section.key("client_auth"), what);
    }
    if section.has("issuer") {
        return;
    }
    let named = ["client_id", "audience", "subject_audience", "extra"].into_iter().filter(|key| section.has(key));
    let by_value = [("client_auth", client_auth != ClientAuth::None), ("exchange", exchange == Some("token-exchange"))];
    for key in named.chain(by_value.into_iter().filter(|(_, so)| *so).map(|(key, _)| key)) {
        let what = "needs `issuer`: without a pin it would be sent to whoever the server names";
        reader.problem(section.line_of(key), &section.key(key), what);
    }
}

fn extra_of(reader: &mut Reader<'_>, section: &Section<'_>) -> Vec<(String, String)> {
    let Some((pairs, line)) = section.pairs("extra") else { return Vec::new() };
    let set = exchange::reserved();
    for (name, _) in pairs.iter().filter(|(name, _)| set.contains(&name.as_str())) {
        reader.problem(line, &section.key("extra"), format!("{name:?} is set by the exchange itself or is a secret"));
    }
    pairs.to_vec()
}

fn allow_of<'a>(reader: &mut Reader<'a>, section: &Section<'a>, env: &Env) -> Vec<Rule> {
    let Some(entries) = reader.rules(section) else { return own_user(env) };
    if entries.is_empty() {
        reader.problem(
            section.line_of("allow"),
            &section.key("allow"),
            "an empty list lets nobody in; omit it for the daemon's own user",
        );
    }
    let mut rules = Vec::new();
    for entry in &entries {
        let rule =
            Rule { uid: entry.number("uid"), gid: entry.number("gid"), scopes: scopes_of(reader, entry, "scopes") };
        // A key of a later version was reported already; an entry must not become wider by its absence.
        if !entry.has("uid") && !entry.has("gid") {
            reader.problem(entry.line, &entry.path, "an entry needs `uid` or `gid`");
        }
        rules.push(rule);
    }
    rules
}

fn listen_of<'a>(reader: &mut Reader<'a>, at: usize, table: &'a DeTable<'a>, env: &Env) -> Listen {
    let section = reader.section("listen", at, table, &keys::LISTEN, &[]);
    let socket = section.text("socket").map(|(text, line)| {
        if !Path::new(text).is_absolute() {
            reader.problem(line, "listen.socket", "must be an absolute path");
        }
        PathBuf::from(text)
    });
    let mode = match section.text("socket_mode") {
        None => 0o600,
        Some((text, line)) => match u32::from_str_radix(text.trim_start_matches("0o"), 8) {
            Ok(mode @ (0o600 | 0o660)) => mode,
            _ => {
                reader.problem(line, "listen.socket_mode", format!("{text:?} is neither \"0600\" nor \"0660\""));
                0o600
            }
        },
    };
    let group = section.text("socket_group").and_then(|(text, line)| {
        let group = env.group_id(text);
        if group.is_none() {
            reader.problem(line, "listen.socket_group", format!("there is no group {text:?}"));
        }
        group
    });
    if mode == 0o660 && !section.has("socket_group") {
        reader.problem(
            section.line_of("socket_mode"),
            "listen.socket_mode",
            "\"0660\" needs `socket_group`, which says who is let in",
        );
    }
    if mode == 0o600 && section.has("socket_group") {
        reader.problem(
            section.line_of("socket_group"),
            "listen.socket_group",
            "has no effect without `socket_mode = \"0660\"`",
        );
    }
    Listen { socket, mode, group }
}

fn egress_of<'a>(reader: &mut Reader<'a>, at: usize, table: &'a DeTable<'a>, env: &Env, config: &mut Config) {
    let section = reader.section("egress", at, table, &keys::EGRESS, &[]);
    config.egress.insecure_loopback = section.flag("insecure_loopback");
    if let Some((list, line)) = section.texts("allow") {
        let mut networks = Vec::new();
        for text in list {
            match Network::parse(text) {
                Some(network) => networks.push(network),
                None if is_host(text) => drop(config.egress.named.insert(text.to_ascii_lowercase())),
                None => reader.problem(line, "egress.allow", format!("{text:?} is neither a host name nor a network")),
            }
        }
        config.egress.allow = Some(networks);
    }
    if let Some((list, line)) = section.texts("issuers") {
        let mut issuers = Vec::new();
        for text in list {
            match Issuer::parse(text) {
                Ok(issuer) => issuers.push(issuer),
                Err(why) => reader.problem(line, "egress.issuers", format!("{text:?}: {why}")),
            }
        }
        config.issuers = Some(issuers);
    }
    if let Some((path, line)) = section.text("ca_file") {
        match env.read(Path::new(path), CAP) {
            Ok(pem) if outbound::is_pem_bundle(&pem) => config.egress.ca_pem = Some(pem.to_vec()),
            Ok(_) => reader.problem(line, "egress.ca_file", format!("{path} holds no PEM certificate")),
            Err(error) => reader.problem(line, "egress.ca_file", format!("{path} cannot be read: {error}")),
        }
    }
}

fn is_host(text: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
    };
    text.split('.').all(label)
}

/// What no single table shows.
fn together(reader: &mut Reader<'_>, config: &mut Config) {
    for (i, one) in config.servers.iter().enumerate() {
        for other in &config.servers[i + 1..] {
            if one.name.eq_ignore_ascii_case(&other.name) {
                reader.problem(
                    None,
                    &format!("servers.{}", other.name),
                    format!("differs from servers.{} by case alone", one.name),
                );
            }
            let shared = |a: &Server, b: &Server| {
                a.url == b.url
                    || matches!((&a.resource, &b.resource), (ResourceParameter::Fixed(one), ResourceParameter::Fixed(other)) if one == other)
                    || matches!(&a.resource, ResourceParameter::Fixed(resource) if resource.stands_for(&b.url))
            };
            if (shared(one, other) || shared(other, one)) && one.policy.allow != other.policy.allow {
                let what = format!(
                    "is one resource with servers.{}, but allows other callers: a token for one would be good for the other",
                    one.name
                );
                reader.problem(None, &format!("servers.{}", other.name), what);
            }
        }
    }
    let mut named = std::mem::take(&mut config.egress.named);
    for server in &config.servers {
        named.insert(host_of(server.url.url()));
        if let Some(Ok(url)) = server.issuer.as_ref().map(|issuer| url::Url::parse(issuer.as_str())) {
            named.insert(host_of(&url));
        }
    }
    for issuer in config.issuers.iter().flatten() {
        named.extend(url::Url::parse(issuer.as_str()).map(|url| host_of(&url)));
    }
    config.egress.named = named;
}

/// Plain http is for loopback alone. Whether that is switched on is checked when it is dialled, because the flag
/// comes after the file.
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
