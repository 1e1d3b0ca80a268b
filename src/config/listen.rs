//! `[listen]`: the addresses of the daemon.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::DeTable;

use super::reader::{Found, Reader, Section};
use super::{Listen, keys};
use crate::env::Env;

/// The limit for `linger`. Service managers and kubelets kill the process earlier.
const LONGEST_LINGER: Duration = Duration::from_secs(3_600);

impl Listen {
    /// For one command: this socket, and this address on loopback.
    pub(crate) fn private(socket: PathBuf, http: SocketAddr) -> Self {
        Self { socket: Some(socket), http: vec![http], ..Self::silent() }
    }
}

pub(super) fn listen_of<'a>(reader: &mut Reader<'a>, at: usize, table: &'a DeTable<'a>, env: &Env) -> Listen {
    let section = reader.section(Found { path: "listen", at, table }, &keys::LISTEN, &[]);
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
    let http = section.text("http").map(|(text, line)| loopback(reader, line, text)).unwrap_or_default();
    let health = section.text("health").map_or_else(Vec::new, |(text, line)| {
        let found = addresses(text);
        if found.is_empty() {
            reader.problem(line, "listen.health", format!("{text:?} is not an address with a port, like 0.0.0.0:9464"));
        }
        found
    });
    if let Some(same) = health.iter().find(|health| health.port() != 0 && http.contains(health)) {
        let what = format!("{same} is the address of `http` as well; each needs its own");
        reader.problem(section.line_of("health"), "listen.health", what);
    }
    let linger = section.span("linger").unwrap_or_default();
    if linger > LONGEST_LINGER {
        reader.problem(
            section.line_of("linger"),
            "listen.linger",
            "more than an hour: nobody waits so long for an end",
        );
    }
    let (http_owner, oauth_token) = on_http(reader, &section);
    Listen { socket, mode, group, http, health, http_owner, oauth_token, linger, unlisted: section.flag("unlisted") }
}

/// What holds on the loopback listener alone: `http_owner` and `oauth_token`.
fn on_http(reader: &mut Reader<'_>, section: &Section<'_>) -> (bool, bool) {
    for key in ["http_owner", "oauth_token"] {
        if section.has(key) && !section.has("http") {
            reader.problem(section.line_of(key), &section.key(key), "has no effect without `http`");
        }
    }
    (section.maybe_flag("http_owner").unwrap_or(true), section.flag("oauth_token"))
}

/// Reads the addresses of the HTTP API. Only loopback is allowed, because the secret is sent unencrypted.
fn loopback(reader: &mut Reader<'_>, line: usize, text: &str) -> Vec<SocketAddr> {
    let found = addresses(text);
    if found.is_empty() {
        let what = format!("{text:?} is not an address with a port, like 127.0.0.1:7878");
        reader.problem(line, "listen.http", what);
    }
    let wrong = match found.iter().find(|address| !may_be_named(address)) {
        None => return found,
        Some(address) if address.ip().is_loopback() => "is another loopback address than requests may name in `Host`",
        Some(_) => "is not loopback: the API is for this machine alone",
    };
    reader.problem(line, "listen.http", format!("{text:?} {wrong} (127.0.0.1, [::1], localhost)"));
    found
}

/// May a request name this address in `Host`? The gate knows two, so that a page cannot choose another of 127.0.0.0/8.
fn may_be_named(address: &SocketAddr) -> bool {
    address.ip() == Ipv4Addr::LOCALHOST || address.ip() == Ipv6Addr::LOCALHOST
}

/// Parses an address with a port. `localhost` means both loopback addresses: clients try one after the other, and
/// another process could listen on the one that we leave free.
fn addresses(text: &str) -> Vec<SocketAddr> {
    match text.strip_prefix("localhost:").map(str::parse) {
        Some(Ok(port)) => vec![(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()],
        Some(Err(_)) => Vec::new(),
        None => text.parse().into_iter().collect(),
    }
}
