//! The HTTP client for the APIs of platforms that are on a Unix socket.

use std::path::Path;
use std::sync::Arc;

use reqwest::Client;

use super::call::{Call, Collected, WORDS_LIMIT};
use super::rules::Rules;
use super::{Answer, CONNECT_LIMIT, Error, KEPT, KEPT_FOR, USER_AGENT};

/// A client that dials this socket, whatever the host of the URL.
pub(super) fn over(socket: &Path, rules: Rules, tls: rustls::ClientConfig) -> Result<Client, Error> {
    let client = Client::builder()
        .unix_socket(socket)
        .no_proxy()
        .tls_backend_preconfigured(tls)
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .connect_timeout(CONNECT_LIMIT)
        .pool_idle_timeout(KEPT_FOR)
        .pool_max_idle_per_host(KEPT)
        .user_agent(USER_AGENT)
        .dns_resolver(Arc::new(rules));
    client.build().map_err(|error| Error::Roots { what: error.to_string() })
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
    if !collected.wants_body() {
        return Ok(collected.answer());
    }
    if !collected.is_decided() {
        read_body(&call, &mut response, &mut collected).await?;
        return Ok(collected.answer());
    }
    match tokio::time::timeout(WORDS_LIMIT, read_body(&call, &mut response, &mut collected)).await {
        Ok(Ok(())) => Ok(collected.answer()),
        Ok(Err(_)) | Err(_) => Ok(collected.without_body()),
    }
}

async fn read_body(call: &Call, response: &mut reqwest::Response, collected: &mut Collected) -> Result<(), Error> {
    while let Some(piece) = response.chunk().await.map_err(|error| Error::from_reqwest(&call.host, &error))? {
        collected.add(&call.host, &piece)?;
    }
    Ok(())
}
