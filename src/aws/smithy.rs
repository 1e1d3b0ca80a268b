//! The SDK's HTTP client: sends its requests through `outbound`, under our limits and egress rules.
//!
//! Each call is one request without a retry; the caller decides whether to try again.

use std::time::Duration;

use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use reqwest::Method;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use zeroize::Zeroizing;

use crate::outbound::{Ask, Body, NamedBy, Outbound};

/// STS answers within a second; a region in trouble within a few.
const PER_TRY: Duration = Duration::from_secs(5);
/// The only media type of the query protocol.
const FORM: &str = "application/x-www-form-urlencoded";

/// An HTTP client for the SDK, backed by `outbound`. Its hosts are compiled in or configured.
pub(super) fn over(outbound: &Outbound) -> SharedHttpClient {
    let connector = SharedHttpConnector::new(Over(outbound.clone()));
    http_client_fn(move |_, _| connector.clone())
}

struct Over(Outbound);

impl std::fmt::Debug for Over {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Over(..)")
    }
}

impl HttpConnector for Over {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let outbound = self.0.clone();
        HttpConnectorFuture::new(async move {
            let ask = ask(&request).map_err(|what| ConnectorError::user(what.into()))?;
            let answer = outbound.send(ask).await.map_err(|error| ConnectorError::other(Box::new(error), None))?;
            let status = answer.status.try_into().map_err(|error| ConnectorError::other(Box::new(error), None))?;
            Ok(HttpResponse::new(status, SdkBody::from(answer.body.to_vec())))
        })
    }
}

fn ask(request: &HttpRequest) -> Result<Ask, &'static str> {
    let body = request.body().bytes().ok_or("a body that is not in memory")?;
    if request.headers().get(CONTENT_TYPE.as_str()) != Some(FORM) {
        return Err("a body that is no form");
    }
    let mut headers = Vec::new();
    for (name, value) in request.headers() {
        let name = HeaderName::try_from(name).map_err(|_| "the name of a field")?;
        let mut value = HeaderValue::try_from(value).map_err(|_| "the value of a field")?;
        // `outbound` writes both with the body.
        if name == CONTENT_TYPE || name == CONTENT_LENGTH {
            continue;
        }
        value.set_sensitive(true);
        headers.push((name, value));
    }
    Ok(Ask {
        method: Method::from_bytes(request.method().as_bytes()).map_err(|_| "a method")?,
        url: request.uri().to_owned(),
        headers,
        body: Some(Body { content_type: FORM, bytes: Zeroizing::new(body.to_vec()) }),
        socket: None,
        named_by: NamedBy::Us,
        limit: PER_TRY,
        repeatable: false,
        certificate: None,
    })
}
