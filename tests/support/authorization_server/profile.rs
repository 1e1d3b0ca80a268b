//! How a real server differs from the MCP profile: the parameter for the target, the required client, its own error messages.
//!
//! A profile never switches a check off: signatures, times and `jti` are always verified. The vendors' profiles
//! are in `support/profiles.rs`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::keys::{self, Claims};
use super::token_endpoint::Refusal;

/// One kind of server. The default is the MCP profile itself.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    /// Where it reads the target of the token.
    pub target: Target,
    /// A request with `resource` is refused.
    pub refuses_resource: bool,
    /// The scopes it grants; empty: those registered with the resource.
    pub scopes: &'static [&'static str],
    /// A request without `scope` is refused.
    pub wants_scope: bool,
    /// The only `aud` of an assertion; `None`: the issuer.
    pub assertion_audience: Option<String>,
    /// The only `aud` of an assertion that a client's key signs; `None`: the issuer.
    pub client_audience: Option<String>,
    /// A federated client is the one of the assertion's `sub`, whichever `client_id` is named, and both must be the same.
    pub finds_clients_by_subject: bool,
    /// It takes JWT-SVIDs neither by their own assertion type nor without `jti`.
    pub knows_no_svids: bool,
    /// Assertions are taken once by their digest, whether they have a `jti` or not.
    pub once_by_digest: bool,
    /// A token exchange names this connector, and calls what it brings an ID token or an access token (Dex).
    pub connector: Option<&'static str>,
    /// It grants no scope, whatever is asked for.
    pub grants_no_scope: bool,
    /// The audience of its tokens; null: they have none.
    pub token_audience: Option<Value>,
    /// The maximum age of an assertion, from its `iat`.
    pub oldest_assertion: Option<Duration>,
    /// The only `typ` of an assertion.
    pub wants_typ: Option<&'static str>,
    /// The subjects with accounts; `None`: every subject of a trusted platform.
    pub linked: Option<Vec<String>>,
    /// Accepts assertions without `jti`, which RFC 7523 permits. A replay of these is not detected.
    pub jti_optional: bool,
    /// Accepts an `aud` that is a list of one.
    pub audience_in_list: bool,
    /// The only grant that it allows.
    pub only_grant: Option<&'static str>,
    /// A request without a proof of possession is refused.
    pub wants_proof: bool,
    /// Its tokens are opaque.
    pub opaque: bool,
    /// Its answers have no `scope`.
    pub silent_about_scope: bool,
    /// Its error messages, in place of those of [`super::FakeAs`].
    pub words: &'static [Words],
}

/// Where a server reads the target of the token.
#[derive(Clone, Debug, Default)]
pub enum Target {
    /// `resource` (RFC 8707).
    #[default]
    Resource,
    /// From its own configuration; the request does not matter.
    Fixed(String),
    /// `audience`, which must be this one.
    Audience(String),
}

/// A refusal in the words of the vendor.
#[derive(Clone, Copy, Debug)]
pub struct Words {
    /// The start of the message of [`super::FakeAs`].
    pub ours: &'static str,
    pub status: u16,
    pub code: &'static str,
    pub text: &'static str,
}

type Form = BTreeMap<String, String>;

impl Profile {
    /// The target of the token and its scopes, if the target is not in `resource`.
    pub(super) fn target(&self, form: &Form) -> Result<Option<(String, String)>, Refusal> {
        let value = |name: &str| form.get(name).map(String::as_str).filter(|value| !value.is_empty());
        if self.refuses_resource && form.contains_key("resource") {
            return Err(Refusal::new("invalid_target", "resource is not taken"));
        }
        let target = match &self.target {
            Target::Resource => return Ok(None),
            Target::Fixed(target) => target.clone(),
            Target::Audience(known) => match value("audience") {
                None => return Err(Refusal::new("invalid_request", "audience is missing")),
                Some(named) if named == known => known.clone(),
                Some(_) => return Err(Refusal::new("invalid_target", "audience is unknown")),
            },
        };
        self.scope(value("scope")).map(|scope| Some((target, scope)))
    }

    fn scope(&self, asked: Option<&str>) -> Result<String, Refusal> {
        match asked {
            None if self.wants_scope => Err(Refusal::new("invalid_scope", "scope is missing")),
            None => Ok(self.scopes.join(" ")),
            Some(asked) if asked.split(' ').all(|scope| self.scopes.contains(&scope)) => Ok(asked.to_owned()),
            Some(_) => Err(Refusal::new("invalid_scope", "scope is not granted")),
        }
    }

    /// Why a verified assertion is refused.
    pub(super) fn judge(&self, claims: &Claims) -> Result<(), String> {
        let age = claims.get("iat").and_then(|iat| iat.as_f64()).map_or(f64::INFINITY, |iat| keys::now() - iat);
        if self.oldest_assertion.is_some_and(|oldest| age > oldest.as_secs_f64()) {
            return Err("iat is too long ago".to_owned());
        }
        match &self.linked {
            Some(linked) if !linked.iter().any(|sub| claims.get("sub") == Some(&json!(sub))) => {
                Err("sub has no account".to_owned())
            }
            _ => Ok(()),
        }
    }
}
