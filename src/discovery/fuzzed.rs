//! What the fuzz targets call: metadata and challenges as a hostile server may send them. Compiled for tests and fuzzing
//! only.

use reqwest::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};

use super::document::{self, ResourceDocument};
use crate::oauth::{Issuer, Members, ServerUrl, challenge};

/// Reads each line as one `WWW-Authenticate` field. Panics if the result holds more than the fields did.
pub fn read_challenge(bytes: &[u8]) {
    let mut headers = HeaderMap::new();
    for value in bytes.split(|byte| *byte == b'\n').filter_map(|line| HeaderValue::from_bytes(line).ok()) {
        headers.append(WWW_AUTHENTICATE, value);
    }
    let found = challenge::read(&headers.get_all(WWW_AUTHENTICATE));
    let kept = [&found.resource_metadata, &found.error].into_iter().flatten().map(String::len).sum::<usize>();
    let named = found.schemes.iter().map(String::len).sum::<usize>();
    // Bytes that are no UTF-8 are read as the character that stands for them.
    assert!(kept + named <= String::from_utf8_lossy(bytes).len(), "a parser cannot find more text than there is");
    assert!(found.schemes.iter().all(|scheme| !scheme.is_empty()), "a challenge has a scheme");
}

/// Reads the bytes as both documents. Panics if a document that passes its checks speaks for another party.
pub(crate) fn read_documents(bytes: &[u8]) {
    let server = ServerUrl::parse("https://mcp.example/tenant/mcp").expect("a URL");
    let issuer = Issuer::parse("https://as.example/tenant").expect("an issuer");
    let Some(members) = std::str::from_utf8(bytes).ok().and_then(|text| Members::read(text).ok()) else { return };
    for place in ["https://mcp.example/x", "https://elsewhere.example/x"] {
        let place = ServerUrl::parse(place).expect("a URL");
        let Ok(document) = ResourceDocument::read(&members) else { break };
        let Ok(metadata) = document.checked(&place, &server) else { continue };
        assert!(metadata.resource.stands_for(&server), "a resource that passed stands for the server");
        let is_own = metadata.resource.is(&server);
        assert!(
            metadata.resource.as_str() == server.as_str() || place.same_origin(&server),
            "another origin speaks for exactly this URL only"
        );
        assert!(is_own || metadata.confirm_at.is_some(), "what lies above the URL is to be confirmed");
    }
    if let Ok(metadata) = document::server(&members, &issuer) {
        assert_eq!(metadata.issuer, issuer);
        let endpoints = [Some(&metadata.token_endpoint), metadata.revocation_endpoint.as_ref()];
        for endpoint in endpoints.into_iter().flatten() {
            assert!(ServerUrl::parse(endpoint).is_ok(), "an endpoint that passed is a usable URL");
        }
    }
}
