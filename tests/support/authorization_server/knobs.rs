//! Settings and counters that tests use while the authorization server runs.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::super::keys;
use super::super::platform::Trust;
use super::{ClientProof, FakeAs, MetadataFault, Profile, Published, TokenFault, TokenRequest};

impl FakeAs {
    /// `""`, `"/tenant1"` or, for an issuer that ends in a slash, `"/"`.
    pub fn set_issuer_path(&self, path: &str) {
        let is_path = path.starts_with('/') && !path.ends_with('/');
        assert!(path.is_empty() || path == "/" || is_path, "a path like /tenant1");
        self.state.now().path = path.to_owned();
    }

    /// Makes it a server of this kind.
    pub fn set_profile(&self, profile: Profile) {
        self.state.now().profile = profile;
    }

    /// Trusts this one and no other.
    pub fn trust_only(&self, trusted: Trust) {
        self.state.now().trusted = vec![trusted];
    }

    /// Trusts one more platform.
    pub fn also_trust(&self, trusted: Trust) {
        self.state.now().trusted.push(trusted);
    }

    /// Accepts signed requests of AWS in a token exchange; a header field of theirs contains the audience.
    pub fn trust_aws(
        &self,
        field: &'static str,
        caller: impl Fn(&str, &str, &str) -> Result<String, String> + Send + Sync + 'static,
    ) {
        self.state.now().aws = Some(Arc::new(move |text, issuer| caller(text, field, issuer)));
    }

    /// Issues tokens for this resource, byte for byte, with at most these scopes.
    pub fn register(&self, resource: &str, scopes: &[&str]) {
        let scopes = scopes.iter().map(|scope| (*scope).to_owned()).collect();
        self.state.now().resources.insert(resource.to_owned(), scopes);
    }

    /// Whether a request without `resource` is for the one registered resource (as with servers that know no RFC 8707).
    pub fn set_resource_optional(&self, optional: bool) {
        self.state.now().resource_optional = optional;
    }

    /// Accepts only assertions that match this rule: `iss`, `aud`, `sub` or `sub_starts_with`, and all of `claims`.
    pub fn set_rule(&self, rule: Value) {
        self.state.now().rule = Some(rule);
    }

    /// Requires for the client-credentials grant a client identifier that is federated with the subject.
    pub fn federate(&self, client_id: &str, subject: &str) {
        self.state.now().federated.insert(client_id.to_owned(), subject.to_owned());
    }

    /// Registers a client with its proof.
    pub fn add_client(&self, id: &str, proof: ClientProof) {
        self.state.now().clients.known.insert(id.to_owned(), proof);
    }

    /// Whether every grant needs a registered client.
    pub fn require_clients(&self, required: bool) {
        self.state.now().clients.required = required;
    }

    /// Forgets every client, as a server that lost its database.
    pub fn forget_clients(&self) {
        self.state.now().clients.known.clear();
    }

    /// How often a client registered itself.
    pub fn registrations(&self) -> usize {
        self.state.now().clients.registrations
    }

    /// Proofs of possession must have this nonce; it is handed out with every answer.
    pub fn set_nonce(&self, nonce: Option<&str>) {
        self.state.now().clients.nonce = nonce.map(str::to_owned);
    }

    /// Issues plain bearer tokens and ignores proofs.
    pub fn ignore_proofs(&self, ignores: bool) {
        self.state.now().clients.ignores_proofs = ignores;
    }

    /// Good proofs of possession so far.
    pub fn proofs(&self) -> usize {
        self.state.now().clients.proofs
    }

    /// Binds tokens to this certificate (`x5t#S256`), whichever was shown.
    pub fn bind_to(&self, thumbprint: &str) {
        self.state.now().clients.binds_to = Some(thumbprint.to_owned());
    }

    /// The `audience` that a token exchange must name.
    pub fn set_audience(&self, audience: &str) {
        self.state.now().audience = Some(audience.to_owned());
    }

    /// Whole seconds: `expires_in` counts in them.
    pub fn set_token_life(&self, life: Duration) {
        self.state.now().life = life;
    }

    /// `grant_types_supported` in the metadata; `None` omits it. The accepted grants do not change.
    pub fn set_grants(&self, grants: Option<&[&str]>) {
        self.state.now().grants = grants.map(|grants| grants.iter().map(|grant| (*grant).to_owned()).collect());
    }

    pub fn publish(&self, published: Published) {
        self.state.now().published = published;
    }

    /// Replaces members of the metadata document; null removes one.
    pub fn set_metadata(&self, overrides: Value) {
        self.state.now().metadata = overrides;
    }

    /// Each of the next token requests gets one of these faults; later requests get correct answers.
    pub fn script_token(&self, faults: impl IntoIterator<Item: Into<TokenFault>>) {
        self.state.token_script.push(faults);
    }

    /// Every token request after the script gets this fault, until [`FakeAs::heal`].
    pub fn always_token(&self, fault: impl Into<TokenFault>) {
        self.state.token_script.always(fault);
    }

    pub fn script_metadata(&self, faults: impl IntoIterator<Item: Into<MetadataFault>>) {
        self.state.metadata_script.push(faults);
    }

    pub fn always_metadata(&self, fault: impl Into<MetadataFault>) {
        self.state.metadata_script.always(fault);
    }

    /// Removes all faults and starts serving again.
    pub fn heal(&self) {
        self.state.token_script.clear();
        self.state.metadata_script.clear();
        self.set_down(false);
    }

    /// While down, connections are closed at accept.
    pub fn set_down(&self, down: bool) {
        self.listener.set_down(down);
    }

    /// Requests at the token endpoint so far, scripted failures included.
    pub fn token_requests(&self) -> usize {
        self.state.now().token_requests
    }

    /// When each access token so far was issued, and when its `expires_in` is over, in seconds since 1970.
    pub fn issued(&self) -> Vec<(f64, f64)> {
        self.state.now().issued.clone()
    }

    pub fn metadata_requests(&self) -> usize {
        self.state.now().metadata_paths.len()
    }

    /// The well-known paths asked for so far, in order, those that gave 404 included.
    pub fn metadata_paths(&self) -> Vec<String> {
        self.state.now().metadata_paths.clone()
    }

    /// What the token endpoint received so far; a request that met a wire fault or was no form has no parameters.
    pub fn received(&self) -> Vec<TokenRequest> {
        self.state.now().received.clone()
    }

    pub fn last_request(&self) -> TokenRequest {
        self.state.now().received.last().expect("a token request came").clone()
    }

    pub fn revocations(&self) -> usize {
        self.state.now().revoked.len()
    }

    /// The claims of the assertion with which something was revoked last, unverified.
    pub fn revoked_by(&self) -> keys::Claims {
        self.state.now().revoked_by.clone()
    }

    /// Whether this token was handed back for revocation.
    pub fn is_revoked(&self, token: &str) -> bool {
        self.state.now().revoked.contains(&keys::digest(token))
    }
}
