//! `[egress]`: which hosts we may connect to.

use std::path::Path;

use toml::de::DeTable;

use super::reader::{Found, Reader, Section};
use super::{CAP, Config, keys};
use crate::env::Env;
use crate::oauth::Issuer;
use crate::outbound::{self, Network, Proxy};

pub(super) fn egress_of<'a>(
    reader: &mut Reader<'a>,
    at: usize,
    table: &'a DeTable<'a>,
    env: &Env,
    config: &mut Config,
) {
    let section = reader.section(Found { path: "egress", at, table }, &keys::EGRESS, &[]);
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
    proxy_of(reader, &section, env, config);
    if let Some((path, line)) = section.text("ca_file") {
        match env.read(Path::new(path), CAP) {
            Ok(pem) if outbound::is_pem_bundle(&pem) => config.egress.ca_pem = Some(pem.to_vec()),
            Ok(_) => reader.problem(line, "egress.ca_file", format!("{path} holds no PEM certificate")),
            Err(error) => reader.problem(line, "egress.ca_file", format!("{path} cannot be read: {error}")),
        }
    }
}

fn proxy_of(reader: &mut Reader<'_>, section: &Section<'_>, env: &Env, config: &mut Config) {
    let Some((text, line)) = section.text("proxy") else { return };
    // Do not repeat the value: it may contain a password.
    let proxy =
        Proxy::no_proxy(env).and_then(|no_proxy| Proxy::new(&text.to_owned().into(), no_proxy).map_err(str::to_owned));
    match proxy {
        Ok(proxy) => config.egress.proxy = Some(proxy),
        Err(why) => reader.problem(line, &section.key("proxy"), why),
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
