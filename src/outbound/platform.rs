//! The HTTP client for what lies beside the workload: metadata services and identity endpoints of platforms, on fixed
//! addresses, on loopback or on a Unix socket, never through a proxy.

use std::path::Path;
use std::sync::Arc;

use reqwest::{Client, ClientBuilder};

use super::call::{Call, Collected};
use super::rules::Rules;
use super::{Answer, CONNECT_LIMIT, Error, KEPT, KEPT_FOR, USER_AGENT};

/// A client that dials what the rules allow.
pub(super) fn client(rules: Rules, tls: rustls::ClientConfig) -> Result<Client, Error> {
    build(builder(rules, tls))
}

/// A client that dials this socket, whatever the host of the URL.
pub(super) fn over(socket: &Path, rules: Rules, tls: rustls::ClientConfig) -> Result<Client, Error> {
    build(builder(rules, tls).unix_socket(socket))
}

fn builder(rules: Rules, tls: rustls::ClientConfig) -> ClientBuilder {
    Client::builder()
        .no_proxy()
        .tls_backend_preconfigured(tls)
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .connect_timeout(CONNECT_LIMIT)
        .pool_idle_timeout(KEPT_FOR)
        .pool_max_idle_per_host(KEPT)
        .user_agent(USER_AGENT)
        .dns_resolver(Arc::new(rules))
}

fn build(builder: ClientBuilder) -> Result<Client, Error> {
    builder.build().map_err(|error| Error::Roots { what: error.to_string() })
}

/// Sends a request and reads the answer as far as the call wants it.
pub(super) async fn send(client: &Client, mut call: Call) -> Result<Answer, Error> {
    let body = call.take_body();
    let mut request = client.request(call.method.clone(), call.url.clone()).headers(call.headers.clone());
    if !body.is_empty() {
        request = request.body(body);
    }
    let mut response = request.send().await.map_err(|error| Error::from_reqwest(&call.host, &error))?;
    let headers = std::mem::take(response.headers_mut());
    let mut collected = Collected::new(&call, response.status(), headers)?;
    while collected.wants_more() {
        let piece = response.chunk().await.map_err(|error| Error::from_reqwest(&call.host, &error))?;
        let Some(piece) = piece else { break };
        collected.add(&call.host, &piece)?;
    }
    Ok(collected.answer())
}
