//! What is allowed in a configuration and is probably not meant, for `config check`: it looks at this machine, and another machine
//! may be the one that the file is for. So these are warnings, and the daemon starts all the same.

use std::collections::HashMap;
use std::path::Path;

use super::Config;
use crate::broker::{Client, SecretFrom, TokenFor};
use crate::env::Env;
use crate::identity::Choice;

/// Something that is probably not meant.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Doubt {
    /// The key with its table.
    pub(crate) key: String,
    /// What is odd, and what to do.
    pub(crate) what: String,
}

impl Config {
    /// All doubts, in the order of the servers.
    pub(crate) fn doubts(&self, env: &Env) -> Vec<Doubt> {
        let mut doubts = Doubts { env, found: Vec::new() };
        for (name, identity) in &self.identities {
            let table = if &**name == super::DEFAULT { "identity".to_owned() } else { format!("identities.{name}") };
            if let Choice::Named { settings, .. } = &identity.choice {
                doubts.settings(&table, settings);
            }
            identity.links.iter().for_each(|link| doubts.client(&table, &link.client));
        }
        let mut before = HashMap::new();
        for server in &self.servers {
            let table = format!("servers.{}", server.name);
            if server.url.url().path().contains("/.well-known/") {
                doubts.add(&table, "url", "is the URL of a metadata document; name the MCP endpoint that it is about");
            }
            if let Some(other) = before.insert(server.url.normal().to_owned(), &server.name) {
                let what = format!("is that of servers.{other} too: asked for by URL, one of them is never used");
                doubts.add(&table, "url", &what);
            }
            if server.policy.has_empty_rule() {
                doubts.add(&table, "allow", "has an entry none of whose `scopes` is in the server's: it gets nothing");
            }
            for order in server.orders() {
                let is_outer = order.opens == TokenFor::FrontDoor;
                let table = if is_outer { format!("{table}.outer") } else { table.clone() };
                doubts.client(&table, &order.client);
                order.idp.iter().for_each(|idp| doubts.client(&format!("{table}.idp"), &idp.client));
            }
        }
        doubts.found
    }
}

struct Doubts<'a> {
    env: &'a Env,
    found: Vec<Doubt>,
}

impl Doubts<'_> {
    fn add(&mut self, table: &str, key: &str, what: &str) {
        self.found.push(Doubt { key: format!("{table}.{key}"), what: what.to_owned() });
    }

    fn file(&mut self, table: &str, key: &str, path: &Path) {
        if let Err(error) = self.env.metadata(path) {
            self.add(table, key, &format!("{} cannot be found here: {error}", path.display()));
        }
    }

    fn variable(&mut self, table: &str, key: &str, name: &str) {
        if self.env.get(name).is_none() {
            self.add(table, key, &format!("{name} is not set here"));
        }
    }

    fn client(&mut self, table: &str, client: &Client) {
        match &client.secret {
            Some(SecretFrom::File(path)) => self.file(table, "client_secret_file", path),
            Some(SecretFrom::Variable(name)) => self.variable(table, "client_secret_env", name),
            None => {}
        }
        for (key, path) in [("client_key_file", &client.key_file), ("client_cert_file", &client.certificate_file)] {
            path.iter().for_each(|path| self.file(table, key, path));
        }
    }

    /// The keys of an identity source.
    fn settings(&mut self, table: &str, settings: &toml::Table) {
        for (key, value) in settings {
            let Some(text) = value.as_str() else { continue };
            match &**key {
                "token_file" | "file" if text.starts_with('/') => self.file(table, key, Path::new(text)),
                "token_env" => self.variable(table, key, text),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_files_unset_variables_metadata_urls_and_two_names_for_one_url_are_seen() {
        let env = Env::from_vars([("SET".to_owned(), "x".to_owned())]);
        let server = |name: &str, url: &str, more: &str| {
            format!("[servers.{name}]\nurl = \"{url}\"\nissuer = \"https://as.example.com\"\n{more}\n")
        };
        let secret = |how: &str| format!("client_id = \"a\"\nclient_auth = \"secret\"\n{how}");
        let text = [
            "[identity]\nsource = \"file\"\ntoken_file = \"/nonexistent/id.jwt\"\n".to_owned(),
            server("a", "https://a.example.com/mcp", &secret("client_secret_env = \"UNSET\"")),
            server("b", "https://b.example.com/mcp", &secret("client_secret_env = \"SET\"")),
            server("c", "https://c.example.com/mcp", &secret("client_secret_file = \"/nonexistent/secret\"")),
            server("d", "https://d.example.com/.well-known/oauth-protected-resource", ""),
            server("e", "https://b.example.com/mcp/", ""),
        ];
        let config = Config::from_toml(&text.concat(), &env).unwrap_or_else(|error| panic!("{error}"));
        let doubts = config.doubts(&env);
        let keys: Vec<&str> = doubts.iter().map(|doubt| &*doubt.key).collect();
        let expected = [
            "identity.token_file",
            "servers.a.client_secret_env",
            "servers.c.client_secret_file",
            "servers.d.url",
            "servers.e.url",
        ];
        assert_eq!(keys, expected, "{doubts:?}");
    }
}
