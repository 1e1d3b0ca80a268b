//! Settings and counters that tests use while the MCP server runs.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::super::fault::Fault;
use super::super::keys;
use super::{FakeMcp, Lenience, Seen, Signposts};

impl FakeMcp {
    /// The required `iss` of tokens, after the authorization server has moved to another issuer path.
    pub fn set_issuer(&self, issuer: &str) {
        issuer.clone_into(&mut self.state.now().issuer);
        self.set_metadata(json!({"authorization_servers": [issuer]}));
    }

    /// Puts a front door before the server: `lets_in` must accept the token in this header field.
    pub fn stand_behind(&self, field: &str, lets_in: impl Fn(&str) -> bool + Send + Sync + 'static) {
        self.state.now().door = Some((field.to_owned(), Arc::new(lets_in)));
    }

    /// The requests that the front door refused.
    pub fn turned_away(&self) -> usize {
        self.state.now().turned_away
    }

    pub fn set_signposts(&self, signposts: Signposts) {
        self.state.now().signposts = signposts;
    }

    /// Replaces members of its metadata (`resource`, `authorization_servers`, `scopes_supported`, …); null removes one.
    pub fn set_metadata(&self, overrides: Value) {
        keys::overlay(self.state.now().metadata.as_object_mut().expect("it is made as an object"), &overrides);
    }

    /// Publishes this document at a path of the same origin.
    pub fn publish(&self, path: &str, document: Value) {
        let mut now = self.state.now();
        now.documents.retain(|(at, _)| at != path);
        now.documents.push((path.to_owned(), document));
    }

    /// The required scopes: without all of them a request gets 403 `insufficient_scope`.
    pub fn require_scope(&self, scope: Option<&str>) {
        self.state.now().required_scope = scope.map(str::to_owned);
    }

    /// Takes only tokens that are bound to a key, each request with a proof, and says so in its metadata. With a nonce,
    /// every proof must have it.
    pub fn require_dpop(&self, nonce: Option<&str>) {
        self.set_metadata(json!({"dpop_bound_access_tokens_required": true}));
        self.state.now().possession = Some(nonce.map(str::to_owned));
    }

    /// `scope` in the challenge of a 401.
    pub fn set_challenge_scope(&self, scope: Option<&str>) {
        self.state.now().challenge_scope = scope.map(str::to_owned);
    }

    /// Sends these `WWW-Authenticate` values, each in its own header, with every 401; `None`: the correct one.
    pub fn set_challenges(&self, challenges: Option<&[&str]>) {
        self.state.now().challenges = challenges.map(|all| all.iter().map(|one| (*one).to_owned()).collect());
    }

    /// The mistakes of the bearer check.
    pub fn set_lenience(&self, lenience: Lenience) {
        self.state.now().lenience = lenience;
    }

    /// The next `count` requests with a valid token get 401 `invalid_token` anyway.
    pub fn refuse_next(&self, count: usize) {
        self.state.now().refuse = count;
    }

    /// Forgets all sessions, as after a restart.
    pub fn restart(&self) {
        let fresh = super::service(&self.state.waits);
        *self.state.service.lock().expect("never held over a panic") = Arc::new(fresh);
    }

    /// Headers added to every answer of the MCP endpoint.
    pub fn set_answer_headers(&self, headers: &[(&str, &str)]) {
        self.state.now().answer_headers =
            headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    }

    /// Each of the next requests at the MCP endpoint gets one of these faults, with a token or without.
    pub fn script(&self, faults: impl IntoIterator<Item = Fault>) {
        self.state.script.push(faults);
    }

    pub fn script_metadata(&self, faults: impl IntoIterator<Item = Fault>) {
        self.state.metadata_script.push(faults);
    }

    pub fn always_metadata(&self, fault: Fault) {
        self.state.metadata_script.always(fault);
    }

    /// Removes all faults and starts serving again.
    pub fn heal(&self) {
        self.state.script.clear();
        self.state.metadata_script.clear();
        self.set_down(false);
    }

    pub fn set_down(&self, down: bool) {
        self.listener.set_down(down);
    }

    /// Requests at the MCP endpoint so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.state.now().seen.clone()
    }

    /// Requests without an `Authorization` header.
    pub fn probes(&self) -> usize {
        self.count(|seen| seen.header("authorization").is_none())
    }

    /// Requests that passed the bearer check.
    pub fn calls(&self) -> usize {
        self.count(|seen| !matches!(seen.status, 0 | 401 | 403))
    }

    /// Requests with a token that was refused.
    pub fn refusals(&self) -> usize {
        self.count(|seen| matches!(seen.status, 401 | 403) && seen.header("authorization").is_some())
    }

    pub fn metadata_requests(&self) -> usize {
        self.state.now().metadata_paths.len()
    }

    /// The metadata paths asked for so far, in order, those that gave 404 included.
    pub fn metadata_paths(&self) -> Vec<String> {
        self.state.now().metadata_paths.clone()
    }

    /// Calls of the tool `wait` that have begun.
    pub fn waits(&self) -> usize {
        self.state.waits.begun.load(Ordering::SeqCst)
    }

    /// Calls of the tool `wait` that the client cancelled.
    pub fn cancelled(&self) -> usize {
        self.state.waits.cancelled.load(Ordering::SeqCst)
    }

    fn count(&self, which: impl Fn(&Seen) -> bool) -> usize {
        self.state.now().seen.iter().filter(|seen| which(seen)).count()
    }
}
