//! The form of a token request (RFC 6749 appendix B): what all exchanges send is written here, once.

use url::form_urlencoded::Serializer;
use zeroize::Zeroizing;

use super::Request;
use crate::outbound::Body;
use crate::token::SubjectToken;

/// Parameters that every exchange sets itself, which `extra` may not.
pub(super) const SHARED: [&str; 7] =
    ["grant_type", "resource", "scope", "client_id", "client_assertion", "client_assertion_type", "client_secret"];

/// The body of a token request: the grant, the exchange's own parameters, then what is asked for and as whom.
pub(super) fn body(grant: &str, own: &[(&str, &str)], subject: &SubjectToken, request: &Request) -> Body {
    // Room for everything at once: growing would leave copies of the assertion in freed memory.
    let room = subject.expose().len() * 4 + 8 * 1024;
    let mut form = Serializer::new(String::with_capacity(room));
    form.append_pair("grant_type", grant);
    form.extend_pairs(own);
    if let Some(resource) = &request.resource {
        form.append_pair("resource", resource.as_str());
    }
    if !request.scopes.is_empty() {
        form.append_pair("scope", &request.scopes.to_string());
    }
    if let Some(client_id) = &request.client_id {
        form.append_pair("client_id", client_id);
    }
    if let Some(audience) = &request.audience {
        form.append_pair("audience", audience);
    }
    form.extend_pairs(request.client_auth.proof(subject));
    form.extend_pairs(&request.extra);
    Body { content_type: "application/x-www-form-urlencoded", bytes: Zeroizing::new(form.finish().into_bytes()) }
}
