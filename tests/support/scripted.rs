//! `Scripted`: a server of fixed answers, for what real servers were seen to send. It verifies nothing: what it serves is the
//! behaviour under test, and the parties beside it verify.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Response;
use serde::Deserialize;

use super::listener::{Bound, Listener};

/// One answer.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Page {
    #[serde(default = "ok")]
    pub status: u16,
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    #[serde(default)]
    pub body: String,
}

fn ok() -> u16 {
    200
}

pub struct Scripted {
    base: String,
    _listener: Listener,
}

impl Scripted {
    /// Serves on a bound port, whose URL the pages may contain. A path without a page is 404.
    pub fn serve(bound: Bound, pages: BTreeMap<String, Page>) -> Self {
        let (base, pages) = (bound.base().to_owned(), Arc::new(pages));
        let listener = bound.serve(move |request| {
            let page = pages.get(request.uri().path()).cloned();
            async move {
                let page = page.unwrap_or(Page { status: 404, headers: BTreeMap::new(), body: String::new() });
                let mut answer = Response::builder().status(page.status);
                for (name, value) in &page.headers {
                    answer = answer.header(name, value.as_bytes());
                }
                let body = Full::new(Bytes::from(page.body)).map_err(|never| match never {}).boxed_unsync();
                Ok(answer.body(body).expect("a script is an answer"))
            }
        });
        Self { base, _listener: listener }
    }

    pub fn base(&self) -> &str {
        &self.base
    }
}
