//! Servers that are not configured: with `unlisted = true` the daemon's own user may ask for any URL, and everything
//! about it is discovered.
//!
//! Their number is bounded, and metrics count them under one name. None is served on the origin of a configured server,
//! so that another spelling of a URL cannot bypass that server's `allow`. The operator did not name these hosts, so the
//! egress rules for hosts that others name apply: public addresses only, or `[egress] allow`.

use std::sync::{Arc, Mutex, PoisonError};

use super::server::{Server, beside};
use super::{Error, Refusal, Target};
use crate::caller::Caller;
use crate::clock::Boot;
use crate::oauth::{ServerUrl, host_of};
use crate::outbound::NamedBy;
use crate::policy::Rule;
use crate::token::Digest;

/// The name under which metrics count all of them.
pub(crate) const UNLISTED: &str = "unlisted";
/// More servers than the agents of one user use.
const CAP: usize = 256;
/// The longest part of a host's name that fits beside the digest into a server name of at most 64 characters.
const HOST_CAP: usize = 48;

/// The servers that callers asked for by URL.
pub(super) struct Unlisted {
    own_uid: u32,
    known: Mutex<Vec<Known>>,
}

/// One server, and when it was asked for last.
struct Known {
    server: Arc<Server>,
    used: Boot,
}

impl Unlisted {
    /// Serves the daemon's own user only.
    pub(super) fn new(own_uid: u32) -> Self {
        Self { own_uid, known: Mutex::default() }
    }

    /// May this caller use unlisted servers?
    pub(super) fn is_for(&self, caller: &Caller) -> bool {
        caller.is_user(self.own_uid)
    }

    /// A server that was asked for before, by its URL in any spelling or by the name in the status.
    pub(super) fn find(&self, target: &Target) -> Option<Arc<Server>> {
        let known = self.lock();
        let found = known.iter().find(|one| match target {
            Target::Name(name) => *one.server.name == **name,
            Target::Url(url) => one.server.url == *url,
        });
        found.map(|one| Arc::clone(&one.server))
    }

    /// The server at this URL. At the cap the least recently used one without a token is removed. Fails on the origin
    /// of a configured server, for a URL with a query, and at the cap if every server has a token.
    pub(super) fn open(
        &self,
        url: &ServerUrl,
        configured: &[Arc<Server>],
        holds: impl Fn(&Server) -> bool,
        now: Boot,
    ) -> Result<Arc<Server>, Error> {
        if let Some(server) = beside(configured.iter(), url) {
            return Err(Refusal::beside(url, server).into());
        }
        // A query may contain a secret, and the status would show it.
        if url.url().query().is_some() {
            return Err(Refusal::UnlistedQuery(url.into()).into());
        }
        let mut known = self.lock();
        if let Some(one) = known.iter_mut().find(|one| one.server.url == *url) {
            one.used = now;
            return Ok(Arc::clone(&one.server));
        }
        if known.len() >= CAP {
            let idle = known.iter().enumerate().filter(|(_, one)| !holds(&one.server));
            let oldest = idle.min_by_key(|(_, one)| one.used).map(|(at, _)| at);
            known.swap_remove(oldest.ok_or(Refusal::TooManyUnlisted(CAP))?);
        }
        let server = Arc::new(self.server(url));
        known.push(Known { server: Arc::clone(&server), used: now });
        Ok(server)
    }

    /// All of them, for status.
    pub(super) fn all(&self) -> Vec<Arc<Server>> {
        self.lock().iter().map(|one| Arc::clone(&one.server)).collect()
    }

    fn server(&self, url: &ServerUrl) -> Server {
        let allow = vec![Rule::own_user(self.own_uid)];
        Server { named_by: NamedBy::Them, ..Server::discovered(name(url).into(), url.clone(), allow) }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The host, for people, and a digest of the whole URL. Configured names contain no tilde, so the two cannot collide.
fn name(url: &ServerUrl) -> String {
    let host: String = host_of(url.url()).chars().take(HOST_CAP).collect();
    format!("{host}~{}", &Digest::of(url.normal().as_bytes()).hex()[..12])
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::clock::Clock;

    fn url(text: &str) -> ServerUrl {
        ServerUrl::parse(text).expect("a good URL")
    }

    fn now() -> Boot {
        Clock::virtual_at(SystemTime::UNIX_EPOCH).boot()
    }

    #[tokio::test(start_paused = true)]
    async fn all_spellings_of_a_url_are_one_server() {
        let unlisted = Unlisted::new(7);
        let first = unlisted.open(&url("https://mcp.example.com/mcp"), &[], |_| false, now()).expect("served");
        let again = unlisted.open(&url("HTTPS://MCP.example.com:443/mcp/"), &[], |_| false, now()).expect("served");
        assert!(Arc::ptr_eq(&first, &again));
        assert!(first.name.starts_with("mcp.example.com~") && first.name.len() <= 64, "{}", first.name);
        assert!(unlisted.find(&Target::Name(first.name.to_string())).is_some());
        let other = unlisted.open(&url("https://mcp.example.com/other"), &[], |_| false, now()).expect("served");
        assert_ne!(first.name, other.name, "tokens are told apart by the name of their server");
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_served_on_the_origin_of_a_configured_server() {
        let unlisted = Unlisted::new(7);
        let configured = Server::discovered("demo".into(), url("https://mcp.example.com/mcp"), Vec::new());
        for text in ["https://mcp.example.com/", "https://MCP.example.com:443/%6dcp", "https://mcp.example.com/mcpx"] {
            let error = unlisted.open(&url(text), &[Arc::new(configured.clone())], |_| false, now()).expect_err(text);
            assert_eq!(error.class(), crate::broker::Class::Denied, "{error}");
        }
        assert!(unlisted.all().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn at_the_cap_the_longest_unused_goes_and_one_with_a_token_never_does() {
        let clock = Clock::virtual_at(SystemTime::UNIX_EPOCH);
        let unlisted = Unlisted::new(7);
        for i in 0..CAP {
            unlisted.open(&url(&format!("https://{i}.example.com/")), &[], |_| false, clock.boot()).expect("served");
            tokio::time::advance(std::time::Duration::from_secs(1)).await;
        }
        let holds_first = |server: &Server| server.url == url("https://0.example.com/");
        unlisted.open(&url("https://one-more.example.com/"), &[], holds_first, clock.boot()).expect("room was made");
        let is_there = |text: &str| unlisted.find(&Target::Url(url(text))).is_some();
        assert!(is_there("https://0.example.com/") && !is_there("https://1.example.com/"));
        assert_eq!(unlisted.all().len(), CAP);
        let error = unlisted.open(&url("https://too-many.example.com/"), &[], |_| true, clock.boot());
        assert_eq!(error.expect_err("no room").class(), crate::broker::Class::Temporary);
    }
}
