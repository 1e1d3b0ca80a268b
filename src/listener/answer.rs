//! Makes responses, with the fields that each of them has.

use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Response, StatusCode};

use super::body::Body;

/// A response that nobody may store (RFC 9111 section 5.2.2.5). The map of its request's fields, which are dropped, is used again
/// for its own: each map takes two allocations.
pub fn answer(status: StatusCode, of_request: HeaderMap, media: Option<HeaderValue>, body: Body) -> Response<Body> {
    let mut fields = of_request;
    fields.clear();
    fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(media) = media {
        fields.insert(CONTENT_TYPE, media);
    }
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = fields;
    response
}
