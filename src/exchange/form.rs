//! The form of a token request (RFC 6749 appendix B), with the parameters that all exchanges share.

use url::form_urlencoded::Serializer;
use zeroize::Zeroizing;

use super::Request;
use super::client_auth::Parameter;
use crate::outbound::Body;

/// The parameters that every exchange sets itself. `extra` may not set them.
pub(super) const SHARED: [&str; 7] =
    ["grant_type", "resource", "scope", "client_id", "client_assertion", "client_assertion_type", "client_secret"];

/// Builds the body of a token request: the grant, the exchange's own parameters, then those of `request` and of the
/// client.
pub(super) fn token_request(grant: &str, own: &[(&str, &str)], request: &Request, client: &[Parameter]) -> Body {
    let scopes = request.scopes.to_string();
    let mut pairs = vec![("grant_type", grant)];
    pairs.extend_from_slice(own);
    pairs.extend(request.resource.iter().map(|resource| ("resource", resource.as_str())));
    if !scopes.is_empty() {
        pairs.push(("scope", &scopes));
    }
    pairs.extend(request.audience.iter().map(|audience| ("audience", audience.as_str())));
    pairs.extend(client.iter().map(|(name, value)| (*name, value.as_str())));
    pairs.extend(request.extra.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    pairs.extend(request.assertions.iter().map(|(name, token)| (name.as_str(), token.expose())));
    encoded(&pairs)
}

/// Encodes a form in memory that is cleared when it is dropped.
pub(super) fn encoded(pairs: &[(&str, &str)]) -> Body {
    // Reserve the maximum size (every byte escaped): growing would leave copies of secrets in freed memory.
    let room = pairs.iter().map(|(name, value)| 3 * (name.len() + value.len()) + 2).sum();
    let mut form = Serializer::new(String::with_capacity(room));
    form.extend_pairs(pairs);
    Body { content_type: "application/x-www-form-urlencoded", bytes: Zeroizing::new(form.finish().into_bytes()) }
}
